"""The PAIR-X figure: two photos, relevance and matches above, the pixels behind each match below.

A photo is cut once, and the cut has two sizes: the chip, which the model sees and in whose pixels points are
measured, and the picture, which people see at the photo's own resolution. In published deployments overlays
were misplaced because the picture was cut a second time. Here points move from chip to picture in one place,
`Span.to_panel`.
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
from pairx_engine.figure.sheet import draw_figure, identity
from pairx_engine.figure.values import Figure, FigureInput, FigureSide, LocalMatches, PanelFrame

__all__ = [
    "MATCH_COLOURS",
    "Comparison",
    "ComparisonInput",
    "Figure",
    "FigureInput",
    "FigurePhoto",
    "FigureSide",
    "LocalMatches",
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
    "identity",
    "match_colour",
    "score_line",
]
