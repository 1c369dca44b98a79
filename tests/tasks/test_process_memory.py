"""The bound on a process that asks: one huge value fails alone, and the limit goes with the block."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tasks.sql.process_memory import _bytes, bounded
from tests.flows.running import environment

ASKS = """
import resource, duckdb
from tasks.sql.process_memory import bounded
before = resource.getrlimit(resource.RLIMIT_DATA)
with bounded("200MB"):
    connection = duckdb.connect(config={"memory_limit": "200MB", "threads": 1})
    try:
        connection.sql("SELECT length(repeat('x', 4000000000))").fetchall()
    except duckdb.OutOfMemoryException:
        print("refused", connection.sql("SELECT 1").fetchall())
assert resource.getrlimit(resource.RLIMIT_DATA) == before
print(connection.sql("SELECT count(*) FROM range(1000000)").fetchall())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts in a way that serves")
def test_one_huge_value_is_refused_and_the_process_goes_on() -> None:
    found = subprocess.run(
        [sys.executable, "-c", ASKS],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert found.stdout.splitlines() == ["refused [(1,)]", "[(1000000,)]"]


@pytest.mark.parametrize(
    ("amount", "wanted"),
    [("500MB", 500_000_000), ("1.5GiB", 3 << 29), (" 2 gb", 2_000_000_000), ("lots", None), ("-1GB", None)],
)
def test_amounts_are_those_of_duckdb(amount: str, wanted: int | None) -> None:
    assert _bytes(amount) == wanted


def test_an_amount_that_is_none_bounds_nothing() -> None:
    with bounded("lots"):
        assert len(bytearray(10_000_000)) == 10_000_000
