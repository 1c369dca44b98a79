"""Columns that a person says the meaning of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.catalogue.reading import Reading, meanings_of
from schemas.errors import CatalogueError, SettingsError
from schemas.settings import Settings

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*lines: str, name: str = "c.csv") -> str:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write


def read(source: str, *columns: str) -> Catalogue:
    return read_catalogue(source, None, Reading.of(Settings(columns=columns)))


def problem(source: str, *columns: str) -> tuple[str, str, str, str]:
    with pytest.raises(CatalogueError) as error:
        read(source, *columns)
    (found,) = error.value.problems
    return found.kind, found.where, found.what, found.cure


CAMTRAPR = (
    "Station,Species,Individual,DateTimeOriginal,Directory,FileName",
    "A1,leopard,F7,2024-05-31 12:00:00,/x,a.jpg",
    "A1,leopard,,2024-05-31 12:01:00,/x,b.jpg",
)
CHOSEN = ("identity=Individual", "path=FileName", "image_id=FileName")


def test_a_table_is_read_as_it_is(write: Write) -> None:
    catalogue = read(write(*CAMTRAPR), *CHOSEN)
    assert [(e.photo_id, e.path, e.identity, e.species, e.taken_at) for e in catalogue.entries] == [
        ("a.jpg", "a.jpg", "F7", "leopard", "2024-05-31T12:00:00"),
        ("b.jpg", "b.jpg", None, "leopard", "2024-05-31T12:01:00"),
    ]
    assert catalogue.used == (
        ("image_id", "FileName"),
        ("identity", "Individual"),
        ("path", "FileName"),
        ("species", "Species"),
        ("date", "DateTimeOriginal"),
    )
    assert (catalogue.kept, catalogue.unused) == (("Station", "Directory"), ())


def test_parquet_and_csv_agree_and_case_does_not_matter(write: Write, tmp_path: Path) -> None:
    source = write(*CAMTRAPR)
    rows = [line.split(",") for line in CAMTRAPR]
    columns = {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    low = [text.lower() for text in CHOSEN]
    assert read(str(tmp_path / "c.parquet"), *low).entries == read(source, *CHOSEN).entries


def test_a_chosen_column_goes_before_the_usual_one_which_is_kept(write: Write) -> None:
    source = write("image_id,identity,turtle_id,path", "a,site 1,T1,1.jpg", "b,site 1,T2,2.jpg")
    catalogue = read(source, "identity=turtle_id")
    assert [e.identity for e in catalogue.entries] == ["T1", "T2"]
    assert [e.extra for e in catalogue.entries] == ["identity\x1fsite 1"] * 2
    assert "column identity is not read as identity: --column says that turtle_id is" in catalogue.warnings


def test_a_chosen_column_means_nothing_else(write: Write) -> None:
    source = write("image_id,name,individual_id,path", "a,Leo,7,1.jpg")
    (entry,) = read(source, "species=name").entries
    assert (entry.species, entry.identity) == ("Leo", "7")


@pytest.mark.parametrize(
    ("columns", "box"),
    [
        (("bbox=crop",), (5.0, 6.0, 7.0, 8.0)),
        (("xmin=l", "ymin=t", "xmax=r", "ymax=b"), (1.0, 2.0, 30.0, 40.0)),
        (("w=ww", "h=hh"), (9.0, 10.0, 11.0, 12.0)),
        ((), (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_chosen_boxes(write: Write, columns: tuple[str, ...], box: tuple[float, ...]) -> None:
    source = write(
        "image_id,identity,path,crop,l,t,r,b,x,y,ww,hh,bbox",
        'a,x,1.jpg,"[5,6,7,8]",1,2,31,42,9,10,11,12,"[0,0,1,1]"',
    )
    catalogue = read(source, *columns)
    assert catalogue.entries[0].box == box
    assert not any("look like boxes" in text and "crop" in text for text in catalogue.warnings if columns)


def test_a_box_of_which_sides_are_lacking(write: Write) -> None:
    source = write("image_id,identity,path,l,bbox", 'a,x,1.jpg,1,"[0,0,9,9]"')
    kind, where, what, cure = problem(source, "xmin=l")
    assert (kind, where) == ("incomplete box columns", "--column xmin")
    assert what == "a box of xmin, ymin, xmax, ymax lacks ymin, xmax, ymax"
    assert "--column ymin=…" in cure
    assert problem(source, "xmin=l", "h=l")[2] == "no box is made of h, xmin"


def test_a_column_that_is_not_there(write: Write) -> None:
    source = write("image_id,turtle_id,path", "a,T,1.jpg")
    assert problem(source, "identity=turtel_id") == (
        "no such column",
        "--column identity=turtel_id",
        "the file has no column 'turtel_id' that can be read; its columns are image_id, turtle_id, path",
        "--column identity=turtle_id is near",
    )
    assert problem(source, "identity=zebra")[3] == "name one of the file's columns"
    assert "say which one it is, as --column identity=COLUMN" in problem(source)[3]


def test_pairs_that_say_nothing_are_all_told_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        meanings_of(["identity", "colour=x", "path=a", "path=b", "=x", "date="])
    text = str(error.value)
    for said in (
        "'identity' is not MEANING=COLUMN",
        "'colour' is no meaning",
        "path is given twice",
        "'=x'",
        "'date='",
    ):
        assert said in text
    assert "image_id, identity, path, theta, species, date, encounter, viewpoint, keywords, station" in text
    assert meanings_of(["Identity = my = name"]) == (("identity", "my = name"),)


def test_formats_with_fields_of_their_own_refuse_it(write: Write, tmp_path: Path) -> None:
    wildbook = write("Encounter.mediaAsset0,MarkedIndividual.individualID", "a.jpg,X")
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "name": "X"}],
    }
    other = write(json.dumps(coco), name="c.json")
    for source, name in ((wildbook, "Wildbook"), (other, "COCO Camera Traps")):
        kind, where, what, cure = problem(source, "identity=name")
        assert (kind, where) == ("column chosen in vain", "--column identity=name")
        assert what.startswith(f"the file is {name}, whose own fields")
        assert "leave --column out" in cure
        assert dict(read(source).used)["path"] in ("Encounter.mediaAssetN", "file_name")
