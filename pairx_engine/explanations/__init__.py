"""Ways to explain a pair, all behind one interface.

They are PAIR-X per preset, plain relevance, gradients, class activation maps, products of cells, changes of
the embedding as a decoder shows them, and controls that know nothing of the photos.
"""

from pairx_engine.explanations.registry import (
    explain,
    explanation_named,
    explanations,
    register,
    unregister,
    usual,
)
from pairx_engine.explanations.seam import (
    Explained,
    Explanation,
    Maps,
    NamedChip,
    Shown,
    State,
    Subject,
    Trained,
)

__all__ = [
    "Explained",
    "Explanation",
    "Maps",
    "NamedChip",
    "Shown",
    "State",
    "Subject",
    "Trained",
    "explain",
    "explanation_named",
    "explanations",
    "register",
    "unregister",
    "usual",
]
