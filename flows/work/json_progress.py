"""Progress of a run as JSON objects, one a line, on standard error."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from flows.log_format import say
from tasks.runs.log import StageLog

_EVERY = 5.0


class JsonProgress:
    """An object when a stage begins and ends, one for each notice, and one every few seconds between.

    With `quiet` there are only notices.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._stage, self._unit, self._total, self._done = "", "", 0, 0
        self._begun = self._said = 0.0

    def notice(self, text: str) -> None:
        """Event `notice`."""
        say("notice", text, "warning")

    def begin(self, stage: str, items: int, unit: str) -> None:
        """Event `stage_begun`, where there is something to do."""
        self._stage, self._unit, self._total, self._done = stage, unit, items, 0
        self._begun = self._said = time.monotonic()
        if not self._quiet and items:
            say("stage_begun", stage=stage, items=items, unit=unit)

    def advance(self, items: int) -> None:
        """Event `progress`, every few seconds."""
        self._done += items
        now = time.monotonic()
        if self._quiet or now - self._said < _EVERY or self._done >= self._total:
            return
        self._said = now
        rate = self._done / (now - self._begun)
        left = (self._total - self._done) / rate if rate else None
        say(
            "progress",
            stage=self._stage,
            done=self._done,
            items=self._total,
            unit=self._unit,
            per_second=round(rate, 3),
            seconds_left=None if left is None else round(left, 1),
        )

    def end(self, note: str, log: StageLog | None = None) -> None:
        """Event `stage_ended`, with all numbers of the stage."""
        if not self._quiet:
            numbers: dict[str, Any] = {} if log is None else numbers_of(log)
            say("stage_ended", note, stage=self._stage, **numbers)

    def abort(self) -> None:
        """Event `stage_broken`."""
        if not self._quiet:
            say("stage_broken", level="error", stage=self._stage, done=self._done, items=self._total)


def numbers_of(log: StageLog) -> dict[str, Any]:
    """The numbers of a stage, without its name."""
    found: dict[str, Any] = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in asdict(log).items()
        if name != "stage"
    }
    return found | {"per_second": None if log.per_second is None else round(log.per_second, 3)}
