"""Catalogues and models measured by default, and how the evidence of one is collected and judged."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tasks.offers  # noqa: F401  # what settings may name
from flows.demo.catalogue import Planting, write_drawn_catalogue
from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.settings import load_settings
from tasks.job import Job
from tasks.pairs import Pair
from tests.benchmarks.suspects.assess import Measured, assess
from tests.benchmarks.suspects.copies import Extra, planted_bursts, planted_copies, source_of, write_extras
from tests.benchmarks.suspects.judged import judge
from tests.benchmarks.suspects.photos import words
from tests.benchmarks.suspects.states import BURSTS, COPIES, RETRIEVAL, RETRIEVED, Plan, State, states
from tests.benchmarks.suspects.store import Evidence, PhotoRow, finish, retrieve, score, unfinished
from tests.benchmarks.suspects.table import Row

MINI, MOBILE = "mini_miewid_cows", "mobilenetv2_100_imagenet"
_PLANTED = {COPIES: planted_copies, BURSTS: planted_bursts}
_CLEAN = Planting(wrong_name_share=0.0, unknown_share=0.05, copies=0, duplicates=0, broken=0)


@dataclass(frozen=True)
class BenchSet:
    """One catalogue with one choice of settings.

    `folder` holds its evidence. Sets with one folder share the evidence that is the same for both.
    """

    label: str
    folder: str
    metadata: Path
    root: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def known_sets(shared: Path, work: Path) -> dict[str, BenchSet]:
    """Every default set by its label.

    The drawn catalogue comes with the embedded model, each real one with both models.
    """
    found = [BenchSet("drawn", "drawn", work / "drawn-catalogue" / "metadata.csv")]
    for name in ("cows", "lions", "dogs"):
        for label, model in (("mini", MINI), ("mobile", MOBILE)):
            metadata, settings = (
                shared / "data" / name / "metadata.csv",
                {"model": str(shared / "models" / model)},
            )
            found.append(BenchSet(f"{name}-{label}", f"{name}-{label}", metadata, None, settings))
    return {one.label: one for one in found}


def variants(shared: Path) -> dict[str, dict[str, Any]]:
    """Other matchers and presets by a word for the label."""
    return {
        "paper": {"preset": "paper"},
        "conserving": {"preset": "conserving"},
        "xfeat": {"matcher": "xfeat+lighterglue", "matcher_weights": str(shared / "models")},
    }


def variant_of(one: BenchSet, word: str, shared: Path) -> BenchSet:
    """A set with another matcher or preset; photos and embeddings are those of the set."""
    return replace(one, label=f"{one.label}, {word}", settings={**one.settings, **variants(shared)[word]})


def prepare_drawn(one: BenchSet) -> None:
    """Draw the catalogue of the set `drawn` unless it is there.

    It has unknown animals, but no planted errors.
    """
    if one.label.startswith("drawn") and not one.metadata.exists():
        write_drawn_catalogue(one.metadata.parent, 0, planting=_CLEAN)


def run_set(
    one: BenchSet, plan: Plan, work: Path, pool: Executor, say: Callable[[str], None]
) -> Iterator[Row]:
    """All rows of one set: plant, collect what evidence is missing, judge every state and measure it."""
    prepare_drawn(one)
    overrides = {"figures": 0, **one.settings}
    evidence = Evidence.open(work / one.folder, load_settings(overrides=overrides))
    wide = Evidence.open(work / one.folder, load_settings(overrides=overrides | {"top_k": RETRIEVED}))
    catalogue = read_catalogue(str(one.metadata), one.root)
    rows = evidence.take_in([catalogue], pool)
    extras = _extras(one, plan, evidence, catalogue, rows)
    if extras:
        rows = evidence.take_in(map(read_catalogue, sorted({str(path) for path, _ in extras.values()})), pool)
    planned = list(states_of(one, plan, catalogue, rows, {key: found for key, (_, found) in extras.items()}))
    jobs = [
        (wide if s.kind == RETRIEVAL else evidence).state(state_folder(one, s), rows, s.names)
        for s in planned
    ]
    say(f"{one.label}: {len(planned)} states of {len(rows)} photos; finding their pairs …")
    found = list(pool.map(retrieve, jobs))
    missing: list[Pair] = [pair for _, pairs in found for pair in pairs]
    score(evidence.job, missing, pool, lambda text: say(f"{one.label}: {text}"))
    hashes = [hashed for hashed, _ in found]
    finish(evidence.job, list(pool.map(unfinished, jobs, hashes)), pool)
    say(f"{one.label}: judging …")
    for s, measured in zip(planned, pool.map(_assessed, planned, jobs, hashes), strict=True):
        label = f"{one.label}: {s.kind}"
        yield from (Row(label, s.share, s.seed, *row) for row in measured)
        evidence.drop(state_folder(one, s))


def _assessed(state: State, job: Job, hashed: str) -> list[Measured]:
    return assess(state, judge(job, hashed))


def state_folder(one: BenchSet, state: State) -> str:
    """The state's name in letters and digits that a shard's name may have."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in f"{one.label}-{state.name}".lower())


def _extras(
    one: BenchSet, plan: Plan, evidence: Evidence, catalogue: Catalogue, rows: Mapping[str, PhotoRow]
) -> dict[tuple[str, int], tuple[Path, list[Extra]]]:
    """Write planted files; returns their catalogue and what they are, by kind and seed."""
    found = {}
    listed = {entry.photo_id: entry.identity for entry in catalogue.entries}
    sources = [source_of(row, name) for photo, row in rows.items() if (name := listed.get(photo))]
    for kind in (k for k in _PLANTED if k in plan.kinds):
        for seed in plan.seeds:
            extras = _PLANTED[kind](sources, seed)
            folder = evidence.folder / "planted" / f"{kind}-{seed}"
            found[kind, seed] = (write_extras(folder, extras, evidence.job.settings.max_pixels), extras)
    return found


def states_of(
    one: BenchSet,
    plan: Plan,
    catalogue: Catalogue,
    rows: Mapping[str, PhotoRow],
    extras: Mapping[tuple[str, int], list[Extra]],
) -> Iterator[State]:
    entries = {entry.photo_id: entry for entry in catalogue.entries}
    with one.metadata.open(newline="", encoding="utf-8") as file:
        # Names are drawn in the file's own order, before photos that cannot be embedded are left out.
        order = [row["image_id"] for row in csv.DictReader(file)]
    chosen = [entries[photo] for photo in order]
    trusted, species, encounters = (
        words([getattr(e, name) for e in chosen]) for name in ("identity", "species", "encounter")
    )
    for state in states(plan, order, trusted, species, encounters, extras):
        yield replace(state, names={photo: name for photo, name in state.names.items() if photo in rows})
