"""Hostile names and paths: refused by the catalogue with words, or harmless wherever they are shown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pairx_engine.figure import FigureInput, FigureSide, draw_figure
from schemas.catalogue.reader import read_catalogue
from schemas.errors import CatalogueError
from schemas.foreign_text import restored
from tasks.pages.base import page_environment
from tasks.pages.report import ReportInput, ReportSuspect, render_report
from tasks.pages.report_cards import card_of
from tasks.pages.scatter import ReportScatter
from tasks.reviews.questions import key_of
from tasks.sql.results import format_result
from tests.hostile.conftest import Said

NAMES = [
    "\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;http://evil.example\x07here\x1b]8;;\x07", "\x1bP+q\x1b\\", "\x9b31m", "\x07\x07\x07",
    "\x08\x08\x08over", "a\rb", "a\nb", "a\tb", "a\x00b", "\x7f", "a\x85b", "a\u2028b", "\u202egpj.txt", "\u2066x\u2069", "\u202a\u202b\u202d",
    "\u200f\u200e", "\ufeffAda", "\u200b", "\u00ad", "e\u0301" * 200, "Z\u0351\u036f\u0321" * 50, "\U000e0041\U000e0042", "\ufff9x\ufffb", "אבי", "می‌خواهم",
    "=1+1", "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "'=1", "=HYPERLINK(\"http://evil.example\")", "＝1+1", "%0A=1", ";=1", "|calc",
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "<!--", "]]>", "&lt;b&gt;", "</bdi></p><h1>", "{{ 7 * 7 }}", "{% raw %}", "javascript:alert(1)",
    "'; DROP TABLE photos; --", "\" OR 1=1", "$$", "%s%n%x", "{0.__class__}", "${jndi:ldap://x}", "`id`", "$(id)", "; rm -rf /", "[bold red]x[/]", "[link=file:///etc/passwd]x[/link]",
    "../../etc/passwd", "/etc/passwd", "C:\\Windows", "\\\\server\\share", "file:///etc/passwd", "http://evil.example/a.jpg", "s3://b/a.jpg", "a::b", "~root/x", "~", ".", "..", "./..", "a/../../b",
    "CON", "NUL.jpg", "x" * 513, "x" * 10_000, "🦁" * 100, "", " ", "____", "null", "NaN", "0", "-0", "1e999", "007", "TRUE", "*", "?", "[a]", "fingerprint=x",
]  # fmt: skip


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.valued: list[tuple[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        self.valued.append((tag, attrs))


def steering(text: str) -> set[str]:
    return {c for c in text if not c.isprintable()} - set("\n\u200c\u200d\u00a0")


@pytest.mark.parametrize("name", NAMES, ids=lambda n: ascii(n)[:40])
def test_a_hostile_name_is_harmless_in_tables_and_pages(name: str, tmp_path: Path) -> None:
    table = pa.table({"name": [name]})
    assert not steering(format_result(table, "table"))
    assert json.loads(format_result(table, "json")) == [{"name": name}]
    assert not steering(format_result(table, "json"))
    _, (cell,) = csv.reader(io.StringIO(format_result(table, "csv"), newline=""))
    assert not cell.lstrip().startswith(("=", "@", "＝"))
    assert "\x1b" not in cell
    assert "\x9b" not in cell
    assert not cell.startswith(("+", "-")) or cell.lstrip("+-").isdigit()
    (tmp_path / "t.j2").write_text('<p title="{{ x }}">{{ x | name }} {{ x }}</p>')
    page = page_environment(tmp_path, {}).get_template("t.j2").render(x=name)
    tags = Tags()
    tags.feed(page)
    assert tags.seen == ["p", "bdi"]
    assert not steering(page) - {"\t"}


def card_tags(name: str) -> tuple[list[str], dict[str, str]]:
    """The tags of a report whose one question is about this name, and the row that its first answer is."""
    question = dict.fromkeys(
        ("subject", "other_name", "pair_id", "photo_a", "identity_a", "identity_b"), name
    )
    question |= {"asks": "names", "kind": name, "blamed_photo": None, "photo_b": "q", "photos_a": [name], "photos_b": ["q"]}  # fmt: skip
    suspect = ReportSuspect(
        1,
        name,
        0.5,
        name,
        "q",
        name,
        name,
        None,
        None,
        None,
        None,
        None,
        name,
        card=card_of(question, key_of(question)),
    )
    now, none = datetime.now(UTC), np.zeros(0)
    page = render_report(
        ReportInput(
            name,
            "r1",
            now,
            now,
            {},
            (),
            [suspect],
            1,
            ReportScatter(none, none, none, []),
            (),
            (),
            {},
            {},
            {},
        )
    ).html
    tags = Tags()
    tags.feed(page)
    assert not steering(page) - {"\t"}
    card = next(value for tag, value in tags.valued if tag == "article")
    rows: dict[str, str] = json.loads(dict(card)["data-card"])["rows"]["same"]
    return tags.seen, rows


@pytest.mark.parametrize("name", NAMES, ids=lambda n: ascii(n)[:40])
def test_a_hostile_name_is_harmless_on_a_card_and_exact_in_its_answer(name: str) -> None:
    tags, row = card_tags(name)
    assert tags == card_tags("Ada")[0]
    assert (row["subject"], row["other"], row["pair_id"]) == (name, name, name)


@pytest.mark.parametrize("column", ["identity", "image_id", "path", "encounter"])
@pytest.mark.parametrize("name", NAMES, ids=lambda n: ascii(n)[:40])
def test_a_catalogue_takes_a_hostile_name_as_it_is_or_refuses_it(
    name: str, column: str, tmp_path: Path
) -> None:
    row = {"image_id": "a", "identity": "Ada", "path": "a.jpg", "encounter": "e", column: name}
    with (tmp_path / "c.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([row, row.values()])
    try:
        (entry,) = read_catalogue(str(tmp_path / "c.csv")).entries
    except CatalogueError as error:
        assert not steering("\n".join(f"{p.kind} {p.what} {p.cure}" for p in error.problems))
        return
    value = {
        "identity": entry.identity,
        "image_id": entry.photo_id,
        "path": entry.path,
        "encounter": entry.encounter,
    }[column]
    if column == "path":
        assert (tmp_path / str(value)).resolve().is_relative_to(tmp_path.resolve())
    else:
        assert value in (restored(name).strip(), None)


@pytest.mark.parametrize("name", [n for n in NAMES if len(n) < 513], ids=lambda n: ascii(n)[:40])
def test_a_hostile_name_is_a_figures_title(name: str) -> None:
    chip = np.full((64, 64, 3), 128, np.uint8)
    heat, points = np.zeros((4, 4), np.float32), np.zeros((1, 2), np.float32)
    side = FigureSide(chip, (64, 64), heat, points, np.zeros((0, 64, 64), np.float32), name)
    drawn = draw_figure(FigureInput((side, side), np.ones(1, np.float32), name, 1))
    assert drawn.figure.ndim == 3
    assert drawn.figure.size < 3e7


@pytest.mark.parametrize("name", ["\x1b[31m", "\u202e", "\r", "\x9b1m"], ids=ascii)
def test_a_photo_with_a_hostile_file_name_is_told_harmlessly(
    name: str, tmp_path: Path, say: Callable[..., Said]
) -> None:
    place = tmp_path / f"{name}.jpg"
    Image.new("RGB", (2, 2)).save(place)
    code, _, err = say("explain", place, place, "-o", tmp_path / "x.png")
    assert code == 2
    assert err


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "\x1b[31m.csv"],
        ["sql", "SELECT '\x1b[31m' AS \"\x9bx\"", "--warehouse", "\x1b]0;x\x07"],
        ["report", "--warehouse", "\u202e"],
        ["run", "\r.csv", "--settings", "\x1b.toml"],
    ],
    ids=ascii,
)
def test_a_hostile_argument_is_told_harmlessly(arguments: list[str], say: Callable[..., Said]) -> None:
    code, _, err = say(*arguments)
    assert code == 2
    assert err
