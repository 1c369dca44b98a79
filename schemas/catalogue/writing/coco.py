"""Writes COCO Camera Traps back: single values of a JSON text change, its layout stays.

A name that was a number stays one where it can. What CVAT keeps in `attributes` is changed there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from schemas.catalogue.formats.coco import IDENTITY, IMAGE_IDENTITY
from schemas.catalogue.table_files import read_bytes
from schemas.catalogue.writing.corrections import Corrections, Listed, Place, Written, by_place
from schemas.catalogue.writing.json_text import JsonText, Member

_WHOLE = re.compile(r"0|-?[1-9]\d{0,14}", re.ASCII)


def write_coco(file: str, photos: Sequence[Listed], corrections: Corrections) -> Written:
    """The file with other names and without the dropped annotations, and images that had no other."""
    written = Written()
    coco = _Coco(JsonText(read_bytes(file)))
    for place, name in by_place(photos, corrections, written).items():
        coco.rename(place, name)
    coco.drop([photo for photo in photos if photo.photo_id in corrections.dropped])
    written.files[""] = coco.text.data()
    return written


class _Coco:
    def __init__(self, text: JsonText) -> None:
        self.text = text
        self.images, self.annotations = text.elements("images"), text.elements("annotations")
        self.image_values = [text.value(each) for each in self.images]
        self.values = [text.value(each) for each in self.annotations]
        self.by_id = {_key(each.get("id")): i for i, each in enumerate(self.image_values)}
        self.of_image: dict[int, list[int]] = defaultdict(list)
        for i, value in enumerate(self.values):
            self.of_image[self._image_of(value)].append(i)
        self.of_animals = any(self._has_name(each) for each in self.values)
        fields = {key for each in self.image_values for key in each}
        self.image_field = next((name for name in IMAGE_IDENTITY if name in fields), IMAGE_IDENTITY[0])

    def rename(self, place: Place, name: str | None) -> None:
        if place.noun == "annotation" and self.of_animals:
            for each in self._one_entry(place.number - 1):
                self._set_in_animal(each, place.column, name)
            return
        image = place.number - 1
        if place.noun == "annotation":
            image = self._image_of(self.values[image])
        self._set(self.images[image], self.text.fields(self.images[image].start), self.image_field, name)

    def drop(self, photos: list[Listed]) -> None:
        """Annotations go, and images that only they were of."""
        out = {p.at.number - 1 for p in photos if p.at.noun == "annotation"}
        gone = {p.photo_at.number - 1 for p in photos}
        # Annotations without boxes of one photo are one entry, which is known by the first of them.
        kept = {self._image_of(v) for i, v in enumerate(self.values) if i not in out and "bbox" in v}
        gone -= kept
        out |= {i for i, v in enumerate(self.values) if self._image_of(v) in gone}
        self.text.drop(self.annotations, out)
        self.text.drop(self.images, gone)

    def _one_entry(self, place: int) -> list[int]:
        """The annotations that are one entry with this one: of a photo without any box all."""
        image = self._image_of(self.values[place])
        group = self.of_image[image]
        boxed = any(self.values[i].get(key) for i in group for key in ("bbox", "bbox_relative"))
        return [place] if boxed else group

    def _set_in_animal(self, place: int, column: str, name: str | None) -> None:
        element = self.annotations[place]
        fields = self.text.fields(element.start)
        own = fields.get(column)
        if (own is None or self.text.value(own) is None) and "attributes" in fields:
            inside = self.text.fields(fields["attributes"].start)
            key = next((k for k in inside if k.lower() == column.lower()), None)
            if key is not None:
                self._set(fields["attributes"], inside, key, name)
                return
        self._set(element, fields, column, name)

    def _set(self, element: Member, fields: dict[str, Member], key: str, name: str | None) -> None:
        before = self.text.value(fields[key]) if key in fields else None
        value = _like(before, name, key == "individual_ids")
        if key in fields:
            self.text.put(fields[key], value)
        else:
            self.text.add(element, key, value)

    def _image_of(self, annotation: dict[str, Any]) -> int:
        return self.by_id[_key(annotation.get("image_id"))]

    @staticmethod
    def _has_name(annotation: dict[str, Any]) -> bool:
        attributes = annotation.get("attributes")
        inner = {key.lower() for key in attributes} if isinstance(attributes, dict) else set()
        return any(key in annotation or key in inner for key in IDENTITY)


def _like(before: Any, name: str | None, in_list: bool) -> Any:
    """A name as JSON: of the sort of the value before, if it can be."""
    if isinstance(before, list) or (before is None and in_list):
        first = before[0] if before else None
        return [] if name is None else [_like(first, name, False)]
    if (
        name is not None
        and isinstance(before, int | float)
        and not isinstance(before, bool)
        and _WHOLE.fullmatch(name)
    ):
        return int(name)
    return name


def _key(value: Any) -> str:
    """An id as links compare it: 12, 12.0, "12" and "12.0" are one."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)
