"""All measures of faithfulness over pairs and methods, as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from pairx_engine.explanations import Maps, State, Subject, explain
from pairx_engine.faithfulness.continuity import ExplainPair, Translation, continuity
from pairx_engine.faithfulness.pixel_flipping import Embed, Flipping, FlippingCurve, Order, flip
from pairx_engine.photo.value_range import ValueRange
from pairx_engine.relevance.locking import exclusive

MEASURES = (
    "auc_most",
    "auc_least",
    "gap",
    "aopc_most",
    "aopc_least",
    "continuity_mean",
    "continuity_max",
    "continuity_aligned_mean",
    "partner_continuity_mean",
    "partner_continuity_max",
    "partner_continuity_aligned_mean",
)
"""Names of the measures.

`auc` and `aopc` are of the flips in both orders; `gap` = auc_least - auc_most. `continuity` pairs the first
photo with its moved copy; `partner_continuity` pairs both with the pair's second photo. Lower continuity is
better, with the limits described in `pairx_engine.faithfulness.continuity`.

For a similar pair a lower auc_most and a larger gap are better; a gap of 0 is chance. For a dissimilar pair
the gap says how much of the little similarity the map finds.
"""


@dataclass(frozen=True)
class ChipPair:
    """Two chips (3, H, W), normalised, under a name; `similar` decides which photos are flipped."""

    name: str
    chip_a: Tensor
    chip_b: Tensor
    similar: bool


class Row(NamedTuple):
    """One value of one measure for one pair and method."""

    pair: str
    method: str
    measure: str
    value: float


def measure_pairs(
    subject: Subject,
    pairs: Iterable[ChipPair],
    values: ValueRange,
    methods: Sequence[str],
    flipping: Flipping | None = None,
    translation: Translation | None = None,
    states: Mapping[str, State] = MappingProxyType({}),
    batch_size: int = 8,
) -> Iterator[Row]:
    """Rows of every pair and method, in order: pairs outermost, then methods, then measures.

    A similar pair is flipped twice, its first photo and then its second, and the curves are averaged, because
    the order of the two photos means nothing. `flipping` gives everything but the order of the flips (default
    `Flipping()`). Continuity is measured on the pair's first photo, and only where a `translation` is given:
    it explains 2 n_steps + 3 further pairs per method. `states` holds what trained methods have learned.
    """
    how = flipping or Flipping()
    for pair in pairs:
        for method in methods:
            maps_of = partial(_maps, method, subject, states.get(method))
            found = _flips(subject.network, pair, maps_of(pair.chip_a, pair.chip_b), values, how, batch_size)
            found |= _moves(maps_of, pair, translation)
            yield from (Row(pair.name, method, measure, value) for measure, value in found.items())


def _maps(method: str, subject: Subject, state: State | None, chip_a: Tensor, chip_b: Tensor) -> Maps:
    return explain(method, subject, chip_a, chip_b, state).maps


def _flips(
    network: nn.Module, pair: ChipPair, maps: Maps, values: ValueRange, how: Flipping, batch_size: int
) -> dict[str, float]:
    with exclusive(network):
        most, least = (
            _curve(network, pair, maps, values, replace(how, order=order), batch_size) for order in _ORDERS
        )
    return {
        "auc_most": most.auc,
        "auc_least": least.auc,
        "gap": least.auc - most.auc,
        "aopc_most": most.aopc,
        "aopc_least": least.aopc,
    }


_ORDERS: tuple[Order, Order] = ("most", "least")


def _curve(
    embed: Embed, pair: ChipPair, maps: Maps, values: ValueRange, how: Flipping, batch_size: int
) -> FlippingCurve:
    curve = flip(embed, pair.chip_a, pair.chip_b, *maps, how, pair.similar, values, batch_size)
    if not pair.similar:
        return curve
    other = flip(embed, pair.chip_b, pair.chip_a, *maps[::-1], how, True, values, batch_size)
    return FlippingCurve(np.mean([curve.similarity, other.similarity], axis=0))


def _moves(maps_of: ExplainPair, pair: ChipPair, how: Translation | None) -> dict[str, float]:
    if how is None:
        return {}
    found: dict[str, float] = {}
    for name, partner in (("continuity", None), ("partner_continuity", pair.chip_b)):
        curve = continuity(maps_of, pair.chip_a, how, partner)
        found |= {
            f"{name}_mean": curve.mean,
            f"{name}_max": curve.max,
            f"{name}_aligned_mean": curve.aligned_mean,
        }
    return found
