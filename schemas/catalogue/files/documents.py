"""A catalogue's file freed of its packaging: gzip, and the table or package that a zip archive holds.

What is packed is told by the content, not by the name. Nothing is written to disk, so no member of an archive
can land anywhere; what is unpacked is bounded.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from dataclasses import dataclass
from typing import Protocol

from schemas.catalogue.files.archives import MOST_BYTES, Archive, words
from schemas.catalogue.table_files import hopeless, read_bytes, suffix_of
from schemas.paths import check_relative, is_url, local_path, safe_join

IN_FOLDERS = ("datapackage.json", "metadata.csv", "metadata.parquet")
"""Names under which a folder's catalogue is found."""
ALSO_IN_FOLDERS = ("metadata.csv.gz", "metadata.xlsx", "images.csv")
"""Names of catalogues in folders without one of those before; the last is of Wildlife Insights' downloads."""
_PACKED = (".zip", ".xlsx", ".xlsm")
_PART = re.compile(rf"(.*?(?:{'|'.join(map(re.escape, _PACKED))}))#(.+)", re.IGNORECASE | re.DOTALL)
_OTHER_ARCHIVES = (".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst")
_PHOTOS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".heic", ".cr2", ".nef", ".dng")
_CATALOGUES = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".parq", ".json", ".xlsx", ".xlsm")
"""Suffixes of what an archive's catalogue may be; a .txt in it is a note to the reader."""
_GZIP, _ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")


class Folder(Protocol):
    """Where the tables of a data package lie beside its datapackage.json."""

    def open(self, relative: str) -> Document:
        """The file at a relative path; raises `PathOutsideRoot` and `CatalogueError`."""


@dataclass(frozen=True)
class Document:
    """The bytes of a catalogue's file, unpacked.

    `source` is what the user calls it, `name` the file's own name, which tells its type, `folder` where its
    neighbours are, and `part` the sheet that the user asked for.
    """

    source: str
    name: str
    data: bytes
    folder: Folder
    part: str | None = None

    @property
    def suffix(self) -> str:
        """The lower-case suffix with its dot; a workbook's, whatever its name, for a workbook."""
        return suffix_of(self.name)


def place_of(source: str) -> str:
    """The path or URL of the file in `source`, without the part of it that is meant behind a `#`."""
    return _split(source)[0]


def open_document(source: str) -> Document:
    """The file at a path or URL, unpacked; raises `CatalogueError` where it cannot be read.

    `table.xlsx#Sheet2` is a sheet of a workbook, `export.zip#folder/table.csv` a file of an archive.
    """
    place, part = _split(source)
    path = place.partition("?")[0] if is_url(place) else local_path(place)
    folder = path.rpartition("/")[0] or "/"
    return _unpacked(Document(source, path.rpartition("/")[2], read_bytes(place), _Plain(folder), part))


def _split(source: str) -> tuple[str, str | None]:
    match = _PART.fullmatch(source)
    if match is None or (not is_url(source) and os.path.exists(local_path(source))):
        return source, None
    return match[1], match[2]


@dataclass(frozen=True)
class _Plain:
    """A folder or URL."""

    place: str

    def open(self, relative: str) -> Document:
        address = safe_join(self.place, relative)
        folder = _Plain(address.rpartition("/")[0])
        return _unpacked(Document(address, address.rpartition("/")[2], read_bytes(address), folder))


@dataclass(frozen=True)
class _Packed:
    """A folder in an archive; `before` is its path there, with a slash at its end where it has one."""

    archive: Archive
    before: str

    def open(self, relative: str) -> Document:
        name = self.before + check_relative(relative)
        return _unpacked(_member(self.archive, name, None), inside=True)


def _member(archive: Archive, name: str, part: str | None) -> Document:
    before, slash, file = name.rpartition("/")
    source = f"{archive.source}#{name}"
    return Document(source, file, archive.read(name), _Packed(archive, before + slash), part)


def _unpacked(found: Document, inside: bool = False) -> Document:
    """The document without gzip or zip around it; `inside` an archive no second one is opened."""
    if found.suffix in _OTHER_ARCHIVES:
        raise _archive_in_the_way(found)
    if found.data.startswith(_GZIP):
        name = found.name[:-3] if found.suffix == ".gz" else found.name
        found = Document(found.source, name, _gunzipped(found), found.folder, found.part)
        if found.suffix in _OTHER_ARCHIVES:
            raise _archive_in_the_way(found)
    if not found.data.startswith(_ZIP):
        if found.suffix == ".zip":
            raise hopeless(
                found.source, "unreadable file", "it is no zip archive", "pack it again, or unpack it"
            )
        return found
    archive = Archive(found.source.partition("#")[0] if found.part else found.source, found.data)
    if archive.is_workbook:
        name = found.name if found.suffix in _PACKED[1:] else f"{found.name}.xlsx"
        return Document(found.source, name, found.data, found.folder, found.part)
    if inside:
        raise _archive_in_the_way(found)
    _refuse_photos(archive)
    name, part = _chosen(archive, found.part)
    return _unpacked(_member(archive, name, part), inside=True)


def _archive_in_the_way(found: Document) -> Exception:
    return hopeless(
        found.source,
        "unknown format",
        f"{found.name} is an archive",
        "unpack it and name the catalogue in it",
    )


def _gunzipped(found: Document) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(found.data)) as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise hopeless(
            found.source, "unreadable file", f"not valid gzip: {error}", "pack it again, or unpack it"
        ) from error
    if len(data) > MOST_BYTES:
        what = f"it unpacks to more than {MOST_BYTES >> 30} GiB"
        raise hopeless(found.source, "too large", what, "split it, or write it as Parquet")
    return data


def _refuse_photos(archive: Archive) -> None:
    photos = [name for name in archive.names if suffix_of(name) in _PHOTOS]
    if photos:
        what = f"it holds {len(photos)} photos, such as {photos[0][:60]}, which are not read from archives"
        raise hopeless(
            archive.source,
            "photos in an archive",
            what,
            "unpack it and name the folder or the catalogue in it",
        )


def _chosen(archive: Archive, part: str | None) -> tuple[str, str | None]:
    """The archive's member that is the catalogue, and the sheet of it that was asked for."""
    if part is not None:
        name, sheet = _split(part)
        if name in archive.names:
            return name, sheet
        what = f"it holds no {name[:60]!r}, but {words(archive.names)}"
        raise hopeless(archive.source, "no such file", what, "name a file of the archive behind the #")
    for names in (IN_FOLDERS, ALSO_IN_FOLDERS):
        found = [each for each in archive.names if each.rpartition("/")[2].lower() in names]
        if found:
            break
    else:
        found = [each for each in archive.names if _may_be_catalogue(each)]
    if len(found) == 1:
        return found[0], None
    if not found:
        what = f"it holds no catalogue, but {words(archive.names)}" if archive.names else "it is empty"
        raise hopeless(
            archive.source, "unknown format", what, "put a table, a COCO file or a Camtrap DP into it"
        )
    what = f"it holds {words(found)}"
    cure = f"say which is meant: {archive.source}#{found[0]}"
    raise hopeless(archive.source, "several catalogues", what, cure)


def _may_be_catalogue(name: str) -> bool:
    bare = name[:-3] if name.lower().endswith(".gz") else name
    return suffix_of(bare) in _CATALOGUES
