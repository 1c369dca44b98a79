"""Whole runs of `pairx run` on a small catalogue: the device against the CPU, one worker and two."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.measuring import all_cores
from tests.gpu.check import ROOT
from tests.gpu.findings import Findings
from tests.gpu.part import Task
from tests.gpu.workload import MINIATURE, cow_catalogue

_SETTINGS = {
    "photos_per_shard": 16,
    "pairs_per_shard": 32,
    "max_keypoints": 256,
    "figures": 2,
    "n_pixel_maps": 2,
    "top_k": 3,
    "same_name_k": 1,
    "other_name_k": 1,
    "references": 4,
}
_SHARE_OF_PAIRS = 0.95
"""Share of the pairs and suspects that both devices must find.

Half-precision embeddings round near ties to either side.
"""
_ROWS = 1e-3
"""Largest difference of a score between two devices, relative to the largest of that score.

Nearly all pairs must keep to it.
"""
_SCORES = ("cosine", "match_coverage", "relevance_a", "relevance_b", "n_matches", "residual_mean")


def measure(task: Task, findings: Findings) -> None:
    """Runs on the CPU and on the device are compared with a tolerance, one and two workers bit for bit."""
    from tests.small_catalogue import COMPARED, views_of  # needs pytest and DuckDB

    for needed in ("prefect", "prefect_dask", "distributed", "duckdb"):
        __import__(needed)
    cluster = "local" if task.device == "cpu" else task.device
    runs = {"one": (cluster, task.device, 1), "two": (cluster, task.device, 2)}
    if task.device != "cpu":
        runs = {"cpu": ("local", "cpu", 1), **runs}
    warehouses: dict[str, Path] = {}
    longest = 0.0
    for name, (cluster, device, workers) in runs.items():
        if task.left < longest + 5:
            findings.cut_short(f"--cluster {cluster} --workers {workers} on {device}")
            continue
        begun = time.monotonic()
        warehouses[name] = _run(task, name, cluster, device, workers)
        longest = time.monotonic() - begun
        findings.figure(f"run, --cluster {cluster} --workers {workers} on {device}", longest, "s")
    rows = {name: views_of(_open(path), COMPARED) for name, path in warehouses.items()}
    if not rows:
        return
    first = next(iter(rows))
    counts = {view: len(found) for view, found in rows[first].items()}
    findings.at_least("photos in the warehouse", counts["photos"], 4)
    findings.at_least("scored pairs in the warehouse", counts["scores"], 4)
    findings.detail("rows", counts)
    if {"one", "two"} <= rows.keys():
        other = [view for view in COMPARED if rows["one"][view] != rows["two"][view]]
        findings.at_most(
            f"views in which two workers differ from one in any bit{': ' + ', '.join(other) if other else ''}",
            len(other),
            0,
        )
    if {"cpu", "one"} <= rows.keys():
        compare_devices(findings, rows["one"], rows["cpu"])


def compare_devices(findings: Findings, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Note how far the rows of another device are from the CPU's.

    Keys are compared by the share that both have, scores by their difference.
    """
    for view in ("embeddings", "keypoints", "pairs", "scores", "suspects"):
        mine, theirs = found[view].keys(), wanted[view].keys()
        if not mine | theirs:
            continue  # a catalogue without suspects says nothing of them
        share = len(mine & theirs) / max(1, len(mine | theirs))
        findings.at_least(f"{view}: share of rows that both devices have", share, _SHARE_OF_PAIRS)
    both = sorted(found["scores"].keys() & wanted["scores"].keys())
    for column in _SCORES:
        pairs = [(found["scores"][k].get(column), wanted["scores"][k].get(column)) for k in both]
        numbers = np.array([(a, b) for a, b in pairs if a is not None and b is not None], dtype=float)
        if not len(numbers):
            continue
        difference = np.abs(numbers[:, 0] - numbers[:, 1]) / max(np.abs(numbers[:, 1]).max(), 1e-12)
        # One match more or less at a near tie changes a pair's scores in steps: not all pairs agree.
        share = float((difference <= _ROWS).mean())
        findings.at_least(
            f"scores: {column} within {_ROWS} of its maximum (worst {difference.max():.1e}), share of pairs",
            share,
            _SHARE_OF_PAIRS,
        )


def _run(task: Task, name: str, cluster: str, device: str, workers: int) -> Path:
    metadata, root = cow_catalogue(task, *((3, 3) if task.small else (8, 5)))
    warehouse, settings = task.scratch(f"run-{name}"), task.scratch(f"run-{name}.toml")
    settings.write_text("".join(f"{k} = {v}\n" for k, v in _SETTINGS.items()), encoding="utf-8")
    model = task.shared_folder / "models" / MINIATURE
    command = [sys.executable, "-m", "flows.cli.main", "run", str(metadata), "--root", str(root)]
    command += ["--warehouse", str(warehouse), "--settings", str(settings), "--cluster", cluster]
    command += ["--workers", str(workers), "--model", str(model) if model.is_dir() else "embedded"]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    # Every run has as many threads a worker: another number may change the last digits on a CPU.
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(max(1, all_cores() // 2))
    )
    finished = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **hidden, **threads, "PREFECT_HOME": str(task.scratch("prefect"))},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if finished.returncode:
        raise RuntimeError(
            f"{' '.join(command[2:])} ended with status {finished.returncode}; the log says why"
        )
    return warehouse


def _open(path: Path) -> Any:
    from tasks.store.warehouse import Warehouse

    return Warehouse(str(path))
