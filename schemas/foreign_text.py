"""Makes foreign text, above all names and paths, safe for a terminal or a spreadsheet.

* A **terminal** obeys escape sequences, and signs of writing direction let one name pass for another:
  `printable`.
* A **spreadsheet** takes a text that begins with = + - or @ for a formula and may run it: `neutralised` puts
  an apostrophe before it, which spreadsheets understand as "this is text". Numbers stay as they are, also as
  a photo's id or an animal's name. The reader of catalogues takes that apostrophe away again (`restored`), so
  that what was written as CSV reads as it was.

Pages have their own guard, `tasks.pages.base`; SQL gets texts only as parameters.
"""

from __future__ import annotations

import json
import re

_HARMLESS = frozenset("\u00a0\u200c\u200d\u202f")
"""Signs that names need though Python does not count them as printable.

They are spaces that do not break, and signs that join or part letters.
"""
_LAYOUT = frozenset("\n\t")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_FORMULA = re.compile(r"'*(?:\s*[=+\-@＝＋－＠]|[\t\r])")
"""The start of a text that a spreadsheet may run.

Some programs drop blanks before they look for a formula, or drop a tab that stood there as protection. A text
that has its apostrophe gets another one; otherwise nobody could tell which of them to take away.
"""
_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf(inity)?)", re.ASCII)


def printable(text: str) -> str:
    """One line for a terminal.

    What would steer the terminal, break the line or turn the direction of writing is replaced.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _HARMLESS else _REPLACEMENT for c in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines: line feeds and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c in _LAYOUT else printable(c) for c in text)


def escaped_json(text: str) -> str:
    """JSON with the same values, in which what would steer a terminal is written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _HARMLESS else json.dumps(c)[1:-1] for c in text)


def neutralised(text: str) -> str:
    """A text as a cell of CSV, without control characters.

    An apostrophe stands before it where a spreadsheet would run it.
    """
    return f"'{_CONTROL.sub(_REPLACEMENT, text)}" if _runs(text) else _CONTROL.sub(_REPLACEMENT, text)


def restored(cell: str) -> str:
    """The text that `neutralised` was given, but for control characters; other cells as they are."""
    return cell[1:] if cell.startswith("'") and _runs(cell[1:]) else cell


def _runs(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)
