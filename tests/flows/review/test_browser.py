"""The page in a real browser: keys decide, nothing is lost, and no name of a catalogue runs.

`pytest -m browser` runs these alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.tables.reviews import REVIEW_PARTITION
from tasks.store.warehouse import Warehouse
from tests.flows.review.chromium import CHROMIUM, Browser, Page, chromium
from tests.flows.review.serving import free_port, served, start
from tests.flows.review.warehouses import TWO_ANIMALS, TWO_NAMES, earlier_runs, reviewed

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
HOSTILE = {
    "A": "<img src=x onerror=alert(1)>", "B": "</script><script>alert(2)</script>", "C": "\u202e{{7*7}}", "D": "' onload='alert(3)",
}  # fmt: skip
SHOWN = "document.querySelector('#question')?.textContent && [...document.querySelectorAll('.turn > img')].every((i) => i.naturalWidth)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("websockets", reason="comes with Prefect")
    with chromium() as started:
        yield started


def stored(warehouse: Warehouse) -> list[tuple[str, str, str | None]]:
    """What is on disk, in the order in which it was said: kind, verdict, reviewer."""
    rows = warehouse.read("reviews", REVIEW_PARTITION).to_pylist()
    return [(row["kind"], row["verdict"], row["reviewer"]) for row in sorted(rows, key=lambda row: row["at"])]


def opened(browser: Browser, address: str, who: str) -> Page:
    page = browser.page()
    page.size(1400, 900)
    page.open(address)
    page.wait(SHOWN)
    page.run("document.querySelector('#reviewer').focus()")
    page.type(who)
    page.press("Enter")
    return page


def pressed(key: str) -> str:
    """A script that presses a key where the focus is, with no time for the browser to draw."""
    return f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{ key: {key!r}, bubbles: true }}));"


def press(page: Page, key: str, then: str) -> None:
    """Press a key and wait for the words that the page then says of what was stored."""
    page.press(key)
    page.wait(f"document.querySelector('#stored').textContent.includes({then!r})")


def test_a_curator_decides_by_keys_and_loses_nothing(browser: Browser, tmp_path: Path) -> None:
    warehouse, port = reviewed(tmp_path, HOSTILE), free_port()
    address = f"http://127.0.0.1:{port}/"
    server = start(warehouse, port)
    try:
        ann = opened(browser, address, "ann")
        # The first card is the copy, the next one the split; names are text, whatever they hold.
        assert HOSTILE["A"] in ann.text("#question")
        press(ann, "s", "Stored: one picture")
        assert stored(warehouse) == [("copy", "copy", "ann")]
        assert "two animals, one on either side" in ann.text("#question")
        press(ann, "d", "Stored: two animals")
        assert ann.text("#question").startswith("Is a0, called")

        # A note, and another name.
        ann.press("n")
        ann.wait("document.querySelector('#dialog').open")
        ann.type("an ear is torn")
        # A key that comes before the browser has drawn the page without the dialog is not lost.
        assert (
            ann.run(pressed("Enter") + pressed("o") + "document.querySelector('#dialog h2').textContent")
            == "Other name"
        )
        assert ann.run("document.querySelector('#dialog').open")
        ann.press("Escape")
        ann.wait("!document.querySelector('#dialog').open")
        ann.press("o")
        ann.wait("document.querySelector('#dialog').open")
        ann.type("Nala")
        press(ann, "Enter", "Nala")
        row = max(warehouse.read("reviews", REVIEW_PARTITION).to_pylist(), key=lambda each: each["at"])
        assert (row["verdict"], row["right_name"], row["note"]) == ("wrong", "Nala", "an ear is torn")

        # Undo leads back to the card.
        press(ann, "z", "Taken back")
        assert ann.text("#question").startswith("Is a0, called")
        assert stored(warehouse)[-1] == ("name", "withdrawn", "ann")

        # Overlays come and go by one key, and skipping stores nothing.
        ann.press("2")
        assert ann.wait("document.querySelectorAll('#lines circle').length") == 8
        ann.press("v")
        ann.wait("document.querySelectorAll('#lines circle').length === 0")
        count = len(stored(warehouse))
        ann.press("k")
        ann.wait("document.querySelector('#question').textContent.startsWith('Are ')")
        assert len(stored(warehouse)) == count

        # Both photos zoom together until they are unlinked, and a new card is seen whole again.
        width = "parseFloat(document.querySelector('#pane-{} .sheet').style.width)"
        whole = {side: ann.run(width.format(side)) for side in "ab"}
        ann.wheel("#pane-a .stage", -400)
        for side in "ab":
            ann.wait(f"Math.abs({width.format(side)} / {whole[side]} - Math.E) < 0.01")
        ann.press("l")
        ann.wheel("#pane-a .stage", -400)
        ann.wait(f"Math.abs({width.format('a')} / {whole['a']} - Math.E ** 2) < 0.05")
        assert abs(ann.run(width.format("b")) / whole["b"] - math.e) < 0.01
        ann.press("0")
        ann.wait(f"Math.abs({width.format('a')} / {whole['a']} - 1) < 0.01")

        # The server dies between two keys: the page says so and stays, and goes on when it is back.
        server.kill()
        server.wait()
        press(ann, "s", "Not stored")
        assert ann.text("#question").startswith("Are ")
        server = start(warehouse, port)
        press(ann, "s", "Stored: one animal")
        assert stored(warehouse)[-1] == ("names", "one_animal", "ann")

        # Loaded again it asks what is open, and only that: b2 was an echo of the names. (Hand-made rows have no
        # snapshot, so the server that started again does not know the two cards that were answered before.)
        ann.open(address)
        ann.wait(SHOWN)
        ann.wait("document.querySelector('#progress b').textContent === '1 of 4 answered'")
        assert ann.text("#question").startswith("Is a0, called")
        assert ann.run("document.querySelector('#reviewer').value") == "ann"

        # A second curator on the same card sees what the first one said before anything is stored.
        bob = opened(browser, address, "bob")
        assert bob.text("#question").startswith("Is a0, called")
        press(bob, "d", "Stored: the name is right")
        ann.press("s")
        ann.wait("document.querySelector('#notice').textContent.includes('bob')")
        ann.wait("/answered/.test(document.querySelector('#stored').textContent)")
        if ("name", "wrong", "ann") not in stored(warehouse)[-1:]:
            press(ann, "s", "Stored: the name is wrong")
        assert stored(warehouse)[-2:] == [("name", "right", "bob"), ("name", "wrong", "ann")]

        # Nothing ran, and nothing was refused but the requests to the dead server.
        time.sleep(0.2)
        log = [
            line
            for page in (ann, bob)
            for line in page.log
            if "ERR_CONNECTION" not in line and "409" not in line
        ]
        assert log == []
        assert ann.run("document.querySelectorAll('script').length") == 1
    finally:
        server.kill()
        server.wait()


HOLDING = """
const ask = window.fetch;
window.fetch = (path, ...rest) => String(path).startsWith('/api/changes')
  ? new Promise((done) => { const reply = ask(path, ...rest); window.release = () => done(reply); })
  : ask(path, ...rest);
"""
"""The page's requests for news stay unanswered until `release()`."""
ANSWER = """
(async () => {
  const send = (path, body) => fetch(path, { method: 'POST', body: JSON.stringify(body),
    headers: { 'Content-Type': 'application/json', 'X-Pairx-Review': '1' } }).then((reply) => reply.json());
  const line = await send('/api/queue', {});
  return (await send('/api/verdict', { card: line.ids[0], key: 'same', reviewer: 'bob' })).state.said[0].by;
})()
"""
"""Another person answers the first card."""


def test_news_of_one_card_are_not_shown_on_the_next(browser: Browser, tmp_path: Path) -> None:
    with served(reviewed(tmp_path)) as address:
        ann = opened(browser, address, "ann")
        assert ann.run(ANSWER) == "bob"
        ann.run(HOLDING)
        ann.wait("!!window.release")
        ann.press("ArrowRight")
        ann.wait("document.querySelector('#question').textContent.startsWith('Is C')")
        ann.run("window.release()")
        ann.wait("document.querySelector('#progress b').textContent === '1 of 6 answered'")
        assert ann.run("document.querySelector('#notice').hidden")
        ann.press("ArrowLeft")
        ann.wait("document.querySelector('#kind').dataset.kind === 'copy'")


def test_what_is_new_since_a_run_is_chosen_among_the_filters(browser: Browser, tmp_path: Path) -> None:
    warehouse = reviewed(tmp_path)
    earlier_runs(warehouse, ["copy", TWO_NAMES, TWO_ANIMALS], [])
    choice = "document.querySelector('#dialog select[name=since]')"
    with served(warehouse) as address:
        ann = opened(browser, address, "ann")
        assert ann.text("#question").startswith("Are these two one picture")
        ann.press("/")
        ann.wait(f"!!{choice}")
        assert ann.run(f"[...{choice}.options].map((each) => each.value)") == ["", "r0-1", "r0-2"]
        assert ann.run(f"{choice}.value") == ""
        assert ann.run(f"{choice}.options[1].textContent").startswith("new in the last run: since ")
        ann.run(f"{choice}.value = 'r0-1'")
        ann.press("Enter")
        ann.wait("document.querySelector('#question').textContent.startsWith('Is a0')")
        assert ann.text("#filter-count") == " (1)"
        assert ann.text("#progress span").startswith("3 listed")
        press(ann, "d", "Stored: the name is right")
        ann.press("/")
        ann.wait(f"{choice}?.value === 'r0-1'")
        ann.press("Enter")
        ann.wait("!document.querySelector('#dialog').open && !document.querySelector('.waiting')")
        # At the end of the news the page leads back to all cards.
        for count, following in ((2, "'Is d0'"), (3, "'Nothing is left to answer here.'")):
            ann.press("d")
            ann.wait(f"document.querySelector('#progress b').textContent === '{count} of 6 answered'")
            ann.wait(f"document.querySelector('#question').textContent.startsWith({following})")
        ann.wait("document.querySelector('#question').textContent === 'Nothing is left to answer here.'")
        ann.click("#notice button")
        ann.wait("document.querySelector('#question').textContent.startsWith('Are these two one picture')")
        assert ann.text("#filter-count") == ""
        assert ann.log == []


def test_the_end_of_the_line_leads_back_to_what_was_passed(browser: Browser, tmp_path: Path) -> None:
    with served(reviewed(tmp_path)) as address:
        ann = opened(browser, address, "ann")
        first = ann.text("#question")
        for _ in range(6):
            ann.press("ArrowRight")
            time.sleep(0.1)
        ann.wait(
            "document.querySelector('#question').textContent === 'That was the last card. 6 that you passed are still listed.'"
        )
        ann.click("#notice button")
        ann.wait(f"document.querySelector('#question').textContent === {first!r}")


def test_keys_after_a_click_and_in_a_list_are_those_of_the_page(browser: Browser, tmp_path: Path) -> None:
    warehouse = reviewed(tmp_path)
    with served(warehouse) as address:
        ann = opened(browser, address, "ann")
        ann.click("#skip")
        ann.wait("document.querySelector('#kind').dataset.kind === 'split'")
        # Space skips, too; it does not press the button again that was clicked before.
        ann.click("[data-answer=same]")
        ann.wait("document.querySelector('#stored').textContent.includes('Stored: one animal')")
        ann.wait("document.querySelector('#question').textContent.startsWith('Is a0')")
        ann.press(" ")
        ann.wait("document.querySelector('#question').textContent.startsWith('Are ')")
        assert stored(warehouse) == [("split", "one_animal", "ann")]
        # A letter in the list of methods or of orders chooses nothing there.
        ann.press("5")
        ann.wait("document.activeElement.id === 'method'")
        press(ann, "d", "Stored: two animals")
        ann.run("document.querySelector('#order').focus()")
        ann.press("k")
        ann.wait("!document.querySelector('#question').textContent.startsWith('Is b2')")
        assert ann.run("document.querySelector('#order').value") == "probability"
        assert len(stored(warehouse)) == 2


def test_it_fits_a_telephone(browser: Browser, tmp_path: Path) -> None:
    warehouse, port = reviewed(tmp_path), free_port()
    server = start(warehouse, port)
    try:
        page = opened(browser, f"http://127.0.0.1:{port}/", "ann")
        page.size(420, 850, touch=True)
        page.wait("innerWidth === 420")
        assert page.run("document.documentElement.scrollWidth") <= 420
        # Both photos and the answers are seen without scrolling, and a finger can hit them.
        for one in (
            "#pane-a .stage",
            "#pane-b .stage",
            "[data-answer=same]",
            "[data-answer=different]",
            "[data-answer=unsure]",
            "#undo",
        ):
            box = page.run(
                f"(({{ top, bottom, height }}) => [top, bottom, height])(document.querySelector('{one}').getBoundingClientRect())"
            )
            assert box[0] >= 0, one
            assert box[1] <= 850, one
            assert box[2] >= 36, one
        page.run("document.querySelector('[data-answer=same]').click()")
        page.wait("document.querySelector('#stored').textContent.includes('Stored')")
        assert stored(warehouse) == [("copy", "copy", "ann")]
        # Every control has a name for those who hear the page.
        nameless = "[...document.querySelectorAll('button, select, input')].filter((e) => e.checkVisibility() && !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length"
        assert page.run(nameless) == 0
        assert page.run("document.querySelector('#stored').getAttribute('aria-live')") == "polite"
    finally:
        server.kill()
        server.wait()
