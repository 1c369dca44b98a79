"""Options of an evaluation: defaults, then a file's table, then what was given; errors are listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import SettingsError
from schemas.evaluate_options import EvaluateOptions, load_evaluate_options
from schemas.settings import TABLES, Settings, load_settings


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text('top_k = 3\n[evaluate]\nbins = 4\nedges = "quantile"\nfigures = 1\n')
    return path


def test_a_file_goes_before_defaults_and_options_before_the_file(toml: Path) -> None:
    assert load_evaluate_options(None, {}) == EvaluateOptions()
    found = load_evaluate_options(toml, {"figures": 7, "per_photo": None})
    assert (found.bins, found.edges, found.figures) == (4, "quantile", 7)
    assert found.per_photo == EvaluateOptions().per_photo


def test_settings_and_options_share_a_file_and_do_not_meet(toml: Path) -> None:
    assert load_settings(toml) == Settings(top_k=3)
    assert Settings.model_fields.keys().isdisjoint(TABLES)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('edges = "round"', r"edges = 'round': Input should be 'equal_width' or 'quantile'"),
        ('fill = "green"', "'noise', 'mean' or 'blur'"),
        ("share = 2.0", "less than or equal to 1"),
        ("figures = true", "figures = True"),
        ("top_k = 3", "top_k: no such setting; known are bins, checks, choose"),
        ("bins = 0\nfolds = 1", r"(?s)bins = 0.*folds = 1"),
        ('try_layer = ["a"]', "add --choose"),
        ("continuity = true", "add --faithfulness"),
    ],
)
def test_bad_options_are_listed(tmp_path: Path, table: str, words: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f"[evaluate]\n{table}\n")
    with pytest.raises(SettingsError, match=words):
        load_evaluate_options(path, {})


def test_a_key_in_the_place_of_the_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("evaluate = 3\n")
    with pytest.raises(SettingsError, match=r"evaluate is no table[\s\S]*write \[evaluate\]"):
        load_evaluate_options(path, {})


def test_fills_and_sides_of_superpixels_are_one_or_several(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    for text, fill, sides in (
        ('fill = "mean"\nsuperpixel = 9', ("mean",), (9,)),
        ('fill = ["blur", "noise"]\nsuperpixel = [5, 16]', ("blur", "noise"), (5, 16)),
    ):
        path.write_text(f"[evaluate]\n{text}\n")
        options = load_evaluate_options(path, {})
        assert (options.fill, options.superpixel) == (fill, sides)
    for wrong in ("fill = []", "superpixel = [5, 0]", "superpixel = true"):
        path.write_text(f"[evaluate]\n{wrong}\n")
        with pytest.raises(SettingsError):
            load_evaluate_options(path, {})
