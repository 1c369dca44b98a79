from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import MAX_PIXELS, ChipSpec, chip_of, cut_photo, decode_photo, view_of
from tasks import photo_files
from tasks.photo_files import ViewCache, read_bytes, read_cut, stamps
from tests.poison import encoded

SPEC = ChipSpec((16, 20))


def row(root: Path, name: str, chip: str, box: list[float] | None = None) -> dict[str, Any]:
    data = (root / name).read_bytes()
    sha = hashlib.sha256(data).hexdigest()
    return {"root": str(root), "path": name, "sha256": sha, "chip_id": chip, "box": box, "theta": 0.0}


def touch(path: Path, at: int) -> None:
    os.utime(path, (at, at))


@pytest.mark.parametrize(
    ("path", "code"),
    [("nothing.jpg", "missing_file"), ("folder", "unreadable_file"), ("../out.jpg", "path_outside_root")],
)
def test_what_cannot_be_read_has_a_code(tmp_path: Path, path: str, code: str) -> None:
    (tmp_path / "root" / "folder").mkdir(parents=True)
    (tmp_path / "out.jpg").write_bytes(b"secret")
    with pytest.raises(PhotoError) as caught:
        read_bytes(str(tmp_path / "root"), path)
    assert caught.value.code == code


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "out.jpg").write_bytes(b"secret")
    (tmp_path / "root" / "in.jpg").symlink_to("../out.jpg")
    with pytest.raises(PhotoError) as caught:
        read_bytes(str(tmp_path / "root"), "in.jpg")
    assert caught.value.code == "path_outside_root"


def test_names_are_taken_literally(tmp_path: Path) -> None:
    for name in ("a b#1 [x]*?.jpg", "50%20off.jpg", "ü🦁.jpg"):
        (tmp_path / name).write_bytes(name.encode())
        assert read_bytes(str(tmp_path), name) == name.encode()


def test_stamps_change_with_size_and_time_and_are_none_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "folder").mkdir()
    touch(tmp_path / "a", 1_000_000)
    names = ["a", "folder", "missing"]
    first, folder, missing = stamps(str(tmp_path), names)
    assert (folder, missing) == (None, None)
    assert stamps(str(tmp_path), ["a"]) == [first]
    touch(tmp_path / "a", 1_000_001)
    later = stamps(str(tmp_path), ["a"])[0]
    (tmp_path / "a").write_bytes(b"123")
    touch(tmp_path / "a", 1_000_001)
    longer = stamps(str(tmp_path), ["a"])[0]
    assert len({first, later, longer}) == 3


def test_stamps_see_through_links(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"12")
    (tmp_path / "a").symlink_to("store")
    touch(tmp_path / "store", 1_000_000)
    first = stamps(str(tmp_path), ["a"])
    (tmp_path / "store").write_bytes(b"34")
    touch(tmp_path / "store", 1_000_001)
    assert stamps(str(tmp_path), ["a"]) != first


def test_stamps_of_a_store_come_from_one_listing() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/stamped/deep/a.jpg", b"12")
    (first, missing) = stamps("memory://stamped", ["deep/a.jpg", "deep/b.jpg"])
    assert first is not None
    assert missing is None
    memory.pipe("/stamped/deep/a.jpg", b"1234")
    assert stamps("memory://stamped", ["deep/a.jpg"]) != [first]
    assert read_bytes("memory://stamped", "deep/a.jpg") == b"1234"


def test_views_are_those_of_the_cut_and_kept(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    cache, photo = ViewCache(), row(tmp_path, "a.png", "c", [10.0, 5.0, 30.0, 20.0])
    cut = cut_photo(decode_photo(encoded("PNG")), (10, 5, 30, 20))
    np.testing.assert_array_equal(read_cut(photo, MAX_PIXELS), cut)
    for again in range(2):
        found = cache.views(photo, MAX_PIXELS, SPEC, 24)
        assert found.cut_size == (30, 20)
        np.testing.assert_array_equal(found.pictures[0], chip_of(cut, SPEC))
        np.testing.assert_array_equal(found.pictures[1], view_of(cut, 24))
        if not again:
            (tmp_path / "a.png").unlink()
    np.testing.assert_array_equal(cache.chip(photo, MAX_PIXELS, SPEC), chip_of(cut, SPEC))
    with pytest.raises(PhotoError, match=r"no file at a\.png"):
        cache.views(photo, MAX_PIXELS, SPEC, 25)


def test_a_photo_is_decoded_once_for_all_that_is_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(encoded("PNG"))
    decoded = []
    monkeypatch.setattr(
        photo_files, "decode_photo", lambda *given: (decoded.append(1), decode_photo(*given))[1]
    )
    ViewCache(0).views(row(tmp_path, "a", "a"), MAX_PIXELS, SPEC, 24, 30)
    assert len(decoded) == 1


def test_the_least_recently_used_views_go_first(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(encoded("PNG"))
    a, b, c = (row(tmp_path, name, name) for name in "abc")
    cache = ViewCache(2 * view_of(decode_photo(encoded("PNG")), 24).nbytes)
    for photo in (a, b, a, c):
        cache.views(photo, MAX_PIXELS, 24)
    for name in "abc":
        (tmp_path / name).unlink()
    cache.views(a, MAX_PIXELS, 24)
    cache.views(c, MAX_PIXELS, 24)
    with pytest.raises(PhotoError, match="no file at b"):
        cache.views(b, MAX_PIXELS, 24)


def test_a_view_larger_than_the_limit_is_served_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(encoded("PNG"))
    cache, photo = ViewCache(1), row(tmp_path, "a", "a")
    assert cache.views(photo, MAX_PIXELS, 24).pictures[0].shape[1] == 24
    (tmp_path / "a").unlink()
    with pytest.raises(PhotoError, match="no file at a"):
        cache.views(photo, MAX_PIXELS, 24)


def test_other_bytes_than_those_ingested_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(encoded("PNG"))
    photo = row(tmp_path, "a", "a")
    (tmp_path / "a").write_bytes(encoded("PNG", "L"))
    with pytest.raises(PhotoError) as caught:
        read_cut(photo, MAX_PIXELS)
    assert caught.value.code == "changed_file"
