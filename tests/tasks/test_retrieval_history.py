"""A night that asks only what is new stores what a first night over the same catalogue would store, and asks little.

Histories add, correct and withdraw photos, cut some anew, and are killed now and then.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from schemas.settings import Settings
from schemas.tables.registry import GALLERIES
from tasks.gallery import Gallery, kept_gallery
from tasks.job import Job, prepare_job
from tasks.retrieval.horizons import carried, horizons_name, no_horizons, read_horizons
from tasks.retrieval.kept import commit_neighbours, keep_found, keep_gallery, new_neighbours
from tasks.retrieval.plan import Asked, ask_all, ask_what_is_new
from tasks.stages.retrieve import retrieve_shard
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import TINY
from tests.tasks import choice_of_pairs as naive

Photo = dict[str, Any]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return prepare_job(Warehouse(str(tmp_path_factory.mktemp("w"))), Settings(**TINY))


class Nights:
    """A warehouse over many nights, with the tables that retrieval asks for and nothing else."""

    def __init__(self, prepared: Job, folder: Path, chosen: Settings) -> None:
        self.job = Job(**{**vars(prepared), "warehouse": Warehouse(str(folder)), "settings": chosen})
        self.embedded: set[tuple[str, str]] = set()
        self.base: str | None = None

    def vector(self, photo: str, chip: str) -> np.ndarray:
        """One of a few vectors, so that many cosines are equal."""
        rng = np.random.default_rng([*photo.encode(), *chip.encode()])
        return rng.integers(1, 4, 3).astype(np.float16)

    def embed(self, photos: list[Photo]) -> None:
        new = [p for p in photos if (p["photo_id"], p["chip_id"]) not in self.embedded]
        rows = [
            {"photo_id": p["photo_id"], "chip_id": p["chip_id"], "norm": 1.0, "embedding": self.vector(p["photo_id"], p["chip_id"])}
            for p in new
        ]  # fmt: skip
        self.embedded |= {(p["photo_id"], p["chip_id"]) for p in new}
        if rows:
            self.job.warehouse.write("embeddings", self.job.prints.embeddings, f"e{len(self.embedded)}", rows)

    def connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(":memory:")
        for table in ("neighbours", "pairs"):
            connection.register(f"run_{table}", self.stored(table))
        return connection

    def stored(self, table: str) -> pa.Table:
        return self.job.warehouse.read(table, self.job.prints.of(table))

    def keys(self, table: str) -> list[tuple[str, str, str, str]]:
        columns = ("photo_a", "photo_b", "chip_a", "chip_b")
        rows = self.stored(table)
        return list(zip(*(rows[name].to_pylist() for name in columns), strict=True))

    def night(self, photos: list[Photo], killed: bool = False) -> Asked | None:
        self.embed(photos)
        rows = sorted(photos, key=lambda p: p["photo_id"])
        gallery = Gallery(pa.Table.from_pylist(rows, schema=GALLERIES.schema))
        if len(gallery) < 2:
            return None
        keep_gallery(self.job, gallery)
        with self.connection() as connection:
            asked = ask_what_is_new(self.job, connection, gallery, self.base)
            found = [retrieve_shard(self.job, shard) for shard in asked.shards()]
            if killed:
                commit_neighbours(self.job, gallery, new_neighbours(connection, asked, found))
            else:
                keep_found(self.job, connection, asked, found)
                self.base = gallery.state
        return asked


def photo(number: int, **known: Any) -> Photo:
    name = f"p{number:02d}"
    unknown: Photo = dict.fromkeys(("identity", "encounter", "species", "viewpoint", "orientation_hashes"))
    return unknown | {"photo_id": name, "chip_id": "c", "perceptual_hash": 0} | known


def assert_all_is_there(nights: Nights, photos: list[Photo]) -> None:
    """Whatever the catalogue calls for by its definition is stored, and nothing twice."""
    job = nights.job
    cosine = naive.cosine_of({p["photo_id"]: nights.vector(p["photo_id"], p["chip_id"]) for p in photos})
    chip = {p["photo_id"]: p["chip_id"] for p in photos}
    for table, wanted in (
        ("pairs", naive.pairs(photos, cosine, job.settings)),
        ("neighbours", naive.neighbours(photos, cosine, job.settings)),
    ):
        stored = nights.keys(table)
        assert len(stored) == len(set(stored)), table
        called = {tuple(sorted(key)) for key in wanted}
        assert {(a, b, chip[a], chip[b]) for a, b in called} <= set(stored), table


@st.composite
def histories(draw: st.DrawFn) -> tuple[Settings, list[tuple[list[Photo], bool]]]:
    """Settings, and two to five states of a catalogue, each with whether its night is killed."""
    some = st.sampled_from

    def drawn(number: int) -> Photo:
        return photo(
            number, identity=draw(some([None, "A", "A", "B", "C"])), encounter=draw(some([None, None, "e", "f"])),
            species=draw(some([None, "s", "s", "t"])), viewpoint=draw(some([None, "l", "r"])),
            chip_id=draw(some(["c", "c", "c", "d"])), perceptual_hash=draw(some([0, 1, 3, 2**40])),
        )  # fmt: skip

    state = {i: drawn(i) for i in range(draw(st.integers(6, 22)))}
    states = [(list(state.values()), False)]
    for _ in range(draw(st.integers(1, 4))):
        state = dict(state)
        for number in draw(st.sets(some(sorted(state)), max_size=3)):
            if draw(st.booleans()):
                state[number] = drawn(number)
            elif len(state) > 2:
                del state[number]
        for number in draw(st.sets(st.integers(0, 40), max_size=3)):
            state.setdefault(number, drawn(number))
        states.append((list(state.values()), draw(some([False, False, True]))))
    states.append((states[-1][0], False))
    k = [draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(st.integers(0, 2))]
    chosen = Settings(
        top_k=k[0], same_name_k=k[1], other_name_k=k[2], references=draw(st.integers(0, 2)),
        neighbours=max(k) + draw(st.integers(-1, 2)), same_species=draw(st.booleans()), same_viewpoint=draw(st.booleans()),
    )  # fmt: skip
    return chosen, states


@tries(max_examples=40, deadline=None)
@given(history=histories())
def test_any_history_stores_what_the_last_state_calls_for(
    history: Any, prepared: Job, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chosen, states = history
    nights = Nights(prepared, tmp_path_factory.mktemp("w"), chosen)
    for photos, killed in states:
        nights.night(photos, killed)
        if not killed:
            assert_all_is_there(nights, photos)


HERD = [photo(i, identity="ABCDEFGH"[i % 8], encounter=f"e{i // 2}") for i in range(60)]
CHOSEN = Settings(top_k=3, same_name_k=2, other_name_k=2, references=0, neighbours=6)


def grown(prepared: Job, folder: Path) -> Nights:
    nights = Nights(prepared, folder, CHOSEN)
    # Points of their own, so that few lists change.
    nights.vector = lambda photo, chip: (  # type: ignore[method-assign]
        np.random.default_rng([*photo.encode()]).normal(size=16).astype(np.float16)
    )
    first = nights.night(HERD)
    assert first is not None
    assert (first.base, len(first.rows)) == (None, 60)
    return nights


def test_a_new_photo_is_the_only_one_that_looks(prepared: Job, tmp_path: Path) -> None:
    nights = grown(prepared, tmp_path)
    photos = [*HERD, photo(77, identity="A")]
    asked = nights.night(photos)
    assert asked is not None
    assert [asked.gallery.photo_ids[i] for i in asked.rows] == ["p77"]
    assert_all_is_there(nights, photos)
    again = nights.night([*photos, photo(78, identity="B")])
    assert again is not None
    assert [again.gallery.photo_ids[i] for i in again.rows] == ["p78"]


def test_only_photos_that_lost_a_neighbour_look_again(prepared: Job, tmp_path: Path) -> None:
    nights = grown(prepared, tmp_path)
    with duckdb.connect(":memory:") as connection:
        connection.register("n", nights.stored("neighbours"))
        partners = {
            row[0]
            for row in connection.execute(
                "SELECT photo_b FROM n WHERE photo_a = 'p20' UNION SELECT photo_a FROM n WHERE photo_b = 'p20'"
            ).fetchall()
        }
    photos = [p for p in HERD if p["photo_id"] != "p20"]
    asked = nights.night(photos)
    assert asked is not None
    looked = {asked.gallery.photo_ids[i] for i in asked.rows}
    assert looked <= partners
    assert 0 < len(looked) < 30
    assert_all_is_there(nights, photos)


def test_what_moves_up_in_a_list_that_is_still_full_becomes_a_pair(prepared: Job, tmp_path: Path) -> None:
    """Lists grow beyond what is searched for; one that loses an entry then need not look again."""
    nights = grown(prepared, tmp_path)
    photos = [*HERD, *(photo(60 + i, identity="ABCDEFGH"[i % 8]) for i in range(40))]
    for last in (70, 85, 100):
        assert nights.night(photos[:last]) is not None
    before = set(nights.keys("pairs"))
    left = [p for p in photos if p["photo_id"] != "p20"]
    asked = nights.night(left)
    assert asked is not None
    assert (len(asked.rows), asked.shards()) == (0, [])
    assert set(nights.keys("pairs")) > before
    assert_all_is_there(nights, left)


def test_a_corrected_name_lets_few_look(prepared: Job, tmp_path: Path) -> None:
    nights = grown(prepared, tmp_path)
    photos = [*HERD[:20], HERD[20] | {"identity": "Z"}, *HERD[21:]]
    asked = nights.night(photos)
    assert asked is not None
    looked = {asked.gallery.photo_ids[i] for i in asked.rows}
    assert "p20" in looked
    assert len(looked) < 20
    assert_all_is_there(nights, photos)


def test_where_most_is_new_all_look(prepared: Job, tmp_path: Path) -> None:
    nights = grown(prepared, tmp_path)
    photos = [*HERD[:20], *(photo(100 + i, identity="A") for i in range(25))]
    asked = nights.night(photos)
    assert asked is not None
    assert (asked.base, len(asked.rows)) == (None, 45)
    assert_all_is_there(nights, photos)


def test_without_horizons_all_look(prepared: Job, tmp_path: Path) -> None:
    nights = grown(prepared, tmp_path)
    name = horizons_name(str(nights.base), CHOSEN)
    (tmp_path / nights.job.warehouse.shard_path("horizons", nights.job.prints.pairs, name)).unlink()
    asked = nights.night([*HERD, photo(77)])
    assert asked is not None
    assert asked.base is None
    # Lists that are shorter than what is paired say nothing about pairs.
    short = Nights(prepared, tmp_path / "short", CHOSEN.model_copy(update={"neighbours": 2}))
    for photos in (HERD, [*HERD, photo(77)]):
        asked = short.night(photos)
        assert asked is not None
        assert asked.base is None
        assert_all_is_there(short, photos)


def test_a_horizon_is_the_last_of_a_full_list(prepared: Job, tmp_path: Path) -> None:
    nights = grown(prepared, tmp_path)
    gallery = kept_gallery(nights.job.warehouse, nights.job.prints.of("galleries"), str(nights.base))
    found = read_horizons(nights.job, str(nights.base), gallery)
    cosine = naive.cosine_of({p["photo_id"]: nights.vector(p["photo_id"], "c") for p in HERD})
    for row, (_, lists) in enumerate(naive.ranked(HERD, cosine, CHOSEN)):
        for horizon, others in zip(found.values(), lists, strict=True):
            if len(others) < CHOSEN.neighbours:
                assert (horizon.cosine[row], horizon.last[row]) == (-np.inf, -1)
            else:
                last = others[CHOSEN.neighbours - 1]
                assert horizon.cosine[row] == np.float32(cosine(HERD[row], last))
                assert gallery.photo_ids[horizon.last[row]] == last["photo_id"]


def test_horizons_move_with_their_photos() -> None:
    def of(names: str) -> Gallery:
        rows = [photo(0) | {"photo_id": name} for name in names]
        return Gallery(pa.Table.from_pylist(rows, schema=GALLERIES.schema))

    before, now = of("bdfh"), of("abcfh")
    old = no_horizons(CHOSEN, 4)
    old["top_k"].cosine[:] = [0.4, 0.3, 0.2, -np.inf]
    old["top_k"].last[:] = [1, 3, 0, -1]  # d, h, b
    moved = carried(old, before, now)["top_k"]
    # a and c are new; the last of b was d, of which c is the nearest lower id now; that of f is b.
    assert moved.cosine.tolist() == pytest.approx([-np.inf, 0.4, -np.inf, 0.2, -np.inf])
    assert moved.last.tolist() == [-1, 2, -1, 1, -1]


def test_shards_cover_what_is_asked_once(
    prepared: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.retrieval.plan.QUERIES_PER_TASK", 4)
    gallery = Gallery(pa.Table.from_pylist([photo(i) for i in range(11)], schema=GALLERIES.schema))
    whole = ask_all(gallery).shards()
    part = Asked(gallery, np.array([1, 2, 5, 7, 8, 9, 10]), base="b").shards()
    for shards, rows in ((whole, list(range(11))), (part, [1, 2, 5, 7, 8, 9, 10])):
        assert list(itertools.chain.from_iterable(s.rows.tolist() for s in shards)) == rows
        assert len({s.name for s in shards}) == len(shards) > 1
