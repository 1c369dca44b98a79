"""What a run remembers of its model stands as long as what it follows from."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pairx_engine.errors import ModelError
from pairx_engine.model_files import EMBEDDED_FOLDER
from schemas.settings import Settings
from tasks.job import Job, prepare_job
from tasks.runs import remembered
from tasks.runs.log import RunLog
from tasks.runs.remembered import facts_of, known_job, remembered_job, what_facts_follow_from
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import TINY


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path / "model"))


@pytest.fixture
def settings(model: Path) -> Settings:
    return Settings(**{**TINY, "model": str(model)})


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "w"))


def forbid(*_: object) -> Job:
    raise AssertionError("the model is loaded")


def test_the_next_run_has_the_same_job_without_the_model(
    warehouse: Warehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = known_job(warehouse, settings)
    assert first == replace(prepare_job(warehouse, settings), follows_from=first.follows_from)
    RunLog(first).write("finished", "s")
    monkeypatch.setattr(remembered, "prepare_job", forbid)
    assert known_job(warehouse, settings) == first
    # How a run works changes nothing of what it computes.
    running = settings.model_copy(update={"workers": 9, "figures": 0, "retries": 7, "photos_per_shard": 3})
    assert known_job(warehouse, running).prints == first.prints
    assert known_job(warehouse, running).settings.workers == 9


@pytest.mark.parametrize(
    "change", [{"top_k": 9}, {"max_keypoints": 99}, {"preset": "paper"}, {"resize": "opencv"}]
)
def test_other_settings_are_looked_at_anew(
    warehouse: Warehouse, settings: Settings, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    RunLog(known_job(warehouse, settings)).write("finished", "s")
    monkeypatch.setattr(remembered, "prepare_job", forbid)
    with pytest.raises(AssertionError, match="the model is loaded"):
        known_job(warehouse, settings.model_copy(update=change))


def test_files_versions_and_source_are_what_facts_follow_from(
    model: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = what_facts_follow_from(settings)
    assert before == what_facts_follow_from(settings)
    config = model / "config.json"
    config.write_text(config.read_text() + "\n")
    changed = what_facts_follow_from(settings)
    weights = model / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    touched = what_facts_follow_from(settings)
    monkeypatch.setattr(remembered, "source", lambda: "other")
    other_source = what_facts_follow_from(settings)
    monkeypatch.setattr(remembered, "_version", lambda package: "0")
    assert len({before, changed, touched, other_source, what_facts_follow_from(settings)}) == 5
    weights.unlink()
    with pytest.raises(ModelError, match="has no weights"):
        what_facts_follow_from(settings)


def test_what_comes_from_outside_is_never_remembered(settings: Settings) -> None:
    assert what_facts_follow_from(settings.model_copy(update={"matcher": "corners"})) is None
    assert what_facts_follow_from(settings.model_copy(update={"preset": "toy"})) is None


def test_a_damaged_or_forged_memory_is_no_memory(warehouse: Warehouse, settings: Settings) -> None:
    job = known_job(warehouse, settings)
    text = facts_of(job)
    assert text is not None
    assert remembered_job(warehouse, settings, text) == job
    told = json.loads(text)
    for forged in (
        None, "", "{", "[]", 7, "null",
        json.dumps(told | {"weights_sha256": "../x"}),
        json.dumps(told | {"layers": []}),
        json.dumps(told | {"chip_size": [1]}),
        json.dumps(told | {"follows_from": "0" * 16}),
        json.dumps(told | {"prints": told["prints"] | {"more": "ab"}}),
        json.dumps(told | {"prints": {}}),
        json.dumps(told | {"more": 1}),
    ):  # fmt: skip
        assert remembered_job(warehouse, settings, forged) is None
    assert facts_of(replace(job, follows_from=None)) is None
