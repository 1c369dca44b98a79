"""An explained pair as a value: its photos, scores, figure and arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pairx_engine.errors import EngineError
from pairx_engine.explanations.seam import Shown
from pairx_engine.figure import (
    Figure,
    FigurePhoto,
    LocalMatches,
    draw_figure,
    encode_png,
    figure_input,
    score_line,
)
from pairx_engine.local.evidence import LocalEvidence
from pairx_engine.pair.plausibility import Plausibility
from pairx_engine.photo.chips import Pixels

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ExplainedPair:
    """Why a model finds two photos alike; in a notebook it shows its figure.

    `scores` and `local` are there where PAIR-X explains: other explanations make no finding that could be
    scored. `arrays` holds all numbers by name.
    """

    photos: tuple[FigurePhoto, FigurePhoto]
    cosine: float
    shown: Shown
    arrays: Arrays
    method: str
    scores: Plausibility | None = None
    local: LocalEvidence | None = None
    n_lines: int = 20
    pixels: tuple[float, float] | None = None
    """How much of the cosine the pixels of either photo carry, where the preset can tell."""
    notice: str | None = None
    """What the user should know about how the network is explained."""
    remarks: tuple[str, ...] = ()
    """What the explanation says of itself, such as how far its numbers can be trusted."""
    matcher: str = ""
    """The local matcher behind `local`."""

    @property
    def line(self) -> str:
        """The scores in a line."""
        if self.scores is None:
            return f"cosine {self.cosine:.3f} · {self.method}"
        inliers = self.local.n_inliers if self.local else None
        line = score_line(cosine=self.cosine, n_inliers=inliers, **vars(self.scores))
        return (
            line
            if self.pixels is None
            else f"{line} · pixels carry {self.pixels[0]:.2f}, {self.pixels[1]:.2f}"
        )

    def drawn(self, local_matches: bool = False) -> Figure:
        """The figure and its parts; with `local_matches` a panel shows those that carry the homography.

        Raises `EngineError` for local matches of an explanation that made no finding.
        """
        local = self._local_matches() if local_matches else None
        return draw_figure(figure_input(self.shown, self.photos, self.line, self.n_lines, local))

    def figure(self, local_matches: bool = False) -> Pixels:
        """The figure, (H, W, 3) uint8 RGB; see `drawn`."""
        return self.drawn(local_matches).figure

    def save(self, path: str | os.PathLike[str], local_matches: bool = False) -> None:
        """Write the figure as PNG; see `drawn`."""
        Path(path).write_bytes(encode_png(self.figure(local_matches)))

    def _repr_png_(self) -> bytes:
        return encode_png(self.figure())

    def _local_matches(self) -> LocalMatches:
        if self.local is None:
            raise EngineError(
                f"{self.method} asks no local matcher for a homography; leave --method or --local-matches out"
            )
        nowhere = np.zeros((0, 2))
        points = self.local.points or (nowhere, nowhere)
        local = self.local
        return LocalMatches(points, local.inliers, local.n_inliers, self.matcher, local.reason or "")


def evidence_arrays(scores: Plausibility, local: LocalEvidence) -> dict[str, NDArray[Any]]:
    """The scores and what the local matcher said, by name, as an arrays file holds them.

    `homography` (3, 3) maps chip pixels of the first photo to the second's and is all NaN without one, for
    `no_homography_reason`. `local_point0` and `local_point1` (m, 2) are local matches as (x, y) in chip
    pixels, `local_inlier` (m,) marks those that the homography explains. `match_residual` (n,) is in chip
    pixels, in the order of the matches, NaN without a homography. `match_coverage`, `residual_mean`,
    `inverted_residual_mean`, `top_residual_mean` are numbers, NaN where there is none.
    """
    nowhere = np.zeros((0, 2))
    points = local.points or (nowhere, nowhere)
    inliers = np.zeros(len(points[0]), dtype=bool) if local.inliers is None else local.inliers
    means = ("match_coverage", "residual_mean", "inverted_residual_mean", "top_residual_mean")
    return {
        "homography": np.full((3, 3), np.nan) if local.matrix is None else local.matrix,
        "no_homography_reason": np.asarray(local.reason or ""),
        "local_point0": points[0],
        "local_point1": points[1],
        "local_inlier": inliers,
        "match_residual": np.full(scores.n_matches, np.nan) if scores.residuals is None else scores.residuals,
        **{name: np.asarray(_number(getattr(scores, name))) for name in means},
    }


def _number(value: float | None) -> float:
    return np.nan if value is None else value
