"""What each step of the judgement is worth: the judgement as it is, and with one step left out.

    python -m tests.benchmarks.suspects.steps cows-mini cows-mobile lions-mobile --shares 0.05 0.2 --seeds 1 2 3 --work DIR

`--work` is the folder of `python -m tests.benchmarks.suspects`, which must have collected the evidence of
these plantings. Per way of judging: average precision by photo, calibration error against the truth on pairs
matched whatever their names, wrong names expected over those planted, and how often the interval held their
number.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.special import expit

from pairx_engine.judgement import judge, pair_model
from pairx_engine.judgement.inputs import Pairs
from tests.benchmarks.cases import SHARED
from tests.benchmarks.suspects.ablation import Planting, plantings
from tests.benchmarks.suspects.calibration import calibration_error
from tests.benchmarks.suspects.sets import known_sets
from tests.benchmarks.suspects.states import NAMES, Plan, truth_of
from tests.benchmarks.suspects.store import one_thread

WAYS: dict[str, list[tuple[Any, str, Any]]] = {
    "as it is": [],
    "matched pairs are not levelled": [(pair_model, "_level", lambda *_: (0.0, 1.0))],
    "the first pass trusts, too": [(judge, "LEAST_DOUBT", (0.02, 0.02, 0.02))],
    "names are taken at their word at first": [(judge, "LEAST_DOUBT", (0.0, 0.0, 0.0))],
    "signals learn from pairs that names chose": [(Pairs, "matched", Pairs.retrieved)],
    "the interval is not widened": [
        (judge, "widened", lambda errors, told, _: replace(errors, sensitivity=told.share))
    ],
}
"""For each way to judge, the places where something else is put."""


def main() -> None:
    """Print a table per set and share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.05, 0.2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--work", type=Path, required=True)
    chosen = parser.parse_args()
    one_thread()
    known = known_sets(chosen.shared, chosen.work)
    for label in chosen.sets:
        for share in chosen.shares:
            found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
            for planting in plantings(known[label], Plan((NAMES,), (share,), chosen.seeds), chosen.work):
                for way in WAYS:
                    found[way].append(_judged(planting, way))
            print(f"\n{label}, {share:.0%}, {len(found['as it is'])} plantings")
            print("| way | average precision | calibration error | expected / planted | interval holds |")
            print("| --- | --- | --- | --- | --- |")
            for way, values in found.items():
                precision, error, expected, planted, holds = np.mean(values, axis=0)
                print(
                    f"| {way} | {precision:.3f} | {error:.3f} | {expected:.1f} / {planted:.0f} | {holds:.2f} |"
                )
            sys.stdout.flush()


def _judged(planting: Planting, way: str) -> tuple[float, float, float, float, float]:
    photos, pairs = planting.evidence.photos, planting.evidence.pairs
    true = truth_of(planting.state, planting.evidence.gallery.photo_ids)
    # Before anything is replaced: all ways are measured on the same pairs.
    asked = pairs.matched & ~pairs.same_picture & photos.known[pairs.first] & photos.known[pairs.second]
    same = (true[pairs.first] == true[pairs.second])[asked]
    with ExitStack() as elsewhere:
        for place, name, value in WAYS[way]:
            elsewhere.enter_context(patch.object(place, name, value))
        judged = judge.judge_evidence(photos, pairs, planting.vectors)
    errors, planted = judged.errors, int(planting.wrong[photos.known].sum())
    return (
        planting.precision(judged),
        calibration_error(expit(judged.pairs.log_odds)[asked], same),
        errors.expected,
        planted,
        float(errors.low <= planted <= errors.high),
    )


if __name__ == "__main__":
    main()
