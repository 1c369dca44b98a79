"""COCO Camera Traps: files as LILA and Wildbook write them, what is left out, and hostile ones."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.catalogue.extra import pairs_of
from schemas.catalogue.reader import CatalogueEntry, read_catalogue
from schemas.catalogue.reading import Reading
from schemas.errors import CatalogueError

CATEGORIES = [
    {"id": 0, "name": "empty"},
    {"id": 1, "name": "panthera pardus"},
    {"id": 2, "name": "Human"},
    {"id": 3, "name": "animal"},
]


def image(name, **more):
    return {
        "id": name, "file_name": f"images/{name}.jpg", "width": 400, "height": 300, "rights_holder": "x",
        "datetime": "2024-05-31 10:00:00", "seq_id": "s1", "seq_num_frames": 3, "frame_num": 1, "location": "7",
        "corrupt": False, **more,
    }  # fmt: skip


def animal(number, on, **more):
    return {"id": f"a{number}", "image_id": on, "category_id": 1, **more}


@pytest.fixture
def coco(tmp_path):
    def write(images, annotations, name="traps.json", **more):
        content = {
            "info": {"version": "1.0"},
            "images": images,
            "annotations": annotations,
            "categories": CATEGORIES,
        }
        (tmp_path / name).write_text(json.dumps({**content, **more}), encoding="utf-8")
        return str(tmp_path / name)

    return write


def refused(source):
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(source)
    return sorted((problem.kind, problem.where) for problem in caught.value.problems)


def test_a_camera_trap_file(coco, tmp_path):
    catalogue = read_catalogue(
        coco(
            [image("i1"), image("i2", seq_id="s2", datetime=None), image("i3", seq_id=None)],
            [
                animal(1, "i1", bbox=[10.5, 20, 30, 40], individual_id="Ayo", viewpoint="Left"),
                animal(2, "i2", bbox=[0, 0, 400, 300], individual_id="____"),
                animal(3, "i3", category_id=3, individual_id=7.0),
            ],
        )
    )
    assert (catalogue.format, catalogue.root) == ("COCO Camera Traps", str(tmp_path))
    assert pairs_of(catalogue.entries[0].extra) == [
        ("frame_num", "1"), ("location", "7"), ("rights_holder", "x"), ("seq_num_frames", "3"),
    ]  # fmt: skip
    assert tuple(replace(entry, extra="") for entry in catalogue.entries) == (
        CatalogueEntry(
            "i1",
            "images/i1.jpg",
            "Ayo",
            "panthera pardus",
            "s1",
            "2024-05-31T10:00:00",
            "left",
            (10.5, 20, 30, 40),
        ),
        CatalogueEntry("i2", "images/i2.jpg", None, "panthera pardus", "s2", None, None, (0, 0, 400, 300)),
        CatalogueEntry("i3", "images/i3.jpg", "7", None, None, "2024-05-31T10:00:00"),
    )


def test_wildbooks_own_coco(coco):
    """Numbers of images and annotations change from export to export there, and overlap; the uuids do not."""
    first, second = (
        {
            "id": 1 + i, "file_name": f"u{i}.jpg", "width": 9, "height": 9, "uuid": f"u{i}",
            "date_captured": "2024-05-31T10:00Z", "gps_lat_captured": None, "gps_lon_captured": None,
        }
        for i in range(2)
    )  # fmt: skip
    common = {"category_id": 1, "area": 4, "segmentation": [[0, 0, 1, 1]], "iscrowd": 0, "location_id": "L"}
    annotations = [
        {"id": 1, "image_id": 1, "bbox": [1, 2, 30, 40], "uuid": "x1", "viewpoint": "left", "theta": 0.5, **common,
         "individual_ids": [0], "individual_uuid": "iu", "name": "Ayo", "all_names": [], "encounter_id": "e1"},
        {"id": 2, "image_id": 1, "bbox": [5, 2, 30, 40], "uuid": "x2", "viewpoint": None, "theta": 0, **common,
         "individual_ids": [], "individual_uuid": None, "name": None, "all_names": [], "encounter_id": "e2"},
        {"id": 3, "image_id": 2, "bbox": [5, 2, 30, 40], "uuid": "x3", "viewpoint": None, "theta": 0, **common,
         "individual_ids": [], "individual_uuid": None, "name": None, "all_names": [], "encounter_id": "e2"},
    ]  # fmt: skip
    entries = read_catalogue(coco([first, second], annotations)).entries
    assert [(e.photo_id, e.path, e.identity, e.encounter, e.theta) for e in entries] == [
        ("u0/x1", "u0.jpg", "Ayo", "e1", 0.5),
        ("u0/x2", "u0.jpg", None, "e2", 0.0),
        ("u1", "u1.jpg", None, "e2", 0.0),
    ]
    first["id"], second["id"] = 2, 1
    for annotation in annotations:
        annotation["image_id"] = 3 - annotation["image_id"]
    assert read_catalogue(coco([second, first], annotations[::-1])).entries == entries


def test_numbers_of_wbia_name_animals(coco):
    source = coco([image(1), image(2)], [animal(1, 1, individual_ids=[4]), animal(2, 2, individual_ids=[])])
    assert [entry.identity for entry in read_catalogue(source).entries] == ["4", None]


def test_ids_and_names_that_were_written_as_floats(coco):
    images = [image("1.0", file_name="1.0"), image(2)]
    annotations = [
        {"id": "5.0", "image_id": 1, "category_id": "1.0", "bbox": [1, 2, 30, 40], "identity": "12.0"},
        {"id": 6.0, "image_id": "1.0", "category_id": 1.0, "bbox": [5, 2, 30, 40], "identity": "12"},
        {"id": "7", "image_id": 2.0, "category_id": 1, "identity": 12.0},
    ]
    assert [(e.photo_id, e.path, e.identity) for e in read_catalogue(coco(images, annotations)).entries] == [
        ("1/5", "1.0", "12"),
        ("1/6", "1.0", "12"),
        ("2", "images/2.jpg", "12"),
    ]


def test_what_is_left_out_is_counted(coco):
    catalogue = read_catalogue(
        coco(
            [image(f"i{i}") for i in range(5)]
            + [image("bad", corrupt=True), image("film", file_name="f.MP4")],
            [
                animal(0, "i0", sequence_level_annotation=True),
                animal(1, "i1", category_id=0),
                animal(2, "i2", category_id=2),
                animal(3, "i3", bbox=[1, 2, 3, 4]),
                animal(4, "i3"),
                animal(5, "bad"),
                animal(6, "film"),
            ],
        )
    )
    assert [entry.photo_id for entry in catalogue.entries] == ["i0", "i3"]
    assert catalogue.warnings[:6] == (
        "images flagged as corrupt left out: 1",
        "videos left out: 1",
        "annotations of whole sequences, whose photos may not show the animal: 1",
        "annotations of no animal (empty, human, vehicle) left out: 2",
        "images without an annotation left out: 1",
        "animals without a box left out, because others in the same photo have one: 1",
    )


def test_images_can_carry_the_names(coco):
    source = coco([image("i1", individual_id="Ayo"), image("i2", individual_id="Bo")], [animal(1, "i1")])
    assert [entry.identity for entry in read_catalogue(source).entries] == ["Ayo", "Bo"]


def test_shares_are_told_from_pixels(coco):
    boxes = [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]]
    images = [image(i) for i in range(3)]
    shares = coco(images, [animal(i, i, bbox=box) for i, box in enumerate(boxes)])
    catalogue = read_catalogue(shares)
    assert [entry.box_is_relative for entry in catalogue.entries] == [True, True]
    assert any("shares" in warning for warning in catalogue.warnings)
    mixed = coco(images, [animal(i, i, bbox=box) for i, box in enumerate([*boxes, [1, 2, 30, 40]])])
    assert refused(mixed) == [("mixed boxes", "annotation 3, field bbox")]


def test_shares_by_name(coco):
    left, right = [0.1, 0.2, 0.3, 0.4], [0.6, 0.2, 0.3, 0.4]
    annotations = [
        animal(1, "i1", bbox_relative=left, individual_id="J01"),
        animal(2, "i1", bbox_relative=right, individual_id="J02"),
        animal(3, "i2", individual_id="J01"),
    ]
    catalogue = read_catalogue(coco([image("i1", width=None), image("i2")], annotations))
    assert [(e.photo_id, e.identity, e.box, e.box_is_relative) for e in catalogue.entries] == [
        ("i1/a1", "J01", tuple(left), True),
        ("i1/a2", "J02", tuple(right), True),
        ("i2", "J01", None, False),
    ]
    assert refused(coco([image("i1")], [animal(1, "i1", bbox_relative=[10, 20, 30, 40])])) == [
        ("box not relative", "annotation 1, field bbox_relative")
    ]


def test_pixels_go_before_shares_and_shares_beside_pixels_need_a_size(coco):
    shares = [0.1, 0.2, 0.3, 0.4]
    both = animal(1, "i1", bbox=[1, 2, 30, 40], bbox_relative=shares)
    only, pixels = animal(2, "i2", bbox_relative=shares), animal(3, "i3", bbox=[5, 6, 70, 80])
    images = [image("i1"), image("i2"), image("i3")]
    found = read_catalogue(coco(images, [both, only, pixels])).entries
    assert [entry.box for entry in found] == [
        (1, 2, 30, 40),
        pytest.approx((40, 60, 120, 120)),
        (5, 6, 70, 80),
    ]
    assert not any(entry.box_is_relative for entry in found)
    images[1]["width"] = None
    assert refused(coco(images, [both, only, pixels])) == [
        ("box without a size", "annotation 2, field bbox_relative")
    ]


def test_without_categories_the_species_are_unknown(coco):
    annotations = [
        animal(1, "i1", individual_id="Ayo"),
        animal(2, "i2", category_id=None, individual_id="Bo"),
    ]
    for categories in ([], None):
        catalogue = read_catalogue(coco([image("i1"), image("i2")], annotations, categories=categories))
        assert [(e.identity, e.species) for e in catalogue.entries] == [("Ayo", None), ("Bo", None)]
        assert catalogue.warnings == (
            "annotations of unknown species, because the file has no categories: 2",
        )


def test_attributes_count_as_fields_of_their_annotation(coco):
    images = [image("i1", file_name=None, path="p/1.jpg"), image("i2", file_name=None, path="p/2.jpg")]
    annotations = [
        animal(1, "i1", attributes={"Identity": "Ayo", "Orientation": "Left", "bbox": [1, 2, 3, 4], "id": 9}),
        animal(2, "i2", attributes={"identity": "Bo", "orientation": "R"}, identity="Cy", orientation=None),
    ]
    catalogue = read_catalogue(coco([{**i, "file_name": i["path"]} for i in images], annotations))
    assert [(e.photo_id, e.identity, e.viewpoint, e.box) for e in catalogue.entries] == [
        ("i1", "Ayo", "left", None),
        ("i2", "Cy", "right", None),
    ]
    assert "annotations with attributes that are not read (bbox, id): 1" in catalogue.warnings
    for each in images:
        del each["file_name"]
    assert [e.path for e in read_catalogue(coco(images, annotations)).entries] == ["p/1.jpg", "p/2.jpg"]


@pytest.mark.parametrize("attributes", [None, [], "x", 7, {"identity": ["x"]}])
def test_odd_attributes(coco, attributes):
    source = coco([image("i1")], [animal(1, "i1", attributes=attributes)])
    if isinstance(attributes, dict):
        assert refused(source) == [("wrong type", "annotation 1, field identity")]
    else:
        assert len(read_catalogue(source).entries) == 1


def test_boxes_that_leave_the_declared_photo_are_asked_about(coco):
    corners, inside = [150, 100, 300, 250], [0, 0, 405, 300]
    images = [image("i1"), image("i2"), image("i3"), image("i4", width=None), image("i5", height="x")]
    boxes = [corners, corners, inside, corners, corners]
    annotations = [animal(i, f"i{i}", bbox=box) for i, box in enumerate(boxes, 1)]
    said = "2 of 3 boxes leave their photo: were x1, y1, x2, y2 written instead of x, y, w, h?"
    assert said in read_catalogue(coco(images, annotations)).warnings
    annotations[0]["bbox"] = inside
    assert not any("leave" in each for each in read_catalogue(coco(images, annotations)).warnings)


def test_fields_without_a_meaning_are_kept_and_lists_are_named_as_unused(coco):
    annotations = [
        animal(1, "i1", name="Ayo", area=4, bbox=[0, 0, 9, 9], segmentation=[[1]]),
        animal(2, "i1", bbox=[9, 9, 9, 9], iscrowd=0, location="left corner"),
    ]
    catalogue = read_catalogue(coco([image("i1")], annotations))
    of_image = [("frame_num", "1"), ("location", "7"), ("rights_holder", "x"), ("seq_num_frames", "3")]
    assert [pairs_of(entry.extra) for entry in catalogue.entries] == [
        sorted([*of_image, ("area", "4")]),
        sorted([*of_image, ("annotations location", "left corner"), ("iscrowd", "0")]),
    ]
    assert catalogue.unused == ("annotations segmentation",)


def test_encounters_of_a_location(coco):
    times = ["2024-05-31 10:00:00", "2024-05-31 10:04:00", "2024-05-31 11:00:00"]
    images = [image(f"i{k}", seq_id=None, datetime=time) for k, time in enumerate(times)]
    source = coco(images, [animal(k, f"i{k}", name="Ayo") for k in range(3)])
    found = read_catalogue(source, None, Reading(encounter_gap=5)).entries
    assert [entry.encounter for entry in found] == ["7 2024-05-31T10:00:00"] * 2 + ["7 2024-05-31T11:00:00"]


def test_everything_wrong_is_listed(coco):
    source = coco(
        [image("i1"), image("i1"), image("i3", file_name="../x.jpg"), image("i4", file_name="http://h/x.jpg"), 5,
         image({}), image("i7", file_name=None)],
        [
            animal(1, "i1", bbox=[1, 2, math.nan, 4]),
            animal(2, "nowhere"),
            animal(3, "i3", category_id=99),
            animal(4, "i4", theta=math.inf),
            animal(4, "i7", individual_id=["x"], bbox={"x": 1}),
            animal(6, None),
        ],
    )  # fmt: skip
    assert refused(source) == [
        ("bad box", "annotation 1, field bbox"),
        ("bad box", "annotation 5, field bbox"),
        ("bad theta", "annotation 4, field theta"),
        ("doubled annotation id", "annotations 4, 5"),
        ("doubled image id", "images 1, 2"),
        ("empty path", "image 7, field file_name"),
        ("path outside root", "image 3, field file_name"),
        ("path outside root", "image 4, field file_name"),
        ("unknown category", "annotation 3, field category_id"),
        ("unknown image", "annotation 2, field image_id"),
        ("unknown image", "annotation 6, field image_id"),
        ("wrong type", "annotation 5, field individual_id"),
        ("wrong type", "image 5"),
        ("wrong type", "image 6, field id"),
    ]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty catalogue"),
        ("[]", "unknown format"),
        ("7", "unknown format"),
        ("{}", "unknown format"),
        ('{"images": []}', "unknown format"),
        ('{"images": [], "detection_categories": {"1": "animal"}}', "unknown format"),
        ('{"images": [], "annotations": []}', "empty catalogue"),
        ('{"images": {}, "annotations": []}', "wrong type"),
        ("{", "unreadable file"),
        ('{"images": [1}', "unreadable file"),
        ('{"images": ' + "[" * 200_000, "unreadable file"),
        ('{"images": ' + "[" * 100_000 + "]" * 100_000 + "}", "unreadable file"),
        ('{"images": [' + "9" * 5000 + "]}", "unreadable file"),
        ("\ufeff{", "unreadable file"),
        ('{"images": [{"id": "\\ud800"}], "annotations": [{"image_id": 1}]}', "broken Unicode"),
    ],
)
def test_hostile_files(tmp_path, text, kind):
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    assert kind in [found for found, _ in refused(str(tmp_path / "x.json"))]


def test_a_doubled_key_is_refused(coco, tmp_path):
    text = json.dumps({"images": [image("i1")], "annotations": [animal(1, "i1")], "categories": CATEGORIES})
    (tmp_path / "x.json").write_text(text.replace('"image_id"', '"image_id": "i9", "image_id"'))
    (problem,) = refused(str(tmp_path / "x.json"))
    assert problem == ("doubled key", "the file")


def test_a_file_too_large_to_parse_is_refused(coco, monkeypatch):
    source = coco([image("i1")], [animal(1, "i1")])
    monkeypatch.setattr("schemas.catalogue.formats.json_text.MAX_BYTES", 100)
    assert refused(source) == [("too large", "the file")]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats()
    | st.sampled_from(["", "i1", "a", "../x", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "name"]), inner, max_size=2)
    ),
    max_leaves=6,
)
FIELDS = ["id", "uuid", "file_name", "image_id", "category_id", "bbox", "theta", "name", "individual_ids", "corrupt",
          "seq_id", "datetime", "identity", "viewpoint"]  # fmt: skip
OBJECTS = st.lists(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6) | VALUES, max_size=3)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(images=OBJECTS | VALUES, annotations=OBJECTS | VALUES, categories=OBJECTS | VALUES)
def test_any_json_is_a_catalogue_or_is_refused(coco, images, annotations, categories):
    source = coco(images, annotations, categories=categories)
    with contextlib.suppress(CatalogueError):
        assert all(entry.photo_id and ".." not in entry.path for entry in read_catalogue(source).entries)
