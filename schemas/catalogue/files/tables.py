"""Tables of any type of file as cells: CSV, Parquet and workbooks."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet

from schemas.catalogue.files.delimited import Dialect, csv_cells
from schemas.catalogue.files.documents import Document
from schemas.catalogue.files.headers import is_plain, key_of, refuse_twice, to_read
from schemas.catalogue.files.workbooks import WORKBOOK_SUFFIXES, workbook_cells
from schemas.catalogue.table_files import Cells, hopeless
from schemas.errors import Problem

CSV_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq", ".parq")
OTHER_WORKBOOKS = (".xls", ".xlsb", ".ods")


def read_cells(
    document: Document, wanted: Callable[[str], bool], problems: list[Problem], dialect: Dialect | None = None
) -> Cells:
    """The columns of the file that hold text, numbers or times, and all that are `wanted`.

    `wanted` tells of a lower-case name whether it has a meaning. Of other columns of one name the first is read,
    and columns without a name are not. What is wrong with single rows is added to `problems`. Raises `CatalogueError` where nothing further
    can be checked: not a catalogue format, no columns.
    """
    source, suffix = document.source, document.suffix
    if suffix in OTHER_WORKBOOKS:
        cure = "open it in a spreadsheet and save it as .xlsx or as 'CSV UTF-8'"
        raise hopeless(source, "unknown format", "it is a workbook of a type that is not read", cure)
    if suffix not in (*CSV_SUFFIXES, *PARQUET_SUFFIXES, *WORKBOOK_SUFFIXES):
        what = f"it ends in {suffix or 'nothing'!r}, which is no catalogue format"
        cure = "save it as .csv (UTF-8), .xlsx or .parquet; read are also Camtrap DP (datapackage.json) and COCO (.json)"
        raise hopeless(source, "unknown format", what, cure)
    if not document.data.strip():
        raise hopeless(
            source, "empty catalogue", "it has no content", "write one row per photo below a header"
        )
    if suffix in WORKBOOK_SUFFIXES:
        return workbook_cells(document, wanted, problems)
    if suffix in PARQUET_SUFFIXES:
        return _parquet_cells(source, document.data, wanted, problems)
    return csv_cells(document, wanted, problems, dialect or Dialect())


def _parquet_cells(source: str, data: bytes, wanted: Callable[[str], bool], problems: list[Problem]) -> Cells:
    try:
        file = pa.parquet.ParquetFile(pa.BufferReader(data))
        schema = file.schema_arrow
        header = tuple(schema.names)
        places = to_read(header, wanted, lambda i: is_plain(schema.field(i).type))
        table = file.read(columns=[header[i] for i in places])
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise hopeless(source, "unreadable file", f"not valid Parquet: {error}", "write it again") from error
    keys = [key_of(name) for name in table.column_names]
    refuse_twice([key for key in keys if wanted(key)], problems)
    columns = dict(zip(reversed(keys), reversed(table.columns), strict=True))
    return Cells(columns, list(range(1, table.num_rows + 1)), header)
