"""A figure's input from an explanation and its photos, whoever explained it and wherever it was kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pairx_engine.explanations.seam import Shown
from pairx_engine.figure.values import FigureInput, FigureSide, Pixels


@dataclass(frozen=True)
class FigurePhoto:
    """A photo of a figure.

    `chip` is (H, W, 3) uint8; `cut_size` is the size (W, H) of the cut that was stretched to the chip.
    """

    chip: Pixels
    cut_size: tuple[int, int]
    title: str


def figure_input(
    shown: Shown, photos: tuple[FigurePhoto, FigurePhoto], subtitle: str, n_lines: int
) -> FigureInput:
    """Everything that the figure shows of an explained pair."""
    a, b = (
        FigureSide(photo.chip, heat, points, pixels, photo.title, photo.cut_size[0] / photo.cut_size[1])
        for photo, heat, points, pixels in zip(photos, shown.heat, shown.points, shown.pixels, strict=True)
    )
    return FigureInput((a, b), shown.relevance, subtitle, n_lines, shown.matched)


def score_line(
    cosine: float,
    n_matches: int,
    match_coverage: float | None,
    residual_mean: float | None,
    inverted_residual_mean: float | None,
    n_inliers: int | None,
    **_: Any,
) -> str:
    """The line of scores below a figure's titles; takes a whole row of scores and ignores the rest."""
    parts = [f"cosine {cosine:.3f}", f"{n_matches} matches"]
    if match_coverage is not None:
        parts.append(f"coverage {match_coverage:.2f}")
    if inverted_residual_mean is not None:
        parts.append(f"residual {residual_mean:.1f} px (inverted {inverted_residual_mean:.3f})")
        parts.append(f"{n_inliers} local inliers")
    else:
        parts.append("no homography")
    return " · ".join(parts)
