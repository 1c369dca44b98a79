"""How a command says what happens: lines for people, or a JSON object a line for programs.

The choice is a variable of the environment, so that worker processes of this machine make it, too. Secrets of
addresses are hidden in every object.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.errors import SettingsError, did_you_mean
from schemas.foreign_text import escaped_json
from schemas.storage_errors import masked

FORMATS = ("text", "json")
_VARIABLE = "PAIRX_LOG_FORMAT"
_TALKING = ("", "distributed", "tornado", "asyncio")
"""Loggers whose own handlers would print lines that are no JSON; the first is that of all others."""


def choose(name: str) -> None:
    """Use this format from now on; raises `SettingsError` that lists the formats for another name."""
    if name not in FORMATS:
        raise SettingsError(
            f"there is no log format {name!r}{did_you_mean(name, FORMATS)}", f"use {' or '.join(FORMATS)}"
        )
    os.environ[_VARIABLE] = name
    if name == "json":
        take_over_logging()


def is_json() -> bool:
    """Whether what happens is said in JSON."""
    return os.environ.get(_VARIABLE) == "json"


def take_over_logging() -> None:
    """Let what libraries log be JSON as well; to be called again after one has set up its own handlers."""
    for name in _TALKING:
        logger = logging.getLogger(name)
        if not name or logger.handlers:
            logger.handlers = [_Handler()]


def say(event: str, message: str = "", level: str = "info", **numbers: Any) -> None:
    """Print an object on standard error: `time` (UTC), `level`, `event`, `message`, and what else there is."""
    print(line(event, message, level, **numbers), file=sys.stderr, flush=True)


def line(event: str, message: str = "", level: str = "info", **numbers: Any) -> str:
    """The object as one line of text."""
    said = {"time": datetime.now(UTC).isoformat(), "level": level, "event": event}
    said |= {"message": message} if message else {}
    return escaped_json(json.dumps(_hidden(said | numbers), ensure_ascii=False, default=str))


def _hidden(value: Any) -> Any:
    """The value with the secrets of all addresses in its texts hidden."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {str(name): _hidden(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(part) for part in value]
    return value


class _Handler(logging.Handler):
    """Records of Python's logging as objects of the event `log`."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        try:
            say("log", record.getMessage(), record.levelname.lower(), logger=record.name)
        except Exception:  # as Python's own handlers: what cannot be said must not end the work
            self.handleError(record)
