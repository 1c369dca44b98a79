"""`pairx review` on the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest
import uvicorn

from flows.cli import main as cli
from tasks.store.warehouse import Warehouse
from tests.flows.review.serving import free_port

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def review(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Main:
    """Runs `pairx review`, whose server ends at once: exit code, standard output, standard error."""
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pairx", "review", "--no-browser", *map(str, arguments)])
        capfd.readouterr()
        return cli._run(), *capfd.readouterr()

    return run


def test_it_says_where_it_is_and_how_much_there_is_to_do(review: Main, warehouse: Warehouse) -> None:
    port = free_port()
    code, out, _ = review("--warehouse", warehouse.url, "--port", port)
    assert code == 0
    assert f"6 questions of run r1 in {warehouse.url}" in out
    assert re.search(rf"http://127\.0\.0\.1:{port}/ ", out)


def test_beyond_this_machine_the_address_holds_a_new_secret_each_time(review: Main, made: Warehouse) -> None:
    found = set()
    for _ in range(2):
        _, out, _ = review("--warehouse", made.url, "--host", "0.0.0.0", "--port", free_port())
        match = re.search(r"/\?token=([\w-]{32})\s", out)
        assert match
        found.add(match[1])
    assert len(found) == 2


def test_without_a_warehouse_it_says_what_makes_one(review: Main, tmp_path: object) -> None:
    code, _, err = review("--warehouse", f"{tmp_path}/none")
    assert code == 2
    assert "there is no warehouse" in err
    assert "pairx run" in err
