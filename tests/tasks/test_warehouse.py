from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import NoWarehouse, WarehouseError
from schemas.tables.registry import SCHEMA_VERSION, TABLES
from tasks.check.findings import check
from tasks.store import shard_files
from tasks.store.warehouse import Warehouse, pair_id, shard_name
from tests.toy_warehouse import FINGERPRINTS, Pair, Photo, Toy

ROW = {"photo_id": "p", "chip_id": "c", "norm": 2.0, "embedding": [0.5, -1.0]}


@pytest.fixture(params=["path", "file", "memory"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    urls = {"path": f"{tmp_path}/odd [name]*", "file": f"file://{tmp_path}/w", "memory": "memory://deep/w"}
    return Warehouse(urls[request.param])


@pytest.fixture
def local(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "w"))


def test_rows_come_back_typed_in_order_of_shard_and_row(warehouse: Warehouse) -> None:
    assert warehouse.write("embeddings", "f", "b", [ROW]) == 1
    more = [ROW | {"photo_id": "q"}, ROW | {"embedding": np.array([1, 2], np.float16), "norm": np.float32(3)}]
    assert warehouse.write("embeddings", "f", "a", more) == 2
    table = warehouse.read("embeddings", "f")
    assert table.schema.equals(TABLES["embeddings"].schema)
    assert table["photo_id"].to_pylist() == ["q", "p", "p"]
    assert table["embedding"].to_pylist()[1:] == [[1.0, 2.0], [0.5, -1.0]]
    assert warehouse.read("embeddings", "f", ["b"], ["norm", "photo_id"]).to_pylist() == [
        {"norm": 2.0, "photo_id": "p"}
    ]
    assert warehouse.read("embeddings", "other").num_rows == 0


def test_shards_are_listed_as_soon_as_they_are_written(warehouse: Warehouse) -> None:
    assert warehouse.shards("embeddings", "f") == set()
    assert not warehouse.exists("embeddings", "f", "s1")
    for number in range(3):
        warehouse.write("embeddings", "f", f"s{number}", [])
        assert warehouse.shards("embeddings", "f") == {f"s{i}" for i in range(number + 1)}
        assert warehouse.exists("embeddings", "f", f"s{number}")
    assert warehouse.shards("embeddings", "g") == set()
    assert [path.rpartition("/")[2] for path in warehouse.files("embeddings", "f")] == [
        "s0.parquet",
        "s1.parquet",
        "s2.parquet",
    ]


def test_a_file_is_created_once(warehouse: Warehouse) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: warehouse.create_file("lease/1.json", b"%d" % n), range(16)))
    [winner] = [n for n, ours in enumerate(made) if ours]
    assert warehouse.storage.get(f"{warehouse.root}/lease/1.json") == b"%d" % winner
    assert list(warehouse.storage.find(warehouse.root)) == [f"{warehouse.root}/lease/1.json"]


def test_a_second_process_sees_what_the_first_one_wrote_despite_listing_caches(warehouse: Warehouse) -> None:
    twin = pickle.loads(pickle.dumps(warehouse))
    assert twin == warehouse
    assert twin.shards("embeddings", "f") == set()
    warehouse.write("embeddings", "f", "s", [ROW])
    assert twin.shards("embeddings", "f") == {"s"}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_duckdb_reads_every_table_with_and_without_rows(local: Warehouse, name: str) -> None:
    Toy([Photo("p"), Photo("q")], [Pair("p", "q", 0.5)]).write(local)
    local.write(name, "f", "empty", [])
    connection = local.connect()
    expected = sum(local.read(name, f).num_rows for f in {*FINGERPRINTS.values(), "all"})
    assert connection.sql(f"SELECT count(*) FROM all_{name}").fetchall() == [(expected,)]
    assert connection.sql(f"FROM all_{name}").fetchall() is not None


def test_plain_duckdb_reads_the_folder_without_us(local: Warehouse) -> None:
    photos = [Photo(name, "A") for name in "pqr"]
    Toy(photos, [Pair("p", "q", 0.5, coverage=0.25), Pair("q", "r", 0.5)]).write(local)
    found = duckdb.connect().execute(
        "SELECT photo_a, match_coverage, fingerprint FROM read_parquet(?, hive_partitioning = true) ORDER BY photo_a",
        [f"{local.url}/scores/*/*.parquet"],
    )
    rows = found.fetchall()
    assert rows[0] == ("p", 0.25, FINGERPRINTS["scores"])
    embeddings = duckdb.connect().execute(
        "SELECT embedding FROM read_parquet(?)", [f"{local.url}/embeddings/*/*.parquet"]
    )
    assert embeddings.fetchall() == [([1.0, 0.0],)] * 3


def test_duckdb_reads_through_fsspec(warehouse: Warehouse) -> None:
    warehouse.write("embeddings", "123", "s", [ROW])
    connection = warehouse.connect()
    found = connection.sql("SELECT photo_id, embedding, fingerprint, shard FROM all_embeddings").fetchall()
    assert found == [("p", [0.5, -1.0], "123", "s")]
    assert connection.sql("SELECT count(*) FROM all_suspects").fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW | {"embeding": [1.0]}], "no column embeding"),
        ([{"photo_id": "p", "chip_id": "c", "norm": 1.0}], "embedding must not be null"),
        ([ROW | {"norm": "large"}], "do not fit table embeddings"),
        ([ROW | {"photo_id": None}], "photo_id must not be null"),
        ([ROW, ROW], "1 rows repeat the key"),
        (pa.table({"photo_id": ["p"], "nonsense": [1]}), "no column nonsense"),
        (pa.table({"photo_id": ["p"], "chip_id": ["c"], "norm": ["x"], "embedding": [[1.0]]}), "do not fit"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_leave_no_file(
    local: Warehouse, rows: Any, message: str
) -> None:
    with pytest.raises(WarehouseError, match=message):
        local.write("embeddings", "f", "s", rows)
    assert not local.exists("embeddings", "f", "s")


def test_columns_that_may_be_null_can_be_left_out(local: Warehouse) -> None:
    failure = {"stage": "embed", "item": "p", "code": "truncated", "message": "it breaks off"}
    local.write("failures", "f", "a", [failure])
    local.write("failures", "f", "b", pa.Table.from_pylist([failure]))
    first, second = local.read("failures", "f").to_pylist()
    assert first == second == {**failure, "layer": None, "revision": None, "chip_id": None}


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "A", "x.parquet", "a b", "é", "x\n"])
def test_names_that_could_leave_the_folder_are_refused(local: Warehouse, bad: str) -> None:
    for call in (lambda: local.write("embeddings", bad, "s", []), lambda: local.write("embeddings", "f", bad, []),
                 lambda: local.shards("embeddings", bad), lambda: local.exists("embeddings", "f", bad),
                 lambda: local.shard_path(bad, "f", "s"), lambda: local.read("embeddings", "f", [bad])):  # fmt: skip
        with pytest.raises(WarehouseError):
            call()


def test_same_rows_give_the_same_bytes_however_they_arrive(tmp_path: Path) -> None:
    photos = [Photo(name, "A") for name in "pqr"]
    pairs = [Pair("p", "q", 0.5), Pair("q", "r", 0.25)]
    first, second, third = (Warehouse(str(tmp_path / name)) for name in "abc")
    for warehouse in (first, second):
        Toy(photos, pairs).write(warehouse)
    files = sorted(p.relative_to(first.url) for p in Path(first.url).rglob("*.parquet"))
    assert len(files) == 9
    assert all((Path(first.url) / p).read_bytes() == (Path(second.url) / p).read_bytes() for p in files)
    table = first.read("matches", FINGERPRINTS["scores"])
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)]).replace_schema_metadata(
        {"pandas": "noise"}
    )
    assert third.write("matches", FINGERPRINTS["scores"], "s", chunked) == 2
    [again] = Path(third.url).rglob("*.parquet")
    [once] = [p for p in files if p.parts[0] == "matches"]
    assert again.read_bytes() == (Path(first.url) / once).read_bytes()


def test_the_footer_says_what_the_file_is(local: Warehouse) -> None:
    local.write("embeddings", "f", "s", [ROW])
    [path] = Path(local.url).rglob("*.parquet")
    metadata = pq.read_metadata(path)
    said = {
        b"schema_version": str(SCHEMA_VERSION).encode(),
        b"table": b"embeddings",
        b"fingerprint": b"f",
        b"rows": b"1",
    }
    assert said.items() <= metadata.metadata.items()
    assert pq.read_schema(path).field("norm").metadata[b"about"]
    encodings = {
        metadata.row_group(0).column(i).path_in_schema: metadata.row_group(0).column(i) for i in range(4)
    }
    assert not encodings["embedding.list.element"].has_dictionary_page
    assert encodings["photo_id"].has_dictionary_page
    assert {c.compression for c in encodings.values()} == {"ZSTD"}


def test_racing_twins_leave_one_whole_file(local: Warehouse) -> None:
    rows = [ROW | {"photo_id": f"p{i}", "embedding": [float(i)] * 500} for i in range(50)]
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: local.write("embeddings", "f", "s", rows), range(24))) == {50}
    assert [p.name for p in Path(local.url).rglob("*.*")] == ["s.parquet"]
    assert local.read("embeddings", "f").num_rows == 50


def _die_before_replacing(url: str) -> None:
    shard_files.os.replace = lambda *_: os._exit(9)  # type: ignore[assignment]
    Warehouse(url).write("embeddings", "f", "s", [ROW])


def test_a_kill_before_the_rename_leaves_nothing_that_counts(local: Warehouse) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die_before_replacing, args=(local.url,))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    [leftover] = [p for p in Path(local.url).rglob("*") if p.is_file()]
    assert not leftover.match("*.parquet")
    assert local.shards("embeddings", "f") == set()
    assert local.connect().sql("SELECT count(*) FROM all_embeddings").fetchall() == [(0,)]
    plain = duckdb.connect().execute("SELECT count(*) FROM glob(?)", [f"{local.url}/*/*/*.parquet"])
    assert plain.fetchall() == [(0,)]
    local.write("embeddings", "f", "s", [ROW])
    assert local.read("embeddings", "f").num_rows == 1


def test_an_error_while_writing_leaves_no_temporary_file(
    local: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(shard_files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        local.write("embeddings", "f", "s", [ROW])
    assert [p for p in Path(local.url).rglob("*") if p.is_file()] == []


def test_only_old_leftovers_are_swept(local: Warehouse) -> None:
    local.write("embeddings", "f", "s", [ROW])
    folder = Path(local.url, "embeddings", "fingerprint=f")
    old, young = folder / ".a.0.part", folder / ".b.0.part"
    for path in (old, young):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    os.utime(folder / "s.parquet", (two_days_ago, two_days_ago))
    assert local.prepare() == 1
    assert sorted(p.name for p in folder.iterdir()) == [".b.0.part", "s.parquet"]


def test_a_folder_is_made_by_its_first_shard_not_before(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path / "deep" / "w"))
    warehouse.prepare()
    with pytest.raises(NoWarehouse, match="there is no warehouse at"):
        warehouse.require()
    assert list(tmp_path.iterdir()) == []
    warehouse.write("embeddings", "f", "s", [ROW])
    warehouse.require()


def test_a_file_in_the_way_of_the_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WarehouseError, match="cannot be made"):
        Warehouse(str(tmp_path / "file" / "w")).prepare()


def _rewrite(path: Path, **changes: bytes) -> None:
    table = pq.read_table(path)
    footer = pq.read_metadata(path).metadata
    kept = {k: v for k, v in footer.items() if k != b"ARROW:schema"} | {
        k.encode(): v for k, v in changes.items()
    }
    pq.write_table(table.replace_schema_metadata(kept), path)


def test_a_newer_schema_version_is_refused_with_its_cure(local: Warehouse) -> None:
    local.write("embeddings", "f", "s", [ROW])
    [path] = Path(local.url).rglob("*.parquet")
    _rewrite(path, schema_version=str(SCHEMA_VERSION + 1).encode())
    for reader in (lambda: local.read("embeddings", "f"), local.connect):
        with pytest.raises(WarehouseError, match=r"schema version 2[\s\S]*install a newer version"):
            reader()
    assert [p.kind for p in check(local).problems] == ["wrong version"]


def test_check_finds_what_is_wrong_with_the_files(local: Warehouse) -> None:
    for shard in ("good", "moved", "short", "torn", "alien"):
        local.write("embeddings", "f", shard, [ROW])
    assert not check(local, quick=True).problems
    folder = Path(local.url, "embeddings", "fingerprint=f")
    (folder.parent / "fingerprint=g").mkdir()
    (folder / "moved.parquet").rename(folder.parent / "fingerprint=g" / "moved.parquet")
    _rewrite(folder / "short.parquet", rows=b"7")
    _rewrite(folder / "alien.parquet", table=b"photos")
    (folder / "torn.parquet").write_bytes((folder / "torn.parquet").read_bytes()[:-40])
    found = {Path(p.where).stem: (p.kind, p.what) for p in check(local, quick=True).problems}
    assert set(found) == {"moved", "short", "torn", "alien"}
    assert found["torn"][0] == "unreadable file"
    assert "rows = 7" in found["short"][1]
    assert "fingerprint = f" in found["moved"][1]
    with pytest.raises(WarehouseError, match="damaged"):
        local.read("embeddings", "f", ["torn"])


def test_unknown_protocols_and_missing_shards_are_clear_errors(local: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="cannot be opened"):
        Warehouse("nonsense://bucket/w")
    with pytest.raises(WarehouseError, match="no shard at"):
        local.read("embeddings", "f", ["absent"])


def test_local_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = Warehouse("w")
    monkeypatch.chdir("/")
    assert here.url == str(tmp_path / "w") == Warehouse(f"file://{tmp_path}/w/").url


_texts = st.text(max_size=6)


@given(st.lists(_texts, max_size=5), st.randoms())
def test_shard_names_ignore_order_and_tell_lists_apart(ids: list[str], random: Any) -> None:
    shuffled = random.sample(ids, len(ids))
    assert shard_name(shuffled) == shard_name(iter(ids))
    assert len(shard_name(ids)) == 20
    assert shard_name([*ids, ""]) != shard_name(ids)
    assert shard_name(["".join(ids)]) != shard_name(ids) or len(ids) == 1


@given(_texts, _texts, _texts, _texts)
@settings(max_examples=60)
def test_pair_ids_are_symmetric_and_depend_on_every_part(a: str, x: str, b: str, y: str) -> None:
    assert pair_id(a, x, b, y) == pair_id(b, y, a, x)
    assert pair_id(a, x, b, y) != pair_id(a + "'", x, b, y)
    if (a, b) != (b, a) and x != y:
        assert pair_id(a, x, b, y) != pair_id(a, y, b, x)
