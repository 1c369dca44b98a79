"""All measures of faithfulness of a pair under one explanation, as rows of a table.

A measure is a function of `Asked`, which explains the pair once for all of them. A new one is a function in a
module of its own and a line in `CHECKS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from torch import Tensor

from pairx_engine.explanations import Maps, State, Subject, explain
from pairx_engine.faithfulness.agreement import rank_correlation
from pairx_engine.faithfulness.collage import share_inside
from pairx_engine.faithfulness.common import WITNESS, ChipPair, Common, PairParts
from pairx_engine.faithfulness.continuity import Translation, continuity
from pairx_engine.faithfulness.pixel_flipping import Flipping, FlippingCurve, Order, flip
from pairx_engine.photo.value_range import ValueRange
from pairx_engine.relevance.locking import exclusive

LEVELS = {"randomised_top": 0.25, "randomised_all": 1.0}
"""Shares of the network's weights that are shuffled, from the embedding down."""


class Row(NamedTuple):
    """One value of one measure for one pair and method."""

    pair: str
    method: str
    measure: str
    value: float


@dataclass(frozen=True)
class Protocol:
    """What is measured.

    Each of `flippings` is made in both orders; the first gives `gap` and others without an ending, the
    others `gap_FILL_SIDE`. Continuity is measured where there is a `translation`; it explains 2 n_steps + 3
    further pairs. `checks` names entries of `CHECKS`.
    """

    flippings: tuple[Flipping, ...] = (Flipping(),)
    translation: Translation | None = None
    checks: tuple[str, ...] = field(default_factory=lambda: tuple(CHECKS))

    def __post_init__(self) -> None:
        if unknown := sorted({*self.checks} - {*CHECKS}):
            raise ValueError(f"unknown check {unknown[0]!r}; choose among {', '.join(CHECKS)}")
        endings = [(how.fill, how.superpixel) for how in self.flippings]
        if not endings or len({*endings}) < len(endings):
            raise ValueError("flippings differ in their fill or in the side of their superpixels")

    def ending(self, how: Flipping) -> str:
        """What tells the measures of a flipping from those of the first."""
        return "" if how == self.flippings[0] else f"_{how.fill}_{how.superpixel}"


@dataclass
class Asked:
    """One explanation of one pair; the pair is explained once, however many measures ask.

    `common` holds what other methods on the same pair need, too.
    """

    subject: Subject
    pair: ChipPair
    method: str
    values: ValueRange
    state: State | None = None
    batch_size: int = 8
    common: Common | None = None

    @cached_property
    def parts(self) -> PairParts:
        """What does not depend on the method."""
        return (self.common or Common(self.subject)).of(self.pair)

    @cached_property
    def _timed(self) -> tuple[Maps, float]:
        clock, processor = time.perf_counter(), time.process_time()
        # The plain subject keeps nothing of other methods, which would make this one look cheap.
        maps = explain(self.method, self.subject, self.pair.chip_a, self.pair.chip_b, self.state).maps
        return maps, min(time.perf_counter() - clock, time.process_time() - processor)

    @property
    def maps(self) -> Maps:
        """The maps of the pair."""
        return self._timed[0]

    @property
    def seconds(self) -> float:
        """How long the explanation of the pair takes on a machine that does nothing else.

        That is the clock's time, or this process's processor time where that is less, since others held the
        machine meanwhile.
        """
        return self._timed[1]

    def explain(self, chip_a: Tensor, chip_b: Tensor, shuffled: float = 0) -> Maps:
        """The maps of other chips, or of the network with a share of its weights shuffled."""
        return explain(self.method, self.parts.subject(shuffled), chip_a, chip_b, self.state).maps


@dataclass(frozen=True)
class Check:
    """What is asked of an explanation beside flips; `explained` is how many further explanations it takes."""

    of: Callable[[Asked], Mapping[str, float]]
    explained: int


def measure_pairs(
    subject: Subject,
    pairs: Iterable[ChipPair],
    values: ValueRange,
    methods: Sequence[str],
    protocol: Protocol | None = None,
    states: Mapping[str, State] = MappingProxyType({}),
    batch_size: int = 8,
) -> Iterator[Row]:
    """Rows of every pair and method, in order: pairs outermost, then methods, then measures.

    `states` holds what trained methods have learned.
    """
    common = Common(subject)
    for pair in pairs:
        for method in methods:
            asked = Asked(subject, pair, method, values, states.get(method), batch_size, common)
            yield from measure(asked, protocol or Protocol())


def measure(asked: Asked, protocol: Protocol) -> list[Row]:
    """The rows of one pair and method.

    For a similar pair a lower `auc_most` and a larger `gap` = auc_least - auc_most are better; a gap of 0 is
    chance. For a dissimilar pair the gap says how much of the little similarity the map finds. `continuity`
    pairs the first photo with its moved copy, `partner_continuity` both with the pair's second photo; lower
    is better, with the limits described in `pairx_engine.faithfulness.continuity`.
    """
    found: dict[str, float] = {}
    for how in protocol.flippings:
        flips = _flips(asked, how)
        found |= {f"{name}{protocol.ending(how)}": value for name, value in flips.items()}
    for name in protocol.checks:
        found |= CHECKS[name].of(asked)
    if protocol.translation is not None:
        found |= _moves(asked, protocol.translation)
    return [Row(asked.pair.name, asked.method, name, value) for name, value in found.items()]


def _flips(asked: Asked, how: Flipping) -> dict[str, float]:
    maps = asked.maps
    with exclusive(asked.subject.network):
        most, least = (_curve(asked, maps, replace(how, order=order)) for order in _ORDERS)
    return {
        "auc_most": most.auc,
        "auc_least": least.auc,
        "gap": least.auc - most.auc,
        "aopc_most": most.aopc,
        "aopc_least": least.aopc,
    }


_ORDERS: tuple[Order, Order] = ("most", "least")


def _curve(asked: Asked, maps: Maps, how: Flipping) -> FlippingCurve:
    """The curve of a pair. A similar pair is flipped twice, its first photo and then its second.

    These curves are averaged, because the order of the two photos means nothing.
    """
    embed, pair, rest = asked.parts.embed, asked.pair, (asked.values, asked.batch_size)
    untouched = asked.parts.embeddings
    curve = flip(embed, pair.chip_a, pair.chip_b, *maps, how, pair.similar, *rest, untouched)
    if not pair.similar:
        return curve
    other = flip(embed, pair.chip_b, pair.chip_a, *maps[::-1], how, True, *rest, untouched[::-1])
    return FlippingCurve(np.mean([curve.similarity, other.similarity], axis=0))


def _moves(asked: Asked, how: Translation) -> dict[str, float]:
    def explained(a: Tensor, b: Tensor) -> Maps:
        # Nobody else asks for moved chips, so nothing of them is kept.
        return explain(asked.method, asked.subject, a, b, asked.state).maps

    found: dict[str, float] = {}
    for name, partner in (("continuity", None), ("partner_continuity", asked.pair.chip_b)):
        curve = continuity(explained, asked.pair.chip_a, how, partner)
        found |= {
            f"{name}_mean": curve.mean,
            f"{name}_max": curve.max,
            f"{name}_aligned_mean": curve.aligned_mean,
        }
    return found


def _partner(asked: Asked) -> dict[str, float]:
    """Rank correlation of the first photo's maps with its partner and with a photo of another animal.

    1 says that the map does not look at the partner.
    """
    if not asked.pair.others:
        return {}
    other, _ = asked.explain(asked.pair.chip_a, asked.pair.others[0])
    return {"partner_correlation": rank_correlation(asked.maps[0], other)}


def _localisation(asked: Asked) -> dict[str, float]:
    """Share of the map's positive relevance that lies on the first photo in a collage with three others.

    0.25 is chance. For similar pairs alone: nothing in the collage is meant by the similarity of others.
    """
    pair = asked.pair
    if not pair.similar or len(pair.others) < 3:
        return {}
    made, place = asked.parts.collage
    return {"localisation": share_inside(asked.explain(made, pair.chip_b)[0], place)}


def _randomisation(asked: Asked) -> dict[str, float]:
    """Rank correlation of the first photo's map with that of a network whose weights were shuffled.

    A map that stays the same does not explain this network (Adebayo et al. 2018).
    """
    chips = asked.pair.chip_a, asked.pair.chip_b
    return {
        name: rank_correlation(asked.maps[0], asked.explain(*chips, shuffled=share)[0])
        for name, share in LEVELS.items()
    }


def _witness(asked: Asked) -> dict[str, float]:
    """Mean rank correlation of both maps with those of `WITNESS`; nothing where it cannot explain the layer."""
    wanted = asked.parts.witness
    if wanted is None:
        return {}
    return {
        f"{WITNESS}_correlation": float(
            np.mean([rank_correlation(own, its) for own, its in zip(asked.maps, wanted, strict=True)])
        )
    }


def _seconds(asked: Asked) -> dict[str, float]:
    return {"seconds": asked.seconds}


CHECKS: dict[str, Check] = {
    "partner": Check(_partner, 1),
    "localisation": Check(_localisation, 1),
    "randomisation": Check(_randomisation, len(LEVELS)),
    "witness": Check(_witness, 0),
    "seconds": Check(_seconds, 0),
}
"""Checks beside pixel flipping and continuity, by name."""
