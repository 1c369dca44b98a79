"""Settings as a run stored them: text in the table runs, which may be damaged or of another version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from schemas.errors import WarehouseError

_CURE = "run again, which makes a newer run, or look at another one: SELECT run_id FROM all_runs lists them"
_INTEGERS = range(-(1 << 31), 1 << 31)


def stored_settings(run_id: str, text: str | None) -> dict[str, Any]:
    """The settings of a run, by name; `WarehouseError` for text that is no JSON object."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        why = "nested absurdly deep" if isinstance(error, RecursionError) else str(error)
        raise _damaged(run_id, why) from error
    if not isinstance(found, dict):
        raise _damaged(run_id, "no JSON object")
    return found


def chosen(run_id: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings named in `defaults` from a run's settings; an absent one has its default.

    Each is a truth value or a small whole number, as its default is. Raises `WarehouseError` for a value
    of another kind.
    """
    found = {}
    for name, default in defaults.items():
        value = settings.get(name, default)
        if type(value) is not type(default) or value not in _INTEGERS:
            raise _damaged(run_id, f"{name} is {value!r:.40}")
        found[name] = value
    return found


def _damaged(run_id: str, why: str) -> WarehouseError:
    return WarehouseError(
        f"the settings of run {run_id!r}, as stored in the table runs, are damaged: {why}", _CURE
    )
