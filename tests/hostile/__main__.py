"""The hostile catalogue in numbers: ``python -m tests.hostile``.

It runs every case and prints, by kind, how many were tried and how many held.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

KINDS = ("photos", "names", "catalogues", "sql", "warehouses", "models", "settings")


class Tally:
    """Counts the outcome of each case by its kind."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.held: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test; a case whose limits were exceeded did not hold."""
        kind = Path(report.nodeid.partition("::")[0]).stem.removeprefix("test_hostile_")
        if report.when == "call":
            self.tried[kind] += 1
            self.held[kind] += report.passed
        elif report.failed:
            self.held[kind] -= report.when == "teardown"


def main() -> int:
    """Run all kinds, or those that are named; the exit code is that of pytest."""
    tally, folder = Tally(), Path(__file__).parent
    wanted = sys.argv[1:] or KINDS
    code = pytest.main(
        [*(str(folder / f"test_hostile_{kind}.py") for kind in wanted), "-n", "0", "-m", "slow or not slow"],
        [tally],
    )
    for kind in wanted:
        print(f"{kind:<12} {tally.held[kind]:>4} of {tally.tried[kind]:>4} held")
    print(f"{'all':<12} {tally.held.total():>4} of {tally.tried.total():>4} held")
    return int(code)


if __name__ == "__main__":
    raise SystemExit(main())
