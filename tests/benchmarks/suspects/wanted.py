"""What is wanted of the suspects, each wish checked against the rows.

Each gets one line: kept or missed, with the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from tests.benchmarks.suspects.assess import JUDGEMENT, SUSPECTS
from tests.benchmarks.suspects.measures import FIRST_ROWS
from tests.benchmarks.suspects.states import CLEAN, COPIES, NAMES
from tests.benchmarks.suspects.table import NEARLY_SOLVED, Row, by_seed, closed

LEAST_CLOSED, MOST_CALIBRATION_ERROR, MOST_EXPECTATION_ERROR, LEAST_COVERAGE = 0.10, 0.05, 0.10, 0.80
_FIRST = 20


def wishes(rows: Sequence[Row]) -> Iterator[str]:
    """Every wish that these rows can tell something about."""
    found = [c for c in closed(rows) if c.label.endswith(f": {NAMES}")]
    for c in found:
        yield _line(c.difference >= -c.error, f"{c.label}, {c.share:.0%}: no worse than {c.simple_method}",
            f"{c.difference:+.3f} ± {c.error:.3f}")  # fmt: skip
    if unsolved := [c.share_closed for c in found if c.simple < NEARLY_SOLVED]:
        mean = fmean(unsolved)
        yield _line(
            mean >= LEAST_CLOSED,
            f"mean share closed at least {LEAST_CLOSED}",
            f"{mean:+.3f} over {len(unsolved)}",
        )
    for (label, share), methods in sorted(by_seed(rows, "calibration error").items()):
        if ours := list(methods.get(JUDGEMENT, {}).values()):
            error = fmean(ours)
            yield _line(error <= MOST_CALIBRATION_ERROR, f"{label}, {share:.0%}: calibrated", f"{error:.3f}")
    for (label, share), methods in sorted(by_seed(rows, "Brier").items()):
        if JUDGEMENT in methods:
            ours, isotonic = (fmean(methods[m].values()) for m in (JUDGEMENT, "isotonic cosine"))
            yield _line(
                ours <= isotonic,
                f"{label}, {share:.0%}: Brier score of the isotonic cosine",
                f"{ours:.4f}, {isotonic:.4f}",
            )
    for k in FIRST_ROWS:
        for (label, share), methods in sorted(by_seed(rows, f"error of expected precision@{k}").items()):
            error = fmean(methods[SUSPECTS].values())
            yield _line(
                abs(error) <= MOST_EXPECTATION_ERROR,
                f"{label}, {share:.0%}: expected precision of {k} rows",
                f"{error:+.3f}",
            )
    if held := [
        v for methods in by_seed(rows, "interval holds").values() for v in methods[SUSPECTS].values()
    ]:
        mean = fmean(held)
        yield _line(
            mean >= LEAST_COVERAGE,
            "intervals hold the number of errors",
            f"{mean:.2f} of {len(held)} plantings",
        )
    yield from _lists(rows)


def _lists(rows: Sequence[Row]) -> Iterator[str]:
    for (label, share), methods in sorted(by_seed(rows, f"found@{_FIRST}").items()):
        if (
            label.startswith("cows")
            and label.endswith(f": {NAMES}")
            and share >= 0.05
            and SUSPECTS in methods
        ):
            mean = fmean(methods[SUSPECTS].values())
            yield _line(
                mean >= _FIRST,
                f"{label}, {share:.0%}: the first {_FIRST} rows name {_FIRST} planted photos",
                f"{mean:.1f}",
            )
    for (label, _), methods in sorted(by_seed(rows, "copies found").items()):
        if label.endswith(f": {COPIES}") and SUSPECTS in methods:
            mean = fmean(methods[SUSPECTS].values())
            yield _line(mean >= 1, f"{label}: all found as copies", f"{mean:.2f}")
    for (label, _), methods in sorted(by_seed(rows, "false copies").items()):
        if label.endswith(f": {CLEAN}") and SUSPECTS in methods:
            count = max(methods[SUSPECTS].values())
            yield _line(count == 0, f"{label}: no false copy", f"{count:.0f}")


def _line(kept: bool, wish: str, numbers: str) -> str:
    return f"{'kept  ' if kept else 'MISSED'} {wish}: {numbers}"
