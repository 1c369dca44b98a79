"""Camtrap DP: packages with the published columns, what is left out of them, what is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from schemas.catalogue.extra import pairs_of
from schemas.catalogue.reader import CatalogueEntry, read_catalogue
from schemas.catalogue.reading import Reading
from schemas.errors import CatalogueError

DEPLOYMENTS = ["deploymentID", "locationID", "latitude", "longitude", "deploymentStart", "deploymentEnd"]
MEDIA = [
    "mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic", "fileName", "fileMediatype", "exifData",
    "favorite", "mediaComments",
]  # fmt: skip
OBSERVATIONS = [
    "observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd", "observationLevel", "observationType",
    "cameraSetupType", "scientificName", "count", "lifeStage", "sex", "behavior", "individualID", "individualPositionRadius",
    "individualPositionAngle", "individualSpeed", "bboxX", "bboxY", "bboxWidth", "bboxHeight", "classificationMethod",
    "classifiedBy", "classificationTimestamp", "classificationProbability", "observationTags", "observationComments",
]  # fmt: skip
VERSION = "https://raw.githubusercontent.com/tdwg/camtrap-dp/1.0.2/camtrap-dp-profile.json"
DEFAULTS = {
    "deploymentID": "d1",
    "captureMethod": "activityDetection",
    "filePublic": "false",
    "fileMediatype": "image/jpeg",
    "exifData": '{"EXIF":{"ISO":200}}',
    "observationLevel": "media",
    "observationType": "animal",
    "scientificName": "Lynx lynx",
    "count": "1",
    "classificationMethod": "human",
}


def table(header, rows):
    lines = [
        dict.fromkeys(header, "") | {k: v for k, v in DEFAULTS.items() if k in header} | row for row in rows
    ]
    return header, lines


def medium(name, second=0, **more):
    return {
        "mediaID": name,
        "filePath": f"media/{name}.jpg",
        "timestamp": f"2024-05-31T10:00:{second:02d}Z",
        **more,
    }


def observation(name, media="", **more):
    return {"observationID": name, "mediaID": media, **more}


def box(*shares):
    return dict(zip(("bboxX", "bboxY", "bboxWidth", "bboxHeight"), map(str, shares), strict=True))


@pytest.fixture
def package(tmp_path):
    def write(media, observations, **changes):
        folder = tmp_path / "package"
        folder.mkdir(exist_ok=True)
        for name, (header, rows) in {
            "deployments": table(DEPLOYMENTS, [{}]),
            "media": table(MEDIA, media),
            "observations": table(OBSERVATIONS, observations),
        }.items():
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, header)
                writer.writeheader()
                writer.writerows(rows)
        resources = [
            {
                "name": name,
                "path": f"{name}.csv",
                "profile": "tabular-data-resource",
                "schema": {"fields": []},
            }
            for name in ("deployments", "media", "observations")
        ]
        resources.append({"name": "individuals", "data": [{"id": 1, "individualName": "Reinaert"}]})
        content = {"profile": VERSION, "name": "x", "resources": resources, **changes}
        (folder / "datapackage.json").write_text(json.dumps(content), encoding="utf-8")
        return str(folder)

    return write


def refused(source):
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(source)
    return sorted((problem.kind, problem.where) for problem in caught.value.problems)


def named(catalogue):
    return {entry.photo_id: entry.identity for entry in catalogue.entries}


def test_a_package_is_read_from_its_folder_or_its_json(package):
    folder = package(
        [medium("m1"), medium("m2", 7)],
        [
            observation("o1", "m1", eventID="e1", individualID="Ayo", **box(0.1, 0.2, 0.3, 0.4)),
            observation("o2", "m2", eventID="e1", individualID="unknown"),
        ],
    )
    catalogue = read_catalogue(folder)
    assert catalogue == read_catalogue(f"{folder}/datapackage.json")
    assert (catalogue.format, catalogue.root) == ("Camtrap DP", folder)
    assert tuple(replace(entry, extra="") for entry in catalogue.entries) == (
        CatalogueEntry(
            "m1", "media/m1.jpg", "Ayo", "Lynx lynx", "e1", "2024-05-31T10:00:00+00:00", None,
            (0.1, 0.2, 0.3, 0.4), True,
        ),
        CatalogueEntry("m2", "media/m2.jpg", None, "Lynx lynx", "e1", "2024-05-31T10:00:07+00:00"),
    )  # fmt: skip
    assert catalogue.entries[0].box_in(200, 100) == pytest.approx((20, 20, 60, 40))


def test_columns_without_a_meaning_are_kept_with_the_photo(package):
    catalogue = read_catalogue(package([medium("m1")], [observation("o1", "m1", sex="female")]))
    assert catalogue.kept[:4] == ("deploymentID", "captureMethod", "filePublic", "exifData")
    assert "count" not in catalogue.kept
    extra = dict(pairs_of(catalogue.entries[0].extra))
    assert (extra["deploymentID"], extra["filePublic"], extra["sex"]) == ("d1", "false", "female")


def test_encounters_by_deployment_and_time(package):
    media = [medium("m1"), medium("m2", 7), medium("m3", 59)]
    folder = package(media, [observation(f"o{i}", f"m{i}") for i in (1, 2, 3)])
    found = [e.encounter for e in read_catalogue(folder, reading=Reading(encounter_gap=0.5)).entries]
    assert found[0] == found[1] != found[2]
    assert None not in found


def test_a_package_behind_a_url(package):
    folder = Path(package([medium("m1")], [observation("o1", "m1", individualID="Ayo")]))
    for file in folder.iterdir():
        with fsspec.open(f"memory://traps/{file.name}", "wb") as copy:
            copy.write(file.read_bytes())
    catalogue = read_catalogue("memory://traps")
    assert catalogue.root == "memory://traps"
    assert catalogue.entries == read_catalogue(str(folder)).entries


@pytest.mark.parametrize(
    ("path", "name", "read"),
    [
        ("media", "a.jpg", "media/a.jpg"),
        ("media/", "a.jpg", "media/a.jpg"),
        ("v1.0", "a.jpg", "v1.0/a.jpg"),
        ("12.0", "12.jpg", "12.0/12.jpg"),
        ("media/a.jpg", "a.jpg", "media/a.jpg"),
        ("media/b.JPEG", "a.jpg", "media/b.JPEG"),
        ("media/b", "", "media/b"),
        ("media/b", "b", "media/b"),
    ],
)
def test_a_path_that_is_a_folder(package, path, name, read):
    catalogue = read_catalogue(
        package([medium("m1", filePath=path, fileName=name)], [observation("o1", "m1")])
    )
    assert [entry.path for entry in catalogue.entries] == [read]
    joined = [each for each in catalogue.warnings if "is a folder" in each]
    assert joined == (
        [] if read == path else ["media whose filePath is a folder, in which fileName is the file: 1"]
    )


def test_a_video_in_a_folder_is_left_out(package):
    media = [medium("m1"), medium("m2", filePath="media", fileName="b.MP4", fileMediatype="")]
    catalogue = read_catalogue(package(media, [observation("o1", "m1"), observation("o2", "m2")]))
    assert named(catalogue) == {"m1": None}


def test_boxed_animals_of_one_photo_are_entries_of_their_own(package):
    catalogue = read_catalogue(
        package(
            [medium("m1"), medium("m2")],
            [
                observation("o1", "m1", individualID="Ayo", **box(0, 0, 0.5, 1)),
                observation("o2", "m1", individualID="Bo", **box(0.5, 0, 0.5, 1)),
                observation("o3", "m1", individualID="Cy"),
                observation("o4", "m2", individualID="Di", **box(0, 0, 1, 1)),
            ],
        )
    )
    assert named(catalogue) == {"m1/o1": "Ayo", "m1/o2": "Bo", "m2": "Di"}
    assert {e.path for e in catalogue.entries} == {"media/m1.jpg", "media/m2.jpg"}
    assert (
        "animals without a box left out, because others in the same photo have one: 1" in catalogue.warnings
    )


def test_animals_without_boxes_are_one_photo(package):
    catalogue = read_catalogue(
        package(
            [medium("m1"), medium("m2")],
            [
                observation("o1", "m1", individualID="Ayo"),
                observation("o2", "m1", individualID="Bo"),
                observation("o3", "m2", scientificName="Sus scrofa"),
                observation("o4", "m2", individualID="Cy"),
            ],
        )
    )
    assert named(catalogue) == {"m1": None, "m2": "Cy"}
    assert [e.species for e in catalogue.entries] == ["Lynx lynx", None]
    assert (
        "photos of several named animals without boxes, read as photos of unknown animals: 1"
        in catalogue.warnings
    )


def test_what_is_no_animal_and_no_image_is_left_out_and_counted(package):
    catalogue = read_catalogue(
        package(
            [medium(f"m{i}") for i in range(6)]
            + [medium("film", fileMediatype="video/mp4", filePath="media/film.mp4")],
            [
                observation("o0", "m0", individualID="Ayo"),
                observation("o1", "m1", observationType="blank"),
                observation("o2", "m2", observationType="human"),
                observation("o3", "m3", observationType="vehicle"),
                observation("o4", "m4", observationType="unclassified"),
                observation("o6", "film", individualID="Bo"),
            ],
        )
    )
    assert named(catalogue) == {"m0": "Ayo"}
    assert "observations of no animal (blank, human, vehicle, unclassified) left out: 4" in catalogue.warnings
    assert "media that are no images (videos) left out: 1" in catalogue.warnings
    assert "images without an observed animal left out: 5" in catalogue.warnings


def event(name, **more):
    return observation(name, observationLevel="event", **more)


def test_an_event_applies_to_its_media_by_time(package):
    """Naive oracle: exactly the unclassified images of the deployment between start and end."""
    media = [medium(f"m{i}", i) for i in range(8)] + [medium("elsewhere", 4, deploymentID="d2")]
    catalogue = read_catalogue(
        package(
            media,
            [
                event("e1", eventID="ev", eventStart="2024-05-31T10:00:02Z", eventEnd="2024-05-31T12:00:05+02:00",
                      individualID="Ayo"),
                observation("o4", "m4", observationType="blank", eventID="ev"),
            ],
        )
    )  # fmt: skip
    assert named(catalogue) == {"m2": "Ayo", "m3": "Ayo", "m5": "Ayo"}
    assert {entry.encounter for entry in catalogue.entries} == {"ev"}


def test_an_event_applies_to_media_that_name_it(package):
    catalogue = read_catalogue(
        package(
            [medium("m1"), medium("m2"), medium("m3")],
            [
                event("e1", eventID="ev", individualID="Ayo"),
                event("e2", eventID="nothing", individualID="Bo"),
                observation("o1", "m1", eventID="ev", observationType="unclassified"),
                observation("o2", "m2", eventID="ev", observationType="unknown"),
            ],
        )
    )
    assert named(catalogue) == {"m1": "Ayo", "m2": "Ayo"}
    assert "observations of events that no medium belongs to left out: 1" in catalogue.warnings


@pytest.mark.parametrize(
    ("changes", "identity"),
    [
        ({}, "Ayo"),
        ({"count": "1.0"}, "Ayo"),
        ({"count": "2"}, None),
        ({"scientificName": "Sus scrofa"}, None),
        ({"individualID": ""}, None),
    ],
)
def test_a_photos_animal_takes_the_name_of_its_event_where_both_are_one(package, changes, identity):
    catalogue = read_catalogue(
        package(
            [medium("m1"), medium("m2")],
            [
                event("e1", eventID="ev", **{"individualID": "Ayo", **changes}),
                observation("o1", "m1", eventID="ev", **box(0, 0, 1, 1)),
                observation("o2", "m2", eventID="ev", individualID="Bo"),
            ],
        )
    )
    assert named(catalogue) == {"m1": identity, "m2": "Bo"}


def test_ids_and_names_that_were_written_as_floats(package):
    catalogue = read_catalogue(
        package(
            [medium("1.0"), medium("2")],
            [
                observation("5.0", "1", individualID="12.0", **box(0, 0, 0.5, 1)),
                observation("6", "1.0", individualID="12", **box(0.5, 0, 0.5, 1.0)),
                observation("7", "2.0", individualID="12.0"),
            ],
        )
    )
    assert named(catalogue) == {"1/5": "12", "1/6": "12", "2": "12"}
    assert {entry.path for entry in catalogue.entries} == {"media/1.0.jpg", "media/2.jpg"}


def test_two_animals_of_one_event_name_no_photo(package):
    catalogue = read_catalogue(
        package(
            [medium("m1"), medium("m2")],
            [
                event("e1", eventID="ev", individualID="Ayo"),
                event("e2", eventID="ev", individualID="Bo"),
                observation("o1", "m1", eventID="ev"),
                observation("o2", "m2", eventID="ev", observationType="unclassified"),
            ],
        )
    )
    assert named(catalogue) == {"m1": None, "m2": None}


def test_everything_wrong_is_listed_with_its_file_and_row(package):
    folder = package(
        [
            medium("m1"),
            medium("m2", filePath="https://h/x.jpg"),
            medium("m2"),
            medium("m4", filePath="../x.jpg"),
            medium("m5", filePath="/etc/passwd"),
        ],
        [
            observation("o1", "m1", **box("nan", 0.2, 0.3, 0.4)),
            observation("o1", "m1", **box(10, 20, 30, 40)),
            observation("o3", "nowhere"),
            observation("o4", "m2", individualID="a\tb"),
            observation("o5", "m4"),
            observation("o6", "m5", **box("left", 0, 1, 1)),
        ],
    )
    found = refused(folder)
    four = "bboxX,bboxY,bboxWidth,bboxHeight"
    assert found == [
        ("bad box", "observations.csv row 2, column " + four),
        ("bad box", "observations.csv row 7, column bboxX"),
        ("box not relative", "observations.csv row 3, column " + four),
        ("control characters", "observations.csv row 5, column individualID"),
        ("doubled image_id", "media.csv rows 2, 2"),
        ("doubled mediaID", "media.csv rows 3, 4"),
        ("doubled observationID", "observations.csv rows 2, 3"),
        ("path outside root", "media.csv row 5, column filePath"),
        ("path outside root", "media.csv row 6, column filePath"),
        ("photos behind URLs", "media.csv row 3, column filePath"),
        ("unknown medium", "observations.csv row 4, column mediaID"),
    ]
    with pytest.raises(CatalogueError, match="download the photos"):
        read_catalogue(folder)


def test_one_bad_event_is_one_problem(package):
    folder = package(
        [medium(f"m{i}", i) for i in range(5)],
        [
            event(
                "e1",
                eventStart="2024-05-31T10:00:00Z",
                eventEnd="2024-05-31T10:00:09Z",
                individualID="x" * 600,
            )
        ],
    )
    assert refused(folder) == [("too long", "observations.csv row 2, column individualID")]


@pytest.mark.parametrize(
    "path",
    [
        "../media.csv",
        "/etc/passwd",
        "https://h/media.csv",
        "~/media.csv",
        "a/../../media.csv",
        "file:///etc/passwd",
    ],
)
def test_tables_outside_the_package(package, path):
    folder = package([medium("m1")], [observation("o1", "m1")])
    file = Path(folder) / "datapackage.json"
    content = json.loads(file.read_text())
    content["resources"][1]["path"] = path
    file.write_text(json.dumps(content))
    assert refused(folder) == [("path outside package", "datapackage.json, resource media")]


def test_a_linked_table_outside_the_package(package, tmp_path):
    folder = package([medium("m1")], [observation("o1", "m1")])
    (tmp_path / "other.csv").write_text("mediaID,filePath\n")
    (Path(folder) / "media.csv").unlink()
    (Path(folder) / "media.csv").symlink_to(tmp_path / "other.csv")
    assert refused(folder) == [("path outside package", "datapackage.json, resource media")]


@pytest.mark.parametrize(
    ("resources", "kinds"),
    [
        (None, ["missing resource"] * 2),
        ("media.csv", ["missing resource"] * 2),
        ([{"name": "media", "path": ["a.csv", "b.csv"]}], ["missing resource"] * 2),
        ([{"name": "media", "data": []}, {"name": "media", "path": "media.csv"}], ["missing resource"] * 2),
        ([7, {"name": "media", "path": "no.csv"}], ["missing resource", "no such file"]),
    ],
)
def test_odd_resources(package, resources, kinds):
    folder = package([medium("m1")], [observation("o1", "m1")], resources=resources)
    assert [kind for kind, _ in refused(folder)] == kinds


def test_other_versions_and_missing_columns(package):
    folder = package([medium("m1")], [observation("o1", "m1")], profile=VERSION.replace("1.0.2", "0.6"))
    (Path(folder) / "media.csv").write_text("multimediaID,deploymentID\nm1,d1\n")
    assert refused(folder) == [
        ("missing column", "media.csv header, column filePath"),
        ("missing column", "media.csv header, column mediaID"),
        ("other version", "datapackage.json, field profile"),
    ]


def test_a_package_without_animals(package):
    folder = package([medium("m1")], [observation("o1", "m1", observationType="blank")])
    assert refused(folder) == [("empty catalogue", "the file")]
