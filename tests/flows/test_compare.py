"""`pairx compare`: two photos, and pairs of a warehouse."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.cli import main as cli
from pairx_engine.comparison import few
from tasks.sql.console import connect_analyst
from tests.finished_runs import Finished

Main = Callable[..., tuple[int, str, str]]
QUICK = ("--method", "gradient", "--method", "centre")


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Main:
    """Runs `pairx compare` in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pairx", "compare", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        return cli._run(), *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def photos(small: Path) -> tuple[Path, Path]:
    rows = list(csv.DictReader(small.open(encoding="utf-8")))
    a, b = (small.parent / row["path"] for row in rows[:2])
    return a, b


def scored(finished: Finished, count: int = 1) -> list[tuple[str, str, str]]:
    """Pairs of a warehouse: id and the names of both photos."""
    query = "SELECT p.pair_id, identity_a, identity_b FROM pairs AS p SEMI JOIN scores USING (pair_id) ORDER BY pair_id"
    connection = connect_analyst(finished.warehouse.url, query=query)
    try:
        return connection.execute(query).fetchall()[:count]
    finally:
        connection.close()


def test_two_photos_make_a_sheet_of_the_usual_methods(
    compare: Main, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    code, said, err = compare(*photos, "--maps", 2, "-o", "deep/sheet.png", "--html", "page.html")
    assert code == 0, err
    with Image.open(tmp_path / "deep" / "sheet.png") as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 5
        assert image.width > 1000
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for name in few("published"):
        assert re.search(rf"^ +{name} +\d+\.\d\d s$", said, re.M)
        assert f"<h3>{name} " in page
    assert "matches in a map" in page
    assert f"{len(few('published'))} methods" in said
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "page.html"}


def test_without_an_option_nothing_but_the_sheet_is_written(
    compare: Main, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    assert compare(*photos, *QUICK)[0] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["compare.png"]


def test_a_method_that_must_learn_is_a_panel_that_says_so(
    compare: Main, photos: tuple[Path, Path], tmp_path: Path
) -> None:
    from pairx_engine.explanations import register, unregister
    from tests.seams.toy_explanation import family

    register(family)
    try:
        code, said, _ = compare(*photos, "--method", "unusual", "--method", "centre", "--html", "p.html")
        assert code == 0
        assert "learns from a catalogue first" in said
        assert "not explained" in (tmp_path / "p.html").read_text(encoding="utf-8")
        code, _, err = compare(*photos, "--method", "unusual", "-o", "none.png")
    finally:
        unregister(family)
    assert code == 1
    assert "none of 1 methods could explain this pair; unusual: " in err
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.png"], "give both"),
        ([], "give both"),
        (["a.png", "b.png", "--method", "guess"], "unknown method 'guess'"),
        (["a.png", "b.png"], "a.png"),
        (["a.png", "b.png", "--box-a", "1,2,x,4"], "1,2,x,4"),
        (["a.png", "b.png", "--pair", "x"], "two different comparisons"),
        (["--suspects", "1", "--box-b", "1,2,3,4"], "two different comparisons"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_said(compare: Main, tmp_path: Path, arguments: list[str], said: str) -> None:
    code, _, err = compare(*arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_pairs_of_a_warehouse_have_a_sheet_each_and_one_page(
    compare: Main, undisturbed: Finished, tmp_path: Path
) -> None:
    (one, *names), (other, *_) = scored(undisturbed, 2)
    root = undisturbed.warehouse.root
    code, said, err = compare(
        "--warehouse", root, "--pair", other, "--pair", one, "--suspects", 1, *QUICK, "-o", "found"
    )
    assert code == 0, err
    found = {p.name for p in (tmp_path / "found").iterdir()}
    assert {f"{one}.png", f"{other}.png", "compare.html"} <= found
    assert len(found) in (3, 4)
    page = (tmp_path / "found" / "compare.html").read_text(encoding="utf-8")
    assert page.count('class="pair" id=') == len(found) - 1
    for name in names:
        assert f"{name or 'unknown'} · photos/" in page or f"{name or 'unknown'} · " in page
    assert "suspect 1: " in page
    assert "the settings" not in err
    # Seen as the newest run saw them, who had two maps of a pair.
    assert re.search(r"<dt>matches in a map</dt><dd>2</dd>", page)
    assert f"sheets: {len(found) - 1} in found" in said


def test_a_pair_whose_photo_is_gone_is_left_out(
    compare: Main, undisturbed: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.commands import compare as command
    from pairx_engine.errors import PhotoError

    one, other = (pair for pair, *_ in scored(undisturbed, 2))
    read, asked = command.read_cut, []

    def gone(photo: dict[str, str], max_pixels: int) -> np.ndarray:
        asked.append(photo["photo_id"])
        if len(asked) == 1:
            raise PhotoError("missing_file", f"no file at {photo['path']}")
        return read(photo, max_pixels)

    monkeypatch.setattr(command, "read_cut", gone)
    place = ("--warehouse", undisturbed.warehouse.root, "--pair", one)
    code, _, err = compare(*place, "--pair", other, *QUICK, "-o", "some", "--html", "page.html")
    assert code == 0
    assert f"pair {one} is left out: no file at " in err
    assert [p.name for p in (tmp_path / "some").iterdir()] == [f"{other}.png"]
    assert (tmp_path / "page.html").exists()
    asked.clear()
    code, _, err = compare(*place, *QUICK, "-o", "none")
    assert code == 1
    assert "none of 1 pairs could be compared" in err
    assert not (tmp_path / "none").exists()


def test_an_unknown_pair_is_named(compare: Main, undisturbed: Finished) -> None:
    code, _, err = compare("--warehouse", undisturbed.warehouse.root, "--pair", "x' OR 1=1")
    assert code == 2
    assert 'has no pair "x\' OR 1=1"' in err
    assert "FROM pairs" in err


def test_a_file_in_place_of_the_folder_is_said(compare: Main, undisturbed: Finished, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ((one, *_),) = scored(undisturbed)
    code, _, err = compare("--warehouse", undisturbed.warehouse.root, "--pair", one, *QUICK, "-o", "file")
    assert code == 1
    assert "cannot be written" in err
    assert "-o" in err
