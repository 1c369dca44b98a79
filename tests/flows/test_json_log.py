"""What a run says in JSON: one object a line, with numbers, without secrets."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import log_format
from flows.cli import main as cli
from flows.commands import run as commands
from flows.work.json_progress import JsonProgress
from flows.work.progress import Terminal, reporter
from schemas.errors import SettingsError
from tasks.runs.log import StageLog
from tasks.runs.tonight import Tonight
from tests.flows.test_notify import catalogue, ended, summary  # noqa: F401  # fixtures


@pytest.fixture
def in_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PAIRX_LOG_FORMAT", "text")
    handlers = {name: logging.getLogger(name).handlers for name in log_format._TALKING}
    log_format.choose("json")
    yield
    for name, before in handlers.items():
        logging.getLogger(name).handlers = before


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_progress_is_objects_with_numbers(
    in_json: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    one = reporter(quiet=False)
    assert isinstance(one, JsonProgress)
    one.begin("embed", 200, "photos")
    now[0] += 4
    one.advance(64)  # too soon to be said
    now[0] += 4
    one.advance(64)
    log = StageLog("embed", 4, 190, 10, 16.0, items=200, worker_seconds=30.0, parts={"decoding": 21.3})
    one.end("190 of 200 photos in 4 shards", log)
    begun, moved, over = said(capsys)
    assert (begun["event"], begun["stage"], begun["items"], begun["unit"]) == (
        "stage_begun",
        "embed",
        200,
        "photos",
    )
    assert {k: moved[k] for k in ("event", "done", "items", "per_second", "seconds_left")} == {
        "event": "progress", "done": 128, "items": 200, "per_second": 16.0, "seconds_left": 4.5
    }  # fmt: skip
    assert (over["event"], over["message"]) == ("stage_ended", "190 of 200 photos in 4 shards")
    assert (over["per_second"], over["failed"], over["parts"]) == (12.5, 10, {"decoding": 21.3})
    assert all({"time", "level", "event"} <= line.keys() for line in (begun, moved, over))


def test_quiet_leaves_notices(in_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    one = reporter(quiet=True)
    one.begin("embed", 2, "photos")
    one.notice("the cluster has no worker left")
    one.end("done", None)
    (line,) = said(capsys)
    assert (line["event"], line["level"], line["message"]) == (
        "notice",
        "warning",
        "the cluster has no worker left",
    )


def test_secrets_are_hidden_wherever_they_stand(in_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "s3://me:word@store/b?token=abc"
    log_format.say("note", f"reading {secret}", deep={"list": [secret], secret: 1})
    logging.getLogger("pairx").warning("lost %s", secret)
    note, logged = said(capsys)
    assert note["message"] == "reading s3://…@store/b?…"
    assert note["deep"]["list"] == ["s3://…@store/b?…"]
    assert (logged["event"], logged["level"], logged["message"]) == (
        "log",
        "warning",
        "lost s3://…@store/b?…",
    )


def test_what_would_steer_a_terminal_is_escaped(in_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    log_format.say("note", "a\x1b[2J\u202eb\nc")
    out = capsys.readouterr().err
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out)["message"] == "a\x1b[2J\u202eb\nc"


def test_the_summary_is_an_object_on_standard_output(
    in_json: None,
    catalogue: str,  # noqa: F811
    ended: Any,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended(summary(Tonight(2, 5, 1, 0, 3)))
    commands.run_catalogue(catalogue, "w", None, None, {}, False, False, False, False)
    out, err = capsys.readouterr()
    assert {json.loads(line)["event"] for line in err.splitlines()} == {"note"}
    found = json.loads(out)
    assert (found["event"], found["status"], found["exit_code"]) == ("summary", "finished", 0)
    assert found["message"] == "tonight: 2 new photos, 5 new pairs, 1 new suspect, 0 gone, 3 names changed"
    assert found["tonight"]["new_pairs"] == 5
    assert found["counts"] == {"photos": 3}
    assert found["stages"]["ingest"]["failed"] == 0


def test_an_error_is_an_object_with_the_exit_code(
    in_json: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pairx", "run", str(tmp_path / "none.csv"), "--log-format", "json"]
    monkeypatch.setattr(sys, "argv", words)
    assert cli._run() == 2
    (line,) = said(capsys)
    assert (line["event"], line["level"], line["exit_code"]) == ("error", "error", 2)
    assert "none.csv cannot be used" in line["message"]


def test_text_is_the_default_and_other_formats_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAIRX_LOG_FORMAT", raising=False)
    assert isinstance(reporter(quiet=False), Terminal)
    with pytest.raises(SettingsError, match="no log format 'jsn'; did you mean json"):
        log_format.choose("jsn")
