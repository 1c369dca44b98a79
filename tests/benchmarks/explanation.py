"""How much faster our engine explains than the general zennit path written the published way.

    python -m tests.benchmarks.explanation
    python -m tests.benchmarks.explanation full-mobilenet score-mobilenet --markdown
    python -m tests.benchmarks.explanation --device cuda --json gpu.json

Every way runs in a process of its own, on the same photos and weights. The numbers of the engine are compared
with the published way's, pixel maps included; the exit status is 1 when they differ in exact precision. All
four cases take about a quarter of an hour on two cores. The machine should be quiet: two processes on two
cores spoil both.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import torch

from pairx_engine.relevance.precision import PRECISIONS
from tests.benchmarks.agreement import Pair, compare
from tests.benchmarks.cases import CASES, SHARED, Case, prepare_once
from tests.benchmarks.measuring import all_cores
from tests.benchmarks.published_way import Scored
from tests.benchmarks.side import ENGINE, PUBLISHED, Measured, Request, run_side
from tests.benchmarks.table import EXACT_PRECISION, WANTED_THREADS, Row, as_json, as_markdown, as_text

_COMPARED_PHOTOS = 5
_GRAPHS = {None: (None,), "with": (True,), "without": (False,), "both": (False, True)}


def main() -> int:
    """Run the chosen cases and print the table."""
    chosen = _arguments()
    # A run that is ended prints what it has measured and removes its files, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    titles: dict[str, str] = {}
    rows: list[Row] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="pairx-benchmark-") as temporary:
        prepared: dict[Path, str] = {}
        try:
            for case in (CASES[name] for name in chosen.cases or CASES):
                folder = (chosen.keep or Path(temporary)) / case.network
                if folder not in prepared:
                    _say(f"preparing {case.network} …")
                    prepared[folder] = prepare_once(
                        case.network, folder, chosen.shared, chosen.photos, chosen.size
                    )
                titles[case.name] = f"{_task(case, chosen)}; {prepared[folder]}"
                _measure(case, folder, chosen, rows, failures)
        except KeyboardInterrupt:
            failures.append("interrupted; what would have followed was not measured")
    facts = rows[0].measured.machine if rows else {}
    print("\n".join(f"{'* ' if chosen.markdown else ''}{name}: {fact}" for name, fact in facts.items()))
    if chosen.device == "cpu" and chosen.threads != WANTED_THREADS:
        print(f"The wanted figures are for {WANTED_THREADS} cores.")
    print("\n" + (as_markdown if chosen.markdown else as_text)(titles, rows, chosen.device))
    if chosen.json:
        text = json.dumps(as_json(titles, rows, chosen.device), indent=1)
        chosen.json.write_text(text + "\n", encoding="utf-8")
    print("".join(f"\nFAILED: {failure}" for failure in failures))
    return int(bool(failures) or any(row.wrong(chosen.device) for row in rows))


def _arguments() -> argparse.Namespace:
    own = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("tests.benchmarks.explanation", description=__doc__, formatter_class=own)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default all: {', '.join(CASES)}")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=all_cores(), help="CPU threads (all cores)")
    parser.add_argument("--precisions", default="float32,bfloat16", help="of our engine (float32,bfloat16)")
    parser.add_argument(
        "--published-precision", default="float32", choices=["float32", "tf32"], help="tf32: a GPU's default"
    )
    parser.add_argument(
        "--graphs",
        choices=["with", "without", "both"],
        help="whether our engine replays passes as CUDA graphs; left to the engine by default",
    )
    parser.add_argument("--repeats", type=int, default=3, help="of our engine (3)")
    parser.add_argument("--published-repeats", type=int, help="of the published way (1; 3 on a GPU)")
    parser.add_argument("--published-pairs", type=int, default=2, help="it measures in the score cases (2)")
    parser.add_argument("--maps", type=int, default=10, help="pixel maps a side (10)")
    parser.add_argument("--photos", type=int, default=11, help="of a shard, all against all (11: 55 pairs)")
    parser.add_argument("--size", type=int, help="side of the chips in pixels, to try things out")
    parser.add_argument(
        "--keep", type=Path, help="keep the prepared networks in this folder, and use those that it has"
    )
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with real photos and weights")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    chosen = parser.parse_args()
    chosen.precisions = chosen.precisions.split(",")
    for what, names, known in (("case", chosen.cases, CASES), ("precision", chosen.precisions, PRECISIONS)):
        unknown = [name for name in names if name not in known]
        if unknown:
            parser.error(f"unknown {what} {', '.join(unknown)}; choose from {', '.join(known)}")
    if chosen.device != "cpu" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here")
    if min(chosen.threads, chosen.repeats, chosen.published_pairs, chosen.maps, chosen.photos - 1) < 1:
        parser.error("threads, repeats, pairs and maps must be at least 1, photos at least 2")
    return chosen


def _task(case: Case, chosen: argparse.Namespace) -> str:
    if case.task == "full":
        return f"one pair with {chosen.maps} pixel maps a side"
    pairs = chosen.photos * (chosen.photos - 1) // 2
    return (
        f"without pixel maps, a shard of {pairs} pairs in which each photo has {chosen.photos - 1} partners "
        f"(the published way: {min(chosen.published_pairs, pairs)} of them)"
    )


def _measure(
    case: Case, folder: Path, chosen: argparse.Namespace, rows: list[Row], failures: list[str]
) -> None:
    """Add the published way and our engine in each precision; note what fails and go on with the rest."""
    published: Measured | None = None
    wanted: dict[Pair, Scored] = {}
    for request in _requests(case, folder, chosen):
        _say(f"{case.name}: {request.way}, {request.precision} …")
        try:
            measured = run_side(request)
        except RuntimeError as error:
            failures.append(f"{case.name}: {error}")
            if published is None:
                return
            continue
        agreement = (
            None if published is None else compare(measured.scored, wanted, measured.maps, published.maps)
        )
        published = published or measured
        ratio = published.median / measured.median
        rows.append(
            Row(
                case.name,
                case.task,
                request.way,
                request.precision,
                measured,
                ratio,
                agreement,
                request.graphs,
            )
        )
        _say(f"  {measured.median:.4g} s per pair, {ratio:.2f} × the published way")
        if request.precision == EXACT_PRECISION:
            # More pairs to compare other precisions on than the published way has time for.
            wanted = {**measured.scored, **wanted}
        elif not wanted:
            wanted = dict(measured.scored)


def _requests(case: Case, folder: Path, chosen: argparse.Namespace) -> list[Request]:
    shard = tuple(combinations(range(chosen.photos), 2))
    compared = tuple(combinations(range(min(chosen.photos, _COMPARED_PHOTOS)), 2))
    few, many = (shard[:1], shard[:1]) if case.task == "full" else (shard[: chosen.published_pairs], shard)
    published = Request(
        folder=str(folder),
        out=str(folder / f"{case.name}.published.npz"),
        way=PUBLISHED,
        task=case.task,
        precision=chosen.published_precision,
        device=chosen.device,
        threads=chosen.threads,
        repeats=chosen.published_repeats or (1 if chosen.device == "cpu" else 3),
        n_maps=chosen.maps,
        pairs=few,
    )
    ours = replace(
        published, way=ENGINE, repeats=chosen.repeats, pairs=many, compared=compared, reference=published.out
    )
    return [
        published,
        *(
            replace(ours, precision=name, graphs=graphs, out=str(folder / f"{case.name}.{name}.{graphs}.npz"))
            for name in chosen.precisions
            for graphs in _GRAPHS[chosen.graphs]
        ),
    ]


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
