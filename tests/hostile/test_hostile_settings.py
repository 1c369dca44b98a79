"""Hostile settings: a TOML file either holds settings or is refused with words that name the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tasks  # noqa: F401  # enters what settings may name
from flows.clusters.choice import resolve_kind
from schemas.errors import SettingsError
from schemas.settings import Settings, load_settings

REFUSED = {
    "a truth value for a number": ("figures = true", "figures"),
    "a truth value for a share": ("homography_threshold = true", "homography_threshold"),
    "a number for a truth value": ("same_species = 1", "same_species"),
    "a word for a truth value": ('same_species = "yes"', "same_species"),
    "a text for a number": ('top_k = "5"', "top_k"),
    "a fraction for a whole number": ("top_k = 5.0", "top_k"),
    "a number for a text": ("model = 5", "model"),
    "a text for a list": ('layers = "backbone.blocks.3"', "layers"),
    "numbers in a list of texts": ("layers = [1]", "layers"),
    "a list for a text": ('preset = ["published"]', "preset"),
    "a table for a text": ("preset = {a = 1}", "preset"),
    "a table for a number": ("[figures]\na = 1", "figures"),
    "a date for a number": ("view_side = 1979-05-27", "view_side"),
    "not a number": ("shard_minutes = nan", "shard_minutes"),
    "infinity": ("shard_minutes = inf", "shard_minutes"),
    "minus infinity": ("homography_threshold = -inf", "homography_threshold"),
    "nothing at all": ("homography_threshold = 0.0", "homography_threshold"),
    "minus nothing": ("homography_threshold = -0.0", "homography_threshold"),
    "less than can be told": ("homography_threshold = 1e-400", "homography_threshold"),
    "more than can be told": ("shard_minutes = 1e400", "shard_minutes"),
    "a number of 20 digits": ("figures = 99999999999999999999", "figures"),
    "the largest of 64 bits": ("top_k = 0x7fffffffffffffff", "top_k"),
    "a number of 5000 digits": (f"top_k = {'9' * 5000}", "TOML"),
    "a negative number": ("top_k = -1", "top_k"),
    "no photos in a task": ("photos_per_shard = 0", "photos_per_shard"),
    "a million workers": ("workers = 1000000", "workers"),
    "more pixels than a worker holds": ("max_pixels = 1000000001", "max_pixels"),
    "views of 100,000 pixels": ("view_side = 100000", "view_side"),
    "a preset that there is not": ('preset = "../../etc/passwd"', "preset"),
    "a matcher that there is not": ("matcher = \"__import__('os')\"", "matcher"),
    "a resize that there is not": ('resize = "PIL"', "resize"),
    "an unknown key": ("no_such_setting = 1", "no_such_setting"),
    "a key of Python": ("__class__ = 1", "__class__"),
    "a key of pydantic": ("model_config = {}", "model_config"),
    "a key of 5000 letters": (f"{'x' * 5000} = 1", "no such setting"),
    "a key of escape sequences": ('"\\u001b[31m" = 1', "no such setting"),
    "a key of keys": ("a." * 300 + "b = 1", "no such setting"),
    "a key twice": ("top_k = 1\ntop_k = 2", "TOML"),
    "lists in lists": (f"a = {'[' * 5000}{']' * 5000}", "nested"),
    "tables in tables": ("[" + "a." * 20000 + "a]\nx = 1", "no such setting"),
    "no TOML": ("{", "TOML"),
    "a zero byte": ("\x00", "TOML"),
    "YAML": ("top_k: 5", "TOML"),
    "JSON": ('{"top_k": 5}', "TOML"),
    "Python": ("import os; os.system('true')", "TOML"),
    "an open text": ('model = "', "TOML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_settings_are_refused_with_words(tmp_path: Path, name: str) -> None:
    text, word = REFUSED[name]
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=word) as refused:
        load_settings(tmp_path / "s.toml")
    assert len(str(refused.value)) < 3000


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"\xef\xbb\xbf\xff", b'model = "\xed\xa0\x80"', b"a = 1\r", bytes(100), b"#" * (2 << 20)],
    ids=["UTF-16", "broken UTF-8", "half a character", "a bare return", "zeros", "two megabytes"],
)
def test_bytes_that_are_no_settings_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.toml").write_bytes(data)
    with pytest.raises(SettingsError):
        load_settings(tmp_path / "s.toml")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to itself", "nothing"])
def test_what_is_no_file_holds_no_settings(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "s.toml"
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "device":
            place = Path("/dev/zero")
        case "folder":
            place.mkdir()
        case "link to itself":
            place.symlink_to("s.toml")
    with pytest.raises(SettingsError):
        load_settings(place)


CLUSTERS = (
    "", "tcp://", "tcp:", "tcp", "tcp://host", "tcp://:8786", "tcp://host:port", "tcp://a b:1", "tls://", "ws://x", "http://host:1",
    "file:///etc/passwd", "local;rm -rf /", "LOCAL", "cuda:0", "tcp://host:8786\n", "tcp://host:99999999", "inproc://x", "\x1b[31m",
)  # fmt: skip


@pytest.mark.parametrize("cluster", CLUSTERS, ids=ascii)
def test_what_names_no_cluster_is_refused_before_anything_starts(cluster: str) -> None:
    with pytest.raises(SettingsError, match="cluster"):
        resolve_kind(Settings(cluster=cluster))


def test_what_a_toml_file_may_say_is_read(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('layers = ["a", "b"]\nshard_minutes = 5\nsame_species = true\n')
    read = load_settings(tmp_path / "s.toml")
    assert (read.layers, read.shard_minutes, read.same_species) == (("a", "b"), 5.0, True)
