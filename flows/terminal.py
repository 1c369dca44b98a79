"""What commands print to: rich consoles on which no text of others can steer the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from schemas.foreign_text import printable_lines


class PlainConsole(Console):
    """A console that takes a text for what it is: no markup, no highlights, no line breaks of its own, no
    escape sequences."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; texts lose what a terminal would obey."""
        super().print(*(printable_lines(o) if isinstance(o, str) else o for o in objects), **options)
