"""PAIR-X in a notebook: explain two photos, and ask a warehouse.

from flows.notebook import compare, explain, open_warehouse

pair = explain("a.jpg", "b.jpg", model="models/cows")   # shows its figure
pair.scores.match_coverage, pair.arrays["match_point0"]
pair.save("pair.png")

compare("a.jpg", "b.jpg", ["pairx_published", "grad_cam"])   # shows one sheet of several methods

con = open_warehouse("warehouse")
con.sql("SELECT * FROM suspects LIMIT 5").df()          # .df() with the extra `notebook`, .arrow() without
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.two_photos import TwoPhotos, two_photos
from pairx_engine.comparison import Compared, ComparedPair, Comparer, chosen_methods
from pairx_engine.engine import Engine
from pairx_engine.explained_pair import ExplainedPair
from pairx_engine.explanations import State, Trained, explanation_named
from pairx_engine.photo.chips import Box, Pixels
from schemas.settings import load_settings
from tasks.evaluation.learning import newest_state
from tasks.job import Job, device, prepare_job, recipe_of
from tasks.photo_files import cut_of_file
from tasks.sql.console import connect_analyst as open_warehouse
from tasks.store.warehouse import Warehouse

__all__ = ["ComparedPair", "ExplainedPair", "compare", "explain", "open_warehouse"]

Address = str | os.PathLike[str]


def explain(
    photo_a: Address,
    photo_b: Address,
    *,
    box_a: Box | None = None,
    box_b: Box | None = None,
    method: str | None = None,
    warehouse: str | None = None,
    **settings: Any,
) -> ExplainedPair:
    """Explain two photos, by PAIR-X or by another `method` of `pairx_engine.explanations`.

    Boxes are (x, y, w, h) in pixels of the upright photo. `settings` are those of `pairx run` (model,
    layers, preset, matcher, n_pixel_maps, ...). With a `warehouse` a photo may be the id of one of its
    photos, and its newest run's settings hold unless others are given. A method that must learn takes from
    there what it learned (`pairx evaluate --faithfulness`). Raises `PairxError`, or `EngineError` for photos,
    models and names that cannot be used.
    """
    given = two_photos((photo_a, photo_b), (box_a, box_b), warehouse, settings)
    return explain_given(given, method)


def explain_given(given: TwoPhotos, method: str | None = None) -> ExplainedPair:
    """Explain two photos as `explain` does, once it is known what their names mean."""
    chosen, kept = given.settings, given.warehouse
    a, b = (photo.cut(chosen.max_pixels) for photo in given.photos)
    engine = Engine(recipe_of(chosen), device())
    if method is None:
        # Other methods say themselves where a layer does not suit them, and suit some that PAIR-X cannot explain.
        engine.try_layers()
    learns = method is not None and isinstance(explanation_named(method), Trained)
    state = newest_state(prepare_job(kept, chosen), str(method)) if kept and learns else None
    titles = given.photos[0].title, given.photos[1].title
    found = engine.explain((a, b), titles, chosen.n_pixel_maps, chosen.n_lines, method, state)
    of_photos = given.photos[0].arrays("0") | given.photos[1].arrays("1")
    return replace(found, arrays=dict(found.arrays) | of_photos)


def compare(
    photo_a: Address,
    photo_b: Address,
    methods: Sequence[str] = (),
    *,
    everything: bool = False,
    box_a: Box | None = None,
    box_b: Box | None = None,
    warehouse: str | None = None,
    told: Callable[[Compared], None] | None = None,
    **settings: Any,
) -> ComparedPair:
    """Explain two photo files by several methods side by side.

    Without `methods` by one or two of each family, with `everything` by all affordable ones. Boxes, settings
    and `warehouse` are those of `explain`; `told` hears of each method when it is done. Raises `PairxError`,
    or `EngineError` for photos, models and names that cannot be used. A method that cannot explain this
    network says why in its panel.
    """
    chosen = load_settings(overrides=settings)
    engine = Engine(recipe_of(chosen), device())
    names = chosen_methods(engine.preset, methods, everything, engine.presets)
    kept = Warehouse(warehouse) if warehouse else None
    if kept:
        kept.require()
    cuts, titles = _photos((photo_a, photo_b), (box_a, box_b), chosen.max_pixels)
    learned = any(isinstance(explanation_named(name), Trained) for name in names)
    states = states_of(prepare_job(kept, chosen), names) if kept and learned else {}
    comparer = Comparer(engine, names, max(1, chosen.n_pixel_maps), states, told)
    return comparer.compare(cuts, titles)


def _photos(
    addresses: tuple[Address, Address], boxes: tuple[Box | None, Box | None], max_pixels: int
) -> tuple[tuple[Pixels, Pixels], tuple[str, str]]:
    """The cuts of two photo files, and their titles."""
    first, second = map(Path, addresses)
    cuts = cut_of_file(first, boxes[0], max_pixels), cut_of_file(second, boxes[1], max_pixels)
    return cuts, (first.name, second.name)


def states_of(job: Job, methods: Sequence[str]) -> dict[str, State]:
    """What those methods that must learn have learned in the job's warehouse, by name, where they have."""
    learning = [name for name in methods if isinstance(explanation_named(name), Trained)]
    found = {name: newest_state(job, name) for name in learning}
    return {name: state for name, state in found.items() if state is not None}
