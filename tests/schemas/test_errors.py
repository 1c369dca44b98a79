"""Errors share one base, end a command with their code, say the cure, and cross between processes."""

from __future__ import annotations

import pickle

import pytest
from tblib import pickling_support

from flows.commands.compare import AllMethodsFailed
from flows.commands.run import NewSuspects
from flows.review.marks import NothingStored
from flows.review.methods import NotExplained
from flows.review.server import PortTaken
from flows.review.session import AnsweredMeanwhile, Unknown
from pairx_engine.errors import EngineError, ModelError, PairxError, PhotoError
from pairx_engine.local.features import MissingWeightsError
from schemas.errors import (
    AcceleratorFailure,
    CatalogueError,
    LeaseLost,
    NewerWarehouse,
    NoRun,
    NoStorage,
    NoWarehouse,
    PathOutsideRoot,
    Problem,
    SettingsError,
    StorageError,
    WarehouseBusy,
    WarehouseError,
)
from tasks.evaluation.files import EvaluationFileError
from tasks.reviews.exchange.incoming import AnswersRefused
from tasks.sql.results import QueryError
from tasks.sql.stoppable import LimitReached


@pytest.mark.parametrize("family", [SettingsError, WarehouseError])
def test_errors_share_a_base_say_the_cure_and_survive_a_process_border(family: type[PairxError]) -> None:
    error = family("no weights in /models", cure="name a folder with model.safetensors")
    assert isinstance(error, PairxError)
    assert isinstance(error, ValueError)
    assert str(error) == "no weights in /models\n  cure: name a folder with model.safetensors"
    assert str(family("plain")) == "plain"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is family
    assert str(again) == str(error)
    assert again.cure == error.cure


EXIT_CODES = {
    EngineError: 2,
    PhotoError: 2,
    ModelError: 2,
    MissingWeightsError: 2,
    SettingsError: 2,
    CatalogueError: 2,
    PathOutsideRoot: 2,
    QueryError: 2,
    EvaluationFileError: 2,
    WarehouseError: 1,
    NewerWarehouse: 2,
    NoRun: 2,
    NoWarehouse: 2,
    WarehouseBusy: 3,
    LeaseLost: 1,
    StorageError: 1,
    NoStorage: 2,
    AcceleratorFailure: 1,
    LimitReached: 1,
    AllMethodsFailed: 1,
    NewSuspects: 4,
    AnswersRefused: 2,
    PortTaken: 2,
    NothingStored: 1,
    NotExplained: 1,
    Unknown: 1,
    AnsweredMeanwhile: 1,
}
"""The exit code of every error that a command may end with.

2 for what the command was given, 1 for work that failed, 3 for a warehouse that another process has, 4 for a run
whose user asked to hear of new suspects.
"""


def descendants(family: type[PairxError]) -> set[type[PairxError]]:
    return {family}.union(*(descendants(member) for member in family.__subclasses__()))


def test_each_error_has_its_exit_code() -> None:
    ours = {e for e in descendants(PairxError) if not e.__module__.startswith("tests")}
    assert {e: e.exit_code for e in ours} == {PairxError: 1, **EXIT_CODES}


@pytest.mark.parametrize(
    "error",
    [
        EngineError("m"),
        ModelError("m"),
        MissingWeightsError("m"),
        PhotoError("truncated", "m"),
        NoWarehouse("/w"),
        AcceleratorFailure("m"),
        PathOutsideRoot("m", "c"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_out_of_another_process_as_they_went_in(error: PairxError) -> None:
    pickling_support.install()  # as Dask does

    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_catalogue_error_lists_all_problems_and_counts_what_it_cuts() -> None:
    problems = [Problem("bad box", f"row {i}", f"box {i}", "mend it") for i in range(50)]
    problems.append(Problem("missing column", "header", "no path", "add path"))
    error = CatalogueError("c.csv", problems)
    text = str(error)
    assert "51 problems" in text
    assert "bad box (50)" in text
    assert "row 19: box 19" in text
    assert "row 20: box 20" not in text
    assert "and 30 more" in text
    assert "missing column (1)" in text
    assert text.count("cure: mend it") == 1
    again = pickle.loads(pickle.dumps(error))
    assert again.problems == error.problems
    assert str(again) == text


def test_empty_errors_and_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        CatalogueError("c.csv", [])
    with pytest.raises(ValueError, match="cure|needs"):
        Problem("kind", "row 1", "what", "")
