"""A check finds every kind of damage, and none where there is none."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import WarehouseError
from tasks.check.damage import Damage
from tasks.check.findings import Look, check, of_files, of_listing, of_rows
from tasks.store.file_record import recording
from tasks.store.warehouse import Warehouse
from tests.tampering import TAMPERINGS, largest, raised, replaced
from tests.toy_warehouse import FINGERPRINTS, Photo, Toy, likeness, run_row, write_judgement, write_photos

RUN = "20260301t220000-aaaaaa"
LATER = "20260302t220000-bbbbbb"
AFTERWARDS = datetime(2026, 3, 2, 22, tzinfo=UTC)
FAILURE = {"stage": "embed", "item": "A0", "code": "truncated", "message": "it breaks off"}
READ = (pa.ArrowException, OSError, UnicodeDecodeError)


def herd(names: str) -> list[Photo]:
    return [Photo(f"{name}{i}", name, f"e{name}{i}") for name in names for i in range(3)]


def written(url: str, names: str = "AB") -> Warehouse:
    """A warehouse of one run with its record; one photo failed and was embedded after all."""
    warehouse, photos = Warehouse(url), herd(names)
    pairs = [likeness(a, b) for i, a in enumerate(photos) for b in photos[i + 1 :]]
    with recording(warehouse, RUN):
        Toy(photos, pairs, failures=[FAILURE]).write(warehouse, RUN)
        write_judgement(warehouse, photos, {}, {(p.a, p.b): p.cosine for p in pairs})
    return warehouse


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(written(str(tmp_path_factory.mktemp("recorded") / "w")).root)


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of another catalogue under the same settings."""
    return Path(written(str(tmp_path_factory.mktemp("another") / "w"), "CD").root)


@pytest.fixture
def recorded(template: Path, tmp_path: Path) -> Warehouse:
    return Warehouse(str(shutil.copytree(template, tmp_path / "w")))


def forget(warehouse: Warehouse) -> Warehouse:
    """Remove the record, as if the run had been killed, or the program kept none."""
    shutil.rmtree(Path(warehouse.root, "files"))
    return warehouse


def found_first(warehouse: Warehouse) -> list[Damage]:
    """What listing and files tell, and where these tell nothing, the rows."""
    look = Look.at(warehouse)
    return [*of_listing(look), *of_files(look)] or list(of_rows(look))


def test_what_runs_wrote_is_sound_with_and_without_their_record(recorded: Warehouse) -> None:
    report = check(recorded)
    assert report.problems == ()
    assert report.recorded == len(report.listing.by_path) - 1  # all but the record itself
    report = check(forget(recorded))
    assert (report.problems, report.recorded) == ((), 0)


@pytest.mark.parametrize("way", TAMPERINGS)
def test_every_tampering_is_named(recorded: Warehouse, another: Path, way: str) -> None:
    path = TAMPERINGS[way].deed(Path(recorded.root), another)
    found = found_first(recorded)
    assert str(path.relative_to(recorded.root)) in {problem.where for problem in found}
    assert all(problem.cure for problem in found)


@pytest.mark.parametrize("way", [name for name, way in TAMPERINGS.items() if way.seen_without_record])
def test_most_are_seen_without_a_record(recorded: Warehouse, another: Path, way: str) -> None:
    TAMPERINGS[way].deed(Path(forget(recorded).root), another)
    assert found_first(recorded)


def flips(root: Path, count: int, seed: int) -> Iterator[tuple[Path, bytes, bytes]]:
    """Files in which one bit is turned over, drawn by bytes: the file, as it was, and as it is then."""
    draw = random.Random(seed)  # no secret
    files = sorted(root.glob("*/*/*.parquet"))
    for path in draw.choices(files, [p.stat().st_size for p in files], k=count):
        before = path.read_bytes()
        after = bytearray(before)
        after[draw.randrange(len(after))] ^= 1 << draw.randrange(8)
        yield path, before, bytes(after)


def only(look: Look, path: Path) -> Look:
    """A look at one file alone."""
    shards = tuple(f for f in look.listing.shards if f.path == str(path.relative_to(look.warehouse.root)))
    return replace(look, listing=replace(look.listing, shards=shards), rotten=set(), vouched=set())


def values(data: bytes) -> pa.Table | None:
    """The rows that a reader gets who verifies nothing; None where it fails."""
    try:
        return pq.read_table(pa.BufferReader(data))
    except READ:
        return None


def test_no_flipped_bit_escapes_the_record(recorded: Warehouse) -> None:
    look = Look.at(recorded)
    for path, before, after in flips(Path(recorded.root), 48, seed=1):
        if path.parts[-3] == "files":
            continue
        path.write_bytes(after)
        assert [d.kind for d in of_files(only(look, path))] == ["changed file"]
        path.write_bytes(before)


def test_without_a_record_no_flipped_bit_changes_a_value_unseen(recorded: Warehouse) -> None:
    look = Look.at(forget(recorded))
    changed = 0
    for path, before, after in flips(Path(recorded.root), 64, seed=2):
        path.write_bytes(after)
        found = list(of_files(only(look, path)))
        rows = values(after)
        if rows is None or not rows.equals(values(before)):
            changed += 1
            assert found, path
        path.write_bytes(before)
    assert changed > 10


def test_the_pipeline_refuses_pages_of_a_wrong_checksum(recorded: Warehouse) -> None:
    path = largest(Path(recorded.root), "embeddings")
    place = pq.read_metadata(path).row_group(0).column(3)
    data = bytearray(path.read_bytes())
    data[place.data_page_offset + place.total_compressed_size - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WarehouseError, match=r"damaged[\s\S]*--quarantine"):
        recorded.read("embeddings", FINGERPRINTS["embeddings"])


def test_a_flipped_digest_is_no_digest(recorded: Warehouse) -> None:
    """The record is named by what it says: a digest that is changed to fit another file is found."""
    (path,) = Path(recorded.root).glob("files/*/*.parquet")

    def other(rows: pa.Table) -> pa.Table:
        digests = ["0" * 40 if d else d for d in rows["digest"].to_pylist()]
        return rows.set_column(rows.column_names.index("digest"), rows.schema.field("digest"), [digests])

    replaced(path, other)
    assert [(d.kind, d.where) for d in check(recorded).problems] == [
        ("changed file", str(path.relative_to(recorded.root)))
    ]


def test_a_quick_check_looks_at_footers_sizes_and_the_listing(recorded: Warehouse) -> None:
    root = Path(recorded.root)
    assert check(recorded, quick=True).problems == ()
    same_size = largest(root, "keypoints")
    data = bytearray(same_size.read_bytes())
    data[len(data) // 4] ^= 1
    same_size.write_bytes(data)
    replaced(largest(root, "photos"), lambda rows: rows.slice(1))
    torn = largest(root, "matches")
    torn.write_bytes(torn.read_bytes()[:-9])
    largest(root, "scores").unlink()
    quick = {(d.kind, d.where.partition("/")[0]) for d in check(recorded, quick=True).problems}
    assert quick == {("changed file", "photos"), ("changed file", "matches"), ("missing file", "scores")}
    full = {(d.kind, d.where.partition("/")[0]) for d in check(recorded).problems}
    assert full == quick | {("changed file", "keypoints")}


def test_a_killed_run_that_replaced_failures_is_not_blamed(recorded: Warehouse) -> None:
    """It tried a failure again, put an empty file in the place of the old one, and left no record."""
    later = run_row(LATER, "started", AFTERWARDS, Toy([], []))
    (path,) = Path(recorded.root).glob("failures/*/*.parquet")
    recorded.write("failures", FINGERPRINTS["embeddings"], path.stem, [])
    assert [d.kind for d in check(recorded).problems] == ["changed file"]
    recorded.write("runs", "all", f"{LATER}-started", [later])
    assert check(recorded).problems == ()


def test_rows_that_a_killed_run_left_and_a_later_one_wrote_again_are_no_copies(recorded: Warehouse) -> None:
    """Heavy rows under a name that is not done.

    Their pair failed at last, and the other pairs went into another shard.
    """
    fingerprint, rows = FINGERPRINTS["scores"], recorded.read("matches", FINGERPRINTS["scores"])
    recorded.write("matches", fingerprint, "0" * 20, rows)
    assert check(recorded).problems == ()
    recorded.write("scores", fingerprint, "0" * 20, recorded.read("scores", fingerprint))
    copies = {d.where for d in check(recorded).problems if d.kind == "copied file"}
    assert copies == {f"{t}/fingerprint={fingerprint}/{'0' * 20}.parquet" for t in ("matches", "scores")}


def test_photos_come_again_corrected_and_withdrawn(recorded: Warehouse) -> None:
    first, second, *_ = herd("AB")
    with recording(recorded, LATER):
        write_photos(recorded, [replace(first, revision=1, identity="B")])
        write_photos(recorded, [replace(second, revision=1, present=False)])
    assert check(recorded).problems == ()


def test_two_shards_that_contradict_each_other_are_both_named(recorded: Warehouse) -> None:
    fingerprint = FINGERPRINTS["photos"]
    rows = recorded.read("photos", fingerprint).slice(0, 1)
    forged = rows.set_column(rows.column_names.index("path"), rows.schema.field("path"), [["other.jpg"]])
    recorded.write("photos", fingerprint, "0" * 20, forged)
    (problem,) = (d for d in check(recorded).problems if d.files)
    assert (problem.kind, problem.where) == (
        "key twice",
        f"photos/fingerprint={fingerprint}/{'0' * 20}.parquet",
    )


def test_a_run_that_counted_more_than_there_is_says_so(recorded: Warehouse) -> None:
    counted = {"photos": 6, "pairs": 15, "scored": 16}
    row = run_row(LATER, "finished", AFTERWARDS, Toy([], [])) | {"counts": str(counted).replace("'", '"')}
    recorded.write("runs", "all", f"{LATER}-finished", [row])
    (problem,) = check(recorded).problems
    assert (problem.kind, problem.files) == ("missing rows", ())
    assert "it counted 16 scored" in problem.what


def test_numbers_of_another_column_type_are_seen_beside_right_entries(recorded: Warehouse) -> None:
    path = replaced(largest(Path(forget(recorded).root), "scores"), raised("match_fraction"))
    assert check(recorded, quick=True).problems == ()
    table = pq.read_table(path, partitioning=None)
    footer = table.schema.metadata
    table = table.rename_columns([n.replace("match_fraction", "share") for n in table.column_names])
    pq.write_table(table.replace_schema_metadata(footer), path)
    (problem,) = check(recorded, quick=True).problems
    assert "share is no column of it; match_fraction is missing" in problem.what
