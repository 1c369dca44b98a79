"""Wildbook's spreadsheets: rows as its exports and its bulk import have them, and what is refused."""

from __future__ import annotations

import csv

import pytest

from schemas.catalogue.reader import CatalogueEntry, read_catalogue
from schemas.errors import CatalogueError

EXPORT = [
    "Occurrence.occurrenceID", "Encounter.sourceUrl", "Encounter.mediaAsset0", "Encounter.mediaAsset1",
    "Annotation0.ViewPoint", "Annotation1.ViewPoint", "Name0.label", "Name0.value", "IndividualSummary.sex", "Encounter.genus",
    "Encounter.specificEpithet", "Encounter.verbatimLocality", "Encounter.decimalLatitude", "Encounter.year", "Encounter.month",
    "Encounter.day", "Encounter.hour", "Encounter.minutes", "Encounter.sex", "Encounter.state", "Reference keyword",
    "Encounter.alternateID", "Encounter.mediaAsset0.imageUrl", "Annotation0.bbox", "Annotation0.MatchAgainst",
    "Encounter.mediaAsset1.imageUrl", "Annotation1.bbox", "Annotation1.MatchAgainst",
]  # fmt: skip
"""The columns of Wildbook's annotation export."""
IMPORT = [
    "Encounter.catalogNumber", "Encounter.mediaAsset0", "Encounter.mediaAsset1", "MarkedIndividual.individualID",
    "MarkedIndividual.nickName", "Encounter.genus", "Encounter.specificEpithet", "Encounter.year", "Encounter.viewpoint",
    "Annotation0.bbox", "Annotation0.theta", "Annotation1.bbox",
]  # fmt: skip


@pytest.fixture
def sheet(tmp_path):
    def write(rows, header=IMPORT, name="export.csv"):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            writer.writerows(rows)
        return str(tmp_path / name)

    return write


def row(encounter, *media, individual="", **more):
    return {
        "Encounter.catalogNumber": encounter,
        **{f"Encounter.mediaAsset{i}": path for i, path in enumerate(media)},
        "MarkedIndividual.individualID": individual,
        **more,
    }


def refused(source):
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(source)
    return sorted((problem.kind, problem.where) for problem in caught.value.problems)


def named(catalogue):
    return {entry.photo_id: (entry.identity, entry.encounter) for entry in catalogue.entries}


def test_an_annotation_export(sheet, tmp_path):
    source = sheet(
        [
            {
                "Encounter.sourceUrl": "https://w.org/encounters/encounter.jsp?number=5e-1", "Encounter.mediaAsset0": "b.jpg",
                "Encounter.mediaAsset1": "a.jpg", "Annotation0.ViewPoint": "left", "Annotation1.ViewPoint": "Right",
                "Name0.label": "Alternate ID", "Name0.value": "Ayo", "Encounter.genus": "Rhincodon",
                "Encounter.specificEpithet": "typus", "Encounter.year": "2024", "Encounter.month": "5",
                "Encounter.day": "31", "Encounter.hour": "9", "Encounter.minutes": "5",
                "Annotation0.bbox": "[250, 250, 500, 500]", "Annotation0.MatchAgainst": "true",
                "Annotation1.bbox": "[1, 2, 30, 40]",
            },
            {"Encounter.mediaAsset0": "d.jpg", "Encounter.mediaAsset1": "c.jpg", "Encounter.year": "2023.0",
             "Encounter.month": "0", "Encounter.hour": "-1", "Encounter.genus": "Rhincodon"},
            {"Encounter.sourceUrl": "https://w.org/x", "Encounter.year": "1999"},
        ],
        EXPORT,
    )  # fmt: skip
    catalogue = read_catalogue(source)
    assert (catalogue.format, catalogue.root) == ("Wildbook", str(tmp_path))
    labels = "Annotation0.MatchAgainst\x1ftrue\x1eName0.label\x1fAlternate ID"
    assert catalogue.entries == (
        CatalogueEntry(
            "a.jpg",
            "a.jpg",
            "Ayo",
            "Rhincodon typus",
            "5e-1",
            "2024-05-31T09:05:00",
            "right",
            (1, 2, 30, 40),
            extra=labels,
        ),
        CatalogueEntry(
            "b.jpg",
            "b.jpg",
            "Ayo",
            "Rhincodon typus",
            "5e-1",
            "2024-05-31T09:05:00",
            "left",
            (250, 250, 500, 500),
            extra=labels,
        ),
        CatalogueEntry("c.jpg", "c.jpg", None, "Rhincodon", "c.jpg", "2023"),
        CatalogueEntry("d.jpg", "d.jpg", None, "Rhincodon", "c.jpg", "2023"),
    )
    assert "encounters without a photo left out: 1" in catalogue.warnings


def test_nicknames_are_not_read_and_unassigned_animals_are_unknown(sheet):
    catalogue = read_catalogue(
        sheet(
            [
                row("e1", "1.jpg", individual="uuid-1", **{"MarkedIndividual.nickName": "Stumpy"}),
                row("e2", "2.jpg", individual="Unassigned", **{"MarkedIndividual.nickName": "Stumpy"}),
                row("e3", "3.jpg", individual="____"),
            ]
        )
    )
    assert named(catalogue) == {"1.jpg": ("uuid-1", "e1"), "2.jpg": (None, "e2"), "3.jpg": (None, "e3")}


def test_two_animals_in_one_photo_are_two_encounters(sheet):
    one, other = {"Annotation0.bbox": "[1, 2, 30, 40]"}, {"Annotation0.bbox": "[50, 2, 30, 40]"}
    rows = [
        row("e1", "1.jpg", individual="Ayo", **one),
        row("e2", "1.jpg", individual="Bo", **other),
        row("e3", "2.jpg", "2.jpg", individual="Cy", **one, **{"Annotation1.bbox": "[0, 0, 5, 5]"}),
        row("e4", "3.jpg", "3.jpg", individual="Di"),
    ]
    catalogue = read_catalogue(sheet(rows))
    assert named(catalogue) == {
        "1.jpg/e1": ("Ayo", "e1"),
        "1.jpg/e2": ("Bo", "e2"),
        "2.jpg/e3": ("Cy", "e3"),
        "2.jpg/e3/2": ("Cy", "e3"),
        "3.jpg": ("Di", "e4"),
    }
    assert "photos listed twice in one row and read once: 1" in catalogue.warnings
    assert read_catalogue(sheet(rows[::-1])).entries == catalogue.entries


PLACED = [
    *IMPORT, "Encounter.mediaAsset0.filePath", "Encounter.mediaAsset0.imageUrl", "Encounter.mediaAsset1.filePath",
    "Encounter.sightingID", "Encounter.dateInMilliseconds",
]  # fmt: skip


def placed(encounter, path="", url="", name="IMG_1.JPG", **more):
    places = {"Encounter.mediaAsset0.filePath": path, "Encounter.mediaAsset0.imageUrl": url}
    return row(encounter, name, individual=f"of {encounter}", **places, **more)


def paths(catalogue):
    return {entry.identity: (entry.photo_id, entry.path) for entry in catalogue.entries}


def test_pictures_of_one_file_name_are_told_apart_by_their_place(sheet):
    alone = placed("e0", "old/x.jpg", name="alone.jpg")
    rows = [alone, placed("e1", "e1/IMG_1.JPG"), placed("e2", "e2", **{"Annotation0.bbox": "[1, 2, 30, 40]"})]
    catalogue = read_catalogue(sheet(rows, PLACED))
    assert paths(catalogue) == {
        "of e0": ("alone.jpg", "alone.jpg"),
        "of e1": ("e1/IMG_1.JPG", "e1/IMG_1.JPG"),
        "of e2": ("e2/IMG_1.JPG", "e2/IMG_1.JPG"),
    }
    assert (
        "photos that share a file name with others, known by their filePath or imageUrl: 2"
        in catalogue.warnings
    )
    assert read_catalogue(sheet(rows[::-1], PLACED)).entries == catalogue.entries


def test_pictures_of_one_file_name_are_told_apart_by_their_address(sheet):
    rows = [placed(f"e{i}", url=f"https://w.org/data/e%20{i}/IMG_1.JPG?size=full") for i in range(2)]
    assert paths(read_catalogue(sheet(rows, PLACED))) == {
        f"of e{i}": (f"data/e {i}/IMG_1.JPG",) * 2 for i in range(2)
    }
    odd = [placed("e1", url="http://[::1"), placed("e2", url="data:x")]
    assert [entry.path for entry in read_catalogue(sheet(odd, PLACED)).entries] == ["IMG_1.JPG"]


def test_two_pictures_of_one_file_name_in_one_row(sheet):
    one = row(
        "", "a.jpg", "a.jpg",
        **{"Encounter.mediaAsset0.filePath": "x/a.jpg", "Encounter.mediaAsset1.filePath": "y/a.jpg"},
    )  # fmt: skip
    entries = read_catalogue(sheet([one], PLACED)).entries
    assert [(e.path, e.encounter) for e in entries] == [("x/a.jpg", "x/a.jpg"), ("y/a.jpg", "x/a.jpg")]


def test_columns_without_a_meaning_are_kept_with_each_photo_of_their_row(sheet):
    header = [*IMPORT, "Encounter.individualID", "Encounter.locationID"]
    catalogue = read_catalogue(
        sheet([row("e1", "1.jpg", **{"Encounter.locationID": "reef"}), row("e2", "2.jpg")], header)
    )
    assert [entry.extra for entry in catalogue.entries] == ["Encounter.locationID\x1freef", ""]
    assert catalogue.unused == ()
    assert catalogue.kept == ("MarkedIndividual.nickName", "Encounter.individualID", "Encounter.locationID")


def test_keywords_of_a_photo_name_its_side(sheet):
    key = "Encounter.mediaAsset0.keywords"
    words = ["left_good quality", "Right flank", "left ear torn", "left_right", ""]
    rows = [row(f"e{i}", f"{i}.jpg", **{key: text}) for i, text in enumerate(words)]
    catalogue = read_catalogue(sheet(rows, [*IMPORT, key]))
    assert [entry.viewpoint for entry in catalogue.entries] == ["left", "right", None, None, None]
    assert "viewpoints taken from keywords: left 1, right 1" in catalogue.warnings
    assert ("keywords", "Encounter.mediaAssetN.keywords") in catalogue.used


def test_rows_of_one_sighting_are_one_encounter(sheet):
    rows = [
        row("e1", "1.jpg", individual="Ayo", **{"Encounter.sightingID": "s1"}),
        row("e2", "2.jpg", individual="Ayo", **{"Encounter.sightingID": "s1"}),
        row("e3", "3.jpg", individual="Bo"),
    ]
    assert named(read_catalogue(sheet(rows, PLACED))) == {
        "1.jpg": ("Ayo", "s1"),
        "2.jpg": ("Ayo", "s1"),
        "3.jpg": ("Bo", "e3"),
    }


@pytest.mark.parametrize(
    ("milliseconds", "date"),
    [
        ("1589554848000", "2020-05-15T15:00:48+00:00"),
        ("1589554848000.0", "2020-05-15T15:00:48+00:00"),
        ("1.589554848E12", "2020-05-15T15:00:48+00:00"),
        ("-86400000", "1969-12-31T00:00:00+00:00"),
        ("", None),
        ("0", None),
        ("soon", "soon"),
        ("9" * 30, "9" * 30),
        ("9e99", "9e99"),
    ],
)
def test_dates_in_milliseconds(sheet, milliseconds, date):
    source = sheet([row("e1", "1.jpg", **{"Encounter.dateInMilliseconds": milliseconds})], PLACED)
    assert read_catalogue(source).entries[0].taken_at == date
    dated = row("e1", "1.jpg", **{"Encounter.dateInMilliseconds": milliseconds, "Encounter.year": "2019"})
    assert read_catalogue(sheet([dated], PLACED)).entries[0].taken_at == "2019"


def test_a_photo_of_two_animals_without_boxes_names_none(sheet):
    catalogue = read_catalogue(
        sheet([row("e1", "1.jpg", individual="Ayo"), row("e2", "1.jpg", individual="Bo"), row("e3", "2.jpg")])
    )
    assert named(catalogue) == {"1.jpg": (None, "e1"), "2.jpg": (None, "e3")}


def test_theta_and_the_encounters_viewpoint(sheet):
    source = sheet(
        [row("e1", "1.jpg", "2.jpg", **{"Encounter.viewpoint": "Up", "Annotation0.theta": "0.25"})]
    )
    assert [(e.viewpoint, e.theta) for e in read_catalogue(source).entries] == [("up", 0.25), ("up", 0.0)]


def test_names_of_columns_in_any_case_and_with_dots(sheet):
    header = ["encounter.MediaAsset.0", "Encounter.individualID", "Encounter.genus"]
    (entry,) = read_catalogue(
        sheet([dict(zip(header, ("1.jpg", "Ayo", "Equus"), strict=True))], header)
    ).entries
    assert entry == CatalogueEntry("1.jpg", "1.jpg", "Ayo", "Equus", "1.jpg")


@pytest.mark.parametrize(
    ("parts", "date"),
    [
        (("2024",), "2024"),
        (("2024", "5"), "2024-05"),
        (("2024", "", "7"), "2024"),
        (("2024", "5", "7"), "2024-05-07"),
        (("2024", "5", "0", "9"), "2024-05"),
        (("2024", "5.0", "7.0", "23"), "2024-05-07T23:00:00"),
        (("2024", "5", "7", "0", "0"), "2024-05-07T00:00:00"),
        (("-1", "5"), None),
        (("last year",), "last year"),
        (("2024", "May", "7"), "2024-May-7"),
        (("2024", "13"), "2024-13"),
    ],
)
def test_dates_go_as_far_as_they_are_known(sheet, parts, date):
    names = [f"Encounter.{part}" for part in ("year", "month", "day", "hour", "minutes")]
    cells = {**dict(zip(names, parts, strict=False)), "Encounter.mediaAsset0": "1.jpg"}
    source = sheet([cells], ["Encounter.mediaAsset0", "Encounter.individualID", *names])
    assert read_catalogue(source).entries[0].taken_at == date


def test_everything_wrong_is_listed_with_row_and_column(sheet):
    source = sheet(
        [
            row("e1", "../1.jpg", "ok.jpg", individual="a\tb"),
            row(
                "e2",
                "2.jpg",
                "/2.jpg",
                **{"Annotation0.bbox": "[nan, 1, 2, 3]", "Annotation0.theta": "north"},
            ),
            row("e3", "ok1.jpg", "https://h/3.jpg", **{"Annotation1.bbox": "__import__('os')"}),
        ]
    )
    assert refused(source) == [
        ("bad box", "row 3, column Annotation0.bbox"),
        ("bad box", "row 4, column Annotation1.bbox"),
        ("bad theta", "row 3, column Annotation0.theta"),
        ("control characters", "row 2, column MarkedIndividual.individualID"),
        ("path outside root", "row 2, column Encounter.mediaAsset0"),
        ("path outside root", "row 3, column Encounter.mediaAsset1"),
        ("path outside root", "row 4, column Encounter.mediaAsset1"),
    ]


def test_a_missing_column_of_names(sheet):
    source = sheet(
        [{"Encounter.mediaAsset0": "1.jpg"}], ["Encounter.mediaAsset0", "MarkedIndividual.nickName"]
    )
    assert refused(source) == [("missing column", "header, column identity")]


@pytest.mark.parametrize("suffix", ["xlsx", "xls"])
def test_workbooks_name_the_cure(tmp_path, suffix):
    (tmp_path / f"export.{suffix}").write_bytes(b"PK\x03\x04")
    with pytest.raises(CatalogueError, match="CSV UTF-8"):
        read_catalogue(str(tmp_path / f"export.{suffix}"))
