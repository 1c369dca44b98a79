"""An evaluation of drawn numbers with something in every part, to test its page and its files."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
from PIL import Image

from pairx_engine.evaluation.bootstrap import Interval
from pairx_engine.evaluation.choice import Candidate, Choice
from tasks.pages.evaluation_values import ALL_SCORES, SCORES, Evaluation, FaithfulnessRow, Outlier, Statistic
from tasks.pages.scatter import ReportScatter

DEFAULT_FORM = "gaussian, 10 equal-width bins, weight pairs, min 2"
OTHER_FORM = "histogram of 10 levels, 10 equal-width bins, weight pairs, min 2"
NO_PAIRS = ReportScatter(np.zeros(0), np.zeros(0), np.zeros(0), [])


def webp(width=30, height=20):
    """A grey picture as WebP."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 90, 90)).save(buffer, "WEBP")
    return buffer.getvalue()


def statistic(statistic="delta", score="match_coverage", **changes):
    """One row, without an interval unless one is given."""
    values = {"dataset": "herd", "species": None, "variant": "", "value": 0.5, "low": None, "high": None}
    counts = {"n_correct": 40, "n_incorrect": 60, "n_missing": 0}
    return Statistic(**{**values, **counts, "score": score, "statistic": statistic, **changes})


def statistics(seed=1, **changes):
    """All statistics of all scores, each number unlike the others."""
    rng = np.random.default_rng(seed)
    kinds = [("spearman", ""), ("delta", DEFAULT_FORM), ("delta", OTHER_FORM)]
    kinds += [(name, "") for name in ("auc", "auc_equal_cosine", "auc_missing_lowest")]
    rows = []
    for score in ALL_SCORES:
        for name, variant in kinds:
            low, value, high = sorted(float(v) for v in rng.uniform(0.55, 0.95, 3))
            given = {"variant": variant, "low": low, "value": value, "high": high, **changes}
            rows.append(statistic(name, score, **given))
    return rows


def scatter(n=50):
    """Pairs of two classes, some without an inverted residual mean."""
    rng = np.random.default_rng(5)
    residual = rng.random(n) + 0.01
    residual[::5] = np.nan
    return ReportScatter(rng.random(n), residual, rng.random(n), ["same", "different"] * (n // 2))


def outlier(rank=1, **changes):
    """An incorrect pair that is too plausible."""
    values = {
        "rank": rank, "pair_id": f"pair{rank}", "photo_a": f"a{rank}", "photo_b": f"b{rank}", "identity_a": "Ada",
        "identity_b": "Bo", "correct": False, "cosine": 0.9123, "inverted_residual_mean": 0.0817,
        "match_coverage": 0.4142, "z": 4.26, "z_inverted_residual_mean": 4.26, "z_match_coverage": 1.51, "n_inliers": 57,
    }  # fmt: skip
    return Outlier(**{**values, **changes})


def candidate(layer="blocks.3", preset="published", criterion=0.7, **changes):
    """One choice of settings; its areas and distances differ by score."""
    settings = {
        "layer": layer,
        "preset": preset,
        "reduction": "abs_of_sum",
        "matcher": "sift",
        "homography": "magsac",
    }
    auc = dict(zip(SCORES, (criterion - 0.017, criterion + 0.017), strict=True))
    delta = dict(zip(SCORES, (criterion - 0.913, criterion - 0.571), strict=True))
    return Candidate({**settings, **changes}, auc, delta, criterion, 0.378)


def choice(**changes):
    """Three candidates, the best of which is chosen."""
    best, default, worst = (
        candidate("blocks.4", "paper", 0.783), candidate(criterion=0.741), candidate("blocks.2", criterion=0.602),
    )  # fmt: skip
    values = {
        "candidates": (best, default, worst), "default": default, "best": best, "chosen": best, "held_out_best": 0.769,
        "held_out_default": 0.738, "n_folds": 5, "difference": Interval(0.013, 0.062, 200, 198),
        "reason": "the best is better on all animals and on those held out",
    }  # fmt: skip
    return Choice(**{**values, **changes})


def faithfulness():
    """Two maps under some measures of every kind, for similar and dissimilar pairs."""
    rng = np.random.default_rng(8)
    return [
        FaithfulnessRow(method, measure, similar, *(float(v) for v in rng.uniform(0.1, 0.9, 3)), n_pairs=20)
        for method in ("pairx_published", "random")
        for measure in ("gap", "auc_most_blur_9", "partner_correlation", "continuity_mean")
        for similar in (True, False)
    ]


def evaluation(**changes):
    """Everything there is, or what is changed."""
    values = {
        "dataset": "herd", "created": datetime(2026, 11, 21, 15, 40, tzinfo=UTC),
        "settings": {"model": "embedded", "layers": ["blocks.3"], "top_k": 5}, "layer": "blocks.3", "n_photos": 1555,
        "n_animals": 45, "n_failed": 6, "per_photo": 3, "default_variant": DEFAULT_FORM, "resamples": 1200,
        "statistics": statistics(), "scatter": scatter(), "outliers": [outlier(1), outlier(2, correct=True)],
        "figures": {"pair1": webp(), "pair2": webp(31)}, "beside": statistics(2, dataset="LionData"), "choice": choice(),
        "faithfulness": faithfulness(), "notes": ["few animals"],
    }  # fmt: skip
    return Evaluation(**{**values, **changes})


def empty_evaluation(**changes):
    """An evaluation that has found nothing."""
    nothing = {
        "statistics": [],
        "scatter": NO_PAIRS,
        "outliers": [],
        "figures": {},
        "beside": [],
        "choice": None,
    }
    return evaluation(**{**nothing, "faithfulness": [], "notes": [], "settings": {}, **changes})
