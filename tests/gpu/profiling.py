"""Where a recorded forward pass and the pulls through it spend their time.

Also what the layout of maps in memory costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from pairx_engine.device.accelerator import settle
from pairx_engine.relevance.explainer import LayerExplainer
from tests.benchmarks.engine_way import explainer_with
from tests.benchmarks.measuring import seconds
from tests.benchmarks.not_available import NotAvailable
from tests.gpu.findings import Findings
from tests.gpu.kinds import kind_of_kernel, kind_of_operator
from tests.gpu.part import Task
from tests.gpu.workload import timed, workload

LAYOUTS = ("contiguous", "channels_last")
_MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_LONGEST = 15
"""Kernels or operators listed by name, those that take most time."""


def measure(task: Task, findings: Findings) -> None:
    """Profiles in single precision, then times in both layouts and all formats."""
    work = workload(task)
    findings.note(work.title)
    model, chips = work.load(task.device)
    assert model.layer is not None
    starts, maps, repeats = (2, 2, 1) if task.small else (10, 10, 5)
    explainer = LayerExplainer(model.network, [model.layer])
    for name, run in jobs_of(explainer, explainer.suited_to("score"), chips[0], starts, maps).items():
        if task.left < 15 and not task.small:
            findings.cut_short(f"profile of {name}")
            continue
        _profile(task, findings, name, run)
    _plain_forward(task, findings, model, chips[0], repeats)
    switches: dict[str, dict[str, Any]] = {
        f"maps {layout}": {"forward": layout, "pull": layout} for layout in LAYOUTS
    }
    precisions = ("float32", "bfloat16") if task.small else ("float32", "tf32", "bfloat16", "float16")
    ways = [(p, switch, changes) for p in precisions for switch, changes in switches.items()]
    if task.device != "cpu":
        # Last, so that the rest is known if a first capture goes wrong.
        ways += [(p, "CUDA graphs", {"graphs": True}) for p in precisions]
    for precision, switch, changes in ways:
        if task.left < 6 and not task.small:
            findings.cut_short(f"times in {precision}, {switch} and what follows")
            break
        try:
            explain, score = (
                explainer_with(model.network, model.layer, "published", precision, changes, suited)
                for suited in ("explain", "score")
            )
            for name, run in jobs_of(explain, score, chips[0], starts, maps).items():
                taken = timed(run, task.device, repeats)
                findings.figure(f"{name}, {precision}, {switch}", taken * 1e3, "ms")
        except NotAvailable as why:
            findings.lacks(f"times in {precision}, {switch}", why)
        except Exception as error:
            if "graphs" not in changes:
                raise
            # A switch that is off by default: its failure is a finding, and the others go on.
            findings.at_most(f"{precision}, {switch}: {type(error).__name__}: {error}; failed", 1, 0)
    if task.device != "cpu" and task.left > 6:
        _freely_chosen(task, findings, explainer, chips[0], starts, maps, repeats)


def _freely_chosen(
    task: Task,
    findings: Findings,
    explainer: LayerExplainer,
    chip: torch.Tensor,
    starts: int,
    maps: int,
    repeats: int,
) -> None:
    """Time with kernels chosen by timing, to see what it costs that they repeat their bits."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    for name, run in jobs_of(explainer, explainer.suited_to("score"), chip, starts, maps).items():
        findings.figure(f"{name}, kernels chosen by timing", timed(run, task.device, repeats) * 1e3, "ms")
    settle(torch.device(task.device))


def jobs_of(
    explainer: LayerExplainer, scorer: LayerExplainer, chip: torch.Tensor, starts: int, maps: int
) -> dict[str, Callable[[], Any]]:
    """What is profiled: a recorded forward pass, and both pulls through one.

    The pulls run in the groups of explaining and of scoring.
    """
    (layer,) = explainer.layers
    seen, scored = explainer.see(chip, keep=True), scorer.see(chip, keep=True)
    drawn = torch.randn(
        (starts, len(seen.embedding)), generator=torch.Generator().manual_seed(0), dtype=torch.float32
    ).to(chip.device)
    h, w = seen.features[layer].shape[-2:]
    cells = [((3 * i) % w, (2 * i) % h) for i in range(maps)]
    return {
        "recorded forward": lambda: explainer.see(chip, keep=True),
        f"pull of {starts} starts to the layer": lambda: scorer.relevance(scored, drawn),
        f"pull of {maps} cells to the pixels": lambda: explainer.pixel_maps(seen, layer, cells),
    }


def _profile(task: Task, findings: Findings, name: str, run: Callable[[], Any]) -> None:
    seconds(run, 2, task.device)
    (wall,) = seconds(run, 1, task.device)
    on_gpu = task.device != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=True) as recorded:
        seconds(run, 1, task.device)
    found = _kernels(recorded) if on_gpu else _operators(recorded)
    by_kind: dict[str, float] = defaultdict(float)
    for kind, _, busy, _ in found:
        by_kind[kind] += busy
    total = sum(by_kind.values())
    findings.figure(f"{name}: without a profiler", wall * 1e3, "ms")
    what = "kernels" if on_gpu else "operators"
    findings.figure(f"{name}: {what}", sum(count for *_, count in found))
    if on_gpu:
        launches = sum(
            e.count for e in recorded.key_averages() if "LaunchKernel" in e.key or "GraphLaunch" in e.key
        )
        findings.figure(f"{name}: launches", launches)
        # While no kernel runs, the CPU is not fast enough in launching them.
        findings.figure(f"{name}: share of the time without a kernel", max(0.0, 1 - total / 1e6 / wall))
    for kind, busy in sorted(by_kind.items(), key=lambda item: -item[1]):
        findings.figure(f"{name}: {kind}", busy / total if total else None, f"of the {what}' time")
    longest = sorted(found, key=lambda row: -row[2])[:_LONGEST]
    findings.detail(
        f"{name}: longest",
        [{"kind": k, "name": n, "share": b / total, "count": c} for k, n, b, c in longest],
    )


def _kernels(recorded: profile) -> list[tuple[str, str, float, int]]:
    """Kind, name, microseconds and number of every kernel, copies among them."""
    taken: dict[str, list[float]] = defaultdict(list)
    for event in recorded.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            taken[event.name].append(event.time_range.elapsed_us())
    return [(kind_of_kernel(name), name, sum(times), len(times)) for name, times in taken.items()]


def _operators(recorded: profile) -> list[tuple[str, str, float, int]]:
    """Kind, name, microseconds of its own and number of every operator on the CPU."""
    return [
        (kind_of_operator(e.key, e.input_shapes), e.key, e.self_cpu_time_total, e.count)
        for e in recorded.key_averages(group_by_input_shape=True)
        if e.self_cpu_time_total > 0
    ]


def _plain_forward(task: Task, findings: Findings, model: Any, chip: torch.Tensor, repeats: int) -> None:
    """The bare network in both layouts: what the recorded pass is to be measured by."""
    for layout in LAYOUTS:
        form = _MEMORY_FORMATS[layout]
        model.network.to(memory_format=form)
        batch = chip[None].contiguous(memory_format=form)

        def run(batch: torch.Tensor = batch) -> None:
            with torch.inference_mode():
                model.network(batch)

        findings.figure(f"bare forward of one chip, {layout}", timed(run, task.device, repeats) * 1e3, "ms")
    model.network.to(memory_format=torch.contiguous_format)
