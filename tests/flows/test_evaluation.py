"""`pairx evaluate` as a flow and as a command, on the small catalogue after a nightly run."""

from __future__ import annotations

import csv
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.cli import main as cli
from flows.commands.evaluate import _dataset, _settings, plan_of
from flows.evaluation import Evaluated, EvaluationPlan, settings_of_newest_run
from flows.evaluation import evaluate as evaluate_under
from flows.work.progress import Reporter, Silent
from pairx_engine.errors import EngineError
from pairx_engine.faithfulness import CHECKS, Flipping, Protocol
from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.errors import PairxError, SettingsError
from schemas.evaluate_options import EvaluateOptions
from schemas.settings import Settings, load_settings
from tasks.check.findings import check
from tasks.job import prepare_job
from tasks.pages.evaluation_values import ALL_SCORES, OWN_SCORES
from tasks.sql.console import connect_analyst
from tasks.store.lease import at_work
from tasks.store.warehouse import Warehouse
from tests.finished_runs import Finished
from tests.small_catalogue import TINY, rewrite

OPTIONS = EvaluationPlan(
    "toy",
    EvaluateOptions(
        resamples=20,
        figures=1,
        choose=True,
        try_layer=("backbone.blocks.2",),
        sweep_pairs=40,
        folds=2,
        faithfulness=2,
    ),
    methods=("pairx_published", "random"),
    protocol=Protocol((Flipping(n_steps=4),)),
)


def changed(**options: Any) -> EvaluationPlan:
    """The plan with some options changed."""
    return replace(OPTIONS, options=OPTIONS.options.model_copy(update=options))


class Heard(Silent):
    """Remembers each stage with its items."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}

    def begin(self, stage: str, items: int, unit: str) -> None:
        self.stages[stage] = items


def evaluate(
    catalogue: Catalogue | None,
    warehouse: Warehouse,
    settings: Settings,
    plan: EvaluationPlan,
    heard: Reporter,
) -> Evaluated:
    with at_work(warehouse, "test") as lease:
        return evaluate_under(catalogue, prepare_job(warehouse, settings), lease, plan, heard)


def files(warehouse: Warehouse) -> set[str]:
    return {str(p) for p in Path(warehouse.root).rglob("*.parquet")}


@pytest.fixture(scope="module")
def evaluated(
    undisturbed: Finished, scheduler: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Warehouse, Evaluated, Heard]:
    """The nightly run's warehouse after an evaluation of everything."""
    warehouse = undisturbed.copy(tmp_path_factory.mktemp("evaluated") / "w")
    heard = Heard()
    settings = Settings(**{**TINY, "cluster": scheduler})
    return warehouse, evaluate(None, warehouse, settings, OPTIONS, heard), heard


def test_an_evaluation_finds_everything_that_was_asked_for(
    evaluated: tuple[Warehouse, Evaluated, Heard],
) -> None:
    _, found, heard = evaluated
    evaluation = found.evaluation
    assert found.balance.ok
    assert found.balance.planned == found.pairs.num_rows > 20
    assert {s.score for s in evaluation.statistics} == {*ALL_SCORES, "cosine"}
    assert set(OWN_SCORES) < set(found.pairs.column_names)
    assert any(s.value is not None and s.low is not None for s in evaluation.statistics)
    assert len(evaluation.outliers) > len(evaluation.figures) == 1
    assert evaluation.figures[evaluation.outliers[0].pair_id][8:12] == b"WEBP"
    assert evaluation.choice is not None
    assert {c.settings["layer"] for c in evaluation.choice.candidates} == {
        evaluation.layer,
        "backbone.blocks.2",
    }
    assert {r.method for r in evaluation.faithfulness} == {"pairx_published", "random"}
    assert all(math.isfinite(r.mean) for r in evaluation.faithfulness)
    assert heard.stages["embed"] == 0, "the nightly run has embedded them"
    assert heard.stages["sweep"] == 40


def test_pairs_of_the_nightly_run_are_not_scored_again(
    undisturbed: Finished, evaluated: tuple[Warehouse, Evaluated, Heard]
) -> None:
    _, found, heard = evaluated
    stored = connect_analyst(undisturbed.warehouse.root).execute("SELECT pair_id FROM pair_scores").fetchall()
    listed = set(found.pairs["pair_id"].to_pylist())
    known = listed & {row[0] for row in stored}
    assert known
    assert heard.stages["score"] == len(listed) - len(known)


def test_nothing_that_the_nightly_run_says_changes(
    undisturbed: Finished, evaluated: tuple[Warehouse, Evaluated, Heard]
) -> None:
    warehouse, *_ = evaluated
    query = "SELECT pair_id, rank FROM suspects ORDER BY rank"
    before, after = (
        connect_analyst(w.root).execute(query).fetchall() for w in (undisturbed.warehouse, warehouse)
    )
    assert after == before
    counts = (
        "SELECT (SELECT count(*) FROM pairs), (SELECT count(*) FROM scores), (SELECT count(*) FROM failures)"
    )
    assert (
        connect_analyst(warehouse.root).execute(counts).fetchall()
        == connect_analyst(undisturbed.warehouse.root).execute(counts).fetchall()
    )
    assert not check(warehouse).problems


def test_a_second_evaluation_computes_nothing_and_says_the_same(
    evaluated: tuple[Warehouse, Evaluated, Heard], scheduler: str
) -> None:
    warehouse, first, _ = evaluated
    before, heard = files(warehouse), Heard()
    again = evaluate(None, warehouse, Settings(**{**TINY, "cluster": scheduler}), OPTIONS, heard)
    assert files(warehouse) == before
    assert {s: n for s, n in heard.stages.items() if n} == {}
    assert again.evaluation.statistics == first.evaluation.statistics
    assert again.evaluation.outliers == first.evaluation.outliers
    assert repr(again.evaluation.choice) == repr(first.evaluation.choice)  # NaN is not equal to itself
    assert again.evaluation.faithfulness == first.evaluation.faithfulness
    assert again.pairs.equals(first.pairs)


def test_the_command_writes_a_folder(
    evaluated: tuple[Warehouse, Evaluated, Heard], scheduler: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    warehouse, found, _ = evaluated
    out = tmp_path / "out"
    arguments = [
        "evaluate",
        "--warehouse",
        warehouse.root,
        "--out",
        str(out),
        "--name",
        "toy",
        "--resamples",
        "20",
    ]
    arguments += ["--figures", "1", "--choose", "--try-layer", "backbone.blocks.2", "--sweep-pairs", "40"]
    rare = tmp_path / "rare.toml"
    rare.write_text("[evaluate]\nfolds = 2\n")
    monkeypatch.setattr("sys.argv", ["pairx", *arguments, "--settings", str(rare), "--cluster", scheduler])
    assert cli._run() == 0
    said = capsys.readouterr().out
    assert str(found.balance) in said
    assert "report.html" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert pq.read_table(out / "table.parquet").num_rows == len(found.evaluation.statistics)
    assert pq.read_table(out / "pairs.parquet").num_rows == found.pairs.num_rows
    with (out / "table.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(found.evaluation.statistics)
    chosen = load_settings(out / "chosen.toml")
    assert found.evaluation.choice is not None
    kept = found.evaluation.choice.chosen is found.evaluation.choice.default
    assert chosen.layers == (() if kept else (found.evaluation.choice.chosen.settings["layer"],))
    assert chosen.preset == found.evaluation.choice.chosen.settings["preset"]


def test_the_settings_are_those_of_the_newest_run(undisturbed: Finished, tmp_path: Path) -> None:
    inherited = settings_of_newest_run(undisturbed.warehouse)
    assert inherited["top_k"] == TINY["top_k"]
    assert settings_of_newest_run(Warehouse(str(tmp_path / "empty"))) == {}


def test_a_warehouse_without_a_finished_run_asks_for_its_settings(
    undisturbed: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse = undisturbed.copy(tmp_path / "w")
    shutil.rmtree(Path(warehouse.root, "runs"))
    monkeypatch.setattr("sys.argv", ["pairx", "evaluate", "--warehouse", warehouse.root, "--dry-run"])
    assert cli._run() == 1
    assert "--model" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*sys.argv, "--model", "embedded"])
    assert cli._run() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--per-photo", "0"], "per_photo = 0"),
        (["--choose", "--try-matcher", "eyes"], "is not known"),
        (["--faithfulness", "2", "--method", "guess"], "pairx_conserving"),
        (["--method", "random"], "add --faithfulness"),
        (["--try-layer", "backbone.blocks.2"], "add --choose"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    undisturbed: Finished, options: list[str], words: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(
        "sys.argv", ["pairx", "evaluate", "--warehouse", undisturbed.warehouse.root, *options]
    )
    assert cli._run() == 2
    assert words in capsys.readouterr().err


def test_only_the_photos_of_the_catalogue_are_evaluated(
    undisturbed: Finished, small: Path, scheduler: str, tmp_path: Path
) -> None:
    part = read_catalogue(
        str(rewrite(small, "part.csv", lambda rows: [r for r in rows if r["species"] != rows[0]["species"]]))
    )
    settings = Settings(**{**TINY, "cluster": scheduler})
    quick = changed(choose=False, faithfulness=0, figures=0, resamples=0)
    found = evaluate(part, undisturbed.copy(tmp_path / "w"), settings, quick, Silent())
    sides = {*found.pairs["photo_a"].to_pylist(), *found.pairs["photo_b"].to_pylist()}
    assert sides <= {entry.photo_id for entry in part.entries}
    assert found.evaluation.n_photos < len(part.entries) + 1


@pytest.mark.parametrize(
    ("options", "words"),
    [({"try_layer": ("backbone.blocks.99",)}, "blocks.99"), ({"try_layer": ("bn",)}, "bn")],
)
def test_a_layer_that_cannot_be_tried_shows_before_any_work(
    tmp_path: Path, small: Path, options: dict, words: str
) -> None:
    heard = Heard()
    with pytest.raises(EngineError, match=words):
        evaluate(
            read_catalogue(str(small)),
            Warehouse(str(tmp_path / "w")),
            Settings(**TINY),
            changed(**options),
            heard,
        )
    assert heard.stages == {}


@pytest.mark.slow
def test_a_pair_that_failed_is_counted_and_tried_again(scheduler: str, small: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue"
    shutil.copytree(small.parent, catalogue)
    read = read_catalogue(str(catalogue / small.name))
    settings = Settings(**{**TINY, "cluster": scheduler})
    quick = changed(faithfulness=0, figures=0, resamples=0)
    warehouse = Warehouse(str(tmp_path / "w"))
    listed = evaluate(read, warehouse, settings, replace(quick, choose=False), Silent()).pairs
    lost = listed["photo_a"][0].as_py()
    path = catalogue / next(e.path for e in read.entries if e.photo_id == lost)
    path.rename(path.with_suffix(".away"))
    for folder in ("scores", "matches", "relevances"):
        shutil.rmtree(Path(warehouse.root, folder))
    concerned = sum(
        lost in pair for pair in zip(*(listed[s].to_pylist() for s in ("photo_a", "photo_b")), strict=True)
    )
    # A worker of its own: that of the session remembers the photo whose file is gone.
    found = evaluate(None, warehouse, Settings(**TINY), quick, Silent())
    assert found.balance.ok
    assert found.balance.failed == found.evaluation.n_failed == concerned > 0
    path.with_suffix(".away").rename(path)
    heard = Heard()
    again = evaluate(None, warehouse, settings, quick, heard)
    assert (again.balance.failed, again.balance.done) == (0, listed.num_rows)
    assert 0 < heard.stages["sweep"] <= 40, (
        "a missing file may be back, so that its shards are measured again"
    )
    heard = Heard()
    evaluate(None, warehouse, settings, quick, heard)
    assert heard.stages["sweep"] == 0


def test_settings_of_another_model_are_not_inherited(
    undisturbed: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {
        "model": "a",
        "layers": ["x"],
        "resize": "opencv",
        "preset": "paper",
        "matcher_weights": "w",
        "workers": 7,
    }
    monkeypatch.setattr("flows.evaluation.settings_of_newest_run", lambda warehouse: stored)
    root = undisturbed.warehouse.root
    same = _settings(root, None, {"top_k": 9}, True)
    assert (same.model, same.layers, same.resize, same.top_k, same.workers) == (
        "a",
        ("x",),
        "opencv",
        9,
        None,
    )
    other = _settings(root, None, {"model": "b", "matcher": "disk+lightglue"}, True)
    assert (other.layers, other.resize, other.preset, other.matcher_weights) == ((), None, "paper", None)


def test_a_settings_file_overrides_the_newest_run(undisturbed: Finished, tmp_path: Path) -> None:
    toml = tmp_path / "some.toml"
    toml.write_text('preset = "conserving"\n', encoding="utf-8")
    found = _settings(undisturbed.warehouse.root, toml, {"precision": "bfloat16"}, True)
    assert (found.preset, found.precision, found.top_k) == ("conserving", "bfloat16", TINY["top_k"])


def test_a_catalogue_without_names_cannot_be_evaluated(small: Path, scheduler: str, tmp_path: Path) -> None:
    unnamed = rewrite(small, "unnamed.csv", lambda rows: [{**row, "identity": ""} for row in rows[:9]])
    settings = Settings(**{**TINY, "cluster": scheduler})
    with pytest.raises(PairxError, match="name"):
        evaluate(
            read_catalogue(str(unnamed)),
            Warehouse(str(tmp_path / "w")),
            settings,
            changed(choose=False, faithfulness=0),
            Silent(),
        )


def test_the_plan_writes_nothing(
    undisturbed: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(undisturbed.warehouse)
    arguments = ["pairx", "evaluate", "--warehouse", undisturbed.warehouse.root, "--dry-run", "--choose"]
    monkeypatch.setattr("sys.argv", arguments)
    assert cli._run() == 0
    said = capsys.readouterr().out
    assert "at most" in said
    assert "writes   nothing now" in said
    assert files(undisturbed.warehouse) == before


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("data/cows/metadata.csv", "cows"),
        ("/data/lions/", "lions"),
        ("s3://bucket/zebras/metadata.parquet?version=2", "zebras"),
        ("cows.csv", "cows"),
    ],
)
def test_a_dataset_is_called_like_its_folder(source: str, name: str) -> None:
    assert _dataset(source) == name


def test_checks_are_all_of_them_or_those_that_are_named() -> None:
    assert plan_of(EvaluateOptions(faithfulness=2), "d").protocol.checks == tuple(CHECKS)
    some = plan_of(EvaluateOptions(faithfulness=2, checks=("partner",)), "d").protocol
    assert some.checks == ("partner",)
    with pytest.raises(SettingsError, match=r"unknown check 'luck'; choose among partner"):
        plan_of(EvaluateOptions(faithfulness=2, checks=("luck",)), "d")
