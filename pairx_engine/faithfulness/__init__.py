"""Faithfulness of explanations of pairs.

Does the similarity depend on the pixels that a map names, and is the map stable?
"""

from pairx_engine.faithfulness.continuity import ContinuityCurve, Translation, continuity
from pairx_engine.faithfulness.measure import MEASURES, ChipPair, Row, measure_pairs
from pairx_engine.faithfulness.pixel_flipping import Flipping, FlippingCurve, flip
from pairx_engine.photo.fills import FILLS, fill_chip
from pairx_engine.photo.value_range import ValueRange

__all__ = [
    "FILLS",
    "MEASURES",
    "ChipPair",
    "ContinuityCurve",
    "Flipping",
    "FlippingCurve",
    "Row",
    "Translation",
    "ValueRange",
    "continuity",
    "fill_chip",
    "flip",
    "measure_pairs",
]
