"""What holds for every reader: nothing is lost uncounted, and packing, order and encoding change no entry."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.catalogue.reader import Catalogue, read_catalogue
from tests.schemas.test_formats_agree import (
    ANIMALS,
    as_camtrap_dp,
    as_coco,
    as_frame,
    as_wildbook,
    entries_of,
    rows_to_csv,
)

Rows = list[dict[str, Any]]
QUICK = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
SHOTS = st.lists(st.sampled_from(["animal", "blank", "person", "video"]), min_size=1, max_size=8).filter(
    lambda sorts: "animal" in sorts
)


def rows_of(path: str) -> Rows:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text_of(rows: Rows, separator: str = ",", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, list(rows[0]), delimiter=separator, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
        archive.writestr("__MACOSX/._x", b"x")
    return written.getvalue()


def parquet(rows: Rows) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({name: [str(row[name]) for row in rows] for name in rows[0]}), written)
    return written.getvalue()


def workbook(rows: Rows) -> bytes:
    import openpyxl

    made = openpyxl.Workbook()
    for row in (list(rows[0]), *(list(each.values()) for each in rows)):
        made.active.append(row)
    written = io.BytesIO()
    made.save(written)
    return written.getvalue()


TABLES: dict[str, Callable[[Rows], bytes]] = {
    "bom.csv": lambda rows: text_of(rows).encode("utf-8-sig"),
    "utf16.csv": lambda rows: text_of(rows, "\t").encode("utf-16"),
    "bare16.csv": lambda rows: text_of(rows).encode("utf-16-le"),
    "crlf.csv": lambda rows: text_of(rows, ";", "\r\n").encode(),
    "tab.tsv": lambda rows: text_of(rows, "\t").encode(),
    "pipe.txt": lambda rows: text_of(rows, "|").encode(),
    "quoted.csv": lambda rows: text_of(rows, quoting=csv.QUOTE_ALL).encode(),
    "sep.csv": lambda rows: b"sep=;\r\n" + text_of(rows, ";", "\r\n").encode(),
    "title.csv": lambda rows: b"Lynx, of the year, 2024\n\n" + text_of(rows).encode(),
    "comment.csv": lambda rows: b"# by us\n" + text_of(rows).encode() + b"# end\n\n",
    "empty rows.csv": lambda rows: text_of(rows).replace("\n", "\n,,,,,,\n").encode(),
    "packed.csv.gz": lambda rows: gzip.compress(text_of(rows).encode()),
    "packed.zip": lambda rows: zipped("a/b/table.tsv", text_of(rows, "\t").encode()),
    "twice.zip": lambda rows: zipped("table.csv.gz", gzip.compress(text_of(rows).encode())),
    "table.parquet": parquet,
    **({"book.xlsx": workbook} if importlib.util.find_spec("openpyxl") else {}),
}


@QUICK
@given(animals=ANIMALS, seed=st.integers(0, 9))
def test_a_table_packed_shuffled_and_written_anew(tmp_path: Path, animals: Rows, seed: int) -> None:
    for write in (as_frame, as_wildbook):
        source = write(tmp_path, animals)
        wanted = entries_of(source, str(tmp_path))
        rows = rows_of(source)
        random.Random(seed).shuffle(rows)
        for name, packed in TABLES.items():
            (tmp_path / name).write_bytes(packed(rows))
            assert entries_of(str(tmp_path / name), str(tmp_path)) == wanted, name


@QUICK
@given(animals=ANIMALS, seed=st.integers(0, 9))
def test_coco_packed_shuffled_and_written_anew(tmp_path: Path, animals: Rows, seed: int) -> None:
    source = as_coco(tmp_path, animals)
    wanted = entries_of(source, str(tmp_path))
    content = json.loads(Path(source).read_text(encoding="utf-8"))
    for part in content.values():
        random.Random(seed).shuffle(part)
    text = json.dumps(content, ensure_ascii=False)
    for name, data in {
        "bom.json": text.encode("utf-8-sig"),
        "utf16.json": text.encode("utf-16"),
        "packed.json.gz": gzip.compress(text.encode()),
        "packed.zip": zipped("coco/annotations/instances.json", text.encode()),
    }.items():
        (tmp_path / name).write_bytes(data)
        assert entries_of(str(tmp_path / name), str(tmp_path)) == wanted, name


@QUICK
@given(
    animals=ANIMALS,
    seed=st.integers(0, 9),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "windows-1252", "mac-roman"]),
    separator=st.sampled_from(",;|\t"),
    inside=st.booleans(),
)
def test_a_package_packed_shuffled_and_written_anew(
    tmp_path: Path, animals: Rows, seed: int, encoding: str, separator: str, inside: bool
) -> None:
    folder = Path(as_camtrap_dp(tmp_path, animals))
    wanted = entries_of(str(folder), str(tmp_path))
    content = json.loads((folder / "datapackage.json").read_text())
    members: dict[str, bytes] = {}
    for resource in content["resources"]:
        rows = rows_of(str(folder / resource["path"]))
        random.Random(seed).shuffle(rows)
        resource |= {
            "encoding": encoding,
            "dialect": {"delimiter": separator},
            "path": f"{resource['name']}.csv.gz",
        }
        members[resource["path"]] = gzip.compress(text_of(rows, separator).encode(encoding))
    members["datapackage.json"] = json.dumps(content).encode()
    if inside:
        with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
            for name, data in members.items():
                archive.writestr(f"the package/{name}", data)
        source = tmp_path / "package.zip"
    else:
        for name, data in members.items():
            (folder / name).write_bytes(data)
        source = folder
    assert entries_of(str(source), str(tmp_path)) == wanted


def counted(catalogue: Catalogue, *phrases: str) -> int:
    """The sum of the numbers in the remarks that begin so."""
    return sum(
        int(match[1])
        for note in catalogue.warnings
        if note.startswith(phrases) and (match := re.search(r": (\d+)$", note))
    )


def shot(i: int, sort: str) -> str:
    return f"{i}.mp4" if sort == "video" else f"{i}.jpg"


@QUICK
@given(sorts=SHOTS)
def test_what_is_no_entry_is_counted(tmp_path: Path, sorts: list[str]) -> None:
    category = {"animal": 1, "video": 1, "blank": 2, "person": 3}
    content = {
        "images": [{"id": i, "file_name": shot(i, sort)} for i, sort in enumerate(sorts)],
        "annotations": [{"id": i, "image_id": i, "category_id": category[s]} for i, s in enumerate(sorts)],
        "categories": [{"id": 1, "name": "lynx"}, {"id": 2, "name": "empty"}, {"id": 3, "name": "Person"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    coco = read_catalogue(str(tmp_path / "c.json"))
    assert len(coco.entries) + counted(coco, "videos left out", "annotations of no animal") == len(sorts)

    observed = {"animal": "animal", "video": "animal", "blank": "blank", "person": "human"}
    media = [{"mediaID": i, "filePath": shot(i, s), "timestamp": "2024-05-31"} for i, s in enumerate(sorts)]
    seen = [{"observationID": i, "mediaID": i, "observationType": observed[s]} for i, s in enumerate(sorts)]
    rows_to_csv(tmp_path / "dp" / "media.csv", media)
    rows_to_csv(tmp_path / "dp" / "observations.csv", seen)
    resources = [{"name": name, "path": f"{name}.csv"} for name in ("media", "observations")]
    (tmp_path / "dp" / "datapackage.json").write_text(json.dumps({"resources": resources}))
    package = read_catalogue(str(tmp_path / "dp"))
    left = counted(package, "media that are no images", "images without an observed animal")
    assert len(package.entries) + left == len(sorts)

    common = {"animal": "Lynx", "video": "Lynx", "blank": "Blank", "person": "Human"}
    rows = [
        {"image_id": i, "deployment_id": "d", "wi_taxon_id": "t", "location": f"gs://b/{shot(i, s)}", "genus": "",
         "is_blank": int(s == "blank"), "common_name": common[s]}
        for i, s in enumerate(sorts)
    ]  # fmt: skip
    insights = read_catalogue(rows_to_csv(tmp_path / "wi" / "images.csv", rows))
    assert len(insights.entries) + counted(insights, "blank", "images of people", "videos") == len(sorts)

    rows = [
        {"Encounter.id": i, "Encounter.mediaAsset0": shot(i, s), "Name0.value": "A"}
        for i, s in enumerate(sorts)
    ]
    wildbook = read_catalogue(rows_to_csv(tmp_path / "wildbook.csv", rows))
    assert len(wildbook.entries) + counted(wildbook, "videos left out") == len(sorts)


@QUICK
@given(sorts=SHOTS, seed=st.integers(0, 9))
def test_every_row_of_a_table_is_an_entry(tmp_path: Path, sorts: list[str], seed: int) -> None:
    """Rows of one photo with boxes of their own, with and without ids."""
    rng = random.Random(seed)
    rows: Rows = [
        {"path": f"{rng.randint(0, 2)}.jpg", "identity": f"A{i}", "x": i, "y": 0, "w": 5, "h": 9}
        for i, _ in enumerate(sorts)
    ]
    one = read_catalogue(rows_to_csv(tmp_path / "one.csv", rows))
    assert sorted(e.identity or "" for e in one.entries) == sorted(row["identity"] for row in rows)
    with_ids = [{"image_id": row["path"], **row} for row in rows]
    two = read_catalogue(rows_to_csv(tmp_path / "two.csv", with_ids))
    assert sorted(e.identity or "" for e in two.entries) == sorted(row["identity"] for row in rows)
    rng.shuffle(rows)
    assert read_catalogue(rows_to_csv(tmp_path / "one.csv", rows)).entries == one.entries
