"""A corrected catalogue: written by its format's writer, read again, and compared with what was meant.

What a format cannot say, such as another name for one of several photos of a row, is left as it was and told.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from schemas.catalogue.cells import MAX_LENGTH, Column, read_names
from schemas.catalogue.files.documents import open_document, place_of
from schemas.catalogue.formats import camtrap_dp, coco, frame, wildbook
from schemas.catalogue.formats.detection import catalogue_file
from schemas.catalogue.reader import Catalogue, CatalogueEntry, read_catalogue, read_in_order
from schemas.catalogue.reading import AS_NAMED, Reading
from schemas.catalogue.table_files import read_bytes
from schemas.catalogue.writing.camtrap_dp import folder_of, package_files, write_camtrap_dp
from schemas.catalogue.writing.coco import write_coco
from schemas.catalogue.writing.corrections import Corrections, Writer, listed
from schemas.catalogue.writing.tables import write_frame
from schemas.catalogue.writing.wildbook import write_wildbook
from schemas.errors import CatalogueError, Problem, SettingsError
from schemas.paths import is_url, local_path, safe_join

WRITERS: Mapping[str, Writer] = {
    frame.FORMAT: write_frame,
    camtrap_dp.FORMAT: write_camtrap_dp,
    coco.FORMAT: write_coco,
    wildbook.FORMAT: write_wildbook,
}
"""Format -> what writes it."""
_CURE = "save the catalogue as CSV (UTF-8), read that with `pairx run`, and correct that file"
_ROUNDS = 4
_OTHERS = "another animal in the same photo would become another entry"


@dataclass(frozen=True)
class Corrected:
    """Files of a corrected catalogue, by name, and the photos that stay as they were, with why.

    `is_package` says that the files belong into a folder of their own; else there is one.
    """

    files: Mapping[str, bytes]
    refused: Mapping[str, str]
    is_package: bool


def corrected(
    source: str, catalogue: Catalogue, corrections: Corrections, reading: Reading = AS_NAMED
) -> Corrected:
    """A catalogue with other names and without some photos, in the format that it was read from.

    `catalogue` is what was read from `source`, as `reading` says. Without corrections the files are the same bytes. Raises
    `SettingsError` for a format that is not written, and where nothing would be left.
    """
    file = catalogue_file(source)
    package = catalogue.format == camtrap_dp.FORMAT
    before = _files(file, package)
    if len(corrections.dropped) >= len(catalogue.entries):
        raise SettingsError("all photos would be left out", "keep some of them")
    refused = _unreadable(corrections)
    corrections = corrections.without(refused)
    if not corrections:
        return Corrected(before, refused, package)
    write = _writer(file, catalogue.format, next(iter(before.values())))
    # Encounters by time have the name of their first photo, which may be left out.
    reading = replace(reading, encounter_gap=None)
    sheet, entries, _ = read_in_order(file, catalogue.root, reading)
    photos = listed(sheet, entries)
    catalogue = replace(catalogue, entries=tuple(sorted(entries, key=lambda entry: entry.photo_id)))
    for _ in range(_ROUNDS):
        if not corrections:
            break
        written = write(file, photos, corrections)
        files = before | {name or Path(_name(file)).name: data for name, data in written.files.items()}
        corrections = corrections.without(written.refused)
        refused |= written.refused
        if not written.refused and not (wrong := _wrong(files, file, catalogue, corrections, reading)):
            return Corrected(files, refused, package)
        if not written.refused:
            left = _without_wrong(corrections, wrong, catalogue)
            gone = (corrections.names.keys() | corrections.dropped) - (left.names.keys() | left.dropped)
            refused |= {
                photo: f"{catalogue.format} cannot say it here: {wrong.get(photo, _OTHERS)}" for photo in gone
            }
            corrections = left
    everything = corrections.names.keys() | corrections.dropped
    return Corrected(before, refused | dict.fromkeys(everything, "the file cannot say it"), package)


def _unreadable(corrections: Corrections) -> dict[str, str]:
    """Photos whose new name no catalogue can hold, as its reader has it."""
    photos = [photo for photo, name in corrections.names.items() if name is not None]
    given = [str(corrections.names[photo]) for photo in photos]
    problems: list[Problem] = []
    column = Column(
        "identity",
        pa.chunked_array([pa.array(given, pa.string())]),
        lambda i: (f"name {i}", "column identity"),
    )
    read = read_names(column, len(given), problems)
    return {
        photo: f"{name[:60]!r} is no name that can be read back"
        for photo, name, again in zip(photos, given, read, strict=True)
        if again != name or len(name) > MAX_LENGTH
    }


def _writer(file: str, form: str, data: bytes) -> Writer:
    writer = WRITERS.get(form)
    if writer is None:
        raise SettingsError(f"catalogues of the format {form} are read but not written", _CURE)
    if place_of(file) != file or open_document(file).data != data:
        raise SettingsError("packed catalogues are read but not written", f"unpack it; or {_CURE}")
    return writer


def _name(file: str) -> str:
    place = place_of(file)
    return place.partition("?")[0] if is_url(place) else local_path(place)


def _files(file: str, package: bool) -> dict[str, bytes]:
    """All files of a catalogue as they are."""
    if not package:
        return {Path(_name(file)).name: read_bytes(place_of(file))}
    found = {"datapackage.json": read_bytes(file)}
    folder = folder_of(file)
    for path in package_files(file)[1:]:
        # Tables of which nothing is read may be missing; what was read is there.
        with suppress(CatalogueError):
            found[path] = read_bytes(safe_join(folder, path))
    return found


def _wrong(
    files: Mapping[str, bytes], file: str, catalogue: Catalogue, corrections: Corrections, reading: Reading
) -> dict[str, str]:
    """Photo -> in what the written files differ from what was meant, as the reader sees them."""
    names = corrections.names
    expected = {
        entry.photo_id: replace(entry, identity=names[entry.photo_id]) if entry.photo_id in names else entry
        for entry in catalogue.entries
        if entry.photo_id not in corrections.dropped
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            place = Path(safe_join(folder, name))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        main = "datapackage.json" if catalogue.format == camtrap_dp.FORMAT else Path(_name(file)).name
        try:
            again = read_catalogue(os.path.join(folder, main), catalogue.root, reading)
        except CatalogueError as error:
            return dict.fromkeys(expected, error.problems[0].what)
    found = {entry.photo_id: entry for entry in again.entries}
    return {
        photo: _difference(expected.get(photo), found.get(photo))
        for photo in expected.keys() | found.keys()
        if expected.get(photo) != found.get(photo)
    }


def _difference(expected: CatalogueEntry | None, found: CatalogueEntry | None) -> str:
    if expected is None or found is None:
        return "the photo would still be there" if expected is None else "another photo would be gone"
    if expected.identity != found.identity:
        return f"it would read {found.identity!r} instead of {expected.identity!r}"
    return "something else than the name would change"


def _without_wrong(corrections: Corrections, wrong: Mapping[str, str], catalogue: Catalogue) -> Corrections:
    """The corrections without those that went wrong, and those of the same file as a photo that did."""
    paths = {entry.photo_id: entry.path for entry in catalogue.entries}
    touched = {paths.get(photo) for photo in wrong}
    ours = corrections.names.keys() | corrections.dropped
    out = {photo for photo in ours if photo in wrong or paths.get(photo) in touched}
    return corrections.without(out or ours)
