"""What was measured, as a CSV, as a table of means over seeds, and as a summary.

The summary sets ours against the best simple method.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import fmean, stdev

from tests.benchmarks.suspects.assess import BEFORE, OURS

SHOWN = ("AP", "P@20", "R@N")
NEARLY_SOLVED = 0.95
"""Sets whose best simple method reaches this mean are left out of the mean share closed."""


@dataclass(frozen=True)
class Row:
    """One measure of one method on one state."""

    label: str
    share: float
    seed: int
    method: str
    measure: str
    value: float


@dataclass(frozen=True)
class Closed:
    """Ours beside the best simple method of one label and share, paired over seeds.

    `share_closed` is the mean difference over the mean of what the simple method leaves to 1; `error` is the
    standard error of the mean difference (0 with one seed).
    """

    label: str
    share: float
    simple_method: str
    simple: float
    our_method: str
    ours: float
    difference: float
    error: float
    share_closed: float


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """All rows as label, share, seed, method, measure, value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(astuple(row) for row in rows)


def read_csv(path: Path) -> list[Row]:
    """Rows that `write_csv` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(r["label"], float(r["share"]), int(r["seed"]), r["method"], r["measure"], float(r["value"]))
            for r in csv.DictReader(file)
        ]


def by_seed(rows: Iterable[Row], measure: str) -> dict[tuple[str, float], dict[str, dict[int, float]]]:
    """(label, share) -> method -> seed -> value of one measure."""
    found: dict[tuple[str, float], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.measure == measure:
            found[row.label, row.share][row.method][row.seed] = row.value
    return found


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; empty without values."""
    if not values:
        return ""
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def as_text(rows: Sequence[Row], shown: Sequence[str] = SHOWN) -> str:
    """One block per label and share, with a line per method and a column per shown measure.

    Methods stand by falling mean of the first measure. Below them is every other measure.
    """
    lines = []
    for key in sorted({(row.label, row.share) for row in rows}):
        own = [row for row in rows if (row.label, row.share) == key]
        values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in own:
            values[row.method][row.measure].append(row.value)
        ranked = sorted(
            (m for m in values if shown[0] in values[m]), key=lambda m: -fmean(values[m][shown[0]])
        )
        if ranked:
            lines += ["", f"{key[0]}, {key[1]:.0%}".ljust(50) + "".join(name.ljust(18) for name in shown)]
            lines += [
                method.ljust(50) + "".join(spread(values[method][name]).ljust(18) for name in shown)
                for method in ranked
            ]
        rest = [
            f"  {method}: {measure} {spread(found)}"
            for method, measured in values.items()
            for measure, found in measured.items()
            if measure not in shown and not measure.startswith("P@")
        ]
        lines += [*([] if ranked else ["", f"{key[0]}, {key[1]:.0%}"]), *rest]
    return "\n".join(lines[1:])


def closed(rows: Sequence[Row], measure: str = "AP") -> list[Closed]:
    """Ours beside the best simple method, by label and share.

    Where ours was not measured, there is no row.
    """
    found = []
    for (label, share), methods in sorted(by_seed(rows, measure).items()):
        ours = next((method for method in OURS if method in methods), None)
        simple = {m: v for m, v in methods.items() if m not in (*OURS, BEFORE)}
        if ours is None or not simple:
            continue
        best = max(sorted(simple), key=lambda m: fmean(simple[m].values()))
        seeds = sorted(simple[best].keys() & methods[ours].keys())
        differences = [methods[ours][s] - simple[best][s] for s in seeds]
        left = 1 - fmean(simple[best][s] for s in seeds)
        difference = fmean(differences)
        error = stdev(differences) / math.sqrt(len(seeds)) if len(seeds) > 1 else 0.0
        found.append(
            Closed(
                label, share, best, 1 - left, ours, fmean(methods[ours][s] for s in seeds), difference, error,
                difference / left if left > 1e-9 else math.nan,
            )
        )  # fmt: skip
    return found


def summary(rows: Sequence[Row]) -> str:
    """One line per label and share: the best simple method, ours, and the share closed."""
    lines = [
        f"{c.label}, {c.share:.0%}: best simple {c.simple_method} {c.simple:.3f}, {c.our_method} {c.ours:.3f}, "
        f"difference {c.difference:+.3f} ± {c.error:.3f}, share closed {c.share_closed:+.2f}"
        + (" LOSS" if c.difference < -c.error else "")
        for c in closed(rows)
    ]
    return "\n".join(lines)
