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


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real catalogues, models and goldens beside the project; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not (folder / "goldens").is_dir():
        pytest.skip("no ../shared with real photos, models and goldens")
    return folder
