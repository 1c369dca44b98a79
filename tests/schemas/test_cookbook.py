from __future__ import annotations

import itertools
import re
from pathlib import Path

import duckdb
import pytest

from schemas.cookbook import cookbook
from schemas.failures import Failure, FailureCode
from tasks.console import connect_analyst, run_query
from tasks.warehouse import Warehouse
from tests.toy_warehouse import Pair, Photo, Toy, write_judgement


@pytest.fixture(scope="module")
def analyst(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    photos = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(3)]
    photos += [
        Photo("misfiled", "B", "em"),
        Photo("stranger", None, "es"),
        Photo("again", "A", "ex", content="A0"),
    ]
    animal = {"misfiled": "A", "stranger": "B"}
    pairs = []
    for a, b in itertools.combinations(photos, 2):
        same = animal.get(a.photo_id, a.identity) == animal.get(b.photo_id, b.identity)
        near = 0 if {a.photo_id, b.photo_id} == {"A0", "again"} else 30
        pairs.append(Pair(a.photo_id, b.photo_id, 0.8 if same else 0.4, 0.5 if same else 0.1, 5.0 if same else 20.0,
                          30 if same else None, hash_distance=near))  # fmt: skip
    alike = {(p.a, p.b): 0.9 if p.cosine > 0.5 else 0.05 for p in pairs}
    warehouse = Warehouse(str(tmp_path_factory.mktemp("w")))
    write_judgement(warehouse, photos, {"misfiled": {"probability": 0.9, "proposed_name": "A"}}, alike)
    failure = Failure("ingest", "broken", FailureCode.TRUNCATED, "it breaks off", revision=0)
    photos.append(Photo("broken", "A", readable=False))
    toy = Toy(photos, pairs, top_k=10, failures=[failure.row()])
    return connect_analyst(toy.write(warehouse).url)


def test_there_are_enough_queries_with_titles_of_their_own() -> None:
    text = (Path(__file__).resolve().parents[2] / "schemas" / "cookbook.sql").read_text()
    assert len(cookbook()) == text.count(";\n") >= 8
    assert all(title and not title.startswith("SELECT") and query for title, query in cookbook().items())


def test_the_readme_shows_exactly_these_queries() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^([^\n]+):\n\n```sql\n(.+?)\n```$", readme, flags=re.MULTILINE | re.DOTALL)
    assert dict(shown) == cookbook()


@pytest.mark.parametrize("title", list(cookbook()))
def test_every_query_of_the_cookbook_gives_rows(analyst: duckdb.DuckDBPyConnection, title: str) -> None:
    assert run_query(analyst, cookbook()[title]).num_rows > 0


def test_answers_are_the_known_ones(analyst: duckdb.DuckDBPyConnection) -> None:
    answers = {title: run_query(analyst, query).to_pylist() for title, query in cookbook().items()}
    first = answers["The twenty most suspect pairs"][0]
    assert "misfiled" in (first["photo_a"], first["photo_b"])
    names = answers["Unknown photos with the three names that their pictures speak for most"]
    assert [(row["photo_id"], row["name"]) for row in names] == [("stranger", "B"), ("stranger", "A")]
    assert [
        (r["code"], r["items"], r["example"])
        for r in answers["Failures by stage and code, with an example of each"]
    ] == [("truncated", 1, "broken")]
    assert [(r["photo_a"], r["photo_b"]) for r in answers["The same picture twice"]] == [("A0", "again")]
    coverage = answers["How well the catalogue is covered: photos in, embedded, in a scored pair, failed"]
    assert coverage == [{"photos": 10, "embedded": 9, "in_a_scored_pair": 9, "failed": 1}]
    stages = answers["Runs, newest first, with seconds per stage"]
    assert [(row["stage"], row["stage_seconds"]) for row in stages] == [
        ("score", 60.0),
        ("embed", 2.5),
        ("ingest", 1.5),
    ]
    worst = answers["Photos whose best pair is the worst: nothing in the catalogue explains them"]
    assert len(worst) == 9
