"""One catalogue in all formats reads to the same entries; folders stand for the catalogue in them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.catalogue.cells import UNKNOWN, known
from schemas.catalogue.reader import read_catalogue
from schemas.errors import CatalogueError

SIZE = 1000
"""Width and height of all photos here, so that shares and pixels convert exactly enough."""

ANIMALS = st.lists(
    st.fixed_dictionaries(
        {
            "identity": st.sampled_from(["Ayo", "Björk", "007", "____", "unknown", "NA", ""]),
            "encounter": st.sampled_from(["e1", "e2", "e3"]),
            "day": st.integers(1, 28),
            "box": st.tuples(
                st.integers(0, 400), st.integers(0, 400), st.integers(2, 500), st.integers(2, 500)
            ),
        }
    ),
    min_size=1,
    max_size=6,
)


def rows_to_csv(path, rows):
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def as_frame(folder, animals):
    return rows_to_csv(
        folder / "frame.csv",
        [
            {
                "image_id": f"{i}.jpg", "identity": a["identity"], "path": f"{i}.jpg", "species": "Lynx lynx",
                "encounter": a["encounter"], "date": f"2024-05-{a['day']:02d}", "bbox": str(list(a["box"])),
            }
            for i, a in enumerate(animals)
        ],
    )  # fmt: skip


def as_wildbook(folder, animals):
    return rows_to_csv(
        folder / "wildbook.csv",
        [
            {
                "Encounter.id": a["encounter"], "Encounter.mediaAsset0": f"{i}.jpg", "Annotation0.bbox": str(list(a["box"])),
                "MarkedIndividual.individualID": a["identity"], "Encounter.genus": "Lynx", "Encounter.specificEpithet": "lynx",
                "Encounter.year": "2024", "Encounter.month": "5", "Encounter.day": a["day"],
            }
            for i, a in enumerate(animals)
        ],
    )  # fmt: skip


def as_coco(folder, animals):
    content = {
        "images": [
            {
                "id": f"{i}.jpg",
                "file_name": f"{i}.jpg",
                "seq_id": a["encounter"],
                "datetime": f"2024-05-{a['day']:02d}",
            }
            for i, a in enumerate(animals)
        ],
        "annotations": [
            {"id": i, "image_id": f"{i}.jpg", "category_id": 1, "bbox": list(a["box"]), "name": a["identity"]}
            for i, a in enumerate(animals)
        ],
        "categories": [{"id": 1, "name": "Lynx lynx"}],
    }
    (folder / "coco.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder / "coco.json")


def as_camtrap_dp(folder, animals):
    package = folder / "package"
    media = [
        {"mediaID": f"{i}.jpg", "deploymentID": "d", "timestamp": f"2024-05-{a['day']:02d}", "filePath": f"{i}.jpg",
         "fileMediatype": "image/jpeg"}
        for i, a in enumerate(animals)
    ]  # fmt: skip
    names = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
    observations = [
        {"observationID": f"o{i}", "deploymentID": "d", "mediaID": f"{i}.jpg", "eventID": a["encounter"],
         "observationLevel": "media", "observationType": "animal", "scientificName": "Lynx lynx",
         "individualID": a["identity"], **{name: v / SIZE for name, v in zip(names, a["box"], strict=True)}}
        for i, a in enumerate(animals)
    ]  # fmt: skip
    rows_to_csv(package / "media.csv", media)
    rows_to_csv(package / "observations.csv", observations)
    resources = [{"name": name, "path": f"{name}.csv"} for name in ("media", "observations")]
    (package / "datapackage.json").write_text(json.dumps({"resources": resources}))
    return str(package)


def as_wildlife_insights(folder, animals):
    """Without boxes, which this format has not."""
    return rows_to_csv(
        folder / "images.csv",
        [
            {
                "image_id": f"{i}.jpg", "deployment_id": "d", "wi_taxon_id": "t", "location": f"gs://b/{i}.jpg", "genus": "Lynx",
                "species": "lynx", "individual_id": a["identity"], "sequence_id": a["encounter"],
                "timestamp": f"2024-05-{a['day']:02d}",
            }
            for i, a in enumerate(animals)
        ],
    )  # fmt: skip


WRITE = {
    "wildlife-datasets": as_frame,
    "Wildbook": as_wildbook,
    "COCO Camera Traps": as_coco,
    "Camtrap DP": as_camtrap_dp,
    "Wildlife Insights": as_wildlife_insights,
}


def entries_of(source, root):
    """Entries with their boxes rounded to whole pixels, without what each format keeps of its own."""
    found = []
    for entry in read_catalogue(source, root).entries:
        box = entry.box and tuple(float(round(v)) for v in entry.box_in(SIZE, SIZE))
        found.append(replace(entry, box=box, box_is_relative=False, extra=""))
    return found


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(animals=ANIMALS)
def test_one_catalogue_in_all_formats(tmp_path, animals):
    root = str(tmp_path)
    frame = entries_of(as_frame(tmp_path, animals), root)
    assert [e.identity for e in frame] == [known(a["identity"]) for a in animals]
    assert [e.box for e in frame] == [a["box"] for a in animals]
    assert entries_of(as_wildbook(tmp_path, animals), root) == frame
    assert entries_of(as_coco(tmp_path, animals), root) == frame
    assert entries_of(as_camtrap_dp(tmp_path, animals), root) == frame
    without_boxes = [replace(entry, box=None) for entry in frame]
    assert entries_of(as_wildlife_insights(tmp_path, animals), root) == without_boxes


@pytest.mark.parametrize("spelling", [*UNKNOWN, *map(str.upper, UNKNOWN), "", " ", "____", "_"])
def test_unknown_is_unknown_in_every_format(tmp_path, spelling):
    animals = [
        {"identity": name, "encounter": "e", "day": 1, "box": (1, 2, 30, 40)} for name in ("Ayo", spelling)
    ]
    for write in WRITE.values():
        assert [e.identity for e in read_catalogue(write(tmp_path, animals)).entries] == ["Ayo", None]


def test_each_format_is_named(tmp_path):
    animals = [{"identity": "Ayo", "encounter": "e", "day": 1, "box": (1, 2, 30, 40)}]
    assert [read_catalogue(write(tmp_path, animals)).format for write in WRITE.values()] == [*WRITE]


def test_a_folder_stands_for_its_catalogue(tmp_path):
    row = {"image_id": "1", "identity": "Ayo", "path": "1.jpg"}
    rows_to_csv(tmp_path / "cows" / "metadata.csv", [row])
    catalogue = read_catalogue(str(tmp_path / "cows"))
    assert catalogue == read_catalogue(str(tmp_path / "cows" / "metadata.csv"))
    assert catalogue.root == str(tmp_path / "cows")
    (tmp_path / "cows" / "datapackage.json").write_text("{}")
    with pytest.raises(CatalogueError, match=r"holds datapackage\.json and metadata\.csv"):
        read_catalogue(str(tmp_path / "cows"))


def test_a_real_frame_with_columns_that_are_not_read(tmp_path):
    """As pandas writes wildlife-datasets' frames.

    They have an index without a name, lists and NaN as text, and run-length masks.
    """
    numbers = str([np.float64(1.0), np.float64(2.5), np.float64(30.0), np.float64(40.0)])
    common = {
        "position": "left", "video": "12", "keypoints": "[nan, 3.0]", "segmentation": "{'size': [9, 9], 'counts': b'x'}",
        "orientation": "Right",
    }  # fmt: skip
    rows = [
        {
            "": "0",
            "image_id": "5f",
            "identity": "Ayo",
            "path": "images\\a b\\1.jpg",
            "bbox": numbers,
            **common,
        },
        {"": "1", "image_id": "6f", "identity": "unknown", "path": "images/2.jpg", "bbox": "nan", **common},
        {
            "": "2",
            "image_id": "7f",
            "identity": "Bo",
            "path": "images/3.jpg",
            "bbox": "array([1. , 2. , 3. , 4.5])",
            **common,
        },
    ]
    catalogue = read_catalogue(rows_to_csv(tmp_path / "metadata.csv", rows))
    assert [(e.identity, e.path, e.box, e.viewpoint) for e in catalogue.entries] == [
        ("Ayo", "images/a b/1.jpg", (1.0, 2.5, 30.0, 40.0), "right"),
        (None, "images/2.jpg", None, "right"),
        ("Bo", "images/3.jpg", (1.0, 2.0, 3.0, 4.5), "right"),
    ]
    assert catalogue.warnings == (
        "column video is read as encounter, since no column gives encounters: 1 videos",
        "paths with backslashes, read as /: 1",
    )


def test_a_real_frame_as_parquet(tmp_path):
    pq.write_table(
        pa.table(
            {
                "image_id": ["a", "b"],
                "identity": ["Ayo", "unknown"],
                "path": ["1.jpg", "2.jpg"],
                "bbox": pa.array([[1.0, 2.0, 3.0, 4.0], None]),
                "segmentation": pa.array([{"counts": b"x"}, None]),
                "keypoints": pa.array([[1.0], None]),
            }
        ),
        tmp_path / "metadata.parquet",
    )
    entries = read_catalogue(str(tmp_path)).entries
    assert [(e.identity, e.box) for e in entries] == [("Ayo", (1.0, 2.0, 3.0, 4.0)), (None, None)]
