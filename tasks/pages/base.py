"""What all pages share: templates that escape everything, and isolated names."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from schemas.foreign_text import printable_lines


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
