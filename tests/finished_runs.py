"""One Prefect server, one Dask worker and one undisturbed run, shared by the tests of the whole flow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.small_catalogue import small_catalogue, temporary

if TYPE_CHECKING:
    from flows.night.values import RunSummary
    from tasks.store.warehouse import Warehouse

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`metadata.csv` of the small catalogue; read only."""
    return small_catalogue(temporary(tmp_path_factory, "small"))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A Prefect server for all flows of the session."""
    from flows.api.server import prefect_server

    with prefect_server() as url:
        yield url


@pytest.fixture(scope="session")
def scheduler(server: str) -> Iterator[str]:
    """Address of a Dask scheduler with one worker that stays up between flows."""
    from tests.flows.faults.site import worker_with_one_thread

    with worker_with_one_thread() as cluster:
        yield cluster.address


@dataclass(frozen=True)
class Finished:
    """A finished run: where its tables are and what it reported."""

    warehouse: Warehouse
    summary: RunSummary

    def copy(self, folder: Path) -> Warehouse:
        """A warehouse with the same files."""
        from tasks.store.warehouse import Warehouse

        return Warehouse(str(shutil.copytree(self.warehouse.root, folder)))

    def unscored(self, folder: Path) -> Warehouse:
        """A warehouse with the same photos and pairs, and nothing of what scoring and later stages wrote."""
        copied = self.copy(folder)
        for table in ("scores", "signals", "matches", "relevances", "suspects", "explanations", "reports"):
            shutil.rmtree(folder / table)
        return copied


@pytest.fixture(scope="session")
def undisturbed(small: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The small catalogue in one go; read only."""
    from tasks.store.warehouse import Warehouse
    from tests.flows.running import run_flow

    warehouse = Warehouse(str(tmp_path_factory.mktemp("undisturbed") / "w"))
    return Finished(warehouse, run_flow(small, warehouse, scheduler))
