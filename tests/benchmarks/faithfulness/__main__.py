"""Measure every way to explain a pair on real photos.

python -m tests.benchmarks.faithfulness --results FILE [--only cows,dogs/vit] [--method NAME ...] [--pairs 30]

Results are kept line by line, so that it can be stopped and goes on. Thirty pairs for methods that cost up to
`USUAL_COST` forward passes, ten for dearer ones, three for the dearest. A method that cannot explain a network
is listed with its reason.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pairx_engine.errors import PairxError
from pairx_engine.explanations import State, Subject, Trained, explanation_named, explanations
from pairx_engine.faithfulness import Asked, ChipPair, Flipping, Protocol, Translation, measure
from tasks.evaluation.faithfulness import choose_others, choose_pairs, pairs_of
from tasks.evaluation.ranking import ABOVE, BEHIND, rank
from tasks.pages.evaluation_values import FaithfulnessRow
from tests.benchmarks.cases import SHARED
from tests.benchmarks.faithfulness.cases import CASES, Case, Loaded, load

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
    parser.add_argument(
        "--only", help="Beginnings of cases, separated by commas: " + ", ".join(c.name for c in CASES)
    )
    parser.add_argument("--method", action="append", help="Method; repeatable. Default: all.")
    parser.add_argument("--pairs", type=int, default=30, help="Pairs, half of them of one name.")
    parser.add_argument("--fill", action="append", help="Fill; repeatable. Default: noise.")
    parser.add_argument("--superpixel", type=int, action="append", help="Side; repeatable. Default: 5.")
    parser.add_argument("--steps", type=int, default=20, help="Steps of flipping.")
    parser.add_argument("--continuity", action="store_true", help="Measure continuity, too.")
    parser.add_argument(
        "--tables", action="store_true", help="Measure nothing, print tables of what there is."
    )
    given = parser.parse_args(words)
    chosen = [c for c in CASES if not given.only or c.name.startswith(tuple(given.only.split(",")))]
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
            _measure(
                case, given.shared, given.method or list(explanations()), protocol, given.pairs, given.results
            )
        print(_report(case, _rows(given.results, case), given.pairs), flush=True)
    return 0


def _measure(
    case: Case, shared: Path, methods: Sequence[str], protocol: Protocol, count: int, results: Path
) -> None:
    known = {(row["method"], row["pair_id"]) for row in _rows(results, case)}
    loaded = load(case, shared)
    pairs = choose_pairs(loaded.pairs, count)
    others = choose_others(pairs, loaded.pairs)
    randomised: dict[float, Subject] = {}
    with results.open("a", encoding="utf-8") as file:

        def keep(method: str, pair: Mapping[str, Any], values: Mapping[str, float], **more: Any) -> None:
            row = {"case": case.name, "method": method, **pair, "values": dict(values), **more}
            file.write(json.dumps(row) + "\n")
            file.flush()

        for method in methods:
            own = [
                p for p in choose_pairs(pairs, pairs_of(method, count)) if (method, p["pair_id"]) not in known
            ]
            if not own:
                continue
            begun = time.perf_counter()
            try:
                state = _learned(method, loaded)
                for pair in own:
                    keep(method, pair, _values(loaded, method, pair, others, protocol, state, randomised))
            except PairxError as error:
                keep(method, own[0], {}, failed=str(error))
            print(
                f"{case.name:40} {method:24} {time.perf_counter() - begun:7.1f} s",
                file=sys.stderr,
                flush=True,
            )


def _learned(method: str, loaded: Loaded) -> State | None:
    explanation = explanation_named(method)
    if not isinstance(explanation, Trained):
        return None
    return explanation.train(loaded.subject, loaded.named_chips()[: explanation.photos])


def _values(
    loaded: Loaded,
    method: str,
    pair: Mapping[str, Any],
    others: Mapping[str, Sequence[str]],
    protocol: Protocol,
    state: State | None,
    randomised: dict[float, Subject],
) -> dict[str, float]:
    chips = loaded.chips
    company = tuple(chips[photo] for photo in others[pair["pair_id"]])
    given = ChipPair(
        pair["pair_id"], chips[pair["photo_a"]], chips[pair["photo_b"]], pair["correct"], company
    )
    asked = Asked(loaded.subject, given, method, loaded.values, state, randomised=randomised)
    return {row.measure: row.value for row in measure(asked, protocol) if math.isfinite(row.value)}


def _rows(results: Path, case: Case) -> list[dict[str, Any]]:
    if not results.exists():
        return []
    lines = results.read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["case"] == case.name]


def ranked(rows: Sequence[Mapping[str, Any]], count: int) -> list[FaithfulnessRow]:
    """The ranking of results, as `pairx evaluate` makes it."""
    pairs = choose_pairs({row["pair_id"]: row for row in rows if "failed" not in row}.values(), count)
    measured = [
        {
            "pair_id": row["pair_id"],
            "similar": row["correct"],
            "method": row["method"],
            "measure": name,
            "value": value,
        }
        for row in rows
        for name, value in row["values"].items()
    ]
    return rank(pa.Table.from_pylist(measured), pairs) if measured else []


def _report(case: Case, rows: Sequence[Mapping[str, Any]], count: int) -> str:
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
    lines += [f"\n* {row['method']}: {row['failed']}" for row in rows if "failed" in row]
    return "\n".join(lines)


def _cell(row: FaithfulnessRow | None) -> str:
    if row is None:
        return ""
    if row.measure not in ("gap", BEHIND, ABOVE) or row.low is None:
        return f"{row.mean:.3f}"
    return f"{row.mean:.3f} [{row.low:.3f}, {row.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
