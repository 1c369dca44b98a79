"""What verdicts change in a catalogue: names of photos, and photos to leave out.

The rules, in this order:

1. *A photo's name is wrong*: it takes the right name, or none where nobody knows it.
2. *A name is two animals*: the photos of the smaller side (of equal ones the side of photo_b) take the right
   name, or else `NAME_2`, `NAME_3`, … whichever is not taken. A photo of rule 1 keeps what that says.
3. *Two names are one animal*: all their photos take the right name, or else the name with more photos, ties by
   the alphabet. Names may be joined in chains.
4. *Copies and bad photos* are listed, and left out where that is asked for. Of a copy the photo whose name the
   verdict's suspect blamed goes, else the one that was stored later, else the smaller picture, else the second.

A change is held back where people disagree on its question, or where its verdict is part of a contradiction.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from tasks.reviews.contradictions import Contradiction, contradictions, links_of, standing

_PHOTOS = """
SELECT p.photo_id, p.identity, p.chip_id, p.path, p.bytes, epoch_us(v.first_stored_at) AS stored
FROM photos AS p LEFT JOIN arrivals AS v USING (photo_id)
"""
_BLAMED = "SELECT pair_id, blamed FROM copied_photos WHERE blamed IS NOT NULL"
_RIGHT_NAMES = """
SELECT question, max(right_name) AS right_name FROM opinions WHERE right_name IS NOT NULL GROUP BY question
"""
VIEWS = ("reviews", "opinions", "photos", "arrivals", "copied_photos")
"""The views that a plan reads."""


@dataclass(frozen=True)
class Change:
    """One change of one photo: `before` and `after` are names, `field` says identity, or photo where it goes.

    `applied` is false for what is only listed; `held` says why a change is held back, and is empty otherwise.
    """

    photo: str
    field: str
    before: str | None
    after: str | None
    why: str
    reviews: tuple[str, ...]
    reviewers: tuple[str, ...]
    at: str
    applied: bool = True
    held: str = ""


@dataclass
class Plan:
    """All changes in order of the photos, those that are only listed or held back among them."""

    changes: list[Change] = field(default_factory=list)
    contradictions: list[Contradiction] = field(default_factory=list)
    photos: frozenset[str] = frozenset()
    merged: dict[str, Change] = field(default_factory=dict)
    """Name that is given up -> the change of a photo of that name; for photos that the warehouse does not hold."""

    @property
    def names(self) -> dict[str, str | None]:
        """Photo -> its new name, of all that changes."""
        return {c.photo: c.after for c in self.changes if c.applied and not c.held and c.field == "identity"}

    @property
    def dropped(self) -> frozenset[str]:
        """Photos to leave out."""
        return frozenset(c.photo for c in self.changes if c.applied and not c.held and c.field == "photo")

    @property
    def held(self) -> list[Change]:
        """What is held back."""
        return [c for c in self.changes if c.held]


def plan_of(
    connection: duckdb.DuckDBPyConnection,
    drop_copies: bool = False,
    drop_bad: bool = False,
    force: bool = False,
) -> Plan:
    """What the verdicts of a warehouse change, from the `VIEWS` of a connection.

    With `force` verdicts that contradict each other by a chain take effect all the same; the plan still lists
    them. People who disagree on one question are always held back.
    """
    rows = standing(connection)
    photos = {row["photo_id"]: row for row in connection.sql(_PHOTOS).to_arrow_table().to_pylist()}
    given = dict(connection.execute(_RIGHT_NAMES).fetchall())
    blamed = dict(connection.execute(_BLAMED).fetchall())
    rows = [row | {"right_name": row["right_name"] or _named(row, given)} for row in rows]
    found = contradictions(links_of(row for row in rows if not row["disagreeing"]))
    planner = _Planner(photos, rows, [] if force else found, blamed)
    return Plan(planner.changes(drop_copies, drop_bad), found, frozenset(photos), planner.merged)


def _named(row: Mapping[str, Any], given: Mapping[str, str]) -> str | None:
    """The right name that another person gave who said the same."""
    naming = {("name", "wrong"), ("names", "one_animal"), ("split", "two_animals")}
    return (
        given.get(row["question"]) if (row["kind"], row["verdict"]) in naming and not row["carried"] else None
    )


@dataclass
class _Effect:
    """A photo's new name so far, and the verdicts behind it."""

    name: str | None
    why: list[str] = field(default_factory=list)
    reviews: list[Mapping[str, Any]] = field(default_factory=list)
    held: str = ""
    wanted: str | None = None


class _Planner:
    def __init__(
        self,
        photos: Mapping[str, Mapping[str, Any]],
        rows: Sequence[Mapping[str, Any]],
        found: Sequence[Contradiction],
        blamed: Mapping[str, str],
    ) -> None:
        self.photos = photos
        self.blamed = blamed
        # What was carried over to the corrected names has taken effect.
        self.rows = [row for row in rows if not row["carried"]]
        self.why_held = {
            review: f"contradicts other verdicts: {each.words()}"
            for each in reversed(found)
            for review in each.involved
        }
        self.why_held |= {
            row["review_id"]: f"reviewers disagree ({row['agreeing']} of {row['reviewers']} say so)"
            for row in self.rows
            if row["disagreeing"]
        }
        self.effects = {photo: _Effect(row["identity"]) for photo, row in photos.items()}
        self.merged: dict[str, Change] = {}
        self.taken = {row["identity"] for row in photos.values()} | {row["right_name"] for row in rows}

    def changes(self, drop_copies: bool, drop_bad: bool) -> list[Change]:
        for row in self._of("name", "wrong"):
            self._rename(row)
        for row in self._of("split", "two_animals"):
            self._split(row)
        self._merge(self._of("names", "one_animal"))
        found = [
            _change(photo, self.photos[photo]["identity"], effect)
            for photo, effect in self.effects.items()
            if effect.why and (effect.held or effect.name != self.photos[photo]["identity"])
        ]
        for row in self._of("copy", "copy"):
            found += self._leave_out(self._copy(row), row, drop_copies)
        for row in self._of("photo", "bad"):
            found += self._leave_out(
                (row["photo_a"], "the photo is too bad to tell an animal by"), row, drop_bad
            )
        return sorted(found, key=lambda c: (c.photo, c.field))

    def _of(self, kind: str, verdict: str) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if (row["kind"], row["verdict"]) == (kind, verdict)]

    def _set(
        self, photos: Iterable[str], name: str | None, why: str, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        held = next((w for row in rows if (w := self.why_held.get(row["review_id"]))), "")
        for photo in photos:
            effect = self.effects[photo]
            if effect.name == name and not held:
                continue
            effect.why.append(why)
            effect.reviews += rows
            if held:
                effect.held, effect.wanted = effect.held or held, name
            else:
                effect.name = name

    def _rename(self, row: Mapping[str, Any]) -> None:
        name = row["right_name"]
        why = f"its name {row['identity_a']} is wrong; " + (
            f"it is {name}" if name else "the right one is not known"
        )
        self._set([row["photo_a"]], name, why, [row])

    def _split(self, row: Mapping[str, Any]) -> None:
        name = row["identity_a"]
        sides = [self._still(row[f"photos_{side}"], name) for side in "ab"]
        if row["right_name"]:
            # The right name is that of photo_b's side.
            moved = sides[1]
        else:
            # Where one side has other names by now, the name is left to the other.
            moved = (sides[0] if len(sides[0]) < len(sides[1]) else sides[1]) if all(sides) else []
        if not moved:
            return
        new = row["right_name"] or self._free(name)
        self._set(moved, new, f"{name} is two animals; these {len(moved)} of its photos are {new}", [row])

    def _still(self, photos: Iterable[str] | None, name: str) -> list[str]:
        return [p for p in photos or () if p in self.effects and self.effects[p].name == name]

    def _free(self, name: str) -> str:
        number = 2
        while (new := f"{name}_{number}") in self.taken:
            number += 1
        self.taken.add(new)
        return new

    def _merge(self, rows: Sequence[Mapping[str, Any]]) -> None:
        groups: dict[str, set[str]] = {}
        said: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        # What is held back must not draw other names along.
        for row in sorted(rows, key=lambda r: r["review_id"] in self.why_held):
            one, two = row["identity_a"], row["identity_b"]
            if row["review_id"] in self.why_held:
                kept, others = self._kept([one, two], row["right_name"])
                self._set(self._bearing(others), kept, f"{one} and {two} are one animal", [row])
                continue
            both = groups.get(one, {one}) | groups.get(two, {two})
            groups |= dict.fromkeys(both, both)
            said[min(both)] += [row]
        for names in {min(group): group for group in groups.values()}.values():
            reasons = [row for key, rows in said.items() if key in names for row in rows]
            self._merge_group(sorted(names), reasons)

    def _merge_group(self, names: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
        given = {row["right_name"] for row in rows} - {None}
        kept, others = self._kept(names, min(given, default=None))
        why = f"{' and '.join(names)} are one animal; {kept} is " + (
            "the name that was given" if given else "the name with more photos"
        )
        if len(given) > 1:
            held = f"different names were given to one animal: {', '.join(sorted(given))}"
            self.why_held |= {row["review_id"]: held for row in rows}
        if kept not in names and (already := self._bearing([kept])):
            why += f", which {len(already)} other photos have already"
        self._set(self._bearing(others), kept, why, rows)
        if len(given) < 2:
            self.merged |= {name: _change("", name, _Effect(kept, [why], list(rows))) for name in others}

    def _kept(self, names: Sequence[str], given: str | None) -> tuple[str, list[str]]:
        """The name that stays, and those that go."""
        counts = Counter(effect.name for effect in self.effects.values())
        kept = given or min(names, key=lambda name: (-counts[name], name))
        return kept, [name for name in names if name != kept]

    def _bearing(self, names: Iterable[str]) -> list[str]:
        wanted = set(names)
        return [photo for photo, effect in self.effects.items() if effect.name in wanted]

    def _copy(self, row: Mapping[str, Any]) -> tuple[str, str]:
        a, b = row["photo_a"], row["photo_b"]
        one, two = self.photos.get(a), self.photos.get(b)
        if (blamed := self.blamed.get(row["pair_id"])) in (a, b):
            return str(blamed), f"a copy of {b if blamed == a else a}, whose name the pictures speak for"
        if one is None or two is None:
            return b, f"a copy of {a}"
        for key, word in (("stored", "stored earlier"), ("bytes", "a larger file")):
            if one[key] is not None and two[key] is not None and one[key] != two[key]:
                later = (one[key] > two[key]) == (key == "stored")
                return (
                    (a, f"a copy of {b}, which is {word}")
                    if later
                    else (b, f"a copy of {a}, which is {word}")
                )
        return b, f"a copy of {a}"

    def _leave_out(self, what: tuple[str, str], row: Mapping[str, Any], applied: bool) -> list[Change]:
        photo, why = what
        if photo not in self.photos:
            return []
        name = self.photos[photo]["identity"]
        effect = _Effect(name, [why], [row], self.why_held.get(row["review_id"], "") if applied else "")
        return [_change(photo, name, effect, "photo", applied)]


def _change(
    photo: str, before: str | None, effect: _Effect, what: str = "identity", applied: bool = True
) -> Change:
    rows = list({row["review_id"]: row for row in effect.reviews}.values())
    return Change(
        photo=photo,
        field=what,
        before=before,
        after=(effect.wanted if effect.held else effect.name) if what == "identity" else None,
        why="; ".join(dict.fromkeys(effect.why)),
        reviews=tuple(row["review_id"] for row in rows),
        reviewers=tuple(dict.fromkeys(row["reviewer"] for row in rows if row["reviewer"])),
        at=max(row["at"] for row in rows).isoformat(timespec="seconds"),
        applied=applied,
        held=effect.held,
    )
