"""Which questions are new in the run that the cards show, since any run that finished before it.

It is what the view `new_suspects` says, looked up when somebody first asks for it: most curators ask for one run
alone, and most pages for none.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from schemas.errors import SettingsError
from tasks.reviews.questions import key_of
from tasks.sql.console import connect_analyst

Asked = tuple[str, str, str, str | None]
"""The kind of a suspect, and the key of what it asks (`tasks.reviews.questions.key_of`), whatever its rank."""
_NEW = """
SELECT later.kind AS kind, later.asks AS asks, later.subject AS subject, later.proposed_name AS other_name
FROM compared_suspects JOIN new_suspects ON later.rank = new_suspects.rank
"""
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
        self._found: dict[str, frozenset[Asked]] = {}
        self._lock = Lock()

    def since(self, run_id: str) -> frozenset[Asked]:
        """What the suspects ask that are new since a run; raises `SettingsError` for one that is not among `earlier`."""
        if run_id not in {each.run_id for each in self.earlier}:
            raise SettingsError("there is no such earlier run", "load the page again, and choose another one")
        with self._lock:
            if run_id not in self._found:
                self._found[run_id] = self._looked_up(run_id)
            return self._found[run_id]

    def _looked_up(self, run_id: str) -> frozenset[Asked]:
        connection = connect_analyst(self._url, self._run_id, query=_NEW, since=run_id)
        try:
            rows = connection.sql(_NEW).to_arrow_table().to_pylist()
        finally:
            connection.close()
        return frozenset((row["kind"], *key_of(row)) for row in rows)
