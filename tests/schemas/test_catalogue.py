"""Catalogues: every convention in the field is read, every problem is found, and all of them at once."""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.catalogue.cells import ALIASES, MAX_LENGTH, iso_date
from schemas.catalogue.reader import Catalogue, CatalogueEntry, read_catalogue
from schemas.errors import CatalogueError, Problem

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
HEADER = "image_id,identity,path"
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(*lines: str, name: str = "metadata.csv", encoding: str = "utf-8") -> str:
        file = tmp_path / name
        file.write_bytes("\n".join(lines).encode(encoding))
        return str(file)

    return write_file


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., str]:
    def write_file(**columns: object) -> str:
        file = tmp_path / "metadata.parquet"
        pq.write_table(pa.table(columns), file)
        return str(file)

    return write_file


def problems_of(source: str, root: str | None = None) -> list[Problem]:
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(source, root)
    return list(caught.value.problems)


def kinds_and_places(source: str) -> list[tuple[str, str]]:
    return [(problem.kind, problem.where) for problem in problems_of(source)]


def boxes_of(source: str) -> list[tuple[object, bool]]:
    return [(entry.box, entry.box_is_relative) for entry in read_catalogue(source).entries]


# ------------------------------------------------------------------------------------------------ reading


def test_a_plain_catalogue(write: Write, tmp_path: Path) -> None:
    source = write(HEADER, "b,Ayo,./images//2.jpg", "007, Björk ,images/1.jpg", "c,Unknown,images/3.jpg")
    catalogue = read_catalogue(source)
    assert catalogue.root == str(tmp_path)
    assert catalogue.entries == (
        CatalogueEntry("007", "images/1.jpg", "Björk"),
        CatalogueEntry("b", "images/2.jpg", "Ayo"),
        CatalogueEntry("c", "images/3.jpg"),
    )
    assert catalogue.warnings == ()
    assert pickle.loads(pickle.dumps(catalogue)) == catalogue


def test_all_optional_columns(write: Write) -> None:
    source = write(
        HEADER + ",theta,species,date,encounter,viewpoint,notes",
        'a,x,1.jpg,-0.5,Giraffa,2024-05-31,e1,Left,"many, words"',
        "b,y,2.jpg,nan,unknown,2024:05:31 12:30:00,,____,",
    )
    first, second = read_catalogue(source).entries
    assert first == CatalogueEntry(
        "a", "1.jpg", "x", "Giraffa", "e1", "2024-05-31", "left", None, False, -0.5, "notes\x1fmany, words"
    )
    assert second == CatalogueEntry("b", "2.jpg", "y", taken_at="2024-05-31T12:30:00")


@pytest.mark.parametrize(
    "spelling", ["unknown", "UNKNOWN", "", "____", "_", "null", "NaN", "None", "n/a", "<NA>", "  "]
)
def test_unknown_identities(write: Write, spelling: str) -> None:
    known, unknown = read_catalogue(write(HEADER, "a,Ayo,1.jpg", f"b,{spelling},2.jpg")).entries
    assert (known.identity, unknown.identity) == ("Ayo", None)


def test_numbers_stay_text_and_are_not_taken_for_unknown(write: Write) -> None:
    entries = read_catalogue(write(HEADER, "001,0,1.jpg", "1,00,2.jpg", "1e3,1.5,3.jpg")).entries
    assert [(entry.photo_id, entry.identity) for entry in entries] == [
        ("001", "0"),
        ("1", "00"),
        ("1e3", "1.5"),
    ]


def test_a_whole_number_is_one_name_with_and_without_a_point(
    write: Write, write_parquet: Callable[..., str]
) -> None:
    rows = ["1.0,12.0,1.0,e7.0", "2,12,2.jpg,7.0", "3.0,-7.00,3.jpg,7", "4,007.0,4.jpg,v1.0"]
    entries = read_catalogue(write(HEADER + ",encounter", *rows)).entries
    assert [(e.photo_id, e.identity, e.path, e.encounter) for e in entries] == [
        ("1", "12", "1.0", "e7.0"),
        ("2", "12", "2.jpg", "7"),
        ("3", "-7", "3.jpg", "7"),
        ("4", "007", "4.jpg", "v1.0"),
    ]
    ids = {"image_id": ["1", "2"], "path": ["1.jpg", "2.jpg"]}
    for identity in ([12, 12], [12.0, 12.0], ["12", "12.0"], pa.array([Decimal("12.00")] * 2)):
        found = read_catalogue(write_parquet(identity=identity, **ids)).entries
        assert [entry.identity for entry in found] == ["12", "12"]
    assert kinds_and_places(write(HEADER, "1.0,a,1.jpg", "1,b,2.jpg")) == [("doubled image_id", "rows 2, 3")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["", "\r"])
def test_encodings_separators_and_line_ends(write: Write, encoding: str, separator: str, ending: str) -> None:
    rows = ["Image_ID,Identity , path,bbox", 'ü,"An ""odd"" name",é.jpg,"[1, 2, 3, 4]"']
    lines = [row.replace(", ", "§").replace(",", separator).replace("§", ", ") + ending for row in rows]
    lines[0] = lines[0].replace(", path", separator + " path")
    (entry,) = read_catalogue(write(*lines, "", encoding=encoding)).entries
    assert entry == CatalogueEntry("ü", "é.jpg", 'An "odd" name', box=(1.0, 2.0, 3.0, 4.0))


def test_miewid_names(write: Write) -> None:
    source = write(
        "theta,viewpoint,name,file_name,species,file_path,x,y,w,h",
        "0,up,1030,6.jpg,beluga,/data/6.jpg,0,0,162,440",
    )
    (entry,) = read_catalogue(source).entries
    assert entry == CatalogueEntry(
        "6.jpg",
        "6.jpg",
        "1030",
        "beluga",
        viewpoint="up",
        box=(0.0, 0.0, 162.0, 440.0),
        extra="file_path\x1f/data/6.jpg",
    )


@pytest.mark.parametrize(
    ("meaning", "name"),
    [(m, n) for m, names in ALIASES.items() for n in names if m in ("date", "encounter", "viewpoint")],
)
def test_other_names_of_columns(write: Write, meaning: str, name: str) -> None:
    text = {"viewpoint": "left"}.get(meaning, "2020")
    (entry,) = read_catalogue(write(f"{HEADER},{name}", f"a,x,1.jpg,{text}")).entries
    assert getattr(entry, {"date": "taken_at"}.get(meaning, meaning)) == text


def test_every_column_is_read_kept_or_named_as_unused(
    write: Write, write_parquet: Callable[..., str]
) -> None:
    header = ",Image_ID,identity,name,Site,path,bbox,x,y,w,h,date,photographer"
    read = read_catalogue(write(header, '0,a,x,n,s,1.jpg,"[1, 2, 3, 4]",1,2,3,4,2024,p'))
    assert read.used == (
        ("image_id", "Image_ID"),
        ("identity", "identity"),
        ("path", "path"),
        ("date", "date"),
        ("box", "bbox"),
    )
    assert read.kept == ("name", "Site", "x", "y", "w", "h", "photographer")
    assert read.unused == ("(a column without a name)",)
    source = write_parquet(image_id=["a"], identity=["x"], path=["1.jpg"], site=["s"], masks=[{"a": 1}])
    assert (read_catalogue(source).kept, read_catalogue(source).unused) == (("site",), ("masks",))
    assert read_catalogue(write(HEADER, "a,x,1.jpg")).unused == ()


def test_the_own_name_of_a_column_goes_before_its_aliases(write: Write) -> None:
    (entry,) = read_catalogue(write("name,path,file_name,identity,image_id", "n,p.jpg,f.jpg,i,id")).entries
    assert entry == CatalogueEntry("id", "p.jpg", "i", extra="file_name\x1ff.jpg\x1ename\x1fn")


def test_parquet_types_become_text(write_parquet: Callable[..., str]) -> None:
    source = write_parquet(
        image_id=[3, 20, 1],
        identity=pa.array([1e17, None, float("nan")]),
        path=pa.array(["c.jpg", "b.jpg", "a.jpg"]).dictionary_encode(),
        bbox=pa.array([[1, 2, 3, 4], None, [5, 6, 7, 8]], pa.list_(pa.int32())),
        theta=pa.array([None, float("nan"), 0.25], pa.float32()),
        date=[datetime.datetime(2024, 5, 31, 12), None, datetime.datetime(2020, 1, 1)],
        encounter=pa.array([1, 2, 3], pa.int8()),
    )
    one, twenty, three = read_catalogue(source).entries
    assert one == CatalogueEntry(
        "1", "a.jpg", None, None, "3", "2020-01-01T00:00:00", None, (5.0, 6.0, 7.0, 8.0), False, 0.25
    )
    assert twenty == CatalogueEntry("20", "b.jpg", None, encounter="2")
    assert three == CatalogueEntry(
        "3", "c.jpg", "1" + "0" * 17, None, "1", "2024-05-31T12:00:00", None, (1.0, 2.0, 3.0, 4.0)
    )


def test_csv_and_parquet_of_one_table_agree(write: Write, write_parquet: Callable[..., str]) -> None:
    ids, names = ["a", "b", "c"], ["x", None, "y"]
    quads = [[0.1, 0.2, 0.3, 0.4], None, [0, 0, 1, 1]]
    lines = [f'{i},{n or ""},{i}.jpg,"{b or ""}"' for i, n, b in zip(ids, names, quads, strict=True)]
    text = read_catalogue(write(HEADER + ",bbox", *lines))
    parquet = read_catalogue(
        write_parquet(image_id=ids, identity=names, path=[f"{i}.jpg" for i in ids], bbox=quads)
    )
    assert text.entries == parquet.entries


def test_a_remote_catalogue_keeps_its_url_as_root() -> None:
    with fsspec.open("memory://night/run/metadata.csv", "wb") as file:
        file.write(f"{HEADER}\na,x,1.jpg\nb,y,2.jpg\n".encode())
    catalogue = read_catalogue("memory://night/run/metadata.csv")
    assert catalogue.root == "memory://night/run"
    assert len(catalogue.entries) == 2
    assert read_catalogue("memory://night/run/metadata.csv", "s3://photos/").root == "s3://photos"


def test_the_root_can_be_another_folder(write: Write, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert read_catalogue(write(HEADER, "a,x,1.jpg"), str(tmp_path / "photos")).root == str(
        tmp_path / "photos"
    )


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(order=st.permutations(range(6)))
def test_the_order_of_rows_does_not_matter(write: Write, order: list[int]) -> None:
    rows = [f"p{i},animal{i % 3},{i}.jpg" for i in range(6)]
    assert read_catalogue(write(HEADER, *(rows[i] for i in order))) == read_catalogue(write(HEADER, *rows))


@pytest.mark.parametrize(
    ("name", "photos", "animals"),
    [("cows", 555, 45), ("lions", 740, 94), ("zebras", 10, 8), ("buildings", 12, 3)],
)
def test_real_catalogues(name: str, photos: int, animals: int) -> None:
    source = SHARED / name / "metadata.csv"
    if not source.exists():
        pytest.skip("the shared catalogues are not here")
    catalogue = read_catalogue(str(source))
    assert len(catalogue.entries) == photos
    assert len({entry.identity for entry in catalogue.entries}) == animals
    assert all(os.path.exists(os.path.join(catalogue.root, entry.path)) for entry in catalogue.entries)
    assert catalogue.warnings == ()


# ------------------------------------------------------------------------------------------------ boxes


def test_boxes_in_pixels(write: Write) -> None:
    source = write(
        HEADER + ",x,y,w,h", "a,x,1.jpg,-3,2.5,30,40", "b,y,2.jpg,,,,", "c,z,3.jpg,nan,nan,nan,nan"
    )
    assert boxes_of(source) == [((-3.0, 2.5, 30.0, 40.0), False), (None, False), (None, False)]


@pytest.mark.parametrize("names", ["rel_x,rel_y,rel_w,rel_h", "bboxX,bboxY,bboxWidth,bboxHeight", "x,y,w,h"])
def test_relative_boxes(write: Write, names: str) -> None:
    catalogue = read_catalogue(write(f"{HEADER},{names}", "a,x,1.jpg,.1,.2,.3,.4", "b,y,2.jpg,0,0,1,1"))
    assert [entry.box_is_relative for entry in catalogue.entries] == [True, True]
    assert catalogue.entries[0].box_in(200, 100) == pytest.approx((20, 20, 60, 40))
    assert catalogue.entries[1].box_in(200, 100) == (0, 0, 200, 100)
    assert any("shares" in warning for warning in catalogue.warnings) == (names == "x,y,w,h")


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        ("bbox_x,bbox_y,bbox_w,bbox_h", "10,20,30,40"),
        ("bbox_x,bbox_y,bbox_width,bbox_height", "10,20,30,40"),
        ("bbox1,bbox2,bbox3,bbox4", "10,20,30,40"),
        ("BBox_X,BBox_Y,BBox_W,BBox_H", "10,20,30,40"),
        ("xmin,ymin,xmax,ymax", "10,20,40,60"),
        ("x_min,y_min,x_max,y_max", "10,20,40,60"),
        ("bbox_xmin,bbox_ymin,bbox_xmax,bbox_ymax", "10,20,40,60"),
        ("x1,y1,x2,y2", "10,20,40,60"),
    ],
)
def test_spellings_of_boxes_in_four_columns(
    write: Write, write_parquet: Callable[..., str], names: str, numbers: str
) -> None:
    wanted = [((10.0, 20.0, 30.0, 40.0), False), (None, False)]
    assert boxes_of(write(f"{HEADER},{names}", f"a,x,1.jpg,{numbers}", "b,y,2.jpg,,,,")) == wanted
    columns = {
        name: pa.array([int(n), None]) for name, n in zip(names.split(","), numbers.split(","), strict=True)
    }
    source = write_parquet(image_id=["a", "b"], identity=["x", "y"], path=["1.jpg", "2.jpg"], **columns)
    assert boxes_of(source) == wanted
    assert read_catalogue(source).warnings == ()


def test_corners_in_shares_and_corners_in_the_wrong_order(write: Write) -> None:
    header = HEADER + ",xmin,ymin,xmax,ymax"
    (entry,) = read_catalogue(write(header, "a,x,1.jpg,.25,.5,.75,1")).entries
    assert (entry.box, entry.box_is_relative) == ((0.25, 0.5, 0.5, 0.5), True)
    assert kinds_and_places(write(header, "a,x,1.jpg,5,5,2,9", "b,x,2.jpg,1,,2,9")) == [
        ("bad box", "row 2, column xmin,ymin,xmax,ymax"),
        ("bad box", "row 3, column xmin,ymin,xmax,ymax"),
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("bbox_left,bbox_top,bbox_r,note", "bbox_left, bbox_top"),
        ("bounding box,boxes,sandbox,notes", "bounding box, boxes"),
        ("detection_bbox,bbox_score,w,h", ""),
        ("bbox.x,bbox.y,bbox.w,bbox.h", "bbox.x, bbox.y, bbox.w, bbox.h"),
    ],
)
def test_columns_that_look_like_boxes_are_not_dropped_in_silence(write: Write, names: str, said: str) -> None:
    source = write(f"{HEADER},{names}", "a,x,1.jpg,1,2,3,4", "b,y,2.jpg,1,2,3,4")
    if not said:
        assert kinds_and_places(source) == [("incomplete box columns", "header")]
        return
    catalogue = read_catalogue(source)
    assert [entry.box for entry in catalogue.entries] == [None, None]
    assert catalogue.warnings == (
        f"no boxes are read; these columns look like boxes and are not read: {said}",
    )


def test_a_second_spelling_of_boxes_is_told(write: Write) -> None:
    source = write(HEADER + ",bbox,x,y,w,h", 'a,x,1.jpg,"[1, 2, 3, 4]",5,6,7,8', "b,y,2.jpg,,,,,")
    catalogue = read_catalogue(source)
    assert catalogue.entries[0].box == (1, 2, 3, 4)
    assert catalogue.warnings == (
        "boxes are read from bbox; these columns look like boxes and are not read: x, y, w, h",
    )


def test_box_in_pixels_does_not_depend_on_the_photo() -> None:
    assert CatalogueEntry("a", "1.jpg", box=(1, 2, 3, 4)).box_in(200, 100) == (1, 2, 3, 4)
    assert CatalogueEntry("a", "1.jpg").box_in(200, 100) is None


@pytest.mark.parametrize(
    ("boxes", "flagged"),
    [
        (["[1, 2, 30, 40]", "[.1, .2, .3, .4]", "[5, 6, 70, 80]"], ["row 3"]),
        (["[.1, .2, .3, .4]", "[.1, .2, .3, .4]", "[5, 6, 70, 80]"], ["row 4"]),
        (["[.1, .2, .3, .4]", "", "[5, 6, 70, 80]"], ["row 2"]),
    ],
)
def test_a_mixture_is_refused_for_the_whole_catalogue(
    write: Write, boxes: list[str], flagged: list[str]
) -> None:
    source = write(HEADER + ",bbox", *(f'p{i},x,{i}.jpg,"{box}"' for i, box in enumerate(boxes)))
    assert kinds_and_places(source) == [("mixed boxes", f"{row}, column bbox") for row in flagged]


def test_pixels_in_relative_columns_are_refused(write: Write) -> None:
    source = write(HEADER + ",rel_x,rel_y,rel_w,rel_h", "a,x,1.jpg,10,20,30,40", "b,x,2.jpg,0,0,1,1")
    assert kinds_and_places(source) == [("box not relative", "row 2, column rel_x,rel_y,rel_w,rel_h")]


@pytest.mark.parametrize(
    "box",
    [
        "[1, 2, 3]",
        "[1, 2, 3, 4, 5]",
        "[1, 2, 0, 4]",
        "[1, 2, -3, 4]",
        "[nan, nan, nan, 4]",
        "[nan, nan] nan",
        "left",
        "[]",
        "{'x': 1}",
    ],
)
def test_bad_listed_boxes(write: Write, box: str) -> None:
    source = write(HEADER + ",bbox", 'a,x,1.jpg,"[1, 2, 3, 4]"', f'b,x,2.jpg,"{box}"')
    assert kinds_and_places(source) == [("bad box", "row 3, column bbox")]


@pytest.mark.parametrize("box", ["1,2,0,4", "1,2,3,-4", "1,,3,4", "nan,2,3,4", "1,2,inf,4", "1,2,3,4px"])
def test_bad_boxes_in_four_columns(write: Write, box: str) -> None:
    found = kinds_and_places(write(HEADER + ",x,y,w,h", "a,x,1.jpg,1,2,3,4", f"b,x,2.jpg,{box}"))
    assert len(found) == 1
    assert found[0][0] == "bad box"
    assert found[0][1].startswith("row 3, column ")


@pytest.mark.parametrize(
    "text",
    ["[nan, nan, nan, nan]", "(NaN, NaN, NaN, NaN)", "[None, None, None, None]", "[nan nan nan nan]", "[null,null,null,null]",
     "array([nan, nan, nan, nan])", "np.array([nan, nan, nan, nan])", "[np.float64(nan), np.float64(nan), np.float64(nan), np.float64(nan)]", "nan"],
)  # fmt: skip
def test_a_list_of_missing_numbers_is_no_box(
    write: Write, write_parquet: Callable[..., str], text: str
) -> None:
    source = write(HEADER + ",bbox", 'a,x,1.jpg,"[1, 2, 30, 40]"', f'b,x,2.jpg,"{text}"')
    assert boxes_of(source) == [((1, 2, 30, 40), False), (None, False)]
    quads = pa.array([[1.0, 2.0, 30.0, 40.0], [float("nan")] * 4, [None] * 4], pa.list_(pa.float64()))
    source = write_parquet(
        image_id=["a", "b", "c"], identity=["x"] * 3, path=["1.jpg", "2.jpg", "3.jpg"], bbox=quads
    )
    assert boxes_of(source) == [((1, 2, 30, 40), False), (None, False), (None, False)]


def test_decimals_with_a_comma_are_told(write: Write) -> None:
    rows = ["image_id;identity;path;x;y;w;h", "1;A;a.jpg;10,5;20;100;80"]
    (problem,) = problems_of(write(*rows))
    assert problem.what == "'10,5' is not a number: decimals need a point"


def test_shares_that_leave_the_photo_are_asked_about(write: Write) -> None:
    header, corners = HEADER + ",bbox", '"[0.5, 0.4, 0.9, 0.8]"'
    inside = '"[0.5, 0.4, 0.51, 0.6]"'
    rows = [f"a,x,1.jpg,{corners}", f"b,y,2.jpg,{corners}", f"c,y,3.jpg,{inside}"]
    said = "2 of 3 boxes leave their photo: were x1, y1, x2, y2 written instead of x, y, w, h?"
    assert said in read_catalogue(write(header, *rows)).warnings
    rows[1] = f"b,y,2.jpg,{inside}"
    assert not any("leave" in warning for warning in read_catalogue(write(header, *rows)).warnings)


def test_bad_boxes_in_parquet(write_parquet: Callable[..., str]) -> None:
    quads = [
        [1.0, 2.0, 3.0, 4.0],
        [1.0, float("nan"), 3.0, 4.0],
        [1.0, 2.0, 3.0],
        None,
        [1.0, None, 2.0, 3.0],
    ]
    source = write_parquet(
        image_id=list("abcde"), identity=["x"] * 5, path=[f"{i}.jpg" for i in range(5)], bbox=quads
    )
    assert kinds_and_places(source) == [("bad box", f"row {row}, column bbox") for row in (2, 3, 5)]


def test_incomplete_box_columns(write: Write) -> None:
    assert kinds_and_places(write(HEADER + ",x,y,w", "a,x,1.jpg,1,2,3")) == [
        ("incomplete box columns", "header")
    ]
    catalogue = read_catalogue(write(HEADER + ",x,y", "a,x,1.jpg,36.8,-1.3", "b,z,2.jpg,36.8,-1.3"))
    assert [entry.box for entry in catalogue.entries] == [None, None]
    assert any("ignored" in warning for warning in catalogue.warnings)


# ------------------------------------------------------------------------------------------------ dates


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2024-05-31", "2024-05-31"),
        ("20240531", "2024-05-31"),
        ("2024", "2024"),
        ("2024-05", "2024-05"),
        ("2024-05-31 12:30", "2024-05-31T12:30:00"),
        ("2024-05-31T12:30:00Z", "2024-05-31T12:30:00+00:00"),
        ("2024-05-31 12:30:00.000000000", "2024-05-31T12:30:00"),
        ("2024:05:31 12:30:00", "2024-05-31T12:30:00"),
        ("2024/05/31", "2024-05-31"),
        ("31.05.2024", "2024-05-31"),
        ("05/06/2024", None),
        ("2-0-1", None),
        ("2024-13-01", None),
        ("last summer", None),
    ],
)
def test_dates(text: str, iso: str | None) -> None:
    assert iso_date(text) == iso


def test_unreadable_dates_are_kept_and_reported(write: Write) -> None:
    catalogue = read_catalogue(
        write(HEADER + ",date", "a,x,1.jpg,last summer", "b,y,2.jpg,2020-01-01", "c,y,3.jpg,")
    )
    assert [entry.taken_at for entry in catalogue.entries] == ["last summer", "2020-01-01", None]
    assert catalogue.warnings == ("dates that cannot be read stay as they are (1 different): 'last summer'",)


# ------------------------------------------------------------------------------------------------ problems


@pytest.mark.parametrize("missing", ["image_id", "identity", "path"])
def test_missing_columns_name_what_was_found(write: Write, missing: str) -> None:
    header = [name for name in ("image_id", "identity", "path", "extra") if name != missing]
    (problem,) = problems_of(write(",".join(header), "1,2,3"))
    assert (problem.kind, problem.where) == ("missing column", f"header, column {missing}")
    assert ", ".join(header) in problem.what


def test_all_missing_columns_are_listed(write: Write) -> None:
    assert [problem.where[-8:] for problem in problems_of(write("foo,bar", "1,2"))] == [
        "image_id",
        "identity",
        "umn path",
    ]


def test_doubled_ids_are_listed_with_their_rows(write: Write) -> None:
    found = problems_of(
        write(HEADER, "a,x,1.jpg", "b,x,2.jpg", "a,x,3.jpg", "c,x,4.jpg", " b ,x,5.jpg", "a,x,6.jpg")
    )
    assert [(problem.kind, problem.where) for problem in found] == [
        ("doubled image_id", "rows 2, 4, 7"),
        ("doubled image_id", "rows 3, 6"),
    ]
    assert "'a' is the id of 3 rows" in found[0].what


def test_ids_that_were_numbers_can_collide_too(write_parquet: Callable[..., str]) -> None:
    source = write_parquet(image_id=[1.0, 1.0], identity=["x", "y"], path=["1.jpg", "2.jpg"])
    assert kinds_and_places(source) == [("doubled image_id", "rows 1, 2")]


def test_empty_cells(write: Write) -> None:
    assert kinds_and_places(write(HEADER, ",x,1.jpg", "b,x,", "c,x,  ")) == [
        ("empty image_id", "row 2, column image_id"),
        ("empty path", "row 3, column path"),
        ("empty path", "row 4, column path"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x.jpg",
        "a/../../x.jpg",
        "~/x.jpg",
        "https://h/x.jpg",
        "a\\..\\x.jpg",
        "C:\\x.jpg",
        "zip::x",
    ],
)
def test_paths_outside_the_root(write: Write, path: str) -> None:
    assert kinds_and_places(write(HEADER, "a,x,1.jpg", f"b,x,{path}")) == [
        ("path outside root", "row 3, column path")
    ]


def test_a_link_out_of_the_root(write: Write, tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    found = kinds_and_places(write(HEADER, "a,x,link.jpg", "b,x,folder/passwd", "c,x,missing.jpg"))
    assert found == [("path outside root", f"row {row}, column path") for row in (2, 3)]


def test_control_characters(write: Write) -> None:
    rows = ['"a\nb",x,1.jpg', "c\x00,x,2.jpg", "d,Ay\x1bo,3.jpg", "e,x,4\x07.jpg", "f,x\x85y,5.jpg"]
    columns = ["image_id", "image_id", "identity", "path", "identity"]
    found = sorted(kinds_and_places(write(HEADER, *rows)), key=lambda pair: pair[1])
    assert found == [
        ("control characters", f"row {i}, column {name}") for i, name in enumerate(columns, start=2)
    ]


def test_long_ids(write: Write) -> None:
    longest, longer = "a" * MAX_LENGTH, "b" * (MAX_LENGTH + 1)
    assert kinds_and_places(write(HEADER, f"{longest},x,1.jpg", f"{longer},x,2.jpg")) == [
        ("too long", "row 3, column image_id")
    ]


@pytest.mark.parametrize("theta", ["left", "inf", "-inf", "1e999", "1,5", "1 rad"])
def test_bad_theta(write: Write, theta: str) -> None:
    source = write(HEADER + ",theta", "a,x,1.jpg,0.1", f'b,x,2.jpg,"{theta}"')
    assert kinds_and_places(source) == [("bad theta", "row 3, column theta")]


def test_rows_with_a_wrong_number_of_fields_do_not_shift_the_others(write: Write) -> None:
    source = write("", HEADER, "a,x,1.jpg", "b,x", "", "c,x,3.jpg,more", ",,", 'd,"two\nlines",/4.jpg')
    assert kinds_and_places(source) == [
        ("wrong number of fields", "row 6"),
        ("control characters", "row 8, column identity"),
        ("empty path", "row 4, column path"),
        ("path outside root", "row 8, column path"),
    ]


def test_missing_cells_at_the_end_of_a_row_are_empty(write: Write) -> None:
    header = HEADER + ",date,2020,notes"
    rows = [
        "a,x,1.jpg",
        'b,x,2.jpg,2024-05-31,"3","two\nlines"',
        ",,",
        '"c",x,"3.jpg"',
        "d,007,4.jpg,2024,5,",
    ]
    catalogue = read_catalogue(write(header, *rows))
    full = [row + "," * (5 - row.count(",")) for row in rows]
    assert catalogue.entries == read_catalogue(write(header, *full)).entries
    assert [(e.photo_id, e.identity, e.taken_at) for e in catalogue.entries] == [
        ("a", "x", None),
        ("b", "x", "2024-05-31"),
        ("c", "x", None),
        ("d", "007", "2024"),
    ]
    assert catalogue.warnings == (
        "rows with fewer fields than the header, read with empty cells at their end: 2 (first: row 2)",
    )


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(lengths=st.lists(st.integers(3, 6), min_size=1, max_size=8), ending=st.sampled_from(["\n", "\r\n"]))
def test_short_rows_stay_in_their_places(write: Write, lengths: list[int], ending: str) -> None:
    """Naive oracle: the same rows with every cell written."""
    rows = [[f"p{i}", f"n{i}", f"{i}.jpg", "e", "2024", "left"][:n] for i, n in enumerate(lengths)]
    header = HEADER + ",encounter,date,viewpoint"
    short = read_catalogue(write(ending.join([header, *map(",".join, rows), ""])))
    full = read_catalogue(write(ending.join([header, *(",".join([*r, "", "", ""][:6]) for r in rows), ""])))
    assert short.entries == full.entries


def test_a_short_row_with_an_open_quote_is_told(write: Write) -> None:
    found = kinds_and_places(write(HEADER + ",notes", 'a,x,1.jpg,6" lens', 'b,x,"2.jpg', "c,x,3.jpg,"))
    assert found == [("wrong number of fields", "row 3")]


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;", "sep=;,,"])
@pytest.mark.parametrize("ending", ["", "\r"])
def test_a_line_that_names_the_separator(write: Write, line: str, ending: str) -> None:
    rows = ["image_id;identity;path;a,b,c,d,e", "1;A;a.jpg;x", "2;A;/b.jpg;x"]
    assert kinds_and_places(write(*(each + ending for each in (line, *rows)))) == [
        ("path outside root", "row 4, column path")
    ]
    catalogue = read_catalogue(write("sep=|", "image_id|identity|path", "1|A|a;b;c;d.jpg"))
    assert catalogue.entries == (CatalogueEntry("1", "a;b;c;d.jpg", "A"),)


def test_an_open_quote_is_found_even_where_the_field_count_fits(write: Write) -> None:
    source = write(
        HEADER + ",notes", "a,x,1.jpg,fine", 'b,x,2.jpg,"open', "c,x,3.jpg,swallowed", "d,x,4.jpg,swallowed"
    )
    assert kinds_and_places(source) == [("open quote", "row 3")]


def test_a_lone_quote_inside_a_field_is_no_problem(write: Write) -> None:
    assert len(read_catalogue(write(HEADER + ",notes", 'a,x,1.jpg,6" lens', "b,y,2.jpg,")).entries) == 2


def test_doubled_columns(write: Write) -> None:
    assert kinds_and_places(write("image_id,identity,path,Identity", "a,x,1.jpg,y")) == [
        ("doubled column", "header, column identity")
    ]


def test_bytes_that_are_not_utf8(write: Write) -> None:
    source = write(HEADER, "a,Ren\u00e9,1.jpg", "b,x,2.jpg", "c,Zo\u00eb,/3.jpg", encoding="latin-1")
    assert kinds_and_places(source) == [
        ("wrong encoding", "line 2"),
        ("wrong encoding", "line 4"),
        ("path outside root", "row 4, column path"),
    ]
    assert kinds_and_places(write(HEADER, "a,x,1.jpg", encoding="utf-16")) == [("wrong encoding", "the file")]


@pytest.mark.parametrize("lines", [[], ["", ""], [HEADER], [HEADER, "", ",,"]])
def test_empty_catalogues(write: Write, lines: list[str]) -> None:
    assert kinds_and_places(write(*lines)) == [("empty catalogue", "the file")]


def test_wrong_column_types_in_parquet(write_parquet: Callable[..., str]) -> None:
    source = write_parquet(image_id=["a", "b"], identity=[["x"], ["y"]], path=[b"1.jpg", b"2.jpg"])
    found = kinds_and_places(source)
    assert ("wrong column type", "column identity") in found
    assert ("wrong column type", "column path") in found


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.xlsx", b"PK", "unknown format"),
        ("a.csv.gz", b"\x1f\x8b", "unknown format"),
        ("a", b"x", "unknown format"),
        ("a.parquet", b"PAR1 torn", "unreadable file"),
        ("a.csv", b"", "empty catalogue"),
        ("missing.csv", None, "no such file"),
    ],
)
def test_files_that_are_no_catalogue(tmp_path: Path, name: str, content: bytes | None, kind: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert [problem.kind for problem in problems_of(str(tmp_path / name))] == [kind]


@pytest.mark.parametrize(
    "source", ["nowhere://x/y.csv", "zip://y.csv::/tmp/x.zip", "memory://nothing/there.csv"]
)
def test_urls_that_cannot_be_read(source: str) -> None:
    assert len(problems_of(source)) == 1


def test_a_folder_and_a_missing_root(write: Write, tmp_path: Path) -> None:
    (problem,) = problems_of(str(tmp_path))
    assert "folder" in problem.what
    assert "metadata.csv" in problem.cure
    (problem,) = problems_of(write(HEADER, "a,x,1.jpg"), str(tmp_path / "nowhere"))
    assert problem.kind == "no such root"


def test_ten_kinds_of_problems_are_listed_at_once(write: Write) -> None:
    source = write(
        HEADER + ",bbox,theta,w",
        'a,x,1.jpg,"[1, 2, 3, 4]",0,',
        'a,x,2.jpg,"[1, 2, 3, 4]",0,',
        ",x,3.jpg,,0,",
        "d,x,,,0,",
        "e,x,../5.jpg,,0,",
        'f,x,6.jpg,"[.1, .2, .3, .4]",0,',
        "g,x,7.jpg,[],0,",
        "h,x,8.jpg,,north,",
        "i,x,9.jpg,,0,,",
        f"{'j' * 600},x,10.jpg,,0,",
        "k,a\tb,11.jpg,,0,",
    )
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(source)
    kinds = [
        "doubled image_id", "empty image_id", "empty path", "path outside root", "mixed boxes", "bad box", "bad theta",
        "wrong number of fields", "too long", "control characters",
    ]  # fmt: skip
    assert sorted(problem.kind for problem in caught.value.problems) == sorted(kinds)
    text = str(caught.value)
    assert "10 problems" in text
    assert source in text
    for problem in caught.value.problems:
        assert f"{problem.kind} (1)" in text
        assert f"{problem.where}: {problem.what}" in text
        assert problem.cure in text


def test_every_broken_row_of_many_is_found(write: Write) -> None:
    """Naive oracle: rows broken at random places are exactly the rows that are named."""
    chance = random.Random(7)
    broken = {i: chance.choice(["short", "path", "theta"]) for i in range(2, 502) if chance.random() < 0.1}
    rows = {"short": "p{0},x", "path": "p{0},x,/{0}.jpg,0", "theta": "p{0},x,{0}.jpg,?"}
    source = write(
        HEADER + ",theta", *(rows.get(broken.get(i, ""), "p{0},x,{0}.jpg,0").format(i) for i in range(2, 502))
    )
    found = problems_of(source)
    assert sorted(int(problem.where.split(",")[0].removeprefix("row ")) for problem in found) == sorted(
        broken
    )


CELLS = st.sampled_from(
    [
        *"ab012,;\t\n\r\"'[]()./\\~ \x00é",
        "[1, 2, 3, 4]",
        "0.5",
        "nan",
        "../",
        "1.jpg",
        "\n",
        "\n",
        ",",
        ",",
        ",",
        "\ufeff",
        "2024",
    ]
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    header=st.sampled_from(["", HEADER + "\n", HEADER + ",bbox,theta,date\n", HEADER + ",x,y,w,h\n"]),
    body=st.lists(CELLS, max_size=40).map("".join),
    noise=st.binary(max_size=3),
)
def test_any_text_is_a_catalogue_or_is_refused(write: Write, header: str, body: str, noise: bytes) -> None:
    source = write("")
    Path(source).write_bytes((header + body).encode() + noise)
    try:
        catalogue = read_catalogue(source)
    except CatalogueError:
        return
    assert all(entry.photo_id and not entry.path.startswith("/") for entry in catalogue.entries)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_damaged_parquet_file_is_a_catalogue_or_is_refused(
    write_parquet: Callable[..., str], data: st.DataObject
) -> None:
    source = write_parquet(
        image_id=["a", "b"], identity=["x", None], path=["1.jpg", "2.jpg"], bbox=[[1, 2, 3, 4], None]
    )
    content = bytearray(Path(source).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    Path(source).write_bytes(content)
    with contextlib.suppress(CatalogueError):
        read_catalogue(source)


# ------------------------------------------------------------------------------------- warnings and values


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a,Ayo,1.jpg", "b,Ayo,2.jpg"], "one animal, 'Ayo'"),
        (["a,,1.jpg", "b,unknown,2.jpg"], "no photo has a known identity"),
        (["a,x,1.jpg", "b,y,2.jpg", "c,,3.jpg", "d,,4.jpg", "e,,5.jpg"], "60% of the photos"),
        (["a,x,1.jpg", "b,y,./1.jpg"], "share one path and box: '1.jpg'"),
        (
            ["a,Ayo,1.jpg", "b,AYO ,2.jpg"],
            "differ only in spelling count as different animals: 'AYO' / 'Ayo'",
        ),
        (["a,Björk,1.jpg", "b,Bjo\u0308rk,2.jpg"], "differ only in spelling"),
    ],
)
def test_warnings(write: Write, rows: list[str], says: str) -> None:
    (warning,) = read_catalogue(write(HEADER, *rows)).warnings
    assert says in warning


def test_one_photo_with_two_boxes_is_no_duplicate(write: Write) -> None:
    rows = ["a,x,1.jpg,1,2,30,40", "b,y,1.jpg,50,2,30,40"]
    assert read_catalogue(write(HEADER + ",x,y,w,h", *rows)).warnings == ()


def test_theta_in_degrees_is_suspected(write: Write) -> None:
    (warning,) = read_catalogue(write(HEADER + ",theta", "a,x,1.jpg,90", "b,y,2.jpg,0.1")).warnings
    assert "degrees" in warning
    assert "1 of 2" in warning


def test_values_validate_themselves() -> None:
    with pytest.raises(ValueError, match="photo id"):
        CatalogueEntry("", "1.jpg")
    with pytest.raises(ValueError, match=r"\.\."):
        CatalogueEntry("a", "../1.jpg")
    with pytest.raises(ValueError, match="no area"):
        CatalogueEntry("a", "1.jpg", box=(1, 2, 0, 4))
    with pytest.raises(ValueError, match="theta"):
        CatalogueEntry("a", "1.jpg", theta=float("nan"))
    a, b = CatalogueEntry("a", "1.jpg"), CatalogueEntry("b", "1.jpg")
    assert Catalogue("/r", (a, b)).entries == (a, b)
    for entries in ((), (b, a), (a, a)):
        with pytest.raises(ValueError, match="catalogue"):
            Catalogue("/r", entries)
