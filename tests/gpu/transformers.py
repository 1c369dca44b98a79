"""Transformers on this device: our engine beside the same rules by replaced operations."""

from __future__ import annotations

import torch

from tests.benchmarks.transformers import AGREE, CASES, measured
from tests.gpu.findings import Findings
from tests.gpu.part import Task

_LEAST = 40
"""A case does not begin with fewer seconds than this."""


def measure(task: Task, findings: Findings) -> None:
    """Whole explanations and scores of a ViT and a Swin."""
    if task.small:
        torch.set_num_threads(1)
    for name in ("tiny",) if task.small else ("vit", "swin"):
        if task.left < _LEAST:
            findings.cut_short(name)
            continue
        rows, gap = measured(CASES[name], task.shared_folder, task.device, 1 if task.small else 3)
        findings.at_most(f"{name}: ways differ by, of a map's largest number", gap, AGREE)
        for row in rows:
            findings.figure(f"{name}, {row.title}: ours, per pair", row.after * 1e3, "ms")
            findings.figure(f"{name}, {row.title}: times the replaced operations", row.before / row.after)
            findings.figure(f"{name}, {row.title}: peak memory over the model", row.memory_after, "MB")
