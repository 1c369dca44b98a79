"""Text on a figure: measured, shortened to a line, or wrapped to several. Sizes are in one unit, any."""

from __future__ import annotations

import bisect

from pairx_engine.figure.marks import Colour, font_for

INK: Colour = (28, 32, 38)
QUIET: Colour = (98, 106, 116)
WARNING: Colour = (150, 84, 0)


def width_of(text: str, size: int) -> float:
    """The width of a line of text in pixels."""
    return font_for(text, size).getlength(text)


def fitted(text: str, size: int, width: int) -> str:
    """The text on one line, shortened in the middle until it is at most `width` pixels wide."""
    text = " ".join(text.split())
    font = font_for(text, size)
    if font.getlength(text) <= width:
        return text
    # The first number of characters that is too wide: texts grow with it, and names may be long.
    wide = bisect.bisect_left(
        range(2, len(text)), True, key=lambda keep: font.getlength(_shortened(text, keep)) > width
    )
    return _shortened(text, wide + 1)


def wrapped(text: str, size: int, width: int, most: int) -> list[str]:
    """The text in at most `most` lines of `width` pixels, broken at spaces.

    A word that is wider than a line is shortened in its middle. Where the lines do not hold all of the text,
    the last one ends with three dots.
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else ""
        if longer and width_of(longer, size) <= width:
            lines[-1] = longer
        elif len(lines) == most:
            return [*lines[:-1], _cut(lines[-1], size, width)]
        else:
            lines.append(fitted(word, size, width))
    return lines


def _cut(line: str, size: int, width: int) -> str:
    """A line of text followed by three dots, without as many of its last words as that takes."""
    words = line.split(" ")
    while len(words) > 1 and width_of(f"{' '.join(words)} ...", size) > width:
        words.pop()
    return fitted(f"{' '.join(words)} ...", size, width)


def _shortened(text: str, keep: int) -> str:
    """`keep` characters of the text, from both ends, with three dots between them."""
    head = (keep + 1) // 2
    return f"{text[:head]}...{text[len(text) - keep // 2 :] if keep > 1 else ''}"
