"""The rules of PAIR-X's public code as rows.

They are those of the general path (`pairx_engine.relevance.hooks`).
"""

from __future__ import annotations

from zennit.types import AvgPool

from pairx_engine.models.miewid import GeneralisedMeanPool
from pairx_engine.relevance.reading import Place
from pairx_engine.relevance.rules.base import Copy, Epsilon, Norm, Rule
from pairx_engine.relevance.rules.convolution import ZPlus
from pairx_engine.relevance.rules.rows import FIRST, Row, RuleSet, layers, of_type, plain, refused


def _convolution(at: Place) -> Rule:
    folded = at.reading.followed.get(at.module)
    return ZPlus(at.module, folded, at.input_nonnegative, at.precision, at.reading.layout)


def _linear(at: Place) -> Rule:
    return Epsilon(at.module, at.reading.followed.get(at.module), at.precision)


PUBLISHED = RuleSet(
    "published",
    (
        *FIRST,
        *layers(_convolution, _linear),
        of_type((AvgPool,), lambda at: Norm()),
        of_type((GeneralisedMeanPool,), plain),
        Row(
            lambda at: at.holds_ruled,
            refused(lambda at: f"a {type(at.module).__name__}, holds layers used in unknown ways"),
        ),
        Row(lambda at: at.sums_two, lambda at: Copy()),
        Row(lambda at: True, plain),
    ),
)
