"""Measure the methods of one case that were not measured yet, each on as many pairs as its cost allows."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pairx_engine.errors import PairxError
from pairx_engine.explanations import State, Trained, explanation_named, explanations
from pairx_engine.explanations.pairx import Propagated
from pairx_engine.faithfulness import Asked, ChipPair, Common, Protocol, measure
from pairx_engine.relevance.suitable import suitable_presets
from tasks.evaluation.faithfulness import choose_others, choose_pairs
from tests.benchmarks.faithfulness.cases import Case, Loaded, load
from tests.benchmarks.faithfulness.results import Result, read_results

QUICK, SLOW = 1, 30
"""Seconds of an explanation below which all pairs are measured, and a third of them; else it is a tenth."""

_AT_ONCE = 10
"""Flipped photos that are embedded together: a curve's."""


def run(
    case: Case, shared: Path, methods: Sequence[str], protocol: Protocol, count: int, results: Path
) -> None:
    """Measure up to `count` pairs of a case, the cheapest methods first, and add each result to the file.

    With no `methods` named it is all of them. What failed is not tried again.
    """
    loaded = load(case, shared)
    rows = read_results(results, case.name)
    pairs = choose_pairs(loaded.pairs, count)
    others = choose_others(pairs, loaded.pairs)
    common = Common(loaded.subject, len(pairs), loaded.embed)
    with results.open("a", encoding="utf-8") as file:
        for method in methods or _in_turn(loaded):
            begun = time.process_time()
            for row in _measured(
                loaded, method, _missing(rows, method, pairs, count, protocol), others, protocol, common
            ):
                rows.append({"case": case.name, "method": method, **row})
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
            if (taken := time.process_time() - begun) > 0.1:
                print(f"{case.name:40} {method:24} {taken:7.1f} s", file=sys.stderr, flush=True)


def _in_turn(loaded: Loaded) -> list[str]:
    """All methods, cheap ones first; without presets whose rules for attention say no more than others' here."""
    known, presets = explanations(), {*suitable_presets(loaded.subject.network)}
    if "published" in presets:
        known = {n: e for n, e in known.items() if not isinstance(e, Propagated) or e.preset in presets}
    return sorted(known, key=lambda name: known[name].cost)


def _missing(
    rows: Sequence[Result], method: str, pairs: Sequence[Mapping[str, Any]], count: int, protocol: Protocol
) -> Iterator[Mapping[str, Any]]:
    """The pairs that a method still lacks; how many there are becomes known with the seconds it takes."""
    wanted = {f"gap{protocol.ending(how)}" for how in protocol.flippings}
    if protocol.translation is not None:
        wanted.add("continuity_mean")
    while True:
        own = [row for row in rows if row["method"] == method]
        measured = [row for row in own if row["values"]]
        if own and not measured:
            return
        done: dict[str, set[str]] = {}
        for row in own:
            done.setdefault(row["pair_id"], set()).update(wanted if "failed" in row else row["values"])
        allowed = pairs_within(count, min((row["values"]["seconds"] for row in measured), default=0))
        lacking = (p for p in choose_pairs(pairs, allowed) if not wanted <= done.get(p["pair_id"], set()))
        if (pair := next(lacking, None)) is None:
            return
        yield pair


def pairs_within(count: int, seconds: float) -> int:
    """How many of `count` pairs are measured with a method that takes so many seconds for each."""
    share = 1 if seconds < QUICK else 3 if seconds < SLOW else 10
    return min(count, max(2, -(-count // share)))


def _measured(
    loaded: Loaded,
    method: str,
    pairs: Iterable[Mapping[str, Any]],
    others: Mapping[str, Sequence[str]],
    protocol: Protocol,
    common: Common,
) -> Iterator[Result]:
    state: State | None = None
    explanation = explanation_named(method)
    for pair in pairs:
        try:
            if isinstance(explanation, Trained) and state is None:
                state = explanation.train(loaded.subject, loaded.named_chips()[: explanation.photos])
            yield {**pair, "values": _values(loaded, method, pair, others, protocol, common, state)}
        except PairxError as error:
            yield {**pair, "values": {}, "failed": str(error)}


def _values(
    loaded: Loaded,
    method: str,
    pair: Mapping[str, Any],
    others: Mapping[str, Sequence[str]],
    protocol: Protocol,
    common: Common,
    state: State | None,
) -> dict[str, float]:
    chips = loaded.chips
    company = tuple(chips[photo] for photo in others[pair["pair_id"]])
    given = ChipPair(
        pair["pair_id"], chips[pair["photo_a"]], chips[pair["photo_b"]], pair["correct"], company
    )
    asked = Asked(loaded.subject, given, method, loaded.values, state, _AT_ONCE, common)
    return {row.measure: row.value for row in measure(asked, protocol) if math.isfinite(row.value)}
