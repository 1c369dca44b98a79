from __future__ import annotations

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pairx_engine.photo.chips import chip_of, cut_photo, decode_photo, view_of
from schemas.errors import AcceleratorFailure
from tasks.job import Job, matcher_of, model_of
from tasks.keypoints import stored_features
from tasks.memory import within_memory
from tasks.photo_files import ViewCache
from tasks.stages import embed
from tasks.stages.embed import embed_chips, embed_shard, plan_embed
from tasks.stages.ingest import ingest_shard
from tasks.store.warehouse import Warehouse
from tests.large_photos import write_large_photos
from tests.poison import encoded
from tests.small_catalogue import Stages, files_of, read_small, views_of
from tests.tasks.test_ingest import age, catalogue_of, photo_rows


def photo(photo_id: str, chip: str | None = "c") -> dict[str, Any]:
    return {"photo_id": photo_id, "chip_id": chip}


def cut_of(row: dict[str, Any]) -> np.ndarray:
    data = (Path(row["root"]) / row["path"]).read_bytes()
    return cut_photo(decode_photo(data), row["box"] and tuple(row["box"]), row["theta"])


def ingested(job: Job, folder: Path, *names: str) -> Stages:
    stages = Stages(job, catalogue_of(folder, photo_rows(folder, *names)))
    stages._ingest()
    return stages


def embed_all(stages: Stages) -> list[Any]:
    present = list(stages.photos().values())
    return [embed_shard(stages.job, shard) for shard in plan_embed(present, set(), set(), stages.size)]


def test_plan_holds_what_is_missing_and_only_that() -> None:
    photos = [photo(f"p{i}") for i in range(5)] + [photo("unreadable", None)]
    key = [(f"p{i}", "c") for i in range(5)]
    shards = plan_embed(photos, {key[0], key[1], key[4]}, {key[0], key[2], key[4]}, 2)
    assert [[p["photo_id"] for p in s.photos] for s in shards] == [["p1", "p2"], ["p3"]]
    assert [(s.embed, s.detect) for s in shards] == [({"p2"}, {"p1"}), ({"p3"}, {"p3"})]
    assert plan_embed(photos, set(key), set(key), 2) == []


def test_a_new_chip_is_embedded_again() -> None:
    (shard,) = plan_embed([photo("p", "new")], {("p", "old")}, {("p", "old")}, 8)
    assert shard.embed == shard.detect == {"p"}


def test_names_tell_photos_chips_and_wants_apart() -> None:
    def name(
        rows: list[dict[str, Any]], embedded: set[Any] = frozenset(), detected: set[Any] = frozenset()
    ) -> str:  # type: ignore[assignment]
        return plan_embed(rows, embedded, detected, 8)[0].name

    rows = [photo("p"), photo("q")]
    names = [
        name(rows), name(rows[:1]), name([photo("p", "d"), photo("q")]), name(rows, {("p", "c")}),
        name(rows, set(), {("p", "c")}),
    ]  # fmt: skip
    assert len(set(names)) == len(names)


def test_stored_embeddings_are_unit_vectors_of_a_plain_forward(done: Stages) -> None:
    photos = done.photos()
    rows = views_of(done.warehouse, ("embeddings",), done.columns())["embeddings"]
    assert len(rows) == sum(p["chip_id"] is not None for p in photos.values()) > 20
    model = model_of(done.job)
    for (photo_id, chip), row in rows.items():
        assert chip == photos[photo_id]["chip_id"]
        with torch.no_grad():
            raw = (
                model.network(model.normalise([chip_of(cut_of(photos[photo_id]), model.chip)]))[0]
                .double()
                .numpy()
            )
        norm = np.linalg.norm(raw)
        assert row["norm"] == pytest.approx(norm, rel=1e-5)
        # Half precision keeps 11 bits of each number.
        np.testing.assert_allclose(row["embedding"], raw / norm, rtol=2**-10, atol=1e-6)
        assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-3)


def test_stored_keypoints_are_what_the_matcher_extracts(done: Stages) -> None:
    photos, job = done.photos(), done.job
    table = job.warehouse.read("keypoints", job.prints.keypoints)
    assert table.num_rows == sum(p["chip_id"] is not None for p in photos.values())
    count = 0
    for (photo_id, chip), stored in stored_features(table):
        assert chip == photos[photo_id]["chip_id"]
        fresh = matcher_of(job).extract(view_of(cut_of(photos[photo_id]), job.settings.view_side))
        np.testing.assert_array_equal(stored.points, fresh.points)
        np.testing.assert_array_equal(stored.descriptors, fresh.descriptors)
        np.testing.assert_array_equal(stored.scores, fresh.scores)
        assert stored.view_size == fresh.view_size
        count += len(stored)
    assert count > 100


def test_no_keypoints_are_a_finding_too(job: Job) -> None:
    row = {
        "photo_id": "p", "chip_id": "c", "view_width": 4, "view_height": 3, "x": [], "y": [], "score": [],
        "dimension": 128, "descriptors": [],
    }  # fmt: skip
    job.warehouse.write("keypoints", "00", "s", [row])
    ((key, features),) = stored_features(job.warehouse.read("keypoints", "00"))
    assert key == ("p", "c")
    assert (features.points.shape, features.descriptors.shape, features.view_size) == (
        (0, 2),
        (0, 128),
        (4, 3),
    )
    assert (
        list(
            stored_features(
                pa.table({n: [] for n in row}, schema=job.warehouse.read("keypoints", "00").schema)
            )
        )
        == []
    )


def test_an_embedding_does_not_depend_on_its_company(done: Stages) -> None:
    photos = [p for p in done.photos().values() if p["chip_id"]][:5]
    chips = [chip_of(cut_of(p), model_of(done.job).chip) for p in photos]
    together = embed_chips(done.job, chips)
    np.testing.assert_array_equal(together[::-1], embed_chips(done.job, chips[::-1]))
    np.testing.assert_array_equal(together[3], embed_chips(done.job, chips[3:4])[0])


def test_a_full_gpu_halves_the_batch(done: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [p for p in done.photos().values() if p["chip_id"]][:5]
    chips = [chip_of(cut_of(p), model_of(done.job).chip) for p in photos]
    wanted, forward, sizes = embed_chips(done.job, chips), embed._forward, []

    def crowded(job: Job, part: list[Any], size: int) -> Any:
        sizes.append(size)
        if size > 2:
            raise torch.cuda.OutOfMemoryError("full")
        return forward(job, part, size)

    monkeypatch.setattr(embed, "_forward", crowded)
    np.testing.assert_allclose(embed_chips(done.job, chips), wanted, rtol=1e-4, atol=1e-5)
    assert sizes == [8, 3, 2, 2, 2]
    monkeypatch.setattr(
        embed, "_forward", lambda *_: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("full"))
    )
    with pytest.raises(torch.cuda.OutOfMemoryError):
        embed_chips(done.job, chips)


def test_a_device_that_dies_stores_nothing(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the model's forward nor in a detector: no row, and no photo that takes the blame."""
    stages = ingested(job, tmp_path, "a.jpg", "b.jpg")
    dead = RuntimeError("CUDA error: an illegal memory access was encountered")

    class Detector:
        def extract(self, view: Any) -> Any:
            raise dead

    def fail(*_: Any) -> Any:
        raise dead

    with monkeypatch.context() as patch:
        patch.setattr(embed, "_forward", fail)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            embed_all(stages)
    monkeypatch.setattr(embed, "matcher_of", lambda _: Detector())
    with pytest.raises(AcceleratorFailure, match="embed of a: CUDA error: an illegal memory access"):
        embed_all(stages)
    assert {path.partition("/")[0] for path in files_of(job.warehouse)} == {"photos"}


def test_a_file_that_changed_after_ingest_fails_alone(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "VIEWS", ViewCache())
    stages = ingested(job, tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "b.jpg").write_bytes(encoded("PNG"))
    (tmp_path / "c.jpg").unlink()
    (result,) = embed_all(stages)
    assert (result.rows, result.failed) == (1, 2)
    found = views_of(job.warehouse, ("embeddings", "keypoints", "failures"), stages.columns())
    chip = {p: row["chip_id"] for p, row in stages.photos().items()}
    assert found["embeddings"].keys() == found["keypoints"].keys() == {("a", chip["a"])}
    assert {k[:2]: (row["code"], row["chip_id"]) for k, row in found["failures"].items()} == {
        ("embed", "b"): ("changed_file", chip["b"]), ("embed", "c"): ("missing_file", chip["c"])
    }  # fmt: skip

    # The next run sees the other file, and the failure of the old chip no longer stands.
    (tmp_path / "c.jpg").write_bytes(encoded(comment=b"xxx"))
    age(tmp_path / "c.jpg", 5)
    stages._ingest()
    stages._embed()
    found = views_of(job.warehouse, ("embeddings", "failures"), stages.columns())
    assert {p for p, _ in found["embeddings"]} >= {"a", "b"}


def test_a_failure_ends_when_the_photo_is_embedded_after_all(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was away for an hour: nothing about the photo changed, `--retry-failed` tries again."""
    monkeypatch.setattr(embed, "VIEWS", ViewCache())
    stages = ingested(job, tmp_path, "a.jpg", "b.jpg")
    os.rename(tmp_path / "b.jpg", tmp_path / "away")
    embed_all(stages)
    os.rename(tmp_path / "away", tmp_path / "b.jpg")
    photos = list(stages.photos().values())
    for shard in plan_embed(photos, {("a", photos[0]["chip_id"])}, {("a", photos[0]["chip_id"])}, 8):
        embed_shard(job, shard)
    found = views_of(job.warehouse, ("embeddings", "failures"), stages.columns())
    assert {p for p, _ in found["embeddings"]} == {"a", "b"}
    assert found["failures"] == {}


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_an_embedding_without_a_direction_is_a_failure(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    stages = ingested(job, tmp_path, "a.jpg", "b.jpg")
    raw = np.ones((2, 4), np.float32)
    raw[1] = value
    monkeypatch.setattr(embed, "embed_chips", lambda *_: raw)
    (result,) = embed_all(stages)
    assert (result.rows, result.failed) == (1, 1)
    found = views_of(job.warehouse, ("embeddings", "failures"), stages.columns())
    assert [p for p, _ in found["embeddings"]] == ["a"]
    assert [f["code"] for f in found["failures"].values()] == ["embedding_not_finite"]


def test_another_matcher_keeps_the_embeddings(done: Stages, tmp_path: Path) -> None:
    stages = Stages(done.job, done.catalogue)
    photos = [p for p in stages.photos().values() if p["chip_id"]][:3]
    keys = {(p["photo_id"], p["chip_id"]) for p in photos}
    job = Job(**{**vars(done.job), "warehouse": Warehouse(str(tmp_path / "w"))})
    (shard,) = plan_embed(photos, keys, set(), 8)
    embed_shard(job, shard)
    assert {path.partition("/")[0] for path in files_of(job.warehouse)} == {"keypoints"}


def test_one_shard_twice_gives_the_same_bytes(done: Stages, tmp_path: Path) -> None:
    job = Job(**{**vars(done.job), "warehouse": Warehouse(str(tmp_path / "w"))})
    ingest_shard(job, done.ingest[0])
    embed_shard(job, done.embed[0])
    again, first = files_of(job.warehouse), files_of(done.warehouse)
    assert {path.partition("/")[0] for path in again} >= {"photos", "embeddings", "keypoints"}
    assert again == {path: first[path] for path in again}


def test_little_memory_gives_the_same_bytes(
    done: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chips wait for the model in groups of whole batches, and no view is kept."""
    job = Job(**{**vars(done.job), "warehouse": Warehouse(str(tmp_path / "w"))})
    job = replace(job, settings=job.settings.model_copy(update={"batch_size": 3}))
    shard, wanted = done.embed[0], replace(job, warehouse=Warehouse(str(tmp_path / "wanted")))
    embed_shard(wanted, shard)
    waited, embed_all_at_once = [], embed.embed_chips
    monkeypatch.setattr(embed, "VIEWS", ViewCache(0))
    monkeypatch.setattr(
        embed, "embed_chips", lambda of, chips: (waited.append(len(chips)), embed_all_at_once(of, chips))[1]
    )
    with within_memory(1):
        embed_shard(job, shard)
    assert len(waited) > 1
    assert set(waited[:-1]) == {3}
    assert files_of(job.warehouse) == files_of(wanted.warehouse)


def test_a_shard_that_breaks_off_is_not_done(
    done: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(**{**vars(done.job), "warehouse": Warehouse(str(tmp_path / "w"))})
    write = Warehouse.write

    def broken(self: Warehouse, table: str, *rest: Any) -> int:
        if table == "embeddings":
            raise OSError("no space left on device")
        return write(self, table, *rest)

    monkeypatch.setattr(Warehouse, "write", broken)
    with pytest.raises(OSError, match="no space"):
        embed_shard(job, done.embed[0])
    assert job.warehouse.shards("embeddings", job.prints.embeddings) == set()
    monkeypatch.undo()
    embed_shard(job, done.embed[0])
    assert job.warehouse.shards("embeddings", job.prints.embeddings) == {done.embed[0].name}


def test_of_many_large_photos_one_is_in_memory_at_a_time(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays of eight photos without boxes take as much as those of two.

    The difference is less than a single photo's pixels.
    """
    monkeypatch.setattr(embed, "VIEWS", ViewCache(0))
    pixels, peaks = 1_500_000, []
    stages = Stages(job, read_small(write_large_photos(tmp_path / "large", 8, pixels)))
    stages._ingest()
    (shard,) = plan_embed(list(stages.photos().values()), set(), set(), 8)
    embed_shard(job, shard.part(slice(0, 1)))  # what is loaded once is loaded
    for count in (2, 8):
        tracemalloc.start()
        try:
            embed_shard(job, shard.part(slice(0, count)))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert 3 * pixels < peaks[0] < 30 * pixels, "arrays are traced, and nothing hides them"
    assert peaks[1] - peaks[0] < 3 * pixels
