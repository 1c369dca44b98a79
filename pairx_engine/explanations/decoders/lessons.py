"""What a decoder learns from: embeddings of chips, small pictures of them, and whose animal each shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pairx_engine.errors import EngineError
from pairx_engine.explanations.seam import NamedChip, Subject
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.precision import FULL, tensor_cores
from pairx_engine.relevance.starts import SMALLEST_NORM

HELD_OUT, CHOOSING = 0.2, 0.16
"""Shares of the photos that a decoder is judged on, and that choose its penalty or its epoch."""
_SPLIT = 3
"""Keeps these random draws apart from others under the same seed."""


@dataclass(frozen=True)
class Lessons:
    """Photos to learn from.

    `embeddings` (n, D) and `pictures` (n, 3, h, w), from 0 for black to 1 for white, are in float64.
    `animals` (n,) numbers the animals in the order in which they come; a photo without a name has a number of
    its own. `named` (n,) says which photos have a name. `mirrored` are embeddings and pictures of the same
    photos, mirrored left to right: to learn from, and for nothing else.
    """

    embeddings: NDArray[np.float64]
    pictures: NDArray[np.float64]
    animals: NDArray[np.int64]
    named: NDArray[np.bool_]
    mirrored: tuple[NDArray[np.float64], NDArray[np.float64]]

    def both_ways(self, photos: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Embeddings and pictures of these photos, by number, and then of their mirror images."""
        given = ((self.embeddings, self.mirrored[0]), (self.pictures, self.mirrored[1]))
        x, y = (np.concatenate([straight[photos], turned[photos]]) for straight, turned in given)
        return x, y

    @property
    def n_animals(self) -> int:
        """How many animals there are, as far as names tell."""
        return len(np.unique(self.animals))


@dataclass(frozen=True)
class Parts:
    """Photos, by number, to fit a decoder to, to choose by, and to judge it on; they share no animal."""

    fit: NDArray[np.int64]
    choose: NDArray[np.int64]
    held_out: NDArray[np.int64]

    @property
    def seen(self) -> NDArray[np.int64]:
        """All that are not held out, in their order."""
        return np.sort(np.concatenate([self.fit, self.choose]))


def embedded(subject: Subject, chip: Tensor, unit_length: bool) -> NDArray[np.float64]:
    """The embedding (D,) of a normalised chip (3, H, W), in float64; scaled to length 1 if asked."""
    with exclusive(subject.network), tensor_cores(FULL), torch.no_grad():
        embedding = subject.network(chip[None])[0].double().cpu()
    if unit_length:
        embedding = embedding / embedding.norm().clamp(min=SMALLEST_NORM)
    return np.asarray(embedding.numpy())


def picture_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """Height and width of the small picture of a chip.

    Its longer side is `longer_side`, or the chip's own where that is shorter. The other side is in
    proportion, rounded.
    """
    longest = max(height, width)
    scale = min(longer_side, longest) / longest
    return max(1, round(height * scale)), max(1, round(width * scale))


def small_picture(subject: Subject, chip: Tensor, longer_side: int) -> NDArray[np.float64]:
    """A chip's picture (3, h, w) from 0 for black to 1 for white, made small with antialiasing.

    Raises `EngineError` where the subject does not say what its chips' values mean.
    """
    if subject.values is None:
        raise EngineError(
            "a decoder learns pictures, and nothing says which values of a chip are black and white",
            "give the subject the `values` of its chips: ValueRange.of(model.chip)",
        )
    picture = functional.interpolate(
        subject.values.brightness(chip)[None],
        picture_size(chip.shape[-2], chip.shape[-1], longer_side),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    return np.asarray(picture[0].clamp(0, 1).numpy())


def gather(subject: Subject, photos: Iterable[NamedChip], unit_length: bool, longer_side: int) -> Lessons:
    """Embed photos and their mirror images, one at a time, and make their pictures small.

    Photos with an embedding that is not finite are left out. Chips are taken to have one size.
    """
    embeddings, pictures, animals, named = [], [], [], []
    numbers: dict[object, int] = {}
    for at, photo in enumerate(photos):
        ways = (photo.chip, photo.chip.flip(-1))
        embedding = np.stack([embedded(subject, chip, unit_length) for chip in ways])
        picture = np.stack([small_picture(subject, chip, longer_side) for chip in ways])
        if not (np.isfinite(embedding).all() and np.isfinite(picture).all()):
            continue
        embeddings.append(embedding)
        pictures.append(picture)
        # A tuple is no name, so that a photo without one is never taken for another's animal.
        animals.append(numbers.setdefault((at,) if photo.name is None else photo.name, len(numbers)))
        named.append(photo.name is not None)
    x = np.stack(embeddings) if embeddings else np.zeros((0, 2, 0))
    y = np.stack(pictures) if pictures else np.zeros((0, 2, 3, 0, 0))
    return Lessons(
        x[:, 0],
        y[:, 0],
        np.array(animals, dtype=np.int64),
        np.array(named, dtype=bool),
        (x[:, 1], y[:, 1]),
    )


def parts_of(animals: NDArray[np.int64], seed: int) -> Parts:
    """Deal whole animals (n,) out at random: about `HELD_OUT` and `CHOOSING` of the photos, the rest to fit.

    An animal with more photos than a part still wants is passed over; where all have, the part gets the
    smallest. No part but the rest gets more than a third of the animals. Needs three animals or more.
    """
    names, counts = np.unique(animals, return_counts=True)
    order = list(np.random.default_rng([seed, _SPLIT]).permutation(len(names)))
    dealt = []
    for share in (HELD_OUT, CHOOSING):
        wanted = share * len(animals)
        taken: list[int] = []
        for at in order:
            if counts[at] <= wanted and len(taken) < len(names) // 3:
                taken.append(at)
                wanted -= counts[at]
        taken = taken or [min(order, key=lambda at: counts[at])]
        order = [at for at in order if at not in taken]
        dealt.append(np.flatnonzero(np.isin(animals, names[taken])))
    return Parts(np.flatnonzero(np.isin(animals, names[order])), dealt[1], dealt[0])
