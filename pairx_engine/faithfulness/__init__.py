"""Faithfulness of explanations of pairs.

Does the similarity depend on the pixels that a map names, and is the map stable? Does it look at the partner,
does it find the animal among others, does it depend on what the network has learned?
"""

from pairx_engine.faithfulness.common import ChipPair, Common
from pairx_engine.faithfulness.continuity import ContinuityCurve, Translation, continuity
from pairx_engine.faithfulness.measure import (
    CHECKS,
    Asked,
    Protocol,
    Row,
    measure,
    measure_pairs,
)
from pairx_engine.faithfulness.pixel_flipping import Flipping, FlippingCurve, flip
from pairx_engine.photo.fills import FILLS, fill_chip
from pairx_engine.photo.value_range import ValueRange

__all__ = [
    "CHECKS",
    "FILLS",
    "Asked",
    "ChipPair",
    "Common",
    "ContinuityCurve",
    "Flipping",
    "FlippingCurve",
    "Protocol",
    "Row",
    "Translation",
    "ValueRange",
    "continuity",
    "fill_chip",
    "flip",
    "measure",
    "measure_pairs",
]
