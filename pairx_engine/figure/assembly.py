"""A figure's input from an explanation and its photos, whoever explained it and wherever it was kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pairx_engine.explanations.seam import Shown
from pairx_engine.figure.values import FigureInput, FigureSide, LocalMatches, Pixels
from pairx_engine.photo.chips import ChipSpec, chip_of, picture_of


@dataclass(frozen=True)
class FigurePhoto:
    """A photo of a figure: one cut in two sizes.

    `chip` (H, W, 3) uint8 is what the model sees, and points are in its pixels. `picture` (h, w, 3) uint8 is
    what people see, with the cut's aspect and at its own resolution. `cut_size` is the cut's (W, H).
    """

    chip: Pixels
    picture: Pixels
    cut_size: tuple[int, int]
    title: str

    @classmethod
    def of(cls, cut: Pixels, spec: ChipSpec, title: str) -> FigurePhoto:
        """A cut (h, w, 3) uint8, as a model with this chip and as people see it."""
        return cls(chip_of(cut, spec), picture_of(cut), (cut.shape[1], cut.shape[0]), title)


def figure_input(
    shown: Shown,
    photos: tuple[FigurePhoto, FigurePhoto],
    subtitle: str,
    n_lines: int,
    local: LocalMatches | None = None,
) -> FigureInput:
    """Everything that the figure shows of an explained pair; with `local` also its local matches."""
    a, b = (
        FigureSide(photo.picture, chip_size(photo), heat, points, pixels, photo.title)
        for photo, heat, points, pixels in zip(photos, shown.heat, shown.points, shown.pixels, strict=True)
    )
    return FigureInput((a, b), shown.relevance, subtitle, n_lines, shown.matched, local=local)


def chip_size(photo: FigurePhoto) -> tuple[int, int]:
    """(H, W) of a photo's chip."""
    return photo.chip.shape[0], photo.chip.shape[1]


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
