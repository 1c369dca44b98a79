"""ExplainLFS: the pair's embedding is changed where it counts, and a decoder shows what that changes.

With h1, h2 the embeddings (D,) of the photos, `scaled` the map of an array onto 0 to 1 by its least and
largest value, and D a decoder that was trained on a catalogue (Eq. 1: squared error of its pictures):

1. d = scaled(|h1 - h2|); the relevance is R = 1 - d if the photos are similar, sim > xi1, and d if not;
2. the map of a photo is scaled(|D(h + p R) - D(h)|); of it is drawn what is at least xi2.

p = 0.3, xi1 = 0.3 and xi2 = 0.7 are the source's, for a face network whose embeddings have length 1. What the
source leaves open are fields of `ExplainLfs`.

With a linear decoder D(h + p R) - D(h) is p W'R: it depends neither on the photo nor, once scaled, on p. As R
is of the pair, both photos get one and the same map, which is stretched to either chip. It does depend on the
partner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.explanations.decoders import (
    CHANNELS,
    Channels,
    Kind,
    decoded,
    decoder_of,
    embedded,
    gather,
    recipe_of,
    scaled,
    train_decoder,
)
from pairx_engine.explanations.seam import Explained, NamedChip, State, Subject

_TINY = 1e-12
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class ExplainLfs:
    """ExplainLFS with one kind of decoder.

    `step` is p. It is in units of the embedding (`"units"`, as the source writes it), or in root mean squares
    of the catalogue's embeddings about their mean, per element (`"spreads"`). `similar_above` is xi1, `shown_above`
    xi2. xi1 is compared with the cosine as it is, from -1 to 1, or with (1 + cosine) / 2 (`rescaled`).
    `unit_length` scales embeddings to length 1 before anything else. `channels` names an entry of `CHANNELS`.
    `photos` is the most that the decoder learns from, `longer_side` that of its pictures, in pixels.
    """

    name: str
    about: str
    decoder: Kind
    cost: float
    step: float = 0.3
    step_in: Literal["units", "spreads"] = "units"
    similar_above: float = 0.3
    rescaled: bool = False
    unit_length: bool = True
    channels: Channels = "mean_of_abs"
    shown_above: float = 0.7
    photos: int = 1000
    longer_side: int = 40
    sees_partner: bool = True

    def identity(self) -> Mapping[str, Any]:
        """All of its parameters, and how its decoder learns."""
        told = asdict(self) | {"recipe": dict(recipe_of(self.decoder))}
        return {name: told[name] for name in told.keys() - {"name", "about", "cost", "sees_partner"}}

    def train(self, subject: Subject, photos: Iterable[NamedChip]) -> State:
        """Train the decoder; see `train_decoder` for the state.

        Raises `EngineError` where the subject does not say what its chips' values mean.
        """
        lessons = gather(subject, photos, self.unit_length, self.longer_side)
        return train_decoder(self.decoder, lessons, subject.seed)

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips.

        `maps` are the scaled maps before the threshold xi2, since what it cuts off is all alike; the figure
        shows what is left after it. `arrays` has, for 0 and 1 the two photos, `before` and `after` the
        threshold (h, w) and the decoder's `reconstruction` (h, w, 3) in 0 to 1, further R as `relevance` (D,)
        and the `similarity` that xi1 was compared with. Raises `EngineError` for a state without a decoder
        that can be used.
        """
        h = [embedded(subject, chip, self.unit_length) for chip in (chip_a, chip_b)]
        decoder = decoder_of(self.decoder, state, self.name, len(h[0]))
        assert state is not None, "the decoder came from it"
        norms = float(np.linalg.norm(h[0]) * np.linalg.norm(h[1]))
        similarity = float(h[0] @ h[1]) / max(norms, _TINY)
        similarity = (1 + similarity) / 2 if self.rescaled else similarity
        r = relevance(h[0], h[1], similarity > self.similar_above)
        step = self.step * r * (float(state["embedding_spread"]) if self.step_in == "spreads" else 1)
        before = [scaled(CHANNELS[self.channels](decoder.change(one, step[None])[0])) for one in h]
        after = [np.where(one >= self.shown_above, one, 0) for one in before]
        return decoded(
            (chip_a, chip_b), decoder, h, before, after, {"relevance": r, "similarity": np.array(similarity)}
        )


def explain_lfs() -> Sequence[ExplainLfs]:
    """With either decoder."""
    return [
        ExplainLfs("explain_lfs_linear", "what a change of the embedding changes (ExplainLFS), linear decoder; "
                   "one map for both photos", "linear", 3),
        ExplainLfs("explain_lfs_conv", "the same with a convolutional decoder", "conv", 3),
    ]  # fmt: skip


def relevance(h1: Floats, h2: Floats, similar: bool) -> Floats:
    """R (D,) from 0 to 1: large where similar photos' embeddings (D,) agree, or dissimilar ones' differ."""
    d = scaled(np.abs(h1 - h2))
    return 1 - d if similar else d
