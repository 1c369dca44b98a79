"""The table of ratios, with the wanted figures beside the measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.agreement import Agreement
from tests.benchmarks.side import ENGINE, Measured
from tests.devices import tolerance

EXACT_PRECISION = "float32"
QUIET = 0.05
"""Share of the cores that other processes may take before a row is marked as disturbed."""
WANTED_THREADS = 2
WANTED_OVERLAP = 0.95
WANTED_ON_CPU = {"full": {True: 6.0, False: 10.0}, "score": {True: 10.0, False: 10.0}}
"""Times faster than the published way on two cores, by task and by whether the precision is exact."""
WANTED_ON_GPU = 50.0
WANTED_MS_ON_GPU = 50.0
WANTED_PAIRS_ON_GPU = 100.0


@dataclass(frozen=True)
class Row:
    """One way of one case, compared with the published way of that case.

    `agreement` is None for the published way itself. `graphs` says whether passes were replayed as CUDA
    graphs; None where the engine decided.
    """

    case: str
    task: str
    way: str
    precision: str
    measured: Measured
    ratio: float
    agreement: Agreement | None
    graphs: bool | None = None

    @property
    def name(self) -> str:
        """The precision, and what was asked of graphs."""
        return self.precision + {None: "", True: " with graphs", False: " without graphs"}[self.graphs]

    def wrong(self, device: str) -> bool:
        """Whether our exact numbers are not the published way's, as far as the device can tell."""
        known = self.agreement is not None and self.precision == EXACT_PRECISION
        return known and not self.agreement.exact(device)


def verdicts(row: Row, device: str) -> list[tuple[str, bool]]:
    """The wanted figures for our engine's row, each with whether it was met."""
    if row.way != ENGINE or row.agreement is None:
        return []
    seconds = row.measured.median
    if device != "cpu":
        figure = (
            (f"≤ {WANTED_MS_ON_GPU:.0f} ms per explanation", seconds * 1e3 <= WANTED_MS_ON_GPU)
            if row.task == "full"
            else (f"≥ {WANTED_PAIRS_ON_GPU:.0f} pairs/s", 1 / seconds >= WANTED_PAIRS_ON_GPU)
        )
        found = [figure, (f"≥ {WANTED_ON_GPU:.0f} ×", row.ratio >= WANTED_ON_GPU)]
    else:
        wanted = WANTED_ON_CPU[row.task][row.precision == EXACT_PRECISION]
        found = [(f"≥ {wanted:.0f} ×", row.ratio >= wanted)]
    if row.precision == EXACT_PRECISION:
        limit = tolerance(device, EXACT_PRECISION)
        matches = "same matches" if limit.ties == 0 else f"top-20 overlap ≥ {limit.top}"
        return [*found, (f"errors ≤ {limit.relevance:.0e}, {matches}", row.agreement.exact(device))]
    return [*found, (f"top-20 overlap ≥ {WANTED_OVERLAP}", row.agreement.top[0] >= WANTED_OVERLAP)]


def as_text(titles: Mapping[str, str], rows: Sequence[Row], device: str) -> str:
    """The table for a terminal: a block per case, two or three lines per way."""
    lines = []
    for case, title in titles.items():
        lines.append(f"\n{case}: {title}")
        for row in (row for row in rows if row.case == case):
            measured = row.measured
            lines.append(
                f"  {row.way:<14}{row.name:<10} {_times(row)}; {row.ratio:.2f} × the published way; "
                f"peak memory {measured.megabytes:.0f} MB over the loaded model; path {measured.path}"
                f"{_disturbed(row)}"
            )
            if row.agreement is not None:
                lines.append(f"    wanted: {_verdicts(row, device)}")
                lines.append(f"    numbers: {_numbers(row.agreement)}")
    return "\n".join(lines)


def as_markdown(titles: Mapping[str, str], rows: Sequence[Row], device: str) -> str:
    """The table for a README."""
    head = ["Case", "Way", "Median (best) per pair", "Ratio", "Wanted", "Peak memory", "Numbers"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += [
        f"| {row.case} | {row.way}, {row.name} | {_duration(row.measured.median)} "
        f"({_duration(row.measured.best)}, {_runs(row)}){_rate(row)}{_disturbed(row)} | {row.ratio:.1f} × | {_verdicts(row, device)} "
        f"| {row.measured.megabytes:.0f} MB | {_numbers(row.agreement) if row.agreement else 'the reference'} |"
        for row in rows
    ]
    return "\n".join([*lines, "", *(f"* `{case}`: {title}" for case, title in titles.items())])


def as_json(titles: Mapping[str, str], rows: Sequence[Row], device: str) -> dict[str, Any]:
    """Everything measured, as plain values; NaN and infinity become null."""
    return {
        "device": device,
        "cases": dict(titles),
        "rows": [
            {
                "case": row.case,
                "way": row.way,
                "precision": row.precision,
                "graphs": row.graphs,
                "path": row.measured.path,
                "seconds_per_pair": list(row.measured.seconds),
                "median": row.measured.median,
                "best": row.measured.best,
                "ratio": row.ratio,
                "peak_megabytes": row.measured.megabytes,
                "others": row.measured.others,
                "machine": dict(row.measured.machine),
                "agreement": None if row.agreement is None else _plain(asdict(row.agreement)),
                "wanted": [{"figure": text, "met": bool(met)} for text, met in verdicts(row, device)],
            }
            for row in rows
        ],
    }


def _times(row: Row) -> str:
    median, best = _duration(row.measured.median), _duration(row.measured.best)
    return f"median {median}, best {best} per pair ({_runs(row)}){_rate(row)}"


def _rate(row: Row) -> str:
    return f", {1 / row.measured.median:.2f} pairs/s" if row.task == "score" else ""


def _runs(row: Row) -> str:
    n = len(row.measured.seconds)
    return f"{n} run{'s' if n > 1 else ''}"


def _disturbed(row: Row) -> str:
    others = row.measured.others
    return f"; DISTURBED: others took {others:.0%} of the cores" if others and others > QUIET else ""


def _duration(seconds: float) -> str:
    if seconds >= 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _verdicts(row: Row, device: str) -> str:
    return "; ".join(f"{text}: {'met' if met else 'MISSED'}" for text, met in verdicts(row, device)) or "–"


def _numbers(agreement: Agreement) -> str:
    parts = [f"relevance off by {agreement.relevance_error:.1e} of its maximum"]
    if agreement.map_error is not None and agreement.pictures is not None:
        parts.append(f"pixel maps by {agreement.map_error:.1e}, r ≥ {agreement.pictures[1]:.5f}")
    parts.append(f"same matches in {agreement.same_matches} of {agreement.pairs}")
    parts.append(f"rank correlation {_pair(agreement.rank)}, top-20 overlap {_pair(agreement.top)}")
    return ", ".join(parts)


def _pair(mean_and_worst: tuple[float, float]) -> str:
    return f"{mean_and_worst[0]:.4f} (worst {mean_and_worst[1]:.4f})"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and not abs(value) < float("inf") else value

    return {name: plain(value) for name, value in values.items()}
