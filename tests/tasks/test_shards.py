from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pairx_engine.errors import EngineError, ModelError, PhotoError
from schemas.errors import AcceleratorFailure, WarehouseError
from schemas.failures import Failure, FailureCode
from schemas.stages import EMBED, SCORE, SWEEP
from tasks.job import Job
from tasks.shards import Stopwatch, chunks, commit, or_failure, peak_bytes
from tasks.store.warehouse import Warehouse

EMBEDDING = {"photo_id": "p", "chip_id": "c", "norm": 1.0, "embedding": [1.0]}
KEYPOINTS = {
    "photo_id": "p", "chip_id": "c", "view_width": 4, "view_height": 4, "x": [], "y": [], "score": [], "dimension": 1,
    "descriptors": [],
}  # fmt: skip


@given(st.lists(st.integers()), st.integers(1, 7))
def test_chunks_keep_everything_in_order(items: list[int], size: int) -> None:
    parts = list(chunks(items, size))
    assert [i for part in parts for i in part] == items
    assert all(len(part) == size for part in parts[:-1])
    assert all(parts)


@given(st.integers(1, 60), st.integers(1, 7), st.data())
def test_what_a_killed_run_left_falls_into_the_missing_shards(n: int, size: int, data: st.DataObject) -> None:
    planned = [tuple(part) for part in chunks(range(n), size)]
    committed = data.draw(st.sets(st.sampled_from(planned)))
    left = [i for part in planned if part not in committed for i in part]
    assert [tuple(part) for part in chunks(left, size)] == [p for p in planned if p not in committed]


def test_failures_come_first_and_the_last_table_is_the_commit(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, str]] = []
    write = Warehouse.write

    def spy(self: Warehouse, table: str, fingerprint: str, shard: str, rows: Any) -> int:
        order.append((table, fingerprint))
        return write(self, table, fingerprint, shard, rows)

    monkeypatch.setattr(Warehouse, "write", spy)
    unseen = Failure("embed", "q", FailureCode.CHANGED_FILE, "it changed", chip_id="d")
    undetected = Failure("embed", "q", FailureCode.OUT_OF_MEMORY, "full", chip_id="d")
    failures = {"keypoints": [undetected], "embeddings": [unseen]}
    result = commit(job, EMBED, "s", {"embeddings": [EMBEDDING], "keypoints": [KEYPOINTS]}, failures)
    prints = job.prints
    assert order == [
        ("failures", prints.keypoints), ("failures", prints.embeddings),
        ("keypoints", prints.keypoints), ("embeddings", prints.embeddings),
    ]  # fmt: skip
    # A photo that fails twice counts once.
    assert (result.stage, result.shard, result.rows, result.failed) == ("embed", "s", 1, 1)


def test_a_shard_without_failures_writes_none(job: Job) -> None:
    commit(job, EMBED, "s", {"embeddings": []}, {"embeddings": []})
    assert [p.name for p in Path(job.warehouse.root).iterdir()] == ["embeddings"]
    assert job.warehouse.exists("embeddings", job.prints.embeddings, "s")


def test_failures_of_an_earlier_attempt_are_replaced(job: Job) -> None:
    lost = Failure("embed", "p", FailureCode.MISSING_FILE, "gone", chip_id="c")
    for failed, rows in (([lost], []), ([], [EMBEDDING])):
        commit(job, EMBED, "s", {"embeddings": rows}, {"embeddings": failed})
        assert job.warehouse.read("failures", job.prints.embeddings, ["s"]).num_rows == len(failed)


def test_a_partition_is_for_tables_that_no_run_has(job: Job) -> None:
    commit(job, SWEEP, "s", {"measurements": []}, partition="00ff")
    assert job.warehouse.exists("measurements", "00ff", "s")
    commit(job, SCORE, "s", {"scores": []}, partition="00ff")
    assert job.warehouse.exists("scores", job.prints.scores, "s")
    with pytest.raises(KeyError, match="measurements"):
        commit(job, SWEEP, "s", {"measurements": []})


@pytest.mark.parametrize(
    ("tables", "failures"),
    [
        ({"scores": []}, {}),
        ({}, {"photos": []}),
        ({}, {"embeddings": [Failure("score", "p", FailureCode.TRUNCATED, "m")]}),
        ({}, {"embeddings": [Failure("embed", "p", FailureCode.SCORE_NOT_FINITE, "m")]}),
    ],
    ids=["table", "table of failures", "stage", "code"],
)
def test_what_is_none_of_the_stages_is_refused(job: Job, tables: Any, failures: Any) -> None:
    with pytest.raises(ValueError, match="stage embed knows nothing of"):
        commit(job, EMBED, "s", tables, failures)
    assert not Path(job.warehouse.root).exists()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PhotoError("truncated", "breaks off"), "truncated", "breaks off"),
        (EngineError("a cell outside"), "internal_error", "EngineError: a cell outside"),
        (MemoryError(), "out_of_memory", "memory"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out_of_memory", "CUDA"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out_of_memory", "ALLOC_FAILED"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling"),
            "internal_error",
            "RuntimeError: CUDA",
        ),
        (ZeroDivisionError("division by zero"), "internal_error", "ZeroDivisionError: division by zero"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_one_item_raises_is_its_failure(error: Exception, code: str, said: str) -> None:
    failures: list[Failure] = []
    for item in ("good", "bad", "better"):
        with or_failure(failures, "embed", item, chip_id="c"):
            if item == "bad":
                raise error
    assert [(f.stage, f.item, f.code.value, f.chip_id) for f in failures] == [("embed", "bad", code, "c")]
    assert said in failures[0].message


@pytest.mark.parametrize(
    "error", [WarehouseError("full"), ModelError("other weights"), KeyboardInterrupt()], ids=repr
)
def test_what_concerns_the_whole_run_passes(error: BaseException) -> None:
    failures: list[Failure] = []
    with pytest.raises(type(error)), or_failure(failures, "embed", "p"):
        raise error
    assert failures == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_device_that_died_is_no_failure_of_an_item(wrapped: bool) -> None:
    error: Exception = RuntimeError("CUDA error: an illegal memory access was encountered")
    if wrapped:
        outer = ValueError("no figure")
        outer.__cause__, error = error, outer
    failures: list[Failure] = []
    with (
        pytest.raises(AcceleratorFailure, match="score of p: .*") as found,
        or_failure(failures, "score", "p"),
    ):
        raise error
    assert failures == []
    assert found.value.cure
    again = pickle.loads(pickle.dumps(found.value))
    assert (str(again), type(again)) == (str(found.value), AcceleratorFailure)


def test_the_stopwatch_counts_the_engine_within_the_whole() -> None:
    watch = Stopwatch()
    with pytest.raises(ValueError, match="inside"), watch.in_engine():
        raise ValueError("inside")
    with watch.in_engine():
        sum(range(1000))
    assert 0 < watch.engine <= watch.seconds


def test_peak_memory_is_in_bytes() -> None:
    assert 10 << 20 < peak_bytes() < 1 << 40
