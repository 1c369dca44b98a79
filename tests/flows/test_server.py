from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.api import server
from flows.api.configured import require_answer
from flows.api.server import prefect_server, silence_prefect, silence_services
from schemas.errors import PairxError, SettingsError
from tests.flows.running import Command, command_line, pairx, run_arguments


def test_a_configured_server_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering({"/api": (200, b"0")}) as address:
        monkeypatch.setenv("PREFECT_API_URL", f"{address}/api")
        monkeypatch.setattr(server, "_start", lambda *_: pytest.fail("started another"))
        with prefect_server() as url:
            assert url == f"{address}/api"


@contextmanager
def answering(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """An HTTP server on loopback: its answers to POST by the beginning of the path, 404 to all else."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = next((a for path, a in answers.items() if self.path.startswith(path)), (404, b""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/locked", "does not let us in (401)"),
        ("/ill", "answers with an error (500)"),
        ("/page", "is no Prefect API"),
        ("/list", "is no Prefect API"),
        ("/nothing", "is no Prefect API"),
    ],
)
def test_what_answers_must_be_a_prefect_api_that_lets_us_in(path: str, said: str) -> None:
    answers = {
        "/locked": (401, b"{}"),
        "/ill": (500, b"{}"),
        "/page": (200, b"<html>"),
        "/list": (200, b"[]"),
    }
    with answering(answers) as address, pytest.raises(SettingsError, match=re.escape(said)):
        require_answer(address + path)


@pytest.mark.parametrize(
    "url", ["ftp://x/api", "nonsense", "http://", "http://h:99999/api", "http://[::1/api", "http://h:1 /api"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="no address of an API"):
        require_answer(url)


@pytest.mark.parametrize(
    "listens", [pytest.param(False, id="refuses"), pytest.param(True, id="hangs", marks=pytest.mark.slow)]
)
def test_an_api_that_is_dead_from_the_start_is_said_within_seconds(
    small: Path, tmp_path: Path, listens: bool
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        arguments = run_arguments(small, tmp_path / "w")
        ended = pairx(*arguments, PREFECT_API_URL=address.replace("//", "//me:secret@"))
    assert ended.returncode == 2
    assert f"pairx: the Prefect API at {address} does not answer" in ended.stderr
    assert "unset PREFECT_API_URL" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_the_servers_home_and_address_are_gone_afterwards_and_nothing_is_reported_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [n for n in os.environ if n.startswith("PREFECT")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "none"))
    before = dict(os.environ)
    started: list[subprocess.Popen[bytes]] = []
    start = server._start

    def remember(port: int, log: Path) -> subprocess.Popen[bytes]:
        started.append(start(port, log))
        return started[-1]

    monkeypatch.setattr(server, "_start", remember)
    homes: list[Path] = []

    def work(url: str) -> None:
        homes.append(Path(os.environ["PREFECT_HOME"]))
        assert url.startswith("http://127.0.0.1:")
        assert os.environ["PREFECT_API_URL"] == url
        assert os.environ["DO_NOT_TRACK"] == "1"
        assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            assert answer.status == 200
        raise RuntimeError("work failed")

    with pytest.raises(RuntimeError, match="work failed"), prefect_server() as url:
        work(url)
    assert [process.poll() is not None for process in started] == [True]
    assert [home.exists() for home in homes] == [False]
    assert dict(os.environ) == before


HOLDS_A_SERVER = """
import time
from flows.api.server import prefect_server, silence_prefect, silence_services
with prefect_server():
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_the_server_ends_with_a_killed_driver(tmp_path: Path) -> None:
    """Nothing runs in a process that gets SIGKILL: the server itself has to notice, and to clear up."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    places = {"PREFECT_HOME": str(tmp_path), "TMPDIR": str(temporary)}
    holder = Command.start(tmp_path / "out", ["-c", HOLDS_A_SERVER], **places)
    try:
        holder.wait_for(lambda: "up" in holder.text)
        others = {*holder.processes()} - {holder.process.pid}
        assert any("prefect" in command_line(pid) for pid in others)
        assert list(temporary.glob("pairx-prefect-*"))
        holder.process.kill()
        holder.process.wait(10)
        assert holder.left() == []
        assert not list(temporary.glob("pairx-prefect-*"))
    finally:
        holder.kill()


def test_a_server_that_dies_is_an_error_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [n for n in os.environ if n.startswith("PREFECT")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "none"))
    script = "import sys; print('port taken'); sys.exit(3)"

    def dead(port: int, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            return subprocess.Popen([sys.executable, "-c", script], stdout=file)

    monkeypatch.setattr(server, "_start", dead)
    with pytest.raises(PairxError, match="port taken") as caught, prefect_server():
        pass
    assert "PREFECT_API_URL" in str(caught.value)
    assert "PREFECT_API_URL" not in os.environ


def test_no_service_of_prefect_warns_in_any_process_of_a_run() -> None:
    """Processes find the settings in their environment, and set up their logging by themselves."""
    code = (
        "import logging; from prefect.logging.configuration import setup_logging; setup_logging();"
        "from prefect.events.worker import EventsWorker; logging.getLogger(EventsWorker.__name__).warning('left')"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    said = [
        subprocess.run(
            [sys.executable, "-c", code], env={**bare, **settings}, capture_output=True, text=True, check=True
        ).stderr
        for settings in ({}, server._ENVIRONMENT)
    ]
    assert "left" in said[0]
    assert said[1] == ""


def test_prefects_background_services_say_nothing_of_their_own() -> None:
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    names = ["prefect", *(service.__name__ for service in (EventsWorker, APILogWorker))]
    before = {name: logging.getLogger(name).level for name in names}
    try:
        silence_services()
        assert not any(logging.getLogger(name).isEnabledFor(logging.ERROR) for name in names[1:])
        silence_prefect()
        assert not any(logging.getLogger(name).isEnabledFor(logging.ERROR) for name in names)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
