"""The rows of an evaluation: each is its statistic on the right pairs.

Outliers are those that were planted.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from pairx_engine.evaluation.separation import DEFAULT, VARIANTS, auc, separation
from tasks.evaluation.statistics import BASELINE, ScoredList, equal_cosine, rank_outliers, statistics_of
from tasks.pages.evaluation_values import SCORES


def scored(n: int = 400, seed: int = 0, species: int = 1, useful: float = 1.0) -> ScoredList:
    """Drawn pairs of 20 animals: coverage follows the class by `useful`, residuals are noise with holes."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 20, n)
    b = np.where(rng.random(n) < 0.5, a, rng.integers(0, 20, n))
    cosine = rng.normal(0.5, 0.1, n) + 0.1 * (a == b)
    coverage = rng.normal(0.5, 0.1, n) + 0.1 * useful * (a == b)
    residual = np.exp(rng.normal(-3, 1, n))
    residual[rng.random(n) < 0.2] = np.nan
    names = [tuple(f"animal {code}" for code in side) for side in (a, b)]
    kinds = tuple(
        f"species {code % species}" if code % species == other % species else None
        for code, other in zip(a, b, strict=True)
    )
    return ScoredList(
        tuple(f"{i:05d}" for i in range(n)),
        tuple(f"p{i}" for i in range(n)),
        tuple(f"q{i}" for i in range(n)),
        *names,
        kinds,
        cosine,
        {SCORES[0]: residual, SCORES[1]: coverage},
        (None,) * n,
    )


def values(rows, **wanted):
    return [r for r in rows if all(getattr(r, name) == value for name, value in wanted.items())]


def test_every_row_is_its_statistic_on_all_pairs() -> None:
    found = scored()
    rows = statistics_of("toy", found, DEFAULT, resamples=0)
    correct = np.array(found.identity_a) == np.array(found.identity_b)
    for score in SCORES:
        numbers = found.scores[score]
        known = ~np.isnan(numbers)
        (rho,) = values(rows, score=score, statistic="spearman")
        assert rho.value == pytest.approx(
            stats.spearmanr(found.cosine[known], numbers[known]).statistic, abs=1e-12
        )
        (area,) = values(rows, score=score, statistic="auc")
        wins = stats.mannwhitneyu(numbers[known & correct], numbers[known & ~correct]).statistic
        assert area.value == pytest.approx(
            wins / (known & correct).sum() / (known & ~correct).sum(), abs=1e-12
        )
        assert [r.variant for r in values(rows, score=score, statistic="delta")][: len(VARIANTS)] == [
            v.name for v in VARIANTS
        ]
        (delta,) = values(rows, score=score, statistic="delta", variant=DEFAULT.name)
        assert delta.value == separation(found.labelled(numbers)).value
        assert {r.n_missing for r in values(rows, score=score)} == {int((~known).sum())}
        assert {r.n_correct for r in values(rows, score=score)} == {int(correct.sum())}
    assert all(r.low is None and r.high is None for r in rows)


def test_a_missing_score_counts_as_the_lowest() -> None:
    found = scored()
    correct = np.array(found.identity_a) == np.array(found.identity_b)
    numbers = found.scores[SCORES[0]].copy()
    numbers[~correct] = np.nan
    only_correct = ScoredList(**{**vars(found), "scores": {**found.scores, SCORES[0]: numbers}})
    (row,) = values(
        statistics_of("toy", only_correct, resamples=0), score=SCORES[0], statistic="auc_missing_lowest"
    )
    assert row.value > 0.85  # every correct pair with a score beats every incorrect one
    (plain,) = values(statistics_of("toy", only_correct, resamples=0), score=SCORES[0], statistic="auc")
    assert plain.value is None


def test_the_cosine_is_the_baseline_and_the_useful_score_beats_it() -> None:
    rows = statistics_of("toy", scored(4000), resamples=0)
    (baseline,) = values(rows, score=BASELINE, statistic="auc_equal_cosine")
    (useful,) = values(rows, score=SCORES[1], statistic="auc_equal_cosine")
    (noise,) = values(rows, score=SCORES[0], statistic="auc_equal_cosine")
    assert [equal_cosine(n).n_bins for n in (0, 30, 400, 4000)] == [1, 1, 20, 40]
    assert abs(baseline.value - 0.5) < 0.03
    assert abs(noise.value - 0.5) < 0.03
    assert useful.value > 0.7


def test_intervals_hold_the_rank_statistics_and_repeat_for_a_seed() -> None:
    found = scored(300)
    first, again = (statistics_of("toy", found, resamples=60) for _ in range(2))
    assert first == again
    for row in values(first, statistic="spearman") + values(first, statistic="auc"):
        if row.score != BASELINE or row.statistic == "auc":
            assert row.low <= row.value <= row.high
            assert row.high > row.low


def test_species_get_rows_of_their_own_where_there_are_several() -> None:
    assert {r.species for r in statistics_of("toy", scored(300), resamples=0)} == {None}
    found = scored(800, species=2)
    rows = statistics_of("toy", found, resamples=0)
    assert {r.species for r in rows} == {None, "species 0", "species 1"}
    mask = np.array([s == "species 1" for s in found.species])
    (row,) = values(rows, species="species 1", score=SCORES[1], statistic="auc")
    assert row.value == auc(
        found.scores[SCORES[1]][mask], np.array(found.identity_a)[mask] == np.array(found.identity_b)[mask]
    )


def test_row_order_changes_nothing() -> None:
    found = scored(300)
    order = np.random.default_rng(1).permutation(300)
    columns = {
        n: tuple(np.array(v, dtype=object)[order]) for n, v in vars(found).items() if isinstance(v, tuple)
    }
    shuffled = ScoredList(
        **columns, cosine=found.cosine[order], scores={n: v[order] for n, v in found.scores.items()}
    )
    assert statistics_of("toy", shuffled, resamples=20) == statistics_of("toy", found, resamples=20)
    assert rank_outliers(shuffled, 5) == rank_outliers(found, 5)


def test_planted_outliers_come_first() -> None:
    found = scored(600, useful=2.0)
    correct = np.array(found.identity_a) == np.array(found.identity_b)
    good, bad = np.flatnonzero(~correct)[3], np.flatnonzero(correct)[5]
    found.scores[SCORES[1]][good], found.scores[SCORES[1]][bad] = 1.8, -0.8
    ranked = rank_outliers(found, 10)
    assert {ranked[0].pair_id, ranked[1].pair_id} == {found.pair_id[good], found.pair_id[bad]}
    assert [o.rank for o in ranked] == list(range(1, 11))
    assert all(a.z >= b.z > 0 for a, b in pairwise(ranked))
    assert {o.pair_id: o.correct for o in ranked[:2]} == {
        found.pair_id[good]: False,
        found.pair_id[bad]: True,
    }
    assert all(math.isfinite(o.z) for o in ranked)


def test_there_are_no_outliers_without_scores() -> None:
    found = scored(50)
    nothing = {name: np.full(50, np.nan) for name in SCORES}
    assert rank_outliers(ScoredList(**{**vars(found), "scores": nothing}), 10) == []
    rows = statistics_of("toy", ScoredList(**{**vars(found), "scores": nothing}), resamples=5)
    assert all(
        r.value is None for r in rows if r.score in SCORES and r.statistic in ("spearman", "delta", "auc")
    )
