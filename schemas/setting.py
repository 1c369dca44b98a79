"""What a setting says of itself, besides its type, limits, default and description; light, for a quick
command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Table = Literal[
    "photos",
    "embeddings",
    "keypoints",
    "pairs",
    "scores",
    "signals",
    "explanations",
    "suspects",
    "measurements",
]
MODEL, EVIDENCE, PAIRS, PICTURES, RUNNING = "Model", "Local evidence", "Pairs", "Pictures", "Running"
MEASURING, CHOOSING, FAITHFULNESS = "Measuring", "Choosing settings", "Faithfulness"
"""Parts of the help; the latter three are those of an evaluation."""


@dataclass(frozen=True)
class Setting:
    """What a field says of itself besides its type, limits, default and description.

    The field is the one place where a setting is written: options, help, `pairx settings` and fingerprints
    follow from it.
    """

    panel: str | None = None
    """Part of the help that its option stands in; without one it is set by file only."""
    option: str | None = None
    """The option's name, and behind a slash that of its opposite; by default the field's own name."""
    part_of: tuple[Table, ...] = ()
    """Tables whose fingerprints it enters: those whose numbers it changes first, not those computed from
    them.
    What loads a model or a matcher enters by the identity of what was loaded instead."""

    @classmethod
    def of(cls, field: FieldInfo) -> Setting:
        """What the field says; nothing if it is silent."""
        return next((m for m in field.metadata if isinstance(m, cls)), cls())
