"""What a run tells its user's command, and by which exit codes it ends; the commands are real."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.commands import run as commands
from flows.commands.notify import Hook
from flows.night import run as night
from flows.night.values import RunSummary
from flows.work.hands import Unreported
from flows.work.progress import Silent
from flows.work.stage_runner import StageRunner
from schemas.errors import PairxError, SettingsError
from tasks.runs.log import Balance, StageLog
from tasks.runs.tonight import Tonight
from tasks.shards import ShardResult
from tests.flows.test_cli import write_catalogue

KEYS = {
    "run", "status", "exit_code", "warehouse", "catalogue", "started", "ended", "message", "report", "tonight", "counts",
    "balances", "failed", "expected_errors",
}  # fmt: skip


@pytest.fixture
def catalogue(tmp_path: Path) -> str:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    return str(write_catalogue(tmp_path / "one.csv", [{"image_id": "a", "identity": "A", "path": "a.jpg"}]))


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Where `keeping` puts what it is told."""
    return tmp_path / "told folder" / "it's told.json"


def keeping(told: Path) -> str:
    """A command that keeps its standard input, in a file whose name needs quotation marks."""
    told.parent.mkdir(exist_ok=True)
    script = told.parent / "keep.py"
    script.write_text("import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read()); print('kept')")
    return f'"{sys.executable}" "{script}" "{told}"'


def summary(tonight: Tonight, failed: int = 0) -> RunSummary:
    stages = (StageLog("ingest", failed=failed), StageLog("embed"))
    sums = (Balance("photos", 3, 2, "embedded", 1),)
    counts = {"photos": 3}
    wrong = (1.5, 0.5, 3.0)
    return RunSummary("r1", "w/reports/r1.html", counts, sums, stages, datetime.now(UTC), tonight, wrong)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets runs end as told: with a summary, or with an error."""

    @contextmanager
    def at_work(*_: object) -> Iterator[tuple[None, None]]:
        yield None, None

    def end(result: RunSummary | Exception) -> None:
        def run(*_: object) -> RunSummary:
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(commands, "warehouse_for", at_work)
        monkeypatch.setattr(night, "run", run)

    return end


def run(catalogue: str, **options: Any) -> None:
    commands.run_catalogue(catalogue, "w", None, None, {}, False, False, False, False, **options)


def test_a_finished_run_is_told_whole(
    catalogue: str, told: Path, ended: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    ended(summary(Tonight(2, 5, 1, 0, 3)))
    run(catalogue, notify=keeping(told))
    facts = json.loads(told.read_text(encoding="utf-8"))
    assert facts.keys() == KEYS
    assert facts["started"] <= facts["ended"]
    assert {k: facts[k] for k in KEYS - {"started", "ended", "run"}} == {
        "status": "finished", "exit_code": 0, "warehouse": "w", "catalogue": catalogue, "message": None,
        "report": "w/reports/r1.html", "counts": {"photos": 3},
        "tonight": {"new_photos": 2, "new_pairs": 5, "new_suspects": 1, "gone_suspects": 0, "changed_names": 3},
        "balances": [{"text": "photos 3 = embedded 2 + failed 1", "ok": True}], "failed": {},
        "expected_errors": {"expected": 1.5, "low": 0.5, "high": 3.0},
    }  # fmt: skip
    assert facts["run"].startswith(f"{datetime.now(UTC):%Y}")
    out, err = capfd.readouterr()
    assert (
        out.splitlines()[-1] == "tonight: 2 new photos, 5 new pairs, 1 new suspect, 0 gone, 3 names changed"
    )
    assert "kept" in err
    assert "kept" not in out


def test_a_failed_run_is_told_without_secrets(catalogue: str, told: Path, ended: Any) -> None:
    ended(PairxError("no answer from https://user:pass@store.example/b?token=abc", "ask again"))
    with pytest.raises(PairxError, match="no answer"):
        run(catalogue, notify=keeping(told))
    facts = json.loads(told.read_text(encoding="utf-8"))
    assert facts.keys() == KEYS
    assert (facts["status"], facts["exit_code"]) == ("failed", 1)
    assert facts["run"] is not None
    assert facts["message"] == "no answer from https://…@store.example/b?…\n  cure: ask again"
    assert facts["tonight"] is facts["counts"] is facts["report"] is None


def test_a_run_that_never_began_is_told_too(tmp_path: Path, told: Path) -> None:
    with pytest.raises(PairxError):
        run(str(tmp_path / "absent.csv"), notify=keeping(told))
    facts = json.loads(told.read_text(encoding="utf-8"))
    assert facts.keys() == KEYS
    assert (facts["status"], facts["exit_code"], facts["run"]) == ("failed", 2, None)
    assert "absent.csv" in facts["message"]


@pytest.mark.parametrize(
    ("tonight", "failed", "fail_on", "code"),
    [
        (Tonight(new_suspects=2), 0, ("new-suspects",), 4),
        (Tonight(new_photos=9, gone_suspects=2), 0, ("new-suspects",), 0),
        (Tonight(new_suspects=2), 3, ("new-suspects", "failures"), 1),
        (Tonight(new_suspects=2), 3, ("failures",), 1),
        (Tonight(new_suspects=2), 0, ("failures",), 0),
        (Tonight(new_suspects=2), 3, (), 0),
    ],
)
def test_news_set_the_exit_code_where_asked(
    catalogue: str, told: Path, ended: Any, tonight: Tonight, failed: int, fail_on: tuple[str, ...], code: int
) -> None:
    ended(summary(tonight, failed))
    found = 0
    try:
        run(catalogue, fail_on=fail_on, notify=keeping(told))
    except PairxError as error:
        found = error.exit_code
    assert found == code
    facts = json.loads(told.read_text(encoding="utf-8"))
    assert (facts["status"], facts["exit_code"]) == ("finished", code)


def test_a_command_that_fails_is_a_warning(
    catalogue: str, ended: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    ended(summary(Tonight()))
    run(catalogue, notify=f'"{sys.executable}" -c "import sys; sys.exit(7)"')
    out, err = capfd.readouterr()
    assert "--notify ended with 7" in err
    assert out.splitlines()[-1] == "tonight: nothing new"


def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    late = tmp_path / "late"
    begun = time.monotonic()
    Hook.of(f"sh -c '(sleep 3; touch {late}) & sleep 60'").tell({}, 0.5)
    assert time.monotonic() - begun < 30
    assert "took longer than 0.5 s and was ended" in capfd.readouterr().err
    time.sleep(3.5)
    assert not late.exists()


def test_no_shell_reads_the_command_and_none_need_read_its_input(tmp_path: Path) -> None:
    made = tmp_path / "made"
    Hook.of(f"echo hello; touch {made}").tell({"photos": "x" * 1_000_000})
    assert not made.exists()
    Hook.of(f"sh -c 'cat > {made}'").tell({"said": "a photo; $(touch x) 'quoted'"})
    assert json.loads(made.read_text()) == {"said": "a photo; $(touch x) 'quoted'"}


def test_the_artifact_says_first_what_is_new_and_where_the_time_went() -> None:
    sent: list[tuple[str, str]] = []

    class Heard(Unreported):
        def summary(self, key: str, markdown: str, description: str) -> None:
            sent.append((key, markdown))

    job: Any = SimpleNamespace(settings=SimpleNamespace(shard_minutes=1))
    hands: Any = SimpleNamespace(progress=Heard())
    runner = StageRunner(job, Silent(), hands=hands)
    embed = ShardResult("embed", "a", 3, 0, worker_seconds=10.0, parts={"decoding": 7.1, "reading": 1.0})
    runner.logs = [StageLog("ingest"), StageLog.of("embed", [embed], 6.0, 3)]
    runner.publish("w/reports/r1.html", (Balance("photos", 3, 3, "embedded", 0),), Tonight(2))
    ((key, text),) = sent
    assert "- embed: decoding took 71 % of the workers' time" in text
    assert (
        text.splitlines()[-1] == "| embed | 1 | 3 | 0.5 | 0 | 6.0 | decoding 71 %, other 19 %, reading 10 % |"
    )
    assert key == "pairx-run"
    assert text.splitlines()[:3] == [
        "**tonight: 2 new photos, 0 new pairs, 0 new suspects, 0 gone, 0 names changed**", "", "- photos 3 = embedded 3 + failed 0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "said"),
    [("", "names no command"), ("'open", "cannot be read"), ("no-such-program -x", "there is no program 'no-such-program'")],
)  # fmt: skip
def test_a_command_that_cannot_start_is_refused_before_any_work(
    catalogue: str, command: str, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        run(catalogue, notify=command)
