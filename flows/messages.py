"""What a command says of an error: one message and an exit code, never a traceback.

The traceback of a fault in this program goes to a file.
"""

from __future__ import annotations

import os
import tempfile
import traceback

from pairx_engine.errors import PairxError
from schemas.storage_errors import masked

_STORAGE = "see that the storage answers, has space and lets you write; what is done is kept: run the same command again"
_FAULT = "this is a fault in the program; its details are in {path}. What is done is kept"
_OF_STORAGE = ("botocore", "aiobotocore", "s3fs", "gcsfs", "adlfs", "aiohttp", "fsspec")
"""Packages whose errors are those of an object store."""


def message_of(error: BaseException) -> tuple[str, int]:
    """The message for an error, with its cure, and the exit code of the command."""
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, PairxError):
        return str(error), error.exit_code
    if package in ("duckdb", "_duckdb"):
        return (
            f"{last_words(error)}\n  cure: `pairx check` names damaged files, with --quarantine it moves them aside; then run again",
            1,
        )
    if package in _OF_STORAGE or isinstance(error, OSError):
        return f"files cannot be read or written: {last_words(error)}\n  cure: {_STORAGE}", 1
    if isinstance(error, MemoryError):
        return "there is not enough memory\n  cure: use fewer --workers, or end other programs", 1
    return f"{type(error).__name__}: {last_words(error)}\n  {_FAULT.format(path=_keep(error))}", 1


def last_words(error: BaseException) -> str:
    """The text of an error; where that holds a traceback, as DuckDB's may, its last line."""
    text = masked(str(error).strip()) or type(error).__name__
    return text.rpartition("\n")[2] if text.startswith("Traceback") else text


def _keep(error: BaseException) -> str:
    """Write the error's traceback to a new temporary file and return its path."""
    handle, path = tempfile.mkstemp(prefix="pairx-error-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(traceback.format_exception(error))
    return path
