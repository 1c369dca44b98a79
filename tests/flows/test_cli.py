"""The command line: help that teaches, exit codes, messages with cures, a quick start."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click import Command as ClickCommand
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import main as cli
from flows.options import PANELS
from flows.terminal import PlainConsole
from flows.work.progress import Terminal
from schemas.setting import Setting
from schemas.settings import EMBEDDED_NOTICE, Settings
from tests.finished_runs import Finished
from tests.flows.running import environment, pairx
from tests.small_catalogue import TINY

COMMANDS: dict[str, ClickCommand] = dict(get_command(cli.app).commands)  # type: ignore[attr-defined]
WITHOUT_TORCH_AND_PREFECT = (
    "torch",
    "prefect",
    "timm",
    "kornia",
    "cv2",
    "distributed",
    "zennit",
    "matplotlib",
)
GOLDEN_NAMES = {
    f"{name}{side}"
    for name in (
        "chip", "embedding", "match_cell", "match_point", "pixel_relevance", "relevance_abs_of_sum",
        "relevance_signed_sum", "relevance_sum_of_abs", "start_gradient",
    )
    for side in (0, 1)
} | {"cosine", "match_distance", "match_relevance"}  # fmt: skip
EVIDENCE_NAMES = {
    "homography", "no_homography_reason", "local_point0", "local_point1", "local_inlier", "match_residual", "match_coverage",
    "residual_mean", "inverted_residual_mean", "top_residual_mean", "model", "layer", "preset", "matcher", "method", "box0", "box1",
    "theta0", "theta1", "photo0", "photo1",
}  # fmt: skip

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Main:
    """Runs the entry point in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pairx", *map(str, arguments)])
        capfd.readouterr()
        # `main` would change this process's signals and end it.
        return cli._run(), *capfd.readouterr()

    return run


def write_catalogue(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def one_photo(tmp_path: Path) -> Path:
    """A valid catalogue of one photo, which is no picture."""
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    return write_catalogue(tmp_path / "one.csv", [{"image_id": "a", "identity": "A", "path": "a.jpg"}])


# Help


def test_all_commands_are_there() -> None:
    assert {
        "run",
        "demo",
        "explain",
        "compare",
        "validate",
        "suspects",
        "sql",
        "who",
        "report",
    } <= COMMANDS.keys()
    listed = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert all(name in listed for name in COMMANDS)
    assert "Exit codes: 0" in listed


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(name: str) -> None:
    shown, short = (
        CliRunner().invoke(cli.app, [name, wanted], env={"COLUMNS": "200", "TERM": "dumb"})
        for wanted in ("--help", "-h")
    )
    assert shown.exit_code == 0
    assert short.output == shown.output
    command = COMMANDS[name]
    assert command.help
    for parameter in command.get_params(command.make_context(name, [], resilient_parsing=True)):
        assert getattr(parameter, "help", None), f"{name} {parameter.name} has no help"
        for option in parameter.opts + parameter.secondary_opts:
            if option.startswith("-"):
                assert option in shown.output


def test_the_version_is_that_of_the_package(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    monkeypatch.setattr(metadata, "version", lambda name: {"pairx-pipeline": "1.2.3"}[name])
    assert main("--version") == (0, "pairx 1.2.3\n", "")
    assert main("-h")[1] == main("--help")[1]

    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    assert main("--version") == (0, "pairx, not installed: run from its source\n", "")


@pytest.mark.parametrize(
    ("command", "offered"), [("run", 25), ("evaluate", 19), ("explain", 11), ("compare", 8), ("validate", 5)]
)
def test_settings_are_options_as_their_fields_say(command: str, offered: int) -> None:
    shown = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    options = {
        name: about.option or f"--{name.replace('_', '-')}"
        for name, field in Settings.model_fields.items()
        if (about := Setting.of(field)).panel in PANELS.get(command, (about.panel or "",))
    }
    assert len(options) == offered
    assert all(option.partition("/")[0] in shown for option in options.values())
    for name in {"top_k", "same_name_k", "other_name_k", "figures"} & options.keys():
        assert f"[{Settings.model_fields[name].default}]" in shown


def test_options_become_settings(monkeypatch: pytest.MonkeyPatch, main: Main, one_photo: Path) -> None:
    from flows.commands import explain
    from flows.commands import run as commands

    seen: list[Mapping[str, object]] = []
    monkeypatch.setattr(commands, "run_catalogue", lambda *arguments: seen.append(arguments[4]))
    monkeypatch.setattr(explain, "explain_photos", lambda *arguments: seen.append(arguments[4]))
    assert main("run", one_photo)[0] == 0
    assert (
        main(
            "run",
            one_photo,
            "--layer",
            "a",
            "--layer",
            "b",
            "--top-k",
            7,
            "--any-species",
            "--matcher",
            "sift",
        )[0]
        == 0
    )
    assert main("explain", "a", "b", "--layer", "c", "--preset", "paper", "--maps", 3)[0] == 0
    given = [{k: v for k, v in values.items() if v is not None} for values in seen]
    assert given == [
        {},
        {"layers": ("a", "b"), "top_k": 7, "same_species": False, "matcher": "sift"},
        {"layers": ("c",), "preset": "paper", "n_pixel_maps": 3, "n_lines": 20},
    ]


def test_printed_settings_are_a_toml_file_that_loads(main: Main, tmp_path: Path) -> None:
    from schemas.settings import load_settings

    code, out, _ = main("settings")
    assert code == 0
    (tmp_path / "all.toml").write_text(out, encoding="utf-8")
    assert load_settings(tmp_path / "all.toml") == Settings()
    assert all(name in out for name in Settings.model_fields)


# Start-up


def test_light_commands_import_neither_torch_nor_prefect(one_photo: Path, tmp_path: Path) -> None:
    place = ["--warehouse", str(tmp_path / "none")]
    light = [["--help"], ["validate", str(one_photo)], ["settings"], ["run", "--help"]]
    light += [[command, *place] for command in ("suspects", "sql", "report", "runs", "check")]
    script = f"""
import json, sys
from flows.cli import main as cli
for arguments in {light!r}:
    sys.argv = ["pairx", *arguments]
    cli._run()
print()
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert ended.stderr.count("there is no warehouse") == 5
    loaded = json.loads(ended.stdout.splitlines()[-1])
    assert not set(loaded) & set(WITHOUT_TORCH_AND_PREFECT)


# Bad input


def bad_catalogue(folder: Path) -> Path:
    rows = [
        {"image_id": "a", "identity": "A", "path": "a.jpg", "theta": "0"},
        {"image_id": "a", "identity": "A", "path": "b.jpg", "theta": "0"},
        {"image_id": "c", "identity": "A", "path": "../outside.jpg", "theta": "0"},
        {"image_id": "d", "identity": "A", "path": "d.jpg", "theta": "steep"},
        {"image_id": "", "identity": "A", "path": "e.jpg", "theta": "0"},
    ]
    return write_catalogue(folder / "bad.csv", rows)


@pytest.mark.parametrize("command", ["validate", "run"])
def test_a_bad_catalogue_lists_all_problems_before_any_work(main: Main, command: str, tmp_path: Path) -> None:
    more = ["--warehouse", tmp_path / "w"] if command == "run" else []
    code, _, err = main(command, bad_catalogue(tmp_path), *more)
    assert code == 2
    for expected in ("doubled image_id", "path outside root", "steep", "image_id", "../outside.jpg", "cure:"):
        assert expected in err
    assert "4 problems" in err
    assert "Traceback" not in err
    assert not (tmp_path / "w").exists()


def test_a_missing_column_is_named(main: Main, tmp_path: Path) -> None:
    path = write_catalogue(tmp_path / "c.csv", [{"image_id": "a", "identity": "A"}])
    code, _, err = main("validate", path)
    assert code == 2
    assert "missing column" in err


def test_a_good_catalogue_is_summed_up(main: Main, small: Path) -> None:
    code, out, _ = main("validate", small)
    assert code == 0
    assert "valid: " in out
    assert "6 animals" in out


def test_columns_that_are_not_used_are_named(main: Main, tmp_path: Path) -> None:
    row = {"image_id": "a", "turtle": "A", "path": "a.jpg", "site": "s", "": "0"}
    listed = write_catalogue(tmp_path / "c.csv", [row])
    assert "as --column identity=COLUMN" in main("validate", listed)[2]
    code, _, err = main("validate", listed, "--column", "identity=turtle")
    assert code == 0
    assert "note: read: image_id, path; identity from turtle\n" in err
    assert "note: kept with each photo, for SQL (extra): site\n" in err
    assert "note: not used: (a column without a name)\n" in err
    (tmp_path / "s.toml").write_text('columns = ["identity=turtle"]')
    assert main("validate", listed, "--settings", tmp_path / "s.toml")[2] == err
    code, _, err = main("run", listed, "--dry-run", "--column", "colour=turtle")
    assert code == 2
    assert "'colour' is no meaning that is read" in err


def photos_elsewhere(folder: Path, photos: str) -> Path:
    """A catalogue in `tables` of two photos that lie in another folder."""
    for name in ("tables", photos):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = [{"image_id": name, "identity": name, "path": f"{name}.png"} for name in "ab"]
    for row in rows:
        Image.new("RGB", (64, 64), (90, 120, 30)).save(folder / photos / row["path"])
    return write_catalogue(folder / "tables" / "herd.csv", rows)


@pytest.mark.parametrize("command", [["validate"], ["run", "--dry-run"]], ids=" ".join)
def test_photos_beside_their_catalogue_are_found_and_said(
    main: Main, tmp_path: Path, command: list[str]
) -> None:
    listed = photos_elsewhere(tmp_path / "place", "images")
    code, out, err = main(*command, listed)
    assert code == 0, err
    assert "note: photos are in ../images" in err
    assert f"{tmp_path / 'place' / 'images'}: 2 photos found" in out + err
    assert "note: read: image_id, identity, path\n" in err
    assert "note: no photo has an encounter" in err
    (tmp_path / "place" / "images" / "b.png").rename(tmp_path / "place" / "tables" / "b.png")
    code, out, err = main(*command, listed)
    assert code == 0, err
    assert "note: 1 of 2 photos found; not there: a.png" in err


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"], ["evaluate"]], ids=" ".join)
def test_without_any_photo_no_work_begins(main: Main, tmp_path: Path, command: list[str]) -> None:
    listed = photos_elsewhere(tmp_path / "place", "far/away/pictures")
    code, out, err = main("validate", listed)
    assert code == 0
    assert "valid: 2 photos" in out
    assert "0 of 2 photos found" in err
    code, _, err = main(*command, listed, "--warehouse", tmp_path / "w")
    assert code == 2
    assert "none of 2 photos is there" in err
    assert "cure: name the folder that the paths start from: --root" in err
    assert not (tmp_path / "w").exists()
    assert "there" not in main("validate", listed, "--root", tmp_path / "place/far/away/pictures")[2]


def test_an_unknown_setting_is_refused_with_the_known_ones(
    main: Main, one_photo: Path, tmp_path: Path
) -> None:
    toml = tmp_path / "s.toml"
    toml.write_text('top_k = 0\nmacher = "sift"\n', encoding="utf-8")
    code, _, err = main("run", one_photo, "--warehouse", tmp_path / "w", "--settings", toml)
    assert code == 2
    assert "macher: no such setting" in err
    assert "matcher" in err
    assert "top_k = 0" in err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--settings", "/nowhere/s.toml"], "no settings file"),
        (["--matcher", "surf"], "matcher"),
        (["--preset", "modern"], "preset"),
        (["--model", "/nowhere/model"], "no model at '/nowhere/model'"),
        (["--layer", "backbone.blocks.33"], "backbone.blocks.3"),
        (["--matcher", "superpoint+lightglue"], "superpoint"),
        (["--cluster", "slurm"], "cluster 'slurm'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_settings_end_with_2_and_a_message(
    main: Main, one_photo: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    code, _, err = main("run", one_photo, "--warehouse", tmp_path / "w", "--dry-run", *arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_an_empty_model_folder_says_what_is_expected(main: Main, one_photo: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    code, _, err = main("run", one_photo, "--dry-run", "--model", tmp_path / "model")
    assert code == 2
    assert "model.safetensors" in err


def test_a_hub_id_without_network_names_the_cure(
    main: Main, one_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def no_network(hub_id: str, **options: object) -> str:
        asked.update(options, hub_id=hub_id)
        raise OSError("network is unreachable")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    code, _, err = main("run", one_photo, "--dry-run", "--model", "conservationxlabs/miewid-msv3")
    assert code == 2
    assert "without network" in err.lower()
    assert "--model FOLDER" in err
    assert asked["hub_id"] == "conservationxlabs/miewid-msv3"
    assert asked["revision"]
    assert len(str(asked["revision"])) == 40
    assert not any("py" in str(p).rpartition(".")[2] for p in asked["allow_patterns"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_a_library_renames_is_still_a_signal(
    main: Main, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    from flows.commands import settings

    def renamed() -> None:
        try:
            signal.raise_signal(number)
        except BaseException as error:
            # As pydantic's serializer does, which keeps no cause.
            raise ValueError(f"Error calling function `ser_model`: {type(error).__name__}: ") from None

    monkeypatch.setattr(settings, "print_settings", renamed)
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, cli._terminate)
    signal.signal(signal.SIGINT, cli._interrupt)
    try:
        ended, _, err = main("settings")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert ended == code
    assert "run the same command to go on" in err


def test_ctrl_c_says_that_the_work_is_kept(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.commands import settings

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(settings, "print_settings", interrupted)
    code, _, err = main("settings")
    assert code == 130
    assert "run the same command to go on" in err


# Warehouses


@pytest.mark.parametrize(
    "arguments",
    [
        ["sql", "SELECT 1"],
        ["suspects"],
        ["report"],
        ["review"],
        ["who", "photo"],
        ["runs"],
        ["check"],
        ["evaluate"],
        ["explain", "a.jpg", "b.jpg"],
        ["compare", "a.jpg", "b.jpg"],
        ["compare", "--suspects", "1"],
        ["evaluate", "--dry-run", "--model", "embedded"],
    ],
    ids=" ".join,
)
def test_a_warehouse_that_is_not_there_is_bad_input(main: Main, tmp_path: Path, arguments: list[str]) -> None:
    code, _, err = main(*arguments, "--warehouse", tmp_path / "none")
    assert code == 2
    assert f"there is no warehouse at {tmp_path / 'none'}" in err
    assert "pairx run CATALOGUE" in err
    assert list(tmp_path.iterdir()) == []


def test_every_command_that_reads_a_warehouse_is_tried_above() -> None:
    readers = {
        name
        for name, command in COMMANDS.items()
        if any(p.name == "warehouse" for p in command.params) and not takes_a_catalogue(command)
    }
    assert readers == {"sql", "suspects", "report", "review", "who", "runs", "check", "explain", "compare"}


def takes_a_catalogue(command: ClickCommand) -> bool:
    return any(p.name == "catalogue" for p in command.params)


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_a_run_that_is_refused_leaves_no_empty_folder(
    main: Main, one_photo: Path, tmp_path: Path, command: str
) -> None:
    place = tmp_path / "deep" / "mistyped"
    code, _, err = main(command, one_photo, "--warehouse", place, "--cluster", "slurm")
    assert code == 2, err
    assert not place.parent.exists()


def test_an_unknown_kind_of_suspects_is_bad_input(main: Main, tmp_path: Path) -> None:
    code, _, err = main("suspects", "--warehouse", tmp_path, "--kind", "copies")
    assert code == 2
    assert "there is no kind of suspects 'copies'" in err
    assert "did you mean copy?" in err
    assert "use copy, one_name_two_animals, two_names_one_animal or wrong_name" in err


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        (["suspects", "--by"], ["probability", "kind"]),
        (["suspects", "--format"], ["table", "csv", "json"]),
        (["sql", "SELECT 1", "--format"], ["table", "csv", "json"]),
        (["explain", "a.png", "a.png", "--method"], ["pairx_published", "matches_sift"]),
        (["compare", "a.png", "a.png", "--method"], ["pairx_published", "matches_sift"]),
        (["explain", "a.png", "a.png", "--precision"], ["float32", "bfloat16"]),
        (["run", "one.csv", "--fail-on"], ["failures", "new-suspects"]),
        (["run", "one.csv", "--preset"], ["auto", "published", "paper", "conserving"]),
        (["run", "one.csv", "--reduction"], ["abs_of_sum", "signed_sum", "sum_of_abs"]),
        (["run", "one.csv", "--device"], ["auto", "cpu", "cuda"]),
        (["run", "one.csv", "--homography"], ["magsac", "least_squares"]),
        (["run", "one.csv", "--matcher"], ["sift", "disk+lightglue"]),
        (["run", "one.csv", "--cluster"], ["auto", "local", "slurm"]),
        (["evaluate", "one.csv", "--model", "embedded", "--choose", "--try-matcher"], ["sift", "disk+lightglue"]),
        (["evaluate", "one.csv", "--model", "embedded", "--faithfulness", "3", "--method"], ["pairx_published"]),
    ],
    ids=lambda value: " ".join(value) if value[0] in COMMANDS else "",
)  # fmt: skip
def test_a_choice_that_there_is_not_is_told_with_those_there_are(
    main: Main,
    one_photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    choices: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), (90, 120, 30)).save(tmp_path / "a.png")
    code, _, err = main(*arguments, "nonsense")
    assert code == 2
    assert "nonsense" in err
    assert all(choice in err for choice in choices)
    assert not (tmp_path / "warehouse").exists()


@pytest.mark.parametrize("kind", ["file", "protocol"])
def test_a_warehouse_that_cannot_be_written_is_said_plainly(
    main: Main, one_photo: Path, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "file").write_text("")
    url = {"file": str(tmp_path / "file"), "protocol": "nosuch://bucket/w"}[kind]
    code, _, err = main("run", one_photo, "--warehouse", url)
    assert code == {"file": 1, "protocol": 2}[kind]
    assert "pairx: " in err
    assert "cure:" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM photos",
        "CREATE TABLE x (a INT)",
        "COPY photos TO 'stolen.csv'",
        "SELECT 1; DROP VIEW photos",
    ],
)
def test_writing_statements_are_refused(main: Main, undisturbed: Finished, query: str) -> None:
    code, out, err = main("sql", query, "--warehouse", undisturbed.warehouse.root)
    assert code == 2
    assert out == ""
    assert "pairx: " in err


def test_a_command_ends_with_its_code_in_a_shell(main: Main, undisturbed: Finished) -> None:
    root = undisturbed.warehouse.root
    refused = pairx("sql", "--warehouse", root, "INSERT INTO photos VALUES (1)")
    assert refused.returncode == 2
    assert "refused" in refused.stderr
    assert pairx("sql", "--warehouse", root, "SELECT count(*) FROM photos").returncode == 0
    assert main("check", "--warehouse", root)[0] == 0


def test_answers_come_as_table_csv_and_json(main: Main, undisturbed: Finished) -> None:
    root = undisturbed.warehouse.root
    query = "SELECT photo_id, theta FROM photos ORDER BY photo_id LIMIT 2"
    code, out, _ = main("sql", query, "--warehouse", root, "--format", "csv")
    assert (code, out.splitlines()[0], len(out.splitlines())) == (0, "photo_id,theta", 3)
    rows = json.loads(main("sql", query, "--warehouse", root, "--format", "json")[1])
    assert [set(row) for row in rows] == [{"photo_id", "theta"}] * 2
    assert "photo_id" in main("sql", query, "--warehouse", root)[1]
    assert main("sql", query, "--warehouse", root, "--format", "xml")[0] == 2
    records = main("sql", query, "--warehouse", root, "--format", "records")[1].splitlines()
    assert [line.split()[0] for line in records[1:3]] == ["photo_id", "theta"]


def test_suspects_fit_the_terminal_unless_wide(
    main: Main, undisturbed: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    root = undisturbed.warehouse.root
    told = json.loads(main("suspects", "--warehouse", root, "--format", "json")[1])
    narrow, wide = (main("suspects", "--warehouse", root, *more)[1] for more in ([], ["--wide"]))
    assert max(map(len, narrow.splitlines())) <= 80
    assert len(wide.splitlines()) == len(told) + 3
    for shown in (narrow, wide):
        assert all(" ".join(row["reason"].split()) in " ".join(shown.split()) for row in told)
    for name in ("rank", "kind", "probability"):
        assert name in narrow.splitlines()[0]


def test_the_format_is_heeded_by_everything_that_sql_prints(main: Main) -> None:
    for listing in (["--cookbook"], ["--tables"], ["--tables", "pairs"]):
        code, _, err = main("sql", *listing, "--format", "xml")
        assert (code, "formats are table, records, csv, json" in err) == (2, True)
        rows = json.loads(main("sql", *listing, "--format", "json")[1])
        told = list(csv.reader(main("sql", *listing, "--format", "csv")[1].splitlines(keepends=True)))
        assert told[0] == list(rows[0])
        assert len(told) == len(rows) + 1
    first = json.loads(main("sql", "--cookbook", "1", "--format", "json")[1])
    assert [row["number"] for row in first] == [1]
    assert first[0]["query"] in main("sql", "--cookbook", "1")[1]
    code, _, err = main("sql", "--cookbook", "99")
    assert (code, "its numbers are 1 to" in err) == (2, True)
    assert main("sql", "--cookbook", "--tables")[0] == 2


def test_suspects_and_report_of_a_finished_run(main: Main, undisturbed: Finished) -> None:
    root = undisturbed.warehouse.root
    code, out, _ = main("suspects", "--warehouse", root, "--top", 3, "--format", "json")
    assert code == 0
    assert [row["rank"] for row in json.loads(out)] == [1, 2, 3]
    kinds = {
        row["kind"]
        for row in json.loads(main("suspects", "--warehouse", root, "--kind", "copy", "--format", "json")[1])
    }
    assert kinds == {"copy"}
    both = ("--kind", "copy", "--kind", "wrong_name", "--by", "kind", "--format", "json")
    kinds_in_order = [row["kind"] for row in json.loads(main("suspects", "--warehouse", root, *both)[1])]
    assert kinds_in_order == sorted(kinds_in_order, reverse=True)
    code, _, err = main("suspects", "--warehouse", root, "--by", "name")
    assert code == 2
    assert "no order 'name'" in err
    code, out, _ = main("report", "--warehouse", root)
    assert code == 0
    assert Path(out.strip()).is_file()


def test_a_damaged_warehouse_fails_the_check(main: Main, undisturbed: Finished, tmp_path: Path) -> None:
    warehouse = undisturbed.copy(tmp_path / "w")
    victim = next(Path(warehouse.root).glob("scores/*/*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-7])
    code, _, err = main("check", "--warehouse", warehouse.root)
    assert code == 1
    assert victim.name in err


# The dry run


def test_a_dry_run_prints_the_plan_and_writes_nothing(main: Main, small: Path, tmp_path: Path) -> None:
    code, out, err = main("run", small, "--warehouse", tmp_path / "deep" / "w", "--dry-run", "--top-k", 3)
    assert code == 0
    assert list(tmp_path.rglob("*")) == []
    lines = {line.partition(" ")[0]: line for line in out.splitlines() if line}
    rows = sum(1 for _ in small.open(encoding="utf-8")) - 1
    assert f"{rows} listed, 0 known, {rows} to read, {rows} to embed" in lines["photos"]
    assert "top 3" in lines["pairs"]
    assert f"ingest {-(-rows // 64)}" in lines["shards"]
    assert {"embed", "score", "verify", "judge"} <= set(lines["shards"].split())
    assert "about" in lines["time"]
    assert "not to trust" in " ".join(err.split())


def test_a_dry_run_on_a_finished_warehouse_finds_nothing(
    main: Main, small: Path, undisturbed: Finished, tmp_path: Path
) -> None:
    toml = tmp_path / "tiny.toml"
    toml.write_text("".join(f"{k} = {v!r}\n".replace("'", '"') for k, v in TINY.items()), encoding="utf-8")
    root = Path(undisturbed.warehouse.root)
    before = sorted(p.stat().st_mtime_ns for p in root.rglob("*"))
    code, out, _ = main("run", small, "--warehouse", root, "--dry-run", "--settings", toml)
    assert code == 0
    assert "0 to read, 0 to embed" in out
    assert "about 0 to score" in out
    assert sorted(p.stat().st_mtime_ns for p in root.rglob("*")) == before


@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_a_dry_run_refuses_the_cluster_that_a_run_would_refuse(
    main: Main, one_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    from flows.clusters import gpus

    monkeypatch.setattr(gpus, "_gpus", list)
    arguments = [
        command,
        one_photo,
        "--warehouse",
        tmp_path / "w",
        "--model",
        "embedded",
        "--cluster",
        "cuda",
    ]
    refused = main(*arguments)
    assert refused[0] == 2
    assert main(*arguments, "--dry-run") == refused


# The run


@pytest.mark.parametrize(("asked", "failed", "code"), [("failures", 2, 1), ("failures", 0, 0), (None, 2, 0)])
def test_failures_set_the_exit_code_where_asked(
    main: Main,
    one_photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str | None,
    failed: int,
    code: int,
) -> None:
    from flows.commands import run as commands
    from flows.night import run as night
    from flows.night.values import RunSummary
    from tasks.runs.log import StageLog
    from tasks.runs.tonight import Tonight

    @contextmanager
    def at_work(*_: object) -> Iterator[tuple[None, None]]:
        yield None, None

    stages = (StageLog("ingest", failed=failed), StageLog("embed"))
    summary = RunSummary("r", "w/reports/r.html", {}, (), stages, datetime.now(UTC), Tonight(), None)
    monkeypatch.setattr(commands, "warehouse_for", at_work)
    monkeypatch.setattr(night, "run", lambda *_: summary)
    ended, out, err = main("run", one_photo, *(["--fail-on", asked] if asked else []))
    assert ended == code, err
    assert "report: w/reports/r.html" in out
    assert ("this run recorded failures: ingest 2" in err) == bool(code)


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_of_a_log_file_have_their_time(capsys: pytest.CaptureFixture[str], terminal: bool) -> None:
    reporter = Terminal()
    reporter._console = PlainConsole(stderr=True)
    reporter._console._force_terminal = terminal
    reporter.notice("read this")
    reporter.begin("ingest", 0, "photos")
    reporter.end("nothing new")
    lines = capsys.readouterr().err.splitlines()
    time_of_day = "" if terminal else r"\d\d:\d\d:\d\d "
    for line, said in zip(lines, ("read this", r"ingest +nothing new  \(0\.0 s\)"), strict=True):
        assert re.fullmatch(time_of_day + said, re.sub("\x1b\\[[0-9;]*m", "", line))


# One pair


def test_explain_draws_a_figure_and_writes_arrays_under_the_golden_names(
    main: Main, small: Path, tmp_path: Path
) -> None:
    with small.open(encoding="utf-8") as file:
        photos = [r for r in csv.DictReader(file) if r["identity"]]
    pairs = [
        (p, q)
        for p in photos
        for q in photos
        if p["identity"] == q["identity"] and p["encounter"] < q["encounter"]
    ]
    first, second = next(pq for pq in pairs if all(_opens(small.parent / p["path"]) for p in pq))
    boxes = [",".join(p[k] for k in "xywh") for p in (first, second)]
    out, arrays = tmp_path / "deep" / "out.png", tmp_path / "other" / "out.npz"
    code, said, err = main(
        "explain", small.parent / first["path"], small.parent / second["path"], "-o", out, "--arrays", arrays,
        "--box-a", boxes[0], "--box-b", boxes[1], "--maps", 2,
    )  # fmt: skip
    assert code == 0, err
    assert EMBEDDED_NOTICE[:60] in err
    assert "cosine" in said
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 5
    with np.load(arrays) as found:
        assert set(found.files) == GOLDEN_NAMES | EVIDENCE_NAMES
        assert found["box1"].tolist() == [float(side) for side in boxes[1].split(",")]
        assert (str(found["photo0"]), str(found["method"])) == (Path(first["path"]).name, "pairx_published")
        assert found["pixel_relevance0"].shape == (2, 160, 160)
        assert found["chip0"].dtype == np.uint8
        a, b = (found[f"embedding{i}"].astype(float) for i in (0, 1))
        assert float(found["cosine"]) == pytest.approx(
            a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6
        )


def test_explain_prints_what_an_explanation_says_of_itself(main: Main, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((160, 160)).save(
        tmp_path / "a.png"
    )
    code, said, err = main(
        "explain",
        tmp_path / "a.png",
        tmp_path / "a.png",
        "-o",
        tmp_path / "o.png",
        "--method",
        "matches_sift",
    )
    assert code == 0, err
    assert "matches on the chips" in said


def test_the_list_of_methods_says_what_they_need(main: Main) -> None:
    code, said, err = main("explain", "--methods")
    assert code == 0, err
    (line,) = (line for line in said.splitlines() if line.startswith("matches_superpoint+lightglue "))
    assert "needs weights of superpoint+lightglue" in line
    (line,) = (line for line in said.splitlines() if line.startswith("matches_sift "))
    assert "needs" not in line


def _opens(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, Image.DecompressionBombError):
        return False
    return True


def test_golden_names_are_those_of_the_goldens(shared: Path) -> None:
    for path in (shared / "goldens").glob("*.npz"):
        with np.load(path) as golden:
            assert set(golden.files) == GOLDEN_NAMES


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"", "no bytes"), (b"<html>", "picture")],
    ids=["missing", "empty", "html"],
)
def test_explain_names_the_photo_that_it_cannot_read(
    main: Main, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "b.jpg").write_bytes(content)
    Image.new("RGB", (64, 64), (90, 120, 30)).save(tmp_path / "a.png")
    code, _, err = main("explain", tmp_path / "a.png", tmp_path / "b.jpg", "-o", tmp_path / "o.png")
    assert code == 2
    assert "b.jpg" in err
    assert said in err
    assert not (tmp_path / "o.png").exists()


def test_explain_refuses_a_box_that_is_none(main: Main, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (90, 120, 30)).save(tmp_path / "a.png")
    code, _, err = main("explain", tmp_path / "a.png", tmp_path / "a.png", "--box-a", "1,2,three,4")
    assert code == 2
    assert "1,2,three,4" in err
