"""The views of what is new between two runs, against a plain account of a small history of catalogues."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import WarehouseError
from schemas.thresholds import RISEN, SUSPICIOUS
from schemas.views.install import install_views
from schemas.views.wanted import install_wanted
from tasks.store.warehouse import Warehouse, shard_name
from tests.toy_warehouse import FINGERPRINTS, Photo, Toy, pair_key, run_row

VIEWS = ("new_photos", "new_pairs", "new_suspects", "gone_suspects", "changed_names", "tonight")
CHANCES = (0.0005, 0.02, 0.04, 0.3, 0.34, 0.9)
"""Probabilities of suspects; the first is not listed, and some steps are larger than .05, some not."""
WITHDRAWN, BROKEN = "withdrawn", "broken"
_NUMBERS = count()


@dataclass(frozen=True)
class Suspect:
    """A row of `suspects` in a few words."""

    kind: str
    pair: tuple[Photo, Photo]
    probability: float
    blamed: str | None = None
    proposed: str | None = None

    @property
    def names(self) -> tuple[str | None, str | None]:
        return self.pair[0].identity, self.pair[1].identity

    @property
    def question(self) -> tuple[str, ...]:
        if self.blamed:
            return self.kind, self.blamed
        if self.kind == "copy":
            return self.kind, self.pair[0].photo_id, self.pair[1].photo_id
        return self.kind, *sorted(map(str, self.names))

    @property
    def pair_id(self) -> str:
        return str(pair_key(*self.pair)["pair_id"])


@dataclass(frozen=True)
class Night:
    """What a run saw: all photos of the catalogue, the pairs that it judged, and its suspects in order."""

    run_id: str
    photos: Mapping[str, Photo]
    pairs: frozenset[str]
    suspects: Sequence[Suspect]

    @property
    def judged(self) -> dict[str, Photo]:
        return {k: p for k, p in self.photos.items() if p.readable}


NOTHING = Night("", {}, frozenset(), ())


@dataclass
class History:
    """Nights in a warehouse; `night` writes what a run would write."""

    warehouse: Warehouse
    entries: dict[str, Photo] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    """Photos that were ever broken or withdrawn."""
    judgements: dict[tuple[str, int], Night] = field(default_factory=dict)
    basis: dict[str, int] = field(default_factory=dict)
    nights: list[Night] = field(default_factory=list)

    def night(
        self,
        changes: Sequence[tuple[int, str | None]],
        more: bool = False,
        salt: int = 0,
        record: bool = True,
        says_basis: bool = True,
    ) -> Night:
        """A finished run over a changed catalogue.

        `changes`: number of a photo with its name now, or what became of it. With `more` the judgement rests on
        one more verdict. Without `record` the files of the photos are of a run that was killed.
        """
        run_id = f"20260301t{len(self.nights):06}-aaaaaa"
        changed = self._take_in(changes)
        says_nothing = not record and not {p.photo_id for p in changed} & self.touched
        self._write_photos(changed, None if says_nothing else run_id)
        judged = [p for _, p in sorted(self._catalogue().items()) if p.readable]
        state = shard_name(f"{p.photo_id} {p.chip_id} {p.identity}" for p in judged)
        self.basis[state] = basis = self.basis.get(state, 0) + (more or state not in self.basis)
        if (state, basis) not in self.judgements:
            self.judgements[state, basis] = self._judge(state, basis, judged, salt)
        told = self.judgements[state, basis]
        at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=len(self.nights))
        row = run_row(run_id, "finished", at, Toy([], [])) | {
            "state": state,
            "basis": basis if says_basis else None,
        }
        self.warehouse.write("runs", "all", f"{run_id}-finished", [row])
        self.nights.append(replace(told, run_id=run_id, photos=self._catalogue()))
        return self.nights[-1]

    def _catalogue(self) -> dict[str, Photo]:
        return {k: p for k, p in self.entries.items() if p.present}

    def _take_in(self, changes: Sequence[tuple[int, str | None]]) -> list[Photo]:
        changed = {}
        for number, what in changes:
            photo_id = f"p{number}"
            old = self.entries.get(photo_id)
            if what == WITHDRAWN and (old is None or not old.present):
                continue
            revision = 0 if old is None else old.revision + 1
            if what == WITHDRAWN:
                new = replace(self.entries[photo_id], present=False, revision=revision)
            else:
                name = "A" if what == BROKEN else what
                new = Photo(photo_id, name, f"e{number}", revision=revision, readable=what != BROKEN)
            if what in (WITHDRAWN, BROKEN):
                self.touched.add(photo_id)
            changed[photo_id, revision] = self.entries[photo_id] = new
        return list(changed.values())

    def _write_photos(self, changed: Sequence[Photo], run_id: str | None) -> None:
        if not changed:
            return
        shard = shard_name(f"{p.photo_id} {p.revision}" for p in changed)
        self.warehouse.write("photos", FINGERPRINTS["photos"], shard, [p.row() for p in changed])
        if run_id is not None:
            path = f"photos/fingerprint={FINGERPRINTS['photos']}/{shard}.parquet"
            record = {"path": path, "run_id": run_id, "bytes": 1, "digest": "00"}
            self.warehouse.write("files", "all", shard, [record])

    def _judge(self, state: str, basis: int, judged: Sequence[Photo], salt: int) -> Night:
        key = {"state": state, "basis": basis}
        pairs = [pair_key(a, b) for a, b in pairwise(judged)]
        pairs += [pair_key(a, b) for a, b in zip(judged, judged[2:], strict=False)]
        suspects = sorted(_suspects(judged, salt), key=lambda s: (-s.probability, s.kind, s.pair_id))
        odds = {"log_odds": 0.0, "probability": 0.5, "terms": [], "added": []}
        name = shard_name([state, str(basis)])
        self.warehouse.write("judged_photos", FINGERPRINTS["judgements"], name, [
            {**key, "photo_id": p.photo_id, "identity": p.identity, "undefended": False, "told_by": ""} for p in judged
        ])  # fmt: skip
        self.warehouse.write("judgements", FINGERPRINTS["judgements"], name, [
            {**key, **{k: p[k] for k in ("pair_id", "photo_a", "photo_b")}, **odds} for p in pairs
        ])  # fmt: skip
        self.warehouse.write("suspects", FINGERPRINTS["suspects"], name, [
            {**key, "rank": rank, "kind": s.kind, "score": s.probability, "probability": s.probability,
             **{k: v for k, v in pair_key(*s.pair).items() if not k.startswith("chip")},
             "identity_a": s.names[0], "identity_b": s.names[1], "blamed_photo": s.blamed,
             "proposed_name": s.proposed, "reason": "because", "subject_kind": None if salt % 2 else _OF_WHAT[s.kind]}
            for rank, s in enumerate(suspects, start=1)
        ])  # fmt: skip
        return Night("", {}, frozenset(p["pair_id"] for p in pairs), suspects)


_OF_WHAT = {"wrong_name": "photo", "copy": "pair", "two_names_one_animal": "name"}


def _suspects(judged: Sequence[Photo], salt: int) -> Iterator[Suspect]:
    """Some suspects of each kind, drawn by a number."""

    def drawn(*what: object) -> int:
        return hashlib.sha256(repr((salt, *what)).encode()).digest()[0]

    def chance(*what: object) -> float:
        return CHANCES[drawn(*what) % len(CHANCES)]

    def suspect(
        kind: str, a: Photo, b: Photo, blamed: Photo | None = None, proposed: str | None = None
    ) -> Iterator[Suspect]:
        probability = chance(kind, blamed and blamed.photo_id)
        if probability >= SUSPICIOUS:
            pair = (a, b) if a.photo_id < b.photo_id else (b, a)
            yield Suspect(kind, pair, probability, blamed and blamed.photo_id, proposed)

    named = [p for p in judged if p.identity]
    for i, photo in enumerate(named):
        others = named[:i] + named[i + 1 :]
        if others:
            other = others[drawn("other", photo.photo_id) // 128 * (len(others) - 1)]
            yield from suspect("wrong_name", photo, other, photo, other.identity)
    first = {name: next((p for p in named if p.identity == name), None) for name in "AB"}
    if first["A"] and first["B"]:
        yield from suspect("two_names_one_animal", first["A"], first["B"], proposed="B")
    if len(named) > 1:
        yield from suspect("copy", named[0], named[1])


def told(earlier: Night, later: Night) -> dict[str, set[tuple[Any, ...]]]:
    """What the views must show, counted plainly."""

    def name(night: Night, photo: str) -> str | None:
        return night.photos[photo].identity

    before = {s.question: s for s in earlier.suspects}
    now = {s.question: s for s in later.suspects}
    new_pairs = later.pairs - earlier.pairs
    new = set()
    for question, s in now.items():
        old = before.get(question)
        known = [earlier.judged.get(p.photo_id) for p in s.pair]
        if old is None:
            evidence = s.pair_id in new_pairs or None in known
            names = any(
                earlier.photos[p.photo_id].identity != p.identity
                if p.photo_id in earlier.photos
                else p.identity is not None
                for p in s.pair
            )
        else:
            evidence = old.pair_id != s.pair_id
            names = (old.names, old.proposed) != (s.names, s.proposed)
        risen = s.probability - (old.probability if old else SUSPICIOUS) > RISEN
        because = [
            what
            for what, is_so in (("evidence", evidence), ("names", names), ("probability", risen))
            if is_so
        ]
        if because:
            new.add((question, s.probability, old and old.probability, tuple(because)))
    gone = set()
    for question, s in before.items():
        if question not in now:
            ids = [p.photo_id for p in s.pair]
            if not all(i in later.photos for i in ids):
                because_gone = "withdrawn"
            elif tuple(name(later, i) for i in ids) != s.names:
                because_gone = "renamed"
            else:
                because_gone = "less suspect"
            gone.add((question, s.probability, because_gone))
    both = earlier.photos.keys() & later.photos.keys()
    found: dict[str, set[tuple[Any, ...]]] = {
        "new_photos": {(k, p.identity, p.readable) for k, p in later.photos.items() if k not in earlier.photos},
        "new_pairs": {(pair,) for pair in new_pairs},
        "new_suspects": new,
        "gone_suspects": gone,
        "changed_names": {(k, name(earlier, k), name(later, k)) for k in both if name(earlier, k) != name(later, k)},
    }  # fmt: skip
    return found | {
        "tonight": {(earlier.run_id or None, later.run_id, *(len(found[view]) for view in VIEWS[:-1]))}
    }


_QUESTION = "question_of(kind, NULL, blamed_photo, photo_a, photo_b, identity_a, identity_b)"
_SHOWN = {
    "new_photos": "SELECT photo_id, identity, judged FROM new_photos",
    "new_pairs": "SELECT pair_id FROM new_pairs",
    "new_suspects": f"SELECT {_QUESTION}, probability, probability_then, because FROM new_suspects",
    "gone_suspects": f"SELECT {_QUESTION}, probability, because FROM gone_suspects",
    "changed_names": "SELECT photo_id, name_then, name_now FROM changed_names",
    "tonight": "FROM tonight",
}


def shown(
    warehouse: Warehouse, later: str | None = None, since: str | None = None, whole: bool = False
) -> dict[str, set[tuple[Any, ...]]]:
    """What the views show; with `whole` all views are installed, else those that are asked for."""
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        if whole:
            install_views(connection, warehouse, later, since=since)
        else:
            install_wanted(connection, warehouse, VIEWS, later, since)
        found = {}
        for view in VIEWS:
            rows = connection.execute(_SHOWN[view]).fetchall()
            plain = [tuple(tuple(v) if isinstance(v, list) else v for v in row) for row in rows]
            assert len(set(plain)) == len(plain), view
            found[view] = set(plain)
        return found


def history() -> History:
    return History(Warehouse(f"memory://new/{next(_NUMBERS)}"))


_CHANGE = st.tuples(st.integers(0, 5), st.sampled_from(["A", "A", "B", "C", None, WITHDRAWN, BROKEN]))
_NIGHT = st.tuples(
    st.lists(_CHANGE, max_size=4), st.booleans(), st.integers(0, 50), st.booleans(), st.booleans()
)


@settings(max_examples=10, deadline=None)
@given(st.lists(_NIGHT, min_size=1, max_size=4), st.data())
def test_all_views_agree_with_a_plain_account(nights: list[Any], data: st.DataObject) -> None:
    past = history()
    for changes, more, salt, record, says_basis in nights:
        # A run that does not say what its judgement rests on is of an older version, which judged a state once.
        careful = record or any(what in (WITHDRAWN, BROKEN) for _, what in changes)
        past.night(changes, more and says_basis, salt, careful, says_basis or more)
    assert shown(past.warehouse) == told([NOTHING, *past.nights][-2], past.nights[-1])
    if len(past.nights) > 2:
        first = data.draw(st.integers(0, len(past.nights) - 2))
        last = data.draw(st.integers(first + 1, len(past.nights) - 1))
        earlier, later = past.nights[first], past.nights[last]
        assert shown(past.warehouse, later.run_id, earlier.run_id) == told(earlier, later)


@pytest.fixture
def three() -> History:
    """Four photos, then two more of which one is broken, then a corrected name and a withdrawn photo."""
    past = history()
    past.night([(0, "A"), (1, "A"), (2, "B"), (3, "B")], salt=2)
    past.night([(4, None), (5, BROKEN)], salt=2)
    past.night([(1, "B"), (3, WITHDRAWN)], salt=2)
    return past


def test_a_hand_worked_history(three: History) -> None:
    first, second, third = (night.run_id for night in three.nights)
    found = shown(three.warehouse, second)
    assert found["new_photos"] == {("p4", None, True), ("p5", "A", False)}
    assert found["changed_names"] == set()
    # p4 comes behind p3 and p2 in the order of ids.
    assert len(found["new_pairs"]) == 2
    ((earlier, later, photos, *_, names),) = shown(three.warehouse)["tonight"]
    assert (earlier, later, photos, names) == (second, third, 0, 1)
    assert shown(three.warehouse)["changed_names"] == {("p1", "A", "B")}
    assert shown(three.warehouse, since=first)["new_photos"] == found["new_photos"]


def test_a_rerun_brings_nothing_new(three: History) -> None:
    three.night([])
    ((_, _, *counts),) = shown(three.warehouse)["tonight"]
    assert counts == [0] * 5


def test_in_a_first_run_everything_is_new() -> None:
    past = history()
    night = past.night([(0, "A"), (1, "B")])
    found = shown(past.warehouse)
    assert found == told(NOTHING, night)
    assert found["tonight"] == {(None, night.run_id, 2, 1, len(found["new_suspects"]), 0, 0)}


def test_all_views_and_wanted_ones_show_the_same(three: History) -> None:
    assert shown(three.warehouse, whole=True) == shown(three.warehouse)
    first, _, third = (night.run_id for night in three.nights)
    assert shown(three.warehouse, third, first, whole=True) == shown(three.warehouse, third, first)


def test_a_run_that_cannot_be_compared_is_told_with_those_that_can(three: History) -> None:
    first, second, third = (night.run_id for night in three.nights)
    with pytest.raises(WarehouseError, match=f"no run 'r9' finished before {third}.*{first}"):
        shown(three.warehouse, since="r9")
    with pytest.raises(WarehouseError, match=f"no run '{third}' finished before {second}"):
        shown(three.warehouse, second, third)
    with pytest.raises(WarehouseError, match="there is none"):
        shown(three.warehouse, first, "r9")


def test_each_photo_knows_the_run_that_first_saw_it_and_that_of_its_last_change(three: History) -> None:
    first, second, third = (night.run_id for night in three.nights)
    three.night([(0, "C")], record=False)
    with duckdb.connect(":memory:") as connection:
        install_views(connection, three.warehouse)
        found = connection.execute(
            "SELECT photo_id, first_run, changed_run FROM photo_runs ORDER BY photo_id"
        ).fetchall()
    # Nobody says who wrote the last entry of p0, for that run was killed.
    assert found == [
        ("p0", first, first),
        ("p1", first, third),
        ("p2", first, first),
        ("p4", second, second),
        ("p5", second, second),
    ]


def test_photos_of_which_no_run_says_that_it_wrote_them_are_known_by_its_judgement() -> None:
    past = history()
    first = past.night([(0, "A")], record=False)
    second = past.night([(1, "B")], record=False)
    with duckdb.connect(":memory:") as connection:
        install_views(connection, past.warehouse)
        found = connection.execute(
            "SELECT photo_id, first_run, changed_run FROM photo_runs ORDER BY photo_id"
        ).fetchall()
    assert found == [("p0", first.run_id, first.run_id), ("p1", second.run_id, second.run_id)]
    assert shown(past.warehouse)["new_photos"] == {("p1", "B", True)}
