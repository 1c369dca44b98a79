from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from schemas.storage import Storage, Stored, storage_at
from tasks.store import cached_files
from tasks.store.cached_files import CachedFiles
from tasks.store.inventory import Followed
from tasks.store.written import Written


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A store whose files of 100 bytes count as large, and which notes what is asked of it."""
    MemoryFileSystem.store.clear()
    for name, value in (("WHOLE", 40), ("END", 10), ("BLOCK", 16)):
        monkeypatch.setattr(cached_files, name, value)
    return storage_at("memory://cached/w")


@pytest.mark.parametrize("most", [0, 30, 1000])
@pytest.mark.parametrize("size", [1, 39, 40, 41, 100])
@pytest.mark.parametrize("listed", [True, False])
def test_whatever_is_read_is_what_was_written(storage: Storage, size: int, listed: bool, most: int) -> None:
    path, data = f"{storage.root}/f", bytes(range(size))
    storage.put(path, data)
    files = CachedFiles(storage)
    files.most_kept = most
    if listed:
        files.expect(storage.find(storage.root))
    draw = random.Random(size)
    with files.open(f"memory:/{path}") as file:
        for _ in range(200):
            start, length = draw.randrange(size + 3), draw.randrange(size + 3)
            file.seek(start)
            assert file.read(length) == data[start : start + length]
    assert files.info(path)["size"] == size


def test_small_ranges_of_a_large_file_are_asked_for_together(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{storage.root}/f"
    storage.put(path, bytes(100))
    asked: list[tuple[int, int | None]] = []
    get = Storage.get

    def noting(self: Storage, path: str, start: int = 0, end: int | None = None) -> bytes:
        asked.append((start, end))
        return get(self, path, start, end)

    monkeypatch.setattr(Storage, "get", noting)
    files = CachedFiles(storage)
    files.expect(storage.find(storage.root))
    files.fetch([path])
    for start in range(0, 95, 5):
        files.read(path, start, start + 5)
    assert asked == [(90, None), (0, 16), (16, 32), (32, 48), (48, 64), (64, 80), (80, 96)]


def test_a_file_that_was_replaced_is_read_anew(storage: Storage) -> None:
    path = f"{storage.root}/f"
    storage.put(path, b"old")
    files = CachedFiles(storage)
    files.expect({path: Stored(3, "ETag:1")})
    before = files.modified(path)
    assert files.read(path, 0, 3) == b"old"
    storage.put(path, b"new")
    files.expect({path: Stored(3, "ETag:1")})
    assert files.read(path, 0, 3) == b"old"
    files.expect({path: Stored(3, "digest:of the same, for all we know")})
    assert files.read(path, 0, 3) == b"old"
    files.expect({path: Stored(3, "digest:of another")})
    assert files.read(path, 0, 3) == b"new"
    assert files.modified(path) != before


def test_what_a_run_writes_anew_is_read_anew(storage: Storage) -> None:
    path = f"{storage.root}/failures/fingerprint=f/s.parquet"
    storage.put(path, b"old")
    look = Followed(storage)
    files = look.files(["failures"])["failures"]
    assert look._cache is not None
    assert look._cache.read(path, 0, 3) == b"old"
    storage.put(path, b"new")
    look.hear(Written("failures/fingerprint=f/s.parquet", 3, "digest"))
    assert look.news() == {"failures"}
    assert look.files(["failures"])["failures"] == files
    assert look._cache.read(path, 0, 3) == b"new"
