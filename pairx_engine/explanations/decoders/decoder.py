"""Decoders from embeddings to small pictures: trained, judged on animals held out, and refused if useless."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pairx_engine.errors import EngineError
from pairx_engine.explanations.decoders.convolutional import CONVOLUTIONAL_RECIPE, ConvolutionalDecoder
from pairx_engine.explanations.decoders.lessons import CHOOSING, HELD_OUT, Lessons, parts_of
from pairx_engine.explanations.decoders.linear import LINEAR_RECIPE, LinearDecoder
from pairx_engine.explanations.seam import State

LEAST_PHOTOS, LEAST_ANIMALS = 40, 6
"""Fewer photos or animals teach a decoder nothing that could be judged."""
Kind = Literal["linear", "conv"]
Floats = NDArray[np.floating]
_KINDS: Mapping[Kind, Any] = {"linear": LinearDecoder, "conv": ConvolutionalDecoder}


class Decoder(Protocol):
    """Makes pictures of embeddings: 0 is black and 1 is white, and nothing is cut off there."""

    def decode(self, embeddings: Floats) -> Floats:
        """Pictures (n, 3, h, w) of embeddings (n, D)."""

    def change(self, embedding: Floats, steps: Floats) -> Floats:
        """How the picture of an embedding (D,) changes with each of the steps (n, D), (n, 3, h, w)."""


@dataclass(frozen=True)
class Errors:
    """Mean squared errors per pixel and channel, on photos of animals that nothing was learned from.

    Pixels go from 0 to 1. `decoder` is the decoder's error, `mean_picture` that of the mean picture of all
    other animals' photos and their mirror images. Both are NaN where the catalogue was too small to learn from.
    """

    decoder: float
    mean_picture: float
    photos: int
    animals: int


def train_decoder(kind: Kind, lessons: Lessons, seed: int) -> State:
    """Train a decoder of that kind; the same lessons and seed give the same arrays bit for bit.

    That holds on one machine with one number of threads. The state has the decoder's own arrays, `error` and
    `mean_error` as `Errors` says, `photos` and `animals` that there were, `held_out_photos` and
    `held_out_animals`, and `embedding_spread`, the root mean square of the embeddings' elements about their mean. From
    fewer than `LEAST_PHOTOS` photos or `LEAST_ANIMALS` animals nothing is learned: the state then has
    `photos` and `animals` alone.
    """
    counts = {"photos": np.array(len(lessons.animals)), "animals": np.array(lessons.n_animals)}
    if len(lessons.animals) < LEAST_PHOTOS or lessons.n_animals < LEAST_ANIMALS:
        return counts
    parts = parts_of(lessons.animals, seed)
    decoder, told = _KINDS[kind].learned(lessons, parts, seed)
    y = lessons.pictures[parts.held_out]
    error = np.square(decoder.decode(lessons.embeddings[parts.held_out]) - y).mean()
    centred = lessons.embeddings - lessons.embeddings.mean(axis=0)
    return (
        decoder.arrays()
        | counts
        | {name: np.array(value) for name, value in told.items()}
        | {
            "embedding_spread": np.sqrt(np.square(centred).mean()),
            "error": np.array(error),
            "mean_error": np.square(decoder.arrays()["picture"] - y).mean(),
            "held_out_photos": np.array(len(parts.held_out)),
            "held_out_animals": np.array(len(np.unique(lessons.animals[parts.held_out]))),
        }
    )


def recipe_of(kind: Kind) -> Mapping[str, Any]:
    """All constants that a decoder's numbers depend on."""
    own: Mapping[str, Any] = LINEAR_RECIPE if kind == "linear" else CONVOLUTIONAL_RECIPE
    least = {"least_photos": LEAST_PHOTOS, "least_animals": LEAST_ANIMALS}
    return {"held_out": HELD_OUT, "choosing": CHOOSING, **least, **own}


def errors_of(state: State) -> Errors:
    """How well a trained decoder does on the animals that were held out."""
    if "error" not in state:
        return Errors(float("nan"), float("nan"), 0, 0)
    return Errors(
        float(state["error"]),
        float(state["mean_error"]),
        int(state["held_out_photos"]),
        int(state["held_out_animals"]),
    )


def decoder_of(kind: Kind, state: State | None, method: str, width: int) -> Decoder:
    """The decoder in a state of `train_decoder`, for embeddings (D,) of that width.

    Raises `EngineError` where nothing was learned, where the decoder is no better than the mean picture, or
    where it was trained for other embeddings.
    """
    if state is None or "photos" not in state:
        raise EngineError(
            f"method {method!r} has no decoder",
            f"train one on a catalogue: pairx evaluate --faithfulness N --method {method}",
        )
    errors = errors_of(state)
    if "error" not in state:
        raise EngineError(
            f"method {method!r} learned no decoder: {int(state['photos'])} photos of {int(state['animals'])} "
            f"animals are too few, {LEAST_PHOTOS} photos of {LEAST_ANIMALS} animals are the least",
            "let it learn from a larger catalogue of the same kind of photos",
        )
    # Not `>=`: an error that is no number is refused, too.
    if not errors.decoder < errors.mean_picture:
        raise EngineError(
            f"the decoder of method {method!r} is no better than the mean picture: on {errors.photos} photos "
            f"of {errors.animals} animals that it had not seen its mean squared error is "
            f"{errors.decoder:.4f}, that of the mean picture {errors.mean_picture:.4f}",
            "let it learn from more animals, or use a method without a decoder",
        )
    if len(state["centre"]) != width:
        raise EngineError(
            f"the decoder of method {method!r} is for embeddings of {len(state['centre'])} numbers, "
            f"and the network gives {width}",
            "use what was learned with this network",
        )
    return _KINDS[kind].of(state)
