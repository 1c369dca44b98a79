"""Pairs and neighbours are those of their definitions, however the catalogue came to be what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from pairx_engine.retrieval.rules import PairRule
from schemas.settings import Settings
from schemas.sql.files import view_files
from schemas.tables.registry import GALLERIES
from schemas.views import install as views
from tasks.gallery import Gallery
from tasks.job import Job, prepare_job
from tasks.retrieval import references
from tasks.retrieval.kept import keep_found, keep_gallery
from tasks.retrieval.plan import Asked, ask_what_is_new
from tasks.retrieval.references import reference_pairs
from tasks.runs.log import RunLog
from tasks.runs.remaining import look
from tasks.stages.retrieve import retrieve_shard
from tasks.store.warehouse import Warehouse, shard_name
from tests.small_catalogue import TINY
from tests.tasks import choice_of_pairs as naive

_PAIR_RANKS = tuple(
    f"{rank}_{side}" for rank in ("rank", "same_name_rank", "other_name_rank") for side in "ab"
)
_RANKS = ("rank", "own_name_rank", "other_name_rank")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """A job whose connections hold the views in question alone: the others take a second to make."""
    with pytest.MonkeyPatch.context() as patch:
        wanted = {name: view_files()[name] for name in ("photos", "pairs", "neighbours")}
        patch.setattr(views, "view_files", lambda: wanted)
        yield prepare_job(Warehouse(str(tmp_path_factory.mktemp("w"))), Settings(**TINY))


def entry(photo: str, **values: Any) -> dict[str, Any]:
    """A row of `photos`; by default nothing is known of it."""
    unknown = dict.fromkeys(("identity", "species", "encounter", "viewpoint"))
    stored = {"present": True, "path": photo, "root": "/", "theta": 0.0, "perceptual_hash": 0, "revision": 0}
    return stored | unknown | {"photo_id": photo, "chip_id": f"chip-{photo}"} | values


def retrieve(
    job: Job,
    known: dict[str, dict[str, Any]],
    state: list[dict[str, Any]],
    vectors: dict[str, Any],
    base: str | None = None,
) -> Asked | None:
    """What a night does with a state of the catalogue, on the ground of an earlier state; what it asked for.

    Photos that the state lacks are withdrawn, and only changes are written.
    """
    wanted = {p["photo_id"]: p for p in state}
    gone = [p | {"present": False} for key, p in known.items() if key not in wanted]
    changed = [p for p in [*wanted.values(), *gone] if _told(known.get(p["photo_id"])) != _told(p)]
    rows = [
        p | {"revision": known[p["photo_id"]]["revision"] + 1 if p["photo_id"] in known else 0}
        for p in changed
    ]
    shard = shard_name(f"{p['photo_id']}/{p['revision']}" for p in rows)
    job.warehouse.write("photos", job.prints.photos, shard, rows)
    fresh = [p for p in rows if p["photo_id"] not in known and p["photo_id"] in vectors]
    embedded = [
        {"photo_id": p["photo_id"], "chip_id": p["chip_id"], "norm": 1.0, "embedding": vectors[p["photo_id"]]}
        for p in fresh
    ]
    job.warehouse.write("embeddings", job.prints.embeddings, shard, embedded)
    known |= {p["photo_id"]: p for p in rows}
    with look(job, RunLog(job).columns()) as (connection, left):
        gallery = left.gallery()
        if len(gallery) < 2:
            return None
        keep_gallery(job, gallery)
        asked = ask_what_is_new(job, connection, gallery, base)
        found = [retrieve_shard(job, s) for s in asked.shards()]
        keep_found(job, connection, asked, found)
        return asked


def _told(photo: dict[str, Any] | None) -> dict[str, Any] | None:
    return photo and {k: v for k, v in photo.items() if k != "revision"}


def shown(job: Job) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The views `pairs` and `neighbours`, without what is null."""
    with look(job, RunLog(job).columns()) as (connection, _):
        found = connection.execute(
            f"SELECT photo_a, photo_b, why, {', '.join(_PAIR_RANKS)} FROM pairs"
        ).fetchall()
        near = connection.execute(f"SELECT photo, other, {', '.join(_RANKS)} FROM neighbours").fetchall()
    pairs = {
        (a, b): {k: v for k, v in zip(_PAIR_RANKS, ranks, strict=True) if v} | {"why": set(why)}
        for a, b, why, *ranks in found
    }
    directed = {(a, b): {k: v for k, v in zip(_RANKS, ranks, strict=True) if v} for a, b, *ranks in near}
    assert (len(pairs), len(directed)) == (len(found), len(near))
    return pairs, directed


@st.composite
def histories(draw: st.DrawFn) -> tuple[Settings, list[list[dict[str, Any]]], dict[str, np.ndarray]]:
    """Settings, one to three states of a catalogue, and the photos' vectors.

    Vectors have ties, and one photo may have none.
    """
    ids = [f"p{i}" for i in draw(st.permutations(range(draw(st.integers(2, 11)))))]
    some = st.sampled_from
    vectors = {
        i: np.array(draw(st.tuples(*[st.integers(1, 3)] * 2)), dtype=np.float16)
        for i in ids[: len(ids) - draw(some([0, 0, 1]))]
    }
    fixed = {
        i: {
            "perceptual_hash": draw(some([0, 1, 3, 2**40, 2**63 + 1])),
            "viewpoint": draw(some([None, "l", "r"])),
        }
        for i in ids
    }
    states = []
    for _ in range(draw(st.integers(1, 3))):
        present = ids[: draw(st.integers(1, len(ids)))] if draw(st.booleans()) else ids
        states.append(
            [
                entry(
                    i, **fixed[i], identity=draw(some([None, "A", "A", "B", "C"])), species=draw(some([None, "s", "s", "t"])),
                    encounter=draw(some([None, None, "e", "f"])),
                )
                for i in present
            ]
        )  # fmt: skip
    chosen = Settings(
        top_k=draw(st.integers(1, 2)), same_name_k=draw(st.integers(0, 2)), other_name_k=draw(st.integers(0, 2)),
        references=draw(st.integers(0, 3)), neighbours=draw(st.integers(0, 4)),
        same_species=draw(st.booleans()), same_viewpoint=draw(st.booleans()),
    )  # fmt: skip
    return chosen, states, vectors


@pytest.mark.slow
@tries(max_examples=12, deadline=None)
@given(history=histories())
def test_pairs_and_neighbours_are_those_of_the_last_state_alone(
    history: Any, prepared: Job, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chosen, states, vectors = history
    job = Job(
        **{**vars(prepared), "warehouse": Warehouse(str(tmp_path_factory.mktemp("w"))), "settings": chosen}
    )
    known: dict[str, dict[str, Any]] = {}
    base = None
    for state in states:
        asked = retrieve(job, known, state, vectors, base)
        base = asked.gallery.state if asked else None
    photos = [p for p in states[-1] if p["photo_id"] in vectors]
    cosine = naive.cosine_of(vectors)
    pairs, near = shown(job)
    assert pairs == naive.pairs(photos, cosine, chosen)
    assert near == naive.neighbours(photos, cosine, chosen)


def test_a_corrected_name_asks_for_no_more_than_it_calls_for(prepared: Job, tmp_path: Path) -> None:
    chosen = Settings(top_k=2, same_name_k=1, other_name_k=1, references=2, neighbours=4)
    job = Job(**{**vars(prepared), "warehouse": Warehouse(str(tmp_path)), "settings": chosen})
    rng = np.random.default_rng(0)
    photos = [entry(f"p{i:02d}", identity="ABCDE"[i % 5], perceptual_hash=2**i - 1 << 20) for i in range(40)]
    vectors = {p["photo_id"]: rng.normal(size=8).astype(np.float16) for p in photos}
    known: dict[str, dict[str, Any]] = {}
    retrieve(job, known, photos, vectors)
    prints = {"pairs": job.prints.pairs, "neighbours": job.prints.embeddings}
    before = {table: job.warehouse.read(table, part) for table, part in prints.items()}
    retrieve(job, known, [photos[0] | {"identity": "B"}, *photos[1:]], vectors)
    after = {table: job.warehouse.read(table, part) for table, part in prints.items()}
    keys = [set(zip(t["photo_a"].to_pylist(), t["photo_b"].to_pylist(), strict=True)) for t in after.values()]
    assert [len(k) for k in keys] == [t.num_rows for t in after.values()]  # nothing is stored twice
    # Its nearest of its new name and of the others, and it as theirs.
    new = [after[table].num_rows - before[table].num_rows for table in prints]
    assert 1 <= new[0] <= 12
    assert 1 <= new[1] <= 40


@tries(max_examples=150, deadline=None)
@given(data=st.data())
def test_references_are_those_of_the_double_loop_in_any_order(data: st.DataObject) -> None:
    def some(values: str) -> str | None:
        return data.draw(st.sampled_from([None, *values]))

    photos = [
        entry(
            f"p{i:02d}", identity=some("ABC"), species=some("st"), encounter=some("ef"), viewpoint=some("lr")
        )
        for i in range(data.draw(st.integers(0, 14)))
    ]
    wanted, spread = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 6))
    rules = {f"same_{name}": data.draw(st.booleans()) for name in ("species", "viewpoint")}
    table = pa.Table.from_pylist(
        [{k: p.get(k) for k in GALLERIES.schema.names} for p in photos], schema=GALLERIES.schema
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "PAIRS_PER_REFERENCE", spread)
        found = reference_pairs(Gallery(table), PairRule(**rules), wanted)
    ids = [p["photo_id"] for p in photos]
    chosen = Settings(references=wanted, **rules)
    assert found == sorted(found)
    expected = naive.references(data.draw(st.permutations(photos)), chosen, spread)
    assert {(ids[a], ids[b]) for a, b in found} == expected


def test_references_do_not_grow_with_the_catalogue() -> None:
    photos = [entry(f"p{i:05d}", identity=str(i % 300)) for i in range(3000)]
    table = pa.Table.from_pylist(
        [{k: p.get(k) for k in GALLERIES.schema.names} for p in photos], schema=GALLERIES.schema
    )
    found = reference_pairs(Gallery(table), PairRule(), 50)
    assert len(found) == 50
    assert len({row for pair in found for row in pair}) > 30


def test_the_number_of_photos_is_the_fewest_that_is_enough_and_sql_says_the_same(prepared: Job) -> None:
    with look(prepared, RunLog(prepared).columns()) as (connection, _):
        said = connection.execute(
            "SELECT reference_photos(i) FROM range(1, 3001) AS t(i) ORDER BY i"
        ).fetchall()
    for wanted, (count,) in enumerate(said, 1):
        assert count == references.reference_photos(wanted)
        assert count * (count - 1) >= 2 * references.PAIRS_PER_REFERENCE * wanted > (count - 1) * (count - 2)
