"""Settings: defaults, then the file, then what is given by hand; and every mistake named at once."""

from __future__ import annotations

import tomllib

import pytest
from pydantic import ValidationError

import tasks  # noqa: F401  # settings learn from it what they may name
from flows.options import description
from pairx_engine.local.homography import Method
from pairx_engine.local.registry import LOCAL_MATCHERS
from pairx_engine.photo.chips import MAX_PIXELS
from pairx_engine.relevance.presets import PRESETS, REDUCTIONS
from schemas.errors import SettingsError
from schemas.evaluate_options import EvaluateOptions, load_evaluate_options
from schemas.settings import Settings, load_settings


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "pairx.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_file_goes_before_the_defaults_and_what_is_given_before_the_file(toml):
    path = toml('top_k = 7\npreset = "paper"\nlayers = ["backbone.blocks.3", "backbone.blocks.2"]\n')
    settings = load_settings(path, {"top_k": 9, "preset": None})
    assert settings.top_k == 9
    assert settings.preset == "paper"
    assert settings.layers == ("backbone.blocks.3", "backbone.blocks.2")
    assert settings.same_name_k == Settings().same_name_k


def test_what_is_given_can_switch_off_what_the_file_switches_on(toml):
    path = toml("same_species = true\nsame_name_k = 3\n")
    settings = load_settings(path, {"same_species": False, "same_name_k": 0})
    assert (settings.same_species, settings.same_name_k) == (False, 0)


def test_without_anything_there_are_the_defaults():
    assert load_settings() == Settings()


def test_all_mistakes_are_listed_at_once_with_their_cure(toml):
    path = toml('top_k = 0\npreset = "best"\ntopk = 3\nview_side = "wide"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {"retries": -1})
    text = str(caught.value)
    assert str(path) in text
    for word in (
        "top_k = 0",
        "greater than or equal to 1",
        "preset = 'best'",
        "'published'",
        "view_side",
        "retries = -1",
    ):
        assert word in text
    assert "topk: no such setting" in text
    assert all(name in text for name in Settings.model_fields)


@pytest.mark.parametrize(
    ("text", "words"), [("top_k = ", "not valid TOML"), ("top_k = 3\ntop_k = 4", "not valid TOML")]
)
def test_a_file_that_is_no_toml_is_named(toml, text, words):
    path = toml(text)
    with pytest.raises(SettingsError, match=words) as caught:
        load_settings(path)
    assert str(path) in str(caught.value)


def test_a_file_of_other_bytes_is_named(tmp_path):
    path = tmp_path / "pairx.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_settings(path)


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path):
    with pytest.raises(SettingsError, match="no settings file at .*none.toml"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        {"homography_threshold": float("nan")},
        {"homography_threshold": 0},
        {"matcher": "orb"},
        {"reduction": "mean"},
        {"layers": "backbone.blocks.3"},
        {"workers": 0},
        {"n_pixel_maps": -1},
        {"max_pixels": 10**9 + 1},
        {"resize": "bicubic"},
    ],
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(SettingsError, match=next(iter(bad))):
        load_settings(overrides=bad)


def test_settings_do_not_change_once_made():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().top_k = 3


def test_settings_survive_being_sent_to_a_worker():
    settings = Settings(top_k=3, layers=("a", "b"), workers=2)
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    assert hash(settings) == hash(Settings(top_k=3, layers=("a", "b"), workers=2))


def test_every_setting_teaches():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert len(description(name, Settings.model_fields[name])) > 10, name


def test_choices_are_those_of_the_engine():
    for setting, members in (("preset", PRESETS), ("matcher", LOCAL_MATCHERS)):
        for name, member in members.items():
            assert getattr(load_settings(overrides={setting: name}), setting) == name
            assert f"{name} ({member.about})" in description(setting, Settings.model_fields[setting])
    reductions, _ = Settings.model_fields["reduction"].annotation.__args__
    assert reductions.__args__ == REDUCTIONS
    assert Settings.model_fields["max_pixels"].default == MAX_PIXELS
    assert set(Settings.model_fields["homography"].annotation.__args__) == set(Method.__args__)


def test_the_printed_settings_are_a_file_that_gives_the_defaults(toml, capsys):
    from flows.commands.settings import print_settings

    print_settings()
    text = capsys.readouterr().out
    assert load_settings(toml(text)) == Settings()
    assert load_evaluate_options(toml(text), {}) == EvaluateOptions()
    assert tomllib.loads(text)
    assert all(name in text for name in Settings.model_fields)
