"""What a night says was new: the views, the report, the review page, the line that the run prints, `--notify`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from flows.review.queue import Wanted
from flows.review.session import Session
from tasks.reviews.opened import opened
from tasks.store.warehouse import Warehouse
from tests.benchmarks.nights.account import KINDS, News

_ROWS = {
    "new_photos": "SELECT photo_id, identity, judged FROM new_photos",
    "new_pairs": "SELECT pair_id FROM new_pairs",
    "new_suspects": "SELECT rank, because FROM new_suspects",
    "gone_suspects": """
        SELECT kind, unnest(CASE WHEN blamed_photo IS NOT NULL THEN [[blamed_photo]] WHEN kind = 'copy' THEN [[photo_a, photo_b]]
            ELSE [[least(identity_a, identity_b), greatest(identity_a, identity_b)]] END), because
        FROM gone_suspects
    """,
    "changed_names": "SELECT photo_id, name_then, name_now FROM changed_names",
}
_MOST = 50
"""Rows of a kind that the report lists."""


def by_views(warehouse: Path) -> News:
    """The rows of the views of what is new in the newest run."""
    with opened(Warehouse(str(warehouse)), KINDS) as connection:
        return {
            kind: {_flat(row) for row in connection.execute(query).fetchall()}
            for kind, query in _ROWS.items()
        }


def by_review(warehouse: Path) -> tuple[set[int], set[int]]:
    """Ranks of the review's open cards, and of those that it lists as new since the last run before."""
    session = Session(str(warehouse))
    try:
        news = session.catalogue.news
        filters = {"new": news.since(news.earlier[0].run_id)} if news.earlier else {}
        lines = [session.queue.line(Wanted(each)).ids for each in ({}, filters)]
        everything, new = ({int(session.card(card).question["rank"]) for card in line} for line in lines)
        return everything, new
    finally:
        session.catalogue.close()


def _flat(row: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(row) == 3 and isinstance(row[1], list):
        return row[0], *row[1], row[2]
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)


def in_words(printed: str) -> Counter[str]:
    """The counts of the line "tonight: …" that a run prints."""
    (line,) = re.findall(r"^tonight: (.*)$", printed, re.MULTILINE)
    found = {"nothing new": (0,) * 5}.get(line) or tuple(int(n) for n in re.findall(r"\d+", line))
    return Counter(dict(zip(KINDS, found, strict=True)))


class _Tonight(HTMLParser):
    """The section `tonight` of a report: its numbers, the ranks of its cards, and the rows of its tables."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = self.nested = 0
        self.heading = self.tag = ""
        self.numbers: list[int] = []
        self.ranks: list[int] = []
        self.rows: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "section":
            self.inside = given.get("id") == "tonight"
        self.tag = tag
        if self.inside and tag == "article":
            self.ranks.append(int((given["id"] or "").removeprefix("suspect-")))
        elif self.inside and tag == "td":
            self.rows[self.heading] += 1

    def handle_endtag(self, tag: str) -> None:
        self.tag = ""

    def handle_data(self, data: str) -> None:
        if self.inside and self.tag == "b" and len(self.numbers) < len(KINDS):
            self.numbers.append(int(data.replace(",", "")))
        if self.tag == "h3":
            self.heading = data


def in_report(page: Path) -> tuple[Counter[str], set[int], int, int]:
    """The report's counts, the ranks of the suspects that it shows as new, and its rows of gone ones and of names."""
    reader = _Tonight()
    reader.feed(page.read_text(encoding="utf-8"))
    counts = Counter(dict(zip(KINDS, reader.numbers, strict=True)))
    return (
        counts,
        set(reader.ranks),
        reader.rows["Suspects that are gone"] // 4,
        reader.rows["Changed names"] // 3,
    )


def differences(told: News, found: News) -> Iterator[str]:
    """What the views show otherwise than the plain account."""
    for kind in KINDS:
        for words, rows in (("lacks", told[kind] - found[kind]), ("adds", found[kind] - told[kind])):
            if rows:
                yield f"{kind} {words} {len(rows)}: {sorted(rows, key=str)[:3]}"


def differences_of_review(warehouse: Path, told: News) -> Iterator[str]:
    """What the review lists as new otherwise than the plain account."""
    cards, new = by_review(warehouse)
    wanted = {row[0] for row in told["new_suspects"]} & cards
    if new != wanted:
        yield f"the review lists as new the ranks {sorted(new)}, not {sorted(wanted)}"


def differences_of_report(page: Path, told: News, first: bool) -> Iterator[str]:
    """What the report shows otherwise than the plain account; the report of a `first` run lists nothing apart."""
    counts, ranks, gone, names = in_report(page)
    wanted = {kind: len(told[kind]) for kind in KINDS}
    if counts != wanted:
        yield f"the report counts {dict(counts)}, not {wanted}"
    new = set() if first else set(sorted(row[0] for row in told["new_suspects"])[:_MOST])
    if ranks != new:
        yield f"the report shows as new the ranks {sorted(ranks)}, not {sorted(new)}"
    listed = (min(_MOST, wanted["gone_suspects"]), min(_MOST, wanted["changed_names"]))
    if (gone, names) != listed:
        yield f"the report lists {gone} gone suspects and {names} changed names, not {listed}"
