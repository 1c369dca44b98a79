"""What PAIR-X propagates from two embeddings: the cosine's gradients, or each element's share of it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from pairx_engine.errors import EngineError
from pairx_engine.relevance.presets import Preset

SMALLEST_NORM = 1e-8


def cosine(embedding_a: Tensor, embedding_b: Tensor) -> float:
    """The cosine of two embeddings (D,), in double precision."""
    return float(functional.cosine_similarity(embedding_a.double(), embedding_b.double(), dim=0))


def cosine_start(embeddings_a: Tensor, embeddings_b: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the cosine with respect to both embeddings, (..., D) each.

    From them PAIR-X starts the propagation. d cos / d e0 = (e1 / |e1| - cos * e0 / |e0|) / |e0|, and the same
    with 0 and 1 exchanged. Computed in double precision, returned in the inputs' type. Norms below 1e-8 count
    as 1e-8.
    """
    (unit_a, norm_a), (unit_b, norm_b) = _unit(embeddings_a), _unit(embeddings_b)
    angle = (unit_a * unit_b).sum(dim=-1, keepdim=True)
    start_a, start_b = (unit_b - angle * unit_a) / norm_a, (unit_a - angle * unit_b) / norm_b
    return start_a.to(embeddings_a.dtype), start_b.to(embeddings_b.dtype)


def cosine_shares(embeddings_a: Tensor, embeddings_b: Tensor) -> tuple[Tensor, Tensor]:
    """Each element's share of the cosine, e0 * e1 / (|e0| |e1|), (..., D); the same for both.

    The shares sum to the cosine. Computed in double precision, returned in the inputs' type. Norms below 1e-8
    count as 1e-8.
    """
    shares = _unit(embeddings_a)[0] * _unit(embeddings_b)[0]
    return shares.to(embeddings_a.dtype), shares.to(embeddings_b.dtype)


def _unit(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    wide = embeddings.double()
    norm = wide.norm(dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)
    return wide / norm, norm


Start = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
STARTS: dict[str, Start] = {"gradient": cosine_start, "shares": cosine_shares}
"""What presets propagate from two embeddings, by the name in the preset."""


def starts_of(preset: Preset, embeddings_a: Tensor, embeddings_b: Tensor) -> tuple[Tensor, Tensor]:
    """What a preset propagates from both embeddings (..., D)."""
    if preset.start not in STARTS:
        raise EngineError(f"preset {preset.name} starts from {preset.start!r}; there are {', '.join(STARTS)}")
    return STARTS[preset.start](embeddings_a, embeddings_b)
