"""Which photos look at all others tonight.

A photo that is new, or of which something changed that decides pairings, looks at all; and so does one that may
have lost an entry of its list: it had a photo in it that is gone or has changed, and what is left of the list no
longer reaches its horizon. All others only take in what is new and comes before their horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.settings import Settings
from tasks.gallery import Gallery, kept_gallery
from tasks.job import Job
from tasks.retrieval.found import RetrieveShard
from tasks.retrieval.horizons import Horizons, can_reach_on, carried, horizons_name, read_horizons
from tasks.retrieval.known import Sides, stored_sides
from tasks.retrieval.rules import search_rules

QUERIES_PER_TASK = 8192
_TOO_MANY = 2
"""Where more than one photo in so many would look, all do: it costs no more, and renews all horizons."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What is searched for in a gallery's state.

    `rows` are the photos that look. With a `base`, the state whose horizons count for the others, `disturbed`
    are those others whose lists lost an entry, and `horizons` are the base's, for this gallery.
    """

    gallery: Gallery
    rows: NDArray[np.int64]
    base: str | None = None
    disturbed: NDArray[np.int64] | None = None
    horizons: Horizons | None = None

    def shards(self) -> list[RetrieveShard]:
        """Even parts of the queries, few enough that reading the gallery once per part stays cheap."""
        parts = max(1, -(-len(self.rows) // QUERIES_PER_TASK))
        edges = np.linspace(0, len(self.rows), parts + 1).astype(int)
        state = self.gallery.state
        if self.base is None:
            return [RetrieveShard(state, int(a), int(b)) for a, b in pairwise(edges) if b > a]
        rows = self.rows.astype(np.int32)
        return [
            RetrieveShard(state, int(a), int(b), self.base, rows[a:b]) for a, b in pairwise(edges) if b > a
        ]


def ask_all(gallery: Gallery) -> Asked:
    """Every photo looks at all others."""
    return Asked(gallery, np.arange(len(gallery)))


def ask_what_is_new(
    job: Job, connection: duckdb.DuckDBPyConnection, gallery: Gallery, base: str | None
) -> Asked:
    """What has to be asked where all lists of the state `base` are stored; all where there is no base.

    `connection` shows `run_neighbours`. Nothing may be missing there that was stored for the base.
    """
    if base is None or not _usable(job, base):
        return ask_all(gallery)
    before = kept_gallery(job.warehouse, job.prints.of("galleries"), base)
    here = before.places_of(gallery)
    same = here >= 0
    for column in _deciding(job.settings):
        same &= _equal(gallery.photos[column], before.photos[column], here)
    fresh = np.flatnonzero(~same)
    if len(fresh) * _TOO_MANY > len(gallery):
        return ask_all(gallery)
    horizons = carried(read_horizons(job, base, before), before, gallery)
    left = np.setdiff1d(np.arange(len(before)), here[same])
    shaken = _partners(connection, gallery, before, left, same)
    again = _short(stored_sides(connection, gallery, shaken), shaken, horizons, gallery, job.settings)
    rows = np.union1d(fresh, again)
    if len(rows) * _TOO_MANY > len(gallery):
        return ask_all(gallery)
    return Asked(gallery, rows, base, np.setdiff1d(shaken, again), horizons)


def _usable(job: Job, base: str) -> bool:
    return (
        can_reach_on(job.settings)
        and job.warehouse.exists("galleries", job.prints.of("galleries"), base)
        and job.warehouse.exists("horizons", job.prints.pairs, horizons_name(base, job.settings))
    )


def _deciding(settings: Settings) -> list[str]:
    """Columns of a gallery, beside ids, that decide which photos may be paired."""
    wanted = {"species": settings.same_species, "viewpoint": settings.same_viewpoint}
    return ["identity", "encounter", *(name for name, counts in wanted.items() if counts)]


def _equal(now: pa.ChunkedArray, before: pa.ChunkedArray, here: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a value is as it was; nothing is equal to nothing. Photos that were not there (-1) differ."""
    then = before.take(pa.array(here, mask=here < 0))
    both = pc.and_(pc.is_null(now), pc.is_null(then))
    equal = pc.or_(pc.fill_null(pc.equal(now, then), False), both)
    same: NDArray[np.bool_] = equal.to_numpy() & (here >= 0)
    return same


def _partners(
    connection: duckdb.DuckDBPyConnection,
    gallery: Gallery,
    before: Gallery,
    left: NDArray[np.int64],
    same: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Unchanged photos of the gallery with a stored entry of a photo that is gone or has changed."""
    if not len(left):
        return left
    old = stored_sides(connection, before, left)
    others = np.unique(old.other)
    rows = gallery.places_of(before)[others]
    rows = rows[rows >= 0]
    return np.sort(rows[same[rows]])


def _short(
    sides: Sides, photos: NDArray[np.int64], horizons: Horizons, gallery: Gallery, settings: Settings
) -> NDArray[np.int64]:
    """Photos of whose list, by some rule, too few entries are left up to the horizon."""
    short = np.zeros(len(gallery), dtype=bool)
    for name, (rule, k) in search_rules(settings).items():
        horizon = horizons[name]
        counted = rule.admits(gallery.keys, sides.photo, sides.other)
        counted &= horizon.before(sides.photo, sides.other, sides.cosine)
        found = np.bincount(sides.photo[counted], minlength=len(gallery))
        short |= np.isfinite(horizon.cosine) & (found < k)
    return photos[short[photos]]
