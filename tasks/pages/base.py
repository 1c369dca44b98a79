"""What all pages share: templates that escape everything, isolated names, and a place."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from schemas.errors import WarehouseError
from schemas.foreign_text import printable_lines

_RUN_ID = re.compile(r"[a-z0-9-]{1,64}")


def page_environment(folder: Path, filters: Mapping[str, Callable[..., Any]]) -> Environment:
    """Templates of `folder` with additional filters, and `name` for every text from a catalogue.

    Every text, wherever it stands, is escaped and without control characters and signs of writing
    direction.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    environment.filters.update(filters, name=_name, script_hash=_script_hash)
    return environment


def _plain(value: object) -> object:
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _name(text: str | None) -> Markup:
    """A name or an id, isolated: if written right to left, it does not turn around what follows."""
    return Markup("<bdi>") + escape(printable_lines(text or "")) + Markup("</bdi>")


def _script_hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode("ascii")


def report_path(run_id: str) -> str:
    """Where the report of a run lies below the warehouse's root.

    Raises `WarehouseError` for what is no run's id: a table that others have written to must not lead
    elsewhere.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise WarehouseError(
            f"{run_id!r} is no id of a run", "the table `runs` was tampered with: pairx check"
        )
    return f"reports/{run_id}.html"
