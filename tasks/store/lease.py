"""One writer at a time: a lease on a warehouse that names its owner and beats while it is held.

Another process takes it over when the owner is dead. ``lease/N.json`` lies below the root. N counts the
owners so far, and the highest N has the warehouse now, or had it last; the next owner makes file N + 1. A
store need only be able to make a file where there is none, and to list a folder. A second writer would do no
harm to the rows, since the same shard has the same bytes whoever writes it. It would do the work twice, and
remove snapshots that the first one needs.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas.errors import LeaseLost, WarehouseBusy
from tasks.store.warehouse import Warehouse

FOLDER = "lease"
BEAT = 15.0
"""Seconds between two signs of life."""
STALE = 120.0
"""Seconds of silence after which an owner on another machine may be dead.

It is then watched for two more beats, since clocks differ.
"""
_LOOK_AGAIN = 5.0
_FILE = re.compile(r"([1-9][0-9]{0,17})\.json")
_Words = Annotated[str, StringConstraints(pattern=r"^[\w .:-]{1,200}$")]


class Owner(BaseModel):
    """The owner of a warehouse, as its file says: command, place, start, and last sign of life."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    command: _Words
    host: _Words
    pid: Annotated[int, Field(ge=1)]
    process: _Words | None
    """Identifies the process among all that ever ran; None where unknown.

    It holds the machine's start, the pid's namespace and the process's start.
    """
    since: AwareDatetime
    beat: AwareDatetime
    token: _Words
    """Tells two owners apart that began in the same moment."""
    over: bool = False
    """Whether the owner has released the warehouse itself."""

    def __str__(self) -> str:
        silent = (datetime.now(UTC) - self.beat).total_seconds()
        return f"{self.command} on {self.host} (process {self.pid}) since {self.since:%Y-%m-%d %H:%M} UTC, last heard of {silent:.0f} s ago"


class Lease:
    """The right to write to a warehouse, held by this process; made by `at_work`."""

    def __init__(self, warehouse: Warehouse, turn: int, owner: Owner) -> None:
        self.warehouse = warehouse
        self._turn = turn
        self._owner = owner
        self._lost: str | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pairx-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `LeaseLost` where the last beat found another owner, or no warehouse."""
        if self._lost is not None:
            raise LeaseLost(self.warehouse.url, self._lost)

    def confirm(self) -> None:
        """Look now, and raise `LeaseLost` as `check` does; to be called before a run is called finished."""
        self._look()
        self.check()

    def lost(self) -> LeaseLost | None:
        """The error that `confirm` would raise, if the store answers; it explains other errors of the run."""
        try:
            self.confirm()
        except LeaseLost as error:
            return error
        except Exception:  # the store is out, and that is the news
            return None
        return None

    def release(self) -> None:
        """Record that the warehouse is free."""
        self._end.set()
        self._thread.join()
        with contextlib.suppress(
            Exception
        ):  # a store that is out must not hide why the run ends; the lease goes stale
            if self._look():
                self._say(over=True)

    def _keep(self) -> None:
        while not self._end.wait(BEAT):
            with contextlib.suppress(Exception):  # a store that is out for a while; the next beat tries again
                if self._look():
                    self._say(over=False)

    def _look(self) -> bool:
        """Whether the lease is still ours."""
        turns = _turns(self.warehouse)
        said = _owner(_read(self.warehouse, self._turn)) if self._turn in turns else None
        if said is None or said.token != self._owner.token:
            self._lost = "its lease is gone, and perhaps all else that was in it"
        elif max(turns) > self._turn:
            self._lost = "another run, which heard nothing of this one for minutes, has taken it over"
        return self._lost is None

    def _say(self, over: bool) -> None:
        said = self._owner.model_copy(update={"beat": datetime.now(UTC), "over": over})
        self.warehouse.write_file(_path(self._turn), _bytes(said))


@contextlib.contextmanager
def at_work(
    warehouse: Warehouse, command: str, wait: bool = False, say: Callable[[str], None] = lambda text: None
) -> Iterator[Lease]:
    """Have the warehouse for the length of the block, alone among all that ask for it in this way.

    Where another owner has it, `WarehouseBusy` is raised, or with `wait` the block begins when it is
    free; `say` is told who the owner is. An owner whose process is gone from this machine is replaced at
    once, one on another machine after `STALE` and two beats without a sign.
    """
    lease = _take(warehouse, command, wait, say)
    try:
        yield lease
    finally:
        lease.release()


def present_owner(warehouse: Warehouse) -> Owner | None:
    """Who has the warehouse now, as far as can be told without waiting; None where nobody does."""
    turn = max(_turns(warehouse), default=0)
    owner = _owner(_read(warehouse, turn)) if turn else None
    if owner is None or owner.over:
        return None
    if owner.process is not None and owner.process.split(":")[:2] == _here():
        return owner if owner.process == _process(owner.pid) else None
    return owner if datetime.now(UTC) - owner.beat < timedelta(seconds=STALE) else None


def _take(warehouse: Warehouse, command: str, wait: bool, say: Callable[[str], None]) -> Lease:
    told = False
    while True:
        turn = max(_turns(warehouse), default=0)
        found = _read(warehouse, turn)
        if _is_free(warehouse, turn, found, say):
            if lease := _claim(warehouse, turn + 1, command):
                return lease
            continue
        owner = _owner(found)
        who = str(owner) if owner else f"an owner that {_path(turn)} does not name"
        if not wait:
            raise WarehouseBusy(warehouse.url, who)
        if not told:
            say(f"{warehouse.url} is busy: {who}; waiting until it is free")
            told = True
        time.sleep(_LOOK_AGAIN)


def _is_free(warehouse: Warehouse, turn: int, found: bytes, say: Callable[[str], None]) -> bool:
    """Whether nobody has the warehouse any more."""
    if turn == 0:
        return True
    owner = _owner(found)
    if owner is not None:
        if owner.over:
            return True
        if owner.process is not None and owner.process.split(":")[:2] == _here():
            return owner.process != _process(owner.pid)
        if datetime.now(UTC) - owner.beat < timedelta(seconds=STALE):
            return False
    say(f"{owner or _path(turn)}: no sign of life; watching for {2 * BEAT:.0f} s whether there is one")
    time.sleep(2 * BEAT)
    return _turns(warehouse) == [turn] and _read(warehouse, turn) == found


def _claim(warehouse: Warehouse, turn: int, command: str) -> Lease | None:
    """Make the file of this turn; None where another process was faster."""
    now = datetime.now(UTC)
    host = re.sub(r"[^\w.-]", "-", socket.gethostname())[:200] or "unknown"
    owner = Owner(
        command=command,
        host=host,
        pid=os.getpid(),
        process=_process(os.getpid()),
        token=uuid4().hex,
        since=now,
        beat=now,
    )
    if not warehouse.create_file(_path(turn), _bytes(owner)):
        return None
    turns = _turns(warehouse)
    # While this process slept, others may have come and gone, and removed the files before theirs.
    if max(turns, default=0) > turn:
        _remove(warehouse, turn)
        return None
    for old in turns:
        if old < turn:
            _remove(warehouse, old)
    return Lease(warehouse, turn, owner)


def _turns(warehouse: Warehouse) -> list[int]:
    """The turns that have a file, sorted."""
    names = [PurePosixPath(path).name for path in warehouse.storage.find(f"{warehouse.root}/{FOLDER}")]
    return sorted(int(match[1]) for match in map(_FILE.fullmatch, names) if match)


def _read(warehouse: Warehouse, turn: int) -> bytes:
    """The content of a turn's file; empty where there is none."""
    try:
        return warehouse.storage.get(f"{warehouse.root}/{_path(turn)}")
    except FileNotFoundError:
        return b""


def _owner(data: bytes) -> Owner | None:
    """The owner that a file names; None where it is damaged."""
    try:
        return Owner.model_validate_json(data)
    except ValidationError:
        return None


def _bytes(owner: Owner) -> bytes:
    return owner.model_dump_json(indent=1).encode()


def _path(turn: int) -> str:
    return f"{FOLDER}/{turn}.json"


def _remove(warehouse: Warehouse, turn: int) -> None:
    warehouse.storage.remove([f"{warehouse.root}/{_path(turn)}"])


@cache
def _here() -> list[str]:
    """What identifies this machine, and this container on it; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        return []
    return [boot, namespace]


def _process(pid: int) -> str | None:
    """A name for a running process of this machine that no other process ever has; None without it."""
    try:
        # The second field, the program's name in brackets, may hold anything; the start is the 20th field
        # after it.
        start = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return ":".join([*_here(), start]) if _here() else None
