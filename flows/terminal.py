"""The consoles that commands print to; foreign text cannot steer the terminal there."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from schemas.foreign_text import printable_lines


class PlainConsole(Console):
    """A console that prints text as it is: without markup, highlights, wrapping or escape sequences."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; removes from texts what a terminal would obey."""
        super().print(*(printable_lines(o) if isinstance(o, str) else o for o in objects), **options)
