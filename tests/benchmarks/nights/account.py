"""A plain account of what a run saw and what was new in it, from catalogue rows and stored files, without any view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from schemas.tables.registry import TABLES

KINDS = ("new_photos", "new_pairs", "new_suspects", "gone_suspects", "changed_names")
LISTED_FROM, RISES_BY = 0.001, 0.05
"""As `schemas/README.md` says what counts as new."""
Row = Mapping[str, Any]
Question = tuple[str, ...]
News = dict[str, set[tuple[Any, ...]]]


@dataclass(frozen=True)
class Seen:
    """What one run saw: names of all photos of its catalogue, those it could compare, judged pairs, suspects."""

    names: Mapping[str, str | None] = field(default_factory=dict)
    compared: frozenset[str] = frozenset()
    pairs: frozenset[str] = frozenset()
    suspects: Mapping[Question, Row] = field(default_factory=dict)

    @classmethod
    def of(
        cls, warehouse: Path, run_id: str, names: Mapping[str, str | None], broken: frozenset[str]
    ) -> Seen:
        """The run's judgement as its files hold it; `broken` are the photos that nobody can compare."""
        (run,) = (
            row for row in _rows(warehouse, "runs") if (row["run_id"], row["status"]) == (run_id, "finished")
        )
        pairs = frozenset(row["pair_id"] for row in _of_run(warehouse, "judgements", run))
        suspects = {_question(row): row for row in _of_run(warehouse, "suspects", run)}
        return cls(dict(names), frozenset(names) - broken, pairs, suspects)


def _of_run(warehouse: Path, table: str, run: Row) -> Iterator[Row]:
    folder = run[f"{TABLES[table].fingerprint}_fingerprint"]
    for row in _rows(warehouse, table, folder):
        if (row["state"], row["basis"]) == (run["state"], run["basis"]):
            yield row


def _rows(warehouse: Path, table: str, fingerprint: str = "*") -> Iterator[Row]:
    for file in sorted(warehouse.glob(f"{table}/fingerprint={fingerprint}/*.parquet")):
        # The folder's name says fingerprint=F, which no row repeats.
        yield from pq.ParquetFile(file).read().to_pylist()


def _question(row: Row) -> Question:
    if row["blamed_photo"] is not None:
        return row["kind"], row["blamed_photo"]
    if row["subject_kind"] == "name":
        return row["kind"], *sorted((row["identity_a"], row["identity_b"]))
    return row["kind"], row["photo_a"], row["photo_b"]


def news(then: Seen, now: Seen) -> News:
    """What is new in the later of two runs, by kind: the rows that the view of that name should show.

    Photos with name and whether they were compared; pairs; suspects with their rank and why they are new; gone
    suspects with why; photos with the name before and now.
    """
    added = now.names.keys() - then.names.keys()
    both = now.names.keys() & then.names.keys()
    pairs = now.pairs - then.pairs
    fresh = ((row["rank"], _because(then, now, question, pairs)) for question, row in now.suspects.items())
    gone = then.suspects.keys() - now.suspects.keys()
    return {
        "new_photos": {(photo, now.names[photo], photo in now.compared) for photo in added},
        "new_pairs": {(pair,) for pair in pairs},
        "new_suspects": {(rank, because) for rank, because in fresh if because},
        "gone_suspects": {(*question, _gone(then.suspects[question], now)) for question in gone},
        "changed_names": {
            (photo, then.names[photo], now.names[photo])
            for photo in both
            if then.names[photo] != now.names[photo]
        },
    }


def _because(then: Seen, now: Seen, question: Question, new_pairs: frozenset[str]) -> tuple[str, ...]:
    row, before = now.suspects[question], then.suspects.get(question)
    photos, names = (row["photo_a"], row["photo_b"]), (row["identity_a"], row["identity_b"])
    if before is None:
        evidence = row["pair_id"] in new_pairs or not then.compared.issuperset(photos)
        other_names = tuple(map(then.names.get, photos)) != names
    else:
        evidence = row["pair_id"] != before["pair_id"]
        other_names = (*names, row["proposed_name"]) != (
            before["identity_a"],
            before["identity_b"],
            before["proposed_name"],
        )
    risen = row["probability"] - (before["probability"] if before else LISTED_FROM) > RISES_BY
    said = {"evidence": evidence, "names": other_names, "probability": risen}
    return tuple(word for word, holds in said.items() if holds)


def _gone(row: Row, now: Seen) -> str:
    photos = (row["photo_a"], row["photo_b"])
    if not now.names.keys() >= set(photos):
        return "withdrawn"
    renamed = tuple(now.names[photo] for photo in photos) != (row["identity_a"], row["identity_b"])
    return "renamed" if renamed else "less suspect"
