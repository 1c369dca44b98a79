"""Fingerprints: a setting changes those of exactly the tables whose numbers it changes."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, astuple
from functools import cache
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairx_engine.local.registry import load_local_matcher
from pairx_engine.model_files import EMBEDDED_FOLDER
from pairx_engine.models import load_model
from schemas import fingerprints as module
from schemas.fingerprints import Fingerprints, fingerprint, fingerprints, sweep_fingerprint
from schemas.setting import Setting, Table
from schemas.settings import Settings
from schemas.tables.evaluation import EVALUATION_TABLES
from schemas.tables.registry import FINGERPRINTS, TABLES

ALL = {
    "photos", "embeddings", "keypoints", "pairs", "scores", "signals", "explanations", "suspects", "judgements", "copies",
}  # fmt: skip
FROM_EMBEDDINGS = ALL - {"photos", "keypoints", "copies"}
FROM_KEYPOINTS = {"keypoints", "scores", "signals", "explanations", "suspects", "judgements"}
FROM_SCORES = {"scores", "signals", "explanations", "suspects", "judgements"}
FROM_PAIRS = {"pairs", "suspects", "judgements"}

CHANGES = {
    "resize": ("opencv", FROM_EMBEDDINGS),
    "layers": (("backbone.blocks.2",), FROM_SCORES),
    "preset": ("paper", FROM_SCORES),
    "reduction": ("positive_sum", FROM_SCORES),
    "precision": ("bfloat16", FROM_SCORES),
    "matcher": ("disk+lightglue", FROM_KEYPOINTS),
    "view_side": (512, FROM_KEYPOINTS),
    "max_keypoints": (500, FROM_KEYPOINTS),
    "homography": ("least_squares", FROM_SCORES),
    "homography_threshold": (4.0, FROM_SCORES),
    "top_k": (6, FROM_PAIRS),
    "same_name_k": (3, FROM_PAIRS),
    "other_name_k": (3, FROM_PAIRS),
    "references": (3, FROM_PAIRS),
    "same_species": (True, FROM_PAIRS),
    "same_viewpoint": (True, FROM_PAIRS),
    "max_pixels": (1000, {"photos", "copies", "judgements"}),
    "n_pixel_maps": (3, {"explanations"}),
    "n_lines": (3, {"explanations"}),
}
"""Settings that change numbers: another value, and the tables whose numbers it changes."""

RUNNING = {
    "columns": ("identity=turtle_id",),
    "strip_prefix": "/data/photos",
    "encounter_gap": 5.0,
    "unknown_names": ("new_whale",),
    "bad_boxes": "fail",
    "device": "cpu",
    "model_revision": "abc",
    "matcher_weights": "/somewhere/else",
    "figures": 3,
    "neighbours": 3,
    "cluster": "tcp://10.0.0.1:8786",
    "workers": 3,
    "batch_size": 3,
    "photos_per_shard": 3,
    "pairs_per_shard": 3,
    "retries": 3,
    "shard_minutes": 1.0,
}
"""Settings that only say where and how the work is done, and how much is kept.

Weights count by their content, not by their place.
"""

READER = {"decoder": "pillow-13", "convention": "v1"}


@cache
def model_identity(source, resize):
    return load_model(source, resize=resize).identity()


def matcher_identities(settings):
    """Identities of extraction and matching: SIFT's own, or a stand-in where weights would be needed."""
    if settings.matcher == "sift":
        matcher = load_local_matcher("sift", max_keypoints=settings.max_keypoints)
        return matcher.extraction_identity(), matcher.identity()
    extraction = {"extractor": settings.matcher.split("+")[0], "max_keypoints": settings.max_keypoints}
    return extraction, {"matcher": settings.matcher, **extraction}


def prints(reader=READER, **changed):
    settings = Settings(**changed)
    model = model_identity(settings.model, settings.resize)
    layers = settings.layers or ("backbone.blocks.3",)
    return fingerprints(settings, reader, model, *matcher_identities(settings), layers, {"verifier": "v1"})


def differing(first, second):
    return {table for table, value in asdict(first).items() if asdict(second)[table] != value}


def test_every_setting_is_either_in_the_table_or_only_says_how_to_read_and_run():
    assert {*CHANGES, *RUNNING, "model"} == set(Settings.model_fields)
    assert not set(CHANGES) & set(RUNNING)


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_that_changes_numbers_changes_exactly_its_tables(name):
    value, tables = CHANGES[name]
    assert value != getattr(Settings(), name)
    assert differing(prints(), prints(**{name: value})) == tables


@pytest.mark.parametrize("name", RUNNING)
def test_a_setting_that_says_how_to_run_changes_nothing(name):
    assert RUNNING[name] != getattr(Settings(), name)
    assert differing(prints(), prints(**{name: RUNNING[name]})) == set()


def test_the_same_weights_elsewhere_are_the_same_model_and_others_are_not(tmp_path):
    copy = shutil.copytree(
        EMBEDDED_FOLDER, tmp_path / "copy", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    assert differing(prints(), prints(model=str(copy))) == set()
    other = {**model_identity("embedded", None), "weights": "0" * 64}
    found = fingerprints(
        Settings(), READER, other, *matcher_identities(Settings()), ("backbone.blocks.3",), {"verifier": "v1"}
    )
    assert differing(prints(), found) == FROM_EMBEDDINGS


def test_another_decoder_or_convention_changes_every_table():
    assert differing(prints(), prints(reader={**READER, "decoder": "pillow-14"})) == ALL


def test_a_layer_named_is_the_same_as_the_models_own():
    assert prints(layers=("backbone.blocks.3",)) == prints()
    assert prints(layers=("backbone.blocks.3", "backbone.blocks.2")) != prints()


IDENTITIES = ({"d": 1}, {"m": 1}, {"e": 1}, {"x": 1}, ("a.b",), {"v": 1})
STORED = {
    (("preset", "published"),): "7c5ecb7a26242d14 fb4b9c8ded6ba54f c676ffda8448f53c f8dd09a801ece905 6ceabce5d9181b82 abafda842f4d9d12 "
    "724a557f3af132d9 e80713059ba597a5 d76737f5bf55c732 d6af03c5ed7f3ba1 8f11411383ee748e",
    (("preset", "paper"), ("reduction", "signed_sum"), ("precision", "tf32"), ("view_side", 512), ("max_keypoints", 500),
     ("homography", "least_squares"), ("homography_threshold", 4.5), ("top_k", 7), ("same_name_k", 1),
     ("other_name_k", 1), ("references", 50),
     ("same_species", True), ("same_viewpoint", True), ("max_pixels", 1000), ("n_pixel_maps", 3), ("n_lines", 4)):
    "7e86ccf8e0b6d171 fb4b9c8ded6ba54f add6e4c5a645db30 58ef6ae77c19769f a3a2e9eabb3f9669 6bae6e4540c31142 "
    "28e633e822e36c16 7efb1e176bbcd8d7 248f7b97989e8d2a ecd93d2270753af3 da6512894baa8916",
}  # fmt: skip
"""Fingerprints that warehouses hold, the sweep's last, by what was set."""


@pytest.mark.parametrize("changed", STORED, ids=len)
def test_what_is_stored_stays_valid(changed):
    settings = Settings(**dict(changed))
    swept = sweep_fingerprint(settings, "e", {"layers": ("b", "a")}, [{"matcher": "sift"}])
    assert [*astuple(fingerprints(settings, *IDENTITIES)), swept] == STORED[changed].split()


def test_settings_name_tables_that_there_are():
    named = {table for field in Settings.model_fields.values() for table in Setting.of(field).part_of}
    assert named <= set(get_args(Table)) == ALL - {"copies", "judgements"} | {"measurements"}


def test_another_schema_changes_every_table(monkeypatch):
    before = prints()
    monkeypatch.setattr(module, "SCHEMA_VERSION", "another")
    assert differing(before, prints()) == ALL


def test_tables_do_not_share_a_fingerprint():
    assert len(set(asdict(prints()).values())) == len(ALL)


def test_matches_and_relevances_lie_under_the_scores_fingerprint():
    found = Fingerprints("a", "b", "c", "d", "e", "f", "g", "h", "i", "j")
    assert [found.of(t) for t in ("photos", "scores", "matches", "relevances", "signals", "suspects")] == [
        "a",
        "e",
        "e",
        "e",
        "f",
        "h",
    ]
    for other in ("no such table", "measurements"):
        with pytest.raises(KeyError, match=other):
            found.of(other)


def test_every_table_lies_under_one_of_a_runs_fingerprints_or_finds_its_own():
    found = prints()
    assert set(FINGERPRINTS) == ALL
    for table in TABLES.values():
        assert table.fingerprint is None or re.fullmatch(r"[0-9a-f]{16}", found.of(table.name)), table.name
    own = {table.name for table in TABLES.values() if table.fingerprint is None}
    assert own == {"failures", "files", "reviews", "runs"} | {table.name for table in EVALUATION_TABLES}


VARIANTS = {"layers": ("a", "b"), "presets": ("published",)}
MATCHERS = [{"matcher": "sift"}, {"matcher": "disk", "weights": "1"}]


def swept(embeddings="e", variants=VARIANTS, matchers=MATCHERS, **changed):
    return sweep_fingerprint(Settings(**changed), embeddings, variants, matchers)


@pytest.mark.parametrize(
    "changed",
    [
        {"embeddings": "f"},
        {"variants": {**VARIANTS, "layers": ("a",)}},
        {"variants": {**VARIANTS, "presets": ("paper",)}},
        {"matchers": MATCHERS[:1]},
        {"matchers": [MATCHERS[0], {"matcher": "disk", "weights": "2"}]},
        {"precision": "tf32"},
        {"view_side": 512},
        {"max_keypoints": 500},
        {"homography_threshold": 4.0},
    ],
    ids=str,
)
def test_what_a_sweep_tries_or_holds_fixed_changes_its_partition(changed):
    assert swept(**changed) != swept()


@pytest.mark.parametrize(
    "changed",
    [
        {"variants": {"presets": ("published",), "layers": ("b", "a")}},
        {"matchers": MATCHERS[::-1]},
        {"preset": "paper"},
        {"reduction": "positive_sum"},
        {"homography": "least_squares"},
        {"matcher_weights": "/elsewhere"},
        {"top_k": 6},
    ],
    ids=str,
)
def test_order_and_settings_that_a_sweep_varies_or_does_not_use_leave_its_partition(changed):
    assert swept(**changed) == swept()


def test_fingerprints_are_the_same_in_every_process_and_order():
    assert fingerprint(a=1, b={"x": 1, "y": [2, 3]}) == fingerprint(b={"y": [2, 3], "x": 1}, a=1)
    assert fingerprint(a=1) != fingerprint(a=2)
    assert fingerprint(a=1) != fingerprint(b=1)


def test_a_cause_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(threshold=float("nan"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_fingerprints_differ_where_causes_differ(first, second):
    same = repr(first) == repr(second) or canonical(first) == canonical(second)
    assert (fingerprint(cause=first) == fingerprint(cause=second)) == same


def canonical(value):
    """A value with dictionaries in the order of their keys, and types kept apart as JSON keeps them."""
    if isinstance(value, dict):
        return {"dict": sorted((k, canonical(v)) for k, v in value.items())}.__repr__()
    if isinstance(value, list):
        return [canonical(v) for v in value].__repr__()
    return f"{type(value).__name__}:{value!r}"
