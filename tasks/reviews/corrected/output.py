"""Where a corrected catalogue goes: never over what it was made from, and whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from schemas.catalogue.formats import camtrap_dp
from schemas.catalogue.formats.detection import catalogue_file
from schemas.catalogue.writing.camtrap_dp import folder_of, package_files
from schemas.errors import SettingsError
from schemas.paths import is_url, local_path, safe_join
from tasks.store.shard_files import put_in_place

_ELSEWHERE = "name another file; the catalogue that was read is never changed"


def output_place(source: str, form: str, out: str, force: bool) -> Path:
    """The file that a corrected catalogue becomes, or the folder of a package.

    Raises `SettingsError` where it is, links to or lies in what was read, exists already (without `force`), or
    ends otherwise than the catalogue, so that it would be read as another format.
    """
    if is_url(out):
        raise SettingsError(f"{out} is no local path", "write to a local file and upload it")
    file, place = catalogue_file(source), Path(local_path(out))
    inputs = [Path(local_path(path)) for path in input_files(source, form) if not is_url(path)]
    if form == camtrap_dp.FORMAT:
        place = place.parent if place.name == "datapackage.json" else place
        _refuse_package(place, file, force)
    else:
        wanted = Path(file.partition("?")[0]).suffix
        if place.is_dir() or place.suffix.lower() != wanted.lower():
            what = "is a folder" if place.is_dir() else f"does not end in {wanted}"
            raise SettingsError(
                f"{place} {what}", f"name a file that ends in {wanted}, as the catalogue does"
            )
    for target in (place, changes_place(place)):
        refuse_inputs(target, inputs)
        if os.path.lexists(target) and not target.is_dir() and not force:
            raise SettingsError(f"{target} exists", "name another file, or replace it with --force")
    return place


def input_files(source: str, form: str) -> list[str]:
    """All files of a catalogue."""
    file = catalogue_file(source)
    if form != camtrap_dp.FORMAT:
        return [file]
    return [file, *(safe_join(folder_of(file), path) for path in package_files(file)[1:])]


def changes_place(place: Path) -> Path:
    """The list of changes, beside a corrected catalogue."""
    return place.with_name(f"{place.stem if place.suffix else place.name}.changes.csv")


def refuse_inputs(target: Path, inputs: Iterable[Path]) -> None:
    """Raise `SettingsError` where a target is one of the inputs, by any link."""
    for source in inputs:
        same = os.path.realpath(target) == os.path.realpath(source)
        if same or (target.exists() and source.exists() and os.path.samefile(target, source)):
            raise SettingsError(f"{target} is the catalogue that is read, {source}", _ELSEWHERE)


def write(place: Path, files: Mapping[str, bytes], is_package: bool, inputs: Iterable[Path]) -> None:
    """Write all files, each whole or not at all; none over an input."""
    targets = {
        Path(safe_join(str(place), name)) if is_package else place: data for name, data in files.items()
    }
    known = list(inputs)
    for target in targets:
        refuse_inputs(target, known)
    for target, data in targets.items():
        put_in_place(target, data)


def _refuse_package(place: Path, file: str, force: bool) -> None:
    if place.exists() and not place.is_dir():
        raise SettingsError(f"{place} is no folder", "name a folder for the package")
    if not is_url(file) and place.exists() and os.path.samefile(place, folder_of(file)):
        raise SettingsError(f"{place} is the package that is read", _ELSEWHERE)
    if place.is_dir() and any(place.iterdir()) and not force:
        raise SettingsError(
            f"{place} is not empty", "name another folder, or replace files in it with --force"
        )
