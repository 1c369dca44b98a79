"""Presets: the named ways to compute relevances.

A new preset is an entry here, or it is registered from anywhere.

Settings, the command line, sweeps and errors offer what `PRESETS` holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite, isnan, nan
from typing import TYPE_CHECKING, Literal, get_args

from pairx_engine.errors import EngineError
from pairx_engine.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["abs_of_sum", "signed_sum", "sum_of_abs", "positive_sum"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)

AUTO = "auto"
"""The name for the default of a network (`pairx_engine.relevance.suitable`)."""
GENERAL = "published"
"""The rules that zennit's hooks also have.

Presets by these rules explain every network; all other presets explain those that the fast path can read.
"""


@dataclass(frozen=True)
class Gammas:
    """What the rules for transformers add to contributions of one sign, by kind of layer; 0 adds nothing.

    `attention` is for linear layers that make queries, keys and values or read what attention gives, `linear`
    for all others, `convolution` for convolutions, that of patches included.
    """

    linear: float = 0.0
    attention: float = 0.0
    convolution: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and value >= 0):
                raise EngineError(f"gamma {field.name} must be a number of 0 or more, not {value}")


@dataclass(frozen=True)
class Preset:
    """A named way to compute relevances; the name is stored with every result.

    `reduction` turns the signed relevance of each channel at the layer into one number per cell: `abs_of_sum`
    is |sum_c r_c|, `signed_sum` is sum_c r_c (Eq. 1 of the paper), `sum_of_abs` is sum_c |r_c|,
    `positive_sum` is max(sum_c r_c, 0), the relevance that speaks for the similarity. `start` names what is
    propagated from the embedding (`pairx_engine.relevance.starts.STARTS`). `rules` names the rules of the
    propagation (`pairx_engine.relevance.rules.rule_sets.RULE_SETS`). `gammas` are parameters of the rules
    that have some; a preset's name may give others.
    """

    name: str
    reduction: Reduction
    start: str = "gradient"
    rules: str = "published"
    about: str = ""
    gammas: Gammas | None = None

    @property
    def parameters(self) -> dict[str, float]:
        """The gammas by name; empty where the rules have none."""
        return {} if self.gammas is None else asdict(self.gammas)

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise EngineError(f"unknown reduction {self.reduction!r}; choose one of {', '.join(REDUCTIONS)}")


MEASURED = Gammas(linear=0.05, attention=0.0, convolution=0.25)
"""Most faithful of those tried on a vision transformer: little, and nothing beside attention."""

PRESETS = Registry(
    "preset",
    [
        Preset("published", "abs_of_sum", about="as the public code computes"),
        # It differs from `published` in the absolute value only.
        Preset("paper", "signed_sum", about="signed Eq. 1"),
        Preset(
            "conserving", "signed_sum", "shares", "conserving", "relevance sums to the cosine at every layer"
        ),
        Preset("cp", "signed_sum", "shares", "cp", "gamma rule, attention held; all networks", MEASURED),
        Preset(
            "attnlrp",
            "signed_sum",
            "shares",
            "attnlrp",
            "gamma rule, attention carries; transformers",
            MEASURED,
        ),
    ],
)


def preset_named(name: str, reduction: str | None = None) -> Preset:
    """The preset of that name, with `reduction` instead of its own if given.

    A name may carry gammas: ``cp:linear=0.1:convolution=0``. Those that it leaves out stay. Raises
    `EngineError` for an unknown preset, parameter or reduction, and lists the known ones.
    """
    own, *parameters = name.split(":")
    preset = PRESETS.named(own)
    if parameters:
        preset = replace(preset, name=name, gammas=_gammas(preset, parameters))
    # `Preset` itself checks the name of the reduction.
    return preset if reduction is None else replace(preset, reduction=reduction)  # type: ignore[arg-type]


def _gammas(preset: Preset, parameters: Sequence[str]) -> Gammas:
    if preset.gammas is None:
        having = ", ".join(p.name for p in PRESETS.values() if p.gammas is not None)
        raise EngineError(f"preset {preset.name} has no parameters; those of {having} are gammas")
    known = [field.name for field in fields(Gammas)]
    given: dict[str, float] = {}
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = nan
        if key not in known or isnan(number):
            raise EngineError(
                f"preset {preset.name} does not understand {parameter!r}; "
                f"write {preset.name}:{':'.join(f'{k}=NUMBER' for k in known)}, or some of these"
            )
        given[key] = number
    return replace(preset.gammas, **given)


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
