"""Detects a catalogue's format by its suffix and its content, and reads its columns.

* a folder stands for the `datapackage.json` or `metadata.csv` in it, an archive for the catalogue in it;
* a `.json` with `resources` is a Camtrap DP, one with `images` and `annotations` is COCO;
* a table with columns `Encounter.mediaAsset0` is Wildbook's, one with `wi_taxon_id` Wildlife Insights', any
  other is in the convention of wildlife-datasets.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import fsspec

from schemas.catalogue.files.documents import (
    ALSO_IN_FOLDERS,
    IN_FOLDERS,
    Document,
    open_document,
)
from schemas.catalogue.files.tables import read_cells
from schemas.catalogue.formats.camtrap_dp import read_camtrap_dp
from schemas.catalogue.formats.coco import read_coco
from schemas.catalogue.formats.frame import is_frame_column, read_frame
from schemas.catalogue.formats.json_text import parse_json
from schemas.catalogue.formats.sheet import Sheet
from schemas.catalogue.formats.wildbook import is_wildbook, is_wildbook_column, read_wildbook
from schemas.catalogue.formats.wildlife_insights import (
    is_wildlife_insights,
    is_wildlife_insights_column,
    read_wildlife_insights,
)
from schemas.catalogue.reading import Reading
from schemas.catalogue.table_files import hopeless, suffix_of
from schemas.errors import Problem
from schemas.paths import is_url, local_path


def catalogue_file(source: str) -> str:
    """The file that `source` means: itself, or the catalogue in the folder that it names.

    Raises `CatalogueError` for a local folder that holds none, or several.
    """
    if is_url(source):
        found = _in_remote_folder(source)
    elif os.path.isdir(local_path(source)):
        found = _first(lambda name: os.path.isfile(os.path.join(local_path(source), name)))
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
        return _first(lambda name: system.isfile(f"{path.rstrip('/')}/{name}"))
    except Exception:  # what is wrong with the place is told when it is read as a file
        return []


def _first(is_there: Callable[[str], bool]) -> list[str]:
    """The catalogues of a folder: those of the first names, or else of the others."""
    return next(
        (found for names in (IN_FOLDERS, ALSO_IN_FOLDERS) if (found := [*filter(is_there, names)])), []
    )


def read_sheet(file: str, reading: Reading, problems: list[Problem]) -> Sheet:
    """The columns of the catalogue `file`, in any format; problems of single rows go to `problems`.

    Columns can be chosen for tables alone; for another format that is a problem.

    Raises `CatalogueError` where nothing further can be checked.
    """
    document = open_document(file)
    if document.suffix == ".json":
        content = parse_json(document, problems)
        if "resources" in content:
            _refuse_chosen(reading, "Camtrap DP", problems)
            return read_camtrap_dp(document.folder, content, problems)
        _refuse_other_json(document, content)
        _refuse_chosen(reading, "COCO Camera Traps", problems)
        return read_coco(content, problems)
    chosen = {name.strip().lower() for _, name in reading.columns}
    cells = read_cells(document, lambda key: _is_read(key) or key in chosen, problems)
    if is_wildlife_insights(cells):
        _refuse_chosen(reading, "Wildlife Insights", problems)
        return read_wildlife_insights(cells, problems)
    if is_wildbook(cells):
        _refuse_chosen(reading, "Wildbook", problems)
        return read_wildbook(cells, problems)
    return read_frame(cells, reading, problems)


def _refuse_chosen(reading: Reading, name: str, problems: list[Problem]) -> None:
    for meaning, column in reading.columns:
        what = f"the file is {name}, whose own fields say what is what; columns are chosen for other tables alone"
        cure = "leave --column out; to choose columns, write a CSV with one row per photo"
        problems.append(Problem("column chosen in vain", f"--column {meaning}={column[:60]}", what, cure))


def _is_read(key: str) -> bool:
    """Whether any format reads a column of this lower-case name."""
    return is_frame_column(key) or is_wildbook_column(key) or is_wildlife_insights_column(key)


def _refuse_other_json(document: Document, content: dict[str, Any]) -> None:
    if "detection_categories" in content:
        what = "it holds a detector's boxes (MegaDetector), but no annotations"
        cure = "write the boxes into a catalogue, with the names of the animals"
        raise hopeless(document.source, "unknown format", what, cure)
    if "images" not in content or "annotations" not in content:
        keys = ", ".join(repr(key[:40]) for key in list(content)[:8]) or "none"
        what = f"it is neither COCO (images, annotations) nor a data package (resources); its keys are {keys}"
        raise hopeless(document.source, "unknown format", what, "name a datapackage.json or a COCO file")
