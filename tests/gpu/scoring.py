"""Pairs per second without pixel maps: by a photo's number of partners, and by the pipeline's stage."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from torch import Tensor

from pairx_engine.models import ReIdModel
from schemas.settings import PAIRS_PER_SHARD, PAIRS_PER_SHARD_ON_GPU
from tests.benchmarks.engine_way import EngineWay
from tests.benchmarks.table import WANTED_PAIRS_ON_GPU
from tests.gpu.findings import Findings
from tests.gpu.part import Task
from tests.gpu.workload import Workload, cow_catalogue, peak_of, timed, workload

STARTS = (1, 5, 10, 20)


def measure(task: Task, findings: Findings) -> None:
    """In the engine alone first, then a shard of a small warehouse."""
    work = workload(task)
    findings.note(work.title)
    model, chips = work.load(task.device)
    assert model.layer is not None
    for precision in ("float32",) if task.small else ("float32", "tf32", "bfloat16"):
        way = EngineWay(model.network, model.layer, precision)
        for starts in (s for s in STARTS if s < len(chips)):
            if task.left < 15 and not task.small:
                findings.cut_short(f"{precision} with {starts} partners and what follows")
                return
            pairs = list(combinations(range(starts + 1), 2))

            def run(way: EngineWay = way, pairs: list[tuple[int, int]] = pairs) -> Any:
                return way.score(chips, pairs)

            rate = len(pairs) / timed(run, task.device, 1 if task.small or len(pairs) > 100 else 3, warm=1)
            name = f"{precision}, {starts} partners a photo, {len(pairs)} pairs"
            _pairs(task, findings, name, rate)
            if starts == 10:
                findings.figure(f"{name}: peak memory over the model", peak_of(run, task.device), "MB")
    _by_photos(task, findings, model, chips)
    for precision in ("float32",) if task.small else ("float32", "bfloat16"):
        if task.left < 20 and not task.small:
            findings.cut_short(f"through the pipeline in {precision}")
            return
        _pipeline(task, findings, work, precision)


def _by_photos(task: Task, findings: Findings, model: ReIdModel, chips: list[Tensor]) -> None:
    """By the number of photos recorded together, which is the batch: ten partners each, single precision."""
    assert model.layer is not None
    pairs = list(combinations(range(min(11, len(chips))), 2))
    for photos in (1, 2) if task.small else (1, 2, 4, 8):
        if task.left < 15 and not task.small:
            findings.cut_short(f"{photos} photos at a time and what follows")
            return
        way = EngineWay(model.network, model.layer, "float32", changes={"photos": photos})
        rate = len(pairs) / timed(lambda way=way: way.score(chips, pairs), task.device, 1, warm=1)
        findings.figure(f"float32, {photos} photos at a time, {len(pairs)} pairs", rate, "pairs/s")


def _pairs(task: Task, findings: Findings, name: str, rate: float) -> None:
    judged = task.device != "cpu" and not task.small
    findings.aim(
        name, rate, f"≥ {WANTED_PAIRS_ON_GPU:.0f}", rate >= WANTED_PAIRS_ON_GPU if judged else None, "pairs/s"
    )


def _pipeline(task: Task, findings: Findings, work: Workload, precision: str) -> None:
    """The score stage in this process: photos read from files, keypoints, matcher and Parquet included."""
    from schemas.catalogue.reader import read_catalogue
    from tasks.stages.score import plan_score, score_shard
    from tasks.store.warehouse import Warehouse
    from tests.small_catalogue import Stages, look

    metadata, root = cow_catalogue(task, *((2, 3) if task.small else (7, 6)))
    done = Stages.run(
        read_catalogue(str(metadata), str(root)),
        Warehouse(str(task.scratch(f"warehouse-{precision}"))),
        until="retrieve",
        model=str(work.folder),
        precision=precision,
        **({} if task.small else {"top_k": 10, "max_keypoints": 1024}),
    )
    on_gpu = task.device != "cpu"
    size = 8 if task.small else PAIRS_PER_SHARD_ON_GPU if on_gpu else PAIRS_PER_SHARD
    with look(done.job, done.columns()) as (_, left):
        shards = plan_score(left.unscored(), left.photos(), left.keypoint_shards(), size)
    # The first shard wakes the device up: kernels are chosen, memory is taken. One alone is scored twice, to
    # the same files.
    shards = shards * 2 if len(shards) == 1 else shards
    results = [score_shard(done.job, shard) for shard in shards]
    counted = results[1:] or results
    taken = sum(r.seconds for r in counted)
    engine = sum(r.engine_seconds for r in counted)
    rows = sum(r.rows for r in counted)
    findings.at_most(f"score stage, {precision}: pairs that failed", sum(r.failed for r in results), 0)
    _pairs(task, findings, f"score stage, {precision}: one process, {rows} pairs", rows / taken)
    findings.figure(f"score stage, {precision}: of the time in the engine and the matcher", engine / taken)
