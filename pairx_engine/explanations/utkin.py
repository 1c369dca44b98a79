"""Utkin's explanation: what of a photo shows how its embedding agrees with the partner's class.

1. The prototype of a class, that is, of a name, is the mean embedding of its photos in the catalogue.
2. The important elements of a photo's embedding are those closest to the same elements of the prototype.
3. An autoencoder whose hidden layer is tied to the embedding shows what these elements stand for: here the
   decoder of `decoders`, which is that autoencoder's second half with the network itself as its first.
4. The important elements are moved at random, many times; the map is the mean size of what that changes.

(Utkin, Kovalev and Kasimov 2019; 4 is of their 2020 paper, whose code and numbers are not published: how
many elements, how far and how often are parameters of ours.)

A pair has no class. The prototype for a photo is the one nearest its partner, by cosine. If that is farther
from the partner than all but a twentieth of the catalogue's photos are from the mean of the others of their
name, the partner is of no known class and stands for its class itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.explanations.decoders import (
    CHANNELS,
    Channels,
    Kind,
    Lessons,
    decoded,
    decoder_of,
    embedded,
    gather,
    recipe_of,
    scaled,
    train_decoder,
)
from pairx_engine.explanations.seam import Explained, NamedChip, State, Subject

UNUSUAL = 0.05
"""Share of the catalogue's photos that are farther from their name's others than a known partner may be."""
_MOVES = 5
"""Keeps these random draws apart from others under the same seed."""
_TINY = 1e-12
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Utkin:
    """The method described above.

    The `share` of the elements that is closest to the prototype is important. They are moved `draws` times by
    normal noise of `step` root mean squares of the catalogue's embeddings about their mean, per element.
    `decoder`, `unit_length`, `channels`, `photos` and `longer_side` are as in `ExplainLfs`.
    """

    name: str = "utkin"
    about: str = "what the elements close to the partner's class show, by a decoder (Utkin 2019)"
    cost: float = 4
    decoder: Kind = "conv"
    share: float = 0.25
    step: float = 1.0
    draws: int = 16
    unit_length: bool = True
    channels: Channels = "mean_of_abs"
    photos: int = 1000
    longer_side: int = 40
    sees_partner: bool = True

    def identity(self) -> Mapping[str, Any]:
        """All of its parameters, and how its decoder learns."""
        told = asdict(self) | {"unusual": UNUSUAL, "recipe": dict(recipe_of(self.decoder))}
        return {name: told[name] for name in told.keys() - {"name", "about", "cost", "sees_partner"}}

    def train(self, subject: Subject, photos: Iterable[NamedChip]) -> State:
        """Train the decoder and take the names' `prototypes` (N, D).

        `usual_cosine` is that which all but `UNUSUAL` of the photos have with the mean of the others of their
        name. Names with one photo have no prototype.
        """
        lessons = gather(subject, photos, self.unit_length, self.longer_side)
        prototypes, usual = prototypes_of(lessons)
        learned = train_decoder(self.decoder, lessons, subject.seed)
        return {**learned, "prototypes": prototypes, "usual_cosine": np.array(usual)}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips.

        `arrays` has the maps at the decoder's size and its reconstructions as those of `ExplainLfs`, the
        `important` elements of both embeddings (2, D) and the `prototype` of either partner, as its number;
        -1 where the partner stood for itself. Raises `EngineError` for a state without a decoder that can be
        used.
        """
        h = [embedded(subject, chip, self.unit_length) for chip in (chip_a, chip_b)]
        decoder = decoder_of(self.decoder, state, self.name, len(h[0]))
        assert state is not None, "the decoder came from it"
        nearest = [nearest_prototype(one, state["prototypes"], float(state["usual_cosine"])) for one in h]
        classes = [one if at < 0 else state["prototypes"][at] for one, at in zip(h, nearest, strict=True)]
        closest = [important(one, other, self.share) for one, other in zip(h, classes[::-1], strict=True)]
        size = self.step * float(state["embedding_spread"])
        # Both photos are moved by the same draws, so that their order does not matter.
        noise = np.random.default_rng([subject.seed, _MOVES]).normal(scale=size, size=(self.draws, len(h[0])))
        before = [
            scaled(CHANNELS[self.channels](decoder.change(one, noise * chosen)).mean(axis=0))
            for one, chosen in zip(h, closest, strict=True)
        ]
        told = {"important": np.stack(closest), "prototype": np.array(nearest[::-1])}
        return decoded((chip_a, chip_b), decoder, h, before, before, told)


def utkin() -> Sequence[Utkin]:
    """The one method."""
    return [Utkin()]


def prototypes_of(lessons: Lessons) -> tuple[Floats, float]:
    """The mean embeddings (N, D) of names with at least two photos, in the order in which these come.

    Also the cosine with the mean of the others of its name that all but `UNUSUAL` of the photos have; 1 where
    no name has two.
    """
    means, cosines = [], []
    for animal in np.unique(lessons.animals[lessons.named]):
        own = lessons.embeddings[lessons.animals == animal]
        if len(own) > 1:
            means.append(own.mean(axis=0))
            others = (own.sum(axis=0) - own) / (len(own) - 1)
            cosines += list(_cosines(own, others))
    if not means:
        return np.zeros((0, lessons.embeddings.shape[-1])), 1.0
    return np.stack(means), float(np.quantile(cosines, UNUSUAL))


def nearest_prototype(embedding: Floats, prototypes: Floats, usual: float) -> int:
    """The number of the prototype (N, D) nearest an embedding (D,); -1 where its cosine is below `usual`."""
    if not len(prototypes):
        return -1
    cosines = _cosines(prototypes, embedding[None])
    best = int(cosines.argmax())
    return best if cosines[best] >= usual else -1


def important(embedding: Floats, prototype: Floats, share: float) -> NDArray[np.bool_]:
    """Which elements (D,) of an embedding are the `share` closest to the prototype's; at least one."""
    distance = np.abs(embedding - prototype)
    chosen = np.zeros(len(distance), dtype=bool)
    chosen[np.argsort(distance, kind="stable")[: max(1, round(share * len(distance)))]] = True
    return chosen


def _cosines(a: Floats, b: Floats) -> Floats:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.maximum(norms, _TINY)
