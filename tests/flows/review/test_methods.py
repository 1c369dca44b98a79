"""Explanations on demand are those of `pairx compare`, and are computed once."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.notebook import explain
from flows.review import methods as module
from flows.review.catalogue import ReviewedCatalogue
from flows.review.methods import INLIERS, Methods, NotExplained
from pairx_engine.errors import EngineError
from pairx_engine.figure.comparison import strength
from pairx_engine.figure.panels import HEAT_OPACITY
from tasks.store.warehouse import Warehouse
from tests.finished_runs import Finished

Pair = tuple[str, tuple[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]
_SCORED = """
SELECT pair_id, a, b, n_inliers, n_local_matches
FROM pair_scores JOIN photos AS a ON a.photo_id = photo_a JOIN photos AS b ON b.photo_id = photo_b
WHERE n_inliers IS NOT NULL ORDER BY n_inliers DESC, pair_id LIMIT 1
"""


@pytest.fixture(scope="module")
def catalogue(undisturbed: Finished) -> ReviewedCatalogue:
    return ReviewedCatalogue(undisturbed.warehouse.url)


@pytest.fixture
def warehouse(undisturbed: Finished, tmp_path: Path) -> Warehouse:
    return undisturbed.copy(tmp_path / "w")


@pytest.fixture
def methods(warehouse: Warehouse, catalogue: ReviewedCatalogue) -> Methods:
    return Methods(warehouse, lambda: catalogue)


@pytest.fixture(scope="module")
def pair(catalogue: ReviewedCatalogue) -> Pair:
    (row,) = catalogue.query(_SCORED, [])
    return row["pair_id"], (row["a"], row["b"]), row


def test_a_map_is_that_of_the_method(methods: Methods, pair: Pair) -> None:
    pair_id, photos, _ = pair
    found = methods.explained(pair_id, photos, "gradient")
    paths = [f"{photo['root']}/{photo['path']}" for photo in photos]
    boxes = {f"box_{side}": photo["box"] for side, photo in zip("ab", photos, strict=True)}
    assert all(abs(photo["theta"]) < 0.1 for photo in photos)
    wanted = explain(*paths, **boxes, method="gradient", layers=methods._job(methods._of_run()).layers).arrays
    for side, name in zip("ab", ("map0", "map1"), strict=True):
        picture = Image.open(io.BytesIO(found.pictures[side])).convert("RGBA")
        height, width = wanted[name].shape
        alpha = np.asarray(picture.resize((width, height), Image.Resampling.BOX), dtype=float)[..., 3] / 255
        assert np.abs(alpha - HEAT_OPACITY * strength(wanted[name])).mean() < 0.02


def test_inliers_are_those_that_were_scored(methods: Methods, pair: Pair) -> None:
    pair_id, photos, scored = pair
    found = methods.explained(pair_id, photos, INLIERS)
    assert f"{scored['n_local_matches']} local matches" in found.remarks[0]
    assert f"{scored['n_inliers']} fit one homography" in found.remarks[0]
    assert len(found.matches) >= min(module._MOST_INLIERS, scored["n_inliers"])
    places = np.array([[match["a"], match["b"]] for match in found.matches])
    assert places.min() >= 0
    assert places.max() <= 1


def test_what_was_computed_is_kept(methods: Methods, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair_id, photos, _ = pair
    assert methods.kept(pair_id, INLIERS) is None
    first = methods.explained(pair_id, photos, INLIERS)
    monkeypatch.setattr(module.Methods, "_inliers", None)
    assert methods.explained(pair_id, photos, INLIERS) is first
    assert methods.kept(pair_id, INLIERS) is first


def test_a_server_that_starts_again_has_what_was_computed(
    methods: Methods,
    warehouse: Warehouse,
    catalogue: ReviewedCatalogue,
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair_id, photos, _ = pair
    computed = {name: methods.explained(pair_id, photos, name) for name in ("gradient", INLIERS)}
    monkeypatch.setattr(module.Methods, "_inliers", None)
    monkeypatch.setattr(module.Methods, "_computed", None)
    again = Methods(warehouse, lambda: catalogue)
    assert again.known(pair_id) == ["gradient"]
    for name, first in computed.items():
        assert again.explained(pair_id, photos, name) == first
    assert again.kept(pair_id, "grad_cam") is None


def test_what_cannot_be_explained_says_why(methods: Methods, pair: Pair) -> None:
    pair_id, photos, _ = pair
    with pytest.raises(EngineError, match="no_such_method"):
        methods.explained(pair_id, photos, "no_such_method")
    lost = {**photos[0], "chip_id": "another"}
    with pytest.raises(NotExplained, match="no local features"):
        methods.explained("another", (lost, photos[1]), INLIERS)


def test_all_affordable_methods_are_offered(methods: Methods) -> None:
    offered = [each["name"] for each in methods.listed()]
    assert {"grad_cam", "lrp_cp", "gradient"} <= set(offered)
    assert all(each["about"] for each in methods.listed())
