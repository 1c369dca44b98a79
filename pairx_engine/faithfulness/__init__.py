"""Faithfulness of explanations of pairs: does the similarity hang on the pixels that a map names, and is the map stable?"""

from pairx_engine.faithfulness.continuity import ContinuityCurve, Translation, continuity
from pairx_engine.faithfulness.fills import FILLS, ValueRange, fill_chip
from pairx_engine.faithfulness.maps import METHODS, PairMapper
from pairx_engine.faithfulness.measure import MEASURES, Pair, Row, measure_pairs
from pairx_engine.faithfulness.pixel_flipping import Flipping, FlippingCurve, flip

__all__ = [
    "FILLS",
    "MEASURES",
    "METHODS",
    "ContinuityCurve",
    "Flipping",
    "FlippingCurve",
    "Pair",
    "PairMapper",
    "Row",
    "Translation",
    "ValueRange",
    "continuity",
    "fill_chip",
    "flip",
    "measure_pairs",
]
