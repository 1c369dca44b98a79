"""Rules as rows: which steps a rule fits, and how it is made.

The first row of a set that fits a step gives its rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from timm.layers import Conv2dSame
from torch import nn
from zennit.types import Activation, AvgPool, BatchNorm, Linear

from pairx_engine.relevance.hooks import SQUEEZE_EXCITE
from pairx_engine.relevance.reading import Place
from pairx_engine.relevance.rules.base import Pass, Plain, Rule
from pairx_engine.relevance.rules.modified_gradients import GradientRule
from pairx_engine.relevance.trace import SEVERAL, Untraceable

Fits = Callable[[Place], bool]
AnyRule = Rule | GradientRule
Make = Callable[[Place], AnyRule]
Types = tuple[type[nn.Module], ...]
Form = Literal["relevance", "gradient"]


@dataclass(frozen=True)
class Row:
    """A kind of steps and their rule.

    Modules of the types `whole`, subclasses included, are one step each. So are torch's own modules in any
    case. All other modules are read into what they call. `make` may refuse with `Untraceable`.
    """

    fits: Fits
    make: Make
    whole: Types = ()


@dataclass(frozen=True)
class RuleSet:
    """Rows in the order in which they are tried, and the name by which presets know them.

    If no row fits a step, the network cannot be explained by these rules. `form` says what their recordings
    pull: relevances (`base`), or gradients of which activations make relevances (`modified_gradients`).
    """

    name: str
    rows: tuple[Row, ...]
    about: str = ""
    form: Form = "relevance"
    holds: Fits = lambda at: False
    """Which steps give constants: no relevance passes them."""
    attention_alone: bool = False
    """Whether without attention another set computes the same."""
    accounts: bool = False
    """Whether relevance that does not reach the pixels can be accounted for."""

    @property
    def whole(self) -> Types:
        """Module types that are one step each."""
        return tuple(kind for row in self.rows for kind in row.whole)

    @property
    def ruled(self) -> Types:
        """Those of these types with a rule other than their gradient."""
        return tuple(kind for row in self.rows if row.make is not plain for kind in row.whole)

    def rule_of(self, place: Place) -> AnyRule | None:
        """The rule of a step; None where no row fits."""
        for row in self.rows:
            if row.fits(place):
                return row.make(place)
        return None


def of_type(types: Types, make: Make) -> Row:
    """Modules of some types, subclasses included, each kept whole."""
    return Row(lambda at: isinstance(at.module, types), make, types)


def passing(at: Place) -> Rule:
    """The rule by which relevance passes unchanged."""
    return Pass()


def plain(at: Place) -> Rule:
    """The rule of the ordinary gradient."""
    return Plain()


def refused(because: Callable[[Place], str]) -> Make:
    """No rule at all: the network cannot be read into known steps."""

    def make(at: Place) -> Rule:
        raise Untraceable(f"its step {at.step.name} {because(at)}")

    return make


OF_ONE_TENSOR = Row(
    lambda at: at.name in SEVERAL or isinstance(at.module, nn.MultiheadAttention),
    refused(lambda at: "gives several tensors"),
)

FIRST = (
    OF_ONE_TENSOR,
    # Gates included: all relevance goes to the signal. A `BatchNormAct2d` is a batch norm as a whole.
    of_type((*SQUEEZE_EXCITE, Activation, BatchNorm), passing),
    Row(lambda at: at.is_identity, passing),
    Row(
        lambda at: isinstance(at.module, (Linear, AvgPool)) and at.is_shared,
        refused(lambda at: "is one of several that share a layer"),
    ),
)
"""The rows with which every set begins."""


def layers(convolution: Make, linear: Make) -> tuple[Row, ...]:
    """Rows of the layers with weights.

    Layers that are not known to compute what their type says are refused.
    """
    return (
        Row(lambda at: is_known_convolution(at.module), convolution),
        Row(lambda at: type(at.module) is nn.Linear, linear),
        of_type((Linear,), refused(lambda at: f"is a {type(at.module).__name__}")),
    )


def is_known_convolution(module: Any) -> bool:
    """Whether a module convolves exactly as its type says; subclasses may do anything to their weights."""
    return (
        type(module) in (nn.Conv2d, Conv2dSame)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )
