"""What the command line says to whoever meets it first: help, completion, slips of the pen, other versions."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import main as cli
from flows.work.progress import NoticesOnly, Terminal, reporter
from schemas.tables.registry import SCHEMA_VERSION
from tasks.store.warehouse import Warehouse
from tests.flows.running import REPOSITORY, environment
from tests.toy_warehouse import Pair, Photo, Toy

COMMANDS = sorted(get_command(cli.app).commands)  # type: ignore[attr-defined]
Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Main:
    """Runs the entry point in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        # Storages are kept by address, and a relative one would be that of an earlier test's folder.
        words = [str(Path.cwd() / word) if word in ("cows", "cow", "w") else str(word) for word in arguments]
        monkeypatch.setattr(sys, "argv", ["pairx", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capfd.readouterr()
        return cli._run(), *capfd.readouterr()

    return run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a toy warehouse `cows`, a catalogue `one.csv` of the photo `a.png`."""
    photos = [Photo(name, name[0], f"e{name}") for name in ("A0", "A1", "B0")]
    Toy(photos, [Pair("A0", "A1", 0.5), Pair("A0", "B0", 0.25)]).write(Warehouse(str(tmp_path / "cows")))
    Image.new("RGB", (64, 64), (90, 120, 30)).save(tmp_path / "a.png")
    (tmp_path / "one.csv").write_text("image_id,identity,path\na,A,a.png\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Slips of the pen


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("suspect", "Did you mean 'suspects'?"),
        ("run one.csv --topk 3", "--top-k"),
        ("run one.csv --top-k many", "valid integer"),
        ("run ones.csv", "name a catalogue file that exists"),
        ("suspects --warehouse cow", "did you mean cows?"),
        ("suspects --warehouse htps://host/w", "did you mean https?"),
        ("run one.csv --warehouse w --model miewid", "name an existing folder"),
        ("run one.csv --warehouse w --preset publshed", "did you mean published?"),
        ("run one.csv --warehouse w --cluster locl", "did you mean local?"),
        ("run one.csv --warehouse w --fail-on failure", "did you mean failures?"),
        ("suspects --warehouse cows --kind wrongname", "did you mean wrong_name?"),
        ("suspects --warehouse cows --by kinds", "did you mean kind?"),
        ("suspects --warehouse cows --format jsn", "did you mean json?"),
        ("suspects --warehouse cows --top 0", "greater than or equal to 1"),
        ("sql --warehouse cows --run r11 x", "did you mean r1?"),
        ("sql --warehouse cows --tables pair_score", "did you mean pair_scores?"),
        ("sql --warehouse cows --timeout soon x", "valid number"),
        ("sql --warehouse cows --cookbook one", "its numbers are 1 to"),
        ("compare --warehouse cows --pair abc", "pairx sql 'SELECT pair_id"),
        ("explain a.png a.png --method gradcam", "did you mean grad_cam?"),
        ("explain a.png", "Missing argument 'B'"),
        ("explain a.png a.png --box-a 1,2,3", "give four numbers in pixels"),
        ("check --warehouse a.png", "there is no warehouse"),
    ],
)
def test_a_mistyped_command_is_told_with_its_cure(main: Main, place: Path, typed: str, said: str) -> None:
    before = sorted(place.rglob("*"))
    code, out, err = main(*typed.split())
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line and not line.startswith("note:")]) <= 6
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC * FROM photos", "pairx sql --cookbook"),
        ("SELECT identiy FROM photos", '"identity"'),
        ("SELECT * FROM photo", '"photos"'),
        ("SELECT cont(*) FROM photos", "count"),
    ],
)
def test_a_mistyped_query_is_told_with_its_cure(main: Main, place: Path, query: str, said: str) -> None:
    code, out, err = main("sql", query, "--warehouse", "cows")
    assert (code, out) == (2, "")
    assert said in err
    assert "cure:" in err


def test_an_unknown_setting_of_a_file_is_told_with_the_near_one(main: Main, place: Path) -> None:
    (place / "s.toml").write_text("topk = 3\n", encoding="utf-8")
    code, _, err = main("run", "one.csv", "--warehouse", "w", "--settings", "s.toml")
    assert code == 2
    assert "topk: no such setting; did you mean top_k?" in err


# Help and completion


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns_and_shows_no_type_where_no_value_is_given(command: str) -> None:
    shown = (
        CliRunner()
        .invoke(cli.app, [*command.split(), "--help"], env={"COLUMNS": "80", "TERM": "dumb"})
        .output
    )
    assert max(map(len, shown.splitlines())) <= 80
    assert "bool" not in shown
    assert "range" not in shown


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("pairx su", ["suspects"]),
        ("pairx suspects --kind two", ["two_names_one_animal"]),
        ("pairx sql --format ", ["table", "records", "csv", "json"]),
        ("pairx run --withd", ["--withdraw-missing"]),
        ("pairx run --device ", ["auto", "cpu", "cuda"]),
        ("pairx run --matcher xf", ["xfeat+lighterglue"]),
    ],
)
def test_a_shell_completes_commands_options_and_values(typed: str, offered: list[str]) -> None:
    asked = environment(
        _PAIRX_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split(" ")) - 1)
    )
    start = "import sys; sys.argv = ['pairx']; from flows.cli.main import main; main()"
    told = subprocess.run(
        [sys.executable, "-c", start], env=asked, capture_output=True, text=True, timeout=120, cwd=REPOSITORY
    )
    assert told.stdout.split() == offered, told.stderr


# Quiet


def test_quiet_says_notices_and_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (False, True):
        told = reporter(quiet)
        assert isinstance(told, NoticesOnly if quiet else Terminal)
        told.notice("the model is general")
        told.begin("embed", 10, "photos")
        told.advance(10)
        told.end("10 of 10 photos")
        told.abort()
        err = capsys.readouterr().err
        assert "the model is general" in err
        assert ("10 of 10" in err) != quiet


def test_a_quiet_check_still_says_what_it_found(main: Main, place: Path) -> None:
    code, out, err = main("check", "--warehouse", "cows", "--quiet", "--quick")
    assert (code, err) == (0, "")
    assert "files" in out
    next((place / "cows" / "scores").rglob("*.parquet")).write_bytes(b"torn")
    code, _, err = main("check", "--warehouse", "cows", "-q", "--quick")
    assert (code, "unreadable file" in err) == (1, True)


# Other versions


def stamped(place: Path, version: int) -> None:
    """Let all files of the warehouse say that they are of another schema version."""
    for path in (place / "cows").rglob("*.parquet"):
        rows = pq.ParquetFile(path).read()
        said = {**(rows.schema.metadata or {}), b"schema_version": str(version).encode()}
        pq.write_table(rows.replace_schema_metadata(said), path, write_page_checksum=True)


READERS = [
    "suspects --warehouse cows",
    "sql --warehouse cows FROM\tphotos\tORDER\tBY\tphoto_id",
    "sql --warehouse cows --run r1 FROM\truns",
    "report --warehouse cows",
    "check --warehouse cows",
    "check --warehouse cows --quarantine",
    "run one.csv --warehouse cows",
    "run one.csv --warehouse cows --dry-run",
    "evaluate --warehouse cows",
    "evaluate one.csv --warehouse cows --model embedded",
    "evaluate --warehouse cows --dry-run",
    "explain a.png a.png --warehouse cows --method centre",
    "compare a.png a.png --warehouse cows --method centre",
    "compare --warehouse cows --suspects 1 --method centre",
]


@pytest.mark.parametrize("typed", READERS)
def test_every_command_refuses_the_warehouse_of_a_newer_program_alike(
    main: Main, place: Path, typed: str
) -> None:
    stamped(place, SCHEMA_VERSION + 1)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    code, out, err = main(*(word.replace("\t", " ") for word in typed.split(" ")))
    assert (code, out) == (2, "")
    assert f"has schema version {SCHEMA_VERSION + 1}, this program reads up to {SCHEMA_VERSION}" in err
    assert "cure: install a newer version" in err
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


@pytest.mark.parametrize(
    "typed", [typed for typed in READERS if not typed.startswith("run one.csv --warehouse cows")][:5]
)
def test_the_warehouse_of_an_older_program_is_read(main: Main, place: Path, typed: str) -> None:
    words = [word.replace("\t", " ") for word in typed.split(" ")]
    of_now = main(*words)
    stamped(place, SCHEMA_VERSION - 1)
    assert main(*words) == of_now
    assert "version" not in of_now[2]


def test_files_of_a_newer_version_in_a_warehouse_of_this_one_are_found_by_the_check(
    main: Main, place: Path
) -> None:
    runs = {path: path.read_bytes() for path in (place / "cows" / "runs").rglob("*.parquet")}
    stamped(place, SCHEMA_VERSION + 1)
    for path, data in runs.items():
        path.write_bytes(data)
    code, _, err = main("check", "--warehouse", "cows", "--quick")
    assert (code, "wrong version" in err) == (1, True)
    assert main("sql", "FROM pairs", "--warehouse", "cows")[0] == 2


def test_the_environment_is_left_alone() -> None:
    assert "_PAIRX_COMPLETE" not in os.environ
