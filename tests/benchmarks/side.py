"""One way measured in a process of its own, which `run_side` starts.

    python -m tests.benchmarks.side REQUEST.json

A process of its own gives each way its own peak memory, and keeps what one leaves behind (allocator, warm
caches, gradients on parameters) from the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pairx_engine.device.accelerator import settle
from pairx_engine.device.memory import keep_freed_memory
from tests.benchmarks.agreement import Pair
from tests.benchmarks.cases import load
from tests.benchmarks.engine_way import EngineWay
from tests.benchmarks.measuring import OtherProcesses, PeakMemory, machine, seconds
from tests.benchmarks.published_way import Explained, PublishedWay, Scored

PUBLISHED = "published way"
ENGINE = "our engine"
_ARRAYS = ("grid_a", "grid_b", "cell_a", "cell_b", "relevance")


@dataclass(frozen=True)
class Request:
    """What to measure: `way` on the prepared model of `folder`, at a precision.

    `pairs` (positions of chips) are timed. When `task` is `full`, the first pair alone is timed, with pixel
    maps; when it is `score`, all pairs are, without maps. `compared` pairs are computed besides, untimed.
    `reference` names the results whose first pair's cells get pixel maps, so that maps of the same cells are
    compared. `graphs` has our engine replay its passes as CUDA graphs or not; None leaves it to the engine.
    """

    folder: str
    out: str
    way: str
    task: str
    precision: str
    device: str
    threads: int
    repeats: int
    n_maps: int
    pairs: tuple[Pair, ...]
    compared: tuple[Pair, ...] = ()
    reference: str | None = None
    graphs: bool | None = None


@dataclass(frozen=True)
class Measured:
    """What one way took and gave: `seconds` of each repeat per pair, peak memory in MB, and its numbers.

    `others` is the share of the cores that other processes took meanwhile, None where the system does not
    tell. `maps` (2, k, H, W) belong to the cells of the reference; `path` is the engine's, with its notice
    where it has one.
    """

    seconds: tuple[float, ...]
    megabytes: float
    others: float | None
    path: str
    machine: Mapping[str, str]
    scored: Mapping[Pair, Scored]
    maps: NDArray[np.float32] | None

    @property
    def median(self) -> float:
        """Seconds per pair, the median of the repeats."""
        return float(np.median(self.seconds))

    @property
    def best(self) -> float:
        """Seconds per pair of the fastest repeat."""
        return min(self.seconds)


def run_side(request: Request) -> Measured:
    """Measure in a fresh process; raises RuntimeError with its last words when it fails."""
    asked = Path(request.out).with_suffix(".request.json")
    asked.write_text(json.dumps(asdict(request)), encoding="utf-8")
    # OMP_WAIT_POLICY is left to the caller: sleeping threads cost a quiet machine a third, spinning ones a
    # shared one far more.
    threads = {"OMP_NUM_THREADS": str(request.threads)}
    command = [sys.executable, "-m", "tests.benchmarks.side", str(asked)]
    # Its standard output goes to ours for errors, so that the table can be redirected into a file.
    finished = subprocess.run(
        command, env={**os.environ, **threads}, stdout=sys.stderr, cwd=Path(__file__).resolve().parents[2]
    )
    if finished.returncode:
        raise RuntimeError(f"{request.way} in {request.precision} ended with status {finished.returncode}")
    return _read(Path(request.out))


def main(asked: str) -> None:
    """Measure what the request file asks for and write the results beside it."""
    told = json.loads(Path(asked).read_text(encoding="utf-8"))
    request = Request(**{**told, **{k: tuple(map(tuple, told[k])) for k in ("pairs", "compared")}})
    torch.set_num_threads(request.threads)
    allow_tf32 = request.way == PUBLISHED and request.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allow_tf32
    facts = machine(request.device, request.threads)
    model, chips = load(Path(request.folder), request.device)
    memory, others = PeakMemory(request.device), OtherProcesses()
    way: PublishedWay | EngineWay
    if request.way == PUBLISHED:
        way, path = PublishedWay(model.network, model.layer), "general"
    else:
        # As the product's processes do; part of what is measured.
        keep_freed_memory()
        settle(torch.device(request.device))
        changes = {} if request.graphs is None else {"graphs": request.graphs}
        way = EngineWay(model.network, model.layer, request.precision, changes=changes)
        path = " ".join(filter(None, (way.explainer.path, way.explainer.notice)))
    taken, found, explained = _timed(way, chips, request)
    report = {
        "seconds": taken,
        "megabytes": memory.megabytes(),
        "others": others.share(),
        "path": path,
        "machine": facts,
    }
    missing = [pair for pair in request.compared if pair not in found]
    found |= dict(zip(missing, way.score(chips, missing), strict=True)) if missing else {}
    maps = _maps(way, chips, request, explained)
    _write(Path(request.out), report, found, maps)


def _timed(
    way: PublishedWay | EngineWay, chips: Sequence[torch.Tensor], request: Request
) -> tuple[list[float], dict[Pair, Scored], Explained | None]:
    """Seconds per pair of each repeat, after a warm-up, and the results."""
    pairs = list(request.pairs)
    (a, b), *_ = pairs
    kept: dict[str, Any] = {}
    if request.task == "score":
        # Kernels are chosen by shape on a GPU, hence the whole shard there; one pair wakes a CPU up.
        way.score(chips, pairs[:1] if request.device == "cpu" else pairs)
        taken = seconds(lambda: kept.update(found=way.score(chips, pairs)), request.repeats, request.device)
        return [t / len(pairs) for t in taken], dict(zip(pairs, kept["found"], strict=True)), None
    way.explain(chips[a], chips[b], 1 if request.device == "cpu" else request.n_maps)
    taken = seconds(
        lambda: kept.update(found=way.explain(chips[a], chips[b], request.n_maps)),
        request.repeats,
        request.device,
    )
    return taken, {pairs[0]: kept["found"].scored}, kept["found"]


def _maps(
    way: PublishedWay | EngineWay,
    chips: Sequence[torch.Tensor],
    request: Request,
    explained: Explained | None,
) -> NDArray[np.float32] | None:
    if explained is None:
        return None
    if request.reference is None:
        return np.stack([explained.maps_a, explained.maps_b])
    pair = request.pairs[0]
    wanted = _read(Path(request.reference)).scored[pair]
    cells = wanted.cell_a[: request.n_maps], wanted.cell_b[: request.n_maps]
    return np.stack([way.maps(chips[p], c) for p, c in zip(pair, cells, strict=True)])


def _write(out: Path, report: Mapping[str, Any], found: Mapping[Pair, Scored], maps: Any) -> None:
    arrays = {
        f"{a}-{b}-{name}": getattr(scored, name) for (a, b), scored in found.items() for name in _ARRAYS
    }
    if maps is not None:
        arrays["maps"] = maps
    coverage = {f"{a}-{b}": scored.coverage for (a, b), scored in found.items()}
    np.savez(out, **arrays)
    out.with_suffix(".json").write_text(json.dumps({**report, "coverage": coverage}), encoding="utf-8")


def _read(out: Path) -> Measured:
    report = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(out) as arrays:
        scored = {
            tuple(map(int, key.split("-"))): Scored(*(arrays[f"{key}-{name}"] for name in _ARRAYS), coverage)
            for key, coverage in report.pop("coverage").items()
        }
        maps = arrays.get("maps")
    return replace(Measured(scored=scored, maps=maps, **report), seconds=tuple(report["seconds"]))


if __name__ == "__main__":
    main(sys.argv[1])
