"""Judging catalogues in which there is hardly anything to judge: nothing fails, and nobody is accused."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from pairx_engine.judgement.inputs import Pairs, Photos
from pairx_engine.judgement.judge import judge_evidence
from schemas.fingerprints import Fingerprints
from schemas.settings import Settings
from schemas.stages import JUDGE
from schemas.tables.registry import GALLERIES, TABLES
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.runs.log import RunLog
from tasks.runs.remaining import look
from tasks.stages.judge import _keyed, _tables, _without_misnamed, judge
from tasks.stages.judge_evidence import CatalogueEvidence
from tasks.store.warehouse import Warehouse
from tests.toy_warehouse import FINGERPRINTS, LAYER, Pair, Photo, Toy


def evidence(
    names: list[str | None], alike: bool = False, paired: bool = True
) -> tuple[CatalogueEvidence, np.ndarray]:
    """Photos p0, p1, ... of these names, with every pair scored or none.

    A pair of one name has a high cosine; with `alike` all have.
    """
    rows = [
        {"photo_id": f"p{i}", "chip_id": f"c{i}", "identity": name, "species": "cow", "perceptual_hash": i}
        for i, name in enumerate(names)
    ]
    gallery = Gallery(pa.Table.from_pylist(rows, schema=GALLERIES.schema))
    given = [0 if alike else sorted(map(str, set(names))).index(str(n)) for n in names]
    vectors = np.eye(8)[given] + 0.1 * np.random.default_rng(0).normal(size=(len(names), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    both = list(itertools.combinations(range(len(names)), 2)) if paired else []
    a, b = (np.array([p[i] for p in both], dtype=np.int64) for i in (0, 1))
    count = len(both)
    pairs = Pairs(
        a, b, np.einsum("ij,ij->i", vectors[a], vectors[b]), np.ones(count, np.int64), np.ones(count, np.int64),
        np.zeros(count, bool), {"match_coverage": np.full(count, np.nan)}, np.full(count, -1),
    )  # fmt: skip
    photos = Photos.of(names, ["cow"] * len(names))
    ids = pa.chunked_array([pa.array([f"pair{i}" for i in range(count)], pa.string())])
    return CatalogueEvidence(gallery, photos, pairs, np.ones(count, bool), ids), vectors


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
@pytest.mark.parametrize(
    "names",
    [
        [], ["A"], [None], ["A", "A"], ["A", "B"], ["A", None], [None, None], [None] * 6, ["A"] * 6, [*"ABCDEF"],
        [*"AAB"], [*"AABB", None],
    ],
    ids=lambda names: "".join(n or "-" for n in names) or "nobody",
)  # fmt: skip
def test_a_catalogue_with_next_to_nothing_in_it_is_judged(
    names: list[str | None], paired: bool, tmp_path: Path
) -> None:
    given, vectors = evidence(names, paired=paired)
    tables = _tables(given, judge_evidence(given.photos, given.pairs, vectors), vectors)
    assert list(tables) == list(JUDGE.tables)
    warehouse = Warehouse(str(tmp_path))
    for table, rows in tables.items():
        stored = _keyed(rows, {"state": "s", "basis": len(given.pairs)})
        warehouse.write(table, "f", "s", stored)
        assert TABLES[table].name == table
    photos = warehouse.read("judged_photos", "f").to_pylist()
    assert [row["identity"] for row in photos] == names
    accused = [
        row for row in photos if not row["undefended"] and row["probability"] and row["probability"] > 0.5
    ]
    assert accused == []
    (whole,) = warehouse.read("judged_catalogues", "f").to_pylist()
    assert (
        0
        <= whole["wrong_names_low"]
        <= whole["wrong_names"]
        <= max(whole["wrong_names_high"], whole["wrong_names"])
    )
    assert (whole["photos"], whole["names"]) == (len(names), len({n for n in names if n is not None}))


@pytest.mark.parametrize(
    "photos",
    [
        [],
        [Photo("lost", "A", readable=False), Photo("lost too", None, readable=False)],
        [Photo("one", "A")],
        [Photo("one", None), Photo("two", None)],
        [Photo("one", "A"), Photo("two", "B"), Photo("lost", "B", readable=False)],
    ],
    ids=lambda photos: f"{len(photos)} photos, {sum(p.readable for p in photos)} read",
)
def test_what_the_views_show_of_few_photos_is_judged_once(photos: list[Photo], tmp_path: Path) -> None:
    read = [p.photo_id for p in photos if p.readable]
    pairs = [Pair(a, b, 0.5) for a, b in itertools.combinations(read, 2)]
    warehouse = Toy(photos, pairs).write(Warehouse(str(tmp_path)))
    job = Job(warehouse, Settings(), Fingerprints(**FINGERPRINTS), (LAYER,), "", (64, 48))
    for _ in range(2):
        with look(job, RunLog(job).columns("s")) as (connection, _):
            assert judge(job, connection, "s") == len(read)
    assert warehouse.read("judged_photos", job.prints.judgements)["photo_id"].to_pylist() == read
    assert warehouse.read("judgements", job.prints.judgements).num_rows == len(pairs)
    with look(job, RunLog(job).columns("s")) as (connection, _):
        assert connection.sql("FROM suspects WHERE probability > 0.05").fetchall() == []
        assert connection.sql("SELECT photos FROM judged_catalogues").fetchall() == [(len(read),)]


def test_photos_that_are_likely_misnamed_tell_nothing_of_their_name_unless_they_are_most_of_it() -> None:
    given, _ = evidence([*"AAAABBBB", None])
    photos = SimpleNamespace(
        probability=np.array([0.9, 0.1, 0.1, 0.6, 0.9, 0.9, 0.9, 0.1, np.nan]),
        proposed=np.array([1, -1, -1, -1, 0, 0, 0, -1, -1]),
    )
    found = _without_misnamed(given, cast(Any, SimpleNamespace(photos=photos)))
    assert found.tolist() == [-1, 0, 0, 0, 1, 1, 1, 1, -1]
