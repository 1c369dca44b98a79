"""A linear decoder: one matrix and an intercept, fitted by ridge regression in closed form.

With X the centred embeddings (n, D) and Y the centred pictures (n, P), W = (X'X + l s I)^-1 X'Y, where s is
the mean eigenvalue of X'X that is not bound to be 0, tr(X'X) / min(n, D), and l the penalty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pairx_engine.explanations.decoders.lessons import Lessons, Parts
from pairx_engine.explanations.seam import State

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Penalties to choose from."""
LINEAR_RECIPE = {"penalties": PENALTIES}
"""All constants that the decoder's numbers depend on."""
_SMALLEST = 1e-300
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class LinearDecoder:
    """x -> picture + W'(x - centre); `weights` are (D, 3, h, w), `picture` (3, h, w)."""

    centre: Floats
    picture: Floats
    weights: Floats

    def decode(self, embeddings: Floats) -> Floats:
        """Pictures (n, 3, h, w) of embeddings (n, D)."""
        return self.picture + self._times(embeddings - self.centre)

    def change(self, embedding: Floats, steps: Floats) -> Floats:
        """How the picture of an embedding (D,) changes with steps (n, D); the embedding does not matter."""
        return self._times(steps)

    def _times(self, given: Floats) -> Floats:
        return np.tensordot(given, self.weights, axes=1)

    def arrays(self) -> dict[str, Floats]:
        """Its numbers by name, the weights in single precision."""
        return {"centre": self.centre, "picture": self.picture, "weights": self.weights.astype(np.float32)}

    @classmethod
    def of(cls, state: State) -> LinearDecoder:
        """The decoder that has these arrays."""
        return cls(state["centre"], state["picture"], state["weights"])

    @classmethod
    def learned(cls, lessons: Lessons, parts: Parts, seed: int) -> tuple[LinearDecoder, Mapping[str, float]]:
        """Choose the penalty by error on the animals to choose by, then fit to these, too.

        Nothing is drawn at random. Also returns the `penalty`.
        """
        x, y = lessons.embeddings[parts.choose], lessons.pictures[parts.choose]
        tried = ridge(*lessons.both_ways(parts.fit), PENALTIES)
        errors = [float(np.square(one.decode(x) - y).mean()) for one in tried]
        penalty = PENALTIES[int(np.argmin(errors))]
        (found,) = ridge(*lessons.both_ways(parts.seen), [penalty])
        return found, {"penalty": penalty}


def ridge(x: Floats, y: Floats, penalties: Sequence[float]) -> list[LinearDecoder]:
    """The ridge regression of pictures (n, 3, h, w) on embeddings (n, D) under each of the penalties."""
    centre, picture = x.mean(axis=0), y.mean(axis=0)
    left, values, right = np.linalg.svd(x - centre, full_matrices=False)
    along = left.T @ (y - picture).reshape(len(y), -1)
    scale = max(float(np.square(values).mean()), _SMALLEST)
    return [
        LinearDecoder(
            centre,
            picture,
            (right.T @ ((values / (values**2 + penalty * scale))[:, None] * along)).reshape(-1, *y.shape[1:]),
        )
        for penalty in penalties
    ]
