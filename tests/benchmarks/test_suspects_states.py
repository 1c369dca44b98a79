"""States over one warehouse of evidence, the old ranking, and the measures of a judged state.

All of it on toys, without a model.
"""

import itertools

import numpy as np
import pytest

from schemas.fingerprints import Fingerprints
from schemas.settings import Settings
from tasks.job import Job
from tasks.store.warehouse import Warehouse
from tests.benchmarks.suspects.assess import BEFORE, JUDGEMENT, SUSPECTS, assess, is_error
from tests.benchmarks.suspects.before import ranked_before
from tests.benchmarks.suspects.copies import Extra, Source
from tests.benchmarks.suspects.judged import Judged, SuspectRow, judge, judged_views
from tests.benchmarks.suspects.photos import Pairs, Photos, words
from tests.benchmarks.suspects.states import (
    ANIMALS,
    CLEAN,
    COPIES,
    KINDS,
    NAMES,
    RETRIEVAL,
    Plan,
    State,
    states,
)
from tests.benchmarks.suspects.store import Evidence, shared_tables
from tests.toy_warehouse import FINGERPRINTS, LAYER, Pair, Photo, Toy

ANIMALS_OF = {f"{name}{i}": name for name in "abc" for i in range(4)}


@pytest.fixture
def evidence(tmp_path):
    """Twelve photos of three animals, every pair scored."""
    photos = [Photo(photo, name) for photo, name in ANIMALS_OF.items()]
    pairs = [
        Pair(x, y, 0.8, coverage=0.5, residual=4.0, n_inliers=30) if x[0] == y[0] else Pair(x, y, 0.4, coverage=0.1, n_inliers=6)
        for x, y in itertools.combinations(ANIMALS_OF, 2)
    ]  # fmt: skip
    warehouse = Toy(photos, pairs).write(Warehouse(str(tmp_path / "evidence")))
    prints = Fingerprints(**FINGERPRINTS)
    job = Job(warehouse, Settings(top_k=11, same_name_k=3), prints, (LAYER,), "", (64, 48))
    return Evidence(tmp_path, job), {photo.photo_id: photo.row() for photo in photos}


def test_a_state_shares_evidence_and_has_names_of_its_own(evidence, tmp_path):
    store, rows = evidence
    names = ANIMALS_OF | {"a0": "b", "c1": None}
    del names["c3"]
    job = store.state("one", rows, names)
    with judged_views(job, "s") as connection:
        assert dict(connection.execute("SELECT photo_id, identity FROM photos").fetchall()) == names
        assert connection.execute("SELECT count(*) FROM scores").fetchall()[0][0] > 30
    assert store.job.warehouse.files("suspects") == []
    assert len(job.warehouse.files("suspects")) == 1
    assert "photos" not in shared_tables()
    assert {"pairs", "scores", "embeddings", "failures"} <= set(shared_tables())
    store.drop("one")
    assert store.job.warehouse.files("scores")


def test_the_old_ranking_blames_a_misfiled_photo(evidence):
    store, rows = evidence
    job = store.state("two", rows, ANIMALS_OF | {"a0": "b"})
    with judged_views(job, "s") as connection:
        before = ranked_before(connection)
        found = before.execute("SELECT kind, blamed_photo, score FROM suspects ORDER BY rank").fetchall()
    assert {blamed for _, blamed, _ in found} == {"a0"}
    assert {kind for kind, _, _ in found} == {"different_name_same_animal", "same_name_different_animal"}


def test_a_state_is_judged_and_measured(evidence):
    store, rows = evidence
    names = ANIMALS_OF | {"a0": "b", "c1": None}
    judged = judge(store.state("three", rows, names), "s")
    assert judged.photos.ids == tuple(sorted(names))
    of = {frozenset((judged.photos.ids[a], judged.photos.ids[b])): i
          for i, (a, b) in enumerate(zip(judged.pairs.a, judged.pairs.b, strict=True))}  # fmt: skip
    assert judged.pairs.columns["coverage"][of[frozenset(("a0", "a1"))]] == pytest.approx(0.5)
    assert judged.pairs.cosine[of[frozenset(("a0", "b1"))]] == pytest.approx(0.4)
    state = State(NAMES, 0.05, 1, names, ANIMALS_OF | {"c1": None})
    found = {(method, measure): value for method, measure, value in assess(state, judged)}
    assert found["plausibility gap", "AP"] == 1
    assert found[BEFORE, "AP"] == 1
    assert found[BEFORE, "found@20"] == 1
    assert found[BEFORE, "echo share"] == pytest.approx(1 - 1 / found[BEFORE, "rows"])
    assert ("isotonic cosine", "Brier") in found


def toy_judged(rows=(), **values):
    """Six photos of two animals on two axes."""
    ids = tuple(f"{n}{i}" for n in "ab" for i in range(3))
    vectors = np.array([[1.0, 0.1 * i] if n == "a" else [0.1 * i, 1.0] for n in "ab" for i in range(3)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = words(["a", "a", "b", "b", "b", "b"])
    nothing = words([""] * 6)
    a, b = np.triu_indices(6, 1)
    ones = np.ones(15, bool)
    pairs = Pairs(
        a,
        b,
        (vectors @ vectors.T)[a, b],
        ones,
        ones,
        {"evidence": np.zeros(15)},
        np.array([f"p{i}" for i in range(15)], object),
    )
    given = {"before": (), "log_odds": {}, "probability": {}, "expected_precision": ()} | values
    return Judged(Photos(ids, names, vectors, nothing, nothing, nothing), pairs, tuple(rows), **given)


def row(kind, blamed, pair=(), names=(), score=0.5):
    return SuspectRow(kind, score, frozenset(blamed), frozenset(pair), frozenset(names))


TRUSTED = {f"{n}{i}": n for n in "ab" for i in range(3)}
GIVEN = TRUSTED | {"a2": "b"}


def test_a_judgement_is_measured_by_photo_by_pair_and_by_what_it_expects():
    judged = toy_judged(
        [row("wrong_name", ["a2"], score=0.9), row("wrong_name", ["b0"], score=0.4)],
        log_odds={"a2": 2.0, "b0": -1.0},
        probability={f"p{i}": float((i < 2) or i in (5, 12, 13, 14)) for i in range(15)},
        expected_precision=(
            {"rank": 1, "expected": 0.8, "errors": 1.2, "low": 0, "high": 2},
            {"rank": 2, "expected": 0.4},
        ),
    )
    found = {(m, k): v for m, k, v in assess(State(NAMES, 0.05, 1, GIVEN, TRUSTED), judged)}
    assert found[JUDGEMENT, "AP"] == 1
    assert found[SUSPECTS, "AP"] == 1
    assert found[JUDGEMENT, "calibration error"] == 0
    assert found[JUDGEMENT, "Brier"] == 0
    assert found[SUSPECTS, "error of expected precision@20"] == pytest.approx(0.4 - 0.5)
    assert found[SUSPECTS, "interval holds"] == 1
    assert found[SUSPECTS, "errors planted"] == 1
    assert found[SUSPECTS, "echo@20"] == 0


def test_names_are_measured_beside_mean_cosines():
    split, merged = frozenset({frozenset({"a", "b"})}), frozenset({"b"})
    judged = toy_judged(
        [row("two_names_one_animal", [], names=["a", "b"]), row("one_name_two_animals", [], names=["b"])]
    )
    state = State(ANIMALS, 0.0, 1, GIVEN, TRUSTED, split=split, merged=merged)
    found = {(m, k): v for m, k, v in assess(state, judged)}
    for measure in ("AP of two names, one animal", "AP of one name, two animals"):
        assert found[SUSPECTS, measure] == 1
        assert found["mean cosine", measure] == 1
    assert is_error(state, judged.rows[0])
    assert is_error(state, judged.rows[1])
    assert not is_error(state, row("one_name_two_animals", [], names=["a"]))


def test_copies_are_counted_by_kind():
    source = Source("b1", "", "", None, 0.0, "b", None, None)
    extras = {"a2": Extra("a2", source, "mirrored", "a"), "a1": Extra("a1", source, "halved", "a")}
    judged = toy_judged([
        row("copy", ["a2"], ["a2", "b1"]), row("copy", ["b0", "b2"], ["b0", "b2"]), row("wrong_name", ["a1"], ["a1", "b1"]),
    ])  # fmt: skip
    state = State(COPIES, 0.0, 1, TRUSTED, TRUSTED | {"a1": "b", "a2": "b"}, extras)
    found = {(m, k): v for m, k, v in assess(state, judged)}
    assert found[SUSPECTS, "copies found"] == 0.5
    assert found[SUSPECTS, "copies found: mirrored"] == 1
    assert found[SUSPECTS, "copies found: halved"] == 0
    assert (SUSPECTS, "copies found: turned 10") not in found
    assert found[SUSPECTS, "false copies"] == 1
    assert found[SUSPECTS, "copies: the copy alone blamed"] == 1


def test_retrieval_is_measured_before_and_after():
    probability = {f"p{i}": float((i < 2) or i in (5, 12, 13, 14)) for i in range(15)}
    judged = toy_judged(probability=probability)
    found = {(m, k): v for m, k, v in assess(State(RETRIEVAL, 0.0, 0, TRUSTED, TRUSTED), judged)}
    assert found["cosine", "rank-1"] == 1
    assert found[JUDGEMENT, "mAP"] == 1
    assert found[JUDGEMENT, "open-set error"] == 0


def test_all_states_of_a_plan():
    ids = [f"{n}{i}" for n in "abcdef" for i in range(8)]
    trusted, nothing = words([i[0] for i in ids]), words([""] * len(ids))
    source = Source("a0", "", "", None, 0.0, "a", None, None)
    extras = {
        (kind, seed): [Extra(f"x{seed}", source, "frame", "b")]
        for kind in ("copies", "bursts")
        for seed in (1, 2)
    }
    found = list(states(Plan(KINDS, (0.05, 0.1), (1, 2)), ids, trusted, nothing, nothing, extras))
    assert len({state.name for state in found}) == len(found) == 2 + 2 * (2 + 1 + 2)
    for state in found:
        wrong = [i for i in state.names if state.names[i] != state.trusted[i]]
        assert len(wrong) == {
            NAMES: round(state.share * 48),
            COPIES: 1,
            "bursts": 1,
            CLEAN: 0,
            RETRIEVAL: 0,
        }.get(state.kind, len(wrong))
        assert (state.kind == ANIMALS) == bool(state.split)
