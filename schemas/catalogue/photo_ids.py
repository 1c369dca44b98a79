"""Ids of photos where the catalogue has none, or one for several animals of a photo.

An id that is made rests on the photo's path or id and on the box, so it is the same in whatever order the rows
stand, and when rows are added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from schemas.catalogue.boxes import Box, box_name
from schemas.catalogue.cells import Column
from schemas.catalogue.formats.sheet import join_places
from schemas.errors import Problem

_Texts = list[str | None]


def complete_ids(
    given: Column | None,
    ids: _Texts,
    path: Column | None,
    paths: _Texts,
    boxes: Sequence[Box | None],
    problems: list[Problem],
) -> tuple[_Texts, list[str]]:
    """An id for every row, and remarks; rows that cannot be told apart are problems.

    Without a column of ids they are made of path and box. An id that several rows share is parted by their
    boxes where they show one photo.
    """
    if given is None:
        return _made(path, paths, boxes, problems)
    parted, notes = list(ids), []
    count = 0
    for photo_id, members in _shared(ids).items():
        own = [boxes[i] for i in members]
        if None not in own and len(set(own)) == len(own) and len({paths[i] for i in members}) == 1:
            count += len(members)
            for i in members:
                parted[i] = f"{photo_id}/{box_name(boxes[i] or ())}"
        else:
            what = f"{photo_id[:60]!r} is the id of {len(members)} rows"
            where = join_places(given.row(i) for i in members)
            problems.append(Problem("doubled image_id", where, what, "give every photo an id of its own"))
    if count:
        notes.append(f"animals that share their photo's image_id and are told apart by their boxes: {count}")
    return parted, notes


def _made(
    path: Column | None, paths: _Texts, boxes: Sequence[Box | None], problems: list[Problem]
) -> tuple[_Texts, list[str]]:
    ids = [
        each if each is None or box is None else f"{each}/{box_name(box)}"
        for each, box in zip(paths, boxes, strict=True)
    ]
    for members in _shared(ids).values():
        if path is not None:
            what = (
                f"{(paths[members[0]] or '')[:60]!r} stands in {len(members)} rows with the same box or none"
            )
            where = join_places(path.row(i) for i in members)
            cure = "keep one of them, give each animal its box, or add a column image_id"
            problems.append(Problem("doubled row", where, what, cure))
    if not any(ids):
        return ids, []
    boxed = any(box is not None for box in boxes)
    made = "paths and boxes, so another box is another photo" if boxed else "paths"
    return ids, [f"there is no column image_id: ids are made of {made}"]


def _shared(ids: _Texts) -> dict[str, list[int]]:
    """The rows of each id that several have."""
    if len(set(ids)) == len(ids):
        return {}
    places: dict[str, list[int]] = defaultdict(list)
    for i, photo_id in enumerate(ids):
        if photo_id is not None:
            places[photo_id].append(i)
    return {photo_id: members for photo_id, members in places.items() if len(members) > 1}
