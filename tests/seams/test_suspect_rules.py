"""A suspect rule is one SQL file: put beside the others, it is seen wherever suspects are."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import SettingsError
from schemas.sql import files as sql_files
from tasks.sql.console import connect_analyst
from tasks.sql.listing import describe
from tasks.store.warehouse import Warehouse
from tests.tasks.test_report import page, suspect
from tests.toy_warehouse import Pair, Photo, Toy

RULE = """\
-- a photo of an unknown animal that looks like a named one
-- label: Who is this?

SELECT
    'photo' AS subject_kind, if(identity_a IS NULL, photo_a, photo_b) AS subject, subject AS blamed_photo,
    coalesce(identity_a, identity_b) AS right_name, [pair_id] AS supporting_pairs, NULL AS photos, evidence AS score,
    format('{} may be {}.', subject, right_name) AS words
FROM evidence
WHERE (identity_a IS NULL) <> (identity_b IS NULL)
"""
AGAIN = """
import sys
from pathlib import Path
from schemas.sql import files as sql_files
sql_files.FOLDERS.append(Path(sys.argv.pop(1)))
from flows.cli.main import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sql" / "suspects").mkdir(parents=True)
    (tmp_path / "sql" / "suspects" / "toy.sql").write_text(RULE)
    monkeypatch.setattr(sql_files, "FOLDERS", [*sql_files.FOLDERS, tmp_path / "sql"])
    return tmp_path / "sql"


@pytest.fixture
def warehouse(tmp_path: Path) -> str:
    photos = [Photo(f"{name}{i}", name, f"e{name}{i}") for name in "AB" for i in range(3)]
    pairs = [
        Pair(a.photo_id, b.photo_id, 0.8 if a.identity == b.identity else 0.4)
        for a, b in itertools.combinations(photos, 2)
    ]
    toy = Toy([*photos, Photo("unknown")], [*pairs, Pair("A0", "unknown", 0.9, 0.5, 4.0, 30)], 20, 5)
    return toy.write(Warehouse(str(tmp_path / "w"))).url


@pytest.mark.parametrize("materialise", [False, True])
def test_its_suspects_are_ranked_with_the_others(folder: Path, warehouse: str, materialise: bool) -> None:
    connection = connect_analyst(warehouse, materialise=materialise)
    rows = connection.sql("FROM suspects WHERE kind = 'toy'").to_arrow_table().to_pylist()
    assert [(r["photo_a"], r["photo_b"], r["identity_b"]) for r in rows] == [("A0", "unknown", None)]
    assert rows[0]["reason"].startswith("unknown may be A. Cosine 0.90, 30 of 60 local matches")
    blamed = (
        "SELECT subject, blamed_photo, right_name, len(supporting_pairs) FROM suspicions WHERE kind = 'toy'"
    )
    assert connection.sql(blamed).fetchall() == [("unknown", "unknown", "A", 1)]


def test_the_command_line_knows_it(folder: Path, warehouse: str) -> None:
    def pairx(*arguments: str) -> str:
        command = [sys.executable, "-c", AGAIN, str(folder), "suspects", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    helped = " ".join(pairx("--help").replace("│", " ").split())
    assert "toy: a photo of an unknown animal that looks like a named one" in helped
    answer = pairx("--warehouse", warehouse, "--kind", "toy", "--format", "json")
    assert [row["kind"] for row in json.loads(answer)] == ["toy"]


def test_an_unknown_kind_is_answered_with_all_kinds(folder: Path, warehouse: str) -> None:
    from flows.commands.ask import print_suspects

    with pytest.raises(SettingsError, match="two_names_one_animal or wrong_name"):
        print_suspects(warehouse, 5, ["nonsense"], "rank", "table")


def test_the_report_labels_and_filters_it(folder: Path) -> None:
    shown = page(suspects=[suspect(1, kind="toy"), suspect(2, kind="copy")], n_suspects_total=2)
    assert {a["value"] for a in shown.with_class("kind-filter")} == {"toy", "copy"}
    assert "Who is this? 1" in shown.text


def test_tables_describe_it(folder: Path) -> None:
    for view in ("suspects", "suspicions"):
        (line,) = [text for text in describe(None, view).splitlines() if text.startswith("kind ")]
        assert line.endswith("  copy, one_name_two_animals, toy, two_names_one_animal or wrong_name")
