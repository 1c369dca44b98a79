"""The warehouse: one Parquet file per shard, whole or absent, in a folder or an object store.

``TABLE/fingerprint=F/SHARD.parquet``. A shard's name is a hash of its input ids and its bytes follow from its
rows, so a rerun finds what is done, and a racing twin writes the same file again. The file is the commit:
there is no manifest.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from schemas.errors import NoWarehouse, WarehouseError, did_you_mean
from schemas.storage import Storage, storage_at
from schemas.storage_errors import refuse_secrets
from schemas.tables.registry import TABLES
from schemas.views.install import install_stored_views
from schemas.views.snapshots import SNAPSHOTS, snapshot_folder
from tasks.store.cached_files import CachedFiles
from tasks.store.inventory import NAME, Inventory, addresses, committed
from tasks.store.shard_files import (
    SUFFIX,
    TEMPORARY,
    Rows,
    create_in_place,
    damaged,
    encode,
    put_in_place,
    typed_rows,
)
from tasks.store.versions import check_version, refuse_newer
from tasks.store.written import wrote

_ID_BYTES = 10
_DAY = 86_400.0
_READERS = 8
REPLACED = ("failures", "suspects")
"""Tables in which a later run writes shards anew with other rows: what failed, what was suspect."""


def _hash(texts: Iterable[str]) -> str:
    """20 hex digits of BLAKE2b over the texts with their lengths, so that no two lists run together."""
    state = blake2b(digest_size=_ID_BYTES)
    for text in texts:
        data = text.encode()
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()


def shard_name(ids: Iterable[str]) -> str:
    """Name of the shard that is computed from these ids, in any order."""
    return _hash(sorted(ids))


def pair_id(photo_a: str, chip_a: str, photo_b: str, chip_b: str) -> str:
    """Id of an unordered pair of photos as the model saw them: the same for (a, b) and (b, a)."""
    return _hash(text for side in sorted([(photo_a, chip_a), (photo_b, chip_b)]) for text in side)


@dataclass(frozen=True)
class Warehouse:
    """A warehouse at a path or fsspec URL; holds nothing but the URL, so it travels to workers.

    Local paths are made absolute, so that a worker with another current folder finds the same warehouse.
    Raises `NoStorage` when no file system is installed for the URL's protocol, and for a URL that carries a
    password or a query.
    """

    url: str

    def __post_init__(self) -> None:
        refuse_secrets(self.url)
        if self.is_local:
            object.__setattr__(self, "url", self.root)

    @property
    def storage(self) -> Storage:
        """Where the files lie."""
        return storage_at(self.url)

    @property
    def filesystem(self) -> AbstractFileSystem:
        """The fsspec file system of the URL."""
        return self.storage.filesystem

    @property
    def root(self) -> str:
        """The warehouse's folder as `filesystem` names it, without a slash at its end."""
        return self.storage.root

    @property
    def is_local(self) -> bool:
        """Whether the warehouse is a folder of this machine."""
        return self.storage.is_local

    def shard_path(self, table: str, fingerprint: str, shard: str) -> str:
        """Path of a shard below the warehouse's root.

        Raises `WarehouseError` for an unknown table, and for a fingerprint or shard outside [a-z0-9_-].
        """
        return f"{_partition(table, fingerprint)}/{_checked('shard', shard)}{SUFFIX}"

    def require(self, versions: bool = True) -> None:
        """Raise `NoWarehouse` unless some table holds a committed file.

        Raises `NewerWarehouse` where a newer program has been at work, unless the caller looks at
        versions itself, and `NoStorage` where the store refuses to tell.
        """
        # A store has no empty folders.
        there = any(map(self.files, TABLES)) if self.is_local else TABLES.keys() & self.storage.probe()
        if not there:
            raise NoWarehouse(self.url, self._near())
        if versions:
            self.require_readable()

    def prepare(self) -> int:
        """Check that a run can write here, and remove half-written files of killed runs.

        Only files older than a day are removed; returns their number. Makes no folder: the first
        shard does, so a run that is refused leaves nothing behind. Raises `WarehouseError` when the
        folder cannot be made or written to, `NewerWarehouse` when a newer program has been at work,
        `NoStorage` when the store cannot be reached or refuses us.
        """
        if not self.is_local:
            self.storage.probe(f"{self.root}/probe")
            self.require_readable()
            return 0
        root = Path(self.root)
        try:
            nearest = next(p for p in (root, *root.parents) if p.exists())
        except OSError as error:
            raise WarehouseError(
                f"the warehouse folder {root} cannot be made: {error}", "choose another folder"
            ) from error
        if not nearest.is_dir():
            raise WarehouseError(
                f"the warehouse folder {root} cannot be made: {nearest} is no folder", "choose another folder"
            )
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise WarehouseError(
                f"no permission to write in {nearest} for the warehouse {root}", "choose another folder"
            )
        self.require_readable()
        old = [p for p in root.glob(f"*/*/.*{TEMPORARY}") if _age(p) > _DAY]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def require_readable(self) -> None:
        """Raise `NewerWarehouse` where a newer program has been at work; an empty place is readable."""
        refuse_newer(self.storage, committed(self.storage, ["runs"])["runs"])

    def _near(self) -> str:
        """Words that name a warehouse of nearly the same name in the same folder, or none."""
        if not self.is_local:
            return ""
        place = Path(self.root)
        with suppress(OSError):
            return did_you_mean(
                place.name, [p.parent.name for p in place.parent.glob("*/runs") if p.is_dir()]
            )
        return ""

    def exists(self, table: str, fingerprint: str, shard: str) -> bool:
        """Whether the shard is committed."""
        path = f"{self.root}/{self.shard_path(table, fingerprint, shard)}"
        if self.is_local:
            return Path(path).exists()
        try:
            self.storage.get(
                path, 0, 1
            )  # many clients ask twice, and list a folder, before they say that a file is not there
        except FileNotFoundError:
            return False
        return True

    def shards(self, table: str, fingerprint: str) -> set[str]:
        """Names of all committed shards of a partition, by one listing."""
        return {PurePosixPath(path).stem for path in self._partition_files(table, fingerprint)}

    def write(self, table: str, fingerprint: str, shard: str, rows: Rows) -> int:
        """Commit a shard and return its number of rows; 0 is valid and marks the shard as done.

        The rows are cast to the table's schema and keep their order; the same rows give the same
        bytes. Columns that may be null can be left out. Raises `WarehouseError` for an unknown
        column, a value that does not fit, a null where none may be, and a key that occurs twice.
        """
        path = self.shard_path(table, fingerprint, shard)
        typed = typed_rows(TABLES[table], rows)
        data = encode(TABLES[table], fingerprint, typed)
        if self.is_local:
            put_in_place(Path(self.root, path), data)
        else:
            self.storage.put(f"{self.root}/{path}", data)
        wrote(path, data)
        return int(typed.num_rows)

    def read(
        self,
        table: str,
        fingerprint: str,
        shards: Iterable[str] | None = None,
        columns: Sequence[str] | None = None,
        photos: Collection[str] | None = None,
    ) -> pa.Table:
        """Rows of some or all shards of a partition, in order of shard names.

        With `photos` only the rows of those photos. Columns that are newer than a file are null.
        Raises `WarehouseError` for a shard that is not committed, a damaged file, and a file of a
        newer schema version.
        """
        names = sorted(self.shards(table, fingerprint) if shards is None else set(shards))
        paths = [f"{self.root}/{self.shard_path(table, fingerprint, name)}" for name in names]
        schema = TABLES[table].schema
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        with ThreadPoolExecutor(_READERS) as pool:
            parts = list(pool.map(lambda path: self._read_file(path, wanted, photos), paths))
        empty = wanted.empty_table()
        return pa.concat_tables([empty, *parts], promote_options="permissive") if parts else empty

    def write_file(self, path: str, data: bytes) -> str:
        """Put a file that is no table, such as a report, below the root, whole or not at all.

        Returns its address.
        """
        place = f"{self.root}/{path}"
        if self.is_local:
            put_in_place(Path(place), data)
        else:
            self.storage.put(place, data)
        wrote(path, data)
        return self.storage.address(place)

    def create_file(self, path: str, data: bytes) -> bool:
        """Put a file below the root only where there is none; returns whether it was made.

        Of two callers one succeeds. They must put different bytes: where the file has the same bytes,
        it may come from this very call, whose answer the store lost.
        """
        place = f"{self.root}/{path}"
        return create_in_place(Path(place), data) if self.is_local else self.storage.create(place, data)

    def files(self, table: str, fingerprint: str | None = None) -> list[str]:
        """Committed files of a table or of one of its partitions, sorted, as DuckDB opens them."""
        found = (
            committed(self.storage, [table])[table]
            if fingerprint is None
            else self._partition_files(table, fingerprint)
        )
        return addresses(self.storage, found)

    def _partition_files(self, table: str, fingerprint: str) -> list[str]:
        listed = self.storage.find(f"{self.root}/{_partition(table, fingerprint)}", sizes=False)
        paths = sorted(path for path in listed if path.endswith(SUFFIX))
        return [path for path in paths if NAME.fullmatch(PurePosixPath(path).stem)]

    def snapshots(self) -> list[str]:
        """Names of all snapshots, whole or not, sorted."""
        folders = (name.partition("=") for name in self.storage.names(f"{self.root}/{SNAPSHOTS}"))
        return sorted(name for kind, _, name in folders if kind == "snapshot" and NAME.fullmatch(name))

    def snapshot(self, name: str) -> list[str]:
        """All files in a snapshot's folder, sorted, as DuckDB opens them.

        `schemas.views.snapshots` tells whether the snapshot is whole.
        """
        found = self.storage.find(f"{self.root}/{snapshot_folder(_checked('snapshot', name))}", sizes=False)
        return addresses(self.storage, sorted(path for path in found if path.endswith(SUFFIX)))

    def inventory(self) -> Inventory:
        """A look at all files, for views to read."""
        return Inventory(self.storage)

    def locations(self) -> list[str]:
        """Folders that a locked DuckDB connection must be allowed to read."""
        return [
            f"{place}/" for place in {self.storage.address(self.root), *addresses(self.storage, [self.root])}
        ]

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A new in-memory DuckDB connection with the views ``all_TABLE`` over every committed row."""
        connection = duckdb.connect(":memory:")
        install_stored_views(connection, self)
        return connection

    def _read_file(self, path: str, columns: pa.Schema, photos: Collection[str] | None) -> pa.Table:
        # Row groups of heavy tables hold a few photos each; the filter skips the others by their statistics.
        wanted = None if photos is None else pc.field("photo_id").isin(sorted(photos))
        try:
            with self.opened(path, whole=photos is None) as stream:
                stored = pq.read_schema(stream)
                check_version(path, stored.metadata or {})
                stream.seek(0)
                # A file may be older than a column that may be null.
                names = [f.name for f in columns if f.name in stored.names or not f.nullable]
                found = pq.read_table(stream, columns=names, filters=wanted, page_checksum_verification=True)
                return found.replace_schema_metadata(None)
        except FileNotFoundError as error:
            raise WarehouseError(f"no shard at {path}", "run again: missing shards are computed") from error
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error

    def opened(self, path: str, whole: bool = False) -> IO[bytes] | io.RawIOBase:
        """A file at a path of `filesystem`, open for reading: in ranges, or `whole` by one request."""
        if self.is_local:
            return open(path, "rb")
        return io.BytesIO(self.storage.get(path)) if whole else CachedFiles(self.storage).open(path)


def is_name(text: str) -> bool:
    """Whether a text may name a fingerprint, a shard or a snapshot."""
    return NAME.fullmatch(text) is not None


def _checked(what: str, name: str) -> str:
    if not is_name(name):
        raise WarehouseError(f"{what} {name!r} is not a name", "use lower-case letters, digits, - and _ only")
    return name


def _partition(table: str, fingerprint: str) -> str:
    if table not in TABLES:
        raise WarehouseError(f"there is no table {table!r}", f"tables are {', '.join(TABLES)}")
    return f"{table}/fingerprint={_checked('fingerprint', fingerprint)}"


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
