"""Embeddings against the bare forward pass, and exact neighbours against a bare product.

The product is of the same size.
"""

from __future__ import annotations

import numpy as np
import torch

from pairx_engine.retrieval.proposals import Block
from pairx_engine.retrieval.rules import PairRule, PhotoKeys
from pairx_engine.retrieval.topk import exact_top_k
from schemas.settings import Settings
from tests.gpu.findings import Findings
from tests.gpu.part import Task
from tests.gpu.workload import timed, workload

WANTED_SHARE = 0.9


def measure(task: Task, findings: Findings) -> None:
    """Embeddings, then neighbours."""
    _embeddings(task, findings)
    if task.left < 10 and not task.small:
        findings.cut_short("exact neighbours")
        return
    _neighbours(task, findings)


def _embeddings(task: Task, findings: Findings) -> None:
    from tasks.job import model_of, prepare_job
    from tasks.stages.embed import embed_chips
    from tasks.store.warehouse import Warehouse

    work = workload(task)
    findings.note(work.title)
    job = prepare_job(Warehouse(str(task.scratch("unused"))), Settings(model=str(work.folder)))
    model, size = model_of(job), job.batch_size
    findings.at_least("the pipeline's own device is the one asked for", model.device.type == task.device, 1)
    photos = np.load(work.folder / "chips.npy")
    chips = [photos[i % len(photos)] for i in range(size if task.small else 4 * size)]
    batch = model.normalise(chips[:size])
    repeats = 1 if task.small else 5

    def bare() -> None:
        with torch.inference_mode():
            model.network(batch)

    forward = size / timed(bare, task.device, repeats, warm=1)
    ours = len(chips) / timed(lambda: embed_chips(job, chips), task.device, repeats, warm=1)
    findings.figure(f"bare forward, {size} chips at once", forward, "chips/s")
    findings.figure("embeddings as the pipeline makes them, from pixels to NumPy", ours, "chips/s")
    share = ours / forward
    judged = task.device != "cpu" and not task.small
    findings.aim(
        "embeddings, of the bare forward",
        share,
        f"≥ {WANTED_SHARE}",
        share >= WANTED_SHARE if judged else None,
    )
    if task.small:
        return
    network = model.network
    model.network.to(memory_format=torch.channels_last)
    batch = batch.contiguous(memory_format=torch.channels_last)
    faster = size / timed(bare, task.device, repeats, warm=2)
    findings.figure(f"bare forward, {size} chips at once, channels last", faster, "chips/s")
    network.to(memory_format=torch.contiguous_format)


def _neighbours(task: Task, findings: Findings) -> None:
    photos, queries, dimension = (2000, 200, 64) if task.small else (50_000, 1000, 2152)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn((photos, dimension), generator=generator).to(task.device, torch.float16)
    unit = torch.nn.functional.normalize(vectors.float(), dim=1).half()
    rows = np.arange(queries, dtype=np.int64)
    codes = np.arange(photos, dtype=np.int32)
    unknown = np.full(photos, -1, dtype=np.int32)
    keys = PhotoKeys(codes // 5, unknown, unknown, unknown)
    step = 8192

    def blocks() -> list[Block]:
        return [(np.arange(i, min(i + step, photos)), vectors[i : i + step]) for i in range(0, photos, step)]

    rules = {"any": (PairRule(), 5), "own": (PairRule(same_name=True), 2)}

    def bare() -> torch.Tensor:
        return unit[:queries] @ unit.T

    def exact() -> None:
        exact_top_k(vectors[:queries], rows, blocks, keys, rules)

    repeats = 1 if task.small else 3
    product, ours = (timed(work, task.device, repeats, warm=1) for work in (bare, exact))
    size = f"{queries} queries, {photos} photos, {dimension} numbers each"
    findings.figure(f"bare half-precision product, {size}", product * 1e3, "ms")
    findings.figure(f"exact neighbours by two rules, {size}", ours * 1e3, "ms")
    found = exact_top_k(vectors[:queries], rows, blocks, keys, rules)
    there = exact_top_k(
        vectors[:queries].cpu(), rows, lambda: [(at, v.cpu()) for at, v in blocks()], keys, rules
    ) if task.small or task.left > 15 else None  # fmt: skip
    if there is None:
        findings.cut_short("neighbours on the CPU, to compare")
        return
    other = sum(int((found[rule].neighbour != there[rule].neighbour).sum()) for rule in rules)
    findings.at_most("exact neighbours that the CPU does not find", other, 0)
