"""`images.csv` of Wildlife Insights' downloads."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

from schemas.catalogue.reader import read_catalogue
from schemas.catalogue.whereabouts import look_for_photos

COLUMNS = (
    "project_id", "deployment_id", "image_id", "filename", "location", "is_blank", "identified_by", "wi_taxon_id", "class",
    "order", "family", "genus", "species", "common_name", "uncertainty", "timestamp", "age", "sex", "animal_recognizable",
    "individual_id", "number_of_objects", "individual_animal_notes", "highlighted", "markings", "cv_confidence", "license",
)  # fmt: skip


def row(image: str, station: str = "st1", **cells: str) -> dict[str, str]:
    common = {
        "project_id": "2001", "deployment_id": station, "image_id": image, "filename": "IMG_0001.JPG", "is_blank": "0",
        "location": f"gs://bucket__main/{station}/{image}.JPG", "wi_taxon_id": "8f1d", "class": "Mammalia", "genus": "Panthera",
        "species": "onca", "common_name": "Jaguar", "timestamp": "2023-05-01 10:00:00", "number_of_objects": "1",
    }  # fmt: skip
    return {**common, **cells}


def images(folder: Path, rows: list[dict[str, str]], *more: str) -> Path:
    with (folder / "images.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *more])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "images.csv"


def test_animals_are_read_and_the_others_counted(tmp_path: Path) -> None:
    rows = [
        row("a", individual_id="JAG1"),
        row("b", genus="", species="", common_name="Mammal"),
        row("c", is_blank="1", common_name="Blank", genus="", species=""),
        row("d", genus="Homo", species="sapiens", common_name="Human"),
        row("e", common_name="Human-Camera Trapper", genus="", species=""),
        row("f", location="gs://bucket__main/st1/f.MP4"),
        row("g", individual_id="JAG2", species="", number_of_objects="2"),
    ]
    catalogue = read_catalogue(str(images(tmp_path, rows)))
    assert catalogue.format == "Wildlife Insights"
    assert [(e.photo_id, e.identity, e.species, e.taken_at, e.path) for e in catalogue.entries] == [
        ("a", "JAG1", "Panthera onca", "2023-05-01T10:00:00", "a.JPG"),
        ("b", None, None, "2023-05-01T10:00:00", "b.JPG"),
        ("g", "JAG2", "Panthera", "2023-05-01T10:00:00", "g.JPG"),
    ]
    assert catalogue.warnings[:5] == (
        "blank images left out: 1",
        "images of people and vehicles left out: 2",
        "videos left out: 1",
        "photos of several animals under one name: 1",
        "photos with addresses elsewhere, looked for below the root by their file names: 3",
    )
    assert {"markings", "deployment_id", "filename"} <= set(catalogue.kept)
    assert "individual_id" not in catalogue.unused


def test_bursts_are_encounters(tmp_path: Path) -> None:
    rows = [row("a", sequence_id="s1"), row("b", sequence_id="s1"), row("c", sequence_id="s2")]
    entries = read_catalogue(str(images(tmp_path, rows, "sequence_id"))).entries
    assert [e.encounter for e in entries] == ["s1", "s1", "s2"]


def test_photos_of_one_name_at_two_stations_stay_apart(tmp_path: Path) -> None:
    rows = [row(f"{s}{i}", s, location=f"gs://b/{s}/IMG_{i}.JPG") for s in ("st1", "st2") for i in (1, 2)]
    source = images(tmp_path, rows)
    for s in ("st1", "st2"):
        (tmp_path / "photos" / s).mkdir(parents=True)
        (tmp_path / "photos" / s / "IMG_1.JPG").touch()
        (tmp_path / "photos" / s / "IMG_2.JPG").touch()
    looked = look_for_photos(read_catalogue(str(source)), False)
    assert [e.path for e in looked.catalogue.entries] == [
        "st1/IMG_1.JPG", "st1/IMG_2.JPG", "st2/IMG_1.JPG", "st2/IMG_2.JPG",
    ]  # fmt: skip
    assert looked.found == 4
    assert looked.catalogue.root == str(tmp_path / "photos")


def test_addresses_below_a_remote_root(tmp_path: Path) -> None:
    catalogue = read_catalogue(str(images(tmp_path, [row("a")])), "gs://bucket__main")
    assert [e.path for e in catalogue.entries] == ["st1/a.JPG"]


def test_a_download_as_it_comes(tmp_path: Path) -> None:
    images(tmp_path, [row("a", individual_id="JAG1")])
    assert [e.identity for e in read_catalogue(str(tmp_path)).entries] == ["JAG1"]
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        for name in ("projects", "cameras", "deployments"):
            archive.writestr(f"wi/{name}.csv", "project_id\n2001\n")
        archive.write(tmp_path / "images.csv", "wi/images.csv")
    assert [e.identity for e in read_catalogue(str(tmp_path / "download.zip")).entries] == ["JAG1"]


def test_one_image_identified_twice_is_one_photo(tmp_path: Path) -> None:
    rows = [
        row("a", individual_id="JAG1"),
        row("a", individual_id="JAG2"),
        row("b"),
        row("b", genus="Puma", species="concolor"),
    ]
    catalogue = read_catalogue(str(images(tmp_path, rows)))
    assert [(e.photo_id, e.identity, e.species) for e in catalogue.entries] == [
        ("a", None, "Panthera onca"), ("b", None, None),
    ]  # fmt: skip
