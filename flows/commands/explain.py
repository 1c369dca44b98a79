"""One pair ad hoc: `pairx explain A B`, two files or two photos of a warehouse, without a cluster or a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flows.commands.pictures import box_of, write_file
from flows.commands.start import note
from flows.notebook import explain_given
from flows.terminal import PlainConsole
from flows.two_photos import TwoPhotos, two_photos
from pairx_engine.explained_pair import ExplainedPair
from pairx_engine.explanations import Trained, explanations, needs
from pairx_engine.figure import encode_png
from schemas.settings import EMBEDDED_NOTICE
from tasks.job import prepare_job
from tasks.sql.standing import SCORES, in_words, scored_as, standings, stored_pair
from tasks.store.warehouse import Warehouse

_OUT = PlainConsole()
_CLOSE = 2e-3
"""How far a number may be from the stored one, absolute and relative: embeddings are stored in half precision."""


@dataclass(frozen=True)
class Outputs:
    """What is written: the figure, with or without a panel of local matches; the bare photos; the arrays."""

    figure: Path
    local_matches: bool = False
    plain: Path | None = None
    arrays: Path | None = None


def explain_photos(
    photos: tuple[str, str],
    boxes: tuple[str | None, str | None],
    out: Outputs,
    method: str | None,
    given: Mapping[str, Any],
    warehouse: str | None = None,
) -> None:
    """Write the figure of two photos and what else is wanted; print the scores and what to know of them."""
    pair = two_photos(photos, (box_of(boxes[0]), box_of(boxes[1])), warehouse, given)
    if pair.settings.model == "embedded":
        note(f"{EMBEDDED_NOTICE}\n")
    for text in pair.notes:
        note(text)
    found = explain_given(pair, method)
    if found.notice:
        _OUT.print(found.notice)
    drawn = found.drawn(out.local_matches)
    write_file(out.figure, encode_png(drawn.figure), "-o")
    reason = found.local.reason if found.local else None
    _OUT.print(found.line if reason is None else f"{found.line} ({reason.replace('_', ' ')})")
    for remark in found.remarks:
        _OUT.print(remark)
    if pair.warehouse is not None:
        _print_standing(pair, found, pair.warehouse)
    _OUT.print(f"figure: {out.figure}")
    if out.plain is not None:
        write_file(out.plain, encode_png(drawn.photos), "--plain")
        _OUT.print(f"photos: {out.plain}")
    if out.arrays is not None:
        out.arrays.parent.mkdir(parents=True, exist_ok=True)
        with out.arrays.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **found.arrays)
        _OUT.print(f"arrays: {out.arrays}")


def _print_standing(pair: TwoPhotos, found: ExplainedPair, place: Warehouse) -> None:
    """Say what the warehouse holds of this pair, and how it stands among the warehouse's pairs."""
    if found.scores is None:
        return
    job = prepare_job(place, pair.settings)
    if not scored_as(place, job.prints.scores, job.layers[0]):
        note(
            f"not compared with pairs of {place.url}: its newest run scored them with other settings, another model, or "
            "an earlier version of the program; run again, or leave such options out"
        )
        return
    scores = {name: getattr(found.scores, name, None) for name in SCORES} | {"cosine": found.cosine}
    ids = pair.ids
    stored = stored_pair(place, *ids) if ids else None
    if stored is not None:
        same = {True: "one name", False: "two names", None: "an unknown name"}[stored.same_identity]
        differing = [SCORES[name] for name in scores if not _alike(scores[name], stored.scores[name], name)]
        agree = f"other numbers than stored: {', '.join(differing)}" if differing else "numbers as stored"
        _OUT.print(f"pair {stored.pair_id} of {place.url}, {same}; {agree}")
        scores["probability"] = stored.scores["probability"]
    elif ids:
        _OUT.print(f"{place.url} did not score this pair: it was not among the pairs that its run chose")
    for line in in_words(standings(place, scores, ids or ("", "")), scores):
        _OUT.print(line)


def _alike(ours: float | None, stored: float | None, name: str) -> bool:
    if name == "probability":
        return True
    if ours is None or stored is None:
        return ours is stored
    return abs(ours - stored) <= _CLOSE * max(1.0, abs(stored))


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
