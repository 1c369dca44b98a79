"""The report's scatter plots: cosine of every scored pair against each of its plausibility scores."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 60_000
"""Pairs drawn per class and plot; the histograms always count all."""
FAR = 3.0
"""How many interquartile ranges beyond a quartile a score is an outlier: Tukey's outer fences."""
MOST_OUTLIERS = 0.05
"""Share of the pairs up to which outliers on one side do not stretch the axis."""
RELATIONS = {
    "unknown": ("name unknown", "#8a8f98", "s"),
    "different": ("different names (incorrect)", "#d55e00", "^"),
    "same": ("same name (correct)", "#0072b2", "o"),
}


@dataclass(frozen=True)
class ReportScatter:
    """All scored pairs as equally long lists; NaN: no such score; relation: same, different or unknown."""

    cosine: NDArray[np.floating]
    inverted_residual_mean: NDArray[np.floating]
    match_coverage: NDArray[np.floating]
    relation: Sequence[str]

    def __post_init__(self) -> None:
        lengths = {
            len(self.cosine),
            len(self.inverted_residual_mean),
            len(self.match_coverage),
            len(self.relation),
        }
        if len(lengths) != 1:
            raise ValueError(f"scatter lists must be equally long, not {sorted(lengths)}")
        odd = set(self.relation) - set(RELATIONS)
        if odd:
            raise ValueError(f"relation must be one of {sorted(RELATIONS)}, not {sorted(odd)}")


def draw_plots(scatter: ReportScatter) -> list[dict[str, str]]:
    """One plot per plausibility score: `label`, `caption` in words and picture `uri`, empty without pairs."""
    cosine = np.asarray(scatter.cosine, dtype=np.float64)
    relation = np.asarray(scatter.relation, dtype=str)
    axes = (
        (
            "Inverted residual mean (Eq. 4), 1 / chip pixel",
            scatter.inverted_residual_mean,
            True,
            "no homography",
        ),
        ("Relevance-weighted match coverage (Eq. 5)", scatter.match_coverage, False, "no coverage"),
    )
    plots = []
    for label, values, logarithmic, missing in axes:
        score = np.asarray(values, dtype=np.float64)
        drawable = np.isfinite(cosine) & np.isfinite(score) & ((score > 0) | (not logarithmic))
        left_out = int((~drawable).sum())
        caption = f"All {len(score):,} scored pairs."
        if left_out:
            caption = f"{left_out:,} of {len(score):,} scored pairs have {missing} and are not drawn."
        low, high = axis_range(score[drawable], logarithmic)
        for beyond, edge in ((score[drawable] > high, "upper"), (score[drawable] < low, "lower")):
            if count := int(beyond.sum()):
                pairs = "1 pair lies" if count == 1 else f"{count:,} pairs lie"
                farthest = score[drawable].max() if edge == "upper" else score[drawable].min()
                caption += (
                    f" {pairs} beyond the {edge} edge, as far as {farthest:.3g}, and stand on it as hollow triangles"
                    f"{', as exact copies do' if logarithmic and edge == 'upper' else ''}."
                )
        plots.append(
            {
                "uri": _plot(cosine[drawable], score[drawable], relation[drawable], label, logarithmic)
                if drawable.any()
                else "",
                "label": label,
                "caption": caption,
            }
        )
    return plots


def axis_range(values: NDArray[np.float64], logarithmic: bool) -> tuple[float, float]:
    """The least and the greatest of the values (n,) that an axis has room for.

    The rule is Tukey's: a value more than `FAR` interquartile ranges below the first quartile or above the
    third is an outlier, on a logarithmic axis by its logarithm. Outliers of one side are left out of the range
    if they are at most `MOST_OUTLIERS` of the values; more of them are no exception, and the axis shows them.
    So are all where half of the values are one. Without any outlier these are the minimum and the maximum.
    """
    if not len(values):
        return 0.0, 0.0
    scale = np.log(values) if logarithmic else values
    first, third = np.percentile(scale, (25, 75))
    reach = FAR * (third - first)
    below, above = scale < first - reach, scale > third + reach
    kept = np.ones(len(values), dtype=bool)
    for outliers in (below, above):
        if reach > 0 and outliers.mean() <= MOST_OUTLIERS:
            kept &= ~outliers
    return float(values[kept].min()), float(values[kept].max())


def data_uri(kind: str, data: bytes) -> str:
    """Bytes of media type `kind` as a data URI, so that a page needs no second file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _plot(
    cosine: NDArray[np.float64],
    score: NDArray[np.float64],
    relation: NDArray[np.str_],
    label: str,
    logarithmic: bool,
) -> str:
    """Cosine against one score with marginal histograms, as data URI of an SVG.

    Its points are one embedded raster.
    """
    # Importing matplotlib takes long; commands that draw no report must not pay for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(5, 1), height_ratios=(1, 5), wspace=0.03, hspace=0.03)
    main = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=main)
    beside = figure.add_subplot(grid[1, 1], sharey=main)
    if logarithmic:
        main.set_yscale("log")
    low, high = axis_range(score, logarithmic)
    outlying, score = (score < low).astype(int) - (score > high), np.clip(score, low, high)
    x_bins, y_bins = _bins(cosine, False), _bins(score, logarithmic)
    for name, (title, colour, marker) in RELATIONS.items():
        chosen = np.flatnonzero(relation == name)
        if len(chosen):
            drawn = chosen[:: -(-len(chosen) // MAX_POINTS)]
            look: dict[str, Any] = {"c": colour, "marker": marker, "label": f"{title}: {len(chosen):,}"}
            size = float(np.clip(40_000 / len(cosine), 9, 30))
            within = drawn[outlying[drawn] == 0]
            main.scatter(
                cosine[within], score[within], s=size, alpha=0.55, linewidths=0, rasterized=True, **look
            )
            for side, triangle in ((1, "v"), (-1, "^")):
                # All of them: they are few, and each is one that somebody looks for.
                beyond = chosen[outlying[chosen] == side]
                hollow: dict[str, Any] = {"facecolors": "none", "edgecolors": colour, "marker": triangle}
                main.scatter(
                    cosine[beyond], score[beyond], s=70, linewidths=1.4, clip_on=False, zorder=3, **hollow
                )
            # Shares are drawn, since on a logarithmic axis a density's area is not what the eye sees.
            share = np.full(len(chosen), 1.0 / len(chosen))
            for bars in ({"histtype": "stepfilled", "alpha": 0.3}, {"histtype": "step", "linewidth": 1.2}):
                look = {"color": colour, "weights": share, **bars}
                above.hist(cosine[chosen], bins=x_bins, **look)
                beside.hist(score[chosen], bins=y_bins, orientation="horizontal", **look)
    _finish(main, label)
    above.set_axis_off()
    beside.set_axis_off()
    legend = figure.legend(
        loc="outside upper left", ncols=3, frameon=False, fontsize=8, columnspacing=1.2, handletextpad=0.2
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(sizes=[36.0], alpha=0.9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None})
    return data_uri("image/svg+xml", buffer.getvalue())


def _bins(values: NDArray[np.float64], logarithmic: bool) -> list[float]:
    """Edges of 40 bins, equal or equal in the logarithm, that hold all values, even if all are one."""
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        return list(np.geomspace(low * 0.999, high * 1.001, 41))
    return list(np.linspace(low - 1e-6, high + 1e-6, 41))


def _finish(main: Axes, label: str) -> None:
    main.set_xlabel("Cosine similarity of the embeddings")
    main.set_ylabel(label)
    main.grid(True, color="#e6e8eb", linewidth=0.8)
    main.set_axisbelow(True)
    main.spines[["top", "right"]].set_visible(False)
