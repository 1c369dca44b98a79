"""The formats of `pairx review export`, one line each: a new one is a function of a request and its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import duckdb

from schemas.errors import SettingsError
from tasks.reviews.corrected.plan import VIEWS as PLAN_VIEWS
from tasks.reviews.corrected.plan import plan_of
from tasks.reviews.exchange import asked, csv_file, label_studio, names
from tasks.reviews.exchange.incoming import Answer


@dataclass(frozen=True)
class Request:
    """What to export: open questions, or verdicts, or second looks; the first `top`; where pictures lie."""

    verdicts: bool = False
    second_look: bool = False
    top: int | None = None
    images: str = "/data/local-files/?d="


Written = tuple[str, Mapping[str, str]]
"""The text of the file, and of files beside it by their suffix."""


@dataclass(frozen=True)
class Format:
    """How a format is written: the views that it reads, and a function to the file's text and those beside it."""

    write: Callable[[duckdb.DuckDBPyConnection, Request], Written]
    views: tuple[str, ...]


def _csv(connection: duckdb.DuckDBPyConnection, request: Request) -> Written:
    return csv_file.written(_rows(connection, request)), {}


def _label_studio(connection: duckdb.DuckDBPyConnection, request: Request) -> Written:
    if request.verdicts:
        raise SettingsError(
            "Label Studio takes questions, not verdicts", "leave --verdicts out, or use --format csv"
        )
    return label_studio.written(_rows(connection, request), request.images), {".xml": label_studio.CONFIG}


def _wildbook(connection: duckdb.DuckDBPyConnection, request: Request) -> Written:
    return names.wildbook_csv(connection, plan_of(connection)), {}


def _frame(connection: duckdb.DuckDBPyConnection, request: Request) -> Written:
    return names.frame_csv(connection, plan_of(connection)), {}


def _rows(connection: duckdb.DuckDBPyConnection, request: Request) -> list[asked.Row]:
    return asked.rows_of(connection, request.verdicts, request.second_look)[: request.top]


FORMATS: Mapping[str, Format] = {
    "csv": Format(_csv, asked.VIEWS),
    "label-studio": Format(_label_studio, asked.VIEWS),
    "wildbook": Format(_wildbook, PLAN_VIEWS),
    "frame": Format(_frame, PLAN_VIEWS),
}
"""Name -> format."""


def answers_in(name: str, data: bytes) -> list[Answer]:
    """The answers in a file: Label Studio's JSON, or CSV."""
    is_json = name.lower().endswith(".json") or data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")
    return label_studio.answers_in(data) if is_json else csv_file.answers_in(data)
