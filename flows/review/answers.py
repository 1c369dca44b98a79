"""What people have answered, in memory: as the view `reviews`, and up to date with the files.

The views show answers as of the last run. A curator must not be asked what somebody answered a minute ago,
perhaps beside another server: so the files of verdicts are looked at again and again, and only new ones are
read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

from flows.review.cards import Key
from schemas.tables.reviews import OF_ONE_PHOTO, REVIEW_PARTITION, WITHDRAWN, Review
from tasks.store.warehouse import Warehouse

Row = Mapping[str, Any]
_LISTS = ("photos_a", "photos_b")


class Answers:
    """The latest verdict of every person on every question that applies to these photos.

    `photos` holds rows of `photos` by id. Any number of threads may use it.
    """

    def __init__(self, warehouse: Warehouse, photos: Mapping[str, Row]) -> None:
        self._warehouse = warehouse
        self._photos = photos
        self._read: set[str] = set()
        self._rows: dict[str, Row] = {}
        self._latest: dict[Key, dict[tuple[Any, ...], dict[str | None, Row]]] = {}
        self._lock = Lock()
        self.version = 0
        """Grows by one with every verdict that becomes known."""

    def refresh(self) -> None:
        """Read the files of verdicts that have come since, of this process or of others."""
        found = self._warehouse.shards("reviews", REVIEW_PARTITION)
        new = found - self._read
        if not new:
            return
        rows = self._warehouse.read("reviews", REVIEW_PARTITION, new).to_pylist()
        self.add(rows)
        with self._lock:
            self._read |= new

    def add(self, rows: Iterable[Row]) -> None:
        """Take verdicts into account; those that are known already change nothing."""
        with self._lock:
            for row in rows:
                if row["review_id"] in self._rows:
                    continue
                self._rows[row["review_id"]] = row
                people = self._latest.setdefault(_key(row), {}).setdefault(_shown(row), {})
                before = people.get(row["reviewer"])
                if before is None or _order(before) < _order(row):
                    people[row["reviewer"]] = row
                self.version += 1

    def on(self, key: Key) -> list[Row]:
        """Every person's verdict on a question, newest first; none that was taken back or does not apply."""
        with self._lock:
            groups = [list(people.values()) for people in self._latest.get(key, {}).values()]
        found = []
        for group in groups:
            stands = [row for row in group if row["verdict"] != WITHDRAWN]
            # As in the view: whether a question about names applies is told by its latest verdict.
            if stands and self._applies(max(stands, key=_order)):
                found += stands
        return sorted(found, key=_order, reverse=True)

    def questions(self) -> list[Key]:
        """All questions that anybody ever answered, whether or not the answers stand."""
        with self._lock:
            return list(self._latest)

    def newest_by(self, reviewer: str | None) -> list[Row]:
        """All standing verdicts of one person, newest first."""
        with self._lock:
            people = [people for groups in self._latest.values() for people in groups.values()]
            found = [mine[reviewer] for mine in people if reviewer in mine]
        return sorted((row for row in found if row["verdict"] != WITHDRAWN), key=_order, reverse=True)

    def named(self, review_id: str) -> Review | None:
        """A verdict by its id."""
        with self._lock:
            row = self._rows.get(review_id)
        return None if row is None else review_of_row(row)

    def reviewers(self) -> list[str]:
        """Names of all who answered anything, sorted."""
        with self._lock:
            return sorted({row["reviewer"] for row in self._rows.values() if row["reviewer"] is not None})

    def _applies(self, row: Row) -> bool:
        a, b = self._photos.get(row["photo_a"]), self._photos.get(row["photo_b"] or "")
        if row["kind"] in ("names", "split"):
            return (a or {}).get("identity") == row["identity_a"] and (b or {}).get("identity") == row[
                "identity_b"
            ]
        if row["photo_b"] is not None and (b is None or b["chip_id"] != row["chip_b"]):
            return False
        if a is None or a["chip_id"] != row["chip_a"]:
            return False
        return row["kind"] != "name" or a["identity"] == row["identity_a"]


def review_of_row(row: Row) -> Review:
    """The verdict that a row of `reviews` holds."""
    lists = {name: None if row[name] is None else tuple(row[name]) for name in _LISTS}
    return Review(**{**row, **lists})


def _order(row: Row) -> tuple[Any, str]:
    return row["at"], row["review_id"]


def _key(row: Row) -> Key:
    kind = row["kind"]
    if kind in OF_ONE_PHOTO:
        return kind, row["photo_a"], None
    if kind == "names":
        one, two = sorted((row["identity_a"], row["identity_b"]))
        return kind, one, two
    return kind, row["identity_a"] if kind == "split" else row["pair_id"], None


def _shown(row: Row) -> tuple[Any, ...]:
    """What else makes it another question: the chip of a photo, and the name that it had."""
    kind = row["kind"]
    return (
        row["chip_a"] if kind in OF_ONE_PHOTO else None,
        row["identity_a"] if kind == "name" else None,
    )
