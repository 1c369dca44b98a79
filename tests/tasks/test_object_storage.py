"""A warehouse on an object store: what it costs in requests, and that failing ones change nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from schemas.catalogue.reader import Catalogue
from schemas.tables.registry import TABLES
from schemas.views.install import Views
from tasks.check.findings import check
from tasks.sql.console import connect_analyst, run_query
from tasks.store.reports import picture_name, picture_path, store_pictures, stored_pictures
from tasks.store.snapshot import write_snapshot
from tasks.store.warehouse import Warehouse
from tests.object_store import Proxy, place
from tests.small_catalogue import Stages, files_of, read_small, rewrite
from tests.toy_warehouse import FINGERPRINTS, RUN, Photo, Toy, likeness, run_row

HERD = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(3)]
TOY = Toy(HERD, [likeness(a, b) for i, a in enumerate(HERD) for b in HERD[:i]])
QUERY_REQUESTS = 9


QUERIES = (
    "SELECT 1",
    "SELECT run_id FROM current_run",
    "SELECT photo_a, match_coverage FROM run_scores ORDER BY ALL",
    "SELECT a.identity, p.photo_b FROM photos AS a JOIN pairs AS p ON a.photo_id = p.photo_a ORDER BY ALL",
    "SELECT rank, expected FROM suspects JOIN expected_precision USING (rank) ORDER BY ALL",
)


def finished(url: str) -> Warehouse:
    """The toy after some nights, the last of which kept a snapshot."""
    warehouse = Warehouse(url)
    for night in range(2):
        TOY.write(warehouse, f"r{night}", minutes=10 * night)
    with duckdb.connect(":memory:") as connection:
        views = Views(connection, warehouse)
        views.refresh(RUN | {"state": "s"})
        kept = write_snapshot(warehouse, connection, views.snapshot_name())
    last = run_row("r2", "finished", datetime(2026, 5, 1, tzinfo=UTC), TOY) | {"snapshot": kept.name}
    warehouse.write("runs", "all", "r2-finished", [last])
    return warehouse


def test_a_query_costs_a_few_requests_and_answers_as_on_this_machine(store: Proxy, tmp_path: Path) -> None:
    here, there = finished(str(tmp_path / "w")), finished(place("query"))
    for query in QUERIES:
        store.forget()
        found = run_query(connect_analyst(there.url, query=query), query)
        assert found.equals(run_query(connect_analyst(here.url), query)), query
        assert len(store.requests) <= QUERY_REQUESTS, (query, store.requests)
        assert store.count()["HEAD"] == 0, (query, store.requests)
    here_found, there_found = (check(warehouse).problems for warehouse in (here, there))
    assert [(p.kind, p.where) for p in there_found] == [(p.kind, p.where) for p in here_found]


def test_a_query_through_failing_requests_answers_the_same(
    store: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.storage._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    query = "SELECT * FROM pairs ORDER BY pair_id"
    here = TOY.write(Warehouse(str(tmp_path / "w")))
    store.slow_seconds = 0.05
    store.fail(7, 0.25)
    there = TOY.write(Warehouse(place("faulty")))
    found = run_query(connect_analyst(there.url, query=query), query)
    assert found.equals(run_query(connect_analyst(here.url, query=query), query))
    for table in TABLES:
        partition = FINGERPRINTS.get(TABLES[table].fingerprint or "", "all")
        assert there.read(table, partition).equals(here.read(table, partition)), table
    assert sum(store.met.values()) > 10, "too few failed to tell"


def test_writers_and_readers_of_shards_meet_no_half_file(
    store: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.storage._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    warehouse = Warehouse(place("torn"))
    store.slow_seconds = 0.05
    store.fail(3, 0.25)
    rows = [
        {"photo_id": f"p{i}", "chip_id": "c", "norm": 1.0, "embedding": [float(i)] * 500} for i in range(40)
    ]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: warehouse.write("embeddings", "f", f"s{n % 6}", rows), range(12)))
        read = list(pool.map(lambda n: warehouse.read("embeddings", "f", [f"s{n}"]).num_rows, range(6)))
    assert read == [40] * 6
    assert warehouse.shards("embeddings", "f") == {f"s{n}" for n in range(6)}
    assert warehouse.exists("embeddings", "f", "s0")
    assert not warehouse.exists("embeddings", "f", "absent")


def test_photos_are_read_from_the_store_by_one_request_each(store: Proxy) -> None:
    from tasks.photo_files import read_bytes, stamps

    root = place("photos")
    storage = Warehouse(root).storage
    storage.put(f"{storage.root}/a.jpg", b"jpeg")
    store.forget()
    assert read_bytes(root, "a.jpg") == b"jpeg"
    assert [request.method for request in store.requests] == ["GET"]
    found = stamps(root, ["a.jpg", "b.jpg"])
    assert found[0] is not None
    assert found[1] is None
    assert [request.method for request in store.requests] == ["GET", "LIST"]


@pytest.fixture(scope="module")
def six(small: Path) -> Catalogue:
    """Six photos of the small catalogue, of several encounters."""
    return read_small(rewrite(small, "six.csv", lambda rows: rows[::3][:6]))


@pytest.fixture(scope="module")
def here(six: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The whole job on them on this machine."""
    return Stages.run(six, Warehouse(str(tmp_path_factory.mktemp("here") / "w"))).warehouse


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_whole_job_through_failing_requests_writes_the_same_bytes(
    store: Proxy, six: Catalogue, here: Warehouse, seed: int
) -> None:
    there = Warehouse(place(f"job-{seed}"))
    store.slow_seconds = 0.1
    store.fail(seed, 0.2)
    Stages.run(six, there)
    assert sum(store.met.values()) > 10, "too few failed to tell"
    store.fail(0, 0.0, ())
    found = there.storage.find(there.root)
    assert {path.removeprefix(f"{there.root}/"): there.storage.get(path) for path in found} == files_of(here)
    again = Stages.run(six, there)
    assert (again.ingest, again.embed, again.score, again.verify, again.draw) == ([], [], [], [], [])
    assert there.storage.find(there.root).keys() == found.keys()


def test_a_report_asks_once_for_its_pictures_and_puts_each_once(store: Proxy) -> None:
    warehouse = Warehouse(place("pictures"))
    pictures = {picture_name(data): data for data in (bytes([i]) * 9 for i in range(5))}
    store_pictures(warehouse, pictures, stored_pictures(warehouse))
    store.forget()
    there = stored_pictures(warehouse)
    store_pictures(warehouse, pictures, there)
    assert there == dict.fromkeys(pictures, 9)
    assert len(store.requests) == 1, store.requests
    name, data = next(iter(pictures.items()))
    assert warehouse.storage.get(f"{warehouse.root}/{picture_path(name)}") == data
