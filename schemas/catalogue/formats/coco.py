"""COCO Camera Traps and its relatives: JSON with `images`, `annotations` and `categories`.

Relatives are LILA's sets and Wildbook's COCO export. Each annotation of an animal is a sighting. What CVAT
keeps in its `attributes` counts as its own. Its name is the first of `IDENTITY` that any annotation has, or
else the image has; the species is the name of its category; the encounter is the image's `seq_id`, or else
the annotation's `encounter_id`. Ids are `uuid` where all have one, because Wildbook numbers `id` anew in each
export, and `id` elsewhere. Boxes are `bbox`, [x, y, w, h] in pixels by the standard; a file in which they can
only be shares, as MegaDetector writes them, is read as shares. Where annotations have no `bbox`,
`bbox_relative` is read, which is in shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from schemas.catalogue.boxes import leaves, to_pixels
from schemas.catalogue.cells import known, whole
from schemas.catalogue.extra import Extra, read_extra
from schemas.catalogue.formats.json_text import records, to_text
from schemas.catalogue.formats.sheet import Counts, Layout, Sheet, Sighting, index_ids, is_video, to_sheet
from schemas.catalogue.remarks import on_leaving
from schemas.catalogue.table_files import columns_in_words
from schemas.errors import Problem

FORMAT = "COCO Camera Traps"
IDENTITY = ("identity", "individual_id", "individual", "name", "individual_uuid", "individual_ids")
"""Fields of an annotation that name the animal; wbia's `individual_ids` has at most one number."""
VIEWPOINT = ("viewpoint", "orientation", "side", "position")
PATH = ("file_name", "path")
IMAGE_IDENTITY = ("identity", "individual_id", "individual")
"""Fields of an image that name the animal; its `name` would be the file's."""
ATTRIBUTES = (*IDENTITY, *VIEWPOINT)
"""Attributes (lower case) of a CVAT annotation that are read."""
STATION = ("location", "station", "site", "camera", "location_id", "camera_id")
"""Fields of an image that say where its camera was; they are kept, too."""
DATES = ("datetime", "date_captured", "date", "timestamp")
IMAGE_FIELDS = ("id", "seq_id", "corrupt", "width", "height")
ANNOTATION_FIELDS = (
    "id", "image_id", "category_id", "bbox", "bbox_relative", "theta", "encounter_id", "sequence_level_annotation",
    "attributes",
)  # fmt: skip
"""Fields that are read, besides those of names, dates, paths and viewpoints."""
NOT_ANIMALS = (
    "empty", "blank", "human", "humans", "person", "people", "homo sapiens", "vehicle", "vehicles", "car", "truck",
    "motorcycle", "bicycle", "misfire", "setup", "calibration",
)  # fmt: skip
"""Categories (lower case) that show no animal."""
NO_SPECIES = ("animal", "animals", "individual", "object")
"""Categories (lower case) that say nothing about the species."""

_MAX_NUMBER = 1e9
_Objects = list[dict[str, Any]]


def read_coco(content: dict[str, Any], problems: list[Problem]) -> Sheet:
    """The sightings in a parsed COCO file.

    Problems name a place in its lists, counted from 1: `annotation 7`.
    """
    return _Coco(content, problems).sheet()


class _Coco:
    """The lists of one file, the links between their objects, and the fields of names and dates."""

    def __init__(self, content: dict[str, Any], problems: list[Problem]) -> None:
        self.problems = problems
        self.counts = Counts()
        self.leaving: list[bool] = []
        self.images = records(content, "images", "image", problems)
        self.annotations = self._with_attributes(records(content, "annotations", "annotation", problems))
        categories = records(content, "categories", "category", problems)
        self.image_places = self._index(self.images, "image")
        self._index(self.annotations, "annotation")
        self.category_places = self._index(categories, "category")
        self.categories = [
            known(to_text(c.get("name"), f"category {i}", "name", problems))
            for i, c in enumerate(categories, 1)
        ]
        self.image_id, self.animal_id = _id_field(self.images), _id_field(self.annotations)
        if self.annotations and not categories:
            self.counts.add(
                "annotations of unknown species, because the file has no categories", len(self.annotations)
            )
        self.image_fields, self.animal_fields = _fields(self.images), _fields(self.annotations)
        self.name = _first(IDENTITY, self.animal_fields)
        self.image_name = _first(IMAGE_IDENTITY, self.image_fields)
        self.date = _first(DATES, self.image_fields)
        self.path = _first(PATH, self.image_fields) or PATH[0]
        self.station = _first(STATION, self.image_fields)
        self.viewpoint = _first(VIEWPOINT, self.animal_fields) or VIEWPOINT[0]
        self.box = self._box_field()

    def sheet(self) -> Sheet:
        usable = self._usable()
        annotated: set[int] = set()
        sightings: list[Sighting] = []
        for i, annotation in enumerate(self.annotations):
            image = self._linked(annotation, i, "image_id", self.image_places)
            category = self._linked(annotation, i, "category_id", self.category_places)
            if image is None:
                continue
            annotated.add(image)
            species = None if category is None else self.categories[category]
            if (species or "").lower() in NOT_ANIMALS:
                self.counts.add("annotations of no animal (empty, human, vehicle) left out")
            elif image in usable:
                sightings.append(self._sighting(image, i, species))
        for image in sorted(usable - annotated):
            sighting = self._of_image(image)
            if sighting.identity is None:
                self.counts.add("images without an annotation left out")
            else:
                sightings.append(sighting)
        sheet = to_sheet(sightings, self._layout(), self.counts, self.problems, self._extra)
        leaving = on_leaving(sum(self.leaving), len(self.leaving))
        return replace(sheet, notes=(*sheet.notes, leaving)) if leaving else sheet

    def _extra(self, entries: Sequence[Sighting]) -> Extra:
        """The fields of images and annotations of which nothing is read, where they hold texts and numbers.

        A field that both have is called `annotations NAME` in annotations.
        """
        read = {*IMAGE_FIELDS, self.image_id, self.path, self.date, self.image_name}
        of_animal = {*ANNOTATION_FIELDS, self.animal_id, self.box, self.viewpoint, self.name}
        images = [None if entry.photo_row < 0 else self.images[entry.photo_row] for entry in entries]
        animals = [None if entry.row < 0 else self.annotations[entry.row] for entry in entries]
        columns: dict[str, pa.ChunkedArray] = {}
        nested: list[str] = []
        for part, objects, fields, known_fields in (
            ("images", images, self.image_fields, read),
            ("annotations", animals, self.animal_fields, of_animal),
        ):
            for field in fields:
                if field in known_fields:
                    continue
                texts = [None if each is None else _plain_text(each.get(field)) for each in objects]
                if _NESTED in texts:
                    nested.append(f"{part} {field}")
                else:
                    name = f"{part} {field}" if field in columns else field
                    columns[name] = pa.chunked_array([pa.array(texts, pa.string())])
        extra = read_extra(columns, len(entries))
        return replace(extra, left_out=(*extra.left_out, *nested))

    def _layout(self) -> Layout:
        fields = {
            "image_id": ("photo", self.image_id),
            "path": ("photo", self.path),
            "date": ("photo", self.date or DATES[0]),
            "station": ("photo", self.station or STATION[0]),
            "encounter": ("photo", "seq_id"),
            "identity": ("animal", self.name or self.image_name or IDENTITY[0]),
            "species": ("animal", "category_id"),
            "viewpoint": ("animal", self.viewpoint),
        }
        return Layout(FORMAT, fields, (self.box,), word="field")

    def _with_attributes(self, annotations: _Objects) -> _Objects:
        """The annotations with those of CVAT's attributes that are read, where they lack the field."""
        if not any("attributes" in each for each in annotations):
            return annotations
        found: _Objects = []
        unread: set[str] = set()
        count = 0
        for each in annotations:
            given = each.get("attributes")
            attributes = given if isinstance(given, dict) else {}
            wanted = {key: value for key, value in attributes.items() if key.lower() in ATTRIBUTES}
            lacking = {key.lower(): v for key, v in wanted.items() if each.get(key.lower()) is None}
            found.append({**each, **lacking} if lacking else each)
            unread.update(attributes.keys() - wanted.keys())
            count += len(wanted) < len(attributes)
        if unread:
            words = columns_in_words(sorted(unread))
            self.counts.add(f"annotations with attributes that are not read ({words})", count)
        return found

    def _box_field(self) -> str:
        """`bbox`, or `bbox_relative` where all boxes have shares and some have no pixels."""
        if "bbox_relative" not in self.animal_fields:
            return "bbox"
        boxes = [
            (_box_text(each.get("bbox")), _box_text(each.get("bbox_relative"))) for each in self.annotations
        ]
        boxed = [box for box in boxes if box != (None, None)]
        lacking = any(pixels is None for pixels, _ in boxed)
        return "bbox_relative" if lacking and all(shares is not None for _, shares in boxed) else "bbox"

    def _usable(self) -> set[int]:
        usable = set()
        for i, image in enumerate(self.images):
            name = image.get(self.path)
            if str(image.get("corrupt")).lower() in ("true", "1"):
                self.counts.add("images flagged as corrupt left out")
            elif isinstance(name, str) and is_video(name):
                self.counts.add("videos left out")
            else:
                usable.add(i)
        return usable

    def _of_image(self, i: int) -> Sighting:
        place, image = f"image {i + 1}", self.images[i]

        def text(name: str) -> str | None:
            return to_text(image.get(name), place, name, self.problems)

        return Sighting(
            photo=self._id(image, self.image_id, place),
            animal=None,
            path=text(self.path),
            photo_at=place,
            animal_at=place,
            identity=known(text(self.image_name)) if self.image_name else None,
            encounter=known(text("seq_id")),
            date=text(self.date) if self.date else None,
            station=_plain_text(image.get(self.station)) if self.station else None,
            row=-1,
            photo_row=i,
        )

    def _sighting(self, image: int, i: int, species: str | None) -> Sighting:
        place, annotation = f"annotation {i + 1}", self.annotations[i]

        def text(name: str) -> str | None:
            return to_text(annotation.get(name), place, name, self.problems)

        sighting = self._of_image(image)
        sighting.animal, sighting.animal_at = self._id(annotation, self.animal_id, place), place
        sighting.row = i
        sighting.species = None if (species or "").lower() in NO_SPECIES else species
        sighting.viewpoint, sighting.theta = text(self.viewpoint), text("theta")
        sighting.box = (self._box(annotation, self.images[image], place),)
        pixels, size = _numbers(annotation.get("bbox"), 4), _size(self.images[image])
        if pixels is not None and size is not None:
            self.leaving.append(leaves(pixels, *size))
        sighting.encounter = sighting.encounter or known(text("encounter_id"))
        if self.name == "individual_ids":
            sighting.identity = self._only_one(annotation.get(self.name), place)
        elif self.name is not None:
            sighting.identity = known(text(self.name))
        if annotation.get("sequence_level_annotation") is True:
            self.counts.add("annotations of whole sequences, whose photos may not show the animal")
        return sighting

    def _box(self, annotation: dict[str, Any], image: dict[str, Any], place: str) -> str | None:
        """The annotation's box; shares become pixels of the declared size where other boxes are pixels."""
        box, shares = _box_text(annotation.get(self.box)), annotation.get("bbox_relative")
        if box is not None or self.box == "bbox_relative" or _box_text(shares) is None:
            return box
        size, numbers = _size(image), _numbers(shares, 4)
        if numbers is not None and size is not None:
            x, y, w, h = numbers
            return _box_text(list(to_pixels((x, y, w, h), *size)))
        what = f"it is {_box_text(shares)}, other annotations have bbox, and no size of the image is known"
        cure = "give every annotation a bbox, or the image its width and height"
        where = f"{place}, field bbox_relative"
        self.problems.append(Problem("box without a size", where, what, cure))
        return None

    def _only_one(self, value: object, place: str) -> str | None:
        one = (value[0] if value else None) if isinstance(value, list) and len(value) < 2 else value
        return known(to_text(one, place, "individual_ids", self.problems))

    def _id(self, each: dict[str, Any], name: str, place: str) -> str | None:
        """The id in field `name` of an object; "12.0" is the id 12."""
        text = to_text(each.get(name), place, name, self.problems)
        return None if text is None else whole(text)

    def _index(self, objects: _Objects, noun: str) -> dict[str, int]:
        """Places of all objects by their `id`, by which others point to them."""
        ids = [self._id(each, "id", f"{noun} {i}") for i, each in enumerate(objects, 1)]
        return index_ids(ids, lambda i: f"{noun} {i + 1}", f"{noun} id", self.problems)

    def _linked(self, annotation: dict[str, Any], i: int, name: str, places: dict[str, int]) -> int | None:
        """The place of the object that field `name` points to; None without that field.

        A field that points to nothing is a problem.
        """
        text = self._id(annotation, name, f"annotation {i + 1}")
        if text in places or (name == "category_id" and (text is None or not places)):
            return places.get(text or "")
        noun = name.removesuffix("_id")
        what = f"no {noun} has the id {'null' if text is None else repr(text[:60])}"
        cure = f"name the id of one of the file's {'images' if noun == 'image' else 'categories'}"
        self.problems.append(Problem(f"unknown {noun}", f"annotation {i + 1}, field {name}", what, cure))
        return None


def _fields(objects: _Objects) -> list[str]:
    """The names of all fields that any object has, in the order in which they are met."""
    return list(dict.fromkeys(name for each in objects for name in each))


def _first(names: Sequence[str], fields: Sequence[str]) -> str | None:
    """The first of `names` that is a field."""
    return next((name for name in names if name in fields), None)


def _id_field(objects: _Objects) -> str:
    return "uuid" if objects and all(each.get("uuid") for each in objects) else "id"


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    """The declared width and height of an image, if both are known."""
    size = _numbers([image.get("width"), image.get("height")], 2)
    return None if size is None else (int(size[0]), int(size[1]))


def _numbers(value: object, count: int) -> list[float] | None:
    """A list of `count` finite numbers, or None."""
    if not isinstance(value, list) or len(value) != count:
        return None
    numbers = [float(v) for v in value if isinstance(v, int | float) and abs(v) <= _MAX_NUMBER]
    return numbers if len(numbers) == count else None


_NESTED = "\x00"
"""Stands for a list or an object; control characters are in no text that is kept."""


def _plain_text(value: object) -> str | None:
    """A text, number or truth value as text; `_NESTED` for what is none of these."""
    if value is None or isinstance(value, list | dict):
        return None if value is None else _NESTED
    return to_text(value, "", "", [])


def _box_text(value: object) -> str | None:
    """A box as a list in text, for the reader of all boxes.

    A value that is no list of numbers becomes a text that this reader refuses.
    """
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        return type(value).__name__
    if value and all(each is None for each in value):
        return None
    parts = [
        repr(v) if isinstance(v, int | float) else "null" if v is None else type(v).__name__ for v in value
    ]
    return f"[{', '.join(parts)}]"
