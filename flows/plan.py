"""The dry run: what a run would do and about how long it would take; nothing is written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from flows.cluster import resolve_kind, worker_count
from pairx_engine.chips import chip_of, view_of
from pairx_engine.explain import explain_pair
from schemas.catalogue import Catalogue
from schemas.settings import Settings
from tasks.embed import plan_embed
from tasks.ingest import plan_ingest
from tasks.job import Job, matcher_of, model_of, prepare_job
from tasks.remaining import look
from tasks.run_log import RunLog
from tasks.warehouse import Warehouse


@dataclass(frozen=True)
class UnitCosts:
    """Seconds of one core or GPU per photo, per scored pair and per figure, measured on a drawn patch just now."""

    photo: float
    pair: float
    figure: float


def measure(job: Job) -> UnitCosts:
    """Time one embedding with keypoints, one explanation without and one with pixel maps, after a warm-up."""
    model, matcher, maps = model_of(job), matcher_of(job), job.settings.n_pixel_maps
    texture = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    chip, other = chip_of(texture, model.chip), chip_of(np.ascontiguousarray(texture[:, ::-1]), model.chip)

    def photo() -> float:
        begun = time.perf_counter()
        model.network(model.normalise([chip]))
        matcher.extract(view_of(texture, job.settings.view_side))
        return time.perf_counter() - begun

    def pair(n: int) -> float:
        begun = time.perf_counter()
        explain_pair(model, chip, other, job.layers[0], job.settings.preset, n)
        return time.perf_counter() - begun

    photo()
    pair(0)
    plain = pair(0)
    return UnitCosts(photo(), plain, plain + max(0.0, pair(1) - plain) * maps)


def print_plan(
    catalogue: Catalogue, warehouse: str, settings: Settings, retry_failed: bool, console: Console
) -> None:
    """Print photos, pairs, shards and the estimated time of a run that would start now."""
    job = prepare_job(Warehouse(warehouse), settings)
    with look(job, RunLog(job).columns(), retry_failed) as (_, left):
        known = left.photos()
        ingest = plan_ingest(catalogue, known, settings.photos_per_shard, retry_failed)
        present = [p for p in known.values() if p["present"]]
        embed = plan_embed(
            present, left.embedded(), left.detected(), left.not_embeddable(), settings.photos_per_shard
        )
        unscored = len(left.unscored())
        pairs_now = len(left.stored_pairs())
    new = sum(len(s.entries) for s in ingest)
    again = {e.photo_id for s in ingest for e in s.entries}
    photos = new + sum(p["photo_id"] not in again for s in embed for p in s.photos)
    # A photo brings top-k and same-name neighbours; half of them choose it in turn.
    pairs = unscored + math.ceil(new * (settings.top_k + settings.same_name_k) * 0.75)
    kind, workers = resolve_kind(settings.cluster), worker_count(settings)
    costs = measure(job)
    total = (
        photos * costs.photo + pairs * costs.pair + min(settings.figures, pairs) * costs.figure
    ) / workers
    shards = [
        len(ingest),
        math.ceil(photos / settings.photos_per_shard),
        math.ceil(pairs / settings.pairs_per_shard),
    ]
    for line in (
        f"photos   {len(catalogue.entries)} listed, {len(known)} known, {new} to read, {photos} to embed",
        f"pairs    {pairs_now} stored, about {pairs} to score (top {settings.top_k}, {settings.same_name_k} of the same name)",
        f"shards   ingest {shards[0]}, embed {shards[1]}, score {shards[2]}",
        f"figures  up to {settings.figures} of {settings.n_pixel_maps} pixel maps per photo",
        f"model    {settings.model}, layers {', '.join(job.layers)}, preset {settings.preset}; matcher {settings.matcher}",
        f"cluster  {kind}, {workers} workers",
        f"cost     photo {costs.photo * 1e3:.0f} ms, pair {costs.pair * 1e3:.0f} ms, figure {costs.figure:.1f} s on this machine",
        f"time     about {_duration(total)}, and half a minute to start",
        f"writes   nothing now; a run would write to {job.warehouse.url}",
    ):
        console.print(line)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
