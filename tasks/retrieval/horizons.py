"""Horizons: how far each photo's stored lists reach in one state of the catalogue.

A photo's horizon by a rule is the last of the entries that were searched for. Whatever was admissible then and
lies nearer is stored, so a later night asks only whether new photos come before it. A photo without a horizon
had fewer admissible partners than were searched for: all of them are stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.settings import Settings
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.retrieval.found import Retrieved
from tasks.retrieval.rules import pair_rules, search_rules


@dataclass(frozen=True, eq=False)
class Horizon:
    """By one rule, for each photo of a gallery (N,): cosine and row of the last entry.

    -inf and -1 without one. Entries are ordered by falling cosine, then by rising row.
    """

    cosine: NDArray[np.float32]
    last: NDArray[np.int64]

    def before(
        self, photo: NDArray[np.int64], other: NDArray[np.int64], cosine: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Which entries of photos' lists come no later than the horizon."""
        floor = self.cosine[photo]
        nearer: NDArray[np.bool_] = (cosine > floor) | ((cosine == floor) & (other <= self.last[photo]))
        return nearer


Horizons = dict[str, Horizon]


def horizons_name(state: str, settings: Settings) -> str:
    """Name of the file of a state: lists of another length reach further."""
    return f"{state}-{settings.neighbours}"


def can_reach_on(settings: Settings) -> bool:
    """Whether enough neighbours are stored for later nights to build on: at least as many as are paired."""
    return settings.neighbours >= max(k for _, k in pair_rules(settings).values()) > 0


def no_horizons(settings: Settings, count: int) -> Horizons:
    """Those of photos whose lists hold everything."""
    return {
        name: Horizon(np.full(count, -np.inf, np.float32), np.full(count, -1, np.int64))
        for name in search_rules(settings)
    }


def read_horizons(job: Job, state: str, gallery: Gallery) -> Horizons:
    """The horizons that are kept for a state; `gallery` is that state's."""
    name = horizons_name(state, job.settings)
    table = job.warehouse.read("horizons", job.prints.pairs, [name])
    found = no_horizons(job.settings, len(gallery))
    for rule, horizon in found.items():
        rows = table.filter(pc.equal(table["rule"], rule))
        at = rows["photo"].to_numpy()
        horizon.cosine[at], horizon.last[at] = rows["cosine"].to_numpy(), rows["last"].to_numpy()
    return found


def carried(old: Horizons, before: Gallery, now: Gallery) -> Horizons:
    """Horizons of an earlier gallery for the photos of a later one; without one for photos that it lacked.

    What is stored of a photo only grows, so its horizon stays true. The last entry may be gone: then the
    row is that of the last photo with a lower id.
    """
    from_row = before.places_of(now)
    known = from_row >= 0
    # Ids are sorted in both: the number of later ids up to an earlier one gives its row, or that before it.
    ends = np.searchsorted(now.photo_id_array, before.photo_id_array, side="right") - 1
    moved = {}
    for rule, horizon in old.items():
        cosine = np.full(len(now), -np.inf, np.float32)
        last = np.full(len(now), -1, np.int64)
        cosine[known] = horizon.cosine[from_row[known]]
        place = horizon.last[from_row[known]]
        last[known] = np.where(place >= 0, ends[np.maximum(place, 0)], -1)
        moved[rule] = Horizon(cosine, last)
    return moved


def take_in(
    horizons: Horizons, found: Iterable[Retrieved], asked: NDArray[np.int64], settings: Settings
) -> None:
    """Set the horizons of the photos that were asked to what was found."""
    for number, (rule, (_, k)) in enumerate(search_rules(settings).items()):
        horizon = horizons[rule]
        horizon.cosine[asked], horizon.last[asked] = -np.inf, -1
        for part in found:
            end = (part.rule == number) & (part.place == k)
            horizon.cosine[part.query[end]] = part.cosine[end]
            horizon.last[part.query[end]] = part.neighbour[end]


def horizon_rows(horizons: Horizons) -> pa.Table:
    """Rows of the table `horizons`."""
    parts = []
    for rule, horizon in horizons.items():
        at = np.flatnonzero(np.isfinite(horizon.cosine))
        parts.append(
            pa.table(
                {
                    "photo": pa.array(at.astype(np.int32)),
                    "rule": pa.array([rule] * len(at), pa.string()),
                    "cosine": pa.array(horizon.cosine[at]),
                    "last": pa.array(horizon.last[at].astype(np.int32)),
                }
            )
        )
    return pa.concat_tables(parts)
