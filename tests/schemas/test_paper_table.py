"""The paper's values: exactly those of its table, under any common spelling and no other name."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from tasks.pages.paper_table import PAPER_DIFFERS, PAPER_ROWS, PAPER_SOURCE, paper_row

COWS = (
    "OpenCows2020",
    "opencows2020",
    "OPENCOWS2020",
    "OpenCows 2020",
    "open_cows-2020",
    " Open Cows (2020) ",
)
LIONS = ("LionData", "liondata", "Lion Data", "lion_data", "LION-DATA")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (COWS, {"inverted_residual_mean": (0.78, 0.31), "match_coverage": (0.80, 0.27)}),
        (LIONS, {"inverted_residual_mean": (0.18, -0.05), "match_coverage": (0.28, 0.03)}),
    ],
)
def test_each_spelling_finds_the_papers_values(names, expected):
    for name in names:
        row = paper_row(name)
        assert row is not None, name
        found = {score: (row.value(score, "spearman"), row.value(score, "delta")) for score in expected}
        assert found == expected


@pytest.mark.parametrize(
    "name",
    ["", "cows", "lions", "OpenCows2021", "OpenCows2020 test", "LionData2", "Lion", "?!", "GiraffeZebraID"],
)
def test_other_datasets_have_no_row(name):
    assert paper_row(name) is None


@pytest.mark.parametrize(
    ("score", "statistic"),
    [("match_coverage", "auc"), ("cosine", "delta"), ("dataset", "delta"), ("value", "spearman"), ("", "")],
)
def test_what_the_paper_does_not_report_is_none(score, statistic):
    assert PAPER_ROWS[0].value(score, statistic) is None


def test_rows_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        PAPER_ROWS[0].dataset = "mine"


def test_the_source_and_what_differs_are_said():
    assert "2503.22881" in PAPER_SOURCE
    assert "Table 1" in PAPER_SOURCE
    for word in ("MiewID", "crops", "resolution", "list of pairs", "not public"):
        assert word in PAPER_DIFFERS
