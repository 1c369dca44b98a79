"""What is damaged goes aside with what must go with it, and a run computes it again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tasks.check.damage import Damage
from tasks.check.findings import Look, check, of_files, of_listing
from tasks.check.quarantine import move_aside
from tasks.runs.log import RunLog
from tasks.store.file_record import recording
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import Stages, assert_same_rows, files_of
from tests.toy_warehouse import Photo, Toy, likeness

HERD = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(2)]
PAIRED = [likeness(a, b) for i, a in enumerate(HERD) for b in HERD[i + 1 :]]


@pytest.fixture(params=["path", "memory"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    found = Warehouse({"path": f"{tmp_path}/odd [name]*", "memory": "memory://deep/w"}[request.param])
    with recording(found, "20260301t220000-aaaaaa"):
        Toy(HERD, PAIRED).write(found)
    return found


def paths(warehouse: Warehouse, folder: str = "") -> dict[str, bytes]:
    """Every file below a folder of the warehouse, with its bytes."""
    root = f"{warehouse.root}/{folder}"
    return {
        path.removeprefix(root).strip("/"): warehouse.opened(path).read()
        for path in warehouse.storage.find(root.rstrip("/"))
    }


def look_at_files(warehouse: Warehouse) -> tuple[Look, list[Damage]]:
    """What a check finds before it asks anything of rows."""
    look = Look.at(warehouse)
    return look, [*of_listing(look), *of_files(look)]


def damage(warehouse: Warehouse, table: str, place: float = 0.5) -> str:
    """Turn over a bit of a table's only file; returns its path below the root."""
    (path,) = (p for p in warehouse.storage.find(f"{warehouse.root}/{table}"))
    data = bytearray(warehouse.opened(path).read())
    data[int(place * len(data))] ^= 1
    warehouse.storage.put(path, bytes(data)) if not warehouse.is_local else Path(path).write_bytes(data)
    return path.removeprefix(f"{warehouse.root}/")


def test_a_shard_goes_with_its_other_tables_and_the_rest_stays(warehouse: Warehouse) -> None:
    before = paths(warehouse)
    hurt = damage(warehouse, "matches")
    look, found = look_at_files(warehouse)
    moved = move_aside(warehouse, look.listing, found)
    shard = hurt.partition("/")[2]
    assert list(moved) == [f"scores/{shard}", f"relevances/{shard}", hurt]
    assert moved == {path: f"quarantine/{path}" for path in moved}
    after = paths(warehouse, "quarantine")
    assert set(after) == set(moved)
    assert {p for p in after if after[p] != before[p]} == {hurt}
    assert set(before) - set(paths(warehouse)) == set(moved)
    assert check(warehouse).problems == ()


def test_nothing_in_quarantine_is_overwritten(warehouse: Warehouse) -> None:
    for number in range(3):
        hurt = damage(warehouse, "keypoints", 0.3 + number / 10)
        look, found = look_at_files(warehouse)
        move_aside(warehouse, look.listing, found)
        aside = paths(warehouse, "quarantine")
        assert sum(path.startswith(hurt) for path in aside) == number + 1
        with recording(warehouse, f"20260302t22000{number}-aaaaaa"):
            Toy(HERD, PAIRED).write(warehouse)
        assert look_at_files(warehouse)[1] == []


def test_a_file_that_is_gone_is_noted_and_its_partners_go(warehouse: Warehouse) -> None:
    (path,) = warehouse.storage.find(f"{warehouse.root}/relevances")
    warehouse.filesystem.rm(path)
    look, found = look_at_files(warehouse)
    assert [d.kind for d in found] == ["missing file"]
    moved = move_aside(warehouse, look.listing, found)
    assert {p.partition("/")[0]: kept is None for p, kept in moved.items()} == {
        "scores": False, "matches": False, "relevances": True
    }  # fmt: skip
    assert check(warehouse).problems == ()


@pytest.mark.parametrize(
    ("table", "words"),
    [("runs", "forgets that run"), ("reviews", "verdicts of people"), ("files", "had again")],
)
def test_what_cannot_be_computed_again_is_told_apart(tmp_path: Path, table: str, words: str) -> None:
    warehouse = Warehouse(str(tmp_path / "w"))
    with recording(warehouse, "20260301t220000-aaaaaa"):
        warehouse.write("reviews", "all", "r", [])
        Toy([], []).write(warehouse)
        (tmp_path / "w" / "runs" / "fingerprint=all" / "r1-finished.parquet").unlink()
    damage(warehouse, table, 0.999)
    found = [d for d in look_at_files(warehouse)[1] if d.kind != "missing file"]
    assert [d.where.partition("/")[0] for d in found] == [table]
    assert words in found[0].cure


@pytest.mark.slow  # the whole job once more, if only in parts
def test_a_run_computes_again_what_was_moved_aside(done: Stages, tmp_path: Path) -> None:
    """Damage in every stage of the real job: heavy and narrow rows, photos, a judgement, a figure."""
    whole = Warehouse(str(shutil.copytree(done.job.warehouse.root, tmp_path / "whole")))
    assert done.gallery is not None
    RunLog(replace(done.job, warehouse=whole)).write("started", done.gallery.state)
    warehouse = Warehouse(str(shutil.copytree(whole.root, tmp_path / "w")))
    before = {path: data for path, data in files_of(warehouse).items() if not path.startswith("runs/")}
    hurt = [
        max(path for path in before if path.startswith(f"{table}/"))
        for table in ("photos", "keypoints", "matches", "copies", "judges", "suspects", "explanations")
    ]  # fmt: skip
    for path in hurt:
        Path(warehouse.root, path).write_bytes(before[path][:-20])
    look, found = look_at_files(warehouse)
    assert {d.where for d in found} == set(hurt)
    move_aside(warehouse, look.listing, found)
    with recording(warehouse, "20990101t000000-aaaaaa"):
        Stages.run(done.catalogue, warehouse)
    # What is left of several shards may be cut into others; rows are what is promised.
    again = files_of(warehouse)
    assert {path for path in hurt if again.get(path) != before[path]} <= {
        p for p in hurt if p.startswith("copies/")
    }
    assert_same_rows(warehouse, whole)
    assert check(warehouse).problems == ()
