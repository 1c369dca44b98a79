"""Files as people in the field write them, kept beside the repository: what they should read to."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.catalogue.reader import Catalogue, read_catalogue

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"


def read(name: str) -> Catalogue:
    if not (CASES / name).exists():
        pytest.skip("the files from the field are not here")
    return read_catalogue(str(CASES / name))


def test_shares_of_camera_trap_boxes() -> None:
    catalogue = read("08-cct-bbox-relative/coco.json")
    assert [(e.photo_id, e.identity, e.box, e.box_is_relative) for e in catalogue.entries] == [
        ("S1/a.JPG/1", "J01", (0.1, 0.2, 0.3, 0.4), True),
        ("S1/a.JPG/2", "J02", (0.6, 0.2, 0.3, 0.4), True),
        ("S1/b.JPG", "J01", (0.1, 0.2, 0.3, 0.4), True),
    ]


def test_names_that_pandas_made_floats() -> None:
    names = [entry.identity for entry in read("26-pandas-float-names/floatid.csv").entries]
    assert names == ["12", "12", "007", "7", "1e5"]
    assert [e.identity for e in read("26-pandas-float-names/day2new.csv").entries] == ["12", None]


def test_spellings_of_viewpoints() -> None:
    catalogue = read("37-viewpoint-spelling/views.csv")
    found = {int(entry.photo_id): entry.viewpoint for entry in catalogue.entries}
    assert [found[i] for i in range(22)] == [
        *["left"] * 6, *["frontleft"] * 3, "right", "right", "up", "up", "up", "down", "back", *[None] * 5, "left",
    ]  # fmt: skip
    assert [each for each in catalogue.warnings if "viewpoint" in each] == [
        "viewpoints are read in one spelling: 'front-left', 'left_front' as frontleft; 'L', 'left flank', 'left"
        " side', 'lhs' as left; 'R' as right; 'dorsal', 'top' as up",
        "viewpoints that are not understood count as unknown (photos: 2): '0', '1'; understood are up, down, front,"
        " back, left, right and several of them, such as frontleft",
    ]
    assert {e.viewpoint for e in read("37-viewpoint-spelling/right.csv").entries} == {"right"}


@pytest.mark.parametrize("count", ["1", "1.0"])
def test_counts_of_camera_traps(count: str) -> None:
    entries = read(f"03-camtrap-count-1.0/count{count}").entries
    assert [entry.identity for entry in entries] == ["JAG1", "JAG1", "JAG2"]


@pytest.mark.parametrize(
    ("name", "boxes", "relative"),
    [
        ("amvrakikos", [(10, 20, 100, 80), (30, 20, 100, 80)], False),
        ("matchypatchy", [(0.31, 0.48, 0.31, 0.21), (0.54, 0.52, 0.33, 0.15)], True),
        ("animl_old", [(0.1, 0.2, 0.3, 0.4)] * 2, True),
        ("xmin", [(10, 20, 100, 100)] * 2, False),
    ],
)
def test_columns_of_boxes(name: str, boxes: list[tuple[float, ...]], relative: bool) -> None:
    entries = read(f"18-bbox-columns-ignored/{name}.csv").entries
    assert [entry.box for entry in entries] == boxes
    assert {entry.box_is_relative for entry in entries} == {relative}
