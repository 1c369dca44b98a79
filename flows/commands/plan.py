"""The dry run: what a run would do and about how long it would take; it writes nothing."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
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
    left = _left(job, catalogue, retry_failed)
    small = _is_small(settings, left)
    workers = 1 if small else worker_count(settings)
    start, costs = startup_of(job, small), unit_costs(job)
    work = _foreseen(job, catalogue, left, costs)
    for line in (
        f"photos   {len(catalogue.entries)} listed, {left.known} known, {left.new} to read, {left.photos} to embed",
        *_lines_of_work(settings, left, work),
        f"model    {settings.model}, layers {', '.join(job.layers)}, preset {settings.preset} in {settings.precision}; matcher {settings.matcher}",
        *([f"notice   {job.notice}"] if job.notice else []),
        *_lines_of_time(settings, workers, start, costs, _seconds(settings, left, work, costs) / workers),
        f"writes   nothing now; a run would write to {job.warehouse.url}",
    ):
        console.print(line)


@dataclass(frozen=True)
class _Left:
    """What a warehouse holds of a catalogue, and what it lacks, as counts.

    `photos` are to be embedded, `new` of them to be read first; `in_all` are those that the run ends with.
    `per_photo` are the distinct pairs per photo that are stored, None where these are too few to tell.
    """

    known: int
    new: int
    photos: int
    in_all: int
    ingest_shards: int
    stored_pairs: int
    unscored: int
    unverified: int
    without_signals: int
    per_photo: float | None


def _left(job: Job, catalogue: Catalogue, retry_failed: bool) -> _Left:
    per_shard = job.settings.photos_per_shard
    with look(job, RunLog(job).columns(), retry_failed) as (connection, left):
        known, present = left.photos(), left.present()
        embedded = left.embedded()
        ingest = plan_ingest(catalogue, known, per_shard, retry_failed)
        embed = plan_embed(*left.to_embed(), per_shard)
        new = sum(map(INGEST.size, ingest))
        again = {entry.photo_id for shard in ingest for entry in shard.entries}
        stored_pairs = left.stored_pairs()
        return _Left(
            known=len(known),
            new=new,
            photos=new + sum(photo["photo_id"] not in again for shard in embed for photo in shard.photos),
            in_all=len({photo["photo_id"] for photo in present} | {e.photo_id for e in catalogue.entries}),
            ingest_shards=len(ingest),
            stored_pairs=stored_pairs,
            unscored=len(left.unscored()),
            unverified=len(left.unverified()),
            without_signals=len(left.without_signals()),
            per_photo=stored_per_photo(connection, len(embedded)) if stored_pairs else None,
        )


@dataclass(frozen=True)
class _Work:
    """About how many pairs a run scores and verifies, known ones and those that new photos bring."""

    pairs: int
    to_verify: int


def _foreseen(job: Job, catalogue: Catalogue, left: _Left, costs: UnitCosts) -> _Work:
    # Without any stored pair, as after a changed setting, all photos are to be paired.
    to_pair = left.photos if left.stored_pairs else left.in_all
    per_photo = left.per_photo
    if to_pair and per_photo is None:
        per_photo = sampled_per_photo(job, catalogue, costs.photo)
    pairs = left.unscored + pairs_foreseen(
        per_photo or 0.0, catalogue.entries, to_pair, job.settings.references, left.in_all
    )
    # Each new photo is verified with its nearest few. Those that also match well are not known yet.
    return _Work(pairs, left.unverified + min(pairs, left.new * FEW_COPIES))


def _lines_of_work(settings: Settings, left: _Left, work: _Work) -> Iterator[str]:
    yield (
        f"pairs    {left.stored_pairs} stored, about {work.pairs} to score (top {settings.top_k}, {settings.same_name_k} of the same name, "
        f"{settings.other_name_k} of other names, {settings.references} references a species)"
    )
    per_shard = pairs_per_shard(settings)
    shards = {
        INGEST.name: left.ingest_shards,
        EMBED.name: math.ceil(left.photos / settings.photos_per_shard),
        SCORE.name: math.ceil(work.pairs / per_shard),
        VERIFY.name: math.ceil(work.to_verify / per_shard),
        JUDGE.name: int(left.new > 0 or left.unscored > 0),
    }
    yield f"shards   {', '.join(f'{stage} {count}' for stage, count in shards.items())}"
    if left.without_signals:
        yield f"signals  {left.without_signals} scored pairs have none yet; they come from stored rows, without the model"
    yield f"copies   about {work.to_verify} pairs to verify pixel by pixel"
    yield f"figures  up to {settings.figures} of {settings.n_pixel_maps} pixel maps per photo"


def _seconds(settings: Settings, left: _Left, work: _Work, costs: UnitCosts) -> float:
    """What the work takes one worker once it is there."""
    figures = min(settings.figures, work.pairs)
    total = left.photos * costs.photo + work.pairs * costs.pair + figures * costs.figure
    return total


def _is_small(settings: Settings, left: _Left) -> bool:
    """Whether a run needs one worker alone, and no Prefect server of its own: see `flows.night.run`."""
    return left.photos <= settings.photos_per_shard and left.unscored <= pairs_per_shard(settings)


def _lines_of_time(
    settings: Settings, workers: int, start: float, costs: UnitCosts, work: float
) -> Iterator[str]:
    word = "worker" if workers == 1 else "workers"
    yield f"cluster  {resolve_kind(settings)}, {workers} {word}"
    yield f"cost     photo {costs.photo * 1e3:.0f} ms, pair {costs.pair * 1e3:.0f} ms, figure {costs.figure:.1f} s on this machine"
    if not work:
        yield "time     a few seconds: nothing is left for a worker, so none starts"
        return
    yield f"time     about {duration(start + work)}, {duration(start)} of it to start {workers} {word} and load the model"


def startup_of(job: Job, small: bool = False) -> float:
    """Seconds until the first task of a run is at work, told by how long this process took to get so far."""
    model_of(job)
    return startup(time.time() - psutil.Process().create_time(), worker_count(job.settings), small)


def startup(loaded: float, workers: int, small: bool = False) -> float:
    """Seconds until the first task of a run is at work, from what this process took for the same.

    `loaded` are the seconds after which it had imported what computes and loaded the model. The run does so
    first, then each of its workers, which share this machine's cores, beside a Prefect server of its own. A `small`
    night has one worker, which starts beside the run, and no server.
    """
    if small:
        return loaded + loaded / 2
    cores = os.cpu_count() or 1
    waits = max(1.0, workers / cores)
    server = 0.0 if os.environ.get("PREFECT_API_URL") else _SERVER_SECONDS
    return loaded + server + waits * loaded


def duration(seconds: float) -> str:
    """Seconds in words, in the unit that suits them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
