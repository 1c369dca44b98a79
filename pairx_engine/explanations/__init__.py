"""Ways to explain a pair, all behind one interface.

They are PAIR-X per preset, plain relevance, gradients, alone, integrated and with biases, class activation maps,
products of cells and of points, changed embeddings that a decoder shows, superpixels taken away, matches of local
features, and controls that know nothing of the photos.
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
    Demanding,
    Explained,
    Explanation,
    Maps,
    Matching,
    NamedChip,
    Shown,
    State,
    Subject,
    Trained,
    needs,
)

__all__ = [
    "Demanding",
    "Explained",
    "Explanation",
    "Maps",
    "Matching",
    "NamedChip",
    "Shown",
    "State",
    "Subject",
    "Trained",
    "explain",
    "explanation_named",
    "explanations",
    "needs",
    "register",
    "unregister",
    "usual",
]
