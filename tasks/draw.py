"""Draw: the PAIR-X figure and the pixel maps of flagged pairs, from the stored matches and relevances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pairx_engine.chips import Pixels, chip_of
from pairx_engine.figure import FigureInput, draw_figure, encode_map, encode_png, encode_webp
from schemas import stages
from schemas.failures import Failure
from tasks.job import Job, explainer_of, model_of
from tasks.photo_files import CUTS
from tasks.shards import ShardResult, Stage, Stopwatch, chunks, commit, or_failure
from tasks.warehouse import shard_name

Row = Mapping[str, Any]
_PAIRS_PER_SHARD = 4


@dataclass(frozen=True)
class DrawItem:
    """One pair and layer to draw: its rows of matches and relevances, its photos, and the line of scores below the title."""

    matches: Row
    relevances: Row
    photo_a: Row
    photo_b: Row
    subtitle: str

    @property
    def key(self) -> tuple[str, str]:
        """Pair id and layer."""
        return self.matches["pair_id"], self.matches["layer"]


@dataclass(frozen=True)
class DrawShard:
    """A few pairs; pixel maps are the dearest thing there is, so shards are small."""

    items: tuple[DrawItem, ...]

    @property
    def name(self) -> str:
        """Hash of pair ids and layers."""
        return shard_name("\0".join(item.key) for item in self.items)


def plan_draw(items: Sequence[DrawItem]) -> list[DrawShard]:
    """Shards of a few pairs in the order given, most suspect first."""
    return [DrawShard(tuple(part)) for part in chunks(items, _PAIRS_PER_SHARD)]


def draw_shard(job: Job, shard: DrawShard) -> ShardResult:
    """Draw the pairs of one shard and commit their explanations."""
    watch = Stopwatch()
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for item in shard.items:
        pair_id, layer = item.key
        with or_failure(failures, "draw", pair_id, layer=layer):
            cuts = [CUTS.cut(photo, job.settings.max_pixels) for photo in (item.photo_a, item.photo_b)]
            with watch.in_engine():
                rows.append(_draw(job, item, cuts))
    return commit(job, DRAW, shard.name, {"explanations": rows}, {"explanations": failures}, watch)


def _draw(job: Job, item: DrawItem, cuts: list[Pixels]) -> dict[str, Any]:
    matches, grids = item.matches, item.relevances
    chips = [chip_of(cut, model_of(job).chip) for cut in cuts]
    count = min(job.settings.n_pixel_maps, len(matches["relevance"]))
    maps = _pixel_maps(job, chips, matches, count)
    shape = (grids["height"], grids["width"])
    given = FigureInput(
        chip_a=chips[0],
        chip_b=chips[1],
        grid_a=np.asarray(grids["grid_a"], dtype=np.float64).reshape(shape),
        grid_b=np.asarray(grids["grid_b"], dtype=np.float64).reshape(shape),
        points_a=_points(matches, "a"),
        points_b=_points(matches, "b"),
        relevance=np.asarray(matches["relevance"], dtype=np.float64),
        maps_a=maps[0],
        maps_b=maps[1],
        title_a=_title(item.photo_a),
        title_b=_title(item.photo_b),
        subtitle=item.subtitle,
        n_lines=job.settings.n_lines,
        aspect_a=cuts[0].shape[1] / cuts[0].shape[0],
        aspect_b=cuts[1].shape[1] / cuts[1].shape[0],
    )
    figure = draw_figure(given)
    encoded = [[encode_map(m) for m in side] for side in maps]
    return {
        **{k: matches[k] for k in ("pair_id", "photo_a", "photo_b", "layer")},
        "n_drawn": count,
        "figure": encode_png(figure.figure),
        "chips": encode_webp(figure.chips),
        "overlay": encode_webp(figure.overlay),
        "colours": encode_webp(figure.colours),
        "maps_a": [png for png, _ in encoded[0]],
        "maps_b": [png for png, _ in encoded[1]],
        "peak_a": [peak for _, peak in encoded[0]],
        "peak_b": [peak for _, peak in encoded[1]],
    }


def _pixel_maps(job: Job, chips: list[Pixels], matches: Row, count: int) -> list[NDArray[np.float32]]:
    """Maps (count, H, W) of the first matches' cells in both photos."""
    cells = [
        np.stack([matches[f"column_{side}"], matches[f"row_{side}"]], axis=1).astype(np.int64)[:count]
        for side in "ab"
    ]
    # One photo at a time is normalised, as everywhere: a photo's pixels do not depend on its company.
    given = [model_of(job).normalise([chip])[0] for chip in chips]
    found = explainer_of(job).all_pixel_maps(given, matches["layer"], cells)
    return [maps.float().cpu().numpy() for maps in found]


def _points(matches: Row, side: str) -> NDArray[np.float64]:
    return np.stack([matches[f"x_{side}"], matches[f"y_{side}"]], axis=1).astype(np.float64).reshape(-1, 2)


def _title(photo: Row) -> str:
    return f"{photo['photo_id']} · {photo['identity'] or 'unknown'}"


DRAW = Stage.of(stages.DRAW, draw_shard, lambda shard: len(shard.items))
