"""Results of the benchmark: one line of JSON per case, method and pair, added to as more is measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from tasks.evaluation.faithfulness import choose_pairs
from tasks.evaluation.ranking import rank
from tasks.pages.evaluation_values import FaithfulnessRow

Result = dict[str, Any]


def read_results(path: Path, case: str) -> list[Result]:
    """What was measured of a case; the values of one method on one pair together, of however many lines."""
    found: dict[tuple[str, str], Result] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for row in map(json.loads, lines):
        if row["case"] == case:
            key = row["method"], row["pair_id"]
            values = found[key]["values"] | row["values"] if key in found else row["values"]
            found[key] = row | {"values": values}
    return list(found.values())


def ranked(rows: Sequence[Result], count: int) -> list[FaithfulnessRow]:
    """The ranking of results on up to `count` pairs, as `pairx evaluate` makes it."""
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


def seconds_of(rows: Iterable[Mapping[str, Any]], method: str) -> float | None:
    """Median seconds of a method's explanations: the first one prepares what the others find there."""
    found = [row["values"]["seconds"] for row in rows if row["method"] == method and row["values"]]
    return median(found) if found else None


def failures(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Why methods could not explain, by name."""
    return {row["method"]: row["failed"] for row in rows if "failed" in row}
