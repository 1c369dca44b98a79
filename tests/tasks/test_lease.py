from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from schemas.errors import LeaseLost, WarehouseBusy
from tasks.store import lease as module
from tasks.store.lease import Lease, at_work
from tasks.store.warehouse import Warehouse

_DIES_WITH_IT = """
import os, sys
from tasks.store.lease import at_work
from tasks.store.warehouse import Warehouse
with at_work(Warehouse(sys.argv[1]), "pairx run"):
    os._exit(9)
"""


@pytest.fixture(params=["local", "memory"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "w") if request.param == "local" else f"memory://{uuid4().hex}")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "_LOOK_AGAIN", 0.02)


def said(warehouse: Warehouse, turn: int = 1) -> dict[str, Any]:
    return json.loads(warehouse.filesystem.cat_file(f"{warehouse.root}/lease/{turn}.json"))


def say(warehouse: Warehouse, turn: int = 1, **changed: Any) -> None:
    """The file of an owner on another machine who was heard of just now, but for what is changed."""
    now = datetime.now(UTC).isoformat()
    owner = {
        "command": "pairx run",
        "host": "elsewhere",
        "pid": 7,
        "process": "b:1:2",
        "since": now,
        "beat": now,
        "token": "t",
    }
    warehouse.write_file(f"lease/{turn}.json", json.dumps(owner | changed).encode())


LONG_AGO = (datetime.now(UTC) - timedelta(hours=1)).isoformat()


def test_the_second_is_told_who_is_at_work_and_follows_when_that_is_over(warehouse: Warehouse) -> None:
    with (
        at_work(warehouse, "pairx run"),
        pytest.raises(WarehouseBusy, match=rf"pairx run on .* \(process {os.getpid()}\) since 2") as busy,
        at_work(warehouse, "pairx run"),
    ):
        pass
    assert busy.value.exit_code == 3
    with at_work(warehouse, "pairx run") as lease:
        lease.confirm()


def test_who_waits_is_told_once_and_begins_when_the_first_is_done(warehouse: Warehouse) -> None:
    told: list[str] = []
    order: list[str] = []

    def second() -> None:
        with at_work(warehouse, "pairx run", wait=True, say=told.append):
            order.append("second")

    with at_work(warehouse, "pairx evaluate"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert len(told) == 1
    assert "pairx evaluate on" in told[0]


def test_of_many_at_once_one_is_at_work_at_any_time(warehouse: Warehouse) -> None:
    inside, most = [0], [0]

    def work(_: int) -> None:
        with at_work(warehouse, "pairx run", wait=True):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.005)
            inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert most == [1]


def test_one_whose_process_died_on_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    repository = str(Path(__file__).parents[2])
    died = subprocess.run(
        [sys.executable, "-c", _DIES_WITH_IT, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": repository},
        check=False,
    )
    assert died.returncode == 9
    assert said(warehouse)["over"] is False
    asked: list[str] = []
    with at_work(warehouse, "pairx run", say=asked.append):
        assert asked == []


def test_a_process_of_the_same_number_that_began_later_is_another(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    boot, space, start = str(module._process(os.getpid())).split(":")
    say(warehouse, pid=os.getpid(), process=f"{boot}:{space}:{int(start) - 1}")
    with at_work(warehouse, "pairx run") as lease:
        lease.confirm()


def test_the_same_number_on_a_machine_that_has_been_started_since_says_nothing(tmp_path: Path) -> None:
    say(Warehouse(str(tmp_path)), pid=os.getpid(), process="other-boot:1:2")
    with pytest.raises(WarehouseBusy), at_work(Warehouse(str(tmp_path)), "pairx run"):
        pass


def test_one_elsewhere_that_fell_silent_is_watched_and_then_followed(warehouse: Warehouse) -> None:
    say(warehouse, beat=LONG_AGO)
    told: list[str] = []
    with at_work(warehouse, "pairx run", say=told.append) as lease:
        lease.confirm()
    assert "no sign of life" in told[0]


def test_one_elsewhere_whose_clock_is_wrong_but_who_beats_is_alive(warehouse: Warehouse) -> None:
    say(warehouse, beat=LONG_AGO)
    beats = iter(range(100))
    end = threading.Event()

    def beat() -> None:
        while not end.wait(0.02):
            say(warehouse, beat=(datetime.now(UTC) - timedelta(hours=1, seconds=-next(beats))).isoformat())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        time.sleep(0.1)
        # It is found alive, looked at again, and again: never free.
        with pytest.raises(WarehouseBusy), at_work(warehouse, "pairx run"):
            pass
    finally:
        end.set()
        thread.join()


def test_a_beat_is_a_later_sign_of_life(warehouse: Warehouse) -> None:
    with at_work(warehouse, "pairx run"):
        first = said(warehouse)["beat"]
        deadline = time.monotonic() + 10
        while said(warehouse)["beat"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"host": "\x1b[31m"}'])
def test_a_damaged_file_is_nobodys_after_a_while(warehouse: Warehouse, data: bytes) -> None:
    warehouse.write_file("lease/3.json", data)
    with at_work(warehouse, "pairx run"):
        assert said(warehouse, 4)["command"] == "pairx run"


def test_names_of_others_print_nothing_but_words(warehouse: Warehouse) -> None:
    say(warehouse, host="\x1b[2Jgone")
    told: list[str] = []
    with at_work(warehouse, "pairx run", say=told.append):
        assert "\x1b" not in "".join(told)


def test_a_run_that_was_overtaken_hears_of_it_and_leaves_the_other_alone(warehouse: Warehouse) -> None:
    with at_work(warehouse, "pairx run") as lease:
        say(warehouse, turn=2)
        with pytest.raises(LeaseLost, match="taken it over"):
            lease.confirm()
        with pytest.raises(LeaseLost):
            lease.check()
        assert isinstance(lease.lost(), LeaseLost)
    assert said(warehouse, 2)["host"] == "elsewhere"
    with pytest.raises(WarehouseBusy), at_work(warehouse, "pairx run"):
        pass


def test_a_warehouse_that_vanished_shows(warehouse: Warehouse) -> None:
    with at_work(warehouse, "pairx run") as lease:
        warehouse.filesystem.rm(warehouse.root, recursive=True)
        deadline = time.monotonic() + 10
        while lease._lost is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(LeaseLost, match="its lease is gone"):
            lease.check()
    assert not warehouse.filesystem.exists(f"{warehouse.root}/lease/1.json")


def test_one_that_slept_while_others_came_and_went_does_not_begin(warehouse: Warehouse) -> None:
    say(warehouse, turn=5)
    assert module._claim(warehouse, 2, "pairx run") is None
    assert module._turns(warehouse) == [5]


def test_the_same_turn_of_another_is_another(warehouse: Warehouse) -> None:
    with at_work(warehouse, "pairx run") as lease:
        say(warehouse, turn=1)
        with pytest.raises(LeaseLost):
            lease.confirm()
    assert said(warehouse)["host"] == "elsewhere"


def test_old_files_go_with_the_next_turn(warehouse: Warehouse) -> None:
    for _ in range(3):
        with at_work(warehouse, "pairx run"):
            pass
    assert module._turns(warehouse) == [3]


def test_a_store_that_is_out_hides_no_error(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def out(*_: object) -> list[int]:
        raise OSError("the store is out")

    def fail(lease: Lease) -> None:
        monkeypatch.setattr(module, "_turns", out)
        assert lease.lost() is None
        raise KeyError("the reason")

    with pytest.raises(KeyError), at_work(warehouse, "pairx run") as lease:
        fail(lease)
