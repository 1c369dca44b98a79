"""Nights with little or nothing new: what they start, and that their rows are those of any other night."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.night import run as night
from flows.night.values import Night, RunOptions, RunSummary
from flows.work.progress import Silent
from schemas.settings import Settings
from tasks.check.findings import check
from tasks.job import Job, prepare_job
from tasks.runs.newest import newest_finished
from tasks.runs.standing import unchanged_since
from tasks.store.warehouse import Warehouse
from tests.finished_runs import Finished
from tests.flows.running import environment, run_arguments, run_flow, shards_of
from tests.flows.test_poison import few, poisoned  # noqa: F401  # a fixture
from tests.small_catalogue import EVERYTHING, TINY, assert_same_rows, read_small, rewrite, rows_of

HEAVY = ("torch", "timm", "prefect", "distributed", "dask", "sklearn", "matplotlib")
COMMAND = f"""
import sys
from flows.cli import main
if __name__ == "__main__":
    sys.argv[0] = "pairx"
    code = main._run()
    print("imported:", *[name for name in {HEAVY!r} if name in sys.modules])
    sys.exit(code)
"""


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Prefect API is configured."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def pairx(*arguments: str) -> tuple[list[str], str]:
    """The lines that a command of its own prints, and the heavy libraries that it imported."""
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    *lines, imported = ended.stdout.splitlines()
    return lines, imported


def test_an_unchanged_rerun_starts_no_server_no_cluster_and_no_model(
    undisturbed: Finished, small: Path, tmp_path: Path
) -> None:
    warehouse = undisturbed.copy(tmp_path / "w")
    asked = [*run_arguments(small, tmp_path / "w"), "--quiet"]
    first, _ = pairx(*asked)  # it learns what the model is: the run before was no command
    second, imported = pairx(*asked)
    assert imported == "imported:"
    report = f"{warehouse.root}/reports/{undisturbed.summary.run_id}.html"
    for lines in (first, second):
        assert lines[:4] == [str(balance) for balance in undisturbed.summary.balances]
        assert lines[4] == f"report: {report}  (unchanged since run {undisturbed.summary.run_id})"
        assert lines[-1] == "tonight: nothing new"
    assert pairx("report", "--warehouse", warehouse.root) == ([report], "imported:")
    row = newest_finished(warehouse)
    assert row is not None
    assert row["report_run"] == undisturbed.summary.run_id
    counts = json.loads(row["counts"])
    assert counts == undisturbed.summary.counts | dict.fromkeys(
        ("new_photos", "new_pairs", "new_suspects", "gone_suspects", "changed_names"), 0
    )
    assert check(warehouse).problems == ()
    # The same settings with another number of pairs are another night.
    third, imported = pairx(*asked, "--top-k", "4")
    assert "torch" in imported
    assert "prefect" not in imported
    assert "tonight: nothing new" not in third


def known(job: Job, catalogue: Path) -> Any:
    asked = Night(read_small(catalogue), job, None, RunOptions(), Silent())  # type: ignore[arg-type]
    return unchanged_since(job, lambda rows: night._is_known(asked, rows))


CHANGES: dict[str, Callable[[Warehouse], None]] = {
    "a stored file is gone": lambda w: next(Path(w.root).glob("keypoints/*/*.parquet")).unlink(),
    "a file is new": lambda w: w.write("reviews", "all", "given", []) and None,
    "the report is gone": lambda w: next(Path(w.root).glob("reports/*.html")).unlink(),
    "the snapshot is damaged": lambda w: next(Path(w.root).glob("current/*/pairs-*.parquet")).unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_looked_at_again(
    undisturbed: Finished, small: Path, tmp_path: Path, change: str
) -> None:
    warehouse = undisturbed.copy(tmp_path / "w")
    job = prepare_job(warehouse, Settings(**TINY))
    assert known(job, small).run_id == undisturbed.summary.run_id
    CHANGES[change](warehouse)
    assert known(job, small) is None


def test_another_catalogue_or_another_question_is_no_unchanged_night(
    undisturbed: Finished, small: Path, tmp_path: Path
) -> None:
    warehouse = undisturbed.copy(tmp_path / "w")
    other = rewrite(small, "other_name.csv", lambda rows: [rows[0] | {"identity": "another"}, *rows[1:]])
    assert known(prepare_job(warehouse, Settings(**TINY)), other) is None
    fewer = rewrite(small, "fewer.csv", lambda rows: rows[1:])  # photos that it does not list stay
    assert known(prepare_job(warehouse, Settings(**TINY)), fewer) is not None
    for change in ({"figures": 3}, {"neighbours": 6}, {"top_k": 4}, {"max_keypoints": 128}):
        assert known(prepare_job(warehouse, Settings(**{**TINY, **change})), small) is None
    assert known(prepare_job(warehouse, Settings(**{**TINY, "workers": 7, "retries": 5})), small) is not None


def test_prefect_sees_an_unchanged_run_which_needs_no_worker(
    undisturbed: Finished, small: Path, tmp_path: Path, server: str
) -> None:
    from prefect.client.orchestration import get_client

    def flow_runs() -> int:
        with get_client(sync_client=True) as client:
            return sum(run.state_name == "Completed" for run in client.read_flow_runs(limit=200))

    before = flow_runs()
    nowhere = "tcp://127.0.0.1:1"  # nobody connects to this cluster
    summary = run_flow(small, undisturbed.copy(tmp_path / "w"), nowhere)
    assert summary.unchanged_since == undisturbed.summary.run_id
    assert flow_runs() == before + 1


def test_a_small_night_of_one_worker_gives_the_rows_of_prefect_and_a_cluster(
    small: Path, scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = rewrite(small, "most_of_it.csv", lambda rows: [r for i, r in enumerate(rows[:18]) if i % 4])
    whole = rewrite(small, "all_of_it.csv", lambda rows: rows[:18])
    seen, alone = Warehouse(str(tmp_path / "seen")), Warehouse(str(tmp_path / "alone"))
    run_flow(part, seen, scheduler)
    Finished(seen, None).copy(tmp_path / "alone")  # type: ignore[arg-type]
    with_prefect = run_flow(whole, seen, scheduler)
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setattr(night, "_with_prefect", refuse)
    one_alone = run_flow(whole, alone, "local", workers=2, photos_per_shard=8)
    assert shards_of(one_alone) == shards_of(with_prefect)
    assert one_alone.tonight == with_prefect.tonight
    assert [str(b) for b in one_alone.balances] == [str(b) for b in with_prefect.balances]
    assert_same_rows(seen, alone, EVERYTHING)
    embed = next(log for log in one_alone.stages if log.stage == "embed")
    assert 0 < sum(embed.parts.values()) <= embed.worker_seconds + 0.01


def refuse(*_: object) -> RunSummary:
    raise AssertionError("Prefect is not needed")


@pytest.mark.slow
def test_a_photo_that_ends_its_workers_fails_alone_without_prefect_too(
    few: tuple[Path, str, bytes],  # noqa: F811
    scheduler: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unseen: None,
) -> None:
    metadata, guilty, data = few
    monkeypatch.setattr(night, "_with_prefect", refuse)
    monkeypatch.setattr(night, "_is_seen", lambda: False)
    warehouse = Warehouse(str(tmp_path / "w"))
    with poisoned(scheduler, "tasks.photo_files", data, "die"):
        summary = run_flow(metadata, warehouse, scheduler, photos_per_shard=16)
    failures = rows_of(warehouse, "failures").values()
    assert [(f["stage"], f["item"]) for f in failures if f["code"] == "worker_died"] == [("embed", guilty)]
    assert all(balance.ok for balance in summary.balances)
