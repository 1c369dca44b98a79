"""Where a pair stands among a warehouse's pairs, and photos that are not to be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.sql.standing import Standing, in_words, scored_as, standings, stored_pair
from tasks.sql.stored_photos import missing_photo, photos_named, require_seen
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import FINGERPRINTS, LAYER, Pair, Photo, Toy, write_judgement, write_photos

ANN = [Photo(f"A{i}", "Ann", encounter=f"a{i}") for i in range(3)]
BOB = [Photo(f"B{i}", "Bob", encounter=f"b{i}") for i in range(2)]
NOBODY = [Photo("N0", None, encounter="n")]
PAIRS = [
    Pair("A0", "A1", 0.9, coverage=0.6, residual=10.0),
    Pair("A0", "A2", 0.8, coverage=0.4, residual=20.0),
    Pair("A1", "A2", 0.7, coverage=0.2, n_inliers=None),
    Pair("A0", "B0", 0.5, coverage=0.3, residual=50.0),
    Pair("A1", "B0", 0.4, coverage=0.1, residual=40.0),
    Pair("A0", "N0", 0.99, coverage=0.9, residual=1.0),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    photos = [*ANN, *BOB, *NOBODY]
    made = Toy(photos, PAIRS).write(Warehouse(str(tmp_path_factory.mktemp("toy"))))
    write_judgement(made, photos, {}, {("A0", "A1"): 0.9, ("A0", "A2"): 0.6, ("A0", "B0"): 0.2})
    return made


def test_shares_are_of_pairs_of_one_name_and_of_two(place: Warehouse) -> None:
    scores = {"cosine": 0.85, "match_coverage": 0.3, "inverted_residual_mean": 1 / 30, "probability": 0.5}
    assert standings(place, scores) == [
        Standing("cosine", True, 3, 2),
        Standing("cosine", False, 2, 2),
        # Of two equal values none is lower. The pair of an unknown name is of neither kind.
        Standing("match_coverage", True, 3, 1),
        Standing("match_coverage", False, 2, 1),
        # Pairs without a homography have no residual.
        Standing("inverted_residual_mean", True, 2, 0),
        Standing("inverted_residual_mean", False, 2, 2),
        Standing("probability", True, 2, 0),
        Standing("probability", False, 1, 1),
    ]


def test_the_pair_itself_does_not_count_and_an_absent_score_has_no_standing(place: Warehouse) -> None:
    found = standings(place, {"cosine": 0.9, "match_coverage": None}, ("A0", "A1"))
    assert found == [Standing("cosine", True, 2, 2), Standing("cosine", False, 2, 2)]
    assert in_words(found, {"cosine": 0.9}) == [
        "cosine 0.900: above 100 % of 2 pairs of one name, 100 % of 2 pairs of two names"
    ]


@pytest.mark.parametrize(
    ("pairs", "below", "percent"),
    [(1000, 999, 99), (1000, 1, 1), (1000, 0, 0), (1000, 1000, 100), (8, 5, 62)],
)
def test_only_all_are_all_and_only_none_is_none(pairs: int, below: int, percent: int) -> None:
    assert Standing("cosine", True, pairs, below).text == f"{percent} % of {pairs} pairs of one name"


def test_a_stored_pair_has_its_scores_and_its_probability(place: Warehouse) -> None:
    found = stored_pair(place, "A0", "B0")
    assert found is not None
    assert found.same_identity is False
    assert found.scores == pytest.approx(
        {"cosine": 0.5, "match_coverage": 0.3, "inverted_residual_mean": 0.02, "probability": 0.2}
    )
    assert stored_pair(place, "A2", "B0") is None


def test_scores_are_those_of_one_fingerprint_and_layer(place: Warehouse) -> None:
    assert scored_as(place, FINGERPRINTS["scores"], LAYER)
    assert not scored_as(place, FINGERPRINTS["scores"], "blocks.2")
    assert not scored_as(place, "0000", LAYER)


def test_what_became_of_a_photo(tmp_path: Path) -> None:
    photos = [
        Photo("D00073", "Ann"),
        Photo("D00074", "Ann"),
        Photo("gone", "Bob"),
        Photo("bad", readable=False),
    ]
    place = Toy(photos, []).write(Warehouse(str(tmp_path / "w")))
    write_photos(place, [Photo("gone", "Bob", revision=1, present=False)])
    earlier = Photo("earlier").row()
    place.write("photos", "0123456789abcdef", "shard", [earlier])
    assert set(photos_named(place, ["D00073", "gone", "earlier", "none"])) == {"D00073"}
    assert "withdrawn from the catalogue (revision 1)" in str(missing_photo(place, "gone"))
    assert "under other settings or by an earlier version" in str(missing_photo(place, "earlier"))
    assert "near to it: D00073" in str(missing_photo(place, "d00073 "))
    require_seen(photos_named(place, ["D00073"])["D00073"])
    with pytest.raises(ValueError, match="bad could not be read"):
        require_seen(photos_named(place, ["bad"])["bad"])
