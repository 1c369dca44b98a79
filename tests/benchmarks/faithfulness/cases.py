"""What is measured: catalogues with models, and the pairs, other animals and photos to learn from of each."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pairx_engine.explanations import NamedChip, Subject
from pairx_engine.local.registry import load_local_matcher
from pairx_engine.models import ReIdModel, load_model
from pairx_engine.photo.chips import chip_of
from pairx_engine.photo.value_range import ValueRange
from schemas.catalogue.reader import read_catalogue
from tasks.photo_files import cut_of_file

MOST_PHOTOS = 300
"""Photos of a catalogue that pairs are chosen among: whole animals, drawn by the hash of their names."""
_MAX_PIXELS = 10**8
_AT_ONCE = 16


@dataclass(frozen=True)
class Case:
    """One catalogue seen by one model at one layer; an empty layer is the model's own."""

    data: str
    model: str
    layer: str = ""

    @property
    def name(self) -> str:
        """Catalogue, model and layer."""
        return "/".join(part for part in (self.data, self.model, self.layer) if part)


CASES = (
    Case("cows", "mini_miewid_cows"),
    Case("cows", "mobilenetv2_100_imagenet"),
    Case("cows", "mini_swin_cows"),
    Case("dogs", "mobilenetv2_100_imagenet"),
    Case("dogs", "vit_small_dinov2"),
    Case("faces", "edgeface_xxs"),
    Case("lions", "mobilenetv2_100_imagenet"),
    Case("buildings", "mobilenetv2_100_imagenet"),
)


@dataclass(frozen=True)
class Loaded:
    """A case's photos as normalised chips with names, the pairs to measure, and what explains them."""

    subject: Subject
    values: ValueRange
    chips: Mapping[str, Tensor]
    names: Mapping[str, str]
    files: Mapping[str, Path]
    pairs: Sequence[Mapping[str, Any]]
    embed: Callable[[Tensor], Tensor]

    def named_chips(self) -> list[NamedChip]:
        """All photos to learn from, in the order of their ids."""
        return [NamedChip(self.chips[photo], self.names[photo]) for photo in sorted(self.chips)]


def load(case: Case, shared: Path, n_maps: int = 10) -> Loaded:
    """Everything of a case; raises the model's or the layer's error where it cannot be used."""
    model = load_model(shared / "models" / case.model)
    layer = case.layer or model.layer
    assert layer is not None, f"{case.name}: name a layer"
    values = ValueRange.of(model.chip)
    weights = shared / "models"
    matchers = cache(partial(load_local_matcher, weights=weights))
    # Equal but for rounding; convolutions of many flipped photos take two thirds of the time.
    network = model.network.to(memory_format=torch.channels_last)
    subject = Subject(network, layer, n_maps, values=values, matchers=matchers)
    chips, names, files = _photos(shared / "data" / case.data, model)
    vectors = _vectors(model, [chips[photo] for photo in sorted(chips)])
    embed = _frozen(network, torch.stack(list(chips.values())[:4]))
    return Loaded(subject, values, chips, names, files, _pairs(sorted(chips), names, vectors), embed)


def _frozen(network: nn.Module, chips: Tensor) -> Callable[[Tensor], Tensor]:
    """The network traced, with its norms folded: it embeds many flipped photos in two thirds of the time.

    The network as it is where the traced one does not give the same for other numbers of chips.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            made = torch.jit.freeze(torch.jit.trace(network.eval(), chips))
            found = torch.cat([made(chips[:1]), made(chips[1:])])
        except RuntimeError:
            return network
        wanted = network(chips)
    return (
        made if torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())) else network
    )


def _photos(folder: Path, model: ReIdModel) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Path]]:
    catalogue = read_catalogue(str(folder / "metadata.csv"))
    by_name: dict[str, list[Any]] = {}
    for entry in catalogue.entries:
        if entry.identity is not None:
            by_name.setdefault(entry.identity, []).append(entry)
    chips, names, files = {}, {}, {}
    for name in sorted(by_name, key=_drawn):
        if len(chips) + len(by_name[name]) > MOST_PHOTOS:
            continue
        for entry in by_name[name]:
            files[entry.photo_id] = Path(catalogue.root) / entry.path
            cut = cut_of_file(files[entry.photo_id], entry.box, _MAX_PIXELS)
            chips[entry.photo_id] = model.normalise([chip_of(cut, model.chip)])[0]
            names[entry.photo_id] = name
    return chips, names, files


def _vectors(model: ReIdModel, chips: Sequence[Tensor]) -> NDArray[np.float64]:
    with torch.no_grad():
        parts = [
            model.network(torch.stack(list(chips[at : at + _AT_ONCE]))).double()
            for at in range(0, len(chips), _AT_ONCE)
        ]
    return torch.nn.functional.normalize(torch.cat(parts), dim=1).numpy()


def _pairs(
    photos: Sequence[str], names: Mapping[str, str], vectors: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Of every photo its nearest of the same name and of another: what a model confuses, as `evaluate` lists."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    of = np.array([names[photo] for photo in photos])
    found: dict[str, dict[str, Any]] = {}
    for i, photo in enumerate(photos):
        for correct in (True, False):
            ranked = np.where((of == of[i]) == correct, cosines[i], -np.inf)
            j = int(ranked.argmax())
            if np.isfinite(ranked[j]):
                a, b = sorted((photo, photos[j]))
                key = hashlib.sha256(f"{a} {b}".encode()).hexdigest()
                sides = {"photo_a": a, "photo_b": b, "identity_a": names[a], "identity_b": names[b]}
                found[key] = {"pair_id": key, "correct": correct, **sides}
    return sorted(found.values(), key=lambda pair: pair["pair_id"])


def _drawn(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
