"""Measure every way to explain a pair on real photos.

python -m tests.benchmarks.faithfulness --results FILE [--only cows,dogs/vit] [--method NAME ...] [--pairs 30]
python -m tests.benchmarks.faithfulness --results FILE --shap FILE --page tasks/FAITHFULNESS.md

Results are kept line by line, so that it can be stopped and goes on; what was measured with one fill is not
measured again with three. All pairs for methods that take less than a second for one, a third of them for those
below thirty, a tenth for slower ones. A method that cannot explain a network is listed with its reason. The
second line measures nothing: it writes the tables of the page from the results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pairx_engine.faithfulness import Flipping, Protocol, Translation
from tasks.evaluation.ranking import ABOVE, BEHIND
from tasks.pages.evaluation_values import FaithfulnessRow
from tests.benchmarks.cases import SHARED
from tests.benchmarks.faithfulness.cases import CASES, Case
from tests.benchmarks.faithfulness.page import Material, write_page
from tests.benchmarks.faithfulness.results import Result, failures, ranked, read_results
from tests.benchmarks.faithfulness.running import run

SHOWN = (
    *(
        "gap",
        BEHIND,
        ABOVE,
        "auc_most",
        "partner_correlation",
        "localisation",
        "randomised_top",
        "randomised_all",
    ),
    *("simexpert_correlation", "continuity_mean", "seconds"),
)


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, and print one table per case."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.faithfulness", description=__doc__)
    parser.add_argument("--shared", type=Path, default=SHARED, help="Folder with data/ and models/.")
    parser.add_argument("--results", type=Path, required=True, help="File of results, one a line.")
    parser.add_argument("--page", type=Path, help="Measure nothing, write the marked tables of this page.")
    parser.add_argument("--shap", type=Path, help="File of results of tests.benchmarks.shap, for the page.")
    parser.add_argument(
        "--only", help="Beginnings of cases, separated by commas: " + ", ".join(c.name for c in CASES)
    )
    parser.add_argument("--method", action="append", help="Method; repeatable. Default: all.")
    parser.add_argument("--pairs", type=int, default=30, help="Pairs, half of them of one name.")
    parser.add_argument("--fill", action="append", help="Fill; repeatable. Default: noise.")
    parser.add_argument("--superpixel", type=int, action="append", help="Side; repeatable. Default: 5.")
    parser.add_argument("--steps", type=int, default=10, help="Steps of flipping.")
    parser.add_argument("--continuity", action="store_true", help="Measure continuity, too.")
    parser.add_argument(
        "--tables", action="store_true", help="Measure nothing, print tables of what there is."
    )
    given = parser.parse_args(words)
    chosen = [c for c in CASES if not given.only or c.name.startswith(tuple(given.only.split(",")))]
    if given.page:
        written = write_page(given.page, Material(given.results, given.shap, given.pairs))
        print(f"{given.page}: {', '.join(written)}")
        return 0
    protocol = Protocol(
        tuple(
            Flipping(side, given.steps, fill=fill)
            for fill in given.fill or ["noise"]
            for side in given.superpixel or [5]
        ),
        Translation() if given.continuity else None,
    )
    for case in chosen:
        if not given.tables:
            run(case, given.shared, given.method or [], protocol, given.pairs, given.results)
        print(_report(case, read_results(given.results, case.name), given.pairs), flush=True)
    return 0


def _report(case: Case, rows: Sequence[Result], count: int) -> str:
    """One Markdown table of similar pairs, the most faithful method first, and who failed."""
    found = {(r.method, r.measure): r for r in ranked(rows, count) if r.similar}
    measures = [name for name in SHOWN if any(measure == name for _, measure in found)]
    lines = [
        f"\n## {case.name}\n",
        f"| method | {' | '.join(measures)} | pairs |",
        "|---|" + "---|" * (len(measures) + 1),
    ]
    for method in dict.fromkeys(method for method, _ in found):
        cells = [_cell(found.get((method, name))) for name in measures]
        lines.append(f"| {method} | {' | '.join(cells)} | {found[method, 'gap'].n_pairs} |")
    lines += [f"\n* {method}: {reason}" for method, reason in failures(rows).items()]
    return "\n".join(lines)


def _cell(row: FaithfulnessRow | None) -> str:
    if row is None:
        return ""
    if row.measure not in ("gap", BEHIND, ABOVE) or row.low is None:
        return f"{row.mean:.3f}"
    return f"{row.mean:.3f} [{row.low:.3f}, {row.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
