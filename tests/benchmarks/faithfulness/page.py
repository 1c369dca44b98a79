"""The tables of the page of results, written anew between marks; the sentences around them are left alone.

A table stands between `<!-- table NAME -->` and `<!-- end -->`. NAME is that of a case, `summary`, `continuity`,
`shap`, or `fills CASE`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy.stats import spearmanr

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Matching, explanation_named
from pairx_engine.faithfulness.common import WITNESS
from tasks.evaluation.ranking import ABOVE, RANKED_BY
from tasks.pages.evaluation_values import FaithfulnessRow
from tests.benchmarks.faithfulness.cases import CASES
from tests.benchmarks.faithfulness.results import Result, failures, ranked, read_results, seconds_of

COLUMNS = {
    "partner": "partner_correlation",
    "collage": "localisation",
    "shuffled": "randomised_top",
    "all shuffled": "randomised_all",
    "SIMExpert": f"{WITNESS}_correlation",
}
"""Columns of a case's table with plain means, and their measures."""
CONTINUITY = {
    "copy": "continuity_mean",
    "copy, laid over": "continuity_aligned_mean",
    "partner": "partner_continuity_mean",
    "partner, laid over": "partner_continuity_aligned_mean",
}
SUMMARY = (
    *("pairx_published", "pairx_paper", "pairx_conserving", "pairx_cp", "lrp_conserving", "lrp_cp"),
    *("lrp_attnlrp", "relevance_cp", "gradient", "full_grad", "elementwise_cam", "grad_cam", "simexpert"),
    *("activation_intensity", "correspondence", "matches_sift", "centre", "random"),
)
"""Methods of the table on top, in its order."""
_CASES = tuple(case.name for case in CASES)
_MARK = re.compile(r"(<!-- table (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
Found = Mapping[tuple[str, str, bool], FaithfulnessRow]
"""Rows of a ranking by method, measure and whether the pairs are of one name."""


@dataclass(frozen=True)
class Material:
    """What tables are made of: the file of results, and that of the benchmark of Kernel SHAP."""

    results: Path
    shap: Path | None
    count: int

    def rows(self, case: str) -> list[Result]:
        """All that was measured of a case."""
        return read_results(self.results, case)


def write_page(page: Path, material: Material) -> list[str]:
    """Write the marked tables of the page anew and return their names; raises for a name that it does not know.

    A table of which there are no results stays as it is. The summary is made of the cases' tables on the page.
    """
    names: list[str] = []

    def written(text: str, make: Callable[[str], str | None]) -> str:
        def anew(mark: re.Match[str]) -> str:
            if not (table := make(mark["name"])):
                return mark[0]
            names.append(mark["name"])
            return f"{mark[1]}\n{table}\n\n{mark[3]}"

        return _MARK.sub(anew, text)

    text = written(page.read_text(encoding="utf-8"), lambda name: _table(name, material))
    tables = {mark["name"]: mark[0] for mark in _MARK.finditer(text) if mark["name"] in _CASES}
    text = written(text, lambda name: summary_table(tables) if name == "summary" else None)
    page.write_text(text, encoding="utf-8")
    return names


def _table(name: str, material: Material) -> str | None:
    kind, _, of = name.partition(" ")
    if name in _CASES:
        return case_table(material.rows(name), material.count)
    if kind == "fills" and of in _CASES:
        return fills_table(material.rows(of), material.count)
    if name == "continuity":
        return continuity_table({case: material.rows(case) for case in _CASES}, material.count)
    if name == "shap":
        return shap_table(_lines(material.shap)) if material.shap else None
    if name != "summary":
        raise EngineError(
            f"the page has no table {name!r}; mark summary, continuity, shap, one of {', '.join(_CASES)}, or fills with "
            "one of these"
        )
    return None


def case_table(rows: Sequence[Result], count: int) -> str:
    """All methods on a case by their gap on pairs of one name, and why others could not explain."""
    found = _found(rows, count)
    if not found:
        return ""
    table = [
        ["explanation", "gap", "blind", "two animals", *COLUMNS, "s", "pairs"],
        ["---", "---", "---", "---", *["---:"] * (len(COLUMNS) + 2)],
    ]
    for method in _methods(found):
        seen = [found.get((method, RANKED_BY, similar)) for similar in (True, False)]
        table.append(
            [
                f"`{method}`",
                _interval(seen[0]),
                _interval(found.get((method, ABOVE, True))),
                _interval(seen[1]),
                *(_mean(found.get((method, measure, True))) for measure in COLUMNS.values()),
                _number(seconds_of(rows, method)),
                " + ".join(str(each.n_pairs if each else 0) for each in seen),
            ]
        )
    whys: dict[str, list[str]] = {}
    for method, why in failures(rows).items():
        if isinstance(explanation_named(method), Matching):
            # That a matcher's weights were not there says nothing of the network.
            continue
        whys.setdefault(why.splitlines()[0], []).append(f"`{method}`")
    reasons = [f"* {', '.join(who)}: {why}" for why, who in whys.items()]
    return "\n".join([_markdown(table), *(["", *reasons] if reasons else [])])


def summary_table(tables: Mapping[str, str]) -> str:
    """Gaps of chosen methods by case, with the share on the right photo of a collage, as the cases' tables have them.

    Bold where the interval of `blind` is above 0.
    """
    found = {case: _cells(table) for case, table in tables.items()}
    lines = [["gap (collage)", *found], ["---"] * (len(found) + 1)]
    lines += [[f"`{m}`", *(_in_short(of.get(f"`{m}`")) for of in found.values())] for m in SUMMARY]
    return _markdown(lines)


def _cells(table: str) -> dict[str, dict[str, str]]:
    """Cells of a table of Markdown by row and column."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def _in_short(cells: Mapping[str, str] | None) -> str:
    if cells is None:
        return "–"
    gap = cells["gap"].partition(" ")[0]
    low = re.search(r"\[(−?)(\d\.\d+),", cells["blind"])
    sure = low is not None and not low[1] and float(low[2]) > 0
    return f"**{gap}** ({cells['collage']})" if sure else f"{gap} ({cells['collage']})"


def fills_table(rows: Sequence[Result], count: int) -> str:
    """Gaps under every fill and side, and how each of them orders the methods beside the first."""
    several = {row["pair_id"] for row in rows if any(_is_other(name) for name in row["values"])}
    if not several:
        return ""
    found = _found([row for row in rows if row["pair_id"] in several], count)
    first = "noise", 5
    measures = sorted(
        {m for _, m, similar in found if similar and _is_other(m)},
        key=lambda m: (_fill_and_side(m)[0] != first[0], *_fill_and_side(m)),
    )
    methods = [m for m in _methods(found) if all((m, measure, True) in found for measure in measures)]
    columns = [RANKED_BY, *measures]
    heads = [" ".join(map(str, choice)) for choice in (first, *map(_fill_and_side, measures))]
    table = [["gap", *heads, "pairs"], ["---", *["---:"] * (len(heads) + 1)]]
    values = {m: [found[m, column, True] for column in columns] for m in methods}
    for method, cells in values.items():
        table.append([f"`{method}`", *map(_mean, cells), str(cells[0].n_pairs)])
    orders = [[values[m][i].mean for m in methods] for i in range(len(columns))]
    alike = [spearmanr(orders[0], order).statistic if len(methods) > 2 else None for order in orders]
    table.append(["*order beside the first*", *map(_number, alike), ""])
    return _markdown(table)


def _is_other(measure: str) -> bool:
    return measure.startswith(f"{RANKED_BY}_")


def _fill_and_side(measure: str) -> tuple[str, int]:
    _, fill, side = measure.split("_")
    return fill, int(side)


def continuity_table(cases: Mapping[str, Sequence[Result]], count: int) -> str:
    """Differences of maps under small moves, the steadiest beside its partner first."""
    found = {case: _found(rows, count) for case, rows in cases.items()}
    found = {case: of for case, of in found.items() if any(m == "continuity_mean" for _, m, _ in of)}
    if not found:
        return ""
    means: dict[str, list[float | None]] = {}
    for case, of in found.items():
        for method in _methods(of):
            means.setdefault(method, [None] * (len(found) * len(CONTINUITY)))
            for i, measure in enumerate(CONTINUITY.values()):
                row = of.get((method, measure, True))
                means[method][list(found).index(case) * len(CONTINUITY) + i] = row.mean if row else None
    own = {m: cells for m, cells in means.items() if any(cell is not None for cell in cells)}
    steady = list(CONTINUITY).index("partner, laid over")
    heads = [f"{case}: {name}" for case in found for name in CONTINUITY]

    def order(method: str) -> float:
        return fmean(cell for cell in own[method][steady :: len(CONTINUITY)] if cell is not None)

    table = [["explanation", *heads], ["---", *["---:"] * len(heads)]]
    table += [[f"`{method}`", *map(_number, own[method])] for method in sorted(own, key=order)]
    return _markdown(table)


def shap_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Kernel SHAP by segments, samples and fill: agreement of two draws, mean and least, and with leaving one out."""
    fills = list(dict.fromkeys(row["fill"] for row in rows))
    choices = sorted({(row["asked"], row["samples"]) for row in rows})
    by = {(row["asked"], row["samples"], row["fill"]): row for row in rows}
    table = [["segments asked (made)", "samples", *fills, "s"], ["---", *["---:"] * (len(fills) + 2)]]
    for asked, samples in choices:
        own = [by.get((asked, samples, fill)) for fill in fills]
        made = [row["segments"] for row in own if row and "segments" in row]
        seconds = [row["seconds"] for row in own if row and "seconds" in row]
        table.append(
            [
                f"{asked} ({fmean(made):.0f})" if made else str(asked),
                f"{samples:,}",
                *map(_agreement, own),
                f"{fmean(seconds):.1f}" if seconds else "",
            ]
        )
    return _markdown(table)


def _agreement(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    if "refused" in row:
        return "refused"
    return f"{_number(row['r'])}, {_number(row['least_r'])}; {_number(row['one_out'])}"


def _lines(path: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _found(rows: Sequence[Result], count: int) -> Found:
    return {(row.method, row.measure, row.similar): row for row in ranked(rows, count)}


def _methods(found: Iterable[tuple[str, str, bool]]) -> list[str]:
    """Methods that were measured on pairs of one name, in the order of the ranking."""
    return list(dict.fromkeys(method for method, _, similar in found if similar))


def _interval(row: FaithfulnessRow | None) -> str:
    if row is None or row.low is None:
        return _mean(row)
    return f"{_mean(row)} [{_number(row.low)}, {_number(row.high)}]"


def _mean(row: FaithfulnessRow | None) -> str:
    return _number(row.mean if row else None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}".replace("-", "−").replace("−0.00", "0.00")


def _markdown(table: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)
