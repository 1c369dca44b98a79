from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from schemas.failures import Failure, FailureCode
from schemas.sql.cookbook import cookbook
from tasks.sql.console import connect_analyst, run_query
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import FINGERPRINTS, Pair, Photo, Toy, pair_key


@pytest.fixture(scope="module")
def analyst(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    photos = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(3)]
    photos += [
        Photo("misfiled", "B", "em", site="reef"),
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
    failure = Failure("ingest", "broken", FailureCode.TRUNCATED, "it breaks off", revision=0)
    photos.append(Photo("broken", "A", readable=False))
    toy = Toy(photos, pairs, top_k=10, failures=[failure.row()])
    warehouse = toy.write(Warehouse(str(tmp_path_factory.mktemp("w"))))
    _judge(warehouse, {photo.photo_id: photo for photo in photos}, pairs)
    return connect_analyst(warehouse.url)


def _judge(warehouse: Warehouse, photos: dict[str, Photo], pairs: list[Pair]) -> None:
    """A judgement in a few words.

    The photo `misfiled` has a wrong name, `stranger` is B or new, A may be B, and nobody speaks for B2.
    """

    def write(table: str, *rows: dict[str, Any]) -> None:
        keyed = [{"state": "s", "basis": 1, **row} for row in rows]
        warehouse.write(table, FINGERPRINTS["judgements"], "judged", keyed)

    write("judgements", *(
        {key: value for key, value in pair_key(photos[p.a], photos[p.b]).items() if not key.startswith("chip")}
        | {"log_odds": 10 * p.cosine - 6, "probability": 0.9 if p.cosine > 0.5 else 0.1,
           "terms": ["prior", "cosine", "coverage"], "added": [-7.0, 10 * p.cosine, 1.0]}
        for p in pairs
    ))  # fmt: skip
    write("judged_photos", *(
        {"photo_id": photo.photo_id, "identity": photo.identity, "log_odds": 2.0 if wrong else -5.0,
         "probability": 0.88 if wrong else 0.007, "proposed_name": "A" if photo.identity == "B" else "B",
         "proposed_share": 0.9, "own_voice": -3.0, "rival_voice": 1.0 if wrong else -4.0,
         "undefended": photo.photo_id == "B2", "told_by": ""}
        for photo in photos.values() for wrong in [photo.photo_id == "misfiled"]
    ))  # fmt: skip
    write("judged_names", {
        "kind": "two_names_one_animal", "name_a": "A", "name_b": "B", "photos_a": ["A0", "A1"], "photos_b": ["B0"],
        "log_odds": -1.0, "probability": 0.27, "pairs": 2, "supporting_photos_a": ["A1"], "supporting_photos_b": ["B0"], "supporting_pairs": ["x"],
    })  # fmt: skip
    write("candidates",
          {"photo_id": "stranger", "rank": 1, "name": "B", "probability": 0.7},
          {"photo_id": "stranger", "rank": 2, "name": None, "probability": 0.2})  # fmt: skip
    write("reliability", {"bin": 1, "pairs": 9, "stated": 0.1, "found": 0.0})
    no_fold = {"fold_a": None, "fold_b": None, "species": None}
    write("judges", {"part": "trust", **no_fold, "term": "coverage", "value": 0.5})
    write("judged_catalogues", {
        "photos": 9, "names": 2, "wrong_names": 1.1, "wrong_names_low": 0.4, "wrong_names_high": 2.0, "sensitivity": 0.9, "animals": 2.0,
        "animals_low": 1.0, "animals_high": 2.0, "calibration_error": 0.1, "brier": 0.01, "brier_cosine": 0.02,
    })  # fmt: skip


def test_there_are_enough_queries_with_titles_of_their_own() -> None:
    text = (Path(__file__).resolve().parents[2] / "schemas" / "sql" / "cookbook.sql").read_text()
    assert len(cookbook()) == text.count(";\n") >= 8
    assert all(title and not title.startswith("SELECT") and query for title, query in cookbook().items())


def shown(page: str) -> dict[str, str]:
    """Queries of a Markdown page by the line that stands before each."""
    text = (Path(__file__).resolve().parents[2] / page).read_text(encoding="utf-8")
    return dict(re.findall(r"^([^\n]+):\n\n```sql\n(.+?)\n```$", text, flags=re.MULTILINE | re.DOTALL))


def test_pages_show_these_queries() -> None:
    assert shown("schemas/README.md") == cookbook()
    few = shown("README.md")
    assert len(few) == 3
    assert few.items() <= cookbook().items()


@pytest.mark.parametrize("title", list(cookbook()))
def test_every_query_of_the_cookbook_gives_rows(analyst: duckdb.DuckDBPyConnection, title: str) -> None:
    assert run_query(analyst, cookbook()[title]).num_rows > 0


def test_answers_are_the_known_ones(analyst: duckdb.DuckDBPyConnection) -> None:
    answers = {title: run_query(analyst, query).to_pylist() for title, query in cookbook().items()}
    (first, *_) = (rows[0] for title, rows in answers.items() if title.startswith("The twenty most suspect"))
    assert (first["blamed_photo"], first["proposed_name"], first["expected_share_so_far"]) == (
        "misfiled",
        "A",
        0.88,
    )
    unknown = answers["Unknown photos with their three likeliest answers; a new animal is one of them"]
    assert [(row["photo_id"], row["answer"]) for row in unknown] == [
        ("stranger", "B"),
        ("stranger", "(a new animal)"),
    ]
    undefended = answers["Photos that no other photo of their name can speak for: undefended, not guilty"]
    assert [row["photo_id"] for row in undefended] == ["B2"]
    terms = answers["What each term added to the log-odds of the first suspect's pair"]
    assert [row["term"] for row in terms] == ["prior", "cosine", "coverage"]
    assert sum(row["added"] for row in terms) == pytest.approx(terms[0]["log_odds"])
    assert [
        (r["code"], r["items"], r["example"])
        for r in answers["Failures by stage and code, with an example of each"]
    ] == [("truncated", 1, "broken")]
    assert [(r["photo_a"], r["photo_b"]) for r in answers["The same picture twice"]] == [("A0", "again")]
    coverage = answers["How well the catalogue is covered: photos in, embedded, in a scored pair, failed"]
    assert coverage == [{"photos": 10, "embedded": 9, "in_a_scored_pair": 9, "failed": 1}]
    (sites,) = (rows for title, rows in answers.items() if title.startswith("Suspects by site"))
    suspects = run_query(analyst, "SELECT rank, photo_a, photo_b FROM suspects").to_pylist()
    there = {row["rank"] for row in suspects if "misfiled" in (row["photo_a"], row["photo_b"])}
    assert there
    assert {row["site"]: (row["photos"], row["suspects"]) for row in sites} == {
        "reef": (1, len(there)),
        None: (9, sum(row["photo_a"] != "misfiled" or row["photo_b"] != "misfiled" for row in suspects)),
    }
    stages = answers["Runs, newest first, with seconds per stage"]
    assert [(row["stage"], row["stage_seconds"]) for row in stages] == [
        ("score", 60.0),
        ("embed", 2.5),
        ("ingest", 1.5),
    ]
