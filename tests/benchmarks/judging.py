"""Time and memory of judging a large catalogue of generated embeddings.

    python -m tests.benchmarks.judging --photos 100000 --names 20000 --dimension 256

Views are not part of it: what the stage reads is made here as plain arrays. Processor time is of one thread
where the environment says so (OMP_NUM_THREADS=1).

Each photo has its twenty nearest by each rule, and three scored pairs.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from pairx_engine.judgement.any_pair import AnyPair
from pairx_engine.judgement.inputs import NamedPhotos, Pairs
from pairx_engine.judgement.judge import judge_evidence
from pairx_engine.judgement.names import judge_name_pairs
from pairx_engine.judgement.partition import judge_splits
from pairx_engine.judgement.population import population
from pairx_engine.judgement.sets import NamedPhotos as PhotosOfNames

SCORED = 3
LISTED = 20
SIGNALS = 9


def main() -> None:
    """Print a line per part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--names", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=256)
    chosen = parser.parse_args()
    photos, pairs, vectors = generated(chosen.photos, chosen.names, chosen.dimension)
    scored = int(np.isfinite(next(iter(pairs.signals.values()))).sum())
    print(
        f"{len(photos)} photos, {photos.n_names} names, {len(pairs)} pairs, {scored} of them scored; {_peak():.0f} MB"
    )
    with _timed("pairs and photos"):
        judged = judge_evidence(photos, pairs, vectors)
    unknown = np.full(len(photos), -1, dtype=np.int64)
    seen = PhotosOfNames(
        photos.names, unknown, unknown, unknown, vectors, AnyPair(photos, pairs, judged.pairs, vectors)
    )
    with _timed("pairs of names"):
        twins = judge_name_pairs(seen)
    with _timed("names that may be two"):
        splits = judge_splits(seen, twins)
    with _timed("number of animals"):
        population(seen, twins, splits)


def generated(n: int, names: int, dimension: int) -> tuple[NamedPhotos, Pairs, np.ndarray]:
    """Clustered vectors, their names, and pairs.

    A photo is paired only with the hundred photos that follow it, which is enough for timing.
    """
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((names, dimension)).astype(np.float32)
    of = np.sort(rng.integers(0, names, n))
    vectors = centres[of] + 0.8 * rng.standard_normal((n, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = _edges(rng, n)
    cosine = np.empty(len(first))
    for start in range(0, len(first), 100_000):
        part = slice(start, start + 100_000)
        cosine[part] = np.einsum("nd,nd->n", vectors[first[part]], vectors[second[part]])
    ranks = [np.where(rng.random(len(first)) < 0.5, rng.integers(1, LISTED + 1, len(first)), 0) for _ in "ab"]
    scored = rng.random(len(first)) < SCORED * n / len(first)
    signals = {
        f"s{k}": np.where(scored, cosine * k + rng.standard_normal(len(first)), np.nan)
        for k in range(SIGNALS)
    }
    pairs = Pairs(
        first, second, cosine, *ranks, np.zeros(len(first), bool), signals, np.full(len(first), -1)
    )  # fmt: skip
    spelled: list[str | None] = [f"n{name:06d}" for name in of]
    return NamedPhotos.of(spelled, [None] * n), pairs, vectors.astype(np.float16)


def _edges(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """About as many unordered pairs as the lists of nearest photos by three rules give.

    That is 50 a photo, half of them seen twice.
    """
    a = np.repeat(np.arange(n), 30)
    b = (a + rng.integers(1, 100, len(a))) % n
    keys = np.unique(np.minimum(a, b) * n + np.maximum(a, b))
    return keys // n, keys % n


@contextmanager
def _timed(what: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    print(
        f"{what}: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} s of processor time, "
        f"peak {_peak():.0f} MB"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
