"""Turns a finding into rows of `matches`, `relevances`, `signals` and `scores`, and back.

The way back needs the first two alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from pairx_engine.local.evidence import LocalEvidence
from pairx_engine.pair.corroboration import corroboration
from pairx_engine.pair.finding import Finding, Side
from pairx_engine.pair.plausibility import Plausibility

Row = Mapping[str, Any]
_SIDES = "ab"


def rows_of(finding: Finding, scores: Plausibility, local: LocalEvidence) -> dict[str, dict[str, Any]]:
    """The rows by table, without the columns of the key; matches come most relevant first."""
    height, width = finding.sides[0].grid.shape
    grids = {f"grid_{name}": side.grid.ravel() for name, side in zip(_SIDES, finding.sides, strict=True)}
    return {
        "matches": _match_row(finding, scores),
        "relevances": {"height": height, "width": width, **grids},
        "scores": _score_row(finding, scores, local),
    }


def signal_row(finding: Finding, local: LocalEvidence, chip: tuple[int, int]) -> dict[str, Any]:
    """The row of `signals`, without the columns of the key; `chip` is (H, W) of both chips.

    Relevances are used as `relevances` stores them, so a finding and its stored rows give the same row to
    the bit.
    """
    a, b = (replace(side, grid=side.grid.astype(np.float32)) for side in finding.sides)
    return asdict(corroboration(replace(finding, sides=(a, b)), local, chip))


def stored_finding(matches: Row, relevances: Row) -> Finding:
    """The finding in these rows of `matches` and `relevances`; the most relevant matches come first."""
    shape = relevances["height"], relevances["width"]

    def side(name: str) -> Side:
        column, row, x, y = (matches[f"{what}_{name}"] for what in ("column", "row", "x", "y"))
        return Side(
            np.asarray(relevances[f"grid_{name}"], dtype=np.float64).reshape(shape),
            np.stack([column, row], axis=1).astype(np.int64).reshape(-1, 2),
            np.stack([x, y], axis=1).astype(np.float64).reshape(-1, 2),
        )

    return Finding(
        matches["layer"], (side("a"), side("b")), np.asarray(matches["distance"], dtype=np.float32)
    )


def _match_row(finding: Finding, scores: Plausibility) -> dict[str, Any]:
    order, ordered = finding.order, finding.ordered()
    row: dict[str, Any] = {"distance": ordered.distance, "relevance": finding.relevance[order]}
    for name, side in zip(_SIDES, ordered.sides, strict=True):
        row |= {
            f"column_{name}": side.cells[:, 0].astype(np.int16),
            f"row_{name}": side.cells[:, 1].astype(np.int16),
            f"x_{name}": side.points[:, 0].astype(np.float32),
            f"y_{name}": side.points[:, 1].astype(np.float32),
        }
    row["residual"] = None if scores.residuals is None else scores.residuals[order].astype(np.float32)
    return row


def _score_row(finding: Finding, scores: Plausibility, local: LocalEvidence) -> dict[str, Any]:
    return {
        "n_matches": scores.n_matches,
        "match_fraction": scores.match_fraction,
        "match_coverage": scores.match_coverage,
        "residual_mean": scores.residual_mean,
        "inverted_residual_mean": scores.inverted_residual_mean,
        "top_residual_mean": scores.top_residual_mean,
        "n_local_matches": local.n_matches,
        "n_inliers": local.n_inliers,
        "homography": None if local.matrix is None else local.matrix.ravel(),
        "no_homography_reason": local.reason,
        **{
            f"relevance_{name}": float(side.grid.sum(dtype=np.float64))
            for name, side in zip(_SIDES, finding.sides, strict=True)
        },
    }
