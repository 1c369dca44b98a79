"""Choosing settings by evidence, cross-validated by animal, so that the choice is not fitted noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pairx_engine.evaluation.bootstrap import Interval, bootstrap_by_animal
from pairx_engine.evaluation.folds import folds_by_animal, split
from pairx_engine.evaluation.pairs import LabelledPairs
from pairx_engine.evaluation.separation import DEFAULT, Binning, auc_at_equal_cosine, separation

ScoreSettings = tuple[tuple[str, str], ...]
"""Names and values of the settings that one score depends on, sorted by name.

For example (("layer", "blocks.3"), ("preset", ...)).
"""

COVERAGE, RESIDUAL = "match_coverage", "inverted_residual_mean"
EQUALLY_GOOD = 0.002
"""Candidates whose criteria differ by no more are equally good; the cheaper one is taken."""
_NAMES = {COVERAGE: {"layer", "preset", "reduction"}, RESIDUAL: {"layer", "matcher", "homography"}}


@dataclass(frozen=True)
class Candidate:
    """One complete choice of settings and what it is worth on all pairs.

    `settings` holds layer, preset, reduction, matcher and homography. `auc` and `delta` are by score: `auc`
    is the area under the ROC curve at equal cosine, where a missing score counts as the lowest; `delta` is
    the signed Bhattacharyya distance in the default binning. `criterion` is the mean of the two areas;
    `seconds` are those per pair.
    """

    settings: Mapping[str, str]
    auc: Mapping[str, float]
    delta: Mapping[str, float]
    criterion: float
    seconds: float


@dataclass(frozen=True)
class Choice:
    """The outcome: all candidates, best first, and the one to take.

    In each fold the best option on the other animals is measured on the held-out ones; `held_out_best` is its
    criterion there, and `held_out_default` that of the default. `difference` is the bootstrap interval of
    best less default on all pairs. `chosen` is `best` only where that interval lies above 0 and the held-out
    animals agree, else `default`; `reason` says so in words.
    """

    candidates: tuple[Candidate, ...]
    default: Candidate
    best: Candidate
    chosen: Candidate
    held_out_best: float
    held_out_default: float
    n_folds: int
    difference: Interval
    reason: str


def choose(
    cosine: ArrayLike,
    correct: ArrayLike,
    animal_a: ArrayLike,
    animal_b: ArrayLike,
    coverage: Mapping[ScoreSettings, NDArray[np.float64]],
    residual: Mapping[ScoreSettings, NDArray[np.float64]],
    seconds: Mapping[ScoreSettings, float],
    default: Mapping[str, str],
    n_folds: int = 3,
    n_resamples: int = 200,
    seed: int = 0,
    binning: Binning = DEFAULT,
    equal_cosine: Binning = DEFAULT,
) -> Choice:
    """Choose the settings whose two scores tell correct from incorrect pairs best at equal cosine.

    `cosine`, `correct`, `animal_a`, `animal_b` (n,) are as in `LabelledPairs`. `coverage` holds match
    coverages (n,) by layer, preset and reduction, `residual` inverted residual means (n,) by layer, matcher
    and homography, NaN where a pair has none; both are 0 or more, and NaN counts as 0. `seconds` per pair are
    those of each score's settings. A run matches both scores at one layer. So the candidates are all
    combinations with a common layer, without scores that no pair has.

    The criterion is the mean of both scores' `auc_at_equal_cosine` in the bins of `equal_cosine`, which
    should be narrow: in wide bins a score that repeats the cosine wins. `binning` is that of the candidates'
    Delta. The best candidate is the cheapest of those within `EQUALLY_GOOD` of the highest criterion.
    `candidates` are in order of the criterion, those without one last.

    The best of hundreds is partly luck. So the whole procedure is repeated without each of `n_folds` folds of
    animals (fewer where there are fewer animals), and its outcome and the default are measured on that fold.
    Folds are averaged, weighted by the comparisons that they hold.

    Deterministic for a seed. Raises ValueError where shapes or settings are not as above, where a cost is
    missing, and where the default is not among the candidates.
    """
    if n_folds < 2:
        raise ValueError(f"{n_folds} folds hold nothing out")
    rows = _places(cosine, correct, animal_a, animal_b)
    scores = _Scores(
        _checked(COVERAGE, coverage, len(rows)),
        _checked(RESIDUAL, residual, len(rows)),
        binning,
        equal_cosine,
    )
    options = _options(scores, default)
    place = next(i for i, option in enumerate(options) if _settings(option) == dict(default))
    costs = [_cost(option, seconds) for option in options]
    candidates = _candidates(scores, options, costs, rows)
    best = _pick([c.criterion for c in candidates], costs, place)
    folds = min(n_folds, len(np.unique(np.concatenate([rows.animal_a, rows.animal_b]))))
    held_out = _held_out(scores, options, costs, place, rows, folds, seed)
    statistic = {"difference": lambda pairs: scores.difference(options[best], options[place], pairs)}
    difference = bootstrap_by_animal(rows, statistic, n_resamples, seed=seed)["difference"]
    better = best != place and difference.low > 0 and held_out[0] > held_out[1]
    return Choice(
        candidates=tuple(sorted(candidates, key=_order)),
        default=candidates[place],
        best=candidates[best],
        chosen=candidates[best if better else place],
        held_out_best=held_out[0],
        held_out_default=held_out[1],
        n_folds=folds,
        difference=difference,
        reason=_reason(len(candidates), candidates[best], candidates[place], held_out, difference),
    )


def _places(cosine: ArrayLike, correct: ArrayLike, animal_a: ArrayLike, animal_b: ArrayLike) -> LabelledPairs:
    """The pairs with a row's place as its score: from any selection one can look up the values of any score."""
    return LabelledPairs(
        np.asarray(cosine, dtype=np.float64),
        np.arange(np.size(cosine), dtype=np.float64),
        np.asarray(correct, dtype=np.bool_),
        np.asarray(animal_a, dtype=np.int64),
        np.asarray(animal_b, dtype=np.int64),
    )


Option = tuple[ScoreSettings, ScoreSettings]
"""Settings of the coverage and of the residual."""


class _Scores:
    """All variants of both scores, looked up by rows whose score is their place."""

    def __init__(
        self,
        coverage: Mapping[ScoreSettings, NDArray[np.float64]],
        residual: Mapping[ScoreSettings, NDArray[np.float64]],
        of_delta: Binning,
        of_area: Binning,
    ) -> None:
        self.variants = {COVERAGE: coverage, RESIDUAL: residual}
        self.of_delta, self.of_area = of_delta, of_area
        self._measured = {**coverage, **residual}
        self._filled = {key: np.nan_to_num(values, nan=0.0) for key, values in self._measured.items()}

    def areas(self, options: Iterable[Option], rows: LabelledPairs) -> dict[ScoreSettings, float]:
        """Area under the curve of every score that the options use, on some of the rows."""
        keys = dict.fromkeys(key for option in options for key in option)
        return {key: auc_at_equal_cosine(_looked_up(rows, self._filled[key]), self.of_area) for key in keys}

    def criteria(self, options: Sequence[Option], rows: LabelledPairs) -> list[float]:
        """The criterion of every option on some of the rows."""
        areas = self.areas(options, rows)
        return [(areas[coverage] + areas[residual]) / 2 for coverage, residual in options]

    def difference(self, first: Option, second: Option, rows: LabelledPairs) -> float:
        """By how much the first criterion exceeds the second."""
        found = self.criteria([first, second], rows)
        return found[0] - found[1]

    def delta(self, key: ScoreSettings, rows: LabelledPairs) -> float:
        """Signed Bhattacharyya distance of one score over the pairs that have it."""
        return separation(_looked_up(rows, self._measured[key]), self.of_delta).value

    def comparisons(self, option: Option, rows: LabelledPairs) -> int:
        """How often the criterion compares a correct pair with an incorrect one, in the coverage."""
        bins = separation(_looked_up(rows, self._filled[option[0]]), self.of_area).bins
        return sum(b.n_correct * b.n_incorrect for b in bins if b.weight)


def _looked_up(rows: LabelledPairs, values: NDArray[np.float64]) -> LabelledPairs:
    score = values[rows.score.astype(np.int64)]
    return LabelledPairs(rows.cosine, score, rows.correct, rows.animal_a, rows.animal_b)


def _checked(
    score: str, variants: Mapping[ScoreSettings, ArrayLike], n: int
) -> dict[ScoreSettings, NDArray[np.float64]]:
    found = {key: np.asarray(values, dtype=np.float64) for key, values in variants.items()}
    for key, values in found.items():
        if {name for name, _ in key} != _NAMES[score] or len(key) != len(_NAMES[score]):
            raise ValueError(f"{score} depends on {', '.join(sorted(_NAMES[score]))}, not on {key}")
        if values.shape != (n,):
            raise ValueError(f"{n} pairs have {n} values of {score}, not {values.shape}")
        if (values < 0).any():
            raise ValueError(f"{score} is never negative")
    return found


def _options(scores: _Scores, default: Mapping[str, str]) -> list[Option]:
    """All combinations at one layer.

    A score that no pair has, such as that of a matcher that never fits, stands only in the default.
    """
    known = {
        key for variants in scores.variants.values() for key, v in variants.items() if not np.isnan(v).all()
    }
    found = [
        (coverage, residual)
        for coverage in scores.variants[COVERAGE]
        for residual in scores.variants[RESIDUAL]
        if dict(coverage)["layer"] == dict(residual)["layer"]
    ]
    if dict(default) not in map(_settings, found):
        raise ValueError(f"the default {dict(default)} was not measured, so nothing can be compared with it")
    return [o for o in found if known.issuperset(o) or _settings(o) == dict(default)]


def _settings(option: Option) -> dict[str, str]:
    return dict(option[0]) | dict(option[1])


def _cost(option: Option, seconds: Mapping[ScoreSettings, float]) -> float:
    missing = [key for key in option if key not in seconds]
    if missing:
        raise ValueError(f"nothing says what {missing[0]} costs")
    return sum(seconds[key] for key in option)


def _pick(criteria: Sequence[float], costs: Sequence[float], place: int) -> int:
    """The place of the cheapest option that is as good as the best one; `place` where none is defined.

    Of equally cheap ones the better is taken.
    """
    defined = [i for i, criterion in enumerate(criteria) if not math.isnan(criterion)]
    if not defined:
        return place
    highest = max(criteria[i] for i in defined)
    good = [i for i in defined if criteria[i] >= highest - EQUALLY_GOOD]
    # Of twins the default: there is no reason to leave it.
    return min(good, key=lambda i: (costs[i], -criteria[i], i != place))


def _candidates(
    scores: _Scores, options: Sequence[Option], costs: Sequence[float], rows: LabelledPairs
) -> list[Candidate]:
    areas = scores.areas(options, rows)
    deltas = {key: scores.delta(key, rows) for key in areas}
    return [
        Candidate(
            settings=_settings((coverage, residual)),
            auc={COVERAGE: areas[coverage], RESIDUAL: areas[residual]},
            delta={COVERAGE: deltas[coverage], RESIDUAL: deltas[residual]},
            criterion=(areas[coverage] + areas[residual]) / 2,
            seconds=cost,
        )
        for (coverage, residual), cost in zip(options, costs, strict=True)
    ]


def _order(candidate: Candidate) -> tuple[Any, ...]:
    """Highest criterion first, those without one last."""
    undefined = math.isnan(candidate.criterion)
    criterion = 0.0 if undefined else candidate.criterion
    return undefined, -criterion, candidate.seconds, sorted(candidate.settings.items())


def _held_out(
    scores: _Scores,
    options: Sequence[Option],
    costs: Sequence[float],
    place: int,
    rows: LabelledPairs,
    n_folds: int,
    seed: int,
) -> tuple[float, float]:
    """Criteria on held-out animals of the option picked without them, and of the default.

    NaN where no fold defines them.
    """
    if n_folds < 2:  # one animal alone
        return math.nan, math.nan
    folds = folds_by_animal(np.concatenate([rows.animal_a, rows.animal_b]), n_folds, seed)
    found = []
    for fold in range(n_folds):
        rest, held_out = split(rows, folds, fold)
        picked = _pick(scores.criteria(options, rest), costs, place)
        both = scores.criteria([options[picked], options[place]], held_out)
        weight = scores.comparisons(options[place], held_out)
        if weight and not any(map(math.isnan, both)):
            found.append((weight, *both))
    if not found:
        return math.nan, math.nan
    weights, best, default = np.array(found).T
    return float(np.average(best, weights=weights)), float(np.average(default, weights=weights))


def _reason(
    count: int,
    best: Candidate,
    default: Candidate,
    held_out: tuple[float, float],
    difference: Interval,
) -> str:
    if math.isnan(default.criterion) or math.isnan(best.criterion):
        return "the default is kept: too few correct and incorrect pairs share a cosine to compare anything"
    if best is default or best.criterion <= default.criterion:
        return f"the default is kept: none of {count} candidates is better by more than {EQUALLY_GOOD}, or as good and cheaper"
    gain = (
        f"the best of {count} candidates reaches {best.criterion:.3f} and the default {default.criterion:.3f}"
    )
    spread = f"95 % interval of the difference {difference.low:+.3f} to {difference.high:+.3f}"
    if not difference.low > 0:
        return f"the default is kept: {gain}, but that may be chance ({spread})"
    apart = f"{held_out[0]:.3f} against {held_out[1]:.3f}"
    if any(map(math.isnan, held_out)):
        return (
            f"the default is kept: {gain} ({spread}), but there are too few animals to confirm it on others"
        )
    if not held_out[0] > held_out[1]:
        return f"the default is kept: {gain} ({spread}), but animals that took no part in choosing do not confirm it ({apart})"
    return f"changed: {gain} ({spread}), confirmed on animals that took no part in choosing ({apart})"
