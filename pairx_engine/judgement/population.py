"""How many animals a catalogue shows: names, less other names' twins, plus second animals.

Catalogues are drawn from the judged names. With its probability, each pair of names is one animal, and each
name is two animals; names that are joined by several pairs are together one animal. How common such errors
are in this catalogue is drawn first, since all of these probabilities depend on it.

Assumptions: given that, errors are independent; a name holds two animals at most; twins that are not among
the candidates are as common among names as those that are; a photo under a wrong name shows an animal that
has a name. Photos without a name are not counted, so animals that only such photos show are missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from pairx_engine.judgement.cuts import FEWEST_IN_A_SIDE
from pairx_engine.judgement.names import NamePairs
from pairx_engine.judgement.partition import Splits
from pairx_engine.judgement.scale import Scale
from pairx_engine.judgement.sets import Index, NamedPhotos, Values

DRAWS = 2000
LEVEL = 0.9
TAIL = 1e-3
"""Less likely cases are drawn together as a number, not one by one."""


@dataclass(frozen=True)
class Population:
    """How many animals `names` names show.

    `estimate` is the mean; `low` and `high` are bounds that hold the number with probability .9. `twins` are
    names expected to be another name's animal. `second_animals` are the expected animals without a name of
    their own inside others' names. `unnamed_photos` are counted here but not considered.
    """

    names: int
    estimate: float
    low: int
    high: int
    twins: float
    second_animals: float
    unnamed_photos: int


def population(photos: NamedPhotos, pairs: NamePairs, splits: Splits, seed: int = 0) -> Population:
    """The estimate and its interval; the same for the same seed."""
    random = np.random.default_rng(seed)
    count = len(pairs.names.codes)
    too_few = int((pairs.names.sizes < 2 * FEWEST_IN_A_SIDE).sum())
    twins, seconds = np.zeros(DRAWS), np.zeros(DRAWS)
    for draw in range(DRAWS):
        chosen, tail, share = _drawn(random, pairs.log_odds, pairs.scale)
        out_of_reach = share * len(pairs) * (1 - pairs.reach) / max(pairs.reach, 1 / (1 + count))
        twins[draw] = joined(pairs.first[chosen], pairs.second[chosen]) + tail + random.poisson(out_of_reach)
        chosen, tail, share = _drawn(random, splits.log_odds, splits.scale)
        # A name with too few photos to be cut is two animals as often as any other name.
        seconds[draw] = len(chosen) + tail + random.binomial(too_few, share)
    animals = np.maximum(count - np.minimum(twins, count - 1) + seconds, min(count, 1))
    low, high = np.quantile(animals, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Population(
        count,
        float(animals.mean()),
        int(np.floor(low)),
        int(np.ceil(high)),
        float(twins.mean()),
        float(seconds.mean()),
        int((photos.names < 0).sum()),
    )


def _drawn(random: np.random.Generator, log_odds: Values, scale: Scale) -> tuple[Index, int, float]:
    """One draw: the cases of the known kind, how many unlikely ones besides, and the share drawn."""
    share = float(np.clip(random.beta(*scale.posterior), 1e-9, 1 - 1e-9))
    chance = expit(log_odds + logit(share) - logit(scale.share))
    likely = np.flatnonzero(chance > TAIL)
    tail = float(chance.sum() - chance[likely].sum())
    return likely[random.random(len(likely)) < chance[likely]], int(random.poisson(tail)), share


def joined(first: Index, second: Index) -> int:
    """How many fewer groups there are after joining first[i] with second[i]: edges of a spanning forest."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    fewer = 0
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        one, two = root(a), root(b)
        if one != two:
            parent[one] = two
            fewer += 1
    return fewer
