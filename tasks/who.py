"""Which animals photos may show: answers from the judgement of the newest finished run, nothing computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from schemas.errors import PairxError, SettingsError

NEEDS = """
    SELECT 1 FROM photos, candidates, judged_photos, judged_catalogues, judgements, failures, new_photos, run_photos, run_neighbours, runs, current_run
"""
"""A query that reads all that is read here: what the connection must see."""
_NEAR, _ALIKE = 3, 0.75

_ANSWERS = """
WITH asked AS (SELECT unnest($photos) AS photo_id, unnest(range(len($photos))) AS place),
-- Of a photo with a name only that name and the likeliest other are stored, with the probability that the name is wrong.
answers AS (
    SELECT photo_id, rank, name, probability FROM candidates SEMI JOIN asked USING (photo_id)
    UNION ALL
    SELECT photo_id, row_number() OVER (PARTITION BY photo_id ORDER BY probability DESC, own DESC), name, probability
    FROM (
        SELECT photo_id, true AS own, identity AS name, 1 - probability AS probability
        FROM judged_photos SEMI JOIN asked USING (photo_id)
        WHERE identity IS NOT NULL
        UNION ALL
        SELECT photo_id, false, proposed_name, probability * proposed_share
        FROM judged_photos SEMI JOIN asked USING (photo_id)
        WHERE identity IS NOT NULL AND proposed_name IS NOT NULL
    )
),
-- Photos that each was compared with: scored ones with their probability, and near ones by the cosine alone.
scored AS (
    SELECT photo_a AS photo_id, photo_b AS other, probability FROM judgements WHERE photo_a IN (SELECT photo_id FROM asked)
    UNION ALL
    SELECT photo_b, photo_a, probability FROM judgements WHERE photo_b IN (SELECT photo_id FROM asked)
),
near AS (
    SELECT n.photo_a AS photo_id, n.photo_b AS other, n.cosine
    FROM run_neighbours AS n
    SEMI JOIN photos AS a ON a.photo_id = n.photo_a AND a.chip_id = n.chip_a
    SEMI JOIN photos AS b ON b.photo_id = n.photo_b AND b.chip_id = n.chip_b
    WHERE n.photo_a IN (SELECT photo_id FROM asked) OR n.photo_b IN (SELECT photo_id FROM asked)
),
sides AS (
    SELECT photo_id, other, cosine FROM near
    UNION ALL
    SELECT other, photo_id, cosine FROM near
),
best AS (
    SELECT photo_id, o.identity AS name, other, probability, cosine
    FROM scored
    FULL JOIN sides USING (photo_id, other)
    JOIN photos AS o ON o.photo_id = other
    WHERE o.identity IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY photo_id, o.identity ORDER BY probability DESC NULLS LAST, cosine DESC NULLS LAST, other
    ) = 1
)
SELECT
    a.photo_id,
    p.identity AS called,
    CAST(a.rank AS INTEGER) AS rank,
    coalesce(a.name, '(a new animal)') AS answer,
    a.name IS NULL AS new_animal,
    a.probability,
    b.other AS best_photo,
    b.probability AS one_animal_with_it,
    b.cosine AS cosine_with_it
FROM answers AS a
JOIN asked USING (photo_id)
JOIN photos AS p USING (photo_id)
LEFT JOIN best AS b ON b.photo_id = a.photo_id AND b.name = a.name
WHERE a.rank <= $top
ORDER BY place, a.rank
"""


@dataclass(frozen=True)
class Answers:
    """The answers as rows, likeliest first within each photo, and what must be known of some photos.

    Columns: photo_id, called (its name; null when unknown), rank, answer, new_animal (whether the answer is an
    animal that has no name yet), probability, best_photo (the photo of that name with which it is likeliest one
    animal, or where none was explained, the nearest), one_animal_with_it (that probability; null where it was not
    explained), cosine_with_it (null where it is not among the near ones).
    """

    rows: pa.Table
    notes: tuple[str, ...]


def new_unknown(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Photos of unknown animals that are new in the newest run and could be compared, sorted."""
    found = connection.execute(
        "SELECT photo_id FROM new_photos WHERE judged AND identity IS NULL ORDER BY photo_id"
    )
    return [row[0] for row in found.fetchall()]


def answers_for(connection: duckdb.DuckDBPyConnection, photos: Sequence[str], top: int) -> Answers:
    """The likeliest `top` answers for each photo, in the order asked for.

    Raises `PairxError` where nothing has been judged, and `SettingsError` that names every photo of which
    nothing can be said, and why.
    """
    if not connection.execute("SELECT count(*) FROM judged_catalogues").fetchall()[0][0]:
        raise PairxError(
            "nothing has been judged yet in this warehouse",
            "finish a run: pairx run CATALOGUE --warehouse URL",
        )
    asked = list(dict.fromkeys(photos))
    judged = _judged(connection, asked)
    if wrong := [_why_not(connection, photo) for photo in asked if photo not in judged]:
        raise SettingsError(
            "\n".join(wrong), '`pairx sql "SELECT photo_id FROM judged_photos"` lists what can be asked for'
        )
    rows = connection.sql(_ANSWERS, params={"photos": asked, "top": top}).to_arrow_table()
    return Answers(rows, tuple(_notes(asked, judged, set(rows["photo_id"].to_pylist()))))


def _judged(connection: duckdb.DuckDBPyConnection, asked: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = connection.execute(
        "SELECT photo_id, identity, undefended FROM judged_photos WHERE list_contains(?, photo_id)", [asked]
    )
    return {row[0]: {"identity": row[1], "undefended": row[2]} for row in found.fetchall()}


def _why_not(connection: duckdb.DuckDBPyConnection, photo: str) -> str:
    """Why nothing can be said of a photo that was not judged."""
    known = connection.execute("SELECT count(*) FROM photos WHERE photo_id = ?", [photo]).fetchall()[0][0]
    if not known:
        entries = connection.execute(
            "SELECT count(*) FROM run_photos WHERE photo_id = ?", [photo]
        ).fetchall()[0][0]
        if entries:
            return f"the photo {photo!r} was withdrawn from the catalogue"
        near = connection.execute(
            """
            SELECT photo_id FROM (SELECT photo_id, jaro_winkler_similarity(photo_id, $photo) AS likeness FROM judged_photos)
            WHERE likeness >= $least ORDER BY likeness DESC, photo_id LIMIT $most
            """,
            {"photo": photo, "least": _ALIKE, "most": _NEAR},
        ).fetchall()
        names = ", ".join(repr(row[0]) for row in near)
        return f"there is no photo {photo!r}" + (f"; near it are {names}" if names else "")
    failed = connection.execute(
        "SELECT stage, code, message FROM failures WHERE item = ? ORDER BY stage LIMIT 1", [photo]
    ).fetchone()
    if failed:
        stage, code, message = failed
        return f"the photo {photo!r} failed in {stage} with {code}: {message}"
    return f"the photo {photo!r} came after the newest finished run and is not judged yet: run again"


def _notes(asked: Sequence[str], judged: dict[str, dict[str, Any]], answered: set[str]) -> list[str]:
    notes = []
    named = [photo for photo in asked if judged[photo]["identity"] is not None]
    if named:
        notes.append(
            f"{_listed(named)} {'has a name' if len(named) == 1 else 'have names'}: stored are the probabilities of that name and of the "
            "likeliest other; those of all names and of a new animal are computed for unknown photos only"
        )
    if alone := [photo for photo in named if judged[photo]["undefended"]]:
        notes.append(
            f"{_listed(alone)}: no other photo of that name can speak for it, so its probability says nothing"
        )
    if silent := [photo for photo in asked if photo not in answered]:
        notes.append(f"{_listed(silent)}: nothing was compared, so there is no answer")
    return notes


def _listed(photos: Sequence[str], shown: int = 5) -> str:
    rest = f" and {len(photos) - shown} more" if len(photos) > shown else ""
    return ", ".join(photos[:shown]) + rest
