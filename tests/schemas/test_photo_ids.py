"""Ids that a catalogue lacks are made of paths and boxes; photos behind URLs are told of at once."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.errors import CatalogueError

ROWS = ["a.jpg,Ayo,10,20,30,40.5", "a.jpg,Bo,50,20,30,40", "b.jpg,Ayo,1,2,3,4", "c.jpg,,,,,"]
IDS = {"a.jpg/10,20,30,40.5": "Ayo", "a.jpg/50,20,30,40": "Bo", "b.jpg/1,2,3,4": "Ayo", "c.jpg": None}


def table(folder: Path, rows: Sequence[str], header: str = "path,identity,x,y,w,h") -> str:
    (folder / "t.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    return str(folder / "t.csv")


def names(catalogue: Catalogue) -> dict[str, str | None]:
    return {e.photo_id: e.identity for e in catalogue.entries}


def refused(source: str, root: str | None = None) -> list[tuple[str, str]]:
    with pytest.raises(CatalogueError) as error:
        read_catalogue(source, root)
    return [(problem.kind, problem.where) for problem in error.value.problems]


def test_ids_are_made_of_path_and_box_in_any_order(tmp_path: Path) -> None:
    for seed in range(5):
        rows = random.Random(seed).sample(ROWS, len(ROWS))
        assert names(read_catalogue(table(tmp_path, rows))) == IDS
    for k in range(1, len(ROWS)):
        assert names(read_catalogue(table(tmp_path, ROWS[:k]))).items() <= IDS.items()
    remark = "there is no column image_id: ids are made of paths and boxes, so another box is another photo"
    assert remark in read_catalogue(table(tmp_path, ROWS)).warnings


def test_ids_do_not_depend_on_how_a_box_is_written(tmp_path: Path) -> None:
    lists = [
        'a.jpg,Ayo,"[10.0, 20, 30, 40.50]"',
        'a.jpg,Bo,"(50,20,30,40)"',
        "b.jpg,Ayo,[1. 2. 3. 4.]",
        "c.jpg,,",
    ]
    corners = ["a.jpg,Ayo,10,20,40,60.5", "a.jpg,Bo,50,20,80,60", "b.jpg,Ayo,1,2,4,6", "c.jpg,,,,,"]
    assert names(read_catalogue(table(tmp_path, lists, "path,identity,bbox"))) == IDS
    assert names(read_catalogue(table(tmp_path, corners, "path,identity,x1,y1,x2,y2"))) == IDS


def test_rows_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    assert refused(table(tmp_path, [*ROWS, ROWS[1]])) == [("doubled row", "rows 3, 6")]
    assert refused(table(tmp_path, [*ROWS, "c.jpg,Bo,,,,"])) == [("doubled row", "rows 5, 6")]


def test_animals_that_share_their_photos_id(tmp_path: Path) -> None:
    header = "image_id,path,identity,x,y,w,h"
    rows = ["7,a.jpg,Ayo,1,2,3,4", "7,a.jpg,Bo,5,6,7,8", "8,b.jpg,Ayo,1,2,3,4"]
    catalogue = read_catalogue(table(tmp_path, rows, header))
    assert names(catalogue) == {"7/1,2,3,4": "Ayo", "7/5,6,7,8": "Bo", "8": "Ayo"}
    remark = "animals that share their photo's image_id and are told apart by their boxes: 2"
    assert remark in catalogue.warnings
    for second in ("7,b.jpg,Bo,5,6,7,8", "7,a.jpg,Bo,1,2,3,4", "7,a.jpg,Bo,,,,"):
        assert refused(table(tmp_path, [rows[0], second], header)) == [("doubled image_id", "rows 2, 3")]


def coco(folder: Path, annotations: list[dict[str, Any]]) -> str:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "annotations": annotations,
    }
    (folder / "c.json").write_text(json.dumps(content))
    return str(folder / "c.json")


@pytest.mark.parametrize("ids", [[0, 0, 0], [None, None, None], [4, 4, 5]])
def test_annotations_without_ids_of_their_own(tmp_path: Path, ids: list[int | None]) -> None:
    found = [
        {"id": own, "image_id": image, "bbox": box, "name": name}
        for own, image, box, name in zip(
            ids, (1, 1, 2), ([1, 2, 3, 4], [5.0, 6, 7.5, 8], [1, 2, 3, 4]), "ABC", strict=True
        )
    ]
    for listed in (found, found[::-1]):
        catalogue = read_catalogue(coco(tmp_path, listed))
        assert names(catalogue) == {"1/1,2,3,4": "A", "1/5,6,7.5,8": "B", "2": "C"}
        assert "annotations without an id of their own, told apart by their boxes: 2" in catalogue.warnings
    assert refused(coco(tmp_path, [*found, {**found[0], "id": ids[0]}]))[0][0] == "doubled image_id"


URL = "https://h.org/photos"


def test_paths_that_are_urls_below_the_root(tmp_path: Path) -> None:
    rows = [f"{URL}/a b.jpg,Ayo", "x/b.jpg,Bo"]
    catalogue = read_catalogue(table(tmp_path, rows, "path,identity"), URL)
    assert [e.path for e in catalogue.entries] == ["a b.jpg", "x/b.jpg"]
    assert catalogue.root == URL


@pytest.mark.parametrize(
    ("rows", "says", "cure"),
    [
        ([f"{URL}/a/1.jpg,A", f"{URL}/b/2.jpg,B"], "2 of 2 paths are URLs, for example", f"--root {URL}"),
        ([f"{URL}/a.jpg,A", "b.jpg,B", "c.jpg,C"], "1 of 3 paths are URLs", "as those of the other 2"),
        (["s3://x/a.jpg,A", "gs://y/b.jpg,B"], "2 of 2 paths are URLs", "download the photos"),
    ],
)
def test_other_urls_are_one_problem(tmp_path: Path, rows: list[str], says: str, cure: str) -> None:
    with pytest.raises(CatalogueError) as error:
        read_catalogue(table(tmp_path, rows, "path,identity"))
    (problem,) = error.value.problems
    assert problem.kind == "photos behind URLs"
    assert says in problem.what
    assert cure in problem.cure
    assert ("--root" in problem.cure) == ("--root" in cure)
