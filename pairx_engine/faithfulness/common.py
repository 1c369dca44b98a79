"""What does not depend on the method: made once for a network or a pair, however many methods are measured."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Maps, Subject, explain
from pairx_engine.faithfulness.collage import Place, collage_of
from pairx_engine.faithfulness.pixel_flipping import Embed
from pairx_engine.faithfulness.randomisation import shuffled
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.precision import FULL, tensor_cores

WITNESS = "simexpert"
"""The explanation that the source compares ranks with: its maps are the cells' exact shares of a cosine."""


@dataclass(frozen=True)
class ChipPair:
    """Two chips (3, H, W), normalised, under a name; `similar` decides which photos are flipped.

    `others` are chips of other animals than those of the pair. The first serves as another partner, three of
    them as company in a collage; without them these checks are left out.
    """

    name: str
    chip_a: Tensor
    chip_b: Tensor
    similar: bool
    others: tuple[Tensor, ...] = ()


@dataclass
class Common:
    """The parts of a network, and of its latest pairs.

    `embed` embeds flipped chips (N, 3, H, W) in place of the network, which it must equal but for rounding. `kept` is the number of pairs whose parts stay: one where methods take turns on a pair, all of them where
    pairs take turns under a method. A pair is known by its name.
    """

    subject: Subject
    kept: int = 1
    embed: Embed | None = None
    _shuffled: dict[float, Subject] = field(default_factory=dict)
    _pairs: OrderedDict[str, PairParts] = field(default_factory=OrderedDict)

    def of(self, pair: ChipPair) -> PairParts:
        """The parts of a pair, which are made when first asked for."""
        if pair.name not in self._pairs:
            self._pairs[pair.name] = PairParts(self, pair)
        self._pairs.move_to_end(pair.name)
        while len(self._pairs) > self.kept:
            self._pairs.popitem(last=False)
        return self._pairs[pair.name]

    def with_shuffled_weights(self, share: float, chip: Tensor) -> Subject:
        """The subject after its upper weights were shuffled; later is what runs later on `chip`."""
        if share not in self._shuffled:
            network = shuffled(self.subject.network, chip[None], share, self.subject.seed)
            self._shuffled[share] = replace(self.subject, network=network, _explainers={})
        return self._shuffled[share]


@dataclass
class PairParts:
    """The parts of one pair."""

    common: Common
    pair: ChipPair
    _subjects: dict[float, Subject] = field(default_factory=dict)

    def subject(self, share: float = 0) -> Subject:
        """The subject, with a share of its weights shuffled, that keeps the passes it records of this pair."""
        if share not in self._subjects:
            plain = (
                self.common.with_shuffled_weights(share, self.pair.chip_a) if share else self.common.subject
            )
            self._subjects[share] = replace(plain, passes={})
        return self._subjects[share]

    @property
    def embed(self) -> Embed:
        """What embeds flipped chips."""
        return self.common.embed or self.common.subject.network

    @cached_property
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The embeddings (1, D) of both chips as they are."""
        network, embed = self.common.subject.network, self.embed
        with exclusive(network), torch.no_grad(), tensor_cores(FULL):
            return embed(self.pair.chip_a[None]), embed(self.pair.chip_b[None])

    @cached_property
    def collage(self) -> tuple[Tensor, Place]:
        """The first photo among three others, and where it is."""
        return collage_of(self.pair.chip_a, self.pair.others[:3], self.pair.name)

    @cached_property
    def witness(self) -> Maps | None:
        """The maps of `WITNESS`; None where it cannot explain the layer."""
        try:
            return explain(WITNESS, self.subject(), self.pair.chip_a, self.pair.chip_b).maps
        except EngineError:
            return None
