"""Whether a device computes the CPU's numbers, in every preset and number format.

Goldens and families of networks are compared.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pairx_engine.device.accelerator import settle
from pairx_engine.models import load_model
from pairx_engine.relevance.explainer import LayerExplainer, Seen
from tests.benchmarks.agreement import Agreement, compare, relative_error
from tests.benchmarks.engine_way import EngineWay
from tests.benchmarks.published_way import Explained
from tests.devices import Tolerance, double_tolerance, tolerance, unexplained_matches
from tests.gpu.findings import Findings
from tests.gpu.part import Task
from tests.pairx_engine.comparison import Wanted, errors_of, found_by, itself, summed
from tests.pairx_engine.test_families import AMPLIFIED, FAMILIES, case

PRESETS = ("published", "paper", "conserving")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
FAMILY_PRESETS = ("published", "conserving")
"""Without `paper`, which differs from `published` only in how channels are summed."""
_SMALL_FAMILIES = ("MiewID",)
_MAPS = 10
_FOR_GOLDENS = 25
"""Seconds that families leave for the goldens' other formats."""


@dataclass(frozen=True)
class GoldenFound:
    """A golden on a device beside the CPU's single precision.

    It holds the agreement, the error of embeddings, and the number of matches that no near tie explains.
    """

    agreement: Agreement
    embedding: float
    unexplained: int
    published: float | None
    """Error of the relevances against what the published code computed; None for presets that it lacks."""

    def beyond(self, limit: Tolerance) -> list[str]:
        """What exceeds the tolerance."""
        found, worst = self.agreement, 1
        assert found.map_error is not None
        assert found.pictures is not None
        checks = {
            "relevance": found.relevance_error <= limit.relevance,
            "pixel maps": found.map_error <= limit.maps,
            "correlation of pixel maps": found.pictures[worst] >= limit.pictures,
            "rank correlation": found.rank[worst] >= limit.rank,
            "top 20": found.top[worst] >= limit.top,
            "embedding": self.embedding <= limit.embedding,
            "matches": self.unexplained == 0,
            "published relevance": self.published is None or self.published <= max(limit.relevance, 1e-4),
        }
        return [name for name, met in checks.items() if not met]


def goldens_in(shared: Path) -> list[Path]:
    """The goldens' arrays; a description lies beside each."""
    return sorted((shared / "goldens").glob("*.npz"))


@dataclass(frozen=True)
class _Side:
    """A golden's pair on one device: the way that explains it, its chips, and what a forward pass shows."""

    way: EngineWay
    chips: list[Tensor]
    seen: list[Seen]

    @classmethod
    def of(cls, device: str, path: Path, preset: str, precision: str, graphs: bool = False) -> _Side:
        golden, about = _read(path)
        model = load_model(path.parents[1] / "models" / about["model"], device)
        way = EngineWay(
            model.network, about["layer"], precision, preset, {"graphs": True} if graphs else None
        )
        chips = list(model.normalise([golden["chip0"], golden["chip1"]]))
        return cls(way, chips, [way.explainer.see(chip) for chip in chips])


@cache
def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(np.load(path)), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


@cache
def _reference(path: Path, preset: str) -> tuple[_Side, Explained]:
    """What the CPU's single precision says of a golden."""
    side = _Side.of("cpu", path, preset, "float32")
    return side, side.way.explain(*side.chips, _MAPS)


def golden_on(device: str, path: Path, preset: str, precision: str, graphs: bool = False) -> GoldenFound:
    """One golden explained on a device, against the CPU's single precision and the published code.

    `graphs` replays passes and pulls as CUDA graphs.
    """
    cpu, reference = _reference(path, preset)
    wanted = reference.scored
    there = _Side.of(device, path, preset, precision, graphs)
    (scored,) = there.way.score(there.chips, [(0, 1)])
    cells = wanted.cell_a[:_MAPS], wanted.cell_b[:_MAPS]
    maps = np.concatenate([there.way.maps(chip, c) for chip, c in zip(there.chips, cells, strict=True)])
    agreement = compare(
        {(0, 1): scored}, {(0, 1): wanted}, maps, np.concatenate([reference.maps_a, reference.maps_b])
    )
    embedding = max(
        relative_error(b.embedding.cpu().numpy(), a.embedding.numpy())
        for a, b in zip(cpu.seen, there.seen, strict=True)
    )
    unexplained = unexplained_matches(
        *(one.features[cpu.way.layer] for one in cpu.seen),
        found=(scored.cell_a, scored.cell_b),
        wanted=(wanted.cell_a, wanted.cell_b),
        ties=tolerance(device, precision).ties,
    )
    name = {"published": "relevance_abs_of_sum", "paper": "relevance_signed_sum"}.get(preset)
    published = None
    if name:
        golden, _ = _read(path)
        grids = enumerate((scored.grid_a, scored.grid_b))
        published = max(relative_error(grid, golden[f"{name}{side}"]) for side, grid in grids)
    return GoldenFound(agreement, embedding, unexplained, published)


def family_errors(device: str, family: str, preset: str, precisions: tuple[str, ...]) -> dict[str, float]:
    """Largest errors of a family on a device, against double precision on the CPU, by number format.

    `double` and `cpu` stand for the device's double precision and the CPU's single precision; `apart` is how
    far single precision on both devices is apart.
    """
    network, chip, layers, starts = case(family, torch.float64)
    exact = LayerExplainer(network, layers, preset)
    wanted = _wanted(found_by(exact, chip, starts), exact)
    errors = {"double": max(errors_of(_found(device, family, preset, None), wanted).values())}
    cpu = _found("cpu", family, preset, "float32")
    errors["cpu"] = max(errors_of(cpu, wanted).values())
    for precision in precisions:
        found = _found(device, family, preset, precision)
        errors[precision] = max(errors_of(found, wanted).values())
        if precision == "float32":
            errors["apart"] = max(errors_of(found, _wanted(cpu, exact)).values())
    return errors


def single_is_exact(errors: dict[str, float], device: str) -> bool:
    """Whether a family's single precision is within tolerance, or as exact as the CPU's.

    The latter is enough where the network amplifies rounding.
    """
    return errors["float32"] <= max(tolerance(device, "float32").relevance, AMPLIFIED * errors["cpu"])


def measure(task: Task, findings: Findings) -> None:
    """Measure single precision of goldens and families first.

    What follows is less likely to be wrong, or more likely to run out of time.
    """
    settle(torch.device(task.device))
    single = [(preset, "float32", False) for preset in PRESETS]
    # On a CPU half precision is slow, and tf32 is single precision.
    shorter = ("bfloat16",) if task.small else PRECISIONS[1:]
    others = [(preset, precision, False) for precision in shorter for preset in PRESETS]
    if task.device != "cpu":
        # Last, so that the rest is known if a first capture goes wrong.
        others += [(preset, "float32", True) for preset in FAMILY_PRESETS]
    _measure_goldens(task, findings, single)
    _measure_families(task, findings)
    _measure_goldens(task, findings, others)


def _measure_goldens(task: Task, findings: Findings, ways: list[tuple[str, str, bool]]) -> None:
    """Goldens in presets and formats, replayed as CUDA graphs or not."""
    paths = goldens_in(task.shared_folder)[: 1 if task.small else None]
    if not paths:
        findings.lacks("goldens", "there are none")
        return
    kept: dict[str, Any] = findings.details.setdefault("goldens", {})
    left_out = []
    for preset, precision, graphs in ways:
        way = f"{preset}, {precision}{', CUDA graphs' if graphs else ''}"
        if task.left < 6 and not task.small:
            left_out.append(way)
            continue
        try:
            found = {p.stem: golden_on(task.device, p, preset, precision, graphs) for p in paths}
        except Exception as error:
            if not graphs:
                raise
            # A switch that is off by default: its failure is a finding, and the others go on.
            findings.at_most(f"goldens, {way}: {type(error).__name__}: {error}; failed", 1, 0)
            continue
        limit = tolerance(task.device, precision)
        wrong = [f"{name}: {what}" for name, one in found.items() for what in one.beyond(limit)]
        kept[way] = {name: asdict(one) for name, one in found.items()}
        findings.at_most(
            f"goldens, {way}: {_words(list(found.values()))}; beyond tolerance"
            f"{': ' + ', '.join(wrong) if wrong else ''}",
            len(wrong),
            0,
        )
    if left_out:
        findings.cut_short(f"goldens in {'; '.join(left_out)}")


def _words(found: list[GoldenFound]) -> str:
    relevance = max(one.agreement.relevance_error for one in found)
    maps = max(one.agreement.map_error or 0 for one in found)
    rank = min(one.agreement.rank[1] for one in found)
    top = min(one.agreement.top[1] for one in found)
    same = sum(one.agreement.same_matches for one in found)
    return (
        f"relevance off by {relevance:.1e}, maps by {maps:.1e}, same matches {same} of {len(found)}, "
        f"rank correlation ≥ {rank:.4f}, top 20 ≥ {top:.2f}"
    )


def _measure_families(task: Task, findings: Findings) -> None:
    kept: dict[str, dict[str, float]] = {}
    # Other formats are measured on the goldens: real weights say more of them.
    precisions = ("float32", "bfloat16")
    left_out = []
    for preset in FAMILY_PRESETS:
        for family in _SMALL_FAMILIES if task.small else FAMILIES:
            if task.left < _FOR_GOLDENS and not task.small:
                left_out.append(f"{family} in {preset}")
                continue
            kept[f"{family}, {preset}"] = family_errors(task.device, family, preset, precisions)
            findings.details["families"] = kept
    if left_out:
        findings.cut_short(f"families {', '.join(left_out)}")
    for preset in FAMILY_PRESETS:
        chosen = {name: errors for name, errors in kept.items() if name.endswith(f", {preset}")}
        if not chosen:
            continue
        what = f"{len(chosen)} families, {preset}"
        off = [name for name, e in chosen.items() if e["double"] > double_tolerance(task.device, name)]
        findings.at_most(
            f"{what}, double precision: worst error {max(e['double'] for e in chosen.values()):.1e}; beyond tolerance"
            f"{': ' + '; '.join(off) if off else ''}",
            len(off),
            0,
        )
        wrong = [name for name, errors in chosen.items() if not single_is_exact(errors, task.device)]
        apart = [
            name
            for name, e in chosen.items()
            if not e["apart"] <= tolerance(task.device, "float32").relevance
        ]
        findings.figure(
            f"{what}, float32: worst difference from the CPU's float32; families beyond tolerance"
            f" {len(apart)}{': ' + '; '.join(apart) if apart else ''}",
            max(e["apart"] for e in chosen.values()),
        )
        worst = max(errors["float32"] for errors in chosen.values())
        cpu = max(errors["cpu"] for errors in chosen.values())
        findings.at_most(
            f"{what}, float32: worst error {worst:.1e} (the CPU's own {cpu:.1e}); less exact than the CPU"
            f"{': ' + '; '.join(wrong) if wrong else ''}",
            len(wrong),
            0,
        )
        for precision in precisions[1:]:
            errors_there = sorted(errors[precision] for errors in chosen.values())
            findings.figure(
                f"{what}, {precision}: median error (worst {errors_there[-1]:.1e})",
                errors_there[len(errors_there) // 2],
            )


def _found(device: str, family: str, preset: str, precision: str | None) -> dict[str, Any]:
    network, chip, layers, starts = case(family, torch.float64 if precision is None else torch.float32)
    there = network if device == "cpu" else copy.deepcopy(network).to(device)
    explainer = LayerExplainer(there, layers, preset, precision or "float32")
    found = found_by(explainer, chip.to(device), starts.to(device), keep=True)
    return {name: value.cpu() for name, value in found.items()}


def _wanted(found: dict[str, Any], explainer: LayerExplainer) -> dict[str, Wanted]:
    """What double precision says, each with what its error is measured by."""
    return {
        name: summed(found[name.replace("relevance of", "channels of")], explainer.preset.reduction)
        if name.startswith("relevance of")
        else itself(value)
        for name, value in found.items()
    }
