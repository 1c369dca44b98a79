"""Methods ranked by how faithful they were: means with intervals by animal, and who is behind whom."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa

from pairx_engine.evaluation.bootstrap import mean_by_animal
from pairx_engine.evaluation.pairs import LabelledPairs
from pairx_engine.explanations import explanations
from pairx_engine.explanations.controls import controls
from tasks.pages.evaluation_values import FaithfulnessRow

RANKED_BY = "gap"
BEHIND, ABOVE = "behind_best", "above_controls"
"""How far a method's gap is behind the largest, and above that of the best control, pair by pair."""
Values = Mapping[str, float]
"""A measure's values by pair id."""


def rank(
    measured: pa.Table, pairs: Sequence[Mapping[str, Any]], resamples: int = 200
) -> list[FaithfulnessRow]:
    """Means over pairs by method, measure and class with 95 % intervals; the methods of largest gap first.

    Intervals are those of resampled animals; without resamples there are none. Two methods are compared on
    the pairs that both were measured on. The best is sought among methods that were measured on most pairs.
    """
    known = {p["pair_id"]: p for p in pairs}
    values: dict[tuple[str, str, bool], dict[str, float]] = defaultdict(dict)
    for row in measured.to_pylist():
        if row["pair_id"] in known and row["value"] is not None:
            values[row["method"], row["measure"], row["similar"]][row["pair_id"]] = row["value"]
    gaps = {
        method: found
        for (method, measure, similar), found in values.items()
        if measure == RANKED_BY and similar
    }
    values |= _comparisons(gaps)
    place = {
        method: i for i, method in enumerate(sorted(explanations(), key=lambda m: -_mean(gaps.get(m, {}))))
    }
    measures = list(dict.fromkeys(measure for _, measure, _ in values))
    return [
        _row(method, measure, similar, found, known, resamples)
        for (method, measure, similar), found in sorted(
            values.items(),
            key=lambda item: (place.get(item[0][0], len(place)), measures.index(item[0][1]), not item[0][2]),
        )
        if found
    ]


def _comparisons(gaps: Mapping[str, Values]) -> dict[tuple[str, str, bool], dict[str, float]]:
    most = max(map(len, gaps.values()), default=0)
    full = {method: _mean(found) for method, found in gaps.items() if len(found) == most}
    knowing_nothing = [control.name for control in controls()]
    blind = {name: mean for name in knowing_nothing if (mean := full.get(name)) is not None}
    found = {}
    for method, own in gaps.items():
        if best := max(full, key=lambda m: full[m], default=None):
            found[method, BEHIND, True] = {
                p: gaps[best][p] - gap for p, gap in own.items() if p in gaps[best]
            }
        if blind and method not in knowing_nothing:
            control = gaps[max(blind, key=lambda m: blind[m])]
            found[method, ABOVE, True] = {p: gap - control[p] for p, gap in own.items() if p in control}
    return found


def _mean(values: Values) -> float:
    return fmean(values.values()) if values else -math.inf


def _row(
    method: str,
    measure: str,
    similar: bool,
    values: Values,
    pairs: Mapping[str, Mapping[str, Any]],
    resamples: int,
) -> FaithfulnessRow:
    low = high = None
    if resamples:
        interval = mean_by_animal(_labelled(values, pairs), resamples)
        if math.isfinite(interval.low):
            low, high = interval.low, interval.high
    return FaithfulnessRow(method, measure, similar, fmean(values.values()), low, high, len(values))


def _labelled(values: Values, pairs: Mapping[str, Mapping[str, Any]]) -> LabelledPairs:
    names = [[pairs[p][f"identity_{side}"] for p in values] for side in ("a", "b")]
    codes = {name: i for i, name in enumerate(sorted({*names[0], *names[1]}))}
    a, b = (np.array([codes[name] for name in side], dtype=np.int64) for side in names)
    score = np.array(list(values.values()))
    return LabelledPairs(score, score, np.array([pairs[p]["correct"] for p in values]), a, b)
