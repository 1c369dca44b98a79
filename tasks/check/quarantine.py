"""Moves damaged files aside, with all that must go too so that the next run computes them again."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from schemas.stages import STAGES, StageFacts
from schemas.tables.registry import FINGERPRINTS, TABLES
from tasks.check.damage import Damage
from tasks.check.listing import Listing, StoredFile, placed
from tasks.check.sound import Sound
from tasks.store.file_record import keep_record
from tasks.store.warehouse import Warehouse

QUARANTINE = "quarantine"
"""Folder below the root that files are moved to, under their old paths; nothing reads it."""
Prints = Mapping[str, str | None]
"""A run's fingerprints by their names."""


def move_aside(warehouse: Warehouse, listing: Listing, problems: Iterable[Damage]) -> dict[str, str | None]:
    """Move the files of all problems and their partners.

    Returns where each went, None for one that was already gone. The last table of a stage goes first:
    without it a shard is not done, whatever else is still there. The record notes all of them, so that
    later checks do not ask for them. Nothing in quarantine is overwritten.
    """
    damaged = list(dict.fromkeys(path for problem in problems for path in problem.files))
    there = {f.path for f in (*listing.by_path.values(), *listing.strangers)}
    runs = _runs(Sound(warehouse, listing, damaged))
    going = dict.fromkeys(path for one in damaged for path in (*_partners(placed(one), there, runs), one))
    moved = {path: _move(warehouse, path) if path in there else None for path in going}
    now = datetime.now(UTC)
    keep_record(warehouse, f"{now:%Y%m%dt%H%M%S}-{secrets.token_hex(3)}", (), moved)
    return moved


def _runs(sound: Sound) -> list[Prints]:
    """The sets of fingerprints that runs were made with."""
    columns = ", ".join(f"{name}_fingerprint AS {name}" for name in FINGERPRINTS)
    with sound.connect() as connection:
        found = connection.sql(f"SELECT DISTINCT {columns} FROM all_runs").to_arrow_table().to_pylist()  # noqa: S608
    return list(found)


def _partners(file: StoredFile, there: set[str], runs: Sequence[Prints]) -> Iterator[str]:
    """The shard's other files, which must go too so that its work is done again.

    They are its other tables, and the failures that stand in for their rows. Signals can be computed
    again from stored rows by a stage of their own: of two stages that fill a table, the one with fewer
    tables counts.
    """
    stages = [stage for stage in STAGES.values() if file.place in stage.tables]
    if not stages:
        return
    stage = min(stages, key=lambda s: len(s.tables))
    for place, table in _places(stage):
        for partition in sorted(_beside(file, table, runs)):
            path = f"{place}/fingerprint={partition}/{file.shard}.parquet"
            if path in there:
                yield path


def _places(stage: StageFacts) -> Iterator[tuple[str, str]]:
    """Tables in which the stage's shard may have files, last first.

    Each comes with the table whose partition it lies under.
    """
    for table in reversed(stage.tables):
        yield table, table
    for table in stage.failing.tables if stage.failing else ():
        yield "failures", table


def _beside(file: StoredFile, table: str, runs: Sequence[Prints]) -> set[str]:
    """Partitions of a table that were filled together with the file's."""
    mine, its = TABLES[file.place].fingerprint, TABLES[table].fingerprint
    if mine == its:
        return {file.partition}
    if mine is None or its is None:
        return set()
    return {found for run in runs if run[mine] == file.partition and (found := run[its])}


def _move(warehouse: Warehouse, path: str) -> str:
    """Move a file into quarantine; returns its new path below the root.

    The path gets a number where another file has it already.
    """
    storage, source = warehouse.storage, f"{warehouse.root}/{path}"
    for number in count(1):
        kept = f"{QUARANTINE}/{path}" if number == 1 else f"{QUARANTINE}/{path}.{number}"
        target = f"{warehouse.root}/{kept}"
        if warehouse.is_local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            if not Path(target).exists():
                Path(source).rename(target)
                return kept
        elif storage.create(target, storage.get(source)):
            storage.remove([source])
            return kept
    raise AssertionError("some number is free")
