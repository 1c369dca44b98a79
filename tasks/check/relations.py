"""Relations of rows: keys that no two rows share, and rows that other rows refer to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import duckdb

from schemas.tables.registry import TABLES
from tasks.check.damage import Damage, cure_of

CHIP_A, CHIP_B = ("photo_a", "chip_a"), ("photo_b", "chip_b")
PHOTO = ("photo_id", "chip_id")


@dataclass(frozen=True)
class Reference:
    """Every row of `table` refers to a row of equal values in one of the tables `to`.

    `there` names the columns in those tables, by default the same as `columns`.
    """

    table: str
    columns: tuple[str, ...]
    to: tuple[str, ...]
    there: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The reference as a message names it."""
        return f"{', '.join(self.columns)} of {self.table} in {' or '.join(self.to)}"


REFERENCES = (
    *(Reference(table, PHOTO, ("photos",)) for table in ("embeddings", "keypoints", "galleries")),
    *(
        Reference(table, columns, ("photos",), PHOTO)
        for table in ("pairs", "neighbours", "copies", "evaluation_pairs")
        for columns in (CHIP_A, CHIP_B)
    ),
    Reference("scores", ("pair_id",), ("pairs", "evaluation_pairs")),
    *(
        Reference("scores", ("fingerprint", "pair_id", "layer"), (table,))
        for table in ("matches", "relevances")
    ),
    Reference("copies", ("pair_id",), ("pairs",)),
    Reference("explanations", ("pair_id", "layer"), ("scores",)),
    Reference("judgements", ("pair_id",), ("scores",)),
    *(Reference(table, ("photo_id",), ("photos",)) for table in ("judged_photos", "candidates")),
    *(Reference("suspects", (side,), ("photos",), ("photo_id",)) for side in ("photo_a", "photo_b")),
    *(Reference(table, ("pair_id",), ("evaluation_pairs",)) for table in ("measurements", "faithfulness")),
)
"""All references: a row of `table` is stored only after those that it names."""
ONE_WRITER = ("photos", "pairs", "neighbours", "runs", "reviews")
"""Tables in which two rows of one key are equal.

In other tables a killed run may leave rows that are computed again on another device.
"""


def dangling(
    connection: duckdb.DuckDBPyConnection, lacking: Collection[str], vouched: Collection[str]
) -> Iterator[Damage]:
    """Rows that refer to missing rows, one problem per reference and file.

    Tables in `lacking`, whose rows are known to be incomplete, are not checked. Files that are `vouched`
    for are not to blame.
    """
    for reference in REFERENCES:
        if set(reference.to) & set(lacking):
            continue
        there = reference.there or reference.columns
        targets = " UNION ALL ".join(f"SELECT {', '.join(there)} FROM all_{name}" for name in reference.to)  # noqa: S608
        equal = " AND ".join(f"t.{b} = s.{a}" for a, b in zip(reference.columns, there, strict=True))
        rows = connection.execute(
            f"""
            SELECT fingerprint, shard, count(*), any_value({reference.columns[-1]})
            FROM all_{reference.table} AS s ANTI JOIN ({targets}) AS t ON {equal}
            GROUP BY fingerprint, shard ORDER BY fingerprint, shard
            """  # noqa: S608  # names from code
        ).fetchall()
        for fingerprint, shard, count, example in rows:
            path = f"{reference.table}/fingerprint={fingerprint}/{shard}.parquet"
            yield Damage(
                "missing rows",
                path,
                f"{count} of its rows stand on rows that are not there: {reference.words}, e.g. {example}",
                f"run again: what is missing is computed; where that does not help, the file is not of this catalogue: {cure_of(reference.table)}",
                () if path in vouched else (path,),
            )


def at_odds(connection: duckdb.DuckDBPyConnection, vouched: Collection[str]) -> Iterator[Damage]:
    """Keys under which two files of a partition store different rows.

    There is one problem per file; files that are vouched for are not to be moved.
    """
    for name in ONE_WRITER:
        table = TABLES[name]
        key = ", ".join(f'"{column}"' for column in table.key)
        others = ", ".join(f'"{column}"' for column in table.schema.names)
        rows = connection.execute(
            f"""
            WITH hashed AS (SELECT fingerprint, shard, {key}, hash({others}) AS said FROM all_{name}),
            twice AS (
                SELECT fingerprint, {key} FROM hashed
                GROUP BY fingerprint, {key} HAVING count(DISTINCT said) > 1
            )
            SELECT fingerprint, shard, count(*), any_value({table.key[0]})
            FROM hashed SEMI JOIN twice USING (fingerprint, {key})
            GROUP BY fingerprint, shard ORDER BY fingerprint, shard
            """  # noqa: S608  # names from code
        ).fetchall()
        for fingerprint, shard, count, example in rows:
            path = f"{name}/fingerprint={fingerprint}/{shard}.parquet"
            yield Damage(
                "key twice",
                path,
                f"{count} of its rows say something else than rows of the same {', '.join(table.key)} in another file, e.g. {example}",
                cure_of(name),
                () if path in vouched else (path,),
            )
