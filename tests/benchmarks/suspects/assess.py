"""Everything that is measured of one judged state: rows (method, measure, value)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from tests.benchmarks.suspects import calibration, measures, retrieval
from tests.benchmarks.suspects.judged import Judged, SuspectRow
from tests.benchmarks.suspects.photos import Floats, Pairs, Photos, with_names
from tests.benchmarks.suspects.simple_methods import between_names, suspicions
from tests.benchmarks.suspects.states import ANIMALS, BURSTS, COPIES, RETRIEVAL, State, misnamed, truth_of

BEFORE, SUSPECTS, JUDGEMENT = "ranking before", "suspects", "judgement"
OURS = (JUDGEMENT, SUSPECTS)
"""Methods that are not simple ones; the first that was measured counts."""
COPY = "copy"
TWO_NAMES, TWO_ANIMALS = "two_names_one_animal", "one_name_two_animals"
"""Kinds of rows about names."""

Measured = tuple[str, str, float]


def assess(state: State, judged: Judged) -> list[Measured]:
    """Every measure of one state that has a value."""
    if state.kind == RETRIEVAL:
        found = list(_retrieval(state, judged))
    else:
        photos, pairs = with_names(judged.photos, judged.pairs)
        found = [*_photos(state, judged, photos, pairs), *_pairs(state, judged, photos, pairs)]
        for method, rows in ((BEFORE, judged.before), (SUSPECTS, judged.rows)):
            found += _named(method, {**_list(state, photos, rows), **_files(state, rows)})
        found += _names(state, judged, photos)
        found += _named(SUSPECTS, _expectations(state, judged))
    return [row for row in found if not np.isnan(row[2])]


def _named(method: str, values: dict[str, float]) -> Iterator[Measured]:
    for measure, value in values.items():
        yield method, measure, float(value)


def _photos(state: State, judged: Judged, photos: Photos, pairs: Pairs) -> Iterator[Measured]:
    """Every method's ranking of photos."""
    wrong = misnamed(state, photos.ids)
    if not wrong.any():
        return
    scores = suspicions(photos, pairs)
    for method, rows in ((BEFORE, judged.before), (SUSPECTS, judged.rows)):
        if rows:
            ranked = [(_positions(photos, row.blamed), row.score) for row in rows]
            scores[method] = measures.scored_photos(ranked, len(photos.ids))
    if judged.log_odds:
        least = min(judged.log_odds.values())
        scores[JUDGEMENT] = np.array([judged.log_odds.get(photo, least) for photo in photos.ids])
    for method, score in scores.items():
        yield from _named(method, measures.by_photo(score, wrong))


def _positions(photos: Photos, wanted: Collection[str]) -> list[int]:
    return [i for i, photo in enumerate(photos.ids) if photo in wanted]


def _list(state: State, photos: Photos, rows: Sequence[SuspectRow]) -> dict[str, float]:
    """Echoes and different planted photos, of rows about photos."""
    if not rows:
        return {}
    wrong = misnamed(state, photos.ids)
    blamed = [_positions(photos, row.blamed) for row in rows if row.kind not in (TWO_NAMES, TWO_ANIMALS)]
    return measures.by_row(blamed, wrong)


def _files(state: State, rows: Sequence[SuspectRow]) -> dict[str, float]:
    """Copies found as copies, by kind, and rows that call something else a copy."""
    if not rows:
        return {}
    called = [row for row in rows if row.kind == COPY]
    copies = state.extras if state.kind == COPIES else {}
    right = [row for row in called if row.pair & copies.keys()]
    found = {"false copies": float(len(called) - len(right))}
    seen = {photo for row in right for photo in row.pair}
    for kind in sorted({extra.kind for extra in copies.values()}):
        of_kind = [photo for photo, extra in copies.items() if extra.kind == kind]
        found[f"copies found: {kind}"] = float(np.mean([photo in seen for photo in of_kind]))
    if copies:
        found["copies found"] = float(np.mean([photo in seen for photo in copies]))
        found["copies: the copy alone blamed"] = (
            float(np.mean([len(row.blamed) == 1 and row.blamed <= copies.keys() for row in right]))
            if right
            else float("nan")
        )
    if state.kind == BURSTS:
        burst = state.extras.keys() | {extra.source.photo_id for extra in state.extras.values()}
        found["frames of a burst called copies"] = float(sum(row.pair <= burst for row in called))
    return found


def _pairs(state: State, judged: Judged, photos: Photos, pairs: Pairs) -> Iterator[Measured]:
    """Probabilities of comparable pairs against the truth."""
    trusted = truth_of(state, photos.ids)
    # Pairs that names chose are no fair sample: their share of one animal depends on the choice.
    pairs = pairs.only(pairs.comparable & pairs.retrieved)
    same = pairs.same(trusted)
    yield from _named(
        "isotonic cosine", calibration.by_pair(calibration.isotonic_of_cosine(pairs, photos.names), same)
    )
    if judged.probability:
        yield from _named(JUDGEMENT, calibration.by_pair(probabilities(judged, pairs), same))


def probabilities(judged: Judged, pairs: Pairs) -> Floats:
    """The judged probability of each pair (P,), NaN where there is none."""
    return np.array([judged.probability.get(pair, np.nan) for pair in pairs.ids], dtype=np.float64)


def _names(state: State, judged: Judged, photos: Photos) -> Iterator[Measured]:
    """Split and merged animals, beside mean cosines between and within names."""
    if state.kind != ANIMALS:
        return
    names, mean = between_names(photos)
    low, high = np.triu_indices(len(names), 1)
    split = np.array([frozenset({names[i], names[j]}) in state.split for i, j in zip(low, high, strict=True)])
    merged = np.array([name in state.merged for name in names])
    lowest, usual = np.nanmin(mean), np.nanmedian(np.diag(mean))
    within = np.where(np.isnan(np.diag(mean)), usual, np.diag(mean))
    across = np.nan_to_num(mean[low, high], nan=lowest)
    scores = {"mean cosine": (across, -within)}
    if judged.rows:
        of_names = {
            kind: {row.names: row.score for row in reversed(judged.rows) if row.kind == kind}
            for kind in (TWO_NAMES, TWO_ANIMALS)
        }
        scores[SUSPECTS] = (
            np.array(
                [
                    of_names[TWO_NAMES].get(frozenset({names[i], names[j]}), -1.0)
                    for i, j in zip(low, high, strict=True)
                ]
            ),
            np.array([of_names[TWO_ANIMALS].get(frozenset({name}), -1.0) for name in names]),
        )
    for method, (of_split, of_merged) in scores.items():
        yield method, "AP of two names, one animal", measures.average_precision(of_split, split)
        yield method, "AP of one name, two animals", measures.average_precision(of_merged, merged)


def is_error(state: State, row: SuspectRow) -> bool:
    """Whether a row is about something that was planted."""
    if row.kind == TWO_NAMES:
        return row.names in state.split
    if row.kind == TWO_ANIMALS:
        return bool(row.names & state.merged)
    return any(state.names.get(photo) != state.trusted.get(photo) for photo in row.blamed)


def _expectations(state: State, judged: Judged) -> dict[str, float]:
    """What the list expects of itself against what was planted.

    Empty where nothing was planted, since nobody knows all errors of a catalogue's own names.
    """
    rows = judged.expected_precision
    if not rows or not state.seed:
        return {}
    expected = np.array([row["expected"] for row in rows])
    real = np.array([is_error(state, row) for row in judged.rows], dtype=bool)
    count = min(len(expected), len(real))
    found = {
        f"error of expected precision@{k}": measures.error_of_expected_precision(
            expected[:count], real[:count], k
        )
        for k in measures.FIRST_ROWS
    }
    planted = sum(state.names[photo] != state.trusted[photo] for photo in state.names)
    if {"errors", "low", "high"} <= rows[0].keys() and state.kind != ANIMALS:
        found |= {
            "errors expected": rows[0]["errors"],
            "errors planted": planted,
            "interval holds": measures.holds(rows[0]["low"], rows[0]["high"], planted),
        }
    return found


def _retrieval(state: State, judged: Judged) -> Iterator[Measured]:
    """Every photo as an unknown one, before and after its nearest were judged."""
    photos, pairs = with_names(judged.photos, judged.pairs)
    cosines, trusted = photos.cosines(), truth_of(state, photos.ids)
    yield from _named("cosine", retrieval.by_query(cosines, trusted))
    orders = {"evidence": pairs.columns["evidence"]}
    if judged.probability:
        orders[JUDGEMENT] = probabilities(judged, pairs)
    for method, value in orders.items():
        matrix = np.full(cosines.shape, np.nan)
        matrix[pairs.a, pairs.b] = matrix[pairs.b, pairs.a] = value
        yield from _named(method, retrieval.by_query(retrieval.reranked(cosines, matrix), trusted))
