"""The gradient of the cosine with respect to the pixels: the baseline of any explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pairx_engine.explanations.seam import Explained, State, Subject
from pairx_engine.relevance.locking import exclusive
from pairx_engine.relevance.precision import FULL, tensor_cores
from pairx_engine.relevance.starts import SMALLEST_NORM


@dataclass(frozen=True)
class Gradient:
    """Sum over RGB of |g|, or of g * chip with its sign; g is d cosine / d chip."""

    name: str
    about: str
    times_input: bool
    cost: float = 6
    sees_partner: bool = True

    def identity(self) -> Mapping[str, Any]:
        """Nothing besides the name."""
        return {}

    def explain(
        self, subject: Subject, chip_a: Tensor, chip_b: Tensor, state: State | None = None
    ) -> Explained:
        """Explain two chips.

        The network runs in evaluation mode and is restored afterwards; its parameters get no gradients.
        """
        with exclusive(subject.network), tensor_cores(FULL), torch.enable_grad():
            chips = [chip.detach().clone().requires_grad_() for chip in (chip_a, chip_b)]
            # One at a time, so that chips may differ in size.
            embedding_a, embedding_b = (subject.network(chip[None])[0].double() for chip in chips)
            cosine = functional.cosine_similarity(embedding_a, embedding_b, dim=0, eps=SMALLEST_NORM)
            found = torch.autograd.grad(cosine, chips)
        if self.times_input:
            return Explained.of_maps(
                *((g * chip.detach()).sum(dim=0) for g, chip in zip(found, chips, strict=True))
            )
        return Explained.of_maps(*(g.abs().sum(dim=0) for g in found))


def gradients() -> Sequence[Gradient]:
    """Both kinds."""
    return [
        Gradient("gradient", "size of the cosine's gradient", False),
        Gradient("gradient_x_input", "the cosine's gradient times the pixels", True),
    ]
