"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is imported: spinning OpenMP threads slow tests on a busy machine ten times down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import pytest
from hypothesis import settings

from tests.selection import means_the_gpu

if TYPE_CHECKING:
    from tests.object_store import Proxy

pytest_plugins = ["tests.finished_runs"]
TESTS = Path(__file__).resolve().parent
SHARING = ("flows", "tasks")

# What a test takes depends on the machine and on who else uses it; time is measured in benchmarks.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, before torch is imported, from all tests without the mark gpu.

    Processes that tests start inherit this. Without that mark a test means the CPU, also on a machine with a
    GPU. A run that mixes both kinds sees no GPU, and skips what needs one.
    """
    if not means_the_gpu(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first: else one process of pytest-xdist is left alone with them in the end."""
    items.sort(key=lambda item: _sharing(item.nodeid) not in SHARING)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Say which tests stay in one process where pytest-xdist has several.

    These are tests that share expensive fixtures, or else those of a file. Folders in `SHARING` hold finished
    runs, a Prefect server and Dask workers that all of their tests use. (pytest-xdist's own option for this,
    `--dist loadgroup`, changes nothing under the pytest that is pinned.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _sharing(nodeid)

    config.option.loadscopereorder = False
    return Sharing(config, log)


def _sharing(nodeid: str) -> str:
    """The folder or file whose tests go together."""
    path = nodeid.partition("::")[0]
    folder = path.removeprefix("tests/").partition("/")[0]
    return folder if folder in SHARING else path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real catalogues, models and goldens beside the project.

    Tests that need it skip where it is absent.
    """
    folder = TESTS.parents[1] / "shared"
    if not (folder / "goldens").is_dir():
        pytest.skip("no ../shared with real photos, models and goldens")
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server in a process of its own."""
    pytest.importorskip("moto", reason="needs the packages of the extra `test`: moto and s3fs")
    from tests.object_store import s3_server

    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def store(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before an S3 server, which this process and those that it starts take for their store."""
    from tests.object_store import environment, forget_connections, proxy_before

    with proxy_before(s3_endpoint) as proxy:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in environment(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        forget_connections()
        yield proxy
        forget_connections()
