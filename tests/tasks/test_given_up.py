"""Shards that are cut to find what ends their workers, and items that are given up without being read."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pairx_engine.errors import PhotoError
from schemas.catalogue.table_files import read_bytes as read_catalogue_bytes
from schemas.errors import CatalogueError, SettingsError
from schemas.failures import PASSING, FailureCode
from schemas.settings import load_settings
from schemas.views.install import install_stored_views
from tasks import photo_files
from tasks.job import Job
from tasks.photo_files import VIEWS, cut_of_file, read_bytes, refusing_photos
from tasks.shards import Divisible
from tasks.stages.draw import draw_shard
from tasks.stages.embed import embed_shard
from tasks.stages.ingest import ingest_shard
from tasks.stages.score import score_shard
from tasks.stages.verify import verify_shard
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages

STAGES = ("ingest", "embed", "score", "verify", "draw")
OUTPUTS = ("embeddings", "matches", "relevances", "scores", "copies", "explanations")
WORK: dict[str, Any] = {
    "ingest": ingest_shard,
    "embed": embed_shard,
    "score": score_shard,
    "verify": verify_shard,
    "draw": draw_shard,
}


def items(shard: Any) -> list[str]:
    """Ids of what a shard processes."""
    found = next(getattr(shard, n) for n in ("entries", "pairs", "items", "photos") if hasattr(shard, n))
    return [str(getattr(i, "photo_id", None) or getattr(i, "pair_id", None) or key_of(i)) for i in found]


def key_of(item: Any) -> str:
    return str(item["photo_id"] if isinstance(item, dict) else item.key[0])


@pytest.mark.parametrize("stage", STAGES)
def test_parts_of_a_shard_are_its_items_with_no_photo_that_they_do_not_need(done: Stages, stage: str) -> None:
    shard = max(getattr(done, stage), key=lambda s: len(items(s)))
    assert isinstance(shard, Divisible)
    size = len(items(shard))
    assert size > 1
    parts = [shard.part(slice(i, i + 1)) for i in range(size)]
    assert [i for part in parts for i in items(part)] == items(shard)
    assert len({shard.name, *(part.name for part in parts)}) == size + 1
    assert items(shard.part(slice(0, size))) == items(shard)
    if stage in ("score", "verify"):
        for part in parts:
            ids = {p["photo_id"] for p in part.photos}
            assert ids == {i for p in part.pairs for i in (p.photo_a, p.photo_b)}


@pytest.fixture
def elsewhere(done: Stages, tmp_path: Path) -> Job:
    folder = shutil.copytree(
        done.warehouse.root, tmp_path / "w", ignore=shutil.ignore_patterns("failures", *OUTPUTS)
    )
    return replace(done.job, warehouse=Warehouse(str(folder)))


@pytest.mark.parametrize("stage", STAGES)
def test_items_that_are_given_up_become_failures_without_being_read(
    done: Stages, elsewhere: Job, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = getattr(done, stage)[0].part(slice(0, 2))
    monkeypatch.setattr(photo_files, "decode_photo", lambda *_: pytest.fail("a photo was decoded"))
    with refusing_photos("its workers died"):
        result = WORK[stage](elsewhere, shard)
    with duckdb.connect() as connection:
        install_stored_views(connection, elsewhere.warehouse)
        failures = connection.sql("FROM all_failures").to_arrow_table().to_pylist()
    assert {(f["stage"], f["item"], f["code"]) for f in failures} == {
        (stage, item, "worker_died") for item in items(shard)
    }
    assert all("its workers died" in f["message"] for f in failures)
    assert result.failed == 2
    assert FailureCode.WORKER_DIED not in PASSING


def test_photos_are_read_again_after_the_block(done: Stages) -> None:
    photo = next(p for p in done.photos().values() if p["chip_id"])
    with refusing_photos("no"), pytest.raises(PhotoError, match="no"):
        VIEWS.views(photo, 10**8, 64)
    assert VIEWS.views(photo, 10**8, 64).pictures[0].ndim == 3
    with pytest.raises(KeyError), refusing_photos("no"):
        raise KeyError
    assert read_bytes(photo["root"], photo["path"])


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


@pytest.mark.parametrize(
    ("make", "words"), [(pipe, "a pipe"), (listening, "a socket"), (Path.mkdir, "a folder")]
)
def test_what_is_no_file_is_refused_before_it_is_opened(
    make: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # addresses of sockets are short
    make(tmp_path / "photo.jpg")
    for read in (
        lambda: read_bytes(str(tmp_path), "photo.jpg"),
        lambda: cut_of_file(tmp_path / "photo.jpg", None, 9),
    ):
        with pytest.raises(PhotoError, match=words) as caught:
            read()
        assert caught.value.code == "unreadable_file"
    with pytest.raises(CatalogueError, match="folder|pipe|socket"):
        read_catalogue_bytes(str(tmp_path / "photo.jpg"))
    with pytest.raises(SettingsError, match=words if make is not Path.mkdir else "directory"):
        load_settings(tmp_path / "photo.jpg")


def test_a_file_that_is_too_large_for_a_photo_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.jpg").write_bytes(b"x" * 100)
    monkeypatch.setattr(photo_files, "MOST_BYTES", 99)
    with pytest.raises(PhotoError, match="larger than"):
        read_bytes(str(tmp_path), "p.jpg")
    monkeypatch.setattr(photo_files, "MOST_BYTES", 100)
    assert len(read_bytes(str(tmp_path), "p.jpg")) == 100
