"""The small catalogue and one finished pass of all stages over it, shared by the tests of the stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from schemas.settings import Settings
from tasks.job import Job, prepare_job
from tasks.store.warehouse import Warehouse
from tests.small_catalogue import TINY, Stages, read_small, small_catalogue, temporary

# Two threads on two cores that others use as well spin against each other: ten times slower than one.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`metadata.csv` of the small catalogue; read only."""
    return small_catalogue(temporary(tmp_path_factory, "small"))


@pytest.fixture(scope="session")
def done(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """All stages over the small catalogue in one process; read only."""
    return Stages.run(read_small(small), Warehouse(str(tmp_path_factory.mktemp("done") / "w")))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job with an empty warehouse."""
    return prepare_job(Warehouse(str(tmp_path / "warehouse")), Settings(**TINY))
