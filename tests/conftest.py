"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported: spinning OpenMP threads slow tests on a busy machine ten times down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import pytest
from hypothesis import settings

from tests.selection import means_the_gpu

TESTS = Path(__file__).resolve().parent
SHARING = ("flows", "tasks")

# What a test takes depends on the machine and on who else uses it; time is measured in benchmarks.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, before torch is imported, from all tests but gpu-marked ones; processes that tests start inherit it.

    Without that mark a test means the CPU, also on a machine with a GPU. A run that mixes both kinds sees no GPU, and skips
    what needs one.
    """
    if not means_the_gpu(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say which tests stay in one process where pytest-xdist has several: those that share dear fixtures, or else a file.

    Folders in `SHARING` hold finished runs, a Prefect server and Dask workers that all of their tests use.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        folder, *_ = place = item.path.relative_to(TESTS).parts
        together = folder if folder in SHARING else "/".join(place)
        item.add_marker(pytest.mark.xdist_group(together))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real catalogues, models and goldens beside the project; tests that need it skip where it is absent."""
    folder = TESTS.parents[1] / "shared"
    if not (folder / "goldens").is_dir():
        pytest.skip("no ../shared with real photos, models and goldens")
    return folder
