"""What settings may name: enters the members of the engine's registries.

The module of settings may not import the engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from pairx_engine.local.registry import LOCAL_MATCHERS
from pairx_engine.relevance.presets import AUTO, PRESETS
from schemas.settings import OFFERS


class _Presets:
    """All presets, and the default of a network."""

    def __iter__(self) -> Iterator[str]:
        return iter((AUTO, *PRESETS))

    def listed(self) -> str:
        """All names with what they mean."""
        return f"{AUTO} (published; cp for networks with attention), {PRESETS.listed()}"


OFFERS["preset"] = _Presets()
OFFERS["matcher"] = LOCAL_MATCHERS
OURS = frozenset((AUTO, *PRESETS, *LOCAL_MATCHERS))
"""What this package itself offers; others may register more."""
