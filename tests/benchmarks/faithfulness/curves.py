"""Curves of explanations over several pairs: selectivity in both orders, and continuity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pairx_engine.explanations import Maps, State, explain
from pairx_engine.faithfulness import Flipping, Translation, continuity, flip
from tests.benchmarks.faithfulness.cases import Loaded

Curves = Mapping[str, NDArray[np.float64]]
"""Mean curves by method."""


@dataclass(frozen=True)
class Selectivity:
    """Mean cosines after each step, by method: of similar pairs in both orders, of dissimilar ones in one.

    Of a similar pair the first photo is flipped, of a dissimilar pair both are, as in the source.
    """

    most: Curves
    least: Curves
    dissimilar: Curves


def selectivity(
    loaded: Loaded, methods: Sequence[str], states: Mapping[str, State], count: int, how: Flipping
) -> Selectivity:
    """The curves over the first `count` pairs of each class."""
    similar, dissimilar = (
        [pair for pair in loaded.pairs if pair["correct"] is correct][:count] for correct in (True, False)
    )
    most, least, other = {}, {}, {}
    for method in methods:
        both = [_both_orders(loaded, method, states, pair, how) for pair in similar]
        most[method], least[method] = (np.mean(curves, axis=0) for curves in zip(*both, strict=True))
        other[method] = np.mean(
            [_curve(loaded, *_maps(loaded, method, states, pair), how, False) for pair in dissimilar], axis=0
        )
    return Selectivity(most, least, other)


def continuity_curves(
    loaded: Loaded, methods: Sequence[str], states: Mapping[str, State], count: int, how: Translation
) -> Curves:
    """Mean differences of the maps of a photo and of its moved copy, explained as a pair."""
    chips = [loaded.chips[pair["photo_a"]] for pair in loaded.pairs if pair["correct"]][:count]

    def curve(method: str, chip: Tensor) -> NDArray[np.float64]:
        def explained(a: Tensor, b: Tensor) -> Maps:
            return explain(method, loaded.subject, a, b, states.get(method)).maps

        return continuity(explained, chip, how).difference

    return {method: np.mean([curve(method, chip) for chip in chips], axis=0) for method in methods}


def _maps(
    loaded: Loaded, method: str, states: Mapping[str, State], pair: Mapping[str, str]
) -> tuple[Tensor, Tensor, Maps]:
    a, b = loaded.chips[pair["photo_a"]], loaded.chips[pair["photo_b"]]
    return a, b, explain(method, loaded.subject, a, b, states.get(method)).maps


def _both_orders(
    loaded: Loaded, method: str, states: Mapping[str, State], pair: Mapping[str, str], how: Flipping
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b, maps = _maps(loaded, method, states, pair)
    return _curve(loaded, a, b, maps, how, True), _curve(
        loaded, a, b, maps, replace(how, order="least"), True
    )


def _curve(
    loaded: Loaded, a: Tensor, b: Tensor, maps: Maps, how: Flipping, similar: bool
) -> NDArray[np.float64]:
    return flip(loaded.embed, a, b, *maps, how, similar, loaded.values).similarity
