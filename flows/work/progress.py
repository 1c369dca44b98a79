"""Progress of a run on the terminal: a line for each stage with items per second and time left."""

from __future__ import annotations

import logging
import sys
import time
from datetime import datetime
from typing import Protocol

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from flows.log_format import is_json
from flows.terminal import PlainConsole
from flows.work.json_progress import JsonProgress
from tasks.runs.log import StageLog

_PLAIN_EVERY = 5.0


class Reporter(Protocol):
    """Is told of each stage: its plan, each finished shard, its end."""

    def notice(self, text: str) -> None:
        """Something the user should know before the stages begin."""

    def begin(self, stage: str, items: int, unit: str) -> None:
        """A stage with `items` items starts; 0 means that everything was done before."""

    def advance(self, items: int) -> None:
        """A shard of this many items is done."""

    def end(self, note: str, log: StageLog | None = None) -> None:
        """The stage is over; `log` are its numbers, where it has any."""

    def abort(self) -> None:
        """The stage was broken off."""


class Silent:
    """Logs notices and says nothing else; for library use and deployments, where Prefect shows the tasks."""

    def notice(self, text: str) -> None:
        """A warning in the log."""
        logging.getLogger("pairx").warning(text)

    def begin(self, stage: str, items: int, unit: str) -> None:
        """Nothing."""

    def advance(self, items: int) -> None:
        """Nothing."""

    def end(self, note: str, log: StageLog | None = None) -> None:
        """Nothing."""

    def abort(self) -> None:
        """Nothing."""


class NoticesOnly(Silent):
    """Prints notices on standard error and says nothing else."""

    def notice(self, text: str) -> None:
        """Print it as a line of its own."""
        PlainConsole(stderr=True).print(text, style="yellow")


class Terminal:
    """A live bar on a terminal, a line with its time every few seconds in a log file; on standard error."""

    def __init__(self) -> None:
        self._console = PlainConsole(stderr=True)
        self._bar: Progress | None = None
        self._stage, self._unit, self._total, self._done = "", "", 0, 0
        self._begun = self._said = 0.0

    def notice(self, text: str) -> None:
        """Print it as a line of its own."""
        self._console.print(f"{self._now()}{text}", style="yellow")

    def begin(self, stage: str, items: int, unit: str) -> None:
        """Start the stage's line."""
        self._stage, self._unit, self._total, self._done = stage, unit, items, 0
        self._begun = self._said = time.monotonic()
        if items and self._console.is_terminal:
            self._bar = Progress(
                TextColumn(f"{stage:<9}"),
                BarColumn(28),
                MofNCompleteColumn(),
                TextColumn(f"{unit}  elapsed"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.add_task(stage, total=items)
            self._bar.start()

    def advance(self, items: int) -> None:
        """Move on by one shard."""
        self._done += items
        now = time.monotonic()
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], items)
        elif now - self._said >= _PLAIN_EVERY and self._done < self._total:
            self._said = now
            rate = self._done / (now - self._begun)
            left = (self._total - self._done) / rate if rate else 0.0
            self._say(f"{self._done} of {self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s left")

    def end(self, note: str, log: StageLog | None = None) -> None:
        """Leave one line that says what the stage did."""
        self.abort()
        self._say(f"{note}  ({time.monotonic() - self._begun:.1f} s)")

    def abort(self) -> None:
        """Remove the bar and give the terminal its cursor back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say(self, text: str) -> None:
        self._console.print(f"{self._now()}{self._stage:<9} {text}")
        sys.stderr.flush()

    def _now(self) -> str:
        """The time of day for a log file, whose reader was not there; nothing on a terminal."""
        return "" if self._console.is_terminal else f"{datetime.now():%H:%M:%S} "


def reporter(quiet: bool) -> Reporter:
    """What a command tells its progress to: the terminal, JSON where that was chosen, or with `quiet` nobody."""
    if is_json():
        return JsonProgress(quiet)
    return NoticesOnly() if quiet else Terminal()
