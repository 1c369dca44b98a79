"""The check's table: every figure of every part, with what is wanted of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.gpu.findings import Figure, Findings, plain


def summary_line(number: int, name: str, findings: Findings, seconds: float) -> str:
    """A part in a line."""
    aims = [f for f in findings.figures if f.aim and f.met is not None]
    told = f"; aims met: {sum(bool(f.met) for f in aims)} of {len(aims)}" if aims else ""
    notes = f"; {'; '.join(findings.notes)}" if findings.notes else ""
    return f"{number} {name}: {findings.state}, {seconds:.0f} s, {len(findings.figures)} figures{told}{notes}"


def as_markdown(about: Mapping[str, Any], parts: Mapping[str, tuple[Findings, float]]) -> str:
    """The whole check."""
    lines = [f"* {name}: {value}" for name, value in about.items()]
    lines += ["", "| Part | Figure | Measured | Wanted |", "| --- | --- | --- | --- |"]
    for name, (findings, seconds) in parts.items():
        told = "; ".join([f"{findings.state}, {seconds:.0f} s", *findings.notes]).replace("|", "/")
        lines.append(f"| **{name}** | | {told} | |")
        lines += [f"| | {f.what} | {value_text(f)} | {wanted_text(f)} |" for f in findings.figures]
    return "\n".join(lines)


def as_json(about: Mapping[str, Any], parts: Mapping[str, tuple[Findings, float]]) -> dict[str, Any]:
    """The whole check as plain values."""
    return {
        "about": dict(about),
        "parts": {
            name: {
                "state": findings.state,
                "seconds": round(seconds, 1),
                "notes": findings.notes,
                "figures": [plain(vars(f)) for f in findings.figures],
                "details": plain(findings.details),
            }
            for name, (findings, seconds) in parts.items()
        },
    }


def value_text(figure: Figure) -> str:
    """A figure as a reader wants it: three digits and its unit."""
    value = figure.value
    if value is None:
        return "none"
    if isinstance(value, float):
        value = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value} {figure.unit}".strip()


def wanted_text(figure: Figure) -> str:
    """What is wanted and whether it is so."""
    if figure.met is None:
        return f"{figure.wanted} (not judged here)" if figure.aim else figure.wanted
    return f"{figure.wanted}: {'met' if figure.met else 'MISSED' if figure.aim else 'WRONG'}"
