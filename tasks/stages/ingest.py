"""Ingest: reads, checks and hashes each entry's file into a row of `photos`, or a failure.

Where only words about a photo changed (its name, date, viewpoint, other columns, …), what its file told before is
copied into the new row: a night with a thousand corrected names reads no file again, and embeds none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import cut_photo, decode_photo
from pairx_engine.photo.perceptual_hash import orientation_hashes
from schemas import stages
from schemas.catalogue.extra import pairs_of
from schemas.catalogue.reader import Catalogue, CatalogueEntry
from schemas.failures import Failure, FailureCode
from schemas.tables.registry import PHOTOS
from tasks.costs import spent_on
from tasks.job import Job
from tasks.photo_files import read_bytes, stamps
from tasks.shards import ShardResult, Stage, chunks, commit, or_failure
from tasks.store.warehouse import shard_name

_TEXT_FIELDS = ("path", "identity", "species", "encounter", "taken_at", "viewpoint", "theta", "extra")


_OF_THE_PICTURE = (
    "width", "height", "bytes", "sha256", "box", "orientation_hashes", "perceptual_hash", "chip_id",
)  # fmt: skip
"""Columns that the file, the box and the rotation decide."""


_NO_BOX = [0.0, 0.0, 0.0, 0.0]
"""Stands for a box that cannot be used, so that the photo is read again once it is mended."""


class Known(Protocol):
    """Current rows of photos, by id."""

    def get(self, photo_id: str, /) -> Mapping[str, Any] | None:
        """The row of a photo; None where there is none."""


@dataclass(frozen=True)
class IngestShard:
    """Entries to read, with the revision and stamp that each row will carry.

    `seen` holds what the file told before, where neither it nor the cut changed; None where it must be read.
    """

    root: str
    entries: tuple[CatalogueEntry, ...]
    revisions: tuple[int, ...]
    stamps: tuple[str | None, ...]
    seen: tuple[Mapping[str, Any] | None, ...]

    @property
    def name(self) -> str:
        """Hash of the photo ids and their revisions."""
        return shard_name(f"{e.photo_id}\0{r}" for e, r in zip(self.entries, self.revisions, strict=True))

    def part(self, items: slice) -> IngestShard:
        """Some of the entries."""
        return IngestShard(
            self.root, self.entries[items], self.revisions[items], self.stamps[items], self.seen[items]
        )


def plan_ingest(
    catalogue: Catalogue, current: Known, size: int, retry_failed: bool = False
) -> list[IngestShard]:
    """Shards of the entries that are new, or whose entry or file differs from the current `photos` row.

    `current` knows the current row of each photo, and is asked in the order of ids. With `retry_failed`, photos without a chip are also
    read again.
    """
    changed: list[tuple[CatalogueEntry, int, str | None, Mapping[str, Any] | None]] = []
    found = stamps(catalogue.root, [e.path for e in catalogue.entries])
    for entry, stamp in zip(catalogue.entries, found, strict=True):
        row = current.get(entry.photo_id)
        failed = row is not None and row["chip_id"] is None
        if row is None or _differs(entry, catalogue.root, stamp, row) or (failed and retry_failed):
            seen = None if row is None else _picture(entry, catalogue.root, stamp, row)
            changed.append((entry, 0 if row is None else row["revision"] + 1, stamp, seen))
    return [
        IngestShard(catalogue.root, *(tuple(column) for column in zip(*part, strict=True)))
        for part in chunks(changed, size)
    ]


def _differs(entry: CatalogueEntry, root: str, stamp: str | None, row: Mapping[str, Any]) -> bool:
    if not row["present"] or row["root"] != root or row["stamp"] != stamp:
        return True
    if any(getattr(entry, field) != row[field] for field in _TEXT_FIELDS):
        return True
    return row["width"] is not None and _stored_box(entry, row) != row["box"]


def _stored_box(entry: CatalogueEntry, row: Mapping[str, Any]) -> list[float] | None:
    """What the column `box` holds of an entry, once the photo's size is known."""
    if entry.bad_box is not None:
        return _NO_BOX
    box = entry.box_in(row["width"], row["height"])
    return None if box is None else list(box)


def _picture(
    entry: CatalogueEntry, root: str, stamp: str | None, row: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What a row holds of the picture, where the entry means the same one, unchanged and without a failure."""
    same_file = stamp is not None and (row["root"], row["path"], row["stamp"]) == (root, entry.path, stamp)
    if not same_file or row["chip_id"] is None or row["theta"] != entry.theta:
        return None
    if _stored_box(entry, row) != row["box"]:
        return None
    return {name: row[name] for name in _OF_THE_PICTURE}


def ingest_shard(job: Job, shard: IngestShard) -> ShardResult:
    """Read, check and hash the photos of one shard and commit their rows."""
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    parts = (shard.entries, shard.revisions, shard.stamps, shard.seen)
    for entry, revision, stamp, seen in zip(*parts, strict=True):
        row = _row(entry, shard.root, revision, stamp)
        if seen is None:
            with or_failure(failures, "ingest", entry.photo_id, revision=revision):
                _read_photo(row, entry, job.settings.max_pixels)
        else:
            row.update(seen)
        rows.append(row)
    return commit(job, INGEST, shard.name, {"photos": rows}, {"photos": failures})


def _row(entry: CatalogueEntry, root: str, revision: int, stamp: str | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(PHOTOS.schema.names)
    row.update({field: getattr(entry, field) for field in _TEXT_FIELDS})
    row.update(photo_id=entry.photo_id, revision=revision, present=True, root=root, stamp=stamp)
    row["extra"] = pairs_of(entry.extra)
    return row


def _read_photo(row: dict[str, Any], entry: CatalogueEntry, max_pixels: int) -> None:
    """Fill in what the file tells; what was found before a `PhotoError` stays."""
    data = read_bytes(row["root"], row["path"])
    with spent_on("decoding"):
        _see_photo(row, entry, data, max_pixels)


def _see_photo(row: dict[str, Any], entry: CatalogueEntry, data: bytes, max_pixels: int) -> None:
    row.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    photo = decode_photo(data, max_pixels)
    row.update(height=photo.shape[0], width=photo.shape[1])
    row["box"] = _stored_box(entry, row)
    if entry.bad_box is not None:
        raise PhotoError(FailureCode.BAD_BOX, entry.bad_box)
    cut = cut_photo(photo, entry.box_in(row["width"], row["height"]), entry.theta)
    row["orientation_hashes"] = list(orientation_hashes(cut))
    row["perceptual_hash"] = row["orientation_hashes"][0]
    row["chip_id"] = chip_id(row["sha256"], row["box"], entry.theta)


def chip_id(sha256: str, box: Sequence[float] | None, theta: float) -> str:
    """What the model saw, as 20 hex digits: the file's bytes, the box and the rotation."""
    return shard_name([f"{sha256} {None if box is None else [float(v) for v in box]} {float(theta)}"])


def withdrawn_rows(
    current: Mapping[str, Mapping[str, Any]], catalogue: Catalogue
) -> Iterator[dict[str, Any]]:
    """Rows that withdraw the photos which the catalogue no longer lists."""
    listed = {e.photo_id for e in catalogue.entries}
    for photo_id, row in current.items():
        if photo_id not in listed and row["present"]:
            yield {**row, "revision": row["revision"] + 1, "present": False, "extra": pairs_of(row["extra"])}


def withdraw(job: Job, rows: Sequence[Mapping[str, Any]]) -> int:
    """Commit withdrawals; returns how many photos left the catalogue."""
    if not rows:
        return 0
    table = pa.Table.from_pylist([dict(r) for r in rows], schema=PHOTOS.schema)
    name = shard_name(f"{r['photo_id']}\0{r['revision']}" for r in rows)
    return commit(job, INGEST, name, {"photos": table}).rows


INGEST = Stage.of(stages.INGEST, ingest_shard, lambda shard: len(shard.entries), on_device=False)
