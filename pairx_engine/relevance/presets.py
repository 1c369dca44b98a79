"""Presets: the named ways to compute relevances.

A new preset is an entry here, or it is registered from anywhere.

Settings, the command line, sweeps and errors offer what `PRESETS` holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from pairx_engine.errors import EngineError
from pairx_engine.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["abs_of_sum", "signed_sum", "sum_of_abs", "positive_sum"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)

GENERAL = "published"
"""The rules that zennit's hooks also have.

Presets by these rules explain every network; all other presets explain those that the fast path can read.
"""


@dataclass(frozen=True)
class Preset:
    """A named way to compute relevances; the name is stored with every result.

    `reduction` turns the signed relevance of each channel at the layer into one number per cell: `abs_of_sum`
    is |sum_c r_c|, `signed_sum` is sum_c r_c (Eq. 1 of the paper), `sum_of_abs` is sum_c |r_c|,
    `positive_sum` is max(sum_c r_c, 0), the relevance that speaks for the similarity. `start` names what is
    propagated from the embedding (`pairx_engine.relevance.starts.STARTS`). `rules` names the rules of the
    propagation (`pairx_engine.relevance.rules.rule_sets.RULE_SETS`).
    """

    name: str
    reduction: Reduction
    start: str = "gradient"
    rules: str = "published"
    about: str = ""

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise EngineError(f"unknown reduction {self.reduction!r}; choose one of {', '.join(REDUCTIONS)}")


PRESETS = Registry(
    "preset",
    [
        Preset("published", "abs_of_sum", about="as the public code computes"),
        # It differs from `published` in the absolute value only.
        Preset("paper", "signed_sum", about="signed Eq. 1"),
        Preset(
            "conserving", "signed_sum", "shares", "conserving", "relevance sums to the cosine at every layer"
        ),
    ],
)


def preset_named(name: str, reduction: str | None = None) -> Preset:
    """The preset of that name, with `reduction` instead of its own if given.

    Raises `EngineError` for an unknown preset or reduction, and lists the known ones.
    """
    preset = PRESETS.named(name)
    # `Preset` itself checks the name of the reduction.
    return preset if reduction is None else replace(preset, reduction=reduction)  # type: ignore[arg-type]


def presets_by(rules: str) -> list[str]:
    """Names of the presets that propagate by a set of rules."""
    return [preset.name for preset in PRESETS.values() if preset.rules == rules]


def reduce_channels(channels: Tensor, reduction: Reduction) -> Tensor:
    """Signed channel relevances (..., C, h, w) to one number per cell (..., h, w)."""
    if reduction == "sum_of_abs":
        return channels.abs().sum(dim=-3)
    total = channels.sum(dim=-3)
    if reduction == "positive_sum":
        return total.clamp(min=0)
    return total.abs() if reduction == "abs_of_sum" else total
