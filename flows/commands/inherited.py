"""Settings that a command takes over from a warehouse's newest run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tasks  # noqa: F401  # settings learn from it what they may name
from schemas.settings import Settings, load_settings

_RUNS_CONCERN = (
    "figures", "cluster", "workers", "columns", "strip_prefix", "encounter_gap", "unknown_names",
)  # fmt: skip
"""Settings of how a stored run ran and read its catalogue, not of what it computed; they are not inherited."""
_BELONG_TO = {"model": ("model_revision", "resize", "layers"), "matcher": ("matcher_weights",)}
"""Settings that concern the stored run's model or matcher only, and no other one."""


def with_inherited(inherited: Mapping[str, Any], asked: Mapping[str, Any]) -> Settings:
    """The settings that were asked for, and for the rest those of a stored run.

    Where another model or matcher is asked for, settings that belong to the stored one are not taken over.
    """
    dropped = {*_RUNS_CONCERN}
    for name, belonging in _BELONG_TO.items():
        if name in asked and asked[name] != inherited.get(name):
            dropped |= {*belonging}
    kept = {name: value for name, value in inherited.items() if name not in dropped}
    return load_settings(overrides=kept | dict(asked))
