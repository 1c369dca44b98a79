"""`pairx apply` and `pairx review export|import|agreement`: exit codes, refusals, and that the input is never touched."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import main as cli
from tasks.store.warehouse import Warehouse
from tests.schemas.test_writing import CAMTRAP, CSV
from tests.tasks.reviews.test_plan import catalogue as plan_catalogue
from tests.tasks.reviews.test_plan import say
from tests.tasks.reviews.test_plan import warehouse as plan_warehouse

warehouse, catalogue = plan_warehouse, plan_catalogue
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pairx", *map(str, arguments)])
        code = cli._run()
        out, err = capfd.readouterr()
        return code, out, err

    return run_command


def test_apply_writes_the_catalogue_and_the_changes_and_never_the_input(
    run: Run, warehouse: Warehouse, catalogue: Path, tmp_path: Path
) -> None:
    say(warehouse, 1, "name", "wrong", "a0", right_name="B")
    before, out = catalogue.read_bytes(), tmp_path / "out" / "new.csv"
    where = ["--warehouse", warehouse.url]
    code, printed, _ = run("apply", catalogue, *where, "--dry-run")
    assert (code, "a0: A → B" in printed, out.parent.exists()) == (0, True, False)
    code, printed, err = run("apply", catalogue, *where, "-o", out)
    assert (code, f"--root {tmp_path}" in err, "1 renamed" in printed) == (0, True, True)
    assert out.read_bytes() == before.replace(b"a0,A", b"a0,B")
    changes = list(csv.DictReader((tmp_path / "out" / "new.changes.csv").read_text().splitlines()))
    assert [(row["photo"], row["before"], row["after"], row["review_ids"]) for row in changes] == [
        ("a0", "A", "B", "r1")
    ]
    code, _, err = run("apply", catalogue, *where, "-o", out)
    assert (code, "--force" in err) == (2, True)
    assert run("apply", catalogue, *where, "-o", out, "--force")[0] == 0
    assert catalogue.read_bytes() == before


@pytest.mark.parametrize(
    "way", ["itself", "symbolic link", "hard link", "changes", "folder", "other suffix", "url", "none"]
)
def test_an_output_that_cannot_be_meant_is_refused(
    run: Run, warehouse: Warehouse, catalogue: Path, tmp_path: Path, way: str
) -> None:
    before, out = catalogue.read_bytes(), tmp_path / "out.csv"
    if way == "itself":
        out = tmp_path / "." / "x" / ".." / catalogue.name
    elif way == "symbolic link":
        out.symlink_to(catalogue)
    elif way == "hard link":
        os.link(catalogue, out)
    elif way == "changes":
        os.link(catalogue, tmp_path / "out.changes.csv")
    elif way == "folder":
        out = tmp_path
    elif way == "other suffix":
        out = tmp_path / "out.parquet"
    named = {"url": ["-o", "s3://bucket/out.csv"], "none": []}.get(way, ["-o", out])
    code, _, err = run("apply", catalogue, "--warehouse", warehouse.url, *named, "--force")
    assert code == 2
    assert err.startswith("pairx: ")
    assert catalogue.read_bytes() == before


def test_what_is_held_back_ends_with_1_after_all_else_is_written(
    run: Run, warehouse: Warehouse, catalogue: Path, tmp_path: Path
) -> None:
    say(warehouse, 1, "names", "one_animal", "a0", "b0")
    say(warehouse, 2, "pair", "different_animals", "a1", "b1")
    say(warehouse, 3, "name", "wrong", "d0", right_name="C")
    out, where = tmp_path / "new.csv", ["--warehouse", warehouse.url]
    code, printed, err = run("apply", catalogue, *where, "-o", out)
    assert (code, "2 changes are held back" in err) == (1, True)
    assert "contradiction: a1 = A (r1) = B (r1) = b1 (r1), but a1 ≠ b1 (r2)" in printed
    assert out.read_bytes() == catalogue.read_bytes().replace(b"d0,D", b"d0,C")
    assert run("apply", catalogue, *where, "-o", out, "--force", "--force-contradictions")[0] == 0
    assert b",B," not in out.read_bytes()


def test_a_package_becomes_a_folder_of_its_own(run: Run, warehouse: Warehouse, tmp_path: Path) -> None:
    package, out = tmp_path / "package", tmp_path / "corrected"
    for name, text in CAMTRAP.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(text.encode())
    where = ["--warehouse", warehouse.url]
    assert run("apply", package, *where, "-o", out)[0] == 0
    assert {name: (out / name).read_bytes().decode() for name in CAMTRAP} == CAMTRAP
    assert (tmp_path / "corrected.changes.csv").is_file()
    for place in (package, package / "datapackage.json", out):
        assert run("apply", package, *where, "-o", place)[0] == 2
    os.remove(package / "deployments.csv")
    assert run("apply", package, *where, "-o", tmp_path / "again")[0] == 0
    os.remove(out / "data" / "media.csv")
    os.link(package / "data" / "media.csv", out / "data" / "media.csv")
    assert run("apply", package, *where, "-o", out, "--force")[0] == 2


def test_without_verdicts_every_byte_stays(run: Run, warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(CSV)
    assert run("apply", tmp_path / "c.csv", "--warehouse", warehouse.url, "-o", tmp_path / "out.csv")[0] == 0
    assert (tmp_path / "out.csv").read_bytes() == CSV


def test_verdicts_come_in_and_go_out(run: Run, warehouse: Warehouse, tmp_path: Path) -> None:
    file, where = tmp_path / "v.csv", ["--warehouse", warehouse.url]
    file.write_text("kind,subject,answer,right_name,reviewer\nname,a0,wrong,B,ann\nname,zz,wrong,B,ann\n")
    code, _, err = run("review", "import", file, *where)
    assert (code, "row 3" in err, "--skip-bad" in err) == (2, True, True)
    assert (
        "1 verdicts stored, 0 known already, 1 skipped"
        in run("review", "import", file, *where, "--skip-bad")[1]
    )
    assert "0 verdicts stored, 1 known already" in run("review", "import", file, *where, "--skip-bad")[1]
    file.write_text("kind,subject,answer,reviewer\nname,a0,right,bob\n")
    assert run("review", "import", file, *where)[0] == 0
    rows = json.loads(run("review", "agreement", *where, "--format", "json")[1])
    assert rows[0] == {"kind": "name", "questions": 1, "answered_twice": 1, "percent": 0.0, "alpha": 0.0}
    (look,) = json.loads(run("review", "agreement", *where, "--each", "--format", "json")[1])
    assert (look["why"], look["people"], look["verdicts"]) == (
        "disagreement",
        ["bob", "ann"],
        ["right", "wrong"],
    )
    out = tmp_path / "out.csv"
    assert run("review", "export", *where, "-o", out, "--second-look")[0] == 0
    assert out.read_text().splitlines()[1].startswith("name,a0,,,")
    assert run("review", "export", *where, "-o", out)[0] == 2
    assert run("review", "export", *where, "-o", tmp_path / "t.json", "--format", "label-studio")[0] == 0
    assert json.loads((tmp_path / "t.json").read_text()) == []
    assert (tmp_path / "t.xml").read_text().startswith("<View>")
    assert run("review", "import", tmp_path, *where)[0] == 2
    for wrong in (["--format", "pdf"], ["--format", "frame", "--verdicts"]):
        assert run("review", "export", *where, "-o", tmp_path / "x", *wrong)[0] == 2


@pytest.mark.parametrize(
    "arguments", [["import", "{file}"], ["export", "-o", "x.csv"], ["agreement"]], ids=lambda given: given[0]
)
def test_a_warehouse_that_is_not_there_is_bad_input(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    file = tmp_path / "v.csv"
    file.write_text("kind,subject,answer\n")
    given = [argument.format(file=file) for argument in arguments]
    code, _, err = run("review", *given, "--warehouse", tmp_path / "none")
    assert (code, "there is no warehouse" in err) == (2, True)
