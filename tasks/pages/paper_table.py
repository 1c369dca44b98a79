"""Rows of the PAIR-X paper's Table 1 for datasets that anybody can evaluate again."""

from __future__ import annotations

from dataclasses import dataclass

PAPER_SOURCE = "PAIR-X paper, Table 1 (arXiv 2503.22881)"
PAPER_DIFFERS = (
    "The paper's values were taken with the MiewID model; its crops, their resolution and its list of pairs are not "
    "public, nor are the form of Δ and its bins, so that equal values are not to be expected."
)
"""Why an evaluation of the same dataset gives other numbers, for readers who see both."""


@dataclass(frozen=True)
class PaperValues:
    """Of one score: Spearman's ρ with the cosine and the signed, binned Bhattacharyya distance Δ."""

    spearman: float
    delta: float


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's Table 1; its two scores have our names."""

    dataset: str
    inverted_residual_mean: PaperValues
    match_coverage: PaperValues

    def value(self, score: str, statistic: str) -> float | None:
        """The paper's value of a statistic of a score, by our table's names; None where it has none."""
        values = getattr(self, score, None)
        return getattr(values, statistic, None) if isinstance(values, PaperValues) else None


PAPER_ROWS = (
    PaperRow("OpenCows2020", PaperValues(0.78, 0.31), PaperValues(0.80, 0.27)),
    PaperRow("LionData", PaperValues(0.18, -0.05), PaperValues(0.28, 0.03)),
)
_BY_SPELLING = {row.dataset.lower(): row for row in PAPER_ROWS}


def paper_row(dataset: str) -> PaperRow | None:
    """The paper's row of a dataset, or None.

    Case, spaces and punctuation of the name do not matter. A part of a dataset is another dataset:
    "OpenCows2020 test" has no row.
    """
    return _BY_SPELLING.get("".join(c for c in dataset.lower() if c.isalnum()))
