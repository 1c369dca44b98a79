"""The page of `pairx who`: photos with their likeliest answers in, one self-contained HTML file out.

As with the other pages nothing is fetched, there is no script, and every string goes through the guard of
`tasks.pages.base`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pairx_engine.errors import PhotoError
from pairx_engine.photo.chips import picture_of
from tasks.pages.base import page_environment
from tasks.pages.comparison import Picture
from tasks.photo_files import read_cut

MOST = 200
"""Most photos on one page."""
_SIDE = 320
"""Most pixels of a picture's long side."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """A photo on the page: its id, and its picture or why there is none."""

    photo: str
    picture: Picture | None
    reason: str = ""


@dataclass(frozen=True)
class AnswerOnPage:
    """One answer; `name` None is a new animal. `best` is the photo that says so most, None where there is none."""

    name: str | None
    probability: float
    best: Shown | None
    one_animal: float | None
    cosine: float | None = None


@dataclass(frozen=True)
class PhotoOnPage:
    """One photo that was asked for, with its present name if it has one, and its answers."""

    asked: Shown
    called: str | None
    answers: Sequence[AnswerOnPage]


def show(row: Row, max_pixels: int) -> Shown:
    """The picture of a `photos` row: what the model saw of it, small."""
    try:
        pixels = picture_of(read_cut(row, max_pixels), _SIDE)
    except PhotoError as error:
        return Shown(str(row["photo_id"]), None, str(error))
    return Shown(str(row["photo_id"]), Picture.of(pixels))


def photos_on_page(rows: Sequence[Row], shown: Callable[[str], Shown]) -> list[PhotoOnPage]:
    """The rows of `tasks.who.Answers` by photo; `shown` gives the picture of a photo."""
    found = []
    for photo, group in groupby(rows, key=lambda row: str(row["photo_id"])):
        answers = list(group)
        found.append(
            PhotoOnPage(
                shown(photo),
                answers[0]["called"],
                [
                    AnswerOnPage(
                        None if row["new_animal"] else row["answer"],
                        row["probability"],
                        None if row["best_photo"] is None else shown(row["best_photo"]),
                        row["one_animal_with_it"],
                        row["cosine_with_it"],
                    )
                    for row in answers
                ],
            )
        )
    return found


def render_who(photos: Sequence[PhotoOnPage], notes: Sequence[str], run_id: str, left_out: int = 0) -> str:
    """The whole page; `run_id` is the run that judged, `left_out` how many photos the page does not show."""
    environment = page_environment(Path(__file__).parent, {"share": lambda value: f"{value:.3f}"})
    return environment.get_template("who.html.j2").render(
        photos=photos, notes=notes, run_id=run_id, left_out=left_out
    )
