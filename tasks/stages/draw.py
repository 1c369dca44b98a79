"""Draw: the PAIR-X figure and the pixel maps of flagged pairs, from the stored matches and relevances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pairx_engine.explanations import Shown
from pairx_engine.figure import FigurePhoto, draw_figure, encode_map, encode_webp, figure_input
from pairx_engine.pair.finding import as_array
from schemas import stages
from schemas.failures import Failure
from tasks.finding_rows import stored_finding
from tasks.job import Job, explainer_of, model_of
from tasks.pairs import DrawItem
from tasks.photo_files import PICTURE, VIEWS, Views
from tasks.shards import ShardResult, Stage, Stopwatch, chunks, commit, or_failure
from tasks.store.warehouse import shard_name

Row = Mapping[str, Any]
_PAIRS_PER_SHARD = 4
FIGURE_QUALITY = 90
"""WebP quality of whole figures: they hold small letters."""


@dataclass(frozen=True)
class DrawShard:
    """A few pairs; shards are small since pixel maps are the most costly work."""

    items: tuple[DrawItem, ...]

    @property
    def name(self) -> str:
        """Hash of pair ids and layers."""
        return shard_name("\0".join(item.key) for item in self.items)

    def part(self, items: slice) -> DrawShard:
        """Some of the figures."""
        return DrawShard(self.items[items])


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
            spec, most = model_of(job).chip, job.settings.max_pixels
            views = [VIEWS.views(photo, most, spec, PICTURE) for photo in (item.photo_a, item.photo_b)]
            with watch.in_engine():
                rows.append(_draw(job, item, views))
    return commit(job, DRAW, shard.name, {"explanations": rows}, {"explanations": failures}, watch)


def _draw(job: Job, item: DrawItem, views: list[Views]) -> dict[str, Any]:
    model, finding = model_of(job), stored_finding(item.matches, item.relevances)
    a, b = (
        FigurePhoto(view.pictures[0], view.pictures[1], view.cut_size, _title(photo))
        for view, photo in zip(views, (item.photo_a, item.photo_b), strict=True)
    )
    # Photos are normalised one at a time, as everywhere: a photo's pixels must not depend on others.
    given = [model.normalise([photo.chip])[0] for photo in (a, b)]
    cells = [side.cells[: job.settings.n_pixel_maps] for side in finding.sides]
    maps = [as_array(m) for m in explainer_of(job).all_pixel_maps(given, finding.layer, cells)]
    shown = Shown.of_finding(finding, (maps[0], maps[1]))
    figure = draw_figure(figure_input(shown, (a, b), item.subtitle, job.settings.n_lines))
    encoded = [[encode_map(m) for m in side] for side in maps]
    return {
        **{k: item.matches[k] for k in ("pair_id", "photo_a", "photo_b", "layer")},
        "n_drawn": len(maps[0]),
        "figure": encode_webp(figure.figure, FIGURE_QUALITY),
        "chips": encode_webp(figure.photos),
        "overlay": encode_webp(figure.overlay),
        "colours": encode_webp(figure.colours),
        **{f"maps_{name}": [png for png, _ in side] for name, side in zip("ab", encoded, strict=True)},
        **{f"peak_{name}": [peak for _, peak in side] for name, side in zip("ab", encoded, strict=True)},
    }


def _title(photo: Row) -> str:
    return f"{photo['photo_id']} · {photo['identity'] or 'unknown'}"


DRAW = Stage.of(stages.DRAW, draw_shard, lambda shard: len(shard.items))
