"""The PAIR-X figure: two chips, relevance and matches above, the pixels behind each match below.

Everything is drawn in one frame: the chip that the model saw, stretched once for display. In published
deployments overlays were misplaced because the picture was cut a second time. Here no photo is cut or resized
on its own.
"""

from pairx_engine.figure.assembly import FigurePhoto, figure_input, score_line
from pairx_engine.figure.comparison import (
    Comparison,
    ComparisonInput,
    MethodPanel,
    draw_comparison,
)
from pairx_engine.figure.encoding import decode_map, encode_map, encode_png, encode_webp
from pairx_engine.figure.marks import composite
from pairx_engine.figure.panels import MATCH_COLOURS, match_colour
from pairx_engine.figure.sheet import draw_figure
from pairx_engine.figure.values import Figure, FigureInput, FigureSide, PanelFrame

__all__ = [
    "MATCH_COLOURS",
    "Comparison",
    "ComparisonInput",
    "Figure",
    "FigureInput",
    "FigurePhoto",
    "FigureSide",
    "MethodPanel",
    "PanelFrame",
    "composite",
    "decode_map",
    "draw_comparison",
    "draw_figure",
    "encode_map",
    "encode_png",
    "encode_webp",
    "figure_input",
    "match_colour",
    "score_line",
]
