"""What a catalogue was taken for, in sentences: shown before any work, and stored with the run."""

from __future__ import annotations

from collections import defaultdict

from schemas.catalogue.encounters import CURE
from schemas.catalogue.reader import Catalogue
from schemas.catalogue.table_files import columns_in_words


def said_of(catalogue: Catalogue) -> tuple[str, ...]:
    """All remarks: which columns are read as what, kept or unused, what looks odd, and what there is."""
    columns = (
        _read_as(catalogue),
        f"kept with each photo, for SQL (extra): {columns_in_words(catalogue.kept)}"
        if catalogue.kept
        else "",
        f"not used: {columns_in_words(catalogue.unused)}" if catalogue.unused else "",
    )
    return tuple(text for text in (*columns, *oddities_of(catalogue), counts_of(catalogue)) if text)


def oddities_of(catalogue: Catalogue) -> tuple[str, ...]:
    """Those of the remarks that are warnings: what looks odd, and what there is not."""
    return tuple(filter(None, (*catalogue.warnings, _without_encounters(catalogue))))


def counts_of(catalogue: Catalogue) -> str:
    """Photos, animals, boxes and encounters, the format, and where the photos are."""
    entries, found = catalogue.entries, catalogue.found
    there = "photos not looked up" if found is None else f"{found} photos found"
    names = {e.identity for e in entries if e.identity is not None}
    unknown = sum(e.identity is None for e in entries)
    with_boxes = sum(e.box is not None for e in entries)
    encounters = {e.encounter for e in entries if e.encounter is not None}
    return (
        f"{len(entries)} photos, {len(names)} animals, {unknown} photos of unknown animals, {with_boxes} boxes, "
        f"{len(encounters)} encounters; read as {catalogue.format}; photos lie below {catalogue.root}: {there}"
    )


def _read_as(catalogue: Catalogue) -> str:
    columns: dict[str, list[str]] = defaultdict(list)
    for meaning, name in catalogue.used:
        columns[meaning].append(name)
    plain = [meaning for meaning, names in columns.items() if names == [meaning]]
    others = (
        f"{meaning} from {columns_in_words(columns[meaning])}" for meaning in columns if meaning not in plain
    )
    read = (", ".join(plain), *others)
    return f"read: {'; '.join(filter(None, read))}" if columns else ""


def _without_encounters(catalogue: Catalogue) -> str:
    if any(entry.encounter is not None for entry in catalogue.entries):
        return ""
    return f"no photo has an encounter, so near-identical frames of one visit can fill every top-k: {CURE}"
