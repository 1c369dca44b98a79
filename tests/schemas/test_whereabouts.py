"""Photos of a catalogue: found where they lie, counted, and never asked for one by one."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from schemas.catalogue import whereabouts
from schemas.catalogue.reader import Catalogue, CatalogueEntry, read_catalogue
from schemas.catalogue.whereabouts import look_for_photos
from schemas.errors import CatalogueError, StorageError
from schemas.storage import Storage


def catalogue(root: object, *paths: str) -> Catalogue:
    return Catalogue(str(root), tuple(CatalogueEntry(f"{i:06d}", path) for i, path in enumerate(paths)))


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder whose parent holds nothing else."""
    (tmp_path / "place" / "coco" / "annotations").mkdir(parents=True)
    return tmp_path / "place"


NAMES = tuple(f"u{i}.jpg" for i in range(4))


@pytest.mark.parametrize(
    ("file", "photos", "shown"),
    [
        ("coco/annotations/instances.json", "coco/images", "../images"),
        ("coco/labels.json", "coco/data", "data"),
        ("coco/annotations/instances_train2022.json", "coco/images/train2022", "../images/train2022"),
        ("coco/annotations/instances_val2017.json", "coco/val2017", "../val2017"),
        ("coco/annotations/all.json", "coco", ".."),
    ],
)
def test_photos_beside_their_coco_file_are_found(place: Path, file: str, photos: str, shown: str) -> None:
    images = [{"id": i, "file_name": name, "width": 9, "height": 9} for i, name in enumerate(NAMES)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]} for i in range(len(NAMES))]
    kinds = [{"id": 1, "name": "zebra"}]
    (place / file).write_text(json.dumps({"images": images, "annotations": boxes, "categories": kinds}))
    put(place / photos, *NAMES)
    looked = look_for_photos(read_catalogue(str(place / file)), False)
    assert looked.catalogue.root == str(place / photos)
    assert looked.found == 4
    assert looked.catalogue.warnings[-1] == f"photos are in {shown}: that is taken as the root"
    assert looked.required("x") is looked.catalogue


def test_photos_where_they_should_be_need_no_remark(place: Path) -> None:
    put(place, "a.jpg", "deep/er/b.jpg", "images/a.jpg", "images/deep/er/b.jpg")
    listed = catalogue(place, "a.jpg", "deep/er/b.jpg")
    looked = look_for_photos(listed, False)
    assert (looked.catalogue, looked.found) == (replace(listed, found=2), 2)


def test_missing_photos_are_counted_with_an_example(place: Path) -> None:
    put(place, "a.jpg", "c.jpg")
    (place / "b.jpg").mkdir()  # a folder is no photo
    looked = look_for_photos(catalogue(place, "a.jpg", "b.jpg", "c.jpg", "d.jpg"), False)
    assert looked.found == 2
    assert looked.catalogue.warnings == ("2 of 4 photos found; not there: b.jpg",)
    looked.required("x")


def test_a_given_root_wins_and_none_found_stops_with_the_cure(place: Path) -> None:
    put(place / "coco" / "images", *NAMES)
    looked = look_for_photos(catalogue(place / "coco" / "annotations", *NAMES), True)
    assert looked.catalogue.root == str(place / "coco" / "annotations")
    assert looked.catalogue.warnings == ("0 of 4 photos found; not there: u0.jpg",)
    with pytest.raises(CatalogueError, match="none of 4 photos is there, for example u0.jpg") as caught:
        looked.required("instances.json")
    assert "--root FOLDER" in str(caught.value)


def test_a_place_with_too_few_photos_is_named_but_not_taken(place: Path) -> None:
    put(place / "coco" / "images", *NAMES[:3])
    home = place / "coco" / "annotations"
    looked = look_for_photos(catalogue(home, *NAMES), False)
    assert looked.catalogue.root == str(home)
    assert looked.found == 0
    with pytest.raises(CatalogueError, match=f"--root {place / 'coco' / 'images'}"):
        looked.required("instances.json")


def test_of_two_places_with_the_same_names_none_is_taken(place: Path) -> None:
    home = place / "coco" / "annotations"
    put(place / "coco" / "images", *NAMES)
    put(place / "coco" / "thumbnails", *NAMES)
    assert look_for_photos(catalogue(home, *NAMES), False).catalogue.root == str(home)
    # One of them with the catalogue is nearer, and a link to it is no second place.
    put(home / "crops", *NAMES)
    (home / "linked").symlink_to(home / "crops")
    assert look_for_photos(catalogue(home, *NAMES), False).catalogue.root == str(home / "crops")


def test_photos_in_a_store_are_listed_by_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    system = fsspec.filesystem("memory")
    for name in NAMES:
        system.pipe_file(f"/herd/coco/images/{name}", b"x")
    requests: list[str] = []
    for verb in ("find", "ls"):
        asked = getattr(system, verb)
        monkeypatch.setattr(
            type(system), verb, lambda self, *a, _f=asked, **k: (requests.append(str(a[0])), _f(*a, **k))[1]
        )
    monkeypatch.setattr(type(system), "info", lambda *a, **k: pytest.fail("a photo was asked for alone"))
    looked = look_for_photos(catalogue("memory://herd/coco/annotations", *NAMES), False)
    assert looked.found == 4
    assert looked.catalogue.root == "memory:///herd/coco/images"
    assert "photos are in memory:///herd/coco/images" in looked.catalogue.warnings[0]
    assert len(requests) < 12
    again = look_for_photos(catalogue(looked.catalogue.root, *NAMES), True)
    assert (again.found, again.catalogue.warnings) == (4, ())


def test_a_store_that_cannot_be_listed_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> dict[str, object]:
        raise StorageError("it is down", "wait")

    monkeypatch.setattr(Storage, "find", fails)
    looked = look_for_photos(catalogue("memory://herd", "a.jpg"), False)
    assert looked.found is None
    assert looked.catalogue.warnings == ("the photos were not looked up: it is down",)
    assert look_for_photos(catalogue("https://host/photos", "a.jpg"), False).found is None
    looked.required("x")


def test_many_photos_cost_a_listing_of_each_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"site{i % 50}/{i}.jpg" for i in range(200_000)]
    put(place / "photos", *(f"site{i}/{i}.jpg" for i in range(50)))
    scanned: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(whereabouts.os, "scandir", lambda at: (scanned.append(str(at)), scandir(at))[1])
    begun = time.process_time()
    looked = look_for_photos(catalogue(place / "photos", *paths), True)
    assert looked.found == 50
    assert len(scanned) == 50
    assert time.process_time() - begun < 5
