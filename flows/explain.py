"""One pair ad hoc: `pairx explain A B`, without a warehouse, a cluster or a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pairx_engine.chips import Box, Pixels, chip_of, cut_photo, decode_photo, view_of
from pairx_engine.errors import PhotoError
from pairx_engine.explain import PairExplanation, explain_pair
from pairx_engine.figure import FigureInput, draw_figure, encode_png
from pairx_engine.local.evidence import LocalEvidence, local_evidence
from pairx_engine.plausibility import Plausibility, plausibility
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings, load_settings
from tasks.job import Job, matcher_of, model_of, prepare_job
from tasks.remaining import subtitle
from tasks.warehouse import Warehouse

_OUT = Console(highlight=False, soft_wrap=True, markup=False)


def explain_photos(
    photos: tuple[Path, Path],
    boxes: tuple[str | None, str | None],
    out: Path,
    arrays: Path | None,
    given: Mapping[str, Any],
) -> None:
    """Write the PAIR-X figure of two photos, and their arrays if wanted; print the scores."""
    settings = load_settings(overrides=given)
    cuts = [_cut(path, _box(box), settings) for path, box in zip(photos, boxes, strict=True)]
    job = prepare_job(Warehouse("memory://explain"), settings)
    if job.notice:
        _OUT.print(job.notice)
    model = model_of(job)
    found = explain_pair(
        model,
        chip_of(cuts[0], model.chip),
        chip_of(cuts[1], model.chip),
        layer=job.layers[0],
        preset=settings.preset,
        n_pixel_maps=settings.n_pixel_maps,
        precision=settings.precision,
        reduction=settings.reduction,
    )
    scores, local = _plausibility(job, cuts, found)
    line = subtitle({"cosine": float(found.cosine), "n_inliers": local.n_inliers, **vars(scores)})
    figure = draw_figure(_figure_input(found, cuts, (photos[0].name, photos[1].name), line, settings))
    _write(out, encode_png(figure.figure))
    _OUT.print(line if local.reason is None else f"{line} ({local.reason.replace('_', ' ')})")
    _OUT.print(f"figure: {out}")
    if arrays is not None:
        arrays.parent.mkdir(parents=True, exist_ok=True)
        with arrays.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **found.arrays())
        _OUT.print(f"arrays: {arrays}")


def _box(text: str | None) -> Box | None:
    if text is None:
        return None
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"box {text!r} is not x,y,w,h", "give four numbers in pixels, e.g. 120,80,400,260"
        ) from error
    return (x, y, w, h)


def _cut(path: Path, box: Box | None, settings: Settings) -> Pixels:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError("missing_file", f"{path} cannot be read: {error.strerror}") from error
    try:
        return cut_photo(decode_photo(data, settings.max_pixels), box)
    except PhotoError as error:
        raise PhotoError(error.code, f"{path}: {error}") from error


def _plausibility(job: Job, cuts: list[Pixels], found: PairExplanation) -> tuple[Plausibility, LocalEvidence]:
    """Both scores, with a homography from the independent matcher on larger views of the same cuts."""
    matcher, chosen = matcher_of(job), job.settings
    a, b = (matcher.extract(view_of(cut, chosen.view_side)) for cut in cuts)
    local = local_evidence(matcher, a, b, job.chip_size, chosen.homography, chosen.homography_threshold)
    scores = plausibility(
        found.match_cell0,
        found.match_cell1,
        found.match_point0,
        found.match_point1,
        found.relevance0,
        found.relevance1,
        local.matrix,
    )
    return scores, local


def _figure_input(
    found: PairExplanation, cuts: list[Pixels], names: tuple[str, str], line: str, settings: Settings
) -> FigureInput:
    return FigureInput(
        chip_a=found.chip0,
        chip_b=found.chip1,
        grid_a=found.relevance0,
        grid_b=found.relevance1,
        points_a=found.match_point0,
        points_b=found.match_point1,
        relevance=found.match_relevance,
        maps_a=found.pixel_relevance0,
        maps_b=found.pixel_relevance1,
        title_a=names[0],
        title_b=names[1],
        subtitle=line,
        n_lines=settings.n_lines,
        aspect_a=cuts[0].shape[1] / cuts[0].shape[0],
        aspect_b=cuts[1].shape[1] / cuts[1].shape[0],
    )


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise PairxError(
            f"{path} cannot be written: {error.strerror}", "name another file with -o"
        ) from error
