"""The seam of the matrix: what a fault says of itself, where it strikes, how the run must end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from tasks.store.warehouse import Warehouse
from tests.flows.faults.course import Course, Moment, finished_files
from tests.flows.faults.site import Site
from tests.flows.running import Command, command_line
from tests.small_catalogue import EVERYTHING, assert_same_rows


@dataclass
class Scene:
    """One run that is to be struck."""

    site: Site
    rng: Random
    course: Course
    moment: Moment
    folder: Path
    catalogue: Path
    environment: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    command: Command | None = None

    @property
    def warehouse(self) -> Path:
        return self.folder / "w"

    @property
    def driver(self) -> int:
        assert self.command
        return self.command.process.pid

    def running(self, words: str) -> list[int]:
        """Processes of the run with these words in their command line."""
        assert self.command
        return [pid for pid in self.command.processes() if words in command_line(pid)]

    def workers(self) -> list[int]:
        """Worker processes of the run's own cluster."""
        return self.running("spawn_main")


@dataclass(frozen=True)
class Ends:
    """How the command must end soon after the strike: its exit status, and what its message must hold.

    It has one message only. `notices` matches the beginnings of lines that a run may print which goes on.
    `or_code` is another exit status that is as right.
    """

    code: int
    says: str = ""
    notices: str = "$"
    or_code: int | None = None


class Fault(Protocol):
    """One thing that goes wrong.

    A fault derives from this class and takes from it what it does not need to say.
    """

    name: str
    about: str
    own_server: bool = False
    """Whether the run must start its own Prefect server."""
    own_cluster: bool = False
    """Whether the run must start its own workers."""
    workers: int = 2
    """How many workers such a run has.

    As many as cores, so that each computes on one thread as the undisturbed run did.
    """

    slower: float = 1.0
    """How many times as long as others a run may take that this fault strikes."""
    strikes: bool = True
    """Whether the fault comes at a moment; others are there from the start."""

    def missing(self) -> str | None:
        """Why it cannot happen on this machine."""
        return None

    def settings(self) -> Mapping[str, Any]:
        """Changes of the run's settings."""
        return {}

    def course(self, site: Site) -> Course:
        """The undisturbed run whose rows the disturbed one must have in the end."""
        return site.course

    def around(self, scene: Scene) -> AbstractContextManager[None]:
        """What must be there before the run starts and gone in the end."""
        return nullcontext()

    def address(self, scene: Scene) -> str:
        """The warehouse as the command is told of it."""
        return str(scene.warehouse)

    def begin(self, scene: Scene) -> None:
        """Put files into the warehouse, as an earlier run that was killed has left them."""
        scene.course.begin(scene.warehouse, scene.moment.copied)

    def committed(self, scene: Scene) -> int:
        """How many files are there and whole."""
        return len(finished_files(scene.warehouse))

    def started(self, scene: Scene) -> None:
        """Called as soon as the command's process is there."""

    def strike(self, scene: Scene) -> Ends:
        """Let the fault happen."""

    def mend(self, scene: Scene) -> None:
        """Take the cause away, so that the same command can go on."""

    def cluster_afterwards(self, scene: Scene) -> Mapping[str, Any]:
        """Where the same command runs when the cause is gone."""
        return {"cluster": scene.site.scheduler}

    def fetch(self, scene: Scene) -> None:
        """Bring the tables to the folder where they are compared."""

    def compare(self, scene: Scene) -> None:
        """Fails where the warehouse shows other rows than the undisturbed run."""
        assert_same_rows(Warehouse(str(scene.warehouse)), Warehouse(str(scene.course.warehouse)), EVERYTHING)


def remove(folder: Path) -> None:
    """Remove a folder into which others may still be writing."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
