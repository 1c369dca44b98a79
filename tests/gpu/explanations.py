"""The benchmark of explanations on this device: the published way, and ours in every format.

CUDA graphs are measured, too.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.devices import tolerance
from tests.gpu.findings import Findings
from tests.gpu.part import Task
from tests.gpu.workload import workload

_BENCHMARK = "tests.benchmarks.explanation"
_LAST_WORDS = 15
"""Seconds that the benchmark is given to write what it has."""


def measure(task: Task, findings: Findings) -> None:
    """Whole explanations first, then scores alone; the benchmark is ended in time and tells what it has."""
    work = workload(task)
    findings.note(work.title)
    options = ["--device", task.device, "--shared", task.shared, "--keep", str(task.scratch("prepared"))]
    if task.device != "cpu":
        options += ["--graphs", "both"]
    full, score = (f"{kind}-{work.network}" for kind in ("full", "score"))
    if task.small:
        # Both at once, in one format: most of a tiny benchmark is the start of its processes.
        options += ["--size", str(work.size), "--maps", "2", "--repeats", "1", "--threads", "1"]
        options += ["--precisions", "float32", "--photos", "3", "--published-pairs", "1"]
        _benchmark(task, findings, [full, score], options, task.left)
        return
    options += ["--precisions", "float32,tf32,bfloat16", "--published-repeats", "1"]
    # Whole explanations may take two thirds of the time.
    _benchmark(task, findings, [full], options, task.left * 0.67)
    _benchmark(task, findings, [score], options, task.left)


def _benchmark(task: Task, findings: Findings, cases: list[str], options: list[str], share: float) -> None:
    """Run the benchmark of these cases and note what it found; what fails or is missing is noted too."""
    named = ", ".join(cases)
    if share < 2 * _LAST_WORDS:
        findings.cut_short(named)
        return
    out = task.scratch("explanation.json")
    out.unlink(missing_ok=True)
    trouble = _run([*cases, *options, "--json", str(out)], share - _LAST_WORDS)
    if trouble:
        findings.note(f"{named}: {trouble}")
        findings.cut |= trouble.startswith("ended")
    if not out.is_file():
        raise RuntimeError(f"the benchmark of {named} gave nothing: {trouble}")
    found = json.loads(out.read_text(encoding="utf-8"))
    findings.detail(named, found)
    for row in found["rows"]:
        _note(task, findings, row)
    for case in cases:
        if not any(row["agreement"] for row in found["rows"] if row["case"] == case):
            findings.cut_short(f"{case}: our engine was not reached")


def _run(options: list[str], limit: float) -> str | None:
    """Run the benchmark and end it after `limit` seconds; says what went wrong."""
    process = subprocess.Popen([sys.executable, "-m", _BENCHMARK, *options], cwd=Path(__file__).parents[2])
    try:
        code = process.wait(max(1.0, limit))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait(_LAST_WORDS)
        return f"ended after {limit:.0f} s; what would have followed was not measured"
    except BaseException:
        process.kill()
        raise
    return f"the benchmark ended with status {code}; its log says why" if code else None


def _note(task: Task, findings: Findings, row: dict[str, Any]) -> None:
    graphs = {None: "", True: " with graphs", False: " without graphs"}[row["graphs"]]
    name = f"{row['case']}, {row['way']}, {row['precision']}{graphs}"
    took = f"{name}: per pair (path: {row['path']})", row["median"] * 1e3
    # The wanted agreement is a check below, not an aim.
    aims = [w for w in row["wanted"] if "errors" not in w["figure"] and "overlap" not in w["figure"]]
    if aims:
        met = None if task.small else all(w["met"] for w in aims)
        findings.aim(*took, "; ".join(w["figure"] for w in aims), met, "ms")
    else:
        findings.figure(*took, "ms")
    findings.figure(f"{name}: times the published way", row["ratio"])
    findings.figure(f"{name}: peak memory over the model", row["peak_megabytes"], "MB")
    if agreement := row["agreement"]:
        limit = tolerance(task.device, row["precision"])
        same = f"same matches in {agreement['same_matches']} of {agreement['pairs']}"
        findings.at_most(
            f"{name}: relevance off by ({same})", agreement["relevance_error"], max(limit.relevance, 1e-4)
        )
        findings.at_least(f"{name}: least overlap of the first 20 matches", agreement["top"][1], limit.top)
