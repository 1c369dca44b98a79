"""Checks snapshots: what their files must be, and whether they show what the shards show."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import duckdb
import pyarrow as pa

from schemas.sql.files import view_files
from schemas.views.graph import ViewGraph
from schemas.views.install import NoFiles, Views, install_views
from schemas.views.snapshots import definition, snapshot_views, view_of_file, whole_snapshot
from tasks.check.damage import MOVE_AND_RUN, Damage
from tasks.check.listing import StoredFile
from tasks.check.one_file import Expected
from tasks.check.sound import Sound
from tasks.store.shard_files import snapshot_footer_of

_COUNTED = ("photos", "pairs", "failures")
"""Views in which the sums of a run are counted."""


class SnapshotPlaces:
    """Says what a snapshot's file must be by its place; its columns only if this program's views made it.

    The views are asked for once, when the first such file comes.
    """

    def __call__(self, file: StoredFile) -> Expected:
        """What the file must be."""
        view, name = view_of_file(file.path) or "", file.partition
        schema = self._schemas.get(view) if name.partition("-")[0] == self._definition else None
        return Expected(
            lambda rows: snapshot_footer_of(view, name, rows),
            schema,
            snapshot_views().get(view, ()),
            exactly=True,
        )

    @cached_property
    def _definition(self) -> str:
        return definition(ViewGraph(view_files()))

    @cached_property
    def _schemas(self) -> dict[str, pa.Schema]:
        """View -> columns of its files in a snapshot that this program makes."""
        with duckdb.connect(":memory:") as connection:
            install_views(connection, NoFiles(), wanted=snapshot_views())
            return {name: connection.sql(f"FROM {name}").to_arrow_table().schema for name in snapshot_views()}


def views_of_newest_run(connection: duckdb.DuckDBPyConnection, sound: Sound) -> Views | None:
    """The views of the newest finished run in the connection, read from its shards; None without a run."""
    views = Views(connection, sound)
    views.refresh(wanted=())
    current = connection.sql("FROM current_run").to_arrow_table().to_pylist()
    if not current:
        return None
    views.refresh(
        current[0] | {"snapshot": None}, materialise=_COUNTED, wanted=(*_COUNTED, *snapshot_views())
    )
    return views


def not_what_shards_show(
    connection: duckdb.DuckDBPyConnection, sound: Sound, views: Views, name: str
) -> Iterator[Damage]:
    """Views whose snapshot `name` has other rows than the shards.

    Nothing is found unless the snapshot was made of just the shards that are there. `views` are those of
    the run that made it, read from the shards, in the connection.
    """
    if views.snapshot_name() != name:
        return
    for view, files in whole_snapshot(sound.snapshot(name)).items():
        connection.from_parquet(files, hive_partitioning=False).create_view("kept", replace=True)
        other = connection.sql(
            f"SELECT count(*) FROM ((FROM kept EXCEPT ALL FROM {view}) UNION ALL (FROM {view} EXCEPT ALL FROM kept))"  # noqa: S608
        ).fetchall()[0][0]
        if other:
            kept = [f for f in sound.listing.snapshots if f.partition == name]
            paths = tuple(f.path for f in kept if view_of_file(f.path) == view)
            yield Damage(
                "snapshot at odds",
                paths[0],
                f"{other} rows of the view {view} differ between this snapshot and the shards that it was made of: one of them "
                "was changed after the run",
                f"if no shard is named here as well: {MOVE_AND_RUN}",
                paths,
            )
