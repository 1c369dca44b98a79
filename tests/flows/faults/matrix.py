"""The fault matrix: every fault at several moments.

Results are kept line by line, so that the matrix can be stopped and go on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.flows.faults.disks import Deleted, Full, ObjectStore, ReadOnly
from tests.flows.faults.fault import Fault
from tests.flows.faults.photos import Poison
from tests.flows.faults.processes import (
    Driver,
    Group,
    Interrupt,
    Memory,
    PrefectServer,
    Scheduler,
    Worker,
)
from tests.flows.faults.site import site
from tests.flows.faults.trial import conduct
from tests.flows.running import REPOSITORY

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        *(Worker(), Memory(), Poison(), Group(), Driver(), Interrupt(), Scheduler(), PrefectServer()),
        *(ReadOnly(), Full(), Deleted(), ObjectStore()),
    )
}
SEEDS = 5


def main(words: Sequence[str] | None = None) -> int:
    """Run what is left of the matrix, print the table; 1 where something fell."""
    parser = argparse.ArgumentParser(prog="python -m tests.flows.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="Moments per fault.")
    parser.add_argument("--only", help="Some faults, separated by commas.")
    parser.add_argument(
        "--resume",
        type=Path,
        help="File of results, one a line: what it holds of this commit is not done again.",
    )
    given = parser.parse_args(words)
    names = given.only.split(",") if given.only else list(FAULTS)
    commit = _commit()
    done = [row for row in _rows(given.resume) if row["commit"] == commit]
    known = {(row["fault"], row["seed"]) for row in done}
    wanted = [(name, seed) for seed in range(given.seeds) for name in names]
    left = [(name, seed) for name, seed in wanted if (name, seed) not in known and not _missing(name)]
    with tempfile.TemporaryDirectory(prefix="pairx-faults-") as folder:
        if left:
            done += _conduct(left, commit, Path(folder), given.resume)
    rows = [row for row in done if (row["fault"], row["seed"]) in wanted]
    print(table(rows, names, given.seeds))
    for row in rows:
        for what in row["fell"]:
            print(f"\n{row['fault']}, seed {row['seed']}, {row['moment']}: {what}")
    return int(any(row["fell"] for row in rows) or len(rows) < len(wanted))


def _conduct(
    left: Iterable[tuple[str, int]], commit: str, folder: Path, results: Path | None
) -> list[dict[str, Any]]:
    rows = []
    with site(folder) as place:
        for name, seed in left:
            begun = time.monotonic()
            result = conduct(FAULTS[name], seed, place)
            row = {"commit": commit, **result.row(), "took": round(time.monotonic() - begun, 1)}
            rows.append(row)
            if results:
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            print(
                f"{name:<13} {seed:>3}  {'fell' if result.fell else 'held'}  {row['took']:6.1f} s  {result.moment}",
                file=sys.stderr,
                flush=True,
            )
    return rows


def table(rows: Iterable[dict[str, Any]], names: Sequence[str], seeds: int) -> str:
    """Faults by seeds, as Markdown: held, fell, or nothing where it was not tried.

    The last column is the longest time to an end.
    """
    found = {(row["fault"], row["seed"]): row for row in rows}
    lines = [
        "| fault | what happens | " + " | ".join(map(str, range(seeds))) + " | held | ended within |",
        "| --- | --- |" + " --- |" * (seeds + 2),
    ]
    for name in names:
        tried = [found.get((name, seed)) for seed in range(seeds)]
        cells = ["" if row is None else "fell" if row["fell"] else "held" for row in tried]
        longest = max((row["seconds"] for row in tried if row), default=0.0)
        held = f"{cells.count('held')} of {seeds - cells.count('')}"
        lines.append(
            f"| {name} | {_missing(name) or FAULTS[name].about} | {' | '.join(cells)} | {held} | {longest:.0f} s |"
        )
    return "\n".join(lines)


def _missing(name: str) -> str | None:
    return FAULTS[name].missing()


def _rows(results: Path | None) -> list[dict[str, Any]]:
    if results is None or not results.exists():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def _commit() -> str:
    """The commit whose results these are, with what was changed since; nothing where there is no history."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()
