"""PAIR-X in a notebook: explain two photos, and ask a warehouse.

from flows.notebook import explain, open_warehouse

pair = explain("a.jpg", "b.jpg", model="models/cows")   # shows its figure
pair.scores.match_coverage, pair.arrays["match_point0"]
pair.save("pair.png")

con = open_warehouse("warehouse")
con.sql("SELECT * FROM suspects LIMIT 5").df()          # .df() with the extra `notebook`, .arrow() without
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pairx_engine.engine import Engine, ExplainedPair
from pairx_engine.explanations import Trained, explanation_named
from pairx_engine.photo.chips import Box
from schemas.settings import load_settings
from tasks.evaluation.learning import newest_state
from tasks.job import device, prepare_job, recipe_of
from tasks.photo_files import cut_of_file
from tasks.sql.console import connect_analyst as open_warehouse
from tasks.store.warehouse import Warehouse

__all__ = ["ExplainedPair", "explain", "open_warehouse"]

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
    """Explain two photo files, by PAIR-X or by another `method` of `pairx_engine.explanations`.

    Boxes are (x, y, w, h) in pixels of the upright photo. `settings` are those of `pairx run` (model,
    layers, preset, matcher, n_pixel_maps, ...). A method that must learn takes from `warehouse` what it
    learned there (`pairx evaluate --faithfulness`). Raises `PairxError`, or `EngineError` for photos,
    models and names that cannot be used.
    """
    chosen = load_settings(overrides=settings)
    kept = Warehouse(warehouse) if warehouse else None
    if kept:
        kept.require()
    paths = Path(photo_a), Path(photo_b)
    a, b = (
        cut_of_file(path, box, chosen.max_pixels) for path, box in zip(paths, (box_a, box_b), strict=True)
    )
    engine = Engine(recipe_of(chosen), device())
    if method is None:
        # Other methods say themselves where a layer does not suit them, and suit some that PAIR-X cannot explain.
        engine.try_layers()
    learns = method is not None and isinstance(explanation_named(method), Trained)
    state = newest_state(prepare_job(kept, chosen), str(method)) if kept and learns else None
    return engine.explain(
        (a, b), (paths[0].name, paths[1].name), chosen.n_pixel_maps, chosen.n_lines, method, state
    )
