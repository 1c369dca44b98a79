"""Photos of a warehouse by their ids, or why they are not to be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.errors import PairxError, SettingsError
from tasks.sql.console import connect_analyst
from tasks.sql.stoppable import TimeLimit, close, stoppable
from tasks.store.warehouse import Warehouse

_CURRENT = "SELECT photo_id, p FROM photos AS p WHERE list_contains($ids, photo_id)"
_EVER = """
SELECT count(*), max(revision), arg_max(present, revision) FROM all_photos WHERE photo_id = $id
"""
_NEAR = """
SELECT photo_id FROM photos
ORDER BY jaro_winkler_similarity(lower(photo_id), lower($id)) DESC, photo_id LIMIT 3
"""
_ALL = "`pairx sql 'SELECT photo_id FROM photos'` lists them"


def query(place: Warehouse, text: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of one query to a warehouse; Ctrl-C stops it."""
    connection = connect_analyst(place.url, query=text)
    try:
        rows: list[tuple[Any, ...]] = stoppable(
            connection, lambda: connection.execute(text, values).fetchall(), TimeLimit()
        )
    finally:
        close(connection)
    return rows


def photos_named(place: Warehouse, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rows of `photos` with these ids, by id; ids that are not there now are left out."""
    return dict(query(place, _CURRENT, {"ids": list(ids)}))


def missing_photo(place: Warehouse, name: str) -> PairxError:
    """Why `photos` has no such id: the photo was withdrawn, seen by other settings, or never there."""
    ((count, revision, present),) = query(place, _EVER, {"id": name})
    if count and not present:
        return SettingsError(
            f"photo {name} of {place.url} was withdrawn from the catalogue (revision {revision})",
            "list it in the catalogue again and run, or give its file",
        )
    if count:
        return SettingsError(
            f"photo {name} of {place.url} was taken in under other settings or by an earlier version of the program, "
            "not by the newest run",
            "run again with a catalogue that lists it, or give its file",
        )
    near = [row[0] for row in query(place, _NEAR, {"id": name})]
    said = f"near to it: {', '.join(near)}; {_ALL}" if near else "`pairx run CATALOGUE` takes photos in"
    return SettingsError(f"{place.url} has no photo {name!r}, and there is no file of that name", said)


def require_seen(photo: Mapping[str, Any]) -> None:
    """Raise `SettingsError` for a photo that no run could read."""
    if photo["chip_id"] is None:
        raise SettingsError(
            f"photo {photo['photo_id']} could not be read when it was taken in",
            "`pairx sql 'SELECT item, code, message FROM failures'` tells why; mend the file and run again",
        )
