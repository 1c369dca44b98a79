"""What each signal of a pair is worth on stored warehouses with known names.

    python -m tests.benchmarks.signals WAREHOUSE [WAREHOUSE ...] [--resamples 200]

The worth of a signal is its area under the ROC curve of one animal against two. Pairs are those among the
nearest of either photo by cosine, whatever their names, at the layer that ranks. Each cell holds the area
over all pairs / over pairs of like cosine only (bins as in `pairx evaluate`), a missing score counting as the
lowest; with --resamples, the 95 % interval of the latter by animal. Signals that a warehouse lacks are
computed from its rows, and nothing is written.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from numpy.typing import NDArray

from flows.evaluation import settings_of_newest_run
from pairx_engine.evaluation.bootstrap import bootstrap_by_animal
from pairx_engine.evaluation.pairs import LabelledPairs
from pairx_engine.evaluation.separation import auc, auc_at_equal_cosine
from schemas.failures import Failure
from schemas.settings import load_settings
from schemas.tables.signals import SIGNALS
from tasks.evaluation.statistics import equal_cosine
from tasks.job import prepare_job
from tasks.runs.log import RunLog
from tasks.runs.remaining import look
from tasks.stages.signals import plan_signals, signal_rows
from tasks.store.warehouse import Warehouse

STORED = ("n_matches", "match_coverage", "inverted_residual_mean", "n_inliers", "n_local_matches")
NAMES = tuple(f.name for f in SIGNALS.schema if f.name not in ("pair_id", "photo_a", "photo_b", "layer"))
_MISSING = -2.0
"""Lower than any score and any correlation."""


def columns_of(place: str) -> tuple[dict[str, NDArray[np.float64]], list[str], list[str]]:
    """Cosine, stored scores and signals of a warehouse's fairly chosen pairs, and both names of each.

    A missing value is NaN.
    """
    warehouse = Warehouse(place)
    job = prepare_job(warehouse, load_settings(overrides=settings_of_newest_run(warehouse)))
    with look(job, RunLog(job).columns(), keep=("photos", "pairs")) as (connection, left):
        found = connection.execute(
            f"""
            SELECT pair_id, identity_a, identity_b, cosine, {", ".join((*STORED, *NAMES))}
            FROM pairs
            JOIN (FROM scores JOIN current_run USING (layer)) USING (pair_id)
            LEFT JOIN (FROM signals JOIN current_run USING (layer)) AS g USING (pair_id)
            WHERE same_identity IS NOT NULL AND (rank_a IS NOT NULL OR rank_b IS NOT NULL)
            ORDER BY pair_id
            """
        )
        names = [column[0] for column in found.description]
        rows = {row[0]: dict(zip(names, row, strict=True)) for row in found.fetchall()}
        missing = [pair for pair in left.without_signals() if pair.pair_id in rows]
        for shard in plan_signals(missing, left.keypoint_shards()):
            failures: list[Failure] = []
            for row in signal_rows(job, shard, failures):
                if row["layer"] == job.layers[0]:
                    rows[row["pair_id"]] |= {name: row[name] for name in NAMES}
    listed = list(rows.values())
    columns = {
        name: np.array([math.nan if row[name] is None else row[name] for row in listed], dtype=np.float64)
        for name in ("cosine", *STORED, *NAMES)
    }
    return columns, [row["identity_a"] for row in listed], [row["identity_b"] for row in listed]


def main() -> None:
    """Measure every warehouse given and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("warehouse", nargs="+")
    parser.add_argument("--resamples", type=int, default=0)
    chosen = parser.parse_args()
    cells: dict[str, list[str]] = {}
    heads = []
    for place in chosen.warehouse:
        columns, first, second = columns_of(place)
        codes = {name: i for i, name in enumerate(sorted({*first, *second}))}
        a, b = (np.array([codes[name] for name in names], dtype=np.int64) for names in (first, second))
        heads.append(f"{place.rstrip('/').rsplit('/', 1)[-1]} ({(a == b).sum()} + {(a != b).sum()} pairs)")
        for name, values in columns.items():
            pairs = LabelledPairs(columns["cosine"], np.nan_to_num(values, nan=_MISSING), a == b, a, b)
            cells.setdefault(name, []).append(_cell(pairs, chosen.resamples))
    print("| signal | " + " | ".join(heads) + " |")
    print("| --- |" + " --- |" * len(heads))
    for name, row in cells.items():
        print(f"| {name} | " + " | ".join(row) + " |")


def _cell(pairs: LabelledPairs, resamples: int) -> str:
    how = equal_cosine(len(pairs))

    def at_equal_cosine(some: LabelledPairs) -> float:
        return auc_at_equal_cosine(some, how)

    text = f"{auc(pairs.score, pairs.correct):.3f} / {at_equal_cosine(pairs):.3f}"
    if not resamples:
        return text
    interval = bootstrap_by_animal(pairs, {"area": at_equal_cosine}, resamples)["area"]
    return f"{text} ({interval.low:.2f}–{interval.high:.2f})"


if __name__ == "__main__":
    main()
