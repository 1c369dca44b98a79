from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from flows import server
from flows.server import prefect_server
from schemas.errors import PairxError
from tests.flows.running import Command, command_line, environment, still_there


def test_a_configured_server_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example:4200/api")
    monkeypatch.setattr(server, "_start", lambda *_: pytest.fail("started another"))
    with prefect_server() as url:
        assert url == "http://prefect.example:4200/api"


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
from flows.server import prefect_server
with prefect_server():
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_the_server_ends_with_a_killed_driver(tmp_path: Path) -> None:
    """Nothing runs in a process that gets SIGKILL: the server itself has to notice."""
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS_A_SERVER], env=environment(PREFECT_HOME=str(tmp_path)), stdout=out
        )
    holder = Command(process, tmp_path / "out")
    try:
        holder.wait_for(lambda: "up" in holder.text)
        everyone = holder.processes()
        assert any("prefect" in command_line(pid) for pid in everyone.keys() - {process.pid})
        process.kill()
        process.wait(10)
        assert still_there(everyone) == []
    finally:
        holder.clean_up()


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
