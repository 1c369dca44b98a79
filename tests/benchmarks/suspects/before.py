"""The old ranking, by rules of round numbers, from before pairs had probabilities.

It is kept to be measured against.

Its SQL is a copy in the folder `ranking_before`, pair choice included (5 nearest, 2 nearest of the name,
copies by hash), so that it stays what it was whatever becomes of the views. The column `blamed_photo` was
added to its list.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

_FOLDER = Path(__file__).with_name("ranking_before")
_RULES = ("copy", "different_name_same_animal", "same_name_different_animal")
_VIEWS = (
    "pairs",
    "pair_scores",
    "typical",
    "evidence",
    "named_sides",
    "own_best",
    "rivals",
    "suspicions",
    "suspects",
)
_NUMBERS = {"near_identical_bits": 4, "same_picture": 0.5, "suspicious": 0.1}
_TOP_K, _SAME_NAME_K = 5, 2
_SOURCES = {
    "photos": "FROM photos",
    "run_pairs": "FROM run_pairs",
    "run_scores": "FROM run_scores SEMI JOIN current_run USING (layer)",
    "current_run": f"SELECT layer, {_TOP_K} AS top_k, {_SAME_NAME_K} AS same_name_k, same_species, same_viewpoint FROM current_run",
}


def ranked_before(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A new connection with the tables `evidence` and `suspects` by the old rules.

    Photos and pairs are those of `connection`.
    """
    before = duckdb.connect(":memory:")
    for name, query in _SOURCES.items():
        before.register("source", connection.sql(query).to_arrow_table())
        before.execute(f"CREATE TABLE {name} AS FROM source").fetchall()
        before.unregister("source")
    for name, number in _NUMBERS.items():
        before.execute(f"CREATE MACRO {name}() AS {number!r}").fetchall()
    for statement in duckdb.extract_statements((_FOLDER / "macros.sql").read_text(encoding="utf-8")):
        before.execute(statement).fetchall()
    for name in _VIEWS:
        query = _query(f"views/{name}.sql").replace("{rules}", _rules())
        before.execute(f"CREATE TABLE {name} AS {query}").fetchall()
    return before


def _rules() -> str:
    columns = "subject_kind, subject, blamed_photo, right_name, supporting_pairs, score, words"
    parts = [
        f"SELECT '{rule}' AS kind, {columns} FROM (\n{_query(f'suspects/{rule}.sql')}\n)" for rule in _RULES
    ]
    return "\nUNION ALL\n".join(parts)


def _query(name: str) -> str:
    """A file's query without its header."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    return text.partition("\n\n")[2].rstrip("; \n")
