"""The ranking of methods: means, comparisons pair by pair, intervals and order, against naive ones."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pairx_engine.evaluation.bootstrap import bootstrap_by_animal
from pairx_engine.evaluation.pairs import LabelledPairs
from tasks.evaluation.ranking import ABOVE, BEHIND, rank

PAIRS: list[dict[str, Any]] = [
    {
        "pair_id": f"p{i}",
        "correct": i < 8,
        "identity_a": f"animal {i % 4}",
        "identity_b": f"animal {i % 4 if i < 8 else (i + 1) % 4}",
    }
    for i in range(12)
]
GAPS = {"gradient": 0.1, "pairx_published": 0.3, "random": 0.0, "centre": 0.05}


def measured(**lost: set[str]) -> pa.Table:
    """A gap for each method and pair, and another measure; `lost` pairs of a method have none."""
    rng = np.random.default_rng(0)
    rows = [
        {"pair_id": p["pair_id"], "similar": p["correct"], "method": method}
        | {"measure": measure, "value": None if measure == "auc_most" and p["pair_id"] == "p0" else value}
        for method, base in GAPS.items()
        for p in PAIRS
        for measure, value in (("gap", base + rng.normal(0, 0.02)), ("auc_most", rng.random()))
        if p["pair_id"] not in lost.get(method, set())
    ]
    other = {
        "pair_id": "of another list",
        "similar": True,
        "method": "gradient",
        "measure": "gap",
        "value": 9.0,
    }
    return pa.Table.from_pylist([*rows, other])


def values(table: pa.Table, method: str, measure: str, similar: bool) -> dict[str, float]:
    return {
        r["pair_id"]: r["value"]
        for r in table.to_pylist()
        if (r["method"], r["measure"], r["similar"]) == (method, measure, similar)
        and r["value"] is not None
        and r["pair_id"].startswith("p")
    }


def test_means_and_intervals_equal_naive_ones() -> None:
    table = measured()
    rows = rank(table, PAIRS, resamples=25)
    by_pair = {p["pair_id"]: p for p in PAIRS}
    codes = {f"animal {i}": i for i in range(4)}
    plain = [r for r in rows if r.measure in ("gap", "auc_most")]
    assert len(plain) == len(GAPS) * 2 * 2
    for row in plain:
        found = values(table, row.method, row.measure, row.similar)
        assert (row.mean, row.n_pairs) == (pytest.approx(fmean(found.values())), len(found))
        score = np.array(list(found.values()))
        a, b = (np.array([codes[by_pair[p][f"identity_{s}"]] for p in found]) for s in ("a", "b"))
        pairs = LabelledPairs(score, score, a == b, a, b)
        mean = {"mean": lambda p: float(p.score.mean()) if len(p) else float("nan")}
        interval = bootstrap_by_animal(pairs, mean, 25)["mean"]
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high))
    assert all(r.low is r.high is None for r in rank(table, PAIRS, resamples=0))


def test_methods_stand_in_the_order_of_their_gap() -> None:
    order = list(dict.fromkeys(row.method for row in rank(measured(), PAIRS)))
    assert order == ["pairx_published", "gradient", "centre", "random"]


def test_methods_are_compared_pair_by_pair_with_the_best_and_with_the_best_control() -> None:
    table = measured()
    rows = {(r.method, r.measure): r for r in rank(table, PAIRS)}
    gap = {method: values(table, method, "gap", True) for method in GAPS}
    for method in GAPS:
        behind = fmean(gap["pairx_published"][p] - gap[method][p] for p in gap[method])
        assert rows[method, BEHIND].mean == pytest.approx(behind)
    assert rows["pairx_published", BEHIND].mean == 0
    assert rows["gradient", ABOVE].mean == pytest.approx(
        fmean(gap["gradient"][p] - gap["centre"][p] for p in gap["centre"])
    )
    assert ("centre", ABOVE) not in rows
    low = rows["gradient", BEHIND].low
    assert low is not None
    assert low > 0, "it is behind, and the interval says so"


def test_a_method_of_few_pairs_is_compared_on_these_and_is_not_the_best() -> None:
    few = measured(pairx_published={f"p{i}" for i in range(2, 12)})
    rows = {(r.method, r.measure): r for r in rank(few, PAIRS)}
    assert rows["gradient", BEHIND].mean == 0
    assert rows["pairx_published", BEHIND].n_pairs == 2
    assert rows["pairx_published", BEHIND].mean < -0.1
