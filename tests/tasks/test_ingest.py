from __future__ import annotations

import csv
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import tasks.stages.ingest as ingest_module
from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.failures import FailureCode
from tasks.job import Job
from tasks.stages.ingest import chip_id, ingest_shard, plan_ingest, withdraw, withdrawn_rows
from tests.poison import HEIGHT, WIDTH, encoded, write_poison
from tests.small_catalogue import Stages, rows_of, views_of


def catalogue_of(folder: Path, rows: list[dict[str, Any]], name: str = "catalogue.csv") -> Catalogue:
    path = folder / name
    columns = [
        "image_id",
        "identity",
        "path",
        *sorted({k for row in rows for k in row} - {"image_id", "identity", "path"}),
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return read_catalogue(str(path))


def photo_rows(folder: Path, *names: str) -> list[dict[str, Any]]:
    for i, name in enumerate(names):
        (folder / name).write_bytes(encoded("JPEG", comment=b"x" * (i + 1)))
    return [{"image_id": name.partition(".")[0], "identity": "Ada", "path": name} for name in names]


def ingest(job: Job, catalogue: Catalogue, **options: Any) -> dict[str, int]:
    """Ingest what there is to do; the photos that were read, with their revisions."""
    current = Stages(job, catalogue).photos()
    read: dict[str, int] = {}
    for shard in plan_ingest(catalogue, current, job.settings.photos_per_shard, **options):
        ingest_shard(job, shard)
        read |= {e.photo_id: r for e, r in zip(shard.entries, shard.revisions, strict=True)}
    return read


def current(job: Job, view: str = "photos") -> dict[Any, dict[str, Any]]:
    return rows_of(job.warehouse, view, Stages(job, None).columns())  # type: ignore[arg-type]


def age(path: Path, seconds: int) -> None:
    """Set the change time apart from the earlier one, however coarse the file system's clock is."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + seconds * 10**9))


def test_every_poison_photo_is_a_row_and_every_bad_one_a_failure_with_its_code(
    job: Job, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    expected = {f"p{i:02d}": (name, code) for i, (name, code) in enumerate(write_poison(folder))}
    catalogue = catalogue_of(
        folder, [{"image_id": i, "identity": "", "path": name} for i, (name, _) in expected.items()]
    )
    results = [ingest_shard(job, shard) for shard in plan_ingest(catalogue, {}, 8)]
    found = views_of(job.warehouse, ("photos", "failures"), Stages(job, catalogue).columns())
    photos, failures = found["photos"], found["failures"]

    bad = {i: code for i, (_, code) in expected.items() if code is not None}
    assert {(stage, item): row["code"] for (stage, item, _), row in failures.items()} == {
        ("ingest", i): code.value for i, code in bad.items()
    }
    assert all(row["message"] for row in failures.values())
    assert (sum(r.rows for r in results), sum(r.failed for r in results)) == (len(expected), len(bad))
    assert {key[0] for key in photos} == expected.keys()
    for (photo,), row in photos.items():
        name, code = expected[photo]
        assert (row["path"], row["identity"], row["revision"]) == (name, None, 0)
        assert (row["chip_id"] is None) == (code is not None), name
        if code is None:
            assert (row["width"], row["height"]) == (WIDTH, HEIGHT), name
            assert row["perceptual_hash"] is not None
            assert row["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ((WIDTH + 5, 0, 20, 20), FailureCode.BOX_OUTSIDE),
        ((-50, 0, 60, 40), FailureCode.BOX_OUTSIDE),
        ((10, 10, 2, 40), FailureCode.TOO_SMALL),
        ((10, 10, 40, 40), None),
    ],
)
def test_boxes_are_judged_against_the_photo(
    job: Job, tmp_path: Path, box: tuple[float, ...], code: FailureCode | None
) -> None:
    row = photo_rows(tmp_path, "a.jpg")[0] | dict(zip("xywh", box, strict=True))
    ingest(job, catalogue_of(tmp_path, [row]))
    (photo,) = current(job).values()
    assert photo["box"] == list(box)
    assert [f["code"] for f in current(job, "failures").values()] == ([] if code is None else [code.value])
    wanted = None if code else chip_id(photo["sha256"], box, 0.0)
    assert photo["chip_id"] == wanted


def test_nothing_is_planned_when_nothing_changed(job: Job, tmp_path: Path) -> None:
    rows = photo_rows(tmp_path, "a.jpg", "b.jpg", "missing.jpg")
    (tmp_path / "missing.jpg").unlink()
    rows[0] |= {"x": 1.25, "y": 2, "w": 30, "h": 20, "theta": 0.1, "date": "2026-01-02", "viewpoint": "Left"}
    catalogue = catalogue_of(tmp_path, rows)
    assert ingest(job, catalogue) == {"a": 0, "b": 0, "missing": 0}
    assert plan_ingest(catalogue, Stages(job, catalogue).photos(), 8) == []
    assert ingest(job, catalogue, retry_failed=True) == {"missing": 1}


def test_relative_boxes_are_not_planned_again(job: Job, tmp_path: Path) -> None:
    rows = photo_rows(tmp_path, "a.jpg", "b.jpg")
    for row in rows:
        row |= {"x": 1 / 3, "y": 0.1, "w": 0.5, "h": 2 / 3}
    catalogue = catalogue_of(tmp_path, rows)
    assert catalogue.entries[0].box_is_relative
    ingest(job, catalogue)
    assert plan_ingest(catalogue, Stages(job, catalogue).photos(), 8) == []


def test_changed_entries_are_read_again_with_the_next_revision_and_back_again(
    job: Job, tmp_path: Path
) -> None:
    changes: dict[str, dict[str, Any]] = {
        "a": {"identity": "Bea"},
        "b": {"identity": ""},
        "c": {"species": "zebra"},
        "d": {"encounter": "e2"},
        "e": {"viewpoint": "right"},
        "f": {"date": "2026-03-04"},
        "g": {"theta": 0.5},
        "h": {"x": 2, "y": 3, "w": 40, "h": 30},
    }
    rows = photo_rows(tmp_path, *(f"{name}.jpg" for name in (*changes, "same")))
    changed = [row | changes.get(row["image_id"], {}) for row in rows]
    before, after = catalogue_of(tmp_path, rows), catalogue_of(tmp_path, changed, "b.csv")
    ingest(job, before)
    first = current(job)
    assert ingest(job, after) == dict.fromkeys(changes, 1)
    second = current(job)
    seen = {"chip_id", "perceptual_hash", "orientation_hashes"}
    for name, change in changes.items():
        one, other = first[name,], second[name,]
        assert {k for k in one if one[k] != other[k]} - seen == {
            "revision",
            *({"taken_at"} if "date" in change else {"box"} if "x" in change else change),
        }
    assert ingest(job, before) == dict.fromkeys(changes, 2)
    assert current(job) == {
        key: row | {"revision": 2 if key[0] in changes else 0} for key, row in first.items()
    }
    assert plan_ingest(before, Stages(job, before).photos(), 8) == []


def test_a_changed_file_is_read_again_and_back_again(job: Job, tmp_path: Path) -> None:
    catalogue = catalogue_of(tmp_path, photo_rows(tmp_path, "a.jpg", "b.jpg"))
    ingest(job, catalogue)
    first, original = current(job)[("a",)], (tmp_path / "a.jpg").read_bytes()

    (tmp_path / "a.jpg").write_bytes((tmp_path / "b.jpg").read_bytes())
    assert ingest(job, catalogue) == {"a": 1}
    assert current(job)[("a",)]["chip_id"] == current(job)[("b",)]["chip_id"]

    (tmp_path / "a.jpg").write_bytes(original)
    age(tmp_path / "a.jpg", 10)
    assert ingest(job, catalogue) == {"a": 2}
    third = current(job)[("a",)]
    assert third == first | {"revision": 2, "stamp": third["stamp"]}


def test_a_file_of_the_same_size_is_seen_to_change(job: Job, tmp_path: Path) -> None:
    catalogue = catalogue_of(tmp_path, photo_rows(tmp_path, "a.jpg"))
    ingest(job, catalogue)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.jpg").write_bytes(bytes(data))
    age(tmp_path / "a.jpg", 1)
    assert ingest(job, catalogue) == {"a": 1}


def test_a_lost_file_becomes_a_failure_and_a_found_one_ends_it(job: Job, tmp_path: Path) -> None:
    catalogue = catalogue_of(tmp_path, photo_rows(tmp_path, "a.jpg"))
    ingest(job, catalogue)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").unlink()
    assert ingest(job, catalogue) == {"a": 1}
    assert [f["code"] for f in current(job, "failures").values()] == ["missing_file"]
    assert current(job)[("a",)]["chip_id"] is None
    (tmp_path / "a.jpg").write_bytes(data)
    assert ingest(job, catalogue) == {"a": 2}
    assert current(job, "failures") == {}


def test_withdrawn_photos_leave_and_come_back(job: Job, tmp_path: Path) -> None:
    rows = photo_rows(tmp_path, "a.jpg", "b.jpg")
    both, one = catalogue_of(tmp_path, rows), catalogue_of(tmp_path, rows[1:], "one.csv")
    ingest(job, both)
    assert ingest(job, one) == {}
    assert current(job).keys() == {("a",), ("b",)}  # unless the catalogue is said to be complete

    assert withdraw(job, list(withdrawn_rows(Stages(job, one).photos(), one))) == 1
    assert current(job).keys() == {("b",)}
    assert list(withdrawn_rows(Stages(job, one).photos(), one)) == []
    assert withdraw(job, []) == 0

    assert ingest(job, both) == {"a": 2}
    assert current(job).keys() == {("a",), ("b",)}


def test_a_moved_root_is_read_again_but_shows_the_same_chips(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    catalogue = catalogue_of(folder, photo_rows(folder, "a.jpg"))
    ingest(job, catalogue)
    first = current(job)[("a",)]
    moved = read_catalogue(str(Path(shutil.copytree(folder, tmp_path / "there")) / "catalogue.csv"))
    assert ingest(job, moved) == {"a": 1}
    assert current(job)[("a",)]["chip_id"] == first["chip_id"]


def test_chip_ids_tell_files_boxes_and_rotations_apart() -> None:
    ids = [
        chip_id("aa", None, 0.0),
        chip_id("ab", None, 0.0),
        chip_id("aa", (0.0, 0.0, 5.0, 5.0), 0.0),
        chip_id("aa", (0.0, 0.0, 5.0, 5.5), 0.0),
        chip_id("aa", None, 0.1),
    ]
    assert len(set(ids)) == len(ids)
    assert chip_id("aa", [0, 0, 5, 5], 0) == ids[2]


def test_one_shard_twice_gives_the_same_bytes(job: Job, tmp_path: Path) -> None:
    catalogue = catalogue_of(tmp_path, photo_rows(tmp_path, "a.jpg", "b.jpg", "bad.jpg"))
    (tmp_path / "bad.jpg").write_bytes(b"")
    (shard,) = plan_ingest(catalogue, {}, 8)
    root = Path(job.warehouse.root)
    ingest_shard(job, shard)
    first = {p: p.read_bytes() for p in root.rglob("*.parquet")}
    assert {p.parent.parent.name for p in first} == {"photos", "failures"}
    ingest_shard(job, shard)
    assert {p: p.read_bytes() for p in root.rglob("*.parquet")} == first


def test_other_columns_are_kept_as_a_map_and_a_changed_value_is_a_revision(job: Job, tmp_path: Path) -> None:
    rows = photo_rows(tmp_path, "a.jpg", "b.jpg")
    rows[0] |= {"site": "reef, north", "photographer": "Björk"}
    catalogue = catalogue_of(tmp_path, rows)
    assert ingest(job, catalogue) == {"a": 0, "b": 0}
    before = current(job)
    assert before["a",]["extra"] == {"photographer": "Björk", "site": "reef, north"}
    assert before["b",]["extra"] is None
    assert plan_ingest(catalogue, Stages(job, catalogue).photos(), 8) == []

    rows[0]["site"] = "reef, south"
    assert ingest(job, catalogue_of(tmp_path, rows)) == {"a": 1}
    after = current(job)
    assert after["a",]["extra"]["site"] == "reef, south"
    assert after["a",]["chip_id"] == before["a",]["chip_id"]  # so it is not embedded again

    dropped = catalogue_of(
        tmp_path, [{k: v for k, v in row.items() if k in ("image_id", "identity", "path")} for row in rows]
    )
    assert ingest(job, dropped) == {"a": 2}
    assert current(job)["a",]["extra"] is None


def test_withdrawn_rows_keep_their_other_columns(job: Job, tmp_path: Path) -> None:
    rows = photo_rows(tmp_path, "a.jpg", "b.jpg")
    rows[1] |= {"site": "s"}
    ingest(job, catalogue_of(tmp_path, rows))
    less = catalogue_of(tmp_path, rows[:1])
    assert withdraw(job, list(withdrawn_rows(Stages(job, less).photos(), less))) == 1
    row = Stages(job, less).photos()["b"]
    assert (row["present"], row["extra"]) == (False, "site\x1fs")


def test_changed_words_cost_no_look_at_the_file(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = photo_rows(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    for row in rows:
        row |= {"x": 0.1, "y": 0.1, "w": 0.5, "h": 0.5, "site": "s"}
    ingest(job, catalogue_of(tmp_path, rows))
    before = current(job)
    read: list[str] = []
    whole = ingest_module.read_bytes
    monkeypatch.setattr(
        ingest_module, "read_bytes", lambda root, path: read.append(path) or whole(root, path)
    )
    rows[0] |= {"identity": "Bo", "date": "2024-05-31", "viewpoint": "left", "site": "t"}
    rows[1] |= {"w": 0.6}
    rows[2] |= {"theta": 0.5}
    age(tmp_path / "d.jpg", 5)
    assert ingest(job, catalogue_of(tmp_path, rows)) == dict.fromkeys("abcd", 1)
    assert sorted(read) == ["b.jpg", "c.jpg", "d.jpg"]
    after = current(job)
    words = ("identity", "taken_at", "viewpoint", "extra", "revision", "shard")
    assert {k: v for k, v in after["a",].items() if k not in words} == {
        k: v for k, v in before["a",].items() if k not in words
    }
    assert (after["a",]["identity"], after["a",]["viewpoint"], after["a",]["extra"]) == (
        "Bo",
        "left",
        {"site": "t"},
    )


def test_a_warehouse_from_before_other_columns_were_kept_is_read(job: Job, tmp_path: Path) -> None:
    rows = photo_rows(tmp_path, "a.jpg", "b.jpg")
    rows[0] |= {"site": "s"}
    catalogue = catalogue_of(tmp_path, rows)
    ingest(job, catalogue)
    (file,) = Path(job.warehouse.root, "photos").glob("*/*.parquet")
    pq.write_table(pq.read_table(file, partitioning=None).drop_columns(["extra"]), file)
    assert {row["extra"] for row in current(job).values()} == {None}
    assert ingest(job, catalogue) == {"a": 1}  # b has no other column
    assert {key: row["extra"] for key, row in current(job).items()} == {("a",): {"site": "s"}, ("b",): None}
