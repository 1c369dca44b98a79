"""How long the review page takes with ten thousand suspects: the first card, the next one, an answer.

    python -m tests.benchmarks.review --suspects 10000

Needs Chromium. Wanted are one second for the first card and 100 ms for the next, pictures included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.flows.review.chromium import Page, chromium
from tests.flows.review.serving import served
from tests.flows.review.warehouses import many

_CARDS = 40
_SHOWN = (
    "!!document.querySelector('#question')?.textContent && "
    "[...document.querySelectorAll('.turn > img')].every((each) => each.complete && each.naturalWidth)"
)
_AFTER = """
new Promise((done) => {{
  const before = document.querySelector('#question').textContent, begun = performance.now();
  document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}));
  const look = () => {{
    const shown = {shown};
    if (shown && document.querySelector('#question').textContent !== before) done(performance.now() - begun);
    else requestAnimationFrame(look);
  }};
  requestAnimationFrame(look);
}})
"""


def _times(page: Page, key: str) -> list[float]:
    found = []
    for _ in range(_CARDS):
        found.append(float(page.run(_AFTER.format(key=key, shown=_SHOWN))))
        time.sleep(0.4)  # a curator looks at the photos; the next ones are fetched meanwhile
    return found


def main() -> None:
    """Print the times."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--suspects", type=int, default=10_000)
    count = given.parse_args().suspects
    with tempfile.TemporaryDirectory() as folder:
        warehouse = many(Path(folder), count)
        begun = time.perf_counter()
        with served(warehouse) as address, chromium() as browser:
            print(f"server of {count} suspects answers after {time.perf_counter() - begun:.1f} s")
            firsts = []
            for _ in range(5):
                page = browser.page()
                page.size(1400, 900)
                begun = time.perf_counter()
                page.open(address)
                page.wait(_SHOWN)
                firsts.append(time.perf_counter() - begun)
            print(
                f"first card: {firsts[0]:.2f} s, then {np.median(firsts[1:]):.2f} s (median of {len(firsts) - 1} new browsers)"
            )
            for key, words in (("ArrowRight", "next"), ("s", "answer stored, and next")):
                times = np.array(_times(page, key))
                print(
                    f"{words}: median {np.median(times):.0f} ms, 95 % {np.quantile(times, 0.95):.0f} ms, most {times.max():.0f} ms"
                )
            print(f"elements in the page: {page.run('document.querySelectorAll(`*`).length')}")
            assert not page.log, page.log


if __name__ == "__main__":
    main()
