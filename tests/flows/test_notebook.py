"""The notebook's interface: two photos explained, and a warehouse asked."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from flows.notebook import ExplainedPair, compare, explain, open_warehouse
from pairx_engine.errors import EngineError, PhotoError
from schemas.errors import SettingsError
from tasks.sql.console import connect_analyst

HOW = {"layers": ("backbone.blocks.3",), "n_pixel_maps": 2}


@pytest.fixture(scope="module")
def photos(small: Path) -> tuple[Path, Path]:
    rows = list(csv.DictReader(small.open(encoding="utf-8")))
    a, b = (small.parent / row["path"] for row in rows[:2])
    return a, b


@pytest.fixture(scope="module")
def pair(photos: tuple[Path, Path]) -> ExplainedPair:
    return explain(*photos, **HOW)


def test_a_pair_shows_its_figure_and_holds_its_numbers(pair: ExplainedPair, tmp_path: Path) -> None:
    shown = Image.open(io.BytesIO(pair._repr_png_()))
    assert (shown.format, shown.size) == ("PNG", pair.figure().shape[1::-1])
    pair.save(tmp_path / "pair.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "pair.png")), pair.figure())
    assert pair.scores is not None
    assert pair.scores.n_matches == len(pair.arrays["match_distance"]) == len(pair.shown.relevance)
    assert pair.arrays["pixel_relevance0"].shape[0] == 2
    assert f"{pair.cosine:.3f}" in pair.line


def test_another_method_has_maps_and_no_scores(photos: tuple[Path, Path]) -> None:
    found = explain(*photos, method="gradient", **HOW)
    assert found.scores is None
    assert "gradient" in found.line
    assert found.arrays["map0"].shape == found.photos[0].chip.shape[:2]
    assert found.figure().std() > 1


def test_local_matches_are_drawn_and_say_how_many_count(photos: tuple[Path, Path]) -> None:
    found = explain(photos[0], photos[0], method="matches_sift", **HOW)
    assert found.scores is None
    a, b = found.shown.points
    assert len(a) >= 4
    assert np.array_equal(a, b)
    assert f"{len(found.arrays['match_confidence'])} matches on the chips" in found.remarks[0]
    assert found.figure().std() > 1


@pytest.mark.parametrize("method", ["simexpert_points", "grad_cam"])
def test_a_transformer_is_explained_by_what_needs_no_relevance(
    photos: tuple[Path, Path], tmp_path: Path, method: str
) -> None:
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **options)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    described = {
        "architecture": "timm",
        "timm_name": "vit_tiny_patch16_224",
        "timm_kwargs": options,
        "input": {"size": [32, 32]},
    }
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    found = explain(*photos, method=method, model=str(tmp_path), layers=("backbone.blocks.0",))
    assert found.arrays["map0"].shape == (32, 32)
    assert found.arrays["map0"].std() > 0
    assert found.notice is None
    assert -1 <= found.cosine <= 1
    assert found.figure().std() > 1


def test_pairx_by_name_is_what_it_is_by_default(pair: ExplainedPair, photos: tuple[Path, Path]) -> None:
    found = explain(*photos, method="pairx_published", **HOW)
    assert found.line == pair.line
    assert np.array_equal(found.figure(), pair.figure())


def test_a_comparison_shows_its_sheet(photos: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare(*photos, ["gradient", "centre"], box_b=(10, 20, 60, 40), **HOW)
    assert [one.method.name for one in found.methods] == ["gradient", "centre"]
    assert [photo.title for photo in found.photos] == [path.name for path in photos]
    assert found.photos[1].cut_size == (60, 40)
    shown = Image.open(io.BytesIO(found._repr_png_()))
    assert (shown.format, shown.size) == ("PNG", found.drawn.sheet.shape[1::-1])
    found.save(tmp_path / "sheet.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), found.drawn.sheet)


def test_a_box_cuts_the_photo(photos: tuple[Path, Path]) -> None:
    found = explain(*photos, box_a=(10, 20, 60, 40), **HOW)
    assert found.photos[0].cut_size == (60, 40)


def test_what_cannot_be_used_is_said(photos: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="nowhere"):
        explain(tmp_path / "nowhere.jpg", photos[1])
    with pytest.raises(SettingsError, match="presett"):
        explain(*photos, presett="paper")
    with pytest.raises(EngineError, match="choose one of pairx_published"):
        explain(*photos, method="guess", **HOW)
    with pytest.raises(EngineError, match="choose one of pairx_published"):
        compare(*photos, ["guess"], **HOW)


def test_a_warehouse_is_asked_through_the_analysts_own_connection() -> None:
    assert open_warehouse is connect_analyst
