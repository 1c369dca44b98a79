"""Which questions are new in the run that the cards show, since any run that finished before it.

It is what the view `new_suspects` says, looked up when somebody first asks for it: most curators ask for one run
alone, and most pages for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any

from schemas.errors import SettingsError
from tasks.sql.console import connect_analyst

Question = tuple[str, ...]
_NEW = "SELECT question FROM compared_suspects JOIN new_suspects ON later.rank = new_suspects.rank"
MOST_RUNS = 100
"""Earlier runs to choose from, the last first."""


@dataclass(frozen=True)
class EarlierRun:
    """A run that finished before the one that is shown, and when."""

    run_id: str
    at: datetime


class News:
    """The questions of run `run_id` that are new since one of the runs `earlier`; any thread may ask."""

    def __init__(self, url: str, run_id: str | None, earlier: tuple[EarlierRun, ...]) -> None:
        self.earlier = earlier
        self._url, self._run_id = url, run_id
        self._found: dict[str, frozenset[Question]] = {}
        self._lock = Lock()

    def since(self, run_id: str) -> frozenset[Question]:
        """What is new since a run, as `question_of` tells questions apart; `SettingsError` for a run not among `earlier`."""
        if run_id not in {each.run_id for each in self.earlier}:
            raise SettingsError("there is no such earlier run", "load the page again, and choose another one")
        with self._lock:
            if run_id not in self._found:
                self._found[run_id] = self._looked_up(run_id)
            return self._found[run_id]

    def _looked_up(self, run_id: str) -> frozenset[Question]:
        connection = connect_analyst(self._url, self._run_id, query=_NEW, since=run_id)
        try:
            return frozenset(tuple(question) for (question,) in connection.execute(_NEW).fetchall())
        finally:
            connection.close()


def question_of(suspect: Mapping[str, Any]) -> Question:
    """What a row of `suspects` or `questions` asks, whatever its rank, as the macro of this name says it."""
    kind = suspect["kind"]
    if suspect["blamed_photo"] is not None:
        return kind, suspect["blamed_photo"]
    if suspect["subject_kind"] == "name":
        return kind, *sorted((suspect["identity_a"], suspect["identity_b"]))
    return kind, suspect["photo_a"], suspect["photo_b"]
