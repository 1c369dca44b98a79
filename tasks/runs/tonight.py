"""What a run changed against the finished run before it, from the views of what is new."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass

import duckdb

from tasks.pages.tonight import ChangedName, GoneSuspect, NewSuspect, ReportTonight

_SHOWN = 50


@dataclass(frozen=True)
class Tonight:
    """How much is new in a run since the one before it; the counts of the view `tonight`."""

    new_photos: int = 0
    new_pairs: int = 0
    new_suspects: int = 0
    gone_suspects: int = 0
    changed_names: int = 0

    def counts(self) -> dict[str, int]:
        """The counts by their names."""
        return asdict(self)

    def __str__(self) -> str:
        if not any(astuple(self)):
            return "tonight: nothing new"
        return (
            f"tonight: {_of(self.new_photos, 'new photo')}, {_of(self.new_pairs, 'new pair')}, "
            f"{_of(self.new_suspects, 'new suspect')}, {self.gone_suspects} gone, {_of(self.changed_names, 'name')} changed"
        )


def _of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def tonight_of(connection: duckdb.DuckDBPyConnection) -> Tonight:
    """The counts that the views of a connection show."""
    found = connection.execute(
        "SELECT new_photos, new_pairs, new_suspects, gone_suspects, changed_names FROM tonight"
    ).fetchone()
    return Tonight(*found) if found else Tonight()


def report_tonight(connection: duckdb.DuckDBPyConnection, tonight: Tonight) -> ReportTonight:
    """What the report shows of it: the counts, and the first of what is new."""
    since = connection.execute("SELECT earlier, earlier_at FROM compared_runs").fetchone()
    suspects = connection.execute(
        "SELECT rank, probability_then, because FROM new_suspects ORDER BY rank LIMIT ?", [_SHOWN]
    ).fetchall()
    gone = connection.execute(
        """
        SELECT kind, blamed_photo, identity_a, identity_b, photo_a, photo_b, probability, because
        FROM gone_suspects ORDER BY rank LIMIT ?
        """,
        [_SHOWN],
    ).fetchall()
    names = connection.execute(
        "SELECT photo_id, name_then, name_now FROM changed_names ORDER BY photo_id LIMIT ?", [_SHOWN]
    ).fetchall()
    unknown, failed = connection.execute(
        "SELECT count(*) FILTER (identity IS NULL AND judged), count(*) FILTER (NOT judged) FROM new_photos"
    ).fetchall()[0]
    return ReportTonight(
        counts=tonight.counts(),
        since=since[0] if since else None,
        since_at=since[1] if since else None,
        unknown=unknown,
        failed=failed,
        suspects=[NewSuspect(*row) for row in suspects],
        gone=[GoneSuspect(*row) for row in gone],
        names=[ChangedName(*row) for row in names],
    )
