"""A Prefect server for one run, on loopback, where no API is configured; it reports nothing home.

Without a shared API every Dask worker would start a server of its own, which costs more than the work.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.api.configured import require_answer
from schemas.errors import PairxError, SettingsError

_START_SECONDS = 240.0
"""Starting takes 10 s on an idle machine; a busy one needs far longer."""
_SERVE = """
import os, runpy, shutil, sys, threading

def end_with_the_run():
    sys.stdin.buffer.read()
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)
    os._exit(0)

threading.Thread(target=end_with_the_run, daemon=True).start()
sys.argv[0] = "prefect"
runpy.run_module("prefect", run_name="__main__", alter_sys=True)
"""
"""The server ends, and removes its folder, when its standard input closes.

That happens when the run ends, in whatever way.
"""
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLI_PROMPT": "false",
}
_OF_A_RUN = {
    # A run is right without Prefect, so it does not wait long for an answer.
    "PREFECT_CLIENT_MAX_RETRIES": "1",
    "PREFECT_API_REQUEST_TIMEOUT": "10",
    # The version is compared once, before anything starts. Each new worker process would compare it again,
    # and fail if the API has died since.
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    # One message for the user is enough. Without this, every process would first print Prefect's own, with
    # tracebacks.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}
"""Prefect's settings in the processes of a run; environment variables override them."""
_ENVIRONMENT = {
    **_OF_A_RUN,
    # No setting, but a variable that Prefect's logging reads. A service that still has events for a dead API
    # would warn of it as its process ends, whichever process that is.
    "PREFECT_LOGGING_ROOT_LEVEL": "ERROR",
}
_SERVICES = ("EventsWorker", "APILogWorker")
"""Loggers of Prefect's background services, which have their classes' names alone."""


def silence_prefect() -> None:
    """One message for the user is enough: Prefect would first log the same error with its traceback."""
    logging.getLogger("prefect").setLevel(logging.CRITICAL)
    silence_services()


def silence_services() -> None:
    """A service whose API has died tells nothing that the run does not tell; workers have services, too."""
    for name in _SERVICES:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def refuse_unreachable(cluster: str) -> None:
    """Raise `SettingsError` when workers on other machines would need a server on loopback.

    `cluster` is the address of its scheduler, or a name where there is none yet.
    """
    host = cluster.partition("://")[2].rpartition(":")[0]
    if host not in ("127.0.0.1", "localhost", "[::1]") and not configured_api():
        raise SettingsError(
            f"the workers of {cluster} cannot reach a Prefect server that this run would start for itself",
            "start one that they can reach with `prefect server start --host 0.0.0.0` and set PREFECT_API_URL",
        )


def require_api() -> None:
    """Raise `SettingsError` when a Prefect API is configured and does not answer.

    A run asks before it takes the warehouse for itself.
    """
    if configured := configured_api():
        require_answer(configured)


@contextmanager
def prefect_server() -> Iterator[str]:
    """Yield the API's URL: the configured one, or that of a server which lives as long as the block.

    Worker processes find the URL in their environment. Raises `SettingsError` when the configured API
    does not answer, and `PairxError` when the server does not come up.
    """
    with _environment({key: value for key, value in _ENVIRONMENT.items() if key not in os.environ}):
        configured = configured_api()
        if configured:
            require_answer(configured)
            with _settings(_OF_A_RUN):
                yield configured
            return
        with tempfile.TemporaryDirectory(prefix="pairx-prefect-", ignore_cleanup_errors=True) as home:
            port = _free_port()
            url = f"http://127.0.0.1:{port}/api"
            places = {"PREFECT_HOME": home, "PREFECT_API_URL": url}
            with (
                _environment(_QUIET | places),
                _serving(port, url, Path(home)),
                _settings(_OF_A_RUN | places),
            ):
                yield url


@contextmanager
def _environment(ours: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key, None) if value is None else os.environ.__setitem__(key, value)


def _settings(names: Iterable[str]) -> AbstractContextManager[Any]:
    """Prefect's settings as the environment has them now, also when Prefect was imported earlier."""
    from prefect import settings

    return settings.temporary_settings(updates={getattr(settings, name): os.environ[name] for name in names})


@contextmanager
def _serving(port: int, url: str, home: Path) -> Iterator[None]:
    process = _start(port, home / "server.log")
    try:
        _wait_until_healthy(process, url, home / "server.log")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)


def configured_api() -> str | None:
    """The address of the Prefect API that the environment or a profile names; None where none does."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    if not (Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser() / "profiles.toml").exists():
        return None
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    return str(url) if url else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(port: int, log: Path) -> subprocess.Popen[bytes]:
    # A run has no schedules and nobody looks at its dashboard, so the server needs neither services nor a
    # dashboard.
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-ui", "--no-services"]
    environment = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", *_ENVIRONMENT)}
    environment["PREFECT_LOGGING_LEVEL"] = "WARNING"
    with log.open("wb") as file:
        return subprocess.Popen(  # noqa: S603 - a fixed command of this interpreter
            [sys.executable, "-c", _SERVE, "server", "start", *options],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C reaches a whole terminal group. A run whose server dies first waits for it for ever.
            start_new_session=True,
        )


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):  # noqa: S310 - our own loopback address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    tail = log.read_text(encoding="utf-8", errors="replace")[-800:]
    raise PairxError(
        f"the Prefect server did not start within {_START_SECONDS:.0f} s:\n{tail}",
        "start one with `prefect server start` and set PREFECT_API_URL",
    )
