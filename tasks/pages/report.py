"""The run report: values in, an HTML page and the pictures beside it out.

Nothing is fetched from elsewhere when the page is opened: figures of suspects are files beside it, plots are data
URIs, style and script are inline, and a content security policy forbids the rest. Every string of the catalogue goes through the guard of `tasks.pages.base`.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

from pairx_engine.figure.panels import MATCH_COLOURS, heat_colours
from schemas.sql.files import suspect_rules
from tasks.pages.base import page_environment
from tasks.pages.judgement import ReportJudgement, draw_reliability
from tasks.pages.report_cards import Card, page_values
from tasks.pages.scatter import ReportScatter, draw_plots
from tasks.pages.self_contained import BESIDE
from tasks.pages.tonight import NewSuspect, ReportTonight
from tasks.store.reports import PICTURES, picture_name

MAX_SUSPECTS = 200
"""Most suspects on the page besides those that are new.

More would make it slow to open, and nobody clears more in one sitting.
"""
_COLOURED_KINDS = 4
"""How many kinds, in the rules' order, have a colour of their own; other badges are grey."""


@dataclass(frozen=True)
class ReportSuspect:
    """One suspect, shown by one pair; pictures are WebP files of one size, or None.

    `expected`: the expected share of errors among this suspect and all before it. A suspicion of names
    may be shown by two photos that nobody explained, without cosine, scores and pictures. See
    `pairx_engine.figure.Figure`. `photos` are the names of pictures of the two alone, which lie beside
    the page, for a pair without a figure. `card` is what it asks, if anything.
    """

    rank: int
    kind: str
    score: float
    photo_a: str
    photo_b: str
    identity_a: str | None
    identity_b: str | None
    cosine: float | None
    inverted_residual_mean: float | None
    match_coverage: float | None
    n_matches: int | None
    n_inliers: int | None
    reason: str
    blamed_photo: str | None = None
    proposed_name: str | None = None
    expected: float | None = None
    chips: bytes | None = None
    overlay: bytes | None = None
    colours: bytes | None = None
    photos: tuple[str | None, str | None] = (None, None)
    card: Card | None = None


@dataclass(frozen=True)
class ReportBalance:
    """One sum that must add up, e.g. "photos 374 = embedded 368 + failed 6", and whether it does."""

    text: str
    ok: bool


@dataclass(frozen=True)
class ReportStage:
    """What one stage took: wall seconds, shards done now, share of time in the engine (None: unknown).

    `items` are its photos or pairs, `where` says in words where the time of its workers went.
    """

    stage: str
    seconds: float
    shards: int
    engine_share: float | None = None
    items: int = 0
    per_second: float | None = None
    where: str = ""


@dataclass(frozen=True)
class ReportFailure:
    """How many items of a stage failed with one code, and some of them as (item, message)."""

    stage: str
    code: str
    count: int
    examples: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class ReportInput:
    """Everything in the report; `counts` are the headline numbers, `suspects` come in order of rank.

    Suspects that `tonight` calls new are among them. Answers are kept by the address of the `warehouse`.
    `limit` says what embedding waited for most.
    """

    title: str
    run_id: str
    started: datetime
    finished: datetime
    counts: Mapping[str, int]
    balances: Sequence[ReportBalance]
    suspects: Sequence[ReportSuspect]
    n_suspects_total: int
    scatter: ReportScatter
    failures: Sequence[ReportFailure]
    timings: Sequence[ReportStage]
    settings: Mapping[str, object]
    fingerprints: Mapping[str, str]
    versions: Mapping[str, str]
    warnings: Sequence[str] = ()
    remarks: Sequence[str] = ()
    judgement: ReportJudgement | None = None
    tonight: ReportTonight | None = None
    warehouse: str = ""
    limit: str | None = None

    def __post_init__(self) -> None:
        if self.n_suspects_total < len(self.suspects):
            raise ValueError(
                f"{len(self.suspects)} suspects are given but n_suspects_total is {self.n_suspects_total}"
            )
        if self.finished < self.started:
            raise ValueError(f"the run finished at {self.finished} before it started at {self.started}")


@dataclass(frozen=True)
class RenderedReport:
    """The page, and by name the pictures that it shows from the folder `PICTURES` beside it."""

    html: str
    pictures: Mapping[str, bytes]


def render_report(given: ReportInput) -> RenderedReport:
    """The report as an HTML document and its pictures.

    Raises ValueError when a suspect's picture is no picture. Missing pictures and scores are shown as
    missing.
    """
    new = _new_ones(given)
    tonight = [suspect for suspect in given.suspects if suspect.rank in new]
    others = [suspect for suspect in given.suspects if suspect.rank not in new][:MAX_SUSPECTS]
    shown = [*tonight, *others]
    pictures: dict[str, bytes] = {}
    kinds = Counter(suspect.kind for suspect in shown)
    slowest = max((stage.seconds for stage in given.timings), default=0.0)
    html = (
        _environment(pictures)
        .get_template("report.html.j2")
        .render(
            given=given,
            shown=shown,
            others=others,
            tonight=given.tonight,
            new=new,
            beside=Markup(BESIDE),  # noqa: S704  # our words
            for_script=page_values(given.warehouse),
            kinds=[(kind, kinds[kind]) for kind in sorted(kinds, key=_kind_order)],
            duration=given.finished - given.started,
            slowest=slowest,
            total_seconds=sum(stage.seconds for stage in given.timings),
            engine_share=_engine_share(given.timings),
            n_failures=sum(failure.count for failure in given.failures),
            plots=draw_plots(given.scatter),
            reliability=draw_reliability(given.judgement.bins if given.judgement else ()),
            heat=_heat_gradient(),
            colours=["#{:02x}{:02x}{:02x}".format(*colour) for colour in MATCH_COLOURS],
        )
    )
    return RenderedReport(html, pictures)


def _new_ones(given: ReportInput) -> dict[int, NewSuspect]:
    """What is new by rank; in a first run everything is, and nothing stands out."""
    tonight = given.tonight
    return {} if tonight is None or tonight.since is None else {new.rank: new for new in tonight.suspects}


def _environment(pictures: dict[str, bytes]) -> Environment:
    """The templates; what they show goes into `pictures`."""

    def picture(data: bytes, photos: str) -> dict[str, Any]:
        name = picture_name(data)
        pictures[name] = data
        return {"address": f"{PICTURES}/{name}", **_size(data, photos)}

    return page_environment(
        Path(__file__).parent,
        {
            "number": _number,
            "seconds": _seconds,
            "kind_label": _kind_label,
            "kind_class": _kind_class,
            "setting": _setting,
            "picture": picture,
        },
    )


def _number(value: float | None, digits: int = 2) -> str:
    """A number with `digits` significant digits after zero, or a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:,.{digits}f}"


def _seconds(value: float | timedelta) -> str:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _kind_label(kind: str) -> str:
    rule = suspect_rules().get(kind)
    return rule.label if rule and rule.label else kind.replace("_", " ")


def _kind_class(kind: str) -> str:
    """Class name of a kind's badge; a kind without a colour gets a neutral one."""
    coloured = list(suspect_rules())[:_COLOURED_KINDS]
    return f"kind-{coloured.index(kind)}" if kind in coloured else "kind-other"


def _kind_order(kind: str) -> tuple[int, str]:
    kinds = list(suspect_rules())
    return (kinds.index(kind) if kind in kinds else len(kinds), kind)


def _setting(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _size(data: bytes, photos: str) -> dict[str, int]:
    """The size of a WebP file, so that the page does not jump while pictures load."""
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            width, height = image.size
    except OSError as error:
        raise ValueError(
            f"a picture of the pair {photos} is no WebP file; draw the pair again: {error}"
        ) from error
    return {"width": width, "height": height}


def _heat_gradient() -> str:
    steps = np.linspace(0.0, 1.0, 9)
    colours, opacity = heat_colours(steps)
    return ", ".join(
        f"rgba({r:.0f},{g:.0f},{b:.0f},{a:.2f})" for (r, g, b), a in zip(colours, opacity, strict=True)
    )


def _engine_share(timings: Sequence[ReportStage]) -> float | None:
    """Share of the measured stages' time inside the engine; None when no stage was measured."""
    measured = [stage for stage in timings if stage.engine_share is not None and stage.seconds > 0]
    total = sum(stage.seconds for stage in measured)
    return sum(stage.seconds * (stage.engine_share or 0.0) for stage in measured) / total if total else None
