"""A small convolutional decoder, trained on the CPU.

A linear map from the standardised embedding to a grid of an eighth of the picture's size; three times, double
the grid (nearest) and convolve it (3 x 3, SiLU); a last convolution to RGB, added to the mean picture. There
is no activation at the end, so that a picture does not stop changing where it is black or white. The mean
picture, and what standardises, are those of all photos but the animals held out.

It is fitted by AdamW to the mean squared error. Noise of the size of the embeddings' own spread is added to
them, without which a catalogue's few hundred photos are learned by heart. The epoch with the least error on
the animals to choose by is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pairx_engine.explanations.decoders.lessons import Lessons, Parts
from pairx_engine.explanations.seam import State

CHANNELS = (32, 32, 24, 16)
"""Channels of the grid and after each of the three convolutions."""
BATCH, EPOCHS, PATIENCE = 32, 60, 8
RATE, DECAY, NOISE = 3e-4, 1e-2, 1.0
CONVOLUTIONAL_RECIPE = {
    "channels": CHANNELS,
    "batch": BATCH,
    "epochs": EPOCHS,
    "patience": PATIENCE,
    "rate": RATE,
    "decay": DECAY,
    "noise": NOISE,
}
"""All constants that the decoder's numbers depend on."""
_OWN = ("centre", "spread", "picture")
_TRAINING = 4
"""Keeps these random draws apart from others under the same seed."""
_SMALLEST = 1e-12
Floats = NDArray[np.floating]
Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class ConvolutionalDecoder:
    """The network described above, in single precision.

    `centre` (D,) and `spread` standardise embeddings, `picture` (3, h, w) is the mean picture.
    """

    centre: Tensor
    spread: Tensor
    picture: Tensor
    parameters: Parameters

    def decode(self, embeddings: Floats) -> Floats:
        """Pictures (n, 3, h, w) of embeddings (n, D)."""
        with torch.no_grad():
            return self.forward(self.standardised(embeddings)).double().numpy()

    def change(self, embedding: Floats, steps: Floats) -> Floats:
        """How the picture of an embedding (D,) changes with steps (n, D)."""
        pictures = self.decode(np.concatenate([embedding[None], embedding + steps]))
        return pictures[1:] - pictures[0]

    def standardised(self, embeddings: Floats) -> Tensor:
        """Embeddings (n, D) as the network takes them."""
        given = torch.from_numpy(np.array(embeddings, dtype=np.float64))
        return ((given - self.centre) / self.spread).float()

    def forward(self, standardised: Tensor) -> Tensor:
        """Pictures (n, 3, h, w) of standardised embeddings (n, D), with gradients if these are on."""
        p, picture = self.parameters, self.picture
        sizes = _sizes(picture.shape[-2], picture.shape[-1])
        grid = functional.linear(standardised, p["grid"], p["grid_bias"])
        maps = functional.silu(grid).view(len(standardised), -1, *sizes[0])
        for i, size in enumerate(sizes[1:]):
            maps = functional.interpolate(maps, size, mode="nearest")
            maps = functional.silu(functional.conv2d(maps, p[f"conv{i}"], p[f"conv{i}_bias"], padding=1))
        return picture + functional.conv2d(maps, p["rgb"], p["rgb_bias"], padding=1)

    def arrays(self) -> dict[str, Floats]:
        """Its numbers by name."""
        own = dict(zip(_OWN, (self.centre, self.spread, self.picture), strict=True))
        return {name: value.detach().numpy() for name, value in (own | self.parameters).items()}

    @classmethod
    def of(cls, state: State) -> ConvolutionalDecoder:
        """The decoder that has these arrays."""
        names = ("grid", *(f"conv{i}" for i in range(len(CHANNELS) - 1)), "rgb")
        both = [name + end for name in names for end in ("", "_bias")]
        own = {name: torch.from_numpy(np.array(state[name])) for name in (*_OWN, *both)}
        return cls(own.pop("centre"), own.pop("spread"), own.pop("picture"), own)

    @classmethod
    def learned(
        cls, lessons: Lessons, parts: Parts, seed: int
    ) -> tuple[ConvolutionalDecoder, Mapping[str, float]]:
        """Train it; also returns the number of `epochs` after which it was best."""
        with torch.inference_mode(False), torch.enable_grad():
            return _trained(lessons, parts, np.random.default_rng([seed, _TRAINING]))


def _sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of the maps, from an eighth of the picture's, rounded up on the way, to the picture's own."""
    sizes = [(height, width)]
    for _ in CHANNELS[1:]:
        sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
    return sizes


def _started(x: Floats, y: Floats, rng: np.random.Generator) -> ConvolutionalDecoder:
    """A decoder with random weights that fits embeddings (n, D) and pictures (n, 3, h, w) in size."""
    height, width = _sizes(*y.shape[2:])[0]
    centre = x.mean(axis=0)
    spread = max(float(np.sqrt(np.square(x - centre).mean())), _SMALLEST)
    shapes: dict[str, tuple[int, ...]] = {"grid": (CHANNELS[0] * height * width, x.shape[1])}
    shapes |= {f"conv{i}": (CHANNELS[i + 1], CHANNELS[i], 3, 3) for i in range(len(CHANNELS) - 1)}
    # The last weights start small: at first every picture is nearly the mean one.
    gains = {"grid": 1.0, "rgb": 0.01}
    parameters: Parameters = {}
    for name, shape in (shapes | {"rgb": (3, CHANNELS[-1], 3, 3)}).items():
        deviation = np.sqrt(gains.get(name, 2.0) / np.prod(shape[1:]))
        parameters[name] = torch.from_numpy(rng.normal(scale=deviation, size=shape)).float()
        parameters[f"{name}_bias"] = torch.zeros(shape[0])
    return ConvolutionalDecoder(
        torch.from_numpy(centre),
        torch.tensor(spread, dtype=torch.float64),
        torch.from_numpy(y.mean(axis=0)).float(),
        {name: value.requires_grad_() for name, value in parameters.items()},
    )


def _trained(
    lessons: Lessons, parts: Parts, rng: np.random.Generator
) -> tuple[ConvolutionalDecoder, Mapping[str, float]]:
    decoder = _started(*lessons.both_ways(parts.seen), rng)
    given, wanted = lessons.both_ways(parts.fit)
    x, y = decoder.standardised(given), torch.from_numpy(wanted).float()
    unseen = decoder.standardised(lessons.embeddings[parts.choose])
    pictures = torch.from_numpy(lessons.pictures[parts.choose]).float()
    optimiser = torch.optim.AdamW(decoder.parameters.values(), lr=RATE, weight_decay=DECAY)
    best, least, kept = -1, np.inf, decoder
    for epoch in range(EPOCHS):
        for part in np.array_split(rng.permutation(len(x)), -(-len(x) // BATCH)):
            noise = torch.from_numpy(rng.normal(scale=NOISE, size=(len(part), x.shape[1]))).float()
            loss = functional.mse_loss(decoder.forward(x[part] + noise), y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            error = float(functional.mse_loss(decoder.forward(unseen), pictures))
        if error < least:
            best, least, kept = epoch, error, _copy(decoder)
        if epoch - best >= PATIENCE:
            break
    return kept, {"epochs": float(best + 1)}


def _copy(decoder: ConvolutionalDecoder) -> ConvolutionalDecoder:
    parameters = {name: value.detach().clone() for name, value in decoder.parameters.items()}
    return ConvolutionalDecoder(decoder.centre, decoder.spread, decoder.picture, parameters)
