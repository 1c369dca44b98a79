"""Tables of the page of results, made from hand-written results, and how many pairs a method is measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pairx_engine.errors import EngineError
from pairx_engine.faithfulness import Flipping, Protocol
from tests.benchmarks.faithfulness.page import Material, continuity_table, fills_table, shap_table, write_page
from tests.benchmarks.faithfulness.results import read_results, seconds_of
from tests.benchmarks.faithfulness.running import _missing, pairs_within

CASE = "faces/edgeface_xxs"


def line(method: str, number: int, correct: bool = True, **values: float) -> dict[str, Any]:
    names = {"identity_a": f"animal {number}", "identity_b": f"animal {number if correct else number + 9}"}
    return {
        "case": CASE,
        "method": method,
        "pair_id": f"{number:064x}",
        "correct": correct,
        **names,
        "values": values,
    }


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def cells(table: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in table.splitlines()
        if row.startswith("|")
    ]


def test_marked_tables_are_written_anew_and_words_are_left(tmp_path: Path) -> None:
    rows = [
        line("gradient", n, n < 4, gap=gap, seconds=n / 10, localisation=0.5)
        for n, gap in enumerate((0.1, 0.3, 0.2, 0.2, -0.1, -0.3))
    ]
    rows += [line("centre", n, gap=0.1, seconds=0) for n in range(4)]
    rows += [line("utkin", 0) | {"failed": "20 photos are too few\n  cure: more"}]
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n<!-- table {CASE} -->\nold\n<!-- end -->\nAfter.\n", encoding="utf-8")
    material = Material(written(tmp_path / "results", rows), None, 30)
    assert write_page(page, material) == [CASE]
    once = page.read_text(encoding="utf-8")
    assert once.startswith(f"Before.\n<!-- table {CASE} -->\n")
    assert once.endswith("\n<!-- end -->\nAfter.\n")
    assert "old" not in once
    head, _, best, blind = cells(once)
    assert head == [
        *("explanation", "gap", "blind", "two animals", "partner", "collage", "shuffled", "all shuffled"),
        *("SIMExpert", "s", "pairs"),
    ]
    assert best[0] == "`gradient`"
    assert best[1].startswith("0.20 [")
    assert best[2].startswith("0.10 [")
    assert best[3].startswith("−0.20 [")
    assert best[4:] == ["", "0.50", "", "", "", "0.25", "4 + 2"]
    assert blind[0] == "`centre`"
    assert blind[-1] == "4 + 0"
    assert "* `utkin`: 20 photos are too few" in once
    write_page(page, material)
    assert page.read_text(encoding="utf-8") == once
    page.write_text("<!-- table lions/mobilenetv2_100_imagenet -->\nold\n<!-- end -->\n", encoding="utf-8")
    assert write_page(page, material) == []
    assert "old" in page.read_text(encoding="utf-8")
    page.write_text("<!-- table horses -->\n<!-- end -->\n", encoding="utf-8")
    with pytest.raises(EngineError, match="no table 'horses'"):
        write_page(page, material)


def test_the_summary_is_made_of_the_tables_on_the_page(tmp_path: Path) -> None:
    head = "| explanation | gap | blind | collage |\n| --- | --- | --- | --- |\n"
    tables = {
        "cows/mini_swin_cows": head + "| `lrp_cp` | 0.32 [0.27, 0.38] | 0.31 [0.27, 0.35] | 0.39 |\n",
        CASE: head
        + "| `lrp_cp` | −0.01 [−0.1, 0.2] | −0.02 [−0.07, 0.02] | 0.27 |\n| `centre` | 0.42 |  | 0.25 |\n",
    }
    marked = "".join(f"<!-- table {name} -->\n{table}<!-- end -->\n" for name, table in tables.items())
    page = tmp_path / "page.md"
    page.write_text(f"<!-- table summary -->\n<!-- end -->\n{marked}", encoding="utf-8")
    assert write_page(page, Material(tmp_path / "nothing", None, 30)) == ["summary"]
    rows = {row[0]: row[1:] for row in cells(page.read_text(encoding="utf-8").split("<!-- end -->")[0])}
    assert rows["gap (collage)"] == list(tables)
    assert rows["`lrp_cp`"] == ["**0.32** (0.39)", "−0.01 (0.27)"]
    assert rows["`centre`"] == ["–", "0.42 (0.25)"]
    assert page.read_text(encoding="utf-8").endswith(marked)


def test_lines_of_one_pair_are_taken_together(tmp_path: Path) -> None:
    rows = [
        line("gradient", 1, gap=0.1, seconds=1),
        line("gradient", 1, gap=0.1, continuity_mean=0.4, seconds=3),
    ]
    (found,) = read_results(written(tmp_path / "results", rows), CASE)
    assert found["values"] == {"gap": 0.1, "continuity_mean": 0.4, "seconds": 3}
    assert read_results(tmp_path / "results", "cows/other") == []
    assert seconds_of([line("gradient", n, seconds=s) for n, s in enumerate((9, 1, 2))], "gradient") == 2


def test_fills_are_compared_on_the_pairs_that_have_them_all() -> None:
    both = {"gradient": (0.3, 0.1), "centre": (0.2, 0.2), "random": (0.0, 0.3)}
    rows = [line(m, n, gap=a, gap_blur_10=b, seconds=0) for m, (a, b) in both.items() for n in range(2)]
    rows += [line("gradient", 7, gap=9.0, seconds=0)]
    head, _, *methods, order = cells(fills_table(rows, 30))
    assert head == ["gap", "noise 5", "blur 10", "pairs"]
    assert methods == [
        ["`gradient`", "0.30", "0.10", "2"],
        ["`centre`", "0.20", "0.20", "2"],
        ["`random`", "0.00", "0.30", "2"],
    ]
    assert order == ["*order beside the first*", "1.00", "−1.00", ""]


def test_the_steadiest_beside_its_partner_comes_first() -> None:
    def row(method: str, number: int, own: float) -> dict[str, Any]:
        moves = {"continuity_mean": 0.5, "continuity_aligned_mean": 0.4, "partner_continuity_mean": 0.3}
        return line(method, number, gap=0.0, seconds=0, **moves, partner_continuity_aligned_mean=own)

    rows = [
        row("gradient", 0, 0.2),
        row("gradient", 1, 0.4),
        row("centre", 0, 0.1),
        line("random", 0, gap=0.0),
    ]
    head, _, *methods = cells(continuity_table({CASE: rows, "cows/none": []}, 30))
    assert head[1:] == [
        f"{CASE}: {name}" for name in ("copy", "copy, laid over", "partner", "partner, laid over")
    ]
    assert methods == [
        ["`centre`", "0.50", "0.40", "0.30", "0.10"],
        ["`gradient`", "0.50", "0.40", "0.30", "0.30"],
    ]


def test_the_table_of_shap_has_a_row_per_choice_and_says_what_is_refused() -> None:
    made = {"way": "ours", "asked": 20, "samples": 1000, "segments": 12.2, "one_out": 0.92, "told": 1.0}
    rows = [
        made | {"fill": "noise", "r": 0.98, "least_r": 0.96, "seconds": 8.0},
        made | {"fill": "mean", "r": 0.9, "least_r": 0.8, "seconds": 10.0},
        {"way": "ours", "asked": 60, "samples": 200, "fill": "noise", "refused": "needs 202"},
    ]
    head, _, first, second = cells(shap_table(rows))
    assert head == ["segments asked (made)", "samples", "noise", "mean", "s"]
    assert first == ["20 (12)", "1,000", "0.98, 0.96; 0.92", "0.90, 0.80; 0.92", "9.0"]
    assert second == ["60", "200", "refused", "", ""]


def test_dear_methods_are_measured_on_fewer_pairs() -> None:
    assert [pairs_within(30, s) for s in (0, 0.9, 1, 29, 30)] == [30, 30, 10, 10, 3]
    assert [pairs_within(4, s) for s in (0.1, 5, 50)] == [4, 2, 2]
    pairs = [{"pair_id": f"{n:064x}", "correct": n % 2 == 0} for n in range(30)]

    def measured(seconds: float, **values: float) -> list[int]:
        rows: list[dict[str, Any]] = []
        for pair in _missing(rows, "gradient", pairs, 30, Protocol()):
            rows += [{"method": "gradient", **pair, "values": {"gap": 0.0, "seconds": seconds, **values}}]
        return [int(row["pair_id"], 16) for row in rows]

    assert len(measured(0.5)) == 30
    assert measured(2.0) == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    pairs = pairs[:1] + pairs[1:24:2]
    assert len(measured(0.5)) == 13


def test_what_failed_is_not_tried_again_and_what_lacks_a_fill_is_measured_again() -> None:
    pairs = [{"pair_id": f"{n:064x}", "correct": True} for n in range(2)]
    failed = {"method": "utkin", **pairs[0], "values": {}, "failed": "too few"}
    assert list(_missing([failed], "utkin", pairs, 30, Protocol())) == []
    known = [{"method": "gradient", **pair, "values": {"gap": 0.1, "seconds": 0.1}} for pair in pairs]
    assert list(_missing(known, "gradient", pairs, 30, Protocol())) == []
    several = Protocol((Flipping(), Flipping(10, fill="blur")))
    assert next(_missing(known, "gradient", pairs, 30, several)) == pairs[0]
