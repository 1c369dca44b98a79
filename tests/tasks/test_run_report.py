from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from schemas.settings import EMBEDDED_NOTICE
from tasks.job import Job
from tasks.runs.log import RunLog, StageLog, balances
from tasks.runs.remaining import look
from tasks.runs.report import write_report
from tasks.runs.tonight import tonight_of
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import BROKEN_CODES, Stages, files_of


class Page(HTMLParser):
    """Text, tags and references of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def written(done: Stages, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, int], str]:
    """Address, counts and page of a report on the finished stages."""
    job = Job(**{**vars(done.job), "warehouse": Warehouse(str(tmp_path_factory.mktemp("report") / "w"))})
    for path, data in files_of(done.warehouse).items():
        job.warehouse.write_file(path, data)
    log = RunLog(job)
    with look(job, log.columns(done.gallery.state if done.gallery else None), keep=True) as (connection, _):
        address, counts = write_report(
            job,
            log,
            connection,
            balances(connection),
            [StageLog("embed", 2, seconds=1.5, devices=("cpu, torch 2.15.0", "NVIDIA H100"))],
            tonight_of(connection),
        )
    return address, counts, Path(address).read_text(encoding="utf-8")


def test_the_report_lies_in_the_warehouse_and_stands_alone(written: tuple[str, dict[str, int], str]) -> None:
    address, _, html = written
    assert Path(address).parent.name == "reports"
    page = Page(html)
    assert page.references
    assert all(r.startswith(("data:", "#")) for r in page.references)
    assert "@import" not in html
    assert "url(http" not in html


def test_the_report_shows_counts_sums_failures_and_the_notice(
    done: Stages, written: tuple[str, dict[str, int], str]
) -> None:
    _, counts, html = written
    words = Page(html).words
    rows = len(done.catalogue.entries)
    assert counts["photos"] == rows
    assert counts["failures"] == sum(BROKEN_CODES.values())
    assert counts["figures"] == 2
    assert counts["pairs"] == counts["scored"] > 40
    assert counts["suspects"] > 2
    assert f"photos {rows} = embedded {rows - 6} + failed 6" in words
    for code in BROKEN_CODES:
        assert code in words.replace(" ", "_") or code.replace("_", " ") in words
    assert EMBEDDED_NOTICE in words
    assert done.job.prints.scores in words
    assert "computed on NVIDIA H100; cpu, torch 2.15.0" in words


def test_the_report_has_figures_of_what_was_drawn(written: tuple[str, dict[str, int], str]) -> None:
    page = Page(written[2])
    pictures = [r for r in page.references if r.startswith("data:image/webp")]
    # Chips, overlay, colours; two suspects of one pair show the same ones.
    assert len(set(pictures)) == 3 * written[1]["figures"]
