"""How many pairs a run will bring, from what retrieval finds among photos that are at hand.

Pairs are unordered: two photos that choose each other, or that two rules choose, are one pair. How often that
happens depends on the model and on the photos, so it is counted, not assumed: in the pairs of a warehouse, or
on a first night among a few animals, of which all photos are taken, since near photos are mostly those of one
animal. Of n photos n x (pairs per photo) pairs are called for, and a pair is new where either photo is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from math import comb

import duckdb
import numpy as np
import torch
from numpy.typing import NDArray

from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import Pixels, chip_of, cut_photo, decode_photo
from pairx_engine.retrieval.rules import PhotoKeys
from pairx_engine.retrieval.topk import exact_top_k
from schemas.catalogue.reader import Catalogue, CatalogueEntry
from schemas.settings import Settings
from tasks.job import Job, device, model_of
from tasks.photo_files import read_bytes
from tasks.retrieval.references import reference_photos
from tasks.stages.embed import embed_chips
from tasks.stages.retrieve import pair_rules

SAMPLE, FEWEST = 64, 24
"""Photos that are embedded to see how they pair, and the fewest that tell anything."""
_SECONDS = 20.0
"""About how long embedding the sample may take."""
_CURRENT = "SELECT count(*) FROM pairs WHERE why <> ['reference']"


def pairs_foreseen(
    per_photo: float, entries: Sequence[CatalogueEntry], new: int, references: int, photos: int
) -> int:
    """Pairs that a catalogue of `photos` photos, `new` of them new, calls for and that are not stored yet.

    `per_photo` are the distinct pairs per photo but for references, of which each species has at most
    `references`; those that retrieval finds, too, count once.
    """
    if not photos or not new:
        return 0
    possible = comb(photos, 2)
    retrieved = min(float(possible), per_photo * photos)
    referred = _references(entries, references)
    alone = referred * (1 - retrieved / possible) if possible else 0.0
    return round((retrieved + alone) * share_new(new, photos))


def share_new(new: int, photos: int) -> float:
    """The share of the pairs of `photos` photos that one or two of the `new` ones are in."""
    return 1 - comb(photos - new, 2) / comb(photos, 2) if photos > 1 else 0.0


def _references(entries: Iterable[CatalogueEntry], wanted: int) -> int:
    """Reference pairs of a catalogue: per species `wanted`, or all pairs of two names among so few photos."""
    species: dict[str | None, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        if entry.identity is not None:
            species[entry.species][entry.identity] += 1
    if not wanted:
        return 0
    return sum(min(wanted, _of_two_names(names, reference_photos(wanted))) for names in species.values())


def _of_two_names(names: Counter[str], most: int) -> int:
    total = sum(names.values())
    pairs = comb(total, 2) - sum(comb(count, 2) for count in names.values())
    return pairs if total <= most else int(pairs * comb(most, 2) / comb(total, 2))


def stored_per_photo(connection: duckdb.DuckDBPyConnection, photos: int) -> float | None:
    """Distinct pairs per photo of the `photos` embedded ones that a warehouse holds; None for too few."""
    if photos < FEWEST:
        return None
    (count,) = connection.execute(_CURRENT).fetchone() or (0,)
    return count / photos if count else None


def sampled_per_photo(job: Job, catalogue: Catalogue, seconds_per_photo: float) -> float:
    """Distinct pairs per photo of a few animals of a catalogue, whose photos are read and embedded now.

    Nothing is stored. Where hardly a photo can be read it is what photos that are alike by chance bring.
    """
    affordable = int(_SECONDS / max(seconds_per_photo, 1e-3))
    of_one = job.settings.top_k + job.settings.same_name_k + 1
    chosen = sample(catalogue.entries, min(SAMPLE, max(FEWEST, affordable)), of_one)
    chips: list[Pixels] = []
    read: list[CatalogueEntry] = []
    for entry in chosen:
        try:
            photo = decode_photo(read_bytes(catalogue.root, entry.path), job.settings.max_pixels)
            cut = cut_photo(photo, entry.box_in(photo.shape[1], photo.shape[0]), entry.theta)
        except PhotoError:
            continue
        chips.append(chip_of(cut, model_of(job).chip))
        read.append(entry)
    if len(read) < min(FEWEST, len(chosen)) or len(read) < 2:
        return by_chance(job.settings)
    return per_photo_of(embed_chips(job, chips), keys_of(read), job.settings)


def sample(entries: Iterable[CatalogueEntry], most: int, of_one: int) -> list[CatalogueEntry]:
    """About `most` photos of a catalogue: all of some animals, or `of_one` of those that have more.

    `of_one` should be what a photo may choose among those of its name, and itself: so few animals then look
    like the many.

    Which animals follows from hashes of their names. A photo of no known animal is one of its own.
    """
    animals: dict[str, list[CatalogueEntry]] = defaultdict(list)
    for entry in entries:
        animals[entry.photo_id if entry.identity is None else f"\0{entry.identity}"].append(entry)
    chosen: list[CatalogueEntry] = []
    for name in sorted(animals, key=lambda name: sha256(name.encode()).digest()):
        if len(chosen) >= most:
            break
        chosen += animals[name][:of_one]
    return chosen


def keys_of(entries: Sequence[CatalogueEntry]) -> PhotoKeys:
    """What decides which of these photos may be paired."""
    names = ("identity", "encounter", "species", "viewpoint")
    return PhotoKeys(**{name: _codes([getattr(entry, name) for entry in entries]) for name in names})


def _codes(values: Sequence[str | None]) -> NDArray[np.int32]:
    known = {value: code for code, value in enumerate(sorted({v for v in values if v is not None}))}
    return np.array([-1 if value is None else known[value] for value in values], dtype=np.int32)


def per_photo_of(vectors: NDArray[np.float32], keys: PhotoKeys, settings: Settings) -> float:
    """Distinct pairs per photo that retrieval chooses among these embeddings (N, D)."""
    rows, tensors = np.arange(len(vectors)), torch.from_numpy(vectors)
    rules = {name: (rule, k) for name, (rule, k) in pair_rules(settings).items() if k}
    found = exact_top_k(tensors.to(device()), rows, lambda: iter([(rows, tensors)]), keys, rules)
    return len(_distinct((n.query, n.neighbour) for n in found.values())) / len(vectors)


def _distinct(directed: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Collection[tuple[int, int]]:
    return {
        (min(a, b), max(a, b))
        for query, neighbour in directed
        for a, b in zip(query.tolist(), neighbour.tolist(), strict=True)
    }


def by_chance(settings: Settings) -> float:
    """Distinct pairs per photo where likeness is random and symmetric.

    Then a pair is among the k nearest of both with probability 1 - C(2k, k) / 4^k, given that it is among
    those of one: the least of two Gamma(k) variables has the mean k (1 - C(2k, k) / 4^k).
    """
    k = settings.top_k + max(settings.same_name_k, settings.other_name_k)
    return k * (1 - (1 - comb(2 * k, k) / 4**k) / 2)
