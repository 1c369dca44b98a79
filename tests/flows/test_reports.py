"""A run and a Prefect API that dies under it, played by a stand-in."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    temporary_settings,
)

from flows.api.reports import Reports, outcome_kept, run_flow
from schemas.errors import PairxError, WarehouseError
from tests.flows.prefect_stand_in import Death, StandIn, stand_in
from tests.flows.running import PAIRX, Command, run_arguments

DEATHS = get_args(Death)
SOON = 30


@pytest.fixture
def api() -> Iterator[StandIn]:
    for name in (
        "prefect",
        "prefect._internal.concurrency",
    ):  # in a run the environment says so to every process
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with (
        stand_in() as api,
        temporary_settings(
            {
                PREFECT_API_URL: api.url,
                PREFECT_API_REQUEST_TIMEOUT: 1,
                PREFECT_CLIENT_MAX_RETRIES: 0,
                PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,
            }
        ),
    ):
        yield api


@task(persist_result=False, cache_policy=NO_CACHE)
def double(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("how", DEATHS)
def test_a_flow_goes_on_when_its_api_dies_and_says_so_once(
    api: StandIn, how: Death, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> list[int]:
        sent = Reports()
        bar = sent.begin("pairx-test")
        assert bar is not None
        alive = [future.result() for future in [double.submit(n) for n in range(2)]]
        api.die(how)
        for percent in (50.0, 100.0):
            sent.progress(bar, percent)
        assert sent.begin("pairx-next") is None
        after = [future.result() for future in [double.submit(n) for n in range(2, 4)]]
        sent.summary("pairx-run", "done", "a run")
        return alive + after

    @flow
    def process() -> list[int]:
        return outcome_kept(work)

    begun = time.monotonic()
    with caplog.at_level(logging.WARNING, "pairx"):
        assert run_flow(process) == [0, 2, 4, 6]
    assert time.monotonic() - begun < SOON
    assert "POST /artifacts/" in api.requests
    said = [record.message for record in caplog.records if record.name == "pairx"]
    assert len(said) == 1
    assert said[0].startswith(f"the Prefect API at {api.url} does not answer any more")
    assert sum("artifacts" in request for request in api.late) <= 1


@pytest.mark.parametrize(
    "error", [WarehouseError("the disk is gone"), KeyboardInterrupt()], ids=["error", "ctrl-c"]
)
def test_what_ended_the_work_is_raised_though_the_api_is_dead(api: StandIn, error: BaseException) -> None:
    def work() -> None:
        api.die("refuses")
        raise error

    @flow
    def process() -> None:
        outcome_kept(work)

    with pytest.raises(type(error)) as caught:
        run_flow(process)
    assert caught.value is error


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_sigterm_is_heard_by_who_heard_it_before_the_flow(api: StandIn, alive: bool) -> None:
    class Terminated(BaseException):
        pass

    def terminate(*_: object) -> None:
        raise Terminated

    def work() -> None:
        if not alive:
            api.die("refuses")
        signal.raise_signal(signal.SIGTERM)

    @flow
    def process() -> None:
        outcome_kept(work)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(Terminated):
            run_flow(process)
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_api_that_is_dead_before_the_work_begins_ends_the_run_in_words(api: StandIn) -> None:
    @flow
    def process() -> None:
        outcome_kept(lambda: pytest.fail("the work began"))

    api.die("refuses")
    with pytest.raises(PairxError, match="does not answer any more"):
        run_flow(process)


@pytest.mark.slow
@pytest.mark.parametrize("how", DEATHS)
def test_a_run_finishes_though_its_api_dies_in_the_midst(small: Path, tmp_path: Path, how: Death) -> None:
    with stand_in() as api:
        command = Command.start(tmp_path / "log", [*PAIRX, *run_arguments(small, tmp_path / "w")], api.url)
        try:
            command.wait_for(lambda: any((tmp_path / "w" / "photos").glob("*/*.parquet")))
            api.die(how)
            assert command.finish() == 0, command.text
        finally:
            command.kill()
    assert command.text.count("does not answer any more") == 1
    assert "Traceback" not in command.text
    assert "ERROR" not in command.text
    assert "report: " in command.text
