"""Hostile catalogues: each is read, or refused with every problem in words.

None hangs, runs, or reads another file.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.errors import CatalogueError

ROW = {"image_id": "a", "identity": "Ada", "path": "a.jpg"}
HEADER = "image_id,identity,path"
READ, REFUSED, EITHER = "read", "refused", "either"


def csv_of(text: str | bytes, header: str = HEADER) -> tuple[str, bytes]:
    body = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return "c.csv", header.encode() + b"\n" + body


def raw(data: bytes, name: str = "c.csv") -> tuple[str, bytes]:
    return name, data


def parquet_of(columns: dict[str, Any], name: str = "c.parquet", **options: Any) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    pq.write_table(pa.table({**{k: [v] for k, v in ROW.items()}, **columns}), buffer, **options)
    return name, buffer.getvalue()


def json_of(content: Any) -> tuple[str, bytes]:
    return "c.json", json.dumps(content).encode()


def coco(
    annotation: dict[str, Any] | None = None, image: dict[str, Any] | None = None, **content: Any
) -> tuple[str, bytes]:
    return json_of(
        {
            "images": [{"id": 1, "file_name": "a.jpg", **(image or {})}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "name": "Ada", **(annotation or {})}],
            "categories": [{"id": 1, "name": "zebra"}],
            **content,
        }
    )


def boxed(text: str) -> tuple[str, bytes]:
    return csv_of(f'a,Ada,a.jpg,"{text}"\n', f"{HEADER},bbox")


def turned(text: str) -> tuple[str, bytes]:
    return csv_of(f"a,Ada,a.jpg,{text}\n", f"{HEADER},theta")


def zip_of(members: dict[str, bytes], name: str = "c.zip") -> tuple[str, bytes]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return name, buffer.getvalue()


CASES: dict[str, tuple[Callable[[], tuple[str, bytes]], str]] = {
    # CSV
    "nothing": (lambda: raw(b""), REFUSED),
    "one zero byte": (lambda: raw(b"\x00"), REFUSED),
    "a megabyte of zeros": (lambda: raw(bytes(1 << 20)), REFUSED),
    "a header alone": (lambda: csv_of(""), REFUSED),
    "a header of nothing": (lambda: raw(b",,\n,,\n"), REFUSED),
    "only separators": (lambda: raw(b"," * 100_000), REFUSED),
    "100,000 columns": (lambda: csv_of("a,Ada,a.jpg" + "," * 20_000 + "\n", HEADER + "," + ",".join(f"c{i}" for i in range(20_000)))
                        , READ),
    "the same column twice": (lambda: csv_of("a,Ada,a.jpg,b\n", f"{HEADER},identity"), REFUSED),
    "the same column in capitals": (lambda: csv_of("a,Ada,a.jpg,b\n", f"{HEADER},IDENTITY"), REFUSED),
    "a line of ten megabytes": (lambda: csv_of("a," + "x" * 10_000_000 + ",a.jpg\n"), REFUSED),
    "an open quote": (lambda: csv_of('a,"Ada,a.jpg\n' + "b,Bo,b.jpg\n" * 100), REFUSED),
    "quotes in quotes": (lambda: csv_of('a,"""Ada""",a.jpg\n'), READ),
    "100,000 quotes": (lambda: csv_of('"' * 100_000 + "\n"), REFUSED),
    "rows of every length": (lambda: csv_of("".join("x," * i + "\n" for i in range(60))), REFUSED),
    "an id a thousand times": (lambda: csv_of("a,Ada,a.jpg\n" * 1000), REFUSED),
    "UTF-16": (lambda: raw(f"{HEADER}\na,Ada,a.jpg\n".encode("utf-16")), READ),
    "UTF-32": (lambda: raw(f"{HEADER}\na,Ada,a.jpg\n".encode("utf-32")), READ),
    "Latin-1": (lambda: csv_of("a,Löwe,a.jpg\n".encode("latin-1")), REFUSED),
    "half a character": (lambda: csv_of("a,\ud800,a.jpg\n"), REFUSED),
    "a character in too many bytes": (lambda: csv_of(b"a,\xc0\xafAda,a.jpg\n"), REFUSED),
    "two byte order marks": (lambda: raw(b"\xef\xbb\xbf\xef\xbb\xbf" + f"{HEADER}\na,Ada,a.jpg\n".encode()), EITHER),
    "line ends of a Mac of 1999": (lambda: raw(f"{HEADER}\ra,Ada,a.jpg\r".encode()), EITHER),
    "every line end there is": (lambda: csv_of("a,Ada,a.jpg\r\nb,Bo,b.jpg\n\rc,Cy,c.jpg\r"), EITHER),
    "zero bytes in a cell": (lambda: csv_of("a,A\x00da,a.jpg\n"), REFUSED),
    "a page": (lambda: raw(b"<!DOCTYPE html><html><body>Sign in</body></html>"), REFUSED),
    "a workbook named csv": (lambda: raw(b"PK\x03\x04" + bytes(500)), REFUSED),
    "a workbook": (lambda: raw(b"PK\x03\x04" + bytes(500), "c.xlsx"), REFUSED),
    "an archive that leads out": (lambda: zip_of({"../../c.csv": f"{HEADER}\na,Ada,a.jpg\n".encode()}), REFUSED),
    "an archive in an archive": (lambda: zip_of({"c.csv": zip_of({"c.csv": b"x"})[1]}), REFUSED),
    "20,001 files in an archive": (lambda: zip_of({f"{i}.csv": b"" for i in range(20_001)}), REFUSED),
    "a workbook that defines entities": (lambda: zip_of({"xl/workbook.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]><a/>"}, "c.xlsx"), REFUSED),
    "a workbook of a gigabyte": (lambda: zip_of({"xl/workbook.xml": b"<a/>", "xl/worksheets/a.xml": bytes((1 << 29) + 1)}, "c.xlsx"), REFUSED),
    "a program": (lambda: raw(b"\x7fELF" + bytes(500)), REFUSED),
    "a pickle": (lambda: raw(b"\x80\x04\x95\x0b\x00\x00", "c.pkl"), REFUSED),
    "a database": (lambda: raw(b"SQLite format 3\x00" + bytes(500), "c.db"), REFUSED),
    "no suffix": (lambda: raw(b"x", "c"), REFUSED),
    # Boxes and angles
    **{
        f"box {text[:30]}": (lambda text=text: boxed(text), REFUSED)
        for text in (
            "[1,2,3]", "[1,2,3,4,5]", "[1,2,-3,4]", "[1,2,0,4]", "[nan,1,1,1]", "[inf,1,1,1]", "[1e999,1,1,1]", "[1,2,3,1e-400]", "__import__('os').system('x')",
            "[" * 900, "[" * 5000, "[1,2,3," + "9" * 5000 + "]", "[1,,2,3]", "[[1,2,3,4]]", "{1,2,3,4}", "[0x1,2,3,4]", "[1_0,2,3,4]", "[१,२,३,४]", "array([1,2,3,4]).__class__",
            "np.float64(1)", "[np.float64(np.float64(1)),2,3,4]", "[" + "np.float64(" * 80 + "]", "lambda: 1", "1,2,3,4", "[1;2;3;4]", "[True,1,1,1]", "[None,1,1,1]",
        )
    },
    "box of blanks": (lambda: boxed("[1" + " " * 900 + ",2,3,4]"), READ),
    "box of nothing": (lambda: boxed("[]"), REFUSED),
    **{
        f"theta {text[:30]}": (lambda text=text: turned(text), REFUSED)
        for text in ("inf", "1e999", "90°", "0x10", "1_0", "1/2", "9" * 5000, "π", "--1", "1e", "exec('x')", "'=1")
    },
    "theta nan": (lambda: turned("nan"), READ),
    "theta of 10^300": (lambda: turned("1e300"), READ),
    "boxes of pixels and of shares": (lambda: csv_of('a,Ada,a.jpg,"[1,2,3,4]"\nb,Bo,b.jpg,"[0.1,0.2,0.3,0.4]"\n', f"{HEADER},bbox"), REFUSED),
    "half a box": (lambda: csv_of("a,Ada,a.jpg,1,2,3\n", f"{HEADER},x,y,w"), REFUSED),
    "a date beyond the calendar": (lambda: csv_of("a,Ada,a.jpg,99999-99-99\n", f"{HEADER},date"), READ),
    "a date of a megabyte": (lambda: csv_of(f"a,Ada,a.jpg,{'9' * 1_000_000}\n", f"{HEADER},date"), EITHER),
    # Parquet
    "Parquet of nothing": (lambda: raw(b"", "c.parquet"), REFUSED),
    "only the marks of Parquet": (lambda: raw(b"PAR1PAR1", "c.parquet"), REFUSED),
    "a footer of four gigabytes": (lambda: raw(b"PAR1" + bytes(50) + struct.pack("<I", 2**32 - 1) + b"PAR1", "c.parquet"), REFUSED),
    "a footer of noise": (lambda: raw(b"PAR1" + bytes(range(256)) + struct.pack("<I", 200) + b"PAR1", "c.parquet"), REFUSED),
    "Parquet cut off": (lambda: raw(parquet_of({})[1][:-50], "c.parquet"), REFUSED),
    "Parquet with a hole": (lambda: raw(parquet_of({})[1][:40] + bytes(40) + parquet_of({})[1][80:], "c.parquet"), EITHER),
    "CSV named Parquet": (lambda: raw(b"image_id,identity,path\n", "c.parquet"), REFUSED),
    "Parquet named CSV": (lambda: raw(parquet_of({})[1]), REFUSED),
    "names that are lists": (lambda: parquet_of({"identity": [["Ada"]]}), REFUSED),
    "names that are structures": (lambda: parquet_of({"identity": [{"a": 1}]}), REFUSED),
    "names that are bytes": (lambda: parquet_of({"identity": [b"\xff"]}), REFUSED),
    "names that are numbers": (lambda: parquet_of({"identity": [7]}), READ),
    "names that are infinite": (lambda: parquet_of({"identity": [float("inf")]}), EITHER),
    "names that are truths": (lambda: parquet_of({"identity": [True]}), EITHER),
    "names that are times": (lambda: parquet_of({"identity": pa.array([2**62], pa.timestamp("ns"))}), EITHER),
    "times beyond Python's": (lambda: parquet_of({"date": pa.array([2**50], pa.timestamp("s"))}), EITHER),
    "names that are a dictionary": (lambda: parquet_of({"identity": pa.array(["Ada"]).dictionary_encode()}), READ),
    "names that are decimals": (lambda: parquet_of({"identity": pa.array([None], pa.decimal128(38, 10))}), EITHER),
    "names that are null": (lambda: parquet_of({"identity": pa.nulls(1)}), EITHER),
    "boxes that are lists of texts": (lambda: parquet_of({"bbox": [["1", "2", "3", "4"]]}), REFUSED),
    "boxes that are lists of lists": (lambda: parquet_of({"bbox": [[[1.0, 2.0]]]}), REFUSED),
    "boxes that are infinite": (lambda: parquet_of({"bbox": [[float("inf"), 1.0, 1.0, 1.0]]}), REFUSED),
    "boxes that are too long": (lambda: parquet_of({"bbox": [[1.0] * 100_000]}), REFUSED),
    "boxes of nothing": (lambda: parquet_of({"bbox": [[None, None, None, None]]}), REFUSED),
    "a box that is a structure": (lambda: parquet_of({"bbox": [{"x": 1}]}), REFUSED),
    "theta as text": (lambda: parquet_of({"theta": ["1.5"]}), READ),
    "theta as a list": (lambda: parquet_of({"theta": [[1.5]]}), REFUSED),
    "5000 columns of Parquet": (lambda: parquet_of({f"c{i}": [0] for i in range(5000)}), READ),
    "columns of one name": (lambda: ("c.parquet", _twins()), REFUSED),
    "metadata of pickles": (lambda: ("c.parquet", _with_metadata()), EITHER),
    # JSON
    "JSON of nothing": (lambda: raw(b"", "c.json"), REFUSED),
    "JSON of nothing but brackets": (lambda: raw(b"[" * 200_000, "c.json"), REFUSED),
    "objects in objects": (lambda: raw(b'{"images":' * 100_000, "c.json"), REFUSED),
    "a number of 10,000 digits": (lambda: raw(b'{"images": [{"id": ' + b"9" * 10_000 + b"}]}", "c.json"), REFUSED),
    "JSON that is a list": (lambda: json_of([1]), REFUSED),
    "JSON that is a text": (lambda: json_of("x"), REFUSED),
    "JSON with a byte order mark": (lambda: raw(b"\xef\xbb\xbf" + coco()[1], "c.json"), READ),
    "JSON in UTF-16": (lambda: raw(coco()[1].decode().encode("utf-16"), "c.json"), READ),
    "a key twice": (lambda: raw(b'{"images": [], "images": [], "annotations": []}', "c.json"), REFUSED),
    "keys of Python": (lambda: json_of({"__class__": 1, "images": [], "annotations": []}), REFUSED),
    "a detector's file": (lambda: json_of({"images": [], "detection_categories": {}}), REFUSED),
    "images that are an object": (lambda: coco(images={}), REFUSED),
    "images that are null": (lambda: coco(images=None), REFUSED),
    "images that are numbers": (lambda: coco(images=[1, 2]), REFUSED),
    "annotations that are a text": (lambda: coco(annotations="x"), REFUSED),
    "categories that are a text": (lambda: coco(categories="x"), REFUSED),
    "an id that is a list": (lambda: coco(image={"id": [1]}), REFUSED),
    "an id that is an object": (lambda: coco({"image_id": {"a": 1}}), REFUSED),
    "an id that is nothing": (lambda: coco(image={"id": None}), REFUSED),
    "an id of 10^300": (lambda: coco(image={"id": 1e300}), REFUSED),
    "an id that is infinite": (lambda: raw(coco()[1].replace(b'"id": 1,', b'"id": Infinity,', 1), "c.json"), REFUSED),
    "an image that points to itself": (lambda: coco({"image_id": 2}), REFUSED),
    "a name that is a list": (lambda: coco({"name": ["Ada"]}), REFUSED),
    "a name that is an object": (lambda: coco({"name": {"a": 1}}), REFUSED),
    "a name of half a character": (lambda: raw(coco()[1].replace(b"Ada", b"\\ud800"), "c.json"), REFUSED),
    "a name of control characters": (lambda: raw(coco()[1].replace(b"Ada", b"\\u0000"), "c.json"), REFUSED),
    "a box that is a text": (lambda: coco({"bbox": "x"}), REFUSED),
    "a box that is an object": (lambda: coco({"bbox": {"x": 1}}), REFUSED),
    "a box of texts": (lambda: coco({"bbox": ["1", "2", "3", "4"]}), REFUSED),
    "a box of infinities": (lambda: raw(coco({"bbox": [1, 2, 3, 4]})[1].replace(b"[1, 2, 3, 4]", b"[-Infinity, 1, 1, 1]"), "c.json"), REFUSED),
    "a box of 4000 digits": (lambda: coco({"bbox": [10**4000, 1, 1, 1]}), REFUSED),
    "a box of truths": (lambda: coco({"bbox": [True, True, True, True]}), EITHER),
    "a path out of the folder": (lambda: coco(image={"file_name": "../../etc/passwd"}), REFUSED),
    "a path that is absolute": (lambda: coco(image={"file_name": "/etc/passwd"}), REFUSED),
    "a path on another machine": (lambda: coco(image={"file_name": "http://evil.example/a.jpg"}), REFUSED),
    "a path that is a number": (lambda: coco(image={"file_name": 7}), EITHER),
    "a path that is nothing": (lambda: coco(image={"file_name": None}), REFUSED),
    "100,000 annotations of one image": (lambda: coco(annotations=[{"id": i, "image_id": 1, "category_id": 1} for i in range(20_000)]), EITHER),
    # Camtrap DP
    "resources that are null": (lambda: json_of({"resources": None}), REFUSED),
    "resources that are texts": (lambda: json_of({"resources": ["media", "observations"]}), REFUSED),
    **{
        f"a table at {path}": (lambda path=path: json_of({"resources": [{"name": n, "path": path} for n in ("media", "observations")]}), REFUSED)
        for path in ("/etc/passwd", "../c.json", "http://evil.example/m.csv", "s3://b/m.csv", "file:///etc/passwd", "zip://a.csv::b.zip", "c.json", ".", "", "m\x00.csv", "~/.bashrc", "no/such.csv", "C:\\m.csv")
    },
    "a table at a list": (lambda: json_of({"resources": [{"name": n, "path": ["a.csv", "b.csv"]} for n in ("media", "observations")]}), REFUSED),
    "a table at an object": (lambda: json_of({"resources": [{"name": n, "path": {"a": 1}} for n in ("media", "observations")]}), REFUSED),
    "a table twice": (lambda: json_of({"resources": [{"name": "media", "path": "m.csv"}] * 2}), REFUSED),
    "another version": (lambda: json_of({"profile": "camtrap-dp/9.0/x", "resources": []}), REFUSED),
    # Wildbook
    "photos without end": (lambda: raw((",".join(f"Encounter.mediaAsset{i}" for i in range(3000)) + ",Name0.value\n" + ",".join(f"{i}.jpg" for i in range(3000)) + ",Ada\n").encode()), READ),
    "photo number 99999999": (lambda: raw(b"Encounter.mediaAsset99999999,Name0.value\na.jpg,Ada\n"), REFUSED),
    "a source that is no address": (lambda: raw(b"Encounter.mediaAsset0,Name0.value,Encounter.sourceUrl\na.jpg,Ada,http://[::1\n"), READ),
    "a year of words": (lambda: raw(b"Encounter.mediaAsset0,Name0.value,Encounter.year\na.jpg,Ada,x\n"), READ),
    "Arabic digits": (lambda: raw("Encounter.mediaAsset٣,Name0.value\na.jpg,Ada\n".encode()), EITHER),
}  # fmt: skip


def _twins() -> bytes:
    buffer = io.BytesIO()
    texts = pa.array(["a"])
    pq.write_table(
        pa.Table.from_arrays(
            [texts, texts, texts, texts], names=["image_id", "identity", "path", "identity"]
        ),
        buffer,
    )
    return buffer.getvalue()


def _with_metadata() -> bytes:
    buffer = io.BytesIO()
    table = pa.table({k: [v] for k, v in ROW.items()}).replace_schema_metadata(
        {b"pandas": b"\x80\x04\x95", b"ARROW:schema": b"evil"}
    )
    pq.write_table(table, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_catalogue_is_read_or_refused_with_words(tmp_path: Path, name: str) -> None:
    make, wanted = CASES[name]
    file, data = make()
    (tmp_path / file).write_bytes(data)
    try:
        read = read_catalogue(str(tmp_path / file))
        assert isinstance(read, Catalogue)
        assert read.entries
        found = READ
    except CatalogueError as error:
        assert error.problems
        assert len(str(error)) < 200_000
        found = REFUSED
    assert wanted in (found, EITHER)


@pytest.mark.parametrize("name", ["c.csv", "c.parquet", "c.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to itself", "nothing"])
def test_what_is_no_file_is_no_catalogue(tmp_path: Path, kind: str, name: str) -> None:
    place = tmp_path / name
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "device":
            place.symlink_to("/dev/zero")
        case "folder":
            place.mkdir()
        case "link to itself":
            place.symlink_to(name)
    with pytest.raises(CatalogueError):
        read_catalogue(str(place))


@pytest.mark.parametrize(
    "source", ["", "\x00", "x" * 5000, "zip://a.csv::/tmp/b.zip", "simplecache::http://a/b.csv", "nosuch://a/b.csv", "memory://none.csv", "file:///dev/zero", "~nobody/x.csv", "http://"], ids=ascii
)  # fmt: skip
def test_an_address_that_is_none_is_refused(source: str) -> None:
    with pytest.raises(CatalogueError):
        read_catalogue(source)
