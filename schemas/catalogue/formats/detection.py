"""Detects a catalogue's format by its suffix and its content, and reads its columns.

* a folder stands for the `datapackage.json` or `metadata.csv` in it;
* a `.json` with `resources` is a Camtrap DP, one with `images` and `annotations` is COCO;
* a table with columns `Encounter.mediaAsset0` is Wildbook's, any other is in the convention of
  wildlife-datasets.
"""

from __future__ import annotations

import os
from typing import Any

import fsspec

from schemas.catalogue.formats.camtrap_dp import read_camtrap_dp
from schemas.catalogue.formats.coco import read_coco
from schemas.catalogue.formats.frame import is_frame_column, read_frame
from schemas.catalogue.formats.json_text import parse_json
from schemas.catalogue.formats.sheet import Sheet
from schemas.catalogue.formats.wildbook import is_wildbook, is_wildbook_column, read_wildbook
from schemas.catalogue.reading import Reading
from schemas.catalogue.table_files import hopeless, read_bytes, read_cells, suffix_of
from schemas.errors import Problem
from schemas.paths import is_url, local_path

IN_FOLDERS = ("datapackage.json", "metadata.csv", "metadata.parquet")
"""Names under which a folder's catalogue is found."""


def catalogue_file(source: str) -> str:
    """The file that `source` means: itself, or the catalogue in the folder that it names.

    Raises `CatalogueError` for a local folder that holds none, or several.
    """
    if is_url(source):
        found = _in_remote_folder(source)
    elif os.path.isdir(local_path(source)):
        found = [name for name in IN_FOLDERS if os.path.isfile(os.path.join(local_path(source), name))]
        if not found:
            what = f"it is a folder without {', '.join(IN_FOLDERS[:-1])} or {IN_FOLDERS[-1]}"
            raise hopeless(source, "no such file", what, "name the catalogue's file, e.g. metadata.csv")
    else:
        return source
    if len(found) > 1:
        what = f"the folder holds {' and '.join(found)}"
        raise hopeless(source, "several catalogues", what, "name the file that is meant")
    if not found:
        return source
    return (
        f"{source.rstrip('/')}/{found[0]}" if is_url(source) else os.path.join(local_path(source), found[0])
    )


def _in_remote_folder(source: str) -> list[str]:
    if suffix_of(source) or "?" in source:
        return []
    try:
        system, path = fsspec.url_to_fs(source)
        return [name for name in IN_FOLDERS if system.isfile(f"{path.rstrip('/')}/{name}")]
    except Exception:  # what is wrong with the place is told when it is read as a file
        return []


def read_sheet(file: str, reading: Reading, problems: list[Problem]) -> Sheet:
    """The columns of the catalogue `file`, in any format; problems of single rows go to `problems`.

    Columns can be chosen for tables alone; for another format that is a problem.

    Raises `CatalogueError` where nothing further can be checked.
    """
    if suffix_of(file) == ".json":
        content = parse_json(file, read_bytes(file), problems)
        if "resources" in content:
            path = file.partition("?")[0] if is_url(file) else local_path(file)
            _refuse_chosen(reading, "Camtrap DP", problems)
            return read_camtrap_dp(path.rpartition("/")[0] or "/", content, problems)
        _refuse_other_json(file, content)
        _refuse_chosen(reading, "COCO Camera Traps", problems)
        return read_coco(content, problems)
    chosen = {name.strip().lower() for _, name in reading.columns}
    cells = read_cells(
        file, lambda key: is_frame_column(key) or is_wildbook_column(key) or key in chosen, problems
    )
    if is_wildbook(cells):
        _refuse_chosen(reading, "Wildbook", problems)
        return read_wildbook(cells, problems)
    return read_frame(cells, reading, problems)


def _refuse_chosen(reading: Reading, name: str, problems: list[Problem]) -> None:
    for meaning, column in reading.columns:
        what = f"the file is {name}, whose own fields say what is what; columns are chosen for other tables alone"
        cure = "leave --column out; to choose columns, write a CSV with one row per photo"
        problems.append(Problem("column chosen in vain", f"--column {meaning}={column[:60]}", what, cure))


def _refuse_other_json(file: str, content: dict[str, Any]) -> None:
    if "detection_categories" in content:
        what = "it holds a detector's boxes (MegaDetector), but no annotations"
        cure = "write the boxes into a catalogue, with the names of the animals"
        raise hopeless(file, "unknown format", what, cure)
    if "images" not in content or "annotations" not in content:
        keys = ", ".join(repr(key[:40]) for key in list(content)[:8]) or "none"
        what = f"it is neither COCO (images, annotations) nor a data package (resources); its keys are {keys}"
        raise hopeless(file, "unknown format", what, "name a datapackage.json or a COCO file")
