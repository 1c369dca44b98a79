"""What a setting says of itself, besides its type, limits, default and description.

The module imports little, so that the command line starts quickly.
"""

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
CATALOGUE = "Catalogue"
MEASURING, CHOOSING, FAITHFULNESS = "Measuring", "Choosing settings", "Faithfulness"
"""Parts of the help; the last three are those of an evaluation."""


@dataclass(frozen=True)
class Setting:
    """What a field says of itself besides its type, limits, default and description.

    A setting is written in one place, its field: options, help, `pairx settings` and fingerprints follow
    from it.
    """

    panel: str | None = None
    """The part of the help that lists its option; without one the setting is set by file only."""
    option: str | None = None
    """The option's name, with its opposite after a slash; by default the field's own name."""
    part_of: tuple[Table, ...] = ()
    """Tables whose fingerprints it enters.

    They are the tables whose numbers it changes first, not those computed from them. A setting that loads
    a model or a matcher does not enter itself; the identity of what was loaded does.
    """

    @classmethod
    def of(cls, field: FieldInfo) -> Setting:
        """What the field says; an empty `Setting` if it says nothing."""
        return next((m for m in field.metadata if isinstance(m, cls)), cls())
