"""How well the suspects find planted errors, beside simple methods on the same embeddings and pairs.

    python -m tests.benchmarks.suspects                                      every set, all plantings, 5 seeds
    python -m tests.benchmarks.suspects cows-mini --kinds names --shares 0.05 --seeds 1 2 3
    python -m tests.benchmarks.suspects cows-mini lions-mobile --variants paper xfeat
    python -m tests.benchmarks.suspects --catalogue metadata.csv --root PHOTOS --model DIR --set same_viewpoint=true
    python -m tests.benchmarks.suspects --read results.csv                   the table and the summary again

Evidence is kept in the work folder: a second run only judges. Where a checkout has no stage `judge`, today's
ranking and the simple methods are measured alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import tasks.offers  # noqa: F401  # what settings may name
from tests.benchmarks.cases import SHARED
from tests.benchmarks.suspects.sets import BenchSet, known_sets, run_set, variant_of, variants
from tests.benchmarks.suspects.states import KINDS, NAMES, SEEDS, SHARES, Plan
from tests.benchmarks.suspects.store import one_thread
from tests.benchmarks.suspects.table import Row, as_text, read_csv, summary, write_csv
from tests.benchmarks.suspects.wanted import wishes

_VARIANT_PLAN = Plan(kinds=(NAMES,), shares=(0.05,), seeds=(1, 2, 3))


def main() -> int:
    """Measure the chosen sets and print the table and the summary."""
    chosen = _arguments()
    rows: list[Row] = [row for path in chosen.read for row in read_csv(path)]
    if not rows:
        begun = time.perf_counter()
        plan = _plan(chosen)
        # Two processes on two cores must not spin against each other: workers read this before they load
        # anything.
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        one_thread()
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(chosen.workers, context, one_thread) as pool:
            for one in _sets(chosen):
                rows += run_set(one, plan, chosen.work, pool, _say)
                # After each set, so that a run that is ended keeps what it has measured.
                write_csv(chosen.out, rows)
                _say(f"{one.label}: done after {time.perf_counter() - begun:.0f} s; {chosen.out}")
    print(as_text(rows))
    print()
    print(summary(rows))
    print()
    print("\n".join(wishes(rows)))
    return 0


def _sets(chosen: argparse.Namespace) -> list[BenchSet]:
    if chosen.catalogue:
        model = {"model": chosen.model} if chosen.model else {}
        sets = [BenchSet(chosen.label, chosen.label, chosen.catalogue, chosen.root, model)]
    else:
        known = known_sets(chosen.shared, chosen.work)
        sets = [known[name] for name in chosen.sets or known]
    given = dict(pair.split("=", 1) for pair in chosen.set)
    sets = [replace(one, settings={**one.settings, **given}) for one in sets]
    if chosen.variants:
        return [variant_of(one, word, chosen.shared) for one in sets for word in chosen.variants]
    return sets


def _plan(chosen: argparse.Namespace) -> Plan:
    base = _VARIANT_PLAN if chosen.variants else Plan()
    return Plan(chosen.kinds or base.kinds, chosen.shares or base.shares, chosen.seeds or base.seeds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks.suspects",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sets", nargs="*", choices=[*known_sets(SHARED, Path()), []], help="default: all")
    parser.add_argument(
        "--catalogue", type=Path, help="metadata.csv (image_id, identity, path) with trusted names"
    )
    parser.add_argument("--root", help="folder that the catalogue's paths are relative to")
    parser.add_argument("--model", help="folder or hub id of the model for --catalogue")
    parser.add_argument(
        "--label", default="catalogue", help="what results and evidence of --catalogue are called"
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, help=f"what is planted; default: all ({', '.join(KINDS)})"
    )
    parser.add_argument("--shares", nargs="+", type=float, help=f"shares of wrong names; default: {SHARES}")
    parser.add_argument("--seeds", nargs="+", type=int, help=f"default: {SEEDS}")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=variants(SHARED),
        help="other matchers and presets instead: 5 %%, 3 seeds",
    )
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="any setting")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of photos and models")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir(), "pairx-suspects"), help="kept evidence"
    )
    parser.add_argument("--out", type=Path, default=Path("suspects.csv"), help="CSV of all measures")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--read", type=Path, nargs="+", default=[], help="print results again, measure nothing"
    )
    return parser.parse_args()


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
