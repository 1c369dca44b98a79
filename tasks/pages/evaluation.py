"""The page of `pairx evaluate`: an evaluation in, one self-contained HTML file out.

As with the run report, nothing is fetched when the file is opened: pictures are data URIs and style is
inline. There is no script at all, and a content security policy forbids everything else. Every string goes
through the guard of `tasks.pages.base`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from PIL import Image

from pairx_engine.evaluation.choice import Choice
from tasks.pages.base import page_environment
from tasks.pages.evaluation_values import (
    ALL_SCORES,
    OWN_SCORES,
    SCORES,
    Evaluation,
    FaithfulnessRow,
    Outlier,
    Statistic,
)
from tasks.pages.paper_table import PAPER_DIFFERS, PAPER_SOURCE, paper_row
from tasks.pages.scatter import data_uri, draw_plots

MAX_OUTLIERS = 200
"""Most outliers with pictures in one file; more make it slow to open. ``outliers.csv`` lists all."""
SCORE_NAMES = {
    "inverted_residual_mean": "Inverted residual mean",
    "match_coverage": "Match coverage",
    **OWN_SCORES,
    "cosine": "The cosine itself",
}
AUCS = {
    "auc_equal_cosine": "at equal cosine",
    "auc_missing_lowest": "a missing score counting as the lowest",
    "auc": "whatever the cosine",
}
MEASURES = {
    "auc_most": ("area, most relevant first", "lower is better"),
    "auc_least": ("area, least relevant first", "higher is better"),
    "gap": ("gap", "higher is better, 0 is chance"),
    "aopc_most": ("mean drop, most relevant first", "higher is better"),
    "aopc_least": ("mean drop, least relevant first", "lower is better"),
    "behind_best": ("gap behind the best", "an interval above 0: it is behind"),
    "above_controls": ("gap above the best control", "an interval above 0: it knows more"),
    "seconds": ("seconds a pair", "lower is better"),
    "partner_correlation": ("with another partner", "rank correlation; 1 does not look at the partner"),
    "localisation": ("share on the animal", "of a collage of four; 0.25 is chance"),
    "randomised_top": ("upper quarter shuffled", "rank correlation; lower is better"),
    "randomised_all": ("all weights shuffled", "rank correlation; lower is better"),
    "simexpert_correlation": ("with SIMExpert", "rank correlation"),
    "continuity_mean": ("mean", "with a moved copy"),
    "continuity_max": ("largest", "with a moved copy"),
    "continuity_aligned_mean": ("mean, laid over each other", "with a moved copy"),
    "partner_continuity_mean": ("mean", "with the partner"),
    "partner_continuity_max": ("largest", "with the partner"),
    "partner_continuity_aligned_mean": ("mean, laid over each other", "with the partner"),
}
"""How headings name each measure of faithfulness, and how to read it."""
KINDS = ("Ranking", "Pixel flipping", "Checks", "Continuity")
STRENGTHS = ((1.0, "hardly"), (2.0, "a little"), (3.5, "somewhat"), (6.0, "clearly"), (math.inf, "far"))
"""Words for a robust z below each bound."""


@dataclass
class Scope:
    """The statistics of one dataset, or of one species of it, by score, statistic and variant."""

    dataset: str
    species: str | None
    own: bool
    rows: dict[tuple[str, str, str], Statistic] = field(default_factory=dict)

    def get(self, score: str, statistic: str, variant: str = "") -> Statistic | None:
        """The statistic under a variant, or under "" where there is only one way."""
        return self.rows.get((score, statistic, variant)) or self.rows.get((score, statistic, ""))

    def variants(self, statistic: str) -> list[str]:
        """The variants of a statistic in the order given."""
        return list(dict.fromkeys(variant for _, name, variant in self.rows if name == statistic))

    @property
    def areas(self) -> list[tuple[str, str]]:
        """Its areas under the ROC curve as statistic and variant, in the order of `AUCS`."""
        return [(name, variant) for name in AUCS for variant in self.variants(name)]

    @property
    def first(self) -> Statistic:
        """Any of its rows; all have the same numbers of pairs."""
        return next(iter(self.rows.values()))

    @property
    def n_pairs(self) -> int:
        """Its pairs, with and without scores."""
        return self.first.n_correct + self.first.n_incorrect

    def missing(self, score: str) -> int | None:
        """How many of its pairs have no such score; None where the score has no statistics."""
        return next((row.n_missing for (name, _, _), row in self.rows.items() if name == score), None)


def render_evaluation(evaluation: Evaluation) -> str:
    """The whole evaluation as one HTML document; sections without data are left out.

    Raises ValueError when a figure is no WebP file.
    """
    own, beside = _scopes(evaluation.statistics, True), _scopes(evaluation.beside, False)
    overall = next((scope for scope in own if scope.species is None), None)
    n_pairs = len(evaluation.scatter.cosine)
    names = [name for scope in (*own, *beside) for name, _, _ in scope.rows]
    sections = {
        "table": ("Across datasets", bool(own or beside)),
        "plots": ("Score against cosine", n_pairs > 0),
        "delta": ("All forms of Δ", overall is not None and len(overall.variants("delta")) > 0),
        "auc": ("Areas under the ROC curve", any(scope.areas for scope in own)),
        "missing": ("Missing scores", bool(own)),
        "outliers": ("Outliers", bool(evaluation.outliers)),
        "choice": ("Choice of settings", evaluation.choice is not None),
        "faithfulness": ("Faithfulness", bool(evaluation.faithfulness)),
        "settings": ("Settings", bool(evaluation.settings)),
    }
    return (
        _environment()
        .get_template("evaluation.html.j2")
        .render(
            given=evaluation,
            sections={key: title for key, (title, wanted) in sections.items() if wanted},
            headline=headline(evaluation),
            tiles=_tiles(evaluation),
            scores={name: SCORE_NAMES.get(name, name) for name in dict.fromkeys((*ALL_SCORES, *names))},
            own=own,
            scopes=[*own, *beside],
            overall=overall,
            paper={scope.dataset: paper_row(scope.dataset) for scope in (*own, *beside)},
            paper_source=PAPER_SOURCE,
            paper_differs=PAPER_DIFFERS,
            plots=draw_plots(evaluation.scatter) if n_pairs else [],
            aucs=AUCS,
            delta_span=_span([overall] if overall else [], ("delta",), (0.0,)),
            auc_span=_span(own, tuple(AUCS), (0.4, 1.0)),
            by_class=_missing_by_class(evaluation),
            shown=evaluation.outliers[:MAX_OUTLIERS],
            plain_scores=ALL_SCORES,
            paper_scores=SCORES,
            settings_compared=_settings_compared(evaluation.choice),
            faithfulness=_faithfulness_tables(evaluation.faithfulness),
        )
    )


def headline(evaluation: Evaluation) -> str:
    """What the evaluation found about its dataset, in a sentence or two of plain words."""
    found = [
        row
        for row in evaluation.statistics
        if row.statistic == "auc_equal_cosine"
        and row.score in ALL_SCORES
        and row.species is None
        and row.variant in (evaluation.default_variant, "")
        and not _undefined(row.value)
    ]
    if not found:
        return (
            "There are too few correct and incorrect pairs of like cosine to say what the scores add to it."
        )
    best, *rest = sorted(found, key=lambda row: -(row.value or 0.0))
    name = SCORE_NAMES.get(best.score, best.score)
    first = (
        f"{name} tells correct from incorrect pairs at equal cosine in {_percent(best.value)} of comparisons"
    )
    return " ".join(
        [f"{first}{_interval(best, '95 % interval ')}{_against_chance(best)}.", *map(_also, rest)]
    )


def z_in_words(z: float, correct: bool, score: str) -> str:
    """One robust z as a sentence; positive is towards the other class, see `Outlier`."""
    strength = next(word for bound, word in STRENGTHS if abs(z) < bound or math.isinf(bound))
    direction = "higher" if (z < 0) == correct else "lower"
    like = "correct" if correct else "incorrect"
    return (
        f"{SCORE_NAMES.get(score, score)}: {strength} {direction} than in {like} pairs of like cosine, "
        f"by {_number(abs(z), 1)} robust standard deviations."
    )


def _also(row: Statistic) -> str:
    name = SCORE_NAMES.get(row.score, row.score)
    return f"For the {name.lower()} it is {_percent(row.value)}{_interval(row)}{_against_chance(row)}."


def _interval(row: Statistic, name: str = "") -> str:
    if _undefined(row.low) or _undefined(row.high):
        return ""
    return f" ({name}{100 * (row.low or 0.0):.0f}–{100 * (row.high or 0.0):.0f})"


def _against_chance(row: Statistic) -> str:
    if _undefined(row.low) or _undefined(row.high):
        return ""
    if (row.high or 0.0) < 0.5:
        return ", which is worse than chance"
    return "" if (row.low or 0.0) > 0.5 else ", which may be chance"


def _scopes(statistics: Iterable[Statistic], own: bool) -> list[Scope]:
    """Statistics by dataset and species.

    A row that is already there begins another evaluation of the same dataset. A species that has all
    pairs of its dataset would only repeat the dataset's numbers and is left out.
    """
    scopes: list[Scope] = []
    for row in statistics:
        key = (row.score, row.statistic, row.variant)
        same = [s for s in scopes if (s.dataset, s.species) == (row.dataset, row.species)]
        if not same or key in same[-1].rows:
            same.append(Scope(row.dataset, row.species, own))
            scopes.append(same[-1])
        same[-1].rows[key] = row
    whole = {(s.dataset, s.n_pairs) for s in scopes if s.species is None}
    kept = [s for s in scopes if s.species is None or (s.dataset, s.n_pairs) not in whole]
    datasets = list(dict.fromkeys(s.dataset for s in kept))
    return sorted(kept, key=lambda s: (datasets.index(s.dataset), s.species is not None))


def _tiles(evaluation: Evaluation) -> dict[str, int]:
    relation = list(evaluation.scatter.relation)
    tiles = {
        "photos": evaluation.n_photos,
        "animals": evaluation.n_animals,
        "correct pairs": relation.count("same"),
        "incorrect pairs": relation.count("different"),
        "pairs without two names": relation.count("unknown"),
        "failed": evaluation.n_failed,
    }
    return {name: count for name, count in tiles.items() if count or name != "pairs without two names"}


def _span(
    scopes: Sequence[Scope], statistics: tuple[str, ...], always: tuple[float, ...]
) -> tuple[float, float]:
    """Ends of a scale that holds all values and intervals, and the values in `always`."""
    ends = [
        end
        for scope in scopes
        for row in scope.rows.values()
        if row.statistic in statistics
        for end in (row.value, row.low, row.high)
        if end is not None and math.isfinite(end)
    ]
    low, high = min((*ends, *always)), max((*ends, *always))
    margin = 0.03 * (high - low or 1.0)
    return low - margin, high + margin


def _missing_by_class(evaluation: Evaluation) -> list[tuple[str, int, dict[str, int]]]:
    """Class, its pairs, and by score how many of them have none."""
    relation = np.asarray(evaluation.scatter.relation, dtype=str)
    classes = (("correct pairs", "same"), ("incorrect pairs", "different"))
    absent = {name: np.isnan(np.asarray(getattr(evaluation.scatter, name), dtype=float)) for name in SCORES}
    return [
        (title, int(here.sum()), {name: int(absent[name][here].sum()) for name in SCORES})
        for title, here in ((title, relation == name) for title, name in classes)
        if here.any()
    ]


def _settings_compared(choice: Choice | None) -> tuple[list[str], dict[str, str]]:
    """Names of the settings in which candidates differ, and the settings that are the same in all."""
    candidates = choice.candidates if choice else ()
    names = dict.fromkeys(name for candidate in candidates for name in candidate.settings)
    values = {name: {candidate.settings.get(name, "") for candidate in candidates} for name in names}
    return [n for n, v in values.items() if len(v) > 1], {
        n: v.pop() for n, v in values.items() if len(v) == 1
    }


def _faithfulness_tables(rows: Sequence[FaithfulnessRow]) -> list[dict[str, Any]]:
    """One table per kind of measure and class of pairs: measures, methods and the row of each, if any."""
    tables = []
    for kind, similar in product(KINDS, (True, False)):
        here = [r for r in rows if r.similar is similar and _kind(r.measure) == kind]
        if here:
            tables.append(
                {
                    "title": f"{kind}, {'similar' if similar else 'dissimilar'} pairs",
                    "similar": similar,
                    "measures": list(dict.fromkeys(row.measure for row in here)),
                    "methods": list(dict.fromkeys(row.method for row in here)),
                    "rows": {(row.method, row.measure): row for row in here},
                    "n_pairs": sorted({row.n_pairs for row in here}),
                }
            )
    return tables


def _kind(measure: str) -> str:
    if measure in ("gap", "behind_best", "above_controls", "seconds"):
        return KINDS[0]
    if measure.startswith(("auc", "aopc", "gap")):
        return KINDS[1]
    return KINDS[3] if "continuity" in measure else KINDS[2]


def _heading(measure: str) -> tuple[str, str]:
    """The heading of a measure and how to read it; a flipping after the first is named by its ending."""
    for name, (title, how) in MEASURES.items():
        if measure == name:
            return title, how
        if measure.startswith(f"{name}_") and _kind(measure) == KINDS[1]:
            fill, side = measure.removeprefix(f"{name}_").rsplit("_", 1)
            return f"{title}, {fill} in squares of {side}", how
    return measure, ""


def _environment() -> Environment:
    environment = page_environment(
        Path(__file__).parent,
        {
            "number": _number,
            "heading": _heading,
            "place": _place,
            "setting": _setting,
            "picture": _picture,
            "z_sentences": _z_sentences,
        },
    )
    environment.tests["undefined_number"] = _undefined
    return environment


def _undefined(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` digits after the point and a true minus sign, or a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    # Adding zero turns a negative zero, which rounding may give, into a plain zero.
    text = f"{round(value, digits) + 0.0:,.{digits}f}" if math.isfinite(value) else "∞" if value > 0 else "-∞"
    return text.replace("-", "−")


def _percent(value: float | None) -> str:
    return f"{100 * (value or 0.0):.0f} %"


def _place(value: float, span: tuple[float, float]) -> str:
    """Where a value lies on a scale, in percent of its width."""
    return f"{100 * min(1.0, max(0.0, (value - span[0]) / (span[1] - span[0]))):.2f}%"


def _setting(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _picture(figures: Mapping[str, bytes], outlier: Outlier) -> dict[str, Any] | None:
    """An outlier's figure as data URI with its size; None if it has no figure.

    With the size given, the page does not jump while pictures load.
    """
    data = figures.get(outlier.pair_id)
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP",)) as image:
            width, height = image.size
    except OSError as error:
        raise ValueError(
            f"the figure of the pair {outlier.photo_a} / {outlier.photo_b} is no WebP file; draw it again: {error}"
        ) from error
    return {"uri": data_uri("image/webp", data), "width": width, "height": height}


def _z_sentences(outlier: Outlier) -> list[str]:
    found = ((score, getattr(outlier, f"z_{score}")) for score in SCORES)
    return [z_in_words(z, outlier.correct, score) for score, z in found if not _undefined(z)]
