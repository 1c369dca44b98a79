"""Judge: for every pair the probability that it shows one animal, for every name that it is wrong.

There is one judgement per state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from pairx_engine.judgement import names as by_names
from pairx_engine.judgement.any_pair import AnyPair
from pairx_engine.judgement.candidates import candidates
from pairx_engine.judgement.inputs import UNKNOWN, codes_of
from pairx_engine.judgement.judge import Judged, judge_evidence
from pairx_engine.judgement.one_row import PhotoSuspect, Settled, settle
from pairx_engine.judgement.pair_model import LEVEL, TERMS
from pairx_engine.judgement.partition import Split, described_splits, judge_splits
from pairx_engine.judgement.population import Population, population
from pairx_engine.judgement.sets import NamedPhotos as PhotosOfNames
from schemas.stages import JUDGE
from tasks.gallery import Gallery
from tasks.job import Job
from tasks.runs.remaining import Remaining
from tasks.shards import commit
from tasks.stages.judge_evidence import CatalogueEvidence, evidence_of
from tasks.store.warehouse import pair_id, shard_name
from tasks.vectors import vectors_of

_FEWEST_NAMES = 2
_LISTED_NAMES = 0.01
"""Probability from which pairs of names, and names that may be two animals, are kept."""
_MOST_LISTED = 2000
_MISNAMED = 0.5
KEPT = ("photos", "pairs", "pair_scores", "signals", "copies", "reviews")
READ = (*KEPT, "neighbours", "judged_signals")
"""`READ` are the views that are read here, `KEPT` those of them that several questions use."""
Rows = list[dict[str, Any]]


def judge(job: Job, connection: duckdb.DuckDBPyConnection, state: str) -> int:
    """Judge the catalogue state that the views show and store it; returns the number of photos judged.

    `state` names the catalogue's state. A judgement is a function of the state and the evidence, so the
    same evidence writes the same shard, and only once.
    """
    gallery = Remaining(connection, job, False).gallery()
    # Each of these counts only grows. So of two judgements of a state the later one has the greater sum, also
    # when a verdict was changed or taken back.
    pieces = connection.execute(
        """SELECT (SELECT count(*) FROM pair_scores), (SELECT count(*) FROM signals), (SELECT count(*) FROM copies),
            (SELECT count(DISTINCT review_id) FROM all_reviews)"""
    ).fetchall()[0]
    basis = sum(pieces)
    digest = connection.execute(
        """SELECT coalesce(string_agg(kind || verdict || photo_a || coalesce(photo_b, ''), '|' ORDER BY kind, photo_a, photo_b), '')
        FROM reviews WHERE applies"""
    ).fetchall()[0][0]
    name = shard_name([state, *map(str, pieces), digest])
    if not job.warehouse.exists(JUDGE.tables[-1], job.prints.judgements, name):
        evidence = evidence_of(connection, gallery)
        vectors = vectors_of(job, gallery, np.arange(len(gallery.photo_ids)))
        judged = judge_evidence(evidence.photos, evidence.pairs, vectors)
        tables = _tables(evidence, judged, vectors)
        key = {"state": state, "basis": basis}
        commit(job, JUDGE, name, {table: _keyed(rows, key) for table, rows in tables.items()})
    return len(gallery.photo_ids)


def _keyed(rows: Rows | pa.Table, key: Mapping[str, Any]) -> Rows | pa.Table:
    if isinstance(rows, list):
        return [{**key, **row} for row in rows]
    for place, (column, value) in enumerate(key.items()):
        rows = rows.add_column(place, column, [[value] * rows.num_rows])
    return rows


def _tables(
    evidence: CatalogueEvidence, judged: Judged, vectors: NDArray[np.floating]
) -> dict[str, Rows | pa.Table]:
    """All tables of one judgement, in the order of the stage."""
    gallery = evidence.gallery
    spelled = sorted({n for n in gallery.names if n is not None})
    settled, animals = _names(evidence, judged, vectors, len(spelled))
    return {
        "judges": _judges(
            judged, sorted({s for s in gallery.photos["species"].to_pylist() if s is not None})
        ),
        "reliability": [
            {"bin": i, "pairs": b.pairs, "stated": b.stated, "found": b.found}
            for i, b in enumerate(judged.reliability.bins, start=1)
        ],
        "judged_catalogues": [_catalogue(gallery, judged, animals, len(spelled))],
        "judged_names": _name_rows(settled, gallery, spelled),
        "judged_photos": _photo_rows(evidence, judged, settled, spelled),
        "candidates": _candidates(evidence, judged, spelled),
        "judgements": _pair_rows(evidence, judged),
    }


def _names(
    evidence: CatalogueEvidence, judged: Judged, vectors: NDArray[np.floating], n_names: int
) -> tuple[Settled, Population | None]:
    """Pairs of names, names that may be two animals, and the number of animals.

    They leave out what suspected photos already say.
    """
    gallery, photos = evidence.gallery, judged.photos
    suspects = [
        PhotoSuspect(
            int(i),
            int(evidence.photos.names[i]),
            None if photos.proposed[i] == UNKNOWN else int(photos.proposed[i]),
            float(photos.probability[i]),
        )
        for i in np.flatnonzero(evidence.photos.known & ~photos.undefended)
    ]
    if n_names < _FEWEST_NAMES:
        return Settled(tuple(suspects), (), ()), None
    any_pair = AnyPair(evidence.photos, evidence.pairs, judged.pairs, vectors)
    keys = gallery.keys
    seen = PhotosOfNames(
        _without_misnamed(evidence, judged),
        evidence.photos.species,
        keys.encounter.astype(np.int64),
        codes_of(gallery.photos["viewpoint"].to_pylist()),
        vectors,
        any_pair,
    )
    pairs = by_names.judge_name_pairs(seen)
    splits = judge_splits(seen, pairs)
    cuts = described_splits(seen, splits, _LISTED_NAMES, _MOST_LISTED)
    sizes = dict(enumerate(np.bincount(evidence.photos.names[evidence.photos.known]).tolist()))
    merges = by_names.described(seen, pairs, _LISTED_NAMES, _MOST_LISTED)
    return settle(suspects, merges, cuts, sizes), population(seen, pairs, splits)


def _without_misnamed(evidence: CatalogueEvidence, judged: Judged) -> NDArray[np.int64]:
    """Codes of names (N,), unknown for photos that are likely another known animal's.

    Such photos are suspects themselves and tell nothing of the name that they bear. Where they are most
    of a name's photos, the name itself is the suspect and keeps them.
    """
    names, photos = evidence.photos.names, judged.photos
    misnamed = evidence.photos.known & (photos.probability >= _MISNAMED) & (photos.proposed != UNKNOWN)
    sizes, away = (
        np.bincount(names[rows], minlength=evidence.photos.n_names)
        for rows in (evidence.photos.known, misnamed)
    )
    return np.where(misnamed & (2 * away[names] <= sizes[names]), UNKNOWN, names)


def _judges(judged: Judged, species: Sequence[str]) -> Rows:
    """The numbers of the model."""
    empty = {"fold_a": None, "fold_b": None, "species": None}
    weights = [
        {
            "part": "weight",
            "fold_a": fold_a,
            "fold_b": fold_b,
            "species": None if of == UNKNOWN else species[of],
            "term": term,
            "value": float(value),
        }
        for (fold_a, fold_b, of), found in sorted(judged.pairs.learned.items())
        for term, value in zip(TERMS, found, strict=True)
    ]
    trust = [
        {**empty, "part": "trust", "term": term, "value": value} for term, value in judged.pairs.trust.items()
    ]
    levels = zip(("shift", "slope"), judged.pairs.level, strict=True)
    noise = judged.photos.noise
    names = {
        "temperature": float(np.exp(noise.log_t)),
        "size": noise.size,
        "share_wrong": noise.share_wrong,
        "novelty": noise.novelty,
        "floor": noise.floor,
    }
    return [
        *weights,
        *trust,
        *({**empty, "part": LEVEL, "term": term, "value": value} for term, value in levels),
        *({**empty, "part": "names", "term": term, "value": value} for term, value in names.items()),
    ]


def _catalogue(gallery: Gallery, judged: Judged, animals: Population | None, names: int) -> dict[str, Any]:
    errors, reliable = judged.errors, judged.reliability
    return {
        "photos": len(gallery.photo_ids),
        "names": names,
        "wrong_names": errors.expected,
        "wrong_names_low": errors.low,
        "wrong_names_high": errors.high,
        "sensitivity": _known(errors.sensitivity),
        "animals": None if animals is None else animals.estimate,
        "animals_low": None if animals is None else float(animals.low),
        "animals_high": None if animals is None else float(animals.high),
        "calibration_error": _known(reliable.error),
        "brier": _known(reliable.brier),
        "brier_cosine": _known(reliable.brier_cosine),
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _name_rows(settled: Settled, gallery: Gallery, spelled: Sequence[str]) -> Rows:
    ids = gallery.photo_ids
    of_name: dict[int, list[str]] = {}
    for photo, name in zip(ids, gallery.keys.identity.tolist(), strict=True):
        of_name.setdefault(name, []).append(photo)
    merges = [
        {
            "kind": "two_names_one_animal",
            "name_a": spelled[pair.name_a],
            "name_b": spelled[pair.name_b],
            "photos_a": of_name[pair.name_a],
            "photos_b": of_name[pair.name_b],
            **_what_names_say(pair, gallery),
        }
        for pair in settled.pairs
    ]
    splits = [
        {
            "kind": "one_name_two_animals",
            "name_a": spelled[split.name],
            "name_b": "" if owner is None else spelled[owner],
            "photos_a": [ids[i] for i in split.side_a],
            "photos_b": [ids[i] for i in split.side_b],
            **_what_names_say(split, gallery),
        }
        for split, owner in settled.splits
    ]
    return [*merges, *splits]


def _what_names_say(found: by_names.NamePair | Split, gallery: Gallery) -> dict[str, Any]:
    """The columns that rows of both kinds share."""
    ids, chips = gallery.photo_ids, gallery.chip_ids
    return {
        "log_odds": found.log_odds,
        "probability": found.probability,
        "pairs": found.n_pairs,
        "supporting_photos_a": [ids[a] for a, _ in found.supporting],
        "supporting_photos_b": [ids[b] for _, b in found.supporting],
        "supporting_pairs": [pair_id(ids[a], chips[a], ids[b], chips[b]) for a, b in found.supporting],
    }


def _photo_rows(
    evidence: CatalogueEvidence, judged: Judged, settled: Settled, spelled: Sequence[str]
) -> Rows:
    photos, gallery = judged.photos, evidence.gallery
    kept = {s.photo for s in settled.photos}
    rows = []
    for i, (photo, name) in enumerate(zip(gallery.photo_ids, gallery.names, strict=True)):
        known = name is not None
        proposed = int(photos.proposed[i])
        rows.append(
            {
                "photo_id": photo,
                "identity": name,
                "log_odds": float(photos.log_odds[i]) if known else None,
                "probability": float(photos.probability[i]) if known else None,
                "proposed_name": None if proposed == UNKNOWN else spelled[proposed],
                "proposed_share": float(photos.share[i]),
                "own_voice": _known(photos.own[i]),
                "rival_voice": _known(photos.rival[i]),
                "undefended": bool(photos.undefended[i]),
                "told_by": "names" if known and not photos.undefended[i] and i not in kept else "",
            }
        )
    return rows


def _candidates(evidence: CatalogueEvidence, judged: Judged, spelled: Sequence[str]) -> Rows:
    ids = evidence.gallery.photo_ids
    return [
        {
            "photo_id": ids[c.photo],
            "rank": c.rank,
            "name": None if c.name == UNKNOWN else spelled[c.name],
            "probability": c.probability,
        }
        for c in candidates(evidence.photos, judged.heard, judged.photos.noise)
    ]


def _pair_rows(evidence: CatalogueEvidence, judged: Judged) -> pa.Table:
    """Rows of scored pairs only; other pairs serve names, and anybody who asks can find them again."""
    rows = np.flatnonzero(evidence.scored)
    ids = np.array(evidence.gallery.photo_ids, dtype=object)
    odds = judged.pairs.log_odds[rows]
    added = judged.pairs.added[rows]
    width = added.shape[1]
    edges = pa.array(np.arange(0, width * len(rows) + 1, width), pa.int32())
    return pa.table(
        {
            "pair_id": evidence.pair_ids.take(pa.array(rows)),
            "photo_a": pa.array(ids[evidence.pairs.first[rows]], pa.string()),
            "photo_b": pa.array(ids[evidence.pairs.second[rows]], pa.string()),
            "log_odds": odds,
            "probability": expit(odds),
            "terms": pa.array([list(judged.pairs.terms)] * len(rows), pa.list_(pa.string())),
            "added": pa.ListArray.from_arrays(edges, pa.array(added.ravel())),
        }
    )
