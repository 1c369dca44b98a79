from __future__ import annotations

from pathlib import Path

import pytest

from flows.demo import run as demo
from flows.demo.run import Truth, run_demo
from schemas.errors import PairxError
from tests.finished_runs import Finished


def test_truth_knows_what_was_planted(small: Path) -> None:
    truth = Truth.read(small.parent / "truth.csv")
    wrong = [photo for photo, kind in truth.planted.items() if kind == "wrong_name"]
    copies = [photo for photo, kind in truth.planted.items() if kind == "copy"]
    right = [photo for photo, kind in truth.planted.items() if not kind]
    assert len(copies) == 1
    assert truth.misnamed == len(wrong) + 1 > 1
    assert truth.errors(wrong[0], right[0]) == {wrong[0]}
    assert truth.errors(copies[0], wrong[0]) == {copies[0], wrong[0]}
    assert truth.errors(right[0], right[1]) == set()
    assert truth.named(None, copies[0], wrong[0]) == {copies[0], wrong[0]}
    assert truth.named(wrong[0], copies[0], wrong[0]) == {wrong[0]}
    assert truth.named(right[0], right[0], wrong[0]) == set()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(PairxError, match="holds something else"):
        run_demo(tmp_path, 0, 20, None)
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]


def test_suspects_are_marked_by_the_truth(
    undisturbed: Finished, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = Truth.read(small.parent / "truth.csv")
    demo._print_suspects(Path(undisturbed.warehouse.root), truth, 5)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.strip()[:1].isdigit() and "(" in line]
    assert len(lines) == 5
    marked = sum("✓" in line for line in lines)
    assert f"{marked} of the first 5 suspects are planted errors" in out
    assert marked >= 1
    assert f"of the {truth.misnamed} misnamed photos" in out
    assert "were expected, nine times in ten" in out
