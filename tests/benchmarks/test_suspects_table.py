"""The CSV, the table and the summary: ours against the best simple method, paired over seeds."""

import numpy as np
import pytest

from tests.benchmarks.suspects.table import Row, as_text, closed, read_csv, summary, write_csv
from tests.benchmarks.suspects.wanted import wishes

AP = {
    "cosine gap": (0.5, 0.7),
    "inliers gap": (0.6, 0.4),
    "suspects": (0.7, 0.8),
    "ranking before": (0.9, 0.9),
}
ROWS = [
    Row("lions: names", 0.05, seed, m, "AP", v)
    for m, values in AP.items()
    for seed, v in enumerate(values, 1)
]


def test_what_is_written_is_read(tmp_path):
    write_csv(tmp_path / "sub" / "out.csv", ROWS)
    assert (tmp_path / "sub" / "out.csv").read_text().splitlines()[
        0
    ] == "label,share,seed,method,measure,value"
    assert read_csv(tmp_path / "sub" / "out.csv") == ROWS


def test_ours_is_paired_with_the_best_simple_method():
    (found,) = closed(ROWS)
    assert (found.simple_method, found.our_method) == ("cosine gap", "suspects")
    assert found.simple == pytest.approx(0.6)
    assert found.difference == pytest.approx(np.mean([0.2, 0.1]))
    assert found.error == pytest.approx(np.std([0.2, 0.1], ddof=1) / np.sqrt(2))
    assert found.share_closed == pytest.approx(0.15 / 0.4)
    judged = [Row("lions: names", 0.05, seed, "judgement", "AP", 0.5) for seed in (1, 2)]
    (found,) = closed(ROWS + judged)
    assert (found.our_method, found.difference) == ("judgement", pytest.approx(-0.1))
    assert "LOSS" not in summary(ROWS)
    assert closed(ROWS[:4]) == []


def test_the_table_ranks_methods_and_lists_the_rest():
    text = as_text([*ROWS, Row("lions: names", 0.05, 1, "suspects", "echo@20", 0.25)])
    lines = text.splitlines()
    assert lines[0].startswith("lions: names, 5%")
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "ranking before",
        "suspects",
        "cosine gap",
        "inliers gap",
    ]
    assert "0.600 ± 0.141" in lines[3]
    assert lines[5] == "  suspects: echo@20 0.250"


def test_wishes_are_kept_or_missed():
    more = [
        Row("lions: names", 0.05, 1, "judgement", "calibration error", 0.06),
        Row("lions: names", 0.05, 1, "judgement", "Brier", 0.1),
        Row("lions: names", 0.05, 1, "isotonic cosine", "Brier", 0.2),
        Row("lions: names", 0.05, 1, "suspects", "interval holds", 1),
        Row("lions: names", 0.05, 1, "suspects", "error of expected precision@20", 0.2),
        Row("cows: names", 0.05, 1, "suspects", "found@20", 20),
        Row("dogs: copies", 0.0, 1, "suspects", "copies found", 0.9),
        Row("dogs: clean", 0.0, 0, "suspects", "false copies", 0),
    ]
    found = list(wishes([*ROWS, *more]))
    assert [line[:6] == "MISSED" for line in found] == [
        False,
        False,
        True,
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    assert list(wishes(ROWS[:4])) == []
