from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pairx_engine.model_files import EMBEDDED_FOLDER
from schemas.settings import Settings
from tasks.job import Job, prepare_job
from tasks.runs import surroundings
from tasks.runs.surroundings import Sight, readable_photo, source, token_in, versions
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import TINY


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in a folder of its own."""
    return Path(shutil.copytree(EMBEDDED_FOLDER, tmp_path_factory.mktemp("model") / "m"))


@pytest.fixture
def job(tmp_path: Path, model: Path) -> Job:
    return prepare_job(Warehouse(str(tmp_path / "w")), Settings(**{**TINY, "model": str(model)}))


def values(facts: list[surroundings.Fact]) -> dict[str, str]:
    return {fact.what.split()[1] if " " in fact.what else fact.what: fact.value for fact in facts}


def test_versions_name_what_computes() -> None:
    found = {fact.what: fact.value for fact in versions()}
    assert {"Python", "torch", "zennit", "numpy", "opencv", "this package"} <= found.keys()
    assert "none" not in found.values()
    assert not [value for value in found.values() if "+" in value], "what it was built for is no version"


def test_the_source_counts_and_what_lies_beside_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(surroundings.__file__).parents[2]
    for package in ("pairx_engine", "schemas", "tasks", "flows"):
        shutil.copytree(
            home / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    monkeypatch.setattr(surroundings, "__file__", str(tmp_path / "tasks" / "runs" / "surroundings.py"))
    seen = source.__wrapped__()
    assert seen == source()
    (tmp_path / "tasks" / "notes.txt").write_text("notes")
    assert source.__wrapped__() == seen
    (tmp_path / "schemas" / "sql" / "views" / "another.sql").write_text("SELECT 1")
    assert source.__wrapped__() != seen


def test_a_process_sees_what_another_expects(job: Job, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"photo")
    with token_in(job.warehouse) as token:
        sight = Sight(job, token, (str(tmp_path), "a.jpg"))
        expected, seen = sight.expected("cpu"), sight.seen("cpu")
    assert [(f.what, f.value) for f in expected] == [(f.what, f.value) for f in seen]
    assert values(expected).keys() == {"device", "warehouse", "photo", "model", "matcher"}
    assert all(fact.cure for fact in expected)
    assert not Path(job.warehouse.root).exists(), "a folder was left of a run that has not begun"


def test_what_differs_is_said_in_words(job: Job, model: Path, tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"photo")
    with token_in(job.warehouse) as token:
        sight = Sight(job, token, (str(tmp_path), "a.jpg"))
        expected = values(sight.expected("cpu"))
        photo.write_bytes(b"another photo")
        moved = replace(job, settings=job.settings.model_copy(update={"model": str(tmp_path / "none")}))
        seen = values(Sight(moved, "another token", sight.photo).seen("cpu"))
        photo.unlink()
        gone = values(sight.seen("cpu"))
    assert seen["photo"] not in (expected["photo"], gone["photo"])
    assert "no file" in gone["photo"]
    assert "another place" in seen["warehouse"]
    assert "no model at" in seen["model"]
    assert seen["matcher"] == expected["matcher"]


def test_a_device_of_another_kind_ends_the_looking(job: Job) -> None:
    with token_in(job.warehouse) as token:
        assert [f.value for f in Sight(job, token).seen("cuda")] == ["cpu"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_warehouse_that_can_be_read_only_is_told(job: Job) -> None:
    with token_in(job.warehouse) as token:
        folder = Path(job.warehouse.root, "workers", token)
        folder.chmod(0o500)
        seen = values(Sight(job, token).seen("cpu"))
        folder.chmod(0o700)
    assert "cannot be written to" in seen["warehouse"]


def test_a_warehouse_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    with token_in(Warehouse(str(tmp_path / "w"))):
        assert list((tmp_path / "w").rglob("*.part"))
    assert list((tmp_path / "w").iterdir()) == []


def test_the_first_photo_that_can_be_read_is_taken(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"photo")
    os.mkfifo(tmp_path / "pipe.jpg")
    root = str(tmp_path)
    assert readable_photo([(root, "a.jpg"), (root, "pipe.jpg"), (root, "b.jpg")]) == (root, "b.jpg")
    assert readable_photo([(root, "a.jpg")]) is None
    assert readable_photo([]) is None


def test_paths_of_weights_hold_in_any_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    job = prepare_job(
        Warehouse(str(tmp_path / "w")), Settings(**{**TINY, "model": "m", "matcher_weights": "."})
    )
    assert job.settings.model == str(model)
    assert job.settings.matcher_weights == str(model.parent)
    assert prepare_job(Warehouse(str(tmp_path / "w")), Settings(**TINY)).settings.model == "embedded"
