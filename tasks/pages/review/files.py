"""The files that the review's page is made of; nothing but these is ever served from the disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tasks.pages.base import page_environment

_FOLDER = Path(__file__).parent
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@cache
def page() -> str:
    """The page, which holds no word of any catalogue: its script asks for these."""
    scripts = [name for name in _files() if name.endswith(".js") and name != "main.js"]
    return page_environment(_FOLDER, {}).get_template("review.html.j2").render(scripts=scripts)


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    return {
        path.name: (path.read_bytes(), _TYPES[path.suffix])
        for path in sorted(_FOLDER.iterdir())
        if path.suffix in _TYPES
    }


def static_file(name: str) -> tuple[bytes, str] | None:
    """A script or a style by its name, with its media type; None where there is none."""
    return _files().get(name)
