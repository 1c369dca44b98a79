"""What a night costs where little or nothing is new: time, and processor time of all its processes.

    python -m tests.benchmarks.small_night ../shared/data/cows/metadata.csv
    python -m tests.benchmarks.small_night catalogue.csv --root photos --photos 300 --new 6 --model models/cows --parts

`--photos` of the catalogue, drawn at random, are processed once by the real command line; then come the same
catalogue again, twice, and one with `--new` photos more. On a machine that others use too the time is theirs as
well; processor time is the run's own, that of ended children included. With `--parts` the stages follow, and what
the parts of the program take to be imported.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.flows.running import environment

IMPORTS = {
    "command line and settings": "flows.commands.run",
    "a night without news": "flows.night.run",
    "torch": "torch",
    "model and relevance": "pairx_engine.engine",
    "judgement": "tasks.stages.judge",
    "Dask": "distributed",
    "Prefect": "prefect.flows",
    "report": "matplotlib.figure",
}
"""What is imported, each after those before it, and what it is for."""


@dataclass(frozen=True)
class NightCost:
    """Seconds of wall time and of all processors that one command took, and its stages as it said them."""

    name: str
    seconds: float
    processor_seconds: float
    stages: dict[str, dict[str, Any]]


def parts_of(catalogue: Path, folder: Path, photos: int, new: int, seed: int) -> tuple[Path, Path]:
    """Two catalogues: one of `photos` rows of a catalogue in CSV, one with `new` more."""
    with catalogue.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    random.Random(seed).shuffle(rows)  # no secret
    made = []
    for name, count in (("most", photos), ("more", photos + new)):
        path = folder / f"{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(sorted(rows[:count], key=lambda row: tuple(row.values())))
        made.append(path)
    return made[0], made[1]


def measure(name: str, arguments: Sequence[str]) -> NightCost:
    """Run one command to its end; raises `SystemExit` with what it said where it failed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli.main", "run", *arguments, "--log-format", "json"],
            env=environment(), stdout=out, stderr=err, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(
                f"{name} ended with {process.returncode}:\n{err.read().decode(errors='replace')}"
            )
        summary = json.loads(out.read().splitlines()[-1])
    spent = used.ru_utime + used.ru_stime
    return NightCost(name, seconds, spent, summary["stages"])


def nights(catalogue: Path, root: str, folder: Path, asked: argparse.Namespace) -> Iterator[NightCost]:
    """The first night, two without news, and one with a few photos more."""
    most, more = parts_of(catalogue, folder, asked.photos, asked.new, asked.seed)
    rest = ["--root", root, "--warehouse", str(folder / "warehouse")]
    rest += ["--model", asked.model] if asked.model else []
    for name, path in (
        (f"first, {asked.photos} photos", most),
        ("nothing new", most),
        ("nothing new, again", most),
        (f"{asked.new} photos more", more),
    ):
        yield measure(name, [str(path), *rest])


def imports() -> Iterator[tuple[str, float]]:
    """Processor-seconds of each import, in one new process."""
    script = (
        "import importlib, json, sys, time\n"
        "for name in sys.argv[1:]:\n"
        "    begun = time.process_time()\n"
        "    importlib.import_module(name)\n"
        "    print(json.dumps([name, time.process_time() - begun]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *IMPORTS.values()],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = {module: what for what, module in IMPORTS.items()}
    for text in ended.stdout.splitlines():
        module, seconds = json.loads(text)
        yield f"{words[module]} ({module})", float(seconds)


def lines_of(cost: NightCost) -> Iterator[str]:
    """The stages of a night that took any time."""
    for stage, said in cost.stages.items():
        if said["seconds"] >= 0.05:
            yield f"    {stage:<10}{said['seconds']:7.1f} s{said['processor_seconds']:9.1f} s of processors"


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("catalogue", type=Path, help="CSV of wildlife-datasets")
    parser.add_argument("--root", help="folder of the photos; default: the catalogue's")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--new", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    root = str(Path(asked.root or asked.catalogue.parent).resolve())
    found: list[NightCost] = []
    print(f"{'night':<22}{'time':>10}{'processors':>14}", flush=True)
    with tempfile.TemporaryDirectory(prefix="pairx-small-night-") as folder:
        for cost in nights(asked.catalogue, root, Path(folder), asked):
            found.append(cost)
            print(
                f"{cost.name:<22}{cost.seconds:8.1f} s{cost.processor_seconds:12.1f} s",
                flush=True,
            )
            if asked.parts:
                print("\n".join(lines_of(cost)), flush=True)
    if asked.parts:
        for what, seconds in imports():
            print(f"import of {what:<52}{seconds:6.2f} s of processors")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(cost) for cost in found], indent=1))


if __name__ == "__main__":
    main()
