"""What the warehouse knows of neighbours: entries of some photos' lists, and what is stored already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.gallery import Gallery

_OF_SOME = """
    FROM run_neighbours AS n
    JOIN compared AS a ON a.photo_id = n.photo_a AND a.chip_id = n.chip_a
    JOIN compared AS b ON b.photo_id = n.photo_b AND b.chip_id = n.chip_b
    WHERE n.photo_a IN (SELECT photo_id FROM asked) OR n.photo_b IN (SELECT photo_id FROM asked)
"""


@dataclass(frozen=True, eq=False)
class Sides:
    """Entries of photos' lists: a photo, another one, and their cosine; gallery rows (M,)."""

    photo: NDArray[np.int64]
    other: NDArray[np.int64]
    cosine: NDArray[np.float32]

    def of(self, photos: NDArray[np.int64]) -> Sides:
        """Those of these photos alone."""
        kept = np.isin(self.photo, photos)
        return Sides(self.photo[kept], self.other[kept], self.cosine[kept])

    def turned(self) -> Sides:
        """The same as the other photo sees it."""
        return Sides(self.other, self.photo, self.cosine)

    def __add__(self, more: Sides) -> Sides:
        """Both, each entry once."""
        photo = np.concatenate([self.photo, more.photo])
        other = np.concatenate([self.other, more.other])
        cosine = np.concatenate([self.cosine, more.cosine])
        order = np.lexsort((other, photo))
        photo, other, cosine = photo[order], other[order], cosine[order]
        first = np.ones(len(photo), dtype=bool)
        first[1:] = (np.diff(photo) != 0) | (np.diff(other) != 0)
        return Sides(photo[first], other[first], cosine[first])


@contextmanager
def _compared(
    connection: duckdb.DuckDBPyConnection, gallery: Gallery, rows: NDArray[np.int64] | None
) -> Iterator[None]:
    """Tables `compared`, the gallery with its rows, and `asked`, some of its photos."""
    place = pa.array(np.arange(len(gallery)))
    compared = gallery.photos.select(["photo_id", "chip_id"]).append_column("place", place)
    connection.register("compared", compared)
    connection.register(
        "asked", compared.select(["photo_id"]).take(pa.array(rows if rows is not None else [], pa.int64()))
    )
    try:
        yield
    finally:
        connection.unregister("compared")
        connection.unregister("asked")


def stored_codes(
    connection: duckdb.DuckDBPyConnection, gallery: Gallery, rows: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Codes of the stored neighbours among a gallery's photos; with `rows`, of those with one of these.

    A pair's code is row a x number of photos + row b, for rows a < b.
    """
    source = _OF_SOME if rows is not None else _OF_SOME.partition("WHERE")[0]
    with _compared(connection, gallery, rows):
        found = connection.execute(
            f"SELECT a.place * $count + b.place AS code {source}",  # constants
            {"count": len(gallery)},
        ).fetchnumpy()["code"]
    return np.asarray(found, dtype=np.int64)


def stored_sides(connection: duckdb.DuckDBPyConnection, gallery: Gallery, rows: NDArray[np.int64]) -> Sides:
    """The entries of these photos' lists that are stored, each once."""
    with _compared(connection, gallery, rows):
        found = connection.execute(
            f"SELECT a.place AS a, b.place AS b, n.cosine AS cosine {_OF_SOME}"  # constants
        ).fetchnumpy()
    one = Sides(
        np.asarray(found["a"], np.int64),
        np.asarray(found["b"], np.int64),
        np.asarray(found["cosine"], np.float32),
    )
    return one.of(rows) + one.turned().of(rows)


def not_stored(connection: duckdb.DuckDBPyConnection, pair_ids: pa.Array) -> NDArray[np.bool_]:
    """Which of these pairs were never stored under this run's settings."""
    wanted = pa.table({"pair_id": pair_ids, "place": pa.array(np.arange(len(pair_ids)))})
    connection.register("wanted", wanted)
    found = connection.execute(
        "SELECT place FROM wanted ANTI JOIN (SELECT pair_id FROM run_pairs) USING (pair_id)"
    ).fetchnumpy()["place"]
    connection.unregister("wanted")
    new = np.zeros(len(pair_ids), dtype=bool)
    new[np.asarray(found, dtype=np.int64)] = True
    return new
