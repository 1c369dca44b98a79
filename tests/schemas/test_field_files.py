"""Files as people in the field write them, kept beside the repository: what they should read to."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.catalogue.reading import Reading
from schemas.catalogue.whereabouts import look_for_photos
from schemas.errors import CatalogueError

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


def test_a_package_whose_paths_are_folders() -> None:
    paths = [entry.path for entry in read("04-camtrap-folder-filepath").entries]
    assert paths == ["media/a.jpg", "media/b.jpg", "media/c.jpg"]


def test_a_file_of_miewid_without_categories() -> None:
    entries = read("09-miewid-coco-without-categories/annotations.json").entries
    assert [(e.photo_id, e.identity, e.species, e.viewpoint, e.box) for e in entries] == [
        ("0", "w_1", None, "up", (0, 0, 320, 240)),
        ("1", "w_2", None, "up", (0, 0, 320, 240)),
    ]


def test_names_and_sides_in_attributes_of_cvat() -> None:
    catalogue = read("33-cvat-attributes/cvat.json")
    assert [(e.identity, e.viewpoint, e.theta) for e in catalogue.entries] == [
        ("S12", "up", math.pi / 4), ("S12", "right", 0.0),
    ]  # fmt: skip
    assert "annotations with attributes that are not read (occluded): 2" in catalogue.warnings
    assert "boxes turned by CVAT's attribute rotation (degrees, clockwise): 1" in catalogue.warnings
    entries = read("33-cvat-attributes/turtleheads.json").entries
    assert [(e.path, e.identity, e.viewpoint, e.taken_at) for e in entries] == [
        ("images/t281/ILX.JPG", "t281", "left", "2016-07-11T16:53:31"),
        ("images/t281/ILY.JPG", "t281", "right", "2016-07-12"),
    ]


@pytest.mark.parametrize("name", ["annot", "standard"])
def test_pictures_of_one_name_in_a_wildbook(name: str) -> None:
    entries = read(f"12-wildbook-same-filename/{name}.csv").entries
    assert [(e.path, e.identity, e.encounter) for e in entries] == [
        ("encounters/bbbb-2/IMG_1.JPG", "Z1", "bbbb-2"),
        ("encounters/cccc-3/IMG_1.JPG", "Z2", "cccc-3"),
        ("encounters/dddd-4/IMG_1.JPG", "Z3", "dddd-4"),
    ]


def test_wildbooks_template() -> None:
    entries = read("13-wildbook-standard-template/standard.csv").entries
    assert [(e.path, e.identity, e.encounter, e.taken_at) for e in entries] == [
        ("20180905/12345.jpg", "Lion045", "BPCT_20190825_1", "2020-05-15T15:00:48+00:00"),
        ("20180905/12346.jpg", "Lion045", "BPCT_20190825_1", "2019-08-25T09:05:00"),
        ("20180905/12347.jpg", None, "BPCT_20190825_2", "2019-08-25"),
    ]


@pytest.mark.parametrize(
    ("name", "identities"),
    [
        ("cr", ["A", "A"]),
        ("inch", ["A", "A"]),
        ("quoted_nl_notes", ["Old One", "Old One"]),
        ("ragged", ["A", "A", "B"]),
        ("semi_bom_crlf", ["Märta", "Märta"]),
        ("sepline", ["A", "A"]),
    ],
)
def test_dialects_of_csv(name: str, identities: list[str]) -> None:
    assert [entry.identity for entry in read(f"38-csv-dialects/{name}.csv").entries] == identities


def test_corners_in_coco_are_asked_about() -> None:
    said = "3 of 3 boxes leave their photo: were x1, y1, x2, y2 written instead of x, y, w, h?"
    assert said in read("41-xyxy-in-coco/coco.json").warnings


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


@pytest.mark.parametrize("name", ["bom", "events3", "gz", "latin1", "pipe", "pkg.zip", "semi"])
def test_packages_as_tools_write_them(name: str) -> None:
    entries = read(f"05-camtrap-packaging/{name}").entries
    first = "media/á.jpg" if name == "latin1" else "media/a.jpg"
    assert [(e.path, e.identity, e.encounter) for e in entries] == [
        (first, "JAG1", "e1"), ("media/b.jpg", "JAG1", "e1"), ("media/c.jpg", "JAG2", "e2"),
    ]  # fmt: skip
    assert [e.box for e in entries] == [(0.1, 0.1, 0.4, 0.4), (0.2, 0.1, 0.4, 0.4), (0.2, 0.1, 0.4, 0.4)]


@pytest.mark.parametrize(
    ("name", "identities"),
    [
        ("utf16.csv", ["Märta"]),
        ("tab.txt", ["Märta"] * 2),
        ("title.csv", ["A"] * 2),
        ("comment.csv", ["A"] * 2),
    ],
)
def test_tables_below_titles_and_in_utf16(name: str, identities: list[str]) -> None:
    assert [entry.identity for entry in read(f"38-csv-dialects/{name}").entries] == identities


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("latin1", "in Windows-1252 it would be part of '1,Märta,a.jpg'; 2 lines are not UTF-8"),
        ("semi_xywh_comma", "decimals need a point"),
        ("semi_decimal_comma", "a box needs 4 numbers (x, y, w, h), not 8"),
    ],
)
def test_dialects_that_are_refused_with_the_cure(name: str, says: str) -> None:
    with pytest.raises(CatalogueError) as error:
        read(f"38-csv-dialects/{name}.csv")
    assert says in str(error.value)


def test_one_box_without_area_among_a_thousand() -> None:
    with pytest.raises(CatalogueError, match="--bad-boxes fail"):
        read("40-one-zero-box/metadata.csv")
    entries = read_catalogue(
        str(CASES / "40-one-zero-box/metadata.csv"), reading=Reading(bad_boxes="fail")
    ).entries
    assert [(e.photo_id, e.bad_box) for e in entries if e.box is None] == [
        ("500", "box [1, 2, 0, 40] has no area: w and h must be positive")
    ]
    catalogue = read("40-one-zero-box/minus1.csv")
    assert [e.box for e in catalogue.entries] == [None, (1, 2, 30, 40)]
    assert any(
        note.startswith("boxes -1, -1, -1, -1 (a detector found nothing)") for note in catalogue.warnings
    )


def test_lists_of_missing_numbers() -> None:
    found = (
        read_catalogue(str(CASES / "23-nan-box-list/boxes.csv"), reading=Reading(bad_boxes="fail"))
        if CASES.exists()
        else None
    )
    if found is None:
        pytest.skip("the files from the field are not here")
    assert [(e.photo_id, e.box, e.bad_box is None) for e in found.entries] == [
        ("1", (10.5, 20.25, 100.75, 80.5), True), ("2", (-12.3, -4.0, 100, 80), True),
        ("3", None, True), ("4", None, True), ("5", None, True),
        ("6", None, False), ("7", None, False), ("8", None, False),
    ]  # fmt: skip


def test_a_table_of_matchypatchy_as_it_is_exported() -> None:
    entries = read("18-bbox-columns-ignored/matchypatchy_as_exported.csv").entries
    assert [(e.photo_id, e.identity, e.encounter) for e in entries] == [
        ("AREAS 17_20051011_0438.jpg/0.31,0.48,0.31,0.21", "Macho Uno", "5"),
        ("RL 11_20051009_2329.jpg/0.54,0.52,0.33,0.15", "Macho Uno", "6"),
    ]


def test_an_export_of_wildbook_finds_its_photos() -> None:
    looked = look_for_photos(read("10-wildbook-coco-zip/coco/annotations/instances.json"), False)
    assert looked.found == len(looked.catalogue.entries) == 4
    assert looked.catalogue.root.endswith("coco/images")
