"""From a table's file to columns of cells: CSV (every cell as text) or Parquet, local or by URL.

CSV is UTF-8 with or without a byte order mark; its separator is whichever of comma, semicolon and tab occurs
most in the header, or the one that a first line `sep=;` names. Cells missing at a row's end are empty. Every
cell stays text, so that an id `007` stays `007`. An apostrophe that keeps a spreadsheet from taking a cell
for a formula is removed (`'=A1` reads `=A1`). Rows whose cells are all empty are skipped.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from schemas.errors import CatalogueError, Problem, StorageError
from schemas.foreign_text import restored
from schemas.paths import is_url, local_path, not_a_file
from schemas.storage import storage_at
from schemas.storage_errors import masked

CSV_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq", ".parq")
EXCEL_SUFFIXES = (".xlsx", ".xls", ".xlsm", ".ods")
_SEPARATORS = ",;\t"
_NAMED_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?[,;\t]*\r?\n', re.IGNORECASE)
"""The first line by which spreadsheets tell each other the separator."""
_SHOWN_COLUMNS, _SHOWN_LETTERS = 40, 60
_ARROW_MAX_BLOCK = 2**31 - 1

Origin = Callable[[int], tuple[str, str]]
"""An entry's place in the user's files, for messages: row and column.

An example is `("row 12", "column bbox")`.
"""


@dataclass(frozen=True)
class Cells:
    """Columns of a catalogue by lower-case name, each entry's row number, and the file's header.

    `origins` says where the cells of a column come from, if not from the column of the same name in the
    same row; `notes` are remarks for the user. `sources` are the names, as the file spells them, of columns that
    stand here under another name.
    """

    columns: dict[str, pa.ChunkedArray]
    rows: list[int]
    header: tuple[str, ...]
    origins: Mapping[str, Origin] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, name: str) -> str:
        """What the file calls the column `name`."""
        spelled = (each.strip() for each in self.header if _key(each) == name)
        return self.sources.get(name) or next(spelled, name)

    def origin(self, name: str) -> Origin:
        """Where the cells of column `name` come from."""
        return self.origins.get(name) or (lambda i: (f"row {self.rows[i]}", f"column {name}"))

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != len(self.rows):
                raise ValueError(f"column {name} has {len(column)} cells for {len(self.rows)} rows")


def columns_in_words(header: Sequence[str]) -> str:
    """The names of a file's columns for a message: the first of them, each cut where it is long."""
    shown = [
        name if len(name) <= _SHOWN_LETTERS else f"{name[: _SHOWN_LETTERS - 1]}…"
        for name in header[:_SHOWN_COLUMNS]
    ]
    more = f" and {len(header) - len(shown)} more" if len(header) > len(shown) else ""
    return ", ".join(shown) + more if any(header) else "without names"


def suffix_of(source: str) -> str:
    """The lower-case suffix of a path or URL, with its dot; empty without one."""
    return os.path.splitext(source.partition("?")[0] if is_url(source) else source)[1].lower()


def read_cells(source: str, wanted: Callable[[str], bool], problems: list[Problem]) -> Cells:
    """The columns of the file that hold text, numbers or times, and all that are `wanted`.

    `wanted` tells of a lower-case name whether it has a meaning. Of other columns of one name the first is read,
    and columns without a name are not. What is wrong with single rows is added to `problems`. Raises `CatalogueError` where nothing further
    can be checked: no such file, not a catalogue format, no columns.
    """
    data = read_bytes(source)
    suffix = suffix_of(source)
    if suffix in EXCEL_SUFFIXES:
        cure = "open it in a spreadsheet and save it as 'CSV UTF-8'"
        raise hopeless(source, "unknown format", "it is a workbook, which is not read", cure)
    if suffix not in CSV_SUFFIXES + PARQUET_SUFFIXES:
        what = f"it ends in {suffix or 'nothing'!r}, which is no catalogue format"
        cure = "save it as .csv (UTF-8) or .parquet; read are also Camtrap DP (datapackage.json) and COCO (.json)"
        raise hopeless(source, "unknown format", what, cure)
    if not data.strip():
        raise hopeless(
            source, "empty catalogue", "it has no content", "write one row per photo below a header"
        )
    cells = _parquet_cells if suffix in PARQUET_SUFFIXES else _csv_cells
    return cells(source, data, wanted, problems)


def hopeless(source: str, kind: str, what: str, cure: str) -> CatalogueError:
    """The error for a file in which nothing further can be checked."""
    return CatalogueError(masked(source), [Problem(kind, "the file", masked(what), cure)])


def read_bytes(source: str) -> bytes:
    """All bytes of a local file or URL; raises `CatalogueError` when they cannot be read."""
    cure = "name a catalogue file that exists and that you may read"
    try:
        if not is_url(source):
            place = local_path(source)
            if (kind := not_a_file(place)) and kind != "a folder":
                raise hopeless(source, "no such file", f"it is {kind}, no file", cure)
            with open(place, "rb") as file:
                return file.read()
        storage = storage_at(source)
        return storage.get(storage.root)
    except CatalogueError:
        raise
    except FileNotFoundError as error:
        raise hopeless(source, "no such file", "nothing is there", cure) from error
    except IsADirectoryError as error:
        raise hopeless(
            source, "no such file", "it is a folder", "name the file in it, e.g. metadata.csv"
        ) from error
    except StorageError as error:
        raise hopeless(source, "unreadable file", error.message, error.cure or cure) from error
    except Exception as error:  # remote file systems raise classes of their own, e.g. for missing credentials
        raise hopeless(source, "unreadable file", f"{type(error).__name__}: {error}", cure) from error


def _parquet_cells(source: str, data: bytes, wanted: Callable[[str], bool], problems: list[Problem]) -> Cells:
    try:
        file = pa.parquet.ParquetFile(pa.BufferReader(data))
        header = tuple(file.schema_arrow.names)
        places = _to_read(header, wanted, lambda i: is_plain(file.schema_arrow.field(i).type))
        table = file.read(columns=[header[i] for i in places])
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise hopeless(source, "unreadable file", f"not valid Parquet: {error}", "write it again") from error
    keys = [_key(name) for name in table.column_names]
    _refuse_twice([key for key in keys if wanted(key)], problems)
    columns = dict(zip(reversed(keys), reversed(table.columns), strict=True))
    return Cells(columns, list(range(1, table.num_rows + 1)), header)


def _csv_cells(source: str, data: bytes, wanted: Callable[[str], bool], problems: list[Problem]) -> Cells:
    text = decode(source, data, problems)
    body = text.lstrip("\r\n")
    first_row = 1 + text[: len(text) - len(body)].count("\n")
    if named := _NAMED_SEPARATOR.match(body):
        separator, body, first_row = named[1], body[named.end() :], first_row + 1
    else:
        separator = max(_SEPARATORS, key=body.partition("\n")[0].count)
    _refuse_open_quote(body, separator, first_row, problems)
    table, odd = _parse_csv(source, body, separator)
    header = tuple(str(column[0].as_py()).strip() for column in table.columns)
    skipped = {row.number for row in odd}
    numbers = [n for n in range(1, table.num_rows + len(skipped) + 1) if n not in skipped]
    wrong = [row for row in odd if row.actual_columns > row.expected_columns]
    notes: tuple[str, ...] = ()
    if short := [r for r in odd if r.actual_columns < r.expected_columns and r.text.strip(separator)]:
        table, numbers, open_rows = _with_short(source, table, numbers, short, separator)
        wrong += open_rows
        first = short[0].number + first_row - 1
        what = "rows with fewer fields than the header, read with empty cells at their end"
        notes = (f"{what}: {len(short)} (first: row {first})",)
    for row in wrong:
        what = f"{row.actual_columns} fields where the header has {table.num_columns}: {row.text[:60]!r}"
        cure = f"give every row the header's number of fields; quote fields that contain {separator!r}"
        problems.append(Problem("wrong number of fields", f"row {row.number + first_row - 1}", what, cure))
    keep = [i for i in _filled_rows(table) if i > 0]
    places = _to_read(header, wanted, lambda _: True)
    _refuse_twice([key for i in places if wanted(key := _key(header[i]))], problems)
    kept = pa.array(keep, pa.int64())
    columns = {_key(header[i]): _as_written(table.column(i).take(kept)) for i in reversed(places)}
    return Cells(columns, [numbers[i] + first_row - 1 for i in keep], header, notes=notes)


def _with_short(
    source: str, table: pa.Table, numbers: list[int], short: list[pa.csv.InvalidRow], separator: str
) -> tuple[pa.Table, list[int], list[pa.csv.InvalidRow]]:
    """The table and its rows' numbers, with the rows that lack their last cells each in its place.

    A row whose quote is never closed cannot be filled; such rows come last.
    """
    lines = [row.text + separator * (row.expected_columns - row.actual_columns) for row in short]
    # The header's names go before them, so that these columns come out as text, too.
    filled, odd = _parse_csv(source, "\n".join([separator.join(table.column_names), *lines]), separator)
    unfilled = {row.number - 2 for row in odd}
    text = pa.schema([(name, pa.string()) for name in table.column_names])
    joined = pa.concat_tables([table.cast(text), filled.slice(1).cast(text)])
    numbers = [*numbers, *(row.number for i, row in enumerate(short) if i not in unfilled)]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    joined = joined.take(pa.array(order, pa.int64()))
    return joined, [numbers[i] for i in order], [short[i] for i in sorted(unfilled)]


def _as_written(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The cells without the apostrophes that keep a spreadsheet from running them.

    Our own CSV has them, and so has that of other programs.
    """
    texts = column.cast(pa.string())
    quoted = pc.indices_nonzero(pc.starts_with(texts, "'")).to_pylist()
    if not quoted:
        return column
    cells = texts.to_pylist()
    for i in quoted:
        cells[i] = restored(cells[i])
    return pa.chunked_array([pa.array(cells, pa.string())])


def decode(source: str, data: bytes, problems: list[Problem]) -> str:
    """UTF-8 text with or without a byte order mark; lines in another encoding are added to `problems`."""
    cure = "save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise hopeless(source, "wrong encoding", "it is UTF-16", cure)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                what = f"byte 0x{line[error.start]:02x} at position {error.start + 1} is not UTF-8"
                problems.append(Problem("wrong encoding", f"line {number}", what, cure))
        return data.decode("utf-8-sig", errors="replace")


def _refuse_open_quote(body: str, separator: str, first_row: int, problems: list[Problem]) -> None:
    """Report a quote that is never closed; it silently swallows all rows after it into one cell."""
    if body.count('"') % 2 == 0:
        return
    row = first_row
    try:
        for _ in csv.reader(io.StringIO(body, newline=""), delimiter=separator, strict=True):
            row += 1
    except csv.Error as error:
        if "unexpected end of data" in str(error) or "field larger than" in str(error):
            cure = "close the quote, or write it as two quotes inside a quoted field"
            problems.append(Problem("open quote", f"row {row}", "a quote is opened and never closed", cure))


def _parse_csv(source: str, body: str, separator: str) -> tuple[pa.Table, list[pa.csv.InvalidRow]]:
    """All records as text, header first, without those of wrong length; and these."""
    wrong: list[pa.csv.InvalidRow] = []

    def skip(record: pa.csv.InvalidRow) -> str:
        wrong.append(record)
        return "skip"

    data = body.encode() + (b"" if body.endswith("\n") else b"\n")  # a header alone needs its line end
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            # One thread and one block: record numbers are only known without threads, and no record may
            # straddle blocks.
            pa.csv.ReadOptions(
                use_threads=False,
                block_size=min(len(data) + 1, _ARROW_MAX_BLOCK),
                autogenerate_column_names=True,
            ),
            # Blank lines are kept here so that they count as rows, and dropped later with other empty rows.
            pa.csv.ParseOptions(
                delimiter=separator,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=skip,
            ),
            # The header's cell is text, so every column comes out as text.
            pa.csv.ConvertOptions(strings_can_be_null=False, null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise hopeless(
            source, "unreadable file", f"not valid CSV: {error}", "write it again as CSV"
        ) from error
    return table, wrong


def _filled_rows(table: pa.Table) -> list[int]:
    filled = pc.not_equal(table.column(0).cast(pa.string()), "")
    for column in table.columns[1:]:
        filled = pc.or_(filled, pc.not_equal(column.cast(pa.string()), ""))
    places: list[int] = pc.indices_nonzero(filled).to_pylist()
    return places


def _key(name: str) -> str:
    return name.strip().lower()


def is_plain(kind: pa.DataType) -> bool:
    """Whether a column of this type can be read as text: no lists, no bytes."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _to_read(header: Sequence[str], wanted: Callable[[str], bool], plain: Callable[[int], bool]) -> list[int]:
    """Places of the columns to read: those that are wanted, and of others the first of each name."""
    first = {_key(name): i for i, name in reversed([*enumerate(header)])}
    return [
        i
        for i, name in enumerate(header)
        if (key := _key(name)) and (wanted(key) or (first[key] == i and plain(i)))
    ]


def _refuse_twice(keys: list[str], problems: list[Problem]) -> None:
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        what = f"{keys.count(key)} columns have this name"
        problems.append(
            Problem("doubled column", f"header, column {key}", what, "keep one of them or rename the others")
        )
