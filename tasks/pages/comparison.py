"""The page of `pairx compare`: compared pairs in, one self-contained HTML file out.

As with the other pages, nothing is fetched when the file is opened: pictures are data URIs and style is
inline. There is no script, and a content security policy forbids everything else. Every string goes through
the guard of `tasks.pages.base`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment

from pairx_engine.comparison import ComparedPair
from pairx_engine.figure import encode_webp
from pairx_engine.figure.values import Pixels
from tasks.pages.base import page_environment
from tasks.pages.scatter import data_uri

MOST_IN_A_MATRIX = 16
"""Methods whose likeness is shown pair by pair; of more only the most alike is named."""


@dataclass(frozen=True)
class Picture:
    """A picture of a page: a data URI and its size in pixels."""

    uri: str
    width: int
    height: int

    @classmethod
    def of(cls, pixels: Pixels) -> Picture:
        """A picture (H, W, 3) as WebP."""
        return cls(data_uri("image/webp", encode_webp(pixels)), pixels.shape[1], pixels.shape[0])


@dataclass(frozen=True)
class MethodOnPage:
    """One method's part of a pair; without a picture, the reason why.

    `alike` is the method whose maps are most like its own, with Spearman's rho.
    """

    name: str
    about: str
    cost: float
    sees_partner: bool
    seconds: float
    remarks: Sequence[str]
    picture: Picture | None
    reason: str
    alike: tuple[str, float] | None


@dataclass(frozen=True)
class PairOnPage:
    """One compared pair; `likeness` holds rho of each two methods, None where there is none.

    `note` is what else is known of the pair.
    """

    title: str
    photos: tuple[str, str]
    cosine: float
    picture: Picture
    methods: Sequence[MethodOnPage]
    likeness: Sequence[Sequence[float | None]]
    note: str = ""

    @classmethod
    def of(cls, pair: ComparedPair, title: str, note: str = "") -> PairOnPage:
        """What the page shows of a compared pair; its pictures are encoded here, its maps are let go."""
        methods = [
            MethodOnPage(
                one.method.name,
                one.method.about,
                one.method.cost,
                one.method.sees_partner,
                one.seconds,
                one.remarks,
                None if panel is None else Picture.of(panel),
                one.reason,
                pair.most_alike(i),
            )
            for i, (one, panel) in enumerate(zip(pair.methods, pair.drawn.panels, strict=True))
        ]
        likeness = [[None if math.isnan(rho) else float(rho) for rho in row] for row in pair.likeness]
        a, b = pair.photos
        return cls(
            title, (a.title, b.title), pair.cosine, Picture.of(pair.drawn.photos), methods, likeness, note
        )

    @property
    def wide(self) -> bool:
        """Whether a panel needs a whole row of the page."""
        return self.picture.width > 3.4 * self.picture.height


def render_comparison(pairs: Sequence[PairOnPage], settings: Mapping[str, str]) -> str:
    """All pairs as one HTML document; `settings` says how they were explained."""
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(pairs=pairs, settings=settings, most=MOST_IN_A_MATRIX)
    )


def _environment() -> Environment:
    return page_environment(Path(__file__).parent, {"rho": _rho, "shade": _shade})


def _rho(value: float | None) -> str:
    """A correlation with two digits and a true minus; a dash for None."""
    # Rounded first, so that there is no minus zero.
    return "–" if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def _shade(value: float | None) -> str:
    """How strongly a cell of the matrix is coloured, in percent."""
    return f"{100 * max(0.0, value or 0.0):.0f}%"
