"""Chips of drawn animals, a network whose embeddings know them, and decoders trained on these."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pairx_engine.explanations import NamedChip, Subject
from pairx_engine.photo.value_range import ValueRange

HEIGHT, WIDTH = 24, 32
VALUES = ValueRange((-2.0, -1.0, -1.5), (2.0, 3.0, 1.5))


class Pooled(nn.Module):
    """A convolution, pooled to 3 x 4 cells, and a linear map to 20 numbers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d((3, 4))
        self.head = nn.Linear(48, 20)

    def forward(self, chips):
        return self.head(self.pool(torch.tanh(self.conv(chips))).flatten(1))


def subject_of(seed=0, values=VALUES, **how):
    """A network with random weights, at its convolution."""
    torch.manual_seed(7)
    return Subject(Pooled().eval().requires_grad_(False), "conv", seed=seed, values=values, **how)


def drawn_chips(n_animals=12, per_animal=5, seed=0, nameless=0):
    """Photos of `n_animals`, mixtures of six smooth pictures with some noise; the last ones have no name."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((6, 3, 3, 4)))
    smooth = nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear").numpy()
    low, high = (np.array(v)[:, None, None] for v in (VALUES.low, VALUES.high))
    photos = []
    for animal in range(n_animals):
        own = rng.dirichlet(np.full(6, 0.5))
        for _ in range(per_animal):
            mixture = 0.8 * own + 0.2 * rng.dirichlet(np.full(6, 0.5))
            picture = np.tensordot(mixture, smooth, axes=1) + rng.normal(scale=0.02, size=smooth.shape[1:])
            photos.append((low + picture.clip(0, 1) * (high - low), f"animal {animal}"))
    names = [name if i < len(photos) - nameless else None for i, (_, name) in enumerate(photos)]
    return [
        NamedChip(torch.from_numpy(chip).float(), name) for (chip, _), name in zip(photos, names, strict=True)
    ]
