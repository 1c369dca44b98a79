"""CSV in the dialects that are met: every cell as text.

The separator is the comma, semicolon, tab or | that finds most columns in the header, or the one that a first
line `sep=;` or the table's package names. Titles and comments above the header are skipped. Cells missing at a
row's end are empty. Every cell stays text, so that an id `007` stays `007`. An apostrophe that keeps a
spreadsheet from taking a cell for a formula is removed (`'=A1` reads `=A1`). Rows whose cells are all empty
are skipped.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from schemas.catalogue.files.documents import Document
from schemas.catalogue.files.encodings import decode
from schemas.catalogue.files.headers import (
    LINES_SEARCHED,
    header_row,
    key_of,
    names_found,
    note_on_titles,
    refuse_twice,
    to_read,
    uncommented,
)
from schemas.catalogue.table_files import Cells, hopeless
from schemas.errors import Problem
from schemas.foreign_text import restored

_SEPARATORS = ",;\t|"
_NAMED_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?[,;\t]*\r?\n', re.IGNORECASE)
"""The first line by which spreadsheets tell each other the separator."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|$)")
_ARROW_MAX_BLOCK = 2**31 - 1


@dataclass(frozen=True)
class Dialect:
    """How a table of text is written, as far as its package says; None where the file has to tell.

    `quote` stands around cells, doubled within them if `doubled`, or behind `escape`; lines that begin with
    `comment` are left out.
    """

    encoding: str | None = None
    separator: str | None = None
    quote: str = '"'
    doubled: bool = True
    escape: str | None = None
    comment: str | None = None


def csv_cells(
    document: Document, wanted: Callable[[str], bool], problems: list[Problem], dialect: Dialect
) -> Cells:
    """The columns of a table of text; what is wrong with single rows goes to `problems`."""
    source = document.source
    text = decode(source, document.data, problems, dialect.encoding)
    body = text.lstrip("\r\n")
    first_row = 1 + text[: len(text) - len(body)].count("\n")
    named = _NAMED_SEPARATOR.match(body) if dialect.separator is None else None
    if named:
        dialect = replace(dialect, separator=named[1])
        body, first_row = body[named.end() :], first_row + 1
    body, dialect, above, notes = _below_titles(body, dialect, wanted)
    first_row += above
    _refuse_open_quote(body, dialect, first_row, problems)
    table, odd = _parse_csv(source, body, dialect)
    separator = dialect.separator or ","
    header = tuple(uncommented([str(column[0].as_py()).strip() for column in table.columns], wanted))
    skipped = {row.number for row in odd}
    numbers = [n for n in range(1, table.num_rows + len(skipped) + 1) if n not in skipped]
    wrong = [row for row in odd if row.actual_columns > row.expected_columns]
    if short := [r for r in odd if r.actual_columns < r.expected_columns and r.text.strip(separator)]:
        table, numbers, open_rows = _with_short(source, table, numbers, short, dialect)
        wrong += open_rows
        first = short[0].number + first_row - 1
        what = "rows with fewer fields than the header, read with empty cells at their end"
        notes += (f"{what}: {len(short)} (first: row {first})",)
    for row in wrong:
        what = f"{row.actual_columns} fields where the header has {table.num_columns}: {row.text[:60]!r}"
        cure = f"give every row the header's number of fields; quote fields that contain {separator!r}"
        if re.search(rf"{re.escape(separator)} +{re.escape(dialect.quote)}", row.text):
            cure += ", without a space before the quote"
        problems.append(Problem("wrong number of fields", f"row {row.number + first_row - 1}", what, cure))
    keep = [i for i in _filled_rows(table) if i > 0]
    places = to_read(header, wanted)
    keep, again = _without_headers(table, keep, [i for i in places if wanted(key_of(header[i]))])
    if again:
        notes += (f"rows that repeat the header left out: {again}",)
    refuse_twice([key for i in places if wanted(key := key_of(header[i]))], problems)
    kept = pa.array(keep, pa.int64())
    columns = {key_of(header[i]): _as_written(table.column(i).take(kept)) for i in reversed(places)}
    return Cells(columns, [numbers[i] + first_row - 1 for i in keep], header, notes=notes)


def _without_headers(table: pa.Table, keep: list[int], places: list[int]) -> tuple[list[int], int]:
    """The rows that do not repeat the header, as where files were joined, and how many do."""
    if len(places) < 2:
        return keep, 0
    first = table.column(places[0])
    alike = pc.indices_nonzero(pc.equal(first, first[0])).to_pylist()
    columns = [table.column(i) for i in places[1:]]
    repeated = {i for i in alike[1:] if all(column[i] == column[0] for column in columns)}
    kept = [i for i in keep if i not in repeated] if repeated else keep
    return kept, len(keep) - len(kept)


def _below_titles(
    body: str, dialect: Dialect, wanted: Callable[[str], bool]
) -> tuple[str, Dialect, int, tuple[str, ...]]:
    """The text from its header on, its separator, the number of lines above it, and remarks on these."""
    lines: list[str] = []
    ends: list[int] = []
    for match in _LINE.finditer(body):
        if len(lines) == LINES_SEARCHED or match.end() == match.start():
            break
        lines.append(match.group().rstrip("\r\n"))
        ends.append(match.end())
    separators = dialect.separator or _SEPARATORS
    rows = [_fields(line, dialect, separators, wanted) for line in lines]
    above = header_row([cells for _, cells in rows], wanted)
    if rows:
        dialect = replace(dialect, separator=rows[above][0])
    notes = note_on_titles(lines[:above])
    body = body[ends[above - 1] :] if above else body
    sign = dialect.comment or ("#" if any(line.startswith("#") for line in lines[:above]) else None)
    body, comments = _without_comments(body, sign, dialect) if sign else (body, 0)
    return body, dialect, above, (*notes, *([f"lines of comments left out: {comments}"] if comments else []))


def _fields(
    line: str, dialect: Dialect, separators: str, wanted: Callable[[str], bool]
) -> tuple[str, list[str]]:
    """The separator that finds most wanted columns in a line, or else most fields; and these."""
    if dialect.comment and line.startswith(dialect.comment):
        return separators[0], [line]
    parted = [(each, [f.strip().strip(dialect.quote) for f in line.split(each)]) for each in separators]
    return max(parted, key=lambda one: (names_found(one[1], wanted), len(one[1])))


def _without_comments(body: str, sign: str, dialect: Dialect) -> tuple[str, int]:
    """The text with lines of comments made empty, so that rows keep their numbers.

    Where nobody declared the sign, a line that holds several fields is a row.
    """
    found = 0
    lines = body.splitlines(keepends=True) if sign in body else []
    inside = False
    for i, line in enumerate(lines):
        declared = dialect.comment is not None or (dialect.separator or ",") not in line
        if i and not inside and declared and line.startswith(sign):
            lines[i], found = "\n", found + 1
        elif dialect.quote and line.count(dialect.quote) % 2:
            inside = not inside
    return ("".join(lines) if found else body), found


def _with_short(
    source: str, table: pa.Table, numbers: list[int], short: list[pa.csv.InvalidRow], dialect: Dialect
) -> tuple[pa.Table, list[int], list[pa.csv.InvalidRow]]:
    """The table and its rows' numbers, with the rows that lack their last cells each in its place.

    A row whose quote is never closed cannot be filled; such rows come last.
    """
    separator = dialect.separator or ","
    lines = [row.text + separator * (row.expected_columns - row.actual_columns) for row in short]
    # The header's names go before them, so that these columns come out as text, too.
    filled, odd = _parse_csv(source, "\n".join([separator.join(table.column_names), *lines]), dialect)
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


def _refuse_open_quote(body: str, dialect: Dialect, first_row: int, problems: list[Problem]) -> None:
    """Report a quote that is never closed; it silently swallows all rows after it into one cell."""
    if dialect.escape or not dialect.quote or body.count(dialect.quote) % 2 == 0:
        return
    row = first_row
    try:
        for _ in csv.reader(
            io.StringIO(body, newline=""),
            delimiter=dialect.separator or ",",
            quotechar=dialect.quote,
            doublequote=dialect.doubled,
            strict=True,
        ):
            row += 1
    except csv.Error as error:
        if "unexpected end of data" in str(error) or "field larger than" in str(error):
            cure = "close the quote, or write it as two quotes inside a quoted field"
            problems.append(Problem("open quote", f"row {row}", "a quote is opened and never closed", cure))


def _parse_csv(source: str, body: str, dialect: Dialect) -> tuple[pa.Table, list[pa.csv.InvalidRow]]:
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
                delimiter=dialect.separator or ",",
                quote_char=dialect.quote or False,
                double_quote=dialect.doubled,
                escape_char=dialect.escape or False,
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
