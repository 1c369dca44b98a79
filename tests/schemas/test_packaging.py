"""Catalogues in archives, workbooks and other dialects read as the table in them; what cannot be is refused."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.errors import CatalogueError

TABLE = "image_id,identity,path,date\n1,Märta,a.jpg,2024-05-31\n2,Bo,b.jpg,2024-06-01\n"
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "name": "Märta"}],
    "categories": [{"id": 1, "name": "lynx"}],
}
MEDIA = "mediaID,deploymentID,timestamp,filePath,fileMediatype\nm1,d1,2024-05-31,ä.jpg,image/jpeg\n"
OBSERVATIONS = "observationID,mediaID,observationType,individualID\no1,m1,animal,Märta\n"


def package(**described: Any) -> bytes:
    resources = [{"name": name, "path": f"{name}.csv", **described} for name in ("media", "observations")]
    return json.dumps({"resources": resources}).encode()


def zipped(path: Path, members: Mapping[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def seen(catalogue: Catalogue) -> list[tuple[str | None, str, str | None]]:
    return [(e.identity, e.path, e.taken_at) for e in catalogue.entries]


def refused(source: str) -> str:
    with pytest.raises(CatalogueError) as error:
        read_catalogue(source)
    assert len(error.value.problems) == 1
    return str(error.value)


BOTH = [("Märta", "a.jpg", "2024-05-31"), ("Bo", "b.jpg", "2024-06-01")]


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("t.csv.gz", gzip.compress(TABLE.encode(), mtime=0), BOTH),
        ("t.tsv.gz", gzip.compress(TABLE.replace(",", "\t").encode(), mtime=0), BOTH),
        ("t.csv", gzip.compress(TABLE.encode(), mtime=0), BOTH),
        ("t.json.gz", gzip.compress(json.dumps(COCO).encode(), mtime=0), [("Märta", "a.jpg", None)]),
        ("utf16.csv", TABLE.encode("utf-16"), BOTH),
        ("utf16be.csv", b"\xfe\xff" + TABLE.encode("utf-16-be"), BOTH),
        ("without a mark.csv", TABLE.encode("utf-16-le"), BOTH),
        ("utf32.csv", TABLE.encode("utf-32"), BOTH),
        ("utf16.json", json.dumps(COCO, ensure_ascii=False).encode("utf-16"), [("Märta", "a.jpg", None)]),
        ("pipes.txt", TABLE.replace(",", "|").encode(), BOTH),
        ("title.csv", b"Lions of 2024, all of them\n\n" + TABLE.encode(), BOTH),
        ("semicolons.csv", b"Lions, all, of, them, in 2024;\n" + TABLE.replace(",", ";").encode(), BOTH),
        ("header in a comment.csv", b"# " + TABLE.encode(), BOTH),
        ("joined.csv", TABLE.encode().replace(b"\n2", b"\nimage_id,identity,path,date\n2"), BOTH),
        ("comments.csv", b"# a, b, c\n#\n" + TABLE.encode() + b"# the end\n", BOTH),
    ],
)  # fmt: skip
def test_one_table_in_many_packings(
    tmp_path: Path, name: str, data: bytes, found: list[tuple[str | None, str, str | None]]
) -> None:
    (tmp_path / name).write_bytes(data)
    catalogue = read_catalogue(str(tmp_path / name))
    assert seen(catalogue) == found
    assert catalogue.root == str(tmp_path)


def test_a_space_before_a_quote_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('image_id, identity, path\n1, "Ana, the old", a.jpg\n2,B,b.jpg\n')
    assert "without a space before the quote" in refused(str(tmp_path / "t.csv"))


def test_rows_keep_their_numbers_below_titles_and_comments(tmp_path: Path) -> None:
    text = "# exported\n# today\nimage_id,identity,path\n1,Ayo,a.jpg\n# half\n2,Bo,../b.jpg\n"
    (tmp_path / "t.csv").write_text(text)
    assert "row 6, column path" in refused(str(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_text(text.replace("../", ""))
    assert read_catalogue(str(tmp_path / "t.csv")).warnings == (
        "rows above the header that are not read: 2 ('# exported')",
        "lines of comments left out: 1",
    )


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ({"lions.csv": TABLE.encode()}, ""),
        ({"export/lions.csv": TABLE.encode(), "export/README.txt": b"x", "__MACOSX/._lions.csv": b"x"}, ""),
        ({"export/metadata.csv": TABLE.encode(), "export/deployments.csv": b"x"}, ""),
        ({"old.csv": b"x", "new/lions.csv": TABLE.encode()}, "#new/lions.csv"),
        ({"lions.csv.gz": gzip.compress(TABLE.encode(), mtime=0)}, ""),
    ],
)
def test_the_table_in_an_archive(tmp_path: Path, members: dict[str, bytes], part: str) -> None:
    catalogue = read_catalogue(zipped(tmp_path / "export.zip", members) + part)
    assert seen(catalogue) == BOTH
    assert catalogue.root == str(tmp_path)


@pytest.mark.parametrize("folder", ["", "my package/"])
def test_a_package_in_an_archive(tmp_path: Path, folder: str) -> None:
    members = {
        "datapackage.json": package(),
        "media.csv": MEDIA.encode(),
        "observations.csv": OBSERVATIONS.encode(),
    }
    source = zipped(tmp_path / "export.zip", {folder + name: data for name, data in members.items()})
    assert seen(read_catalogue(source)) == [("Märta", "ä.jpg", "2024-05-31")]
    source = zipped(tmp_path / "less.zip", {"datapackage.json": package(), "media.csv": MEDIA.encode()})
    assert "it holds no 'observations.csv'" in refused(source)


@pytest.mark.parametrize(
    ("members", "says", "cure"),
    [
        ({"a.csv": b"x", "b/c.csv": b"y"}, "it holds a.csv, b/c.csv", "export.zip#a.csv"),
        ({"metadata.csv": TABLE.encode(), "a.jpg": b"x"}, "1 photos, such as a.jpg", "unpack it"),
        ({"README.txt": b"x"}, "it holds no catalogue, but README.txt", "put a table"),
        ({}, "it is empty", "put a table"),
        ({"lions.csv": b"PK\x05\x06" + bytes(18)}, "lions.csv is an archive", "unpack it"),
    ],
)
def test_archives_that_are_not_read_name_the_cure(
    tmp_path: Path, members: dict[str, bytes], says: str, cure: str
) -> None:
    said = refused(zipped(tmp_path / "export.zip", members))
    assert says in said
    assert cure in said


def test_what_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.catalogue.files.documents.MOST_BYTES", 1000)
    monkeypatch.setattr("schemas.catalogue.files.archives.MOST_BYTES", 1000)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(bytes(2000), mtime=0))
    assert "unpacks to more than" in refused(str(tmp_path / "a.csv.gz"))
    assert "a.csv in it unpacks to more than" in refused(zipped(tmp_path / "a.zip", {"a.csv": bytes(2000)}))


def test_an_encrypted_archive(tmp_path: Path) -> None:
    data = bytearray(Path(zipped(tmp_path / "a.zip", {"lions.csv": TABLE.encode()})).read_bytes())
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "lions.csv in it is encrypted" in refused(str(tmp_path / "a.zip"))


@pytest.mark.parametrize(
    ("dialect", "encoding", "turned"),
    [
        ({"delimiter": "|"}, "utf-8", lambda text: text.replace(",", "|")),
        ({"csv": {"delimiter": ";"}}, "utf-8", lambda text: text.replace(",", ";")),
        (
            {"delimiter": "\t", "quoteChar": "'"},
            "utf-8",
            lambda text: text.replace(",", "\t").replace("Märta", "'Märta'"),
        ),
        ({"quoteChar": "'"}, "utf-8", lambda text: text.replace("ä.jpg", "'ä.jpg'")),
        ({"commentChar": "%"}, "utf-8", lambda text: "% a,b,c\n" + text + "% x,y\n"),
        ({}, "iso-8859-1", str),
        ({}, "windows-1252", str),
        ({}, "utf-16", str),
        ({"delimiter": ";"}, "mac-roman", lambda text: text.replace(",", ";")),
    ],
)
def test_dialects_that_a_package_declares(
    tmp_path: Path, dialect: dict[str, Any], encoding: str, turned: Any
) -> None:
    (tmp_path / "datapackage.json").write_bytes(package(dialect=dialect, encoding=encoding))
    for name, text in (("media", MEDIA), ("observations", OBSERVATIONS)):
        (tmp_path / f"{name}.csv").write_bytes(turned(text).encode(encoding))
    assert seen(read_catalogue(str(tmp_path))) == [("Märta", "ä.jpg", "2024-05-31")]


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({"encoding": "rot13"}, "declares the encoding 'rot13', which is not known"),
        ({"encoding": "klingon"}, "declares the encoding 'klingon'"),
        ({"dialect": {"delimiter": "::"}}, "field delimiter: it is '::'"),
        ({"dialect": {"header": False}}, "the table has no header"),
        ({"dialect": "dialect.json"}, "it names 'dialect.json'"),
    ],
)
def test_dialects_that_are_not_understood(tmp_path: Path, described: dict[str, Any], says: str) -> None:
    (tmp_path / "datapackage.json").write_bytes(package(**described))
    (tmp_path / "media.csv").write_text(MEDIA, encoding="utf-8")
    (tmp_path / "observations.csv").write_text(OBSERVATIONS, encoding="utf-8")
    with pytest.raises(CatalogueError) as error:
        read_catalogue(str(tmp_path))
    assert says in str(error.value)


def test_another_encoding_in_a_package_names_where_to_declare_it(tmp_path: Path) -> None:
    (tmp_path / "datapackage.json").write_bytes(package())
    (tmp_path / "media.csv").write_text(MEDIA, encoding="latin-1")
    (tmp_path / "observations.csv").write_text(OBSERVATIONS, encoding="utf-8")
    assert '"encoding": "iso-8859-1"' in refused(str(tmp_path))


def workbook(path: Path, sheets: Mapping[str, list[list[Any]]]) -> str:
    openpyxl = pytest.importorskip("openpyxl")
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return str(path)


HEADER = ["image_id", "identity", "path", "date", "x", "y", "w", "h", "notes"]


def test_cells_of_a_workbook_read_as_in_a_csv(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["Lions of 2024"],
        HEADER,
        [12.0, 7, "a.jpg", date(2024, 5, 31), 1, 2, 30.5, 40, "x"],
        [],
        ["013", None, "b.jpg", datetime(2024, 5, 31, 12, 30), None, None, None, None],
        ["c", "#N/A", "c.jpg", "31.05.2024", 1, 2, 3, 4],
    ]
    catalogue = read_catalogue(workbook(tmp_path / "lions.xlsx", {"Photos": rows, "Notes": [["hello"]]}))
    assert [(e.photo_id, e.identity, e.taken_at, e.box) for e in catalogue.entries] == [
        ("013", None, "2024-05-31T12:30:00", None),
        ("12", "7", "2024-05-31", (1, 2, 30.5, 40)),
        ("c", None, "2024-05-31", (1, 2, 3, 4)),
    ]
    assert (catalogue.kept, catalogue.unused) == (("notes",), ())
    assert catalogue.warnings[:2] == (
        "read from the sheet 'Photos'; other sheets are not read: 'Notes'",
        "rows above the header that are not read: 1 ('Lions of 2024')",
    )


def test_problems_in_a_workbook_have_its_row_numbers(tmp_path: Path) -> None:
    rows = [["title"], HEADER[:3], [1, "A", "a.jpg"], [], [2, "#REF!", "../b.jpg"]]
    with pytest.raises(CatalogueError) as error:
        read_catalogue(workbook(tmp_path / "lions.xlsx", {"Photos": rows}))
    assert {(p.kind, p.where) for p in error.value.problems} == {
        ("failed formula", "row 5, column identity"),
        ("path outside root", "row 5, column path"),
    }


def test_the_sheet_that_is_meant(tmp_path: Path) -> None:
    rows = {name: [HEADER[:3], [1, name, "a.jpg"]] for name in ("2023", "2024")}
    source = workbook(tmp_path / "lions.xlsx", {**rows, "Empty": []})
    assert "'2023', '2024', 'Empty'" in (said := refused(source))
    assert "lions.xlsx#2023'" in said
    assert seen(read_catalogue(f"{source}#2024")) == [("2024", "a.jpg", None)]
    assert "it has no sheet '2025', but '2023'" in refused(f"{source}#2025")
    packed = zipped(tmp_path / "lions.zip", {"a/lions.xlsx": Path(source).read_bytes()})
    assert seen(read_catalogue(f"{packed}#a/lions.xlsx#2023")) == [("2023", "a.jpg", None)]


def test_formulas_need_stored_values(tmp_path: Path) -> None:
    source = workbook(tmp_path / "lions.xlsx", {"Photos": [HEADER[:3], [1, '="A"&"B"', "a.jpg"]]})
    assert "a formula has no stored value (cell B2)" in refused(source)
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    # As a spreadsheet stores it: the formula and the text that it gave.
    computed = (
        members[name]
        .replace(b"<v></v>", b"<v>AB</v>")
        .replace(b"<v/>", b"<v>AB</v>")
        .replace(b"<v />", b"<v>AB</v>")
    )
    members[name] = computed.replace(b'<c r="B2"', b'<c r="B2" t="str"')
    assert seen(read_catalogue(zipped(tmp_path / "stored.xlsx", members))) == [("AB", "a.jpg", None)]


def test_a_sheet_with_two_far_cells_is_no_load(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    made = openpyxl.Workbook()
    for column, value in enumerate(["image_id", "identity", "path"], start=1):
        made.active.cell(1, column, value)
        made.active.cell(2, column, f"{value}.jpg")
    made.active.cell(1_048_576, 16_384, "far")
    stored = io.BytesIO()
    made.save(stored)
    (tmp_path / "far.xlsx").write_bytes(stored.getvalue())
    assert seen(read_catalogue(str(tmp_path / "far.xlsx"))) == [("identity.jpg", "path.jpg", None)]
