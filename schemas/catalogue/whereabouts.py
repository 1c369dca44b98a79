"""Looks whether a catalogue's photos are there, and finds the folder that their paths start from.

Folders are listed, each once; no photo is asked for alone, since there may be many thousands.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from schemas.catalogue.reader import Catalogue
from schemas.errors import CatalogueError, Problem, StorageError
from schemas.paths import is_url
from schemas.storage import Storage, storage_at
from schemas.storage_errors import masked

_NEARLY_ALL = 0.9
"""Share of the photos that a place must hold to be their root.

Cameras repeat their file names, so some may also lie elsewhere.
"""
_SAMPLE = 20
_MOST_PLACES = 100
_HOLDERS = ("data", "images", "photos", "pictures")
"""Names of folders whose own subfolders are searched, too, as of `images/train2022`."""


@dataclass(frozen=True)
class Whereabouts:
    """A catalogue whose root is where its photos were found, and how many were; None if nobody looked.

    `hint` names the folder that holds most of the photos, where they are not below the root.
    """

    catalogue: Catalogue
    found: int | None
    hint: str | None = None

    def required(self, source: str) -> Catalogue:
        """The catalogue; raises `CatalogueError` where not one of its photos is there."""
        if self.found != 0:
            return self.catalogue
        first = self.catalogue.entries[0].path
        what = f"none of {len(self.catalogue.entries)} photos is there, for example {first}"
        cure = f"name the folder that the paths start from: --root {self.hint or 'FOLDER'}"
        raise CatalogueError(masked(source), [Problem("no photos", self.catalogue.root, what, cure)])


def look_for_photos(catalogue: Catalogue, root_is_given: bool) -> Whereabouts:
    """Count the photos that are there; without a given root, find the one that explains nearly all paths.

    It is looked for in the catalogue's folder and its subfolders, then beside them. What was found is a
    remark of the catalogue returned. A store that cannot be listed is a remark, too: the run meets it again.
    """
    home, paths = catalogue.root, [entry.path for entry in catalogue.entries]
    if home.lower().startswith(("http://", "https://")):
        return Whereabouts(catalogue, None)  # web servers list no folders
    try:
        look = _Remote(home) if is_url(home) else _Local(home)
        root, found = look.home, look.present(look.home, paths)
        hint = None
        if not root_is_given and _count(paths, found) < _NEARLY_ALL * len(paths):
            best = _best(look, paths, found)
            if best is not None and _count(paths, best[1]) >= _NEARLY_ALL * len(paths):
                root, found = best
            elif best is not None:
                hint = look.address(best[0])
    except StorageError as error:
        unseen = f"the photos were not looked up: {error.message}"
        return Whereabouts(replace(catalogue, warnings=(*catalogue.warnings, unseen)), None)
    moved = root != look.home
    said = [f"photos are in {look.shown(root)}: that is taken as the root"] if moved else []
    if missing := [path for path in paths if path not in found]:
        more = f"; more are in {hint}" if hint else ""
        said.append(
            f"{len(paths) - len(missing)} of {len(paths)} photos found; not there: {missing[0]}{more}"
        )
    place = look.address(root) if moved else home
    there = len(paths) - len(missing)
    noted = replace(catalogue, root=place, warnings=(*catalogue.warnings, *said), found=there)
    return Whereabouts(noted, there, hint)


def _count(paths: Sequence[str], found: Collection[str]) -> int:
    return sum(path in found for path in paths)


def _best(look: _Local | _Remote, paths: Sequence[str], at_home: set[str]) -> tuple[str, set[str]] | None:
    """The place that holds most photos, with these; None where none holds more than home, or two do."""
    sample = paths[:: -(-len(paths) // _SAMPLE)]
    best: tuple[str, set[str]] | None = None
    for places in (_below(look, look.home), _around(look)):
        most, alone = _count(paths, at_home if best is None else best[1]), True
        for place in places:
            if not look.holds(place, sample):
                continue
            found = look.present(place, paths)
            count = _count(paths, found)
            if count > most:
                best, most, alone = (place, found), count, True
            elif best is not None and count == most:
                alone = look.same(place, best[0]) and alone
        if not alone:
            return None
        if most >= _NEARLY_ALL * len(paths):
            break  # what lies with the catalogue is nearer than what lies beside it
    return best


def _around(look: _Local | _Remote) -> Iterator[str]:
    if parent := look.parent():
        yield parent
        yield from (place for place in _below(look, parent) if not look.same(place, look.home))


def _below(look: _Local | _Remote, folder: str) -> Iterator[str]:
    """Subfolders, and those of folders that hold pictures by their names; a bounded number."""
    left = _MOST_PLACES
    for place in look.folders(folder)[:left]:
        left -= 1
        yield place
        if place.rpartition("/")[2].lower() in _HOLDERS:
            inner = look.folders(place)[: max(0, left)]
            left -= len(inner)
            yield from inner


class _Local:
    """Folders of this machine."""

    def __init__(self, home: str) -> None:
        self.home = home

    def parent(self) -> str | None:
        """The folder above home; none if that is the top, where everything lies."""
        above = os.path.dirname(self.home)
        return above if os.path.dirname(above) != above else None

    def folders(self, place: str) -> list[str]:
        """Folders right below a place, in order, without hidden ones."""
        try:
            with os.scandir(place) as entries:
                return sorted(e.path for e in entries if not e.name.startswith(".") and e.is_dir())
        except OSError:
            return []

    def holds(self, place: str, sample: Sequence[str]) -> bool:
        """Whether any of a few paths is there."""
        return any(os.path.isfile(os.path.join(place, path)) for path in sample)

    def present(self, place: str, paths: Sequence[str]) -> set[str]:
        """The paths that are files below a place."""
        wanted: dict[str, set[str]] = defaultdict(set)
        for path in paths:
            folder, _, name = path.rpartition("/")
            wanted[folder].add(name)
        found: set[str] = set()
        for folder, names in wanted.items():
            before = f"{folder}/" if folder else ""
            try:
                with os.scandir(os.path.join(place, folder)) as entries:
                    found.update(before + e.name for e in entries if e.name in names and e.is_file())
            except OSError:
                continue  # what cannot be listed cannot be read either
        return found

    def same(self, one: str, other: str) -> bool:
        """Whether two places are one folder, perhaps through a link."""
        return os.path.realpath(one) == os.path.realpath(other)

    def address(self, place: str) -> str:
        """What the place is called as a root."""
        return place

    def shown(self, place: str) -> str:
        """The place as seen from home."""
        return os.path.relpath(place, self.home)


class _Remote:
    """Folders of a store, whose listings cost one request per thousand files."""

    def __init__(self, home: str) -> None:
        self._storage: Storage = storage_at(home)
        self.home = self._storage.root

    def parent(self) -> str | None:
        """The folder above home; none above a bucket."""
        return self.home.rpartition("/")[0] or None

    def folders(self, place: str) -> list[str]:
        """What lies right below a place and has no suffix, so that it may be a folder."""
        return [f"{place}/{name}" for name in sorted(self._storage.names(place)) if name and "." not in name]

    def holds(self, place: str, sample: Sequence[str]) -> bool:
        """Whether the first of a few paths is there: the look costs a request."""
        folder, _, name = sample[0].rpartition("/")
        return name in self._storage.names(f"{place}/{folder}".rstrip("/"))

    def present(self, place: str, paths: Sequence[str]) -> set[str]:
        """The files below a place."""
        listed = self._storage.find(place, sizes=False)
        return {path[len(place) + 1 :] for path in listed}.intersection(paths)

    def same(self, one: str, other: str) -> bool:
        """Whether two places are one."""
        return one == other

    def address(self, place: str) -> str:
        """What the place is called as a root."""
        return self._storage.address(place)

    def shown(self, place: str) -> str:
        """The place's address."""
        return masked(self.address(place))
