"""Absolute paths: below the root, and of another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.catalogue.reading import Reading
from schemas.errors import CatalogueError


def read(folder: Path, paths: list[str], prefix: str | None = None, root: str | None = None) -> Catalogue:
    source = folder / "c.csv"
    source.write_text(
        "\n".join(["image_id,identity,path", *(f"{i:03d},x,{p}" for i, p in enumerate(paths))]) + "\n"
    )
    return read_catalogue(str(source), root, Reading(strip_prefix=prefix))


def refused(*args: object) -> list[tuple[str, str, str, str]]:
    with pytest.raises(CatalogueError) as error:
        read(*args)  # type: ignore[arg-type]
    return [(p.kind, p.where, p.what, p.cure) for p in error.value.problems]


def test_paths_below_the_root_become_relative(tmp_path: Path) -> None:
    catalogue = read(tmp_path, [f"{tmp_path}/a/1.jpg", "b/2.jpg", f"file://{tmp_path}/3.jpg"])
    assert [e.path for e in catalogue.entries] == ["a/1.jpg", "b/2.jpg", "3.jpg"]
    assert "absolute paths below the root, read as relative to it: 2" in catalogue.warnings
    url = read(tmp_path, ["s3://bucket/herd/a.jpg", "b.jpg"], None, "s3://bucket/herd")
    assert [e.path for e in url.entries] == ["a.jpg", "b.jpg"]
    assert refused(tmp_path, [f"{tmp_path}-other/1.jpg"])[0][0] == "path outside root"
    assert refused(tmp_path, [f"{tmp_path}/../1.jpg"])[0][0] == "path outside root"


@pytest.mark.parametrize(
    ("prefix", "paths"),
    [
        ("/data/photos", ["/data/photos/a/1.jpg", "/data/photos//2.jpg", "3.jpg"]),
        ("/data/photos/", ["/data/photos/a/1.jpg", "/data/photos/2.jpg", "3.jpg"]),
        (r"C:\photos", [r"C:\photos\a\1.jpg", "c:/Photos/2.jpg", "3.jpg"]),
        (r"\\server\share", [r"\\server\share\a\1.jpg", "//SERVER/share/2.jpg", "3.jpg"]),
    ],
)
def test_a_prefix_is_taken_off(tmp_path: Path, prefix: str, paths: list[str]) -> None:
    catalogue = read(tmp_path, paths, prefix)
    assert [e.path for e in catalogue.entries] == ["a/1.jpg", "2.jpg", "3.jpg"]
    assert f"paths without the prefix {prefix}: 2 of 3" in catalogue.warnings


def test_a_prefix_lets_nothing_out_of_the_root(tmp_path: Path) -> None:
    assert refused(tmp_path, ["/data/photos/../../x.jpg", "/data/photos/~/y.jpg"], "/data/photos") == [
        (
            "path outside root",
            "row 2, column path",
            "path '../../x.jpg' contains ..",
            refused(tmp_path, ["../x"])[0][3],
        ),
        (
            "path outside root",
            "row 3, column path",
            "path '~/y.jpg' is not relative to the root",
            refused(tmp_path, ["~x"])[0][3],
        ),
    ]
    # A folder whose name only begins alike is another one.
    assert refused(tmp_path, ["/data/photos/1.jpg", "/data/photos2/2.jpg"], "/data/photos")[0][2].startswith(
        "'/data/photos2/"
    )


@pytest.mark.parametrize(
    ("paths", "common"),
    [
        (["/data/photos/a/1.jpg", "/data/photos/b/2.jpg", "c.jpg"], "/data/photos"),
        ([r"C:\photos\a\1.jpg", r"C:\photos\b\2.jpg"], "C:/photos"),
    ],
)
def test_the_error_names_the_common_prefix(tmp_path: Path, paths: list[str], common: str) -> None:
    found = refused(tmp_path, paths)
    assert [(kind, where) for kind, where, _, _ in found] == [
        ("path outside root", f"row {i}, column path") for i in (2, 3)
    ]
    assert {cure for _, _, _, cure in found} == {
        f"all absolute paths lie below {common}: where the rest of each leads to the photo from the root, give "
        f"--strip-prefix {common}"
    }


def test_the_error_offers_what_is_here(tmp_path: Path) -> None:
    home, there = tmp_path / "home", tmp_path / "there"
    for folder in (home / "2024", there):
        folder.mkdir(parents=True)
    for folder in (home / "2024", there):
        (folder / "1.jpg").write_bytes(b"")
    assert refused(home, [f"{there}/1.jpg"])[0][3].endswith(
        f"; or --root {there}, if the photos are in that folder"
    )
    found = refused(home, ["/data/photos/2024/1.jpg", "/data/photos/2024/2.jpg"])
    assert found[0][3] == "--strip-prefix /data/photos: without it, /data/photos/2024/1.jpg is there"
    assert [e.path for e in read(home, [f"{there}/1.jpg"], None, str(there)).entries] == ["1.jpg"]


def test_a_prefix_that_no_path_has(tmp_path: Path) -> None:
    ((kind, where, what, cure),) = refused(tmp_path, ["/mnt/a/1.jpg"], "/data")
    assert (kind, where) == ("prefix not found", "--strip-prefix /data")
    assert what == "no path begins with it; the first is /mnt/a/1.jpg"
    assert "--strip-prefix /mnt/a" in cure
    assert refused(tmp_path, ["a.jpg"], "/data")[0][3] == "leave it out"
    # Paths that share nothing get no prefix offered.
    assert "--strip-prefix" not in refused(tmp_path, ["/a/1.jpg", "/b/2.jpg"])[0][3]
