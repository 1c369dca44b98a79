"""The report's section on the judgement: how much is wrong, and how reliable probabilities are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.pages.scatter import data_uri


@dataclass(frozen=True)
class Estimate:
    """An expected number and an interval that holds the true number nine times in ten."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class ReportBin:
    """Pairs of like probability: their number, mean stated probability, and share with one name."""

    pairs: int
    stated: float
    found: float


@dataclass(frozen=True)
class ReportCandidates:
    """A photo of an unknown animal and its likeliest answers.

    An answer is (name or None for a new animal, probability).
    """

    photo: str
    answers: Sequence[tuple[str | None, float]]


@dataclass(frozen=True)
class ReportJudgement:
    """The judgement of the whole catalogue; None where nothing could be said.

    `sensitivity`: share of names made wrong on purpose that is found. `undefended`: photos with a name
    that no other photo can confirm. `candidates`: the first of `n_unknown` unknown photos.
    """

    names: int
    wrong_names: Estimate
    sensitivity: float | None
    animals: Estimate | None
    undefended: int
    calibration_error: float | None
    brier: float | None
    brier_cosine: float | None
    bins: Sequence[ReportBin] = ()
    candidates: Sequence[ReportCandidates] = ()
    n_unknown: int = 0


def draw_reliability(bins: Sequence[ReportBin]) -> str:
    """Share found against probability stated, one dot per bin: data URI of an SVG, empty without bins."""
    if not bins:
        return ""
    # Importing matplotlib takes long; commands that draw no report must not pay for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#8a8f98", linewidth=1, linestyle="--", label="as stated")
    axes.plot(
        [b.stated for b in bins], [b.found for b in bins], color="#0072b2", marker="o", label="as found"
    )
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("stated: mean probability of one animal")
    axes.set_ylabel("found: share of pairs with one name")
    axes.grid(True, color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return data_uri("image/svg+xml", buffer.getvalue())
