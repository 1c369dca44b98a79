"""Corrected catalogues: only the names that changed differ, byte by byte, in every format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue.reader import read_catalogue
from schemas.catalogue.reading import AS_NAMED, Reading
from schemas.catalogue.writing.corrected import Corrected, corrected
from schemas.catalogue.writing.corrections import Corrections
from schemas.catalogue.writing.csv_text import CsvText
from schemas.errors import SettingsError


def rewritten(
    file: Path,
    names: Mapping[str, str | None] | None = None,
    dropped: set[str] | None = None,
    reading: Reading = AS_NAMED,
) -> Corrected:
    """What comes of some corrections; the files were read again by then."""
    catalogue = read_catalogue(str(file), None, reading)
    return corrected(str(file), catalogue, Corrections(names or {}, frozenset(dropped or ())), reading)


def only(found: Corrected) -> bytes:
    assert found.refused == {}
    (data,) = found.files.values()
    return data


CSV = (
    b"\xef\xbb\xbfpath;Identity ;note;image_id\r\n"
    b'"a/1.jpg";"Ayo";"two\r\nlines; ""quoted""";1\r\n'
    b"\r\n"
    b"a/2.jpg;Bo;;2\n"
    b"a/3.jpg;n/a;x;3\r\n"
    b'a/4.jpg;  Bo ;"";4'
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "c.csv"
    file.write_bytes(CSV)
    return file


def test_single_cells_of_a_csv_change_and_nothing_else(table: Path) -> None:
    assert only(rewritten(table)) == CSV
    found = only(rewritten(table, {"1": 'B;"o"', "2": None}))
    assert found == CSV.replace(b'"Ayo"', b'"B;""o"""').replace(b"2.jpg;Bo;;2", b"2.jpg;n/a;;2")


@pytest.mark.parametrize(
    ("photo", "gone"),
    [
        ("1", b'"a/1.jpg";"Ayo";"two\r\nlines; ""quoted""";1\r\n'),
        ("2", b"a/2.jpg;Bo;;2\n"),
        ("4", b'\r\na/4.jpg;  Bo ;"";4'),
    ],
)
def test_a_dropped_row_goes_with_its_line_end(table: Path, photo: str, gone: bytes) -> None:
    assert only(rewritten(table, dropped={photo})) == CSV.replace(gone, b"")


@pytest.mark.parametrize(
    "above",
    [
        b"\nsep=|\n",
        b"Lions of 2024\n\n",
        b"\xef\xbb\xbfLions, all| of them,,\r\n",
        b'"Lions\nof ""2024"""\nsep=|\n',
        b"# a, b\n#\n",
        b"# ",
    ],
)
def test_what_stands_above_the_header_stays(tmp_path: Path, above: bytes) -> None:
    file = tmp_path / "c.csv"
    data = above + b"image_id|identity|path\n1|A|1.jpg\n2|B|2.jpg\n3|C|3.jpg"
    file.write_bytes(data)
    found = only(rewritten(file, {"2": "A"}, {"3"}))
    assert found == data.replace(b"2|B", b"2|A").removesuffix(b"\n3|C|3.jpg")


BOXED = (
    b"path,who,bbox\n"
    b'1.jpg,A,"[1, 2, 3, 4]"\n'
    b'1.jpg,B,"[5, 6, 7, 8]"\n'
    b"2.jpg,new_whale,\n"
)  # fmt: skip


@pytest.mark.parametrize("ids", [b"", b"image_id,"])
def test_photos_whose_ids_are_made_are_found_again(tmp_path: Path, ids: bytes) -> None:
    file = tmp_path / "c.csv"
    data = BOXED
    if ids:
        data = (
            BOXED.replace(b"path,", b"image_id,path,").replace(b"\n1.", b"\n1,1.").replace(b"\n2", b"\n2,2")
        )
    file.write_bytes(data)
    one, two = ("1", "2") if ids else ("1.jpg", "2.jpg")
    reading = Reading((("identity", "who"),), unknown_names=("new_whale",))
    found = only(rewritten(file, {f"{one}/5,6,7,8": None, two: "A"}, None, reading))
    assert found == data.replace(b"B,", b",").replace(b"new_whale", b"A")
    found = only(rewritten(file, None, {two}, reading))
    assert found == b"".join(data.splitlines(keepends=True)[:-1])


def test_the_first_photo_of_an_encounter_by_time_can_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    rows = [f"{i}.jpg,A,s,2024-05-01T10:0{i}\n" for i in range(3)]
    file.write_text("".join(["path,identity,station,date\n", *rows]))
    found = only(rewritten(file, None, {"0.jpg"}, Reading(encounter_gap=5)))
    assert found.decode() == file.read_text().replace(rows[0], "")


@pytest.mark.parametrize("name", ["c.csv", "c.json"])
def test_what_is_not_utf_8_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    text = COCO if name == "c.json" else "image_id,path,identity\n3,3.jpg,A\n"
    file.write_bytes(text.encode("utf-16"))
    with pytest.raises(SettingsError, match="not UTF-8"):
        rewritten(file, {"3": "Bo"})


def test_a_cell_that_a_short_row_lacks_is_added(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    data = b"image_id,path,species,identity\n1,1.jpg\n2,2.jpg,zebra,B\n"
    file.write_bytes(data)
    assert only(rewritten(file, {"1": "B"})) == data.replace(b"1.jpg\n", b"1.jpg,,B\n")


def test_a_name_that_a_spreadsheet_would_run_is_written_as_text_and_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes(b"image_id,path,identity\n1,1.jpg,A\n2,2.jpg,B\n")
    assert b"1.jpg,'=A1\n" in only(rewritten(file, {"1": "=A1"}))


@pytest.mark.parametrize("name", ["12.0", "unknown", " A", "a\tb"])
def test_a_name_that_would_read_as_another_is_not_written(table: Path, name: str) -> None:
    found = rewritten(table, {"1": name, "2": "Cy"})
    assert set(found.refused) == {"1"}
    assert found.files["c.csv"] == CSV.replace(b"2.jpg;Bo", b"2.jpg;Cy")


CELL = st.lists(st.sampled_from(["a", "é", " ", ",", ";", '"', "\n", "\r\n", "'", "="]), max_size=5).map(
    "".join
)


@given(
    st.lists(st.tuples(CELL, CELL, st.booleans()), min_size=1, max_size=5),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(max_examples=150, deadline=None)
def test_the_places_of_cells_are_those_of_pythons_reader(
    rows: list[tuple[str, str, bool]], separator: str, end: str, quoting: Any
) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(["one", "two", "three"])
    writer.writerows((a, b, "x") for a, b, _ in rows)
    text = CsvText(stream.getvalue().encode(), ["one", "two", "three"])
    assert text.column("two") == [b for _, b, _ in rows]
    assert text.data() == stream.getvalue().encode()
    for number, (_, _, changed) in enumerate(rows, 2):
        if changed:
            text.set(number, "TWO", "new")
    found = list(csv.reader(io.StringIO(text.data().decode(), newline=""), delimiter=separator))
    assert found[1:] == [[a, "new" if changed else b, "x"] for a, b, changed in rows]


def test_a_file_whose_header_is_not_the_readers_is_refused() -> None:
    with pytest.raises(SettingsError, match="header"):
        CsvText(b"a,b\n1,2\n", ["a", "c"])


@pytest.mark.parametrize("kind", ["text", "categories", "numbers"])
def test_parquet_keeps_types_and_other_columns(tmp_path: Path, kind: str) -> None:
    names = pa.array([7, 8, None], pa.int64()) if kind == "numbers" else pa.array(["7", "8", None])
    if kind == "categories":
        names = names.dictionary_encode()
    table = pa.table(
        {"path": ["1.jpg", "2.jpg", "3.jpg"], "identity": names, "image_id": [1, 2, 3], "z": [1.5, None, 0.0]}
    )
    table = table.replace_schema_metadata({"pandas": "{}"})
    file = tmp_path / "c.parquet"
    pq.write_table(table, file, compression="zstd", row_group_size=2)
    assert only(rewritten(file)) == file.read_bytes()
    found = pq.ParquetFile(io.BytesIO(only(rewritten(file, {"1": "8", "2": None}, {"3"}))))
    again = found.read()
    assert again.schema.equals(table.schema, check_metadata=True)
    assert [str(v) for v in again["identity"].to_pylist()] == ["8", "None"]
    assert again.drop(["identity"]).equals(table.drop(["identity"]).slice(0, 2))
    assert found.metadata.row_group(0).column(0).compression == "ZSTD"
    refused = rewritten(file, {"1": "Bo"}).refused
    assert set(refused) == ({"1"} if kind == "numbers" else set())


COCO = """{
 "info": {"x": 1.50},
 "images": [
  {"id": 1, "file_name": "1.jpg"},   {"id":2,"file_name":"2.jpg"},
  {"id": "3", "file_name": "3.jpg"}
 ],
 "categories": [],
 "annotations": [{"id": 1, "image_id": 1.0, "identity": "Ayo", "bbox": [1e1, 2, 3, 4]},
  {"id": 2, "image_id": 1, "identity": "B\\u00f6", "bbox": [10, 20, 3, 4]}
  ,{"id": 3, "image_id": 2, "identity": 12 , "s": NaN},
  {"image_id": 3, "id": 4}]
}
"""


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    file = tmp_path / "c.json"
    file.write_text(COCO)
    return file


def test_single_values_of_json_change_and_nothing_else(coco: Path) -> None:
    assert only(rewritten(coco)).decode() == COCO
    found = only(rewritten(coco, {"1/1": "Bjö", "1/2": None, "2": "13", "3": "Ayo"})).decode()
    expected = COCO.replace('"Ayo"', '"Bj\\u00f6"', 1).replace('"B\\u00f6"', "null").replace("12 ,", "13 ,")
    assert found == expected.replace('{"image_id": 3', '{"identity": "Ayo", "image_id": 3')


def test_dropped_annotations_go_with_images_that_have_no_other(coco: Path) -> None:
    found = json.loads(only(rewritten(coco, dropped={"3"})))
    assert [each["id"] for each in found["annotations"]] == [1, 2, 3]
    assert [each["id"] for each in found["images"]] == [1, 2]
    found = json.loads(only(rewritten(coco, dropped={"1/1", "1/2", "2"})))
    assert ([each["id"] for each in found["annotations"]], len(found["images"])) == ([4], 1)
    # The other animal of the photo would become the photo itself.
    assert set(rewritten(coco, dropped={"1/2"}).refused) == {"1/2"}


@pytest.mark.parametrize(
    ("annotation", "image", "expected"),
    [
        ('{"id": 1, "image_id": 1, "attributes": {"Identity": "A", "x": 1}}', "", '"Identity": "B"'),
        ('{"id": 1, "image_id": 1, "individual_ids": [5]}', "", '"individual_ids": ["B"]'),
        ('{"id": 1, "image_id": 1}', ', "identity": "A"', '"file_name": "1.jpg", "identity": "B"'),
        ('{"id": 1, "image_id": 1, "name": null}', "", '"name": "B"'),
        # Animals without boxes are one entry, of one name.
        (
            '{"id": 1, "image_id": 1, "name": "A"}, {"id": 2, "image_id": 1, "name": "A"}',
            "",
            '"image_id": 1, "name": "B"}, {"id": 2, "image_id": 1, "name": "B"}',
        ),
    ],
)
def test_names_are_written_where_the_reader_finds_them(
    tmp_path: Path, annotation: str, image: str, expected: str
) -> None:
    file = tmp_path / "c.json"
    file.write_text(
        f'{{"images": [{{"id": 1, "file_name": "1.jpg"{image}}}], "annotations": [{annotation}]}}'
    )
    found = only(rewritten(file, {"1": "B"})).decode()
    assert expected in found
    assert set(found) <= set(file.read_text() + expected)


CAMTRAP = {
    "datapackage.json": json.dumps(
        {
            "profile": "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0/camtrap-dp-profile.json",
            "resources": [
                {"name": "deployments", "path": "deployments.csv"},
                {"name": "media", "path": "data/media.csv"},
                {"name": "observations", "path": ["data/observations.csv"]},
            ],
        }
    ),
    "deployments.csv": "deploymentID\r\nd1\r\n",
    "data/media.csv": "mediaID,deploymentID,timestamp,filePath,fileMediatype\n"
    + "".join(f"m{i},d1,2024-05-0{i}T10:00:00Z,{i}.jpg,image/jpeg\n" for i in range(1, 5)),
    "data/observations.csv": (
        "observationID,deploymentID,mediaID,eventID,eventStart,eventEnd,observationLevel,observationType,individualID\n"
        "o1,d1,m1,e1,2024-05-01T00:00:00Z,2024-05-01T23:00:00Z,media,animal,Ayo\n"
        'o2,d1,m2,e2,2024-05-02T00:00:00Z,2024-05-02T23:00:00Z,media,"animal",""\n'
        "o3,d1,,e3,2024-05-03T00:00:00Z,2024-05-04T23:00:00Z,event,animal,Cy\n"
    ),
}


@pytest.fixture
def camtrap(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    for name, text in CAMTRAP.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def test_observations_of_camtrap_dp_get_other_names(camtrap: Path) -> None:
    assert rewritten(camtrap).files == {name: text.encode() for name, text in CAMTRAP.items()}
    found = rewritten(camtrap, {"m1": "Bo", "m2": "Di", "m3": "Ed"})
    assert set(found.refused) == {"m3"}
    assert "row 4 names 2 photos at once" in found.refused["m3"]
    text = CAMTRAP["data/observations.csv"].replace("Ayo", "Bo").replace('"animal",""', '"animal","Di"')
    assert found.files == {
        name: (text if name == "data/observations.csv" else given).encode() for name, given in CAMTRAP.items()
    }
    both = rewritten(camtrap, {"m3": "Ed", "m4": "Ed"})
    assert both.files["data/observations.csv"].endswith(b"event,animal,Ed\n")


def test_dropped_media_go_with_their_observations(camtrap: Path) -> None:
    found = rewritten(camtrap, dropped={"m1", "m3"})
    assert found.refused == {}
    media = found.files["data/media.csv"].decode().splitlines()
    assert [line.split(",")[0] for line in media] == ["mediaID", "m2", "m4"]
    observations = found.files["data/observations.csv"].decode().splitlines()
    assert [line.split(",")[0] for line in observations] == ["observationID", "o2", "o3"]


WILDBOOK = (
    "Encounter.mediaAsset0,Encounter.mediaAsset1,Annotation0.bbox,MarkedIndividual.individualID,Encounter.genus\n"
    "1.jpg,2.jpg,,Ayo,Equus\n"
    '3.jpg,,"[1, 2, 3, 4]",,Equus\n'
)


def test_rows_of_wildbook_are_renamed_whole(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text(WILDBOOK)
    assert only(rewritten(file)).decode() == WILDBOOK
    found = only(rewritten(file, {"1.jpg": "Bo", "2.jpg": "Bo", "3.jpg": "Ayo"})).decode()
    assert found == WILDBOOK.replace("Ayo", "Bo").replace('4]",,', '4]",Ayo,')
    assert set(rewritten(file, {"1.jpg": "Bo"}).refused) == {"1.jpg"}
    assert only(rewritten(file, {"1.jpg": "Bo"}, {"2.jpg"})).decode() == WILDBOOK.replace(
        "1.jpg,2.jpg,,Ayo", "1.jpg,,,Bo"
    )
    assert only(rewritten(file, dropped={"3.jpg"})).decode() == WILDBOOK[: WILDBOOK.index("3.jpg")]


def test_not_all_photos_can_be_left_out(table: Path) -> None:
    with pytest.raises(SettingsError, match="all photos"):
        rewritten(table, dropped={"1", "2", "3", "4"})
