"""What each signal adds to the list of wrong names.

    python -m tests.benchmarks.suspects.ablation cows-mobile lions-mobile --shares 0.05 --seeds 1 2 3 --work DIR

Names are judged with all signals, without each of them, and with none. `--work` is the folder of `python -m
tests.benchmarks.suspects`, which must have collected the evidence of these plantings. The table shows average
precision by photo and its change against all signals: the mean over plantings and the spread of that mean.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import tasks.offers  # noqa: F401  # what settings may name
from pairx_engine.judgement.judge import Judged, judge_evidence
from pairx_engine.judgement.pair_model import FREE
from schemas.catalogue.reader import read_catalogue
from schemas.settings import load_settings
from tasks.runs.remaining import Remaining
from tasks.stages.judge_evidence import CatalogueEvidence, evidence_of
from tasks.vectors import vectors_of
from tests.benchmarks.cases import SHARED
from tests.benchmarks.suspects.judged import judged_views
from tests.benchmarks.suspects.measures import average_precision
from tests.benchmarks.suspects.sets import BenchSet, known_sets, state_folder, states_of
from tests.benchmarks.suspects.states import NAMES, Plan, State, misnamed
from tests.benchmarks.suspects.store import Evidence, one_thread, retrieve

WITHOUT_MODEL = ("homography", "inliers", "local_matches")
"""Signals of the local matcher alone: what is there without relevance and deep matches."""
ALL, NONE = "all signals", "none: embeddings alone"


def main() -> None:
    """Print a table per set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.05])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--work", type=Path, required=True)
    chosen = parser.parse_args()
    one_thread()
    known = known_sets(chosen.shared, chosen.work)
    for label in chosen.sets:
        found: dict[str, list[float]] = defaultdict(list)
        plan = Plan((NAMES,), chosen.shares, chosen.seeds)
        for values in measured(known[label], plan, chosen.work):
            for name, value in values.items():
                found[name].append(value)
        print(
            f"\n{label}, {len(found[ALL])} plantings\n| signals | average precision | change |\n| --- | --- | --- |"
        )
        for name, values in found.items():
            change = np.array(values) - np.array(found[ALL])
            error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan
            print(f"| {name} | {np.mean(values):.3f} | {change.mean():+.3f} ± {error:.3f} |", flush=True)


@dataclass(frozen=True, eq=False)
class Planting:
    """One state with what is judged of it."""

    state: State
    evidence: CatalogueEvidence
    vectors: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Which photos bear another animal's name (N,)."""
        return misnamed(self.state, self.evidence.gallery.photo_ids)

    def precision(self, judged: Judged) -> float:
        """Average precision of the photos' log-odds."""
        named = self.evidence.photos.known
        return average_precision(judged.photos.log_odds[named], self.wrong[named])


def plantings(one: BenchSet, plan: Plan, work: Path) -> Iterator[Planting]:
    """All states of a plan, whose pairs must have been scored."""
    settings = load_settings(overrides={"figures": 0, **one.settings})
    evidence = Evidence.open(work / one.folder, settings)
    catalogue = read_catalogue(str(one.metadata), one.root)
    with ThreadPoolExecutor(1) as pool:
        rows = evidence.take_in([catalogue], pool)
    for state in states_of(one, plan, catalogue, rows, {}):
        folder = f"ablation-{state_folder(one, state)}"
        job = evidence.state(folder, rows, state.names)
        found, missing = retrieve(job)
        if missing:
            raise SystemExit(f"{len(missing)} pairs of {one.label} are not scored: run the benchmark first")
        with judged_views(job, found) as connection:
            gallery = Remaining(connection, job, False).gallery()
            yield Planting(
                state,
                evidence_of(connection, gallery),
                vectors_of(job, gallery, np.arange(len(gallery.photo_ids))),
            )
        evidence.drop(folder)


def measured(one: BenchSet, plan: Plan, work: Path) -> Iterator[Mapping[str, float]]:
    """Of each planting the average precision by choice of signals."""
    for planting in plantings(one, plan, work):
        chosen = choices(planting.evidence)
        yield {name: _precision(planting, kept) for name, kept in chosen.items()}


def choices(evidence: CatalogueEvidence) -> dict[str, set[str]]:
    """Names of choices, and the signals of each.

    A signal alone keeps the circumstance that it is judged under.
    """
    every = set(evidence.pairs.signals)
    about = {name for name in every if name.startswith(FREE)}
    found = {ALL: every, NONE: set(), "of the local matcher alone": every & set(WITHOUT_MODEL)}
    found |= {f"without {name}": every - {name} for name in sorted(every - about)}
    return found | {f"{name} alone": {name, *about} for name in sorted(every - about)}


def _precision(planting: Planting, kept: set[str]) -> float:
    evidence = planting.evidence
    signals = {name: value for name, value in evidence.pairs.signals.items() if name in kept}
    judged = judge_evidence(evidence.photos, replace(evidence.pairs, signals=signals), planting.vectors)
    return planting.precision(judged)


if __name__ == "__main__":
    main()
