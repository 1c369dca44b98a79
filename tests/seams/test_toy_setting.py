"""A setting that the package does not know, added from outside as one field, is one like any other."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.flows.running import environment

ADDED = """
from typing import Annotated
from pydantic import Field
from pydantic.fields import FieldInfo
from schemas.setting import Setting
from schemas.settings import Settings

Settings.model_fields["toy"] = FieldInfo.from_annotated_attribute(
    Annotated[int, Setting("Toys", part_of=("scores",))], Field(3, ge=1, description="How many toys.")
)
Settings.model_rebuild(force=True)
"""
"""Runs in processes of its own: the class that all other tests share stays as it is."""
SEEN = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from typer.testing import CliRunner
from flows.cli import main as cli
from flows.commands import run as commands
from schemas.fingerprints import fingerprints
from schemas.settings import load_settings

taken = []
commands.run_catalogue = lambda *given: taken.append(load_settings(given[3], given[4]).toy)
shown = {command: CliRunner().invoke(cli.app, [command, "--help"]).output for command in ("run", "explain")}
shown["settings"] = CliRunner().invoke(cli.app, ["settings"]).output
toml = Path(sys.argv[1])
toml.write_text("toy = 5")
for options in ([], ["--settings", str(toml)], ["--settings", str(toml), "--toy", "7"]):
    assert CliRunner().invoke(cli.app, ["run", "catalogue.csv", *options]).exit_code == 0
prints = [
    asdict(fingerprints(load_settings(overrides={"toy": toy}), {}, {}, {}, {}, ("a",), {})) for toy in (3, 4)
]
print(json.dumps({"shown": shown, "taken": taken, "prints": prints}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    toml = tmp_path_factory.mktemp("toy") / "toy.toml"
    ended = subprocess.run(
        [sys.executable, "-c", ADDED + SEEN, str(toml)],
        env=environment(), check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, dict[str, str]] = json.loads(ended.stdout)
    return found


def test_it_is_in_the_help_of_a_run_and_among_the_printed_settings(seen: dict[str, dict[str, str]]) -> None:
    shown = seen["shown"]
    assert "─ Toys ─" in shown["run"]
    assert "--toy" in shown["run"]
    assert "How many toys [3]." in shown["run"]
    assert "# How many toys.\ntoy = 3\n" in shown["settings"]
    assert "--toy" not in shown["explain"]


def test_it_is_read_from_its_default_the_file_and_the_command_line(seen: dict[str, dict[str, str]]) -> None:
    assert seen["taken"] == [3, 5, 7]


def test_it_enters_the_fingerprint_of_the_table_that_it_names_and_of_those_computed_from_it(
    seen: dict[str, list[dict[str, str]]],
) -> None:
    first, second = seen["prints"]
    assert {t for t in first if first[t] != second[t]} == {
        "scores", "signals", "explanations", "suspects", "judgements"
    }  # fmt: skip
