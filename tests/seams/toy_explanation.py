"""An explanation that must first learn from a catalogue, as somebody outside would write it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pairx_engine.explanations import Explained, NamedChip, State, Subject, register, unregister


class Unusual:
    """What of a photo is unlike the mean of those that it has learned from."""

    name = "unusual"
    about = "distance from the mean photo"
    cost = 0.0
    sees_partner = False
    photos = 3

    def identity(self) -> Mapping[str, Any]:
        return {"photos": self.photos}

    def train(self, subject: Subject, photos: Iterable[NamedChip]) -> State:
        return {"mean": torch.stack([one.chip for one in photos]).mean(dim=0).numpy()}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        assert state is not None
        mean = torch.from_numpy(np.asarray(state["mean"])).to(chip_a)
        return Explained.of_maps(*((chip - mean).abs().sum(dim=0) for chip in (chip_a, chip_b)))


def family() -> Sequence[Unusual]:
    return [Unusual()]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The toy among the explanations, for the length of a test of the modules that import this."""
    register(family)
    yield
    unregister(family)
