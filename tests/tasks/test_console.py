from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from schemas.errors import NoWarehouse, SettingsError, WarehouseError
from schemas.views.descriptions import view_sentences
from tasks.sql import console
from tasks.sql.console import answer, connect_analyst, describe, prompt, run_query
from tasks.sql.results import QueryError, format_result
from tasks.sql.stoppable import LimitReached, TimeLimit
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import Pair, Photo, Toy


def toy() -> Toy:
    photos = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(2)]
    return Toy(photos, [Pair(a.photo_id, b.photo_id, 0.5) for a, b in itertools.combinations(photos, 2)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return toy().write(Warehouse(str(tmp_path_factory.mktemp("odd [name]") / "w"))).url


@pytest.fixture(scope="module")
def analyst(folder: str) -> duckdb.DuckDBPyConnection:
    return connect_analyst(folder)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT photo_a, cosine FROM pairs",
        "from photos;",
        "/* a; */ WITH x AS (SELECT 1) TABLE x -- b;",
        "VALUES (1), (2)",
        "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t WHERE a < 3) FROM t",
        "SELECT 1 UNION SELECT 2 INTERSECT SELECT 2",
        "SELECT list_transform([1, 2], lambda x: x + 1)",
        "SELECT 'COPY x TO y; INSERT_QUERY_NODE' AS harmless",
        "EXPLAIN SELECT * FROM suspects",
        "explain analyze select 1",
        "EXPLAIN (FORMAT json) FROM photos",
        "DESCRIBE pairs",
        "SHOW TABLES",
        "SUMMARIZE photos",
    ],
)
def test_reading_statements_run(analyst: duckdb.DuckDBPyConnection, query: str) -> None:
    assert run_query(analyst, query).num_rows > 0


@pytest.mark.parametrize(
    "query",
    [
        "COPY photos TO '{folder}/photos/fingerprint=f/x.parquet'",
        "EXPLAIN ANALYZE COPY photos TO '{folder}/photos/fingerprint=f/x.parquet'",
        "EXPLAIN (ANALYZE) COPY photos TO '{folder}/photos/fingerprint=f/x.parquet'",
        "WITH x AS (COPY photos TO '{folder}/photos/fingerprint=f/x.parquet') SELECT 1",
        "SELECT * FROM (WITH x AS (DELETE FROM current_run RETURNING *) FROM x)",
        "WITH x AS (INSERT INTO current_run (run_id) VALUES ('x') RETURNING *) FROM x",
        "EXPLAIN ANALYZE WITH x AS (DELETE FROM current_run RETURNING *) FROM x",
        "WITH x AS (UPDATE current_run SET layer = 'x' RETURNING *) FROM x",
        "/* x */ EXPLAIN ANALYZE DELETE FROM current_run",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH ':memory:' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '1TB'",
        "RESET memory_limit",
        "SET VARIABLE x = 1",
        "PRAGMA database_list",
        "CALL pragma_version()",
        "CREATE TABLE t AS SELECT 1",
        "CREATE MACRO standing(a, b, c, d) AS 1",
        "INSERT INTO current_run (run_id) VALUES ('x')",
        "UPDATE current_run SET layer = 'x'",
        "DELETE FROM current_run",
        "DROP VIEW photos",
        "ALTER VIEW photos RENAME TO p",
        "PREPARE p AS SELECT 1",
        "BEGIN",
        "CHECKPOINT",
        "VACUUM",
        "USE memory",
        "PIVOT photos ON identity USING count(*)",
        "SELECT 1; DROP VIEW photos",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
        "SELEC 1",
        "SELECT " + "1 + " * 900 + "1",
    ],
)
def test_everything_else_is_refused_and_changes_nothing(
    analyst: duckdb.DuckDBPyConnection, folder: str, query: str
) -> None:
    before = sorted(str(p) for p in Path(folder).rglob("*"))
    with pytest.raises(QueryError):
        run_query(analyst, query.format(folder=folder))
    assert sorted(str(p) for p in Path(folder).rglob("*")) == before
    assert run_query(analyst, "SELECT run_id, layer FROM current_run").to_pylist() == [
        {"run_id": "r1", "layer": "blocks.3"}
    ]
    assert run_query(analyst, "SELECT count(*) AS n FROM photos").to_pylist() == [{"n": 4}]


def test_no_file_but_the_warehouses_can_be_read(
    analyst: duckdb.DuckDBPyConnection, folder: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for query in (
        f"SELECT * FROM '{secret}'",
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM read_text('{folder}/../secret.csv')",
        f"SELECT * FROM glob('{tmp_path}/*')",
        "SELECT * FROM read_text('/etc/hostname')",
    ):
        with pytest.raises(QueryError, match="Permission Error"):
            run_query(analyst, query)


def test_python_variables_are_out_of_reach(analyst: duckdb.DuckDBPyConnection) -> None:
    leaked = pa.table({"a": [1]})
    with pytest.raises(QueryError, match="leaked does not exist"):
        run_query(analyst, "SELECT * FROM leaked")
    assert leaked.num_rows == 1


def test_the_configuration_is_locked_even_for_the_connection_itself(
    analyst: duckdb.DuckDBPyConnection,
) -> None:
    for statement in (
        "SET enable_external_access = true",
        "SET memory_limit = '1TB'",
        "SET allowed_directories = ['/']",
    ):
        with pytest.raises(duckdb.Error):
            analyst.execute(statement).fetchall()


def test_errors_of_the_query_say_what_is_wrong_and_leave_the_connection_usable(
    analyst: duckdb.DuckDBPyConnection,
) -> None:
    with pytest.raises(QueryError, match="nonsense"):
        run_query(analyst, "SELECT nonsense FROM photos")
    assert run_query(analyst, "SELECT 1 AS a").to_pylist() == [{"a": 1}]


def test_a_warehouse_on_another_file_system() -> None:
    MemoryFileSystem.store.clear()
    toy().write(Warehouse("memory://console/w"))
    connection = connect_analyst("memory://console/w", materialise=True)
    assert run_query(connection, "SELECT count(*) AS n FROM matches").to_pylist() == [{"n": 6}]
    with pytest.raises(QueryError, match="Permission Error"):
        run_query(connection, "SELECT * FROM read_text('/etc/hostname')")


def test_a_place_without_a_warehouse_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NoWarehouse, match="there is no warehouse"):
        connect_analyst(str(tmp_path / "nothing"))


def odd_result() -> pa.Table:
    return duckdb.sql(
        """
        SELECT 1.23456789 AS number, 'a,"b' AS text, NULL AS nothing, [1, 2] AS list, {'k': 'v'} AS struct,
            'nan'::DOUBLE AS nan, 'abc'::BLOB AS bytes, DATE '2026-01-02' AS day, 12345 AS number
        """
    ).to_arrow_table()


def test_json_is_valid_and_keeps_columns_of_one_name() -> None:
    assert json.loads(format_result(odd_result(), "json")) == [
        {"number": 1.23456789, "text": 'a,"b', "nothing": None, "list": [1, 2], "struct": {"k": "v"}, "nan": None,
         "bytes": "<3 bytes>", "day": "2026-01-02", "number_2": 12345}
    ]  # fmt: skip
    assert json.loads(format_result(odd_result().slice(0, 0), "json")) == []


def test_csv_reads_back() -> None:
    names, row = csv.reader(io.StringIO(format_result(odd_result(), "csv")))
    assert names == odd_result().column_names
    assert row == ["1.23456789", 'a,"b', "", "[1, 2]", '{"k": "v"}', "", "<3 bytes>", "2026-01-02", "12345"]


def test_tables_are_aligned_and_numbers_stand_right() -> None:
    text = format_result(pa.table({"name": ["x", "long"], "n": [5, 1000], "f": [0.123456, None]}))
    assert text.splitlines() == [
        "name     n       f",
        "----  ----  ------",
        "x        5  0.1235",
        "long  1000",
        "(2 rows)",
    ]


def test_long_tables_say_how_much_is_hidden() -> None:
    text = format_result(pa.table({"n": range(250)}))
    assert text.splitlines()[-2:] == ["199", "(250 rows; 50 not shown, csv and json give all)"]
    assert len(format_result(pa.table({"n": range(250)}), "csv").splitlines()) == 251


def test_names_from_the_catalogue_cannot_steer_the_terminal() -> None:
    text = format_result(pa.table({"name\x1b[2J": ["\x1b[31mred\nline", "\u202eright to left"]}))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 5


def test_plans_keep_their_lines(analyst: duckdb.DuckDBPyConnection) -> None:
    assert len(format_result(run_query(analyst, "EXPLAIN SELECT 1")).splitlines()) > 2


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(QueryError, match="xml"):
        format_result(pa.table({"a": [1]}), "xml")  # type: ignore[arg-type]


def test_views_are_described_without_a_warehouse(analyst: duckdb.DuckDBPyConnection) -> None:
    listed = describe()
    assert listed == describe(analyst)
    assert all(f"{name} " in listed for name in view_sentences())
    for view in ("pair_scores", "all_runs", "suspects"):
        assert describe(None, view) == describe(analyst, view)
    columns = describe(None, "pair_scores")
    assert "match_coverage" in columns
    assert "Eq. 5" in columns
    with pytest.raises(QueryError, match="no view 'nonsense'"):
        describe(None, "nonsense")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("DATE '2026-01-02'", "2026-01-02"),
        ("DATE '20000-01-01'", "20000-01-01"),
        ("DATE '0044-01-01 (BC)'", "0044-01-01 (BC)"),
        ("DATE '-infinity'", "-infinity"),
        ("TIMESTAMP 'infinity'", "infinity"),
        ("TIMESTAMPTZ '290000-01-01'", "290000-01-01 00:00:00+00"),
        ("TIMESTAMP_NS '2020-01-01 00:00:00.123456789'", "2020-01-01 00:00:00.123456789"),
        ("TIME '24:00:00'", "24:00:00"),
        ("TIMETZ '12:00:00+02'", "12:00:00+02"),
        ("INTERVAL 5 MONTH", "5 months"),
        ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455"),
        ("170141183460469231731687303715884105727::HUGEINT", 170141183460469231731687303715884105727),
        ("'101'::BIT", "101"),
        ("union_value(a := DATE 'infinity')", "infinity"),
        ("row(1, DATE 'infinity')", "(1, infinity)"),
        ("{'a b': [DATE '20000-01-01'], 'c': 1}", {"a b": ["20000-01-01"], "c": 1}),
        ("MAP {DATE 'infinity': [TIME '24:00:00']}", {"infinity": ["24:00:00"]}),
        ("[DATE '20000-01-01']::DATE[1]", ["20000-01-01"]),
        ("'nan'::DOUBLE", None),
        ("NULL::DATE", None),
    ],
)
def test_values_that_python_cannot_hold_come_as_text_in_every_format(
    analyst: duckdb.DuckDBPyConnection, value: str, said: object
) -> None:
    query = f"SELECT 1 AS v, {value} AS v"
    assert json.loads("".join(answer(analyst, query, "json"))) == [{"v": 1, "v_2": said}]
    plain = "" if said is None else said if isinstance(said, str | int) else json.dumps(said)
    assert list(csv.reader("".join(answer(analyst, query, "csv")).splitlines())) == [
        ["v", "v"],
        ["1", str(plain)],
    ]
    assert f"\n1  {plain}\n".replace("  \n", "\n") in "".join(answer(analyst, query, "table"))


def test_an_answer_of_many_batches_is_whole_in_every_format(analyst: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT range AS n FROM range(60001)"
    assert run_query(analyst, query)["n"].to_pylist() == list(range(60001))
    assert [row["n"] for row in json.loads("".join(answer(analyst, query, "json")))] == list(range(60001))
    assert "".join(answer(analyst, query, "csv")).split() == ["n", *map(str, range(60001))]
    assert "(60001 rows; 59801 not shown" in "".join(answer(analyst, query))


ENDLESS = "SELECT count(*) FROM range(200000000) AS a, range(100000) AS b WHERE a.range * b.range % 7 = 3"


def test_a_query_keeps_to_its_time_and_leaves_the_connection_usable(
    analyst: duckdb.DuckDBPyConnection,
) -> None:
    with pytest.raises(LimitReached, match="no answer within 0.2 s"):
        run_query(analyst, ENDLESS, TimeLimit(0.2))
    assert run_query(analyst, "SELECT 1 AS a", TimeLimit(60)).to_pylist() == [{"a": 1}]


def test_time_and_memory_limits_hold_for_what_views_compute(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computes(query: str) -> None:
        monkeypatch.setattr(console, "install_views", lambda connection, *_: connection.sql(query).fetchall())

    computes(ENDLESS)
    with pytest.raises(LimitReached, match="no answer within 0.2 s"):
        connect_analyst(folder, limit=TimeLimit(0.2))
    computes("SELECT len(list(range)) FROM range(100000000)")
    with pytest.raises(LimitReached, match="memory allowed is not enough"):
        connect_analyst(folder, memory_limit="20MB", materialise=True)
    with pytest.raises(SettingsError, match="'lots' is no amount of memory"):
        connect_analyst(folder, memory_limit="lots")


def test_files_that_vanish_are_no_fault_of_the_query(tmp_path: Path) -> None:
    connection = connect_analyst(toy().write(Warehouse(str(tmp_path / "w"))).url)
    shutil.rmtree(tmp_path / "w")
    with pytest.raises(WarehouseError, match="files cannot be read"):
        run_query(connection, "FROM pairs")


def test_an_outage_of_the_storage_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    MemoryFileSystem.store.clear()
    monkeypatch.setattr("schemas.storage._PAUSE_SECONDS", 0.0)
    toy().write(Warehouse("memory://console/outage"))

    def gone(*_: object, **__: object) -> None:
        raise ConnectionError("the endpoint is gone")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", gone)
    with pytest.raises(
        WarehouseError, match=r"^memory:/+console/outage/\S+ cannot be reached: the endpoint is gone\n"
    ):
        connect_analyst("memory://console/outage")


def talk(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    sink = io.StringIO()
    prompt(connection, io.StringIO(text), sink)
    return sink.getvalue()


def test_the_prompt_runs_statements_over_several_lines(analyst: duckdb.DuckDBPyConnection) -> None:
    said = talk(analyst, "\nSELECT count(*)\n  AS photos_in_all\nFROM photos;\n.quit\nSELECT 'too late';\n")
    assert "photos_in_all\n-------------\n            4\n" in said
    assert "too late" not in said


def test_the_prompt_knows_its_commands_and_survives_errors(analyst: duckdb.DuckDBPyConnection) -> None:
    said = talk(
        analyst,
        ".tables\n.describe photos\n.nonsense\nDROP VIEW photos;\nSELEC;\n.format csv\nSELECT 1 AS a, 2 AS b;\n",
    )
    assert "pair_scores" in said
    assert "perceptual_hash" in said
    assert "no command '.nonsense'" in said
    assert "DROP statements are refused" in said
    assert "a,b\n1,2\n" in said


def test_the_prompt_runs_what_is_left_at_the_end_of_input(analyst: duckdb.DuckDBPyConnection) -> None:
    assert "left_over" in talk(analyst, "SELECT 1\nAS left_over")


def test_ctrl_c_drops_the_statement_and_not_the_prompt(
    analyst: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["SELECT 'unwanted'", KeyboardInterrupt(), "SELECT 'kept' AS word;", EOFError()])

    def line(_: str) -> str:
        found = next(lines)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr("builtins.input", line)
    sink = io.StringIO()
    prompt(analyst, None, sink)
    assert "kept" in sink.getvalue()
    assert "unwanted" not in sink.getvalue()


def test_answers_come_as_arrow_and_with_pandas_as_data_frames(analyst: duckdb.DuckDBPyConnection) -> None:
    assert analyst.sql("FROM runs").to_arrow_table().num_rows == 1
    assert analyst.sql("FROM photos").arrow().read_all().num_rows == 4
    pytest.importorskip("pandas")
    assert len(analyst.sql("FROM runs").df()) == 1


def test_a_failed_connection_is_closed(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[duckdb.DuckDBPyConnection] = []
    connect = duckdb.connect

    def noted(database: str, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        opened.append(connect(database, config=config))
        return opened[-1]

    monkeypatch.setattr(duckdb, "connect", noted)
    with pytest.raises(WarehouseError, match="no run 'r9'"):
        connect_analyst(folder, "r9")
    assert opened
    for connection in opened:
        with pytest.raises(duckdb.ConnectionException):
            connection.execute("SELECT 1")


def test_a_map_of_texts_is_an_object_by_its_names() -> None:
    kind = pa.map_(pa.string(), pa.string())
    rows = pa.table({"extra": pa.array([[("site", "a,b"), ("who", None)], None], kind)})
    assert json.loads(format_result(rows, "json")) == [
        {"extra": {"site": "a,b", "who": None}},
        {"extra": None},
    ]
    assert '{"site": "a,b", "who": null}' in format_result(rows)
    other = pa.table({"m": pa.array([[([1], "x")]], pa.map_(pa.list_(pa.int64()), pa.string()))})
    assert json.loads(format_result(other, "json")) == [{"m": [[[1], "x"]]}]
