"""Paths of photos never leave their root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import PathOutsideRoot
from schemas.paths import PhotoRoot, check_relative, is_url, local_path, safe_join

SEGMENTS = st.one_of(
    st.sampled_from(
        [
            "..",
            ".",
            "",
            "a",
            "out",
            "in",
            "up",
            "file",
            "~",
            "~root",
            "C:",
            "\\",
            "..\\",
            "file:",
            "s3:",
            "\x00",
            "...",
            "%2e%2e",
        ]
    ),
    st.text(max_size=6),
    st.text(alphabet="~.:C/\\a", max_size=4),
)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=7).map("/".join)


@pytest.fixture(scope="module")
def trapped_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a folder `a`, and links to outside, to inside and to its own parent."""
    root = tmp_path_factory.mktemp("catalogue") / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "photo.jpg").write_bytes(b"x")
    (root.parent / "root-twin").mkdir()
    (root.parent / "secret").write_bytes(b"s")
    (root / "out").symlink_to("/etc")
    (root / "in").symlink_to("a")
    (root / "up").symlink_to("..")
    (root / "a" / "file").symlink_to("../../secret")
    (root / "a" / "twin").symlink_to("../../root-twin")
    (root / "loop").symlink_to("loop")
    return root


@settings(deadline=None)
@given(relative=PATHS)
def test_a_joined_path_never_leaves_a_local_root(trapped_root: Path, relative: str) -> None:
    try:
        joined = safe_join(str(trapped_root), relative)
    except PathOutsideRoot:
        return
    real = os.path.realpath(joined)
    assert os.path.commonpath([real, os.path.realpath(trapped_root)]) == os.path.realpath(trapped_root)
    assert real != os.path.realpath(trapped_root)


@settings(deadline=None)
@given(relative=PATHS)
def test_a_joined_path_never_leaves_a_url(relative: str) -> None:
    try:
        joined = safe_join("https://photos.example/catalogue", relative)
    except PathOutsideRoot:
        return
    rest = joined.removeprefix("https://photos.example/catalogue/")
    assert rest != joined
    assert ".." not in rest.split("/")
    assert not set(rest) & set("?#\\")
    assert "%2e" not in rest.lower()
    assert "::" not in rest


@settings(deadline=None)
@given(relative=PATHS)
def test_normal_form_is_stable(relative: str) -> None:
    try:
        normal = check_relative(relative)
    except PathOutsideRoot:
        return
    assert check_relative(normal) == normal


@pytest.mark.parametrize(
    "relative",
    [
        "", ".", "./", "//", "/etc/passwd", "~/x", "~root/x", "./~", "./C:x", ".//~/x", "..", "../x", "a/../../x", "a/..", "a\\..\\x", "\\\\host\\x",
        "C:x", "c:/x", "file:///etc/passwd", "https://host/x", "zip::x", "a/b://c", "a\x00.jpg", "a\n.jpg", "a\ud800.jpg",
    ],
)  # fmt: skip
def test_refused_by_letters(relative: str) -> None:
    with pytest.raises(PathOutsideRoot, match="cure"):
        check_relative(relative)


@pytest.mark.parametrize(
    ("relative", "normal"),
    [
        ("a.jpg", "a.jpg"),
        ("./a//b/./c.jpg", "a/b/c.jpg"),
        ("images/..hidden/a..b.jpg", "images/..hidden/a..b.jpg"),
        ("Fotos/Löwe 🦁 №1.jpg", "Fotos/Löwe 🦁 №1.jpg"),
        ("12:30 a~b%20c.jpg", "12:30 a~b%20c.jpg"),
    ],
)
def test_accepted_by_letters(relative: str, normal: str) -> None:
    assert check_relative(relative) == normal


@pytest.mark.parametrize(
    "relative", ["out/passwd", "out", "up/secret", "a/file", "a/twin/x.jpg", "a/twin", "in/file"]
)
def test_links_out_of_the_root_are_refused(trapped_root: Path, relative: str) -> None:
    with pytest.raises(PathOutsideRoot, match="symbolic link"):
        safe_join(str(trapped_root), relative)


@pytest.mark.parametrize(
    "relative", ["in/photo.jpg", "a/photo.jpg", "missing/photo.jpg", "loop", "x" * 3000 + ".jpg"]
)
def test_links_inside_and_missing_files_are_accepted(trapped_root: Path, relative: str) -> None:
    assert safe_join(str(trapped_root), relative) == str(trapped_root / relative)


def test_a_root_that_is_a_link_itself_holds_its_photos(trapped_root: Path) -> None:
    link = trapped_root.parent / "alias"
    link.symlink_to(trapped_root)
    assert safe_join(str(link), "a/photo.jpg") == str(link / "a" / "photo.jpg")
    with pytest.raises(PathOutsideRoot):
        safe_join(str(link), "a/file")


def test_the_remembering_root_agrees_with_a_fresh_one(trapped_root: Path) -> None:
    remembering = PhotoRoot(str(trapped_root))
    for relative in [
        "a/photo.jpg",
        "a/file",
        "in/photo.jpg",
        "in/file",
        "out/x",
        "out/y",
        "up/root/a/photo.jpg",
    ] * 2:
        outcomes = []
        for join in (remembering.join, PhotoRoot(str(trapped_root)).join):
            try:
                outcomes.append(join(relative))
            except PathOutsideRoot:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1], relative


def test_urls_and_local_places() -> None:
    assert safe_join("s3://bucket/photos/", "a//b #1?.jpg") == "s3://bucket/photos/a/b #1?.jpg"
    assert safe_join("file:///data", "a.jpg") == "/data/a.jpg"
    assert safe_join("/", "a.jpg") == "/a.jpg"
    for trick in ("a.jpg?x=1", "a#b.jpg", "%2e%2e/a.jpg", "a%2Fb.jpg", "..%5ca.jpg"):
        with pytest.raises(PathOutsideRoot):
            safe_join("https://host/photos", trick)
    assert is_url("s3://b/x")
    assert is_url("memory://x")
    assert not is_url("/data/x")
    assert not is_url("file:///data")
    assert not is_url("C:/x")
    assert local_path("~").startswith("/")
    assert local_path("x/../y") == os.path.join(os.getcwd(), "y")
