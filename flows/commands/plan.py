"""The dry run: what a run would do and about how long it would take; it writes nothing."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from rich.console import Console

from flows.clusters.choice import pairs_per_shard, require_cluster, resolve_kind, worker_count
from flows.commands.foreseen import pairs_foreseen, sampled_per_photo, stored_per_photo
from pairx_engine.pair.matching import mutual_matches
from pairx_engine.photo.chips import chip_of, view_of
from schemas.catalogue.reader import Catalogue
from schemas.settings import Settings
from schemas.stages import JUDGE
from schemas.thresholds import FEW_COPIES
from tasks.job import Job, explainer_of, matcher_of, model_of, prepare_job
from tasks.runs.log import RunLog
from tasks.runs.remaining import look
from tasks.stages.embed import EMBED, plan_embed
from tasks.stages.ingest import INGEST, plan_ingest
from tasks.stages.score import SCORE
from tasks.stages.verify import VERIFY
from tasks.store.warehouse import Warehouse

_PARTNERS = 4
_SERVER_SECONDS = 12.0
"""What a Prefect server of a run's own takes to start; it took 10 to 12 s on two busy cores."""


@dataclass(frozen=True)
class UnitCosts:
    """Seconds of one core or GPU per photo, per scored pair and per figure, measured just now."""

    photo: float
    pair: float
    figure: float


def unit_costs(job: Job) -> UnitCosts:
    """Time the engine's parts on a drawn texture, each as the median of three.

    They run on one thread, as a worker on a shared machine does.
    """
    model, matcher, explainer = model_of(job), matcher_of(job), explainer_of(job)
    # Smooth noise has keypoints in number and strength like a coat's; sensor noise has not.
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    view = view_of(noise, job.settings.view_side)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        features = matcher.extract(view)
        (chip,) = model.normalise([chip_of(view, model.chip)])
        seen = explainer.see(chip)
        starts = seen.embedding.expand(_PARTNERS, -1)
        maps = seen.features[job.layers[0]]
        embed = _median_seconds(lambda: explainer.see(chip))
        detect = _median_seconds(lambda: matcher.extract(view))
        relevance = _median_seconds(lambda: explainer.relevance(seen, starts)) / _PARTNERS
        cells = [[0, 0]] * job.settings.n_pixel_maps
        pixels = _median_seconds(lambda: explainer.pixel_maps(chip, job.layers[0], cells))
        local = _median_seconds(lambda: matcher.match(features, features))
        match = _median_seconds(lambda: mutual_matches(maps, maps))
    finally:
        torch.set_num_threads(threads)
    # A shard forwards each of its photos once more for about as many pairs as it has photos.
    return UnitCosts(embed + detect, 2 * relevance + local + match + embed, 2 * pixels)


def _median_seconds(action: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)[1]


def print_plan(
    catalogue: Catalogue, warehouse: str, settings: Settings, retry_failed: bool, console: Console
) -> None:
    """Print photos, pairs, shards and the estimated time of a run that would start now.

    What such a run would refuse is refused here, too.
    """
    require_cluster(settings)
    place = Warehouse(warehouse)
    place.require_readable()
    job = prepare_job(place, settings)
    with look(job, RunLog(job).columns(), retry_failed) as (connection, left):
        known, present = left.photos(), {photo["photo_id"] for photo in left.present()}
        ingest = plan_ingest(catalogue, known, settings.photos_per_shard, retry_failed)
        embed = plan_embed(
            left.present(),
            left.embedded() | left.given_up("embeddings"),
            left.detected() | left.given_up("keypoints"),
            settings.photos_per_shard,
        )
        unscored, without_signals = len(left.unscored()), len(left.without_signals())
        unverified = len(left.unverified())
        pairs_now = len(left.stored_pairs())
        per_photo = stored_per_photo(connection, len(left.embedded())) if pairs_now else None
    new = sum(map(INGEST.size, ingest))
    again = {e.photo_id for s in ingest for e in s.entries}
    photos = new + sum(p["photo_id"] not in again for s in embed for p in s.photos)
    kind = resolve_kind(settings)
    workers = worker_count(settings)
    model_of(job)
    start = startup(_since_start(), workers)
    costs = unit_costs(job)
    in_all = len(present | {entry.photo_id for entry in catalogue.entries})
    # Without any stored pair, as after a changed setting, all photos are to be paired.
    to_pair = photos if pairs_now else in_all
    if to_pair and per_photo is None:
        per_photo = sampled_per_photo(job, catalogue, costs.photo)
    pairs = unscored + pairs_foreseen(
        per_photo or 0.0, catalogue.entries, to_pair, settings.references, in_all
    )
    # Each new photo is verified with its nearest few. Those that also match well are not known yet.
    to_verify = unverified + min(pairs, new * FEW_COPIES)
    total = (
        photos * costs.photo + pairs * costs.pair + min(settings.figures, pairs) * costs.figure
    ) / workers
    shards = {
        INGEST.name: len(ingest),
        EMBED.name: math.ceil(photos / settings.photos_per_shard),
        SCORE.name: math.ceil(pairs / pairs_per_shard(settings)),
        VERIFY.name: math.ceil(to_verify / pairs_per_shard(settings)),
        JUDGE.name: int(new > 0 or unscored > 0),
    }
    for line in (
        f"photos   {len(catalogue.entries)} listed, {len(known)} known, {new} to read, {photos} to embed",
        f"pairs    {pairs_now} stored, about {pairs} to score (top {settings.top_k}, {settings.same_name_k} of the same name, "
        f"{settings.other_name_k} of other names, {settings.references} references a species)",
        f"shards   {', '.join(f'{stage} {count}' for stage, count in shards.items())}",
        *(
            [
                f"signals  {without_signals} scored pairs have none yet; they come from stored rows, without the model"
            ]
            if without_signals
            else []
        ),
        f"copies   about {to_verify} pairs to verify pixel by pixel",
        f"figures  up to {settings.figures} of {settings.n_pixel_maps} pixel maps per photo",
        f"model    {settings.model}, layers {', '.join(job.layers)}, preset {settings.preset} in {settings.precision}; matcher {settings.matcher}",
        *([f"notice   {job.notice}"] if job.notice else []),
        f"cluster  {kind}, {workers} workers",
        f"cost     photo {costs.photo * 1e3:.0f} ms, pair {costs.pair * 1e3:.0f} ms, figure {costs.figure:.1f} s on this machine",
        f"time     about {duration(start + total)}, {duration(start)} of it to start {workers} workers and load the model",
        f"writes   nothing now; a run would write to {job.warehouse.url}",
    ):
        console.print(line)


def _since_start() -> float:
    """Seconds since this process was started."""
    return time.time() - psutil.Process().create_time()


def startup(loaded: float, workers: int) -> float:
    """Seconds until the first task of a run is at work, from what this process took for the same.

    `loaded` are the seconds after which it had imported what computes and loaded the model. The run does so
    first, then each of its workers, which share this machine's cores, beside a Prefect server of its own.
    """
    cores = os.cpu_count() or 1
    waits = max(1.0, workers / cores)
    server = 0.0 if os.environ.get("PREFECT_API_URL") else _SERVER_SECONDS
    return loaded + server + waits * loaded


def duration(seconds: float) -> str:
    """Seconds in words, in the unit that suits them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
