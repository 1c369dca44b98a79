"""The value that holds labelled pairs: what it refuses, and what taking rows keeps."""

import numpy as np
import pytest

from pairx_engine.evaluation.pairs import LabelledPairs
from tests.pairx_engine.evaluation.labelled import random_pairs

GOOD = {
    "cosine": np.array([0.5, 0.25, 1.0]), "score": np.array([1.0, np.nan, 3.0]),
    "correct": np.array([True, False, False]), "animal_a": np.array([4, 4, 7]), "animal_b": np.array([4, 5, 4]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cosine": np.array([0.5, np.nan, 1.0])}, "finite cosine"),
        ({"cosine": np.array([0.5, 0.25])}, "shape"),
        ({"cosine": np.ones((3, 1))}, "shape"),
        ({"cosine": [0.5, 0.25, 1.0]}, "cosine must be float64"),
        ({"score": np.array([1.0, np.inf, 3.0])}, "finite number, or NaN"),
        ({"score": np.ones(3, dtype=np.float32)}, "score must be float64"),
        ({"correct": np.array([1, 0, 0])}, "correct must be bool"),
        ({"animal_a": np.array(["4", "4", "7"])}, "animal_a must be int64"),
        ({"animal_b": np.array([4, 4, 7])}, "one animal"),
    ],
)
def test_refuses_what_are_no_labelled_pairs(change, message):
    LabelledPairs(**GOOD)
    with pytest.raises(ValueError, match=message):
        LabelledPairs(**(GOOD | change))


def test_scored_leaves_out_what_has_no_score():
    pairs = LabelledPairs(**GOOD)
    assert len(pairs) == 3
    kept = pairs.scored()
    assert kept.score.tolist() == [1.0, 3.0]
    assert (kept.animal_a.tolist(), kept.animal_b.tolist()) == ([4, 7], [4, 4])
    assert kept.scored() is kept


def test_take_repeats_and_reorders_whole_rows():
    pairs = random_pairs(1)
    rows = np.array([5, 0, 5, 59])
    taken = pairs.take(rows)
    for name in GOOD:
        assert np.array_equal(getattr(taken, name), getattr(pairs, name)[rows], equal_nan=name == "score")
    assert len(pairs.take(np.zeros(60, dtype=bool))) == 0
