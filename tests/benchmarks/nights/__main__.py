"""Five nights on the drawn photos of `pairx demo`: is what a night calls new what is new, and what does a night cost?

    python -m tests.benchmarks.nights
    python -m tests.benchmarks.nights --small --folder /tmp/nights    # 40 photos, what is kept lies there

Photos come by date. After each night a curator who knows the truth answers some cards, and `pairx apply` makes the
next night's catalogue of it. The third night is given new photos alone, the last one leaves out what `apply` drops.
Ends with 1 where the views, the report, the review page, the printed line or `--notify` say otherwise than a plain
account of the catalogues and the stored files.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.demo.catalogue import write_drawn_catalogue
from flows.demo.run import Truth
from tests.benchmarks.nights.account import KINDS, Seen, news
from tests.benchmarks.nights.curator import Sitting, sitting
from tests.benchmarks.nights.said import (
    by_views,
    differences,
    differences_of_report,
    differences_of_review,
    in_words,
)
from tests.flows.running import PAIRX, environment
from tests.small_catalogue import ANIMALS, PLANTING, TINY

SHARES = (0.5, 0.125, 0.125, 0.125, 0.125)
"""Of the photos, by date."""
ONLY_NEW, COMPLETE = 3, 5
"""The night whose catalogue holds new photos alone, and the one whose catalogue is complete."""
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Cost:
    """What a night brought and took; sizes are of what it added, in bytes."""

    photos: int
    counts: Mapping[str, int]
    seconds: float
    files: int
    bytes: int
    report_bytes: int
    sitting: Sitting


@dataclass
class Nights:
    """A warehouse night by night, beside a plain account of what its runs saw."""

    folder: Path
    truth: Truth
    words: Sequence[str]
    """Further arguments of every `pairx run`."""

    def __post_init__(self) -> None:
        self.warehouse = self.folder / "warehouse"
        self.names: dict[str, str | None] = {}
        self.seen = Seen()
        self.broken = frozenset(photo for photo, kind in self.truth.planted.items() if kind == "broken")
        self.wrong: list[str] = []

    def night(self, number: int, rows: Rows, complete: bool, answers: int) -> tuple[Cost, Path]:
        """Run a catalogue, compare what is said with what happened, and let the curator answer."""
        catalogue, told = self.folder / f"night{number}.csv", self.folder / f"night{number}.json"
        _write(catalogue, rows)
        before = _sizes(self.warehouse)
        begun = time.perf_counter()
        more = ["--withdraw-missing"] if complete else []
        notify = ["--notify", f"sh -c {shlex.quote('cat > ' + shlex.quote(str(told)))}"]
        printed = self._pairx("run", catalogue, *self._where, *self.words, *more, *notify)
        seconds = time.perf_counter() - begun
        after = _sizes(self.warehouse)
        if complete:
            self.names.clear()
        self.names |= {row["image_id"]: row["identity"] or None for row in rows}
        counts = self._compare(number, printed, json.loads(told.read_text()))
        sat = sitting(self.warehouse, self.truth, answers)
        added = {path: size - before.get(path, 0) for path, size in after.items()}
        of_reports = sum(size for path, size in added.items() if path.startswith("reports/"))
        files = len(after.keys() - before.keys())
        total = sum(added.values()) - of_reports
        return Cost(len(self.names), counts, seconds, files, total, of_reports, sat), catalogue

    def corrected(self, catalogue: Path, *how: str) -> Rows:
        """The rows of a catalogue as the verdicts want them."""
        out = catalogue.with_suffix(".corrected.csv")
        self._pairx("apply", catalogue, "-o", out, *self._where, *how, codes=(0, 1))
        return _read(out)

    def _compare(self, number: int, printed: str, notified: Mapping[str, object]) -> Mapping[str, int]:
        then, self.seen = (
            self.seen,
            Seen.of(self.warehouse, str(notified["run"]), self.names, self.broken),
        )
        told = news(then, self.seen)
        counts = {kind: len(told[kind]) for kind in KINDS}
        page = self.warehouse / "reports" / f"{notified['run']}.html"
        found = [
            *differences(told, by_views(self.warehouse)),
            *differences_of_report(page, told, number == 1),
        ]
        found += differences_of_review(self.warehouse, told)
        found += [f"the run prints {dict(said)}"] if (said := in_words(printed)) != counts else []
        found += [f"--notify says {said}"] if (said := notified["tonight"]) != counts else []
        self.wrong += [f"night {number}: {each}" for each in found]
        return counts

    @property
    def _where(self) -> list[str]:
        return ["--warehouse", str(self.warehouse), "--root", str(self.folder / "catalogue")]

    def _pairx(self, *words: object, codes: Sequence[int] = (0,)) -> str:
        done = subprocess.run(
            [sys.executable, *PAIRX, *map(str, words)], env=environment(), capture_output=True, text=True
        )
        if done.returncode not in codes:
            raise SystemExit(f"{words[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def check(self) -> None:
        """The whole warehouse is what was written."""
        self._pairx("check", "--warehouse", self.warehouse)


def by_date(rows: Rows) -> Iterator[Rows]:
    """The photos of each night: whole days, about `SHARES` of them."""
    ordered = sorted(rows, key=lambda row: (row["date"], row["image_id"]))
    begins, share = 0, 0.0
    for each in SHARES:
        share += each
        ends = round(share * len(ordered))
        while 0 < ends < len(ordered) and ordered[ends]["date"] == ordered[ends - 1]["date"]:
            ends += 1
        yield ordered[begins:ends]
        begins = ends


def five_nights(
    folder: Path, small: bool, answers: int, words: Sequence[str]
) -> tuple[list[Cost], list[str]]:
    """What each night cost, and every difference between what was said and what happened."""
    place = folder / "catalogue"
    drawn = write_drawn_catalogue(place, 2, ANIMALS, PLANTING) if small else write_drawn_catalogue(place)
    nights = Nights(folder, Truth.read(drawn.truth), words)
    costs: list[Cost] = []
    rows: Rows = []
    for number, photos in enumerate(by_date(_read(drawn.metadata)), 1):
        given = photos if number == ONLY_NEW else [*rows, *photos]
        cost, catalogue = nights.night(number, given, number == COMPLETE, answers)
        costs.append(cost)
        _print_cost(number, cost)
        how = ["--drop-copies", "--drop-bad"] if number == COMPLETE - 1 else []
        corrected = nights.corrected(catalogue, *how)
        rows = [*rows, *corrected] if number == ONLY_NEW else corrected
    nights.check()
    return costs, nights.wrong


def _print_cost(number: int, cost: Cost) -> None:
    counts = cost.counts
    cells = (
        number, cost.photos, counts["new_photos"], counts["changed_names"], counts["new_pairs"], counts["new_suspects"],
        counts["gone_suspects"], f"{cost.sitting.errors} of {cost.sitting.answered}", f"{cost.seconds:.0f} s", cost.files,
        f"{cost.bytes / 1e6:.1f} MB", f"{cost.report_bytes / 1e6:.1f} MB",
    )  # fmt: skip
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }


def _read(file: Path) -> Rows:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def _write(file: Path, rows: Rows) -> None:
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Print a row per night, and what was said otherwise than it was."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--small", action="store_true", help="some 40 photos, with small settings")
    given.add_argument("--answers", type=int, default=15, help="cards that the curator answers each night")
    given.add_argument("--workers", type=int, default=None)
    given.add_argument("--folder", type=Path, default=None, help="an empty folder to keep everything in")
    chosen = given.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        words = ["--workers", str(chosen.workers)] if chosen.workers else []
        if chosen.small:
            settings = folder / "small.toml"
            folder.mkdir(parents=True, exist_ok=True)
            settings.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in TINY.items()))
            words += ["--settings", str(settings)]
        print(
            "| night | photos | new | names changed | new pairs | new suspects | gone | errors among cards answered | run | files added | warehouse | reports |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        _, wrong = five_nights(folder, chosen.small, chosen.answers, words)
    for each in wrong:
        print(each)
    print("what was said was not what happened" if wrong else "all that was said was new is what was new")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
