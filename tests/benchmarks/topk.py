"""Exact top-k beside the bare product of matrices, and beside faiss-cpu's flat index where that is installed.

    python -m tests.benchmarks.topk [--queries 5000] [--photos 200000] [--width 256] [--width 2152]

All ways take turns in one process, and the least processor time of each counts. Photos are drawn: animals of
ten photos around a point, in encounters of two, every fifth one without a name, stored in half precision.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from pairx_engine.retrieval.proposals import Block
from pairx_engine.retrieval.rules import PairRule, PhotoKeys
from pairx_engine.retrieval.topk import Rules, exact_top_k
from tests.benchmarks.measuring import PeakMemory

BLOCK = 8192
NEIGHBOURS = 20
PHOTOS_OF_ONE = 10
RULES: dict[str, Rules] = {
    "one rule": {"top_k": (PairRule(), NEIGHBOURS)},
    "two rules": {"top_k": (PairRule(), NEIGHBOURS), "same_name": (PairRule(same_name=True), NEIGHBOURS)},
    "three rules": {
        "top_k": (PairRule(), NEIGHBOURS),
        "same_name": (PairRule(same_name=True), NEIGHBOURS),
        "other_name": (PairRule(other_name=True), NEIGHBOURS),
    },
}


def drawn(photos: int, width: int, seed: int = 0) -> tuple[torch.Tensor, PhotoKeys]:
    """Half-precision vectors (N, D) and their codes."""
    generator = torch.Generator().manual_seed(seed)
    animal = torch.arange(photos) // PHOTOS_OF_ONE
    vectors = torch.empty(photos, width, dtype=torch.float16)
    for start in range(0, photos, BLOCK):
        part = animal[start : start + BLOCK]
        first, last = int(part[0]), int(part[-1]) + 1
        centres = torch.randn(last - first, width, generator=generator)
        noise = torch.randn(len(part), width, generator=generator)
        vectors[start : start + BLOCK] = (centres[part - first] + noise).half()
    place = torch.randperm(photos, generator=generator)
    name = torch.where(torch.arange(photos) % 5 == 0, -1, animal)
    codes = [
        name,
        torch.arange(photos) // 2,
        torch.zeros(photos, dtype=torch.int64),
        torch.full((photos,), -1),
    ]
    return vectors[place], PhotoKeys(*(code[place].int().numpy() for code in codes))


def ways(vectors: torch.Tensor, keys: PhotoKeys, queries: int) -> dict[str, Callable[[], Any]]:
    """What is measured, by name: the bare product first."""

    def blocks() -> Iterator[Block]:
        for start in range(0, len(vectors), BLOCK):
            part = vectors[start : start + BLOCK]
            yield np.arange(start, start + len(part)), part

    rows = np.arange(queries)
    unit = torch.nn.functional.normalize(vectors[:queries].float(), dim=1)

    block = torch.nn.functional.normalize(vectors[:BLOCK].float(), dim=1)

    def bare() -> None:
        """The product alone: of vectors that are converted and normal already."""
        for _, part in blocks():
            torch.mm(unit, block[: len(part)].T)

    found: dict[str, Callable[[], Any]] = {"bare product": bare}
    for name, rules in RULES.items():
        found[name] = lambda rules=rules: exact_top_k(vectors[:queries], rows, blocks, keys, rules)
    index = _faiss(vectors)
    if index is not None:
        found["faiss-cpu flat"] = lambda: index.search(unit.numpy(), NEIGHBOURS + 2)
    return found


def _faiss(vectors: torch.Tensor) -> Any:
    """A flat index of the photos, filled, or None."""
    try:
        import faiss  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), BLOCK):
        part = torch.nn.functional.normalize(vectors[start : start + BLOCK].float(), dim=1)
        index.add(part.numpy())
    return index


def measured(queries: int, photos: int, width: int, repeats: int) -> list[tuple[str, float, float, float]]:
    """Name, least wall seconds, least processor seconds and most memory in MB of each way."""
    vectors, keys = drawn(photos, width)
    taken: dict[str, list[tuple[float, float, float]]] = {}
    chosen = ways(vectors, keys, queries)
    for _ in range(repeats):
        for name, way in chosen.items():
            peak, wall, processor = PeakMemory("cpu"), time.perf_counter(), time.process_time()
            way()
            taken.setdefault(name, []).append(
                (time.perf_counter() - wall, time.process_time() - processor, peak.megabytes())
            )
    return [
        (name, *(pick(v) for pick, v in zip((min, min, max), zip(*t, strict=True), strict=True)))
        for name, t in taken.items()
    ]


def main() -> None:
    """Print a table for each width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=5000, help="photos that look (default 5000)")
    parser.add_argument("--photos", type=int, default=200_000, help="photos looked at (default 200000)")
    parser.add_argument("--width", type=int, action="append", help="numbers of a vector (default 256, 2152)")
    parser.add_argument("--repeats", type=int, default=2, help="turns of each way (default 2)")
    options = parser.parse_args()
    print(f"{options.queries} x {options.photos}, {torch.get_num_threads()} threads")
    for width in options.width or (256, 2152):
        rows = measured(options.queries, options.photos, width, options.repeats)
        bare = rows[0]
        print(
            f"\n| {width} numbers | wall s | processor s | times the product | MB |\n| --- | ---: | ---: | ---: | ---: |"
        )
        for name, wall, processor, memory in rows:
            print(f"| {name} | {wall:.1f} | {processor:.1f} | {processor / bare[2]:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
