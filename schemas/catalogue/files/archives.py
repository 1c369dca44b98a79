"""Zip archives from outside, read in memory: few members, of bounded size, none of them encrypted."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence

from schemas.catalogue.table_files import hopeless

MOST_BYTES = 1 << 30
"""Largest size, in bytes, that a file may unpack to."""
MOST_MEMBERS = 20_000
MOST_MARKUP = 1 << 29
"""Bytes of the texts of a workbook, which take several times as much in memory."""
_SHOWN = 6


class Archive:
    """The members of a zip archive that are files and no litter of an operating system.

    `names` are in the archive's order. Raises `CatalogueError` for bytes that are no archive, for too many
    members, and for those that unpack to too much.
    """

    def __init__(self, source: str, data: bytes) -> None:
        self.source = source
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            members = self._zip.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeError) as error:
            raise self._unreadable(error) from error
        if len(members) > MOST_MEMBERS:
            what = f"it has {len(members)} members"
            raise hopeless(source, "too large", what, f"unpack it; at most {MOST_MEMBERS} are looked through")
        self._members = {each.filename: each for each in members if _is_file(each)}
        self.names = tuple(self._members)

    @property
    def is_workbook(self) -> bool:
        """Whether the archive is a workbook of Excel, whatever its name."""
        return "xl/workbook.xml" in self._members

    def read(self, name: str) -> bytes:
        """The bytes of a member, at most `MOST_BYTES` of them.

        Raises `CatalogueError` for a member that is not there, is encrypted, too large or damaged.
        """
        member = self._members.get(name)
        if member is None:
            what = f"it holds no {name[:60]!r}, but {words(self.names)}"
            raise hopeless(
                self.source, "no such file", what, "pack it again with all its files, or unpack it"
            )
        if member.flag_bits & 1:
            what = f"{name[:60]} in it is encrypted"
            raise hopeless(
                self.source, "encrypted", what, "unpack it with its password, and name the catalogue in it"
            )
        # What a member declares may be false: what is read counts.
        data = self._begin(member, MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            what = f"{name[:60]} in it unpacks to more than {MOST_BYTES >> 30} GiB"
            raise hopeless(self.source, "too large", what, "split it, or write it as Parquet")
        return data

    def refuse_bombs(self) -> None:
        """Raise `CatalogueError` for a workbook whose texts are too large or define entities."""
        total = sum(member.file_size for member in self._members.values())
        if total > MOST_MARKUP:
            what = f"it unpacks to {total / 2**30:.1f} GiB"
            raise hopeless(self.source, "too large", what, "write it as CSV UTF-8 or Parquet")
        for name in self.names:
            if name.lower().endswith((".xml", ".rels")) and b"<!DOCTYPE" in self._begin(
                self._members[name], 4096
            ):
                what = f"{name[:60]} in it defines a document type, which no spreadsheet writes"
                raise hopeless(self.source, "unreadable file", what, "save it again with a spreadsheet")

    def _begin(self, member: zipfile.ZipInfo, most: int) -> bytes:
        try:
            with self._zip.open(member) as file:
                return file.read(most)
        except (
            zipfile.BadZipFile,
            OSError,
            EOFError,
            NotImplementedError,
            RuntimeError,
            zlib.error,
            ValueError,
        ) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> Exception:
        what = f"not a valid zip archive or workbook: {error or type(error).__name__}"
        cure = "pack it again, or unpack it; save a workbook again, or as 'CSV UTF-8'"
        return hopeless(self.source, "unreadable file", what, cure)


def words(names: Sequence[str]) -> str:
    """The first names for a message, each cut where it is long."""
    shown = ", ".join(name if len(name) <= 60 else f"{name[:59]}…" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _is_file(member: zipfile.ZipInfo) -> bool:
    parts = member.filename.split("/")
    hidden = any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in parts)
    return not member.is_dir() and not hidden
