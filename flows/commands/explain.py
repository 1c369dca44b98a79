"""One pair ad hoc: `pairx explain A B`, without a warehouse, a cluster or a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flows.commands.pictures import box_of, write_file
from flows.notebook import explain
from flows.terminal import PlainConsole
from pairx_engine.explanations import Trained, explanations, needs
from pairx_engine.figure import encode_png

_OUT = PlainConsole()


def explain_photos(
    photos: tuple[Path, Path],
    boxes: tuple[str | None, str | None],
    out: Path,
    arrays: Path | None,
    given: Mapping[str, Any],
    method: str | None = None,
    warehouse: str | None = None,
) -> None:
    """Write the figure of two photos, and its arrays if wanted; print the scores."""
    found = explain(
        *photos, box_a=box_of(boxes[0]), box_b=box_of(boxes[1]), method=method, warehouse=warehouse, **given
    )
    if found.notice:
        _OUT.print(found.notice)
    write_file(out, encode_png(found.figure()), "-o")
    reason = found.local.reason if found.local else None
    _OUT.print(found.line if reason is None else f"{found.line} ({reason.replace('_', ' ')})")
    for remark in found.remarks:
        _OUT.print(remark)
    _OUT.print(f"figure: {out}")
    if arrays is not None:
        arrays.parent.mkdir(parents=True, exist_ok=True)
        with arrays.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **found.arrays)
        _OUT.print(f"arrays: {arrays}")


def print_methods() -> None:
    """Print all ways to explain a pair: name, what it is, cost in forward passes, and remarks."""
    known = explanations()
    width = max(map(len, known)) + 2
    for name, each in known.items():
        remarks = [f"{each.cost:.0f} passes"]
        remarks += ["does not see the partner"] * (not each.sees_partner)
        remarks += ["learns from a catalogue first"] * isinstance(each, Trained)
        remarks += [missing] if (missing := needs(each)) else []
        _OUT.print(f"{name:{width}}{each.about} ({', '.join(remarks)})")
