"""A run's report in a real browser, from the disk and without a server: answers are kept, downloaded and imported.

`pytest -m browser` runs these alone, with those of the review's page.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from flows.commands.verdicts import import_verdicts
from pairx_engine.figure import encode_webp
from schemas.foreign_text import neutralised
from schemas.tables.reviews import REVIEW_PARTITION
from tasks.pages.report import ReportInput, render_report
from tasks.pages.report_cards import COLUMNS
from tasks.pages.scatter import ReportScatter
from tasks.reviews.exchange.csv_file import answers_in
from tasks.runs.report import suspects_of
from tasks.sql.console import connect_analyst
from tasks.store.reports import report_path, store_pictures
from tasks.store.warehouse import Warehouse
from tests.flows.review.chromium import CHROMIUM, Browser, Page, chromium
from tests.flows.review.test_browser import HOSTILE
from tests.flows.review.warehouses import reviewed
from tests.hostile.test_hostile_names import NAMES
from tests.toy_warehouse import LAYER

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
ODD = {"A": "=1+1", "B": "'@B", "C": '"c", c;\t\u202ec', "D": "\uff1dD"}
"""Names that a spreadsheet would run, or that a CSV must quote."""
CURRENT = "document.querySelector('[aria-current]')?.id"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("websockets", reason="comes with Prefect")
    with chromium() as started:
        yield started


def report_of(warehouse: Warehouse) -> str:
    """Write a report of a toy warehouse, with a picture for each suspect, and return its address."""
    connection = connect_analyst(warehouse.url)
    listed = suspects_of(connection, LAYER, [])
    listed = [
        replace(each, chips=encode_webp(np.full((30, 60, 3), 9 * each.rank, dtype=np.uint8)))
        for each in listed
    ]
    now, none = datetime.now(UTC), np.zeros(0)
    rendered = render_report(
        ReportInput(
            "toy", "r1", now, now, {}, (), listed, len(listed), ReportScatter(none, none, none, []), (), (), {}, {}, {},
            warehouse=warehouse.url,
        )
    )  # fmt: skip
    store_pictures(warehouse, rendered.pictures, {})
    return Path(warehouse.write_file(report_path("r1"), rendered.html.encode())).as_uri()


def opened(browser: Browser, address: str) -> Page:
    page = browser.page()
    page.size(1400, 900)
    page.open(address)
    page.wait(f"document.readyState === 'complete' && {CURRENT}")
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page


def said(page: Page) -> list[str]:
    """What the cards say was answered, without the time, in order."""
    texts = page.run("[...document.querySelectorAll('.said')].map((each) => each.textContent)")
    return [" · ".join(text.split(" · ")[:-1]) for text in texts]


def downloaded(page: Page, folder: Path) -> Path:
    """The file that the button for it gives."""
    place = folder / f"{len(list(folder.glob('*/*.csv')))}"
    place.mkdir()
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(place))
    page.run("document.getElementById('download').click()")
    end = time.monotonic() + 10
    while not (found := list(place.glob("*.csv"))):
        assert time.monotonic() < end, page.log
        time.sleep(0.05)
    return found[0]


def rows_in(file: Path) -> list[Mapping[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        return list(csv.DictReader(text))


def stored(warehouse: Warehouse) -> list[tuple[str, str, str | None, str | None, str | None]]:
    """Verdicts in the order in which they were given."""
    rows = warehouse.read("reviews", REVIEW_PARTITION).to_pylist()
    names = ("kind", "verdict", "right_name", "reviewer", "note")
    return [
        tuple(row[name] for name in names)
        for row in sorted(rows, key=lambda row: (row["at"], row["review_id"]))
    ]


@pytest.mark.parametrize("names", [HOSTILE, ODD], ids=["markup", "formulas"])
def test_answers_of_a_page_without_a_server_are_imported_as_they_were_given(
    browser: Browser, tmp_path: Path, names: Mapping[str, str]
) -> None:
    warehouse = reviewed(tmp_path, names)
    page = opened(browser, report_of(warehouse))
    page.run("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    page.wait(
        "document.images.length === 6 && [...document.images].every((image) => image.naturalWidth === 60)"
    )
    page.run("document.getElementById('reviewer').focus()")
    page.type("ann")
    page.run("document.activeElement.blur()")
    page.run("document.querySelector('#suspect-3 .note').value = '=note'")
    for key in "sd":  # the copy, and the name that may be two animals
        page.press(key)
    page.press("k")
    page.press("u")  # the two names
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    page.press("s")  # the photo that was skipped
    page.press("B")  # after it the next that is not answered: its other photo is bad
    assert said(page) == [
        "One picture · ann",
        "Two animals · ann",
        "Same animal · ann",
        "Unsure · ann",
        "Right is bad · ann",
        "",
    ]
    page.press("d")
    page.press("z")
    assert said(page)[5] == ""
    assert page.text("#download") == "Download 5 verdicts"

    page = opened_again(browser, page)
    assert said(page)[0] == "One picture · ann"
    file = downloaded(page, tmp_path)
    assert file.read_text(encoding="utf-8-sig").splitlines()[0] == ",".join(COLUMNS)
    assert not [cell for row in rows_in(file) for cell in row.values() if cell.strip()[:1] in tuple("=+-@＝")]
    import_verdicts(file, warehouse.url, None, False)
    expected = [
        ("copy", "copy", None, "ann", None),
        ("split", "two_animals", None, "ann", None),
        ("names", "cannot_tell", None, "ann", None),
        ("name", "wrong", names["B"], "ann", "=note"),
        ("photo", "bad", None, "ann", None),
    ]
    assert stored(warehouse) == expected
    bad = rows_in(file)[-1]
    assert (bad["subject"], page.text("#suspect-5 .names div:last-child span")) == ("c2", "c2")

    # What was downloaded is taken back by a row of its own.
    page.press("z")
    page.run("document.querySelector('#suspect-1 [data-choice=different]').click()")
    assert page.text("#download") == "Download 2 verdicts"
    import_verdicts(downloaded(page, tmp_path), warehouse.url, None, False)
    assert stored(warehouse) == [
        *expected,
        ("photo", "withdrawn", None, "ann", None),
        ("copy", "withdrawn", None, "ann", None),
        ("copy", "no_copy", None, "ann", None),
    ]
    assert page.text("#download") == "Download again"
    import_verdicts(downloaded(page, tmp_path), warehouse.url, None, False)
    assert len(stored(warehouse)) == len(expected) + 3
    assert page.log == []


def opened_again(browser: Browser, page: Page) -> Page:
    """The same tab after its page was loaded anew."""
    page.call("Page.reload")
    time.sleep(0.3)
    page.wait(f"document.readyState === 'complete' && {CURRENT}")
    return page


def test_a_key_answers_no_card_that_is_out_of_sight(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, report_of(reviewed(tmp_path)))
    assert page.run(CURRENT) == "suspect-1"
    page.run("scrollTo(0, document.body.scrollHeight)")
    page.wait(f"{CURRENT} !== 'suspect-1'")
    page.press("s")
    assert said(page)[0] == ""
    # What is typed is no answer.
    page.run("document.querySelector('#suspect-1 .note').focus()")
    page.press("d")
    assert said(page)[0] == ""
    page.run("document.activeElement.blur()")
    page.run("document.querySelector('.kind-filter[value=copy]').click()")
    assert page.run("document.getElementById('suspect-1').hidden")
    assert page.text("#visible-count") == "5"


def test_what_others_put_into_the_browsers_storage_is_no_answer_and_no_markup(
    browser: Browser, tmp_path: Path
) -> None:
    address = report_of(reviewed(tmp_path))
    page = opened(browser, address)
    page.press("s")
    page.run(
        "(() => { const name = Object.keys(localStorage).find((each) => each.startsWith('pairx ') && each !== 'pairx reviewer');"
        "const given = JSON.parse(localStorage[name]); given.rows[0].reviewer = '<img src=x onerror=alert(1)>';"
        "localStorage[name] = JSON.stringify(given);"
        "localStorage[name + '1'] = '{'; localStorage[name + '2'] = '{\"choice\": \"same\", \"saved\": false, \"rows\": [{}]}';"
        "localStorage['pairx reviewer'] = '<b>x</b>'; })()"
    )
    page = opened_again(browser, page)
    assert said(page)[0] == "One picture · <img src=x onerror=alert(1)>"
    assert page.text("#download") == "Download 1 verdict"
    assert page.run("document.querySelectorAll('.said img').length") == 0
    assert page.log == []


def test_every_text_comes_back_from_the_file_as_it_was(browser: Browser, tmp_path: Path) -> None:
    """The page writes CSV by rules of its own; they are those of `csv_lines`, which the import undoes."""
    texts = [
        name for name in NAMES if name.strip() == name and neutralised(name).lstrip("'") == name.lstrip("'")
    ]
    texts += ["'", "''=x", "'1", "-.5e3", "+inf", "-INF", "\ufeff=1", "a\r\nb", '"', "-\u0661"]
    texts = [text for text in texts if not any(0xD800 <= ord(c) < 0xE000 for c in text)]
    page = opened(browser, report_of(reviewed(tmp_path)))
    rows = [
        dict.fromkeys(COLUMNS, "x") | {"note": text, "subject": text, "at": f"2026-06-01T{i:06}"}
        for i, text in enumerate(texts)
    ]
    page.press("s")
    given = json.dumps({"choice": "same", "saved": False, "rows": rows})
    page.run(
        "(() => { const name = Object.keys(localStorage).find((each) => each.startsWith('pairx ') && each !== 'pairx reviewer');"
        f"localStorage[name] = {json.dumps(given)}; }})()"
    )
    page = opened_again(browser, page)
    data = downloaded(page, tmp_path).read_bytes()
    found = answers_in(data)
    assert len(texts) > 60
    assert [(a.cells["note"], a.problem) for a in found] == [(text, "") for text in texts]
    plain = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    assert [row[6] for row in plain][1:] == [neutralised(text) for text in texts]
