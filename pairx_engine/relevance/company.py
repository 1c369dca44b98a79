"""Photos recorded together, and the starts of each.

It says how what is kept per photo meets what is pulled per start. N photos run forward as one batch, so
everything that a recording keeps has N items. Relevance has S = N P items, the P starts of the first photo
first. With one photo its terms serve every start; with one start per photo the two have the same items.
"""

from __future__ import annotations

from torch import Tensor


def times(relevance: Tensor, kept: Tensor) -> Tensor:
    """Relevance (S, ...) times what is kept of each photo (N, ...), as (S, ...)."""
    if meet(relevance, kept):
        return relevance * kept
    return joined(by_photo(relevance, kept) * kept.unsqueeze(1))


def meet(relevance: Tensor, kept: Tensor) -> bool:
    """Whether the two can be multiplied as they are: one photo, or one start of each."""
    return len(kept) in (1, len(relevance))


def by_photo(relevance: Tensor, kept: Tensor) -> Tensor:
    """Relevance (S, ...) as (N, P, ...), a view."""
    return relevance.unflatten(0, (len(kept), -1))


def joined(relevance: Tensor) -> Tensor:
    """The inverse of `by_photo`."""
    return relevance.flatten(0, 1)
