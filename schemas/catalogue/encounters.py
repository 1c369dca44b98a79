"""Encounters where a catalogue names none: from a column `video`, or from station and time.

Photos of one encounter are never paired. Without encounters the near-identical frames of one visit are each
other's nearest, and fill every top-k.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from schemas.catalogue.cells import Column, find_column, read_names
from schemas.catalogue.table_files import Cells

VIDEO = "video"
_FLAGS = frozenset(("true", "false", "yes", "no", "y", "n", "t", "f", "0", "1"))
CURE = "name the column with --column encounter=COLUMN, or derive them from station and time with --encounter-gap MINUTES"


def with_video(cells: Cells) -> tuple[Cells, list[str]]:
    """The cells with `video` as their encounter, where no column is one; and a remark on what was done.

    A column that only says yes or no is none, nor is one that numbers the videos of each animal anew: most of
    its values then stand with several names.
    """
    if find_column(cells, "encounter") is not None or VIDEO not in cells.columns:
        return cells, []
    name, count = cells.source(VIDEO), len(cells.rows)
    videos = read_names(Column(name, cells.columns[VIDEO], cells.origin(VIDEO)), count, [])
    values = {video for video in videos if video is not None}
    names = read_names(find_column(cells, "identity"), count, [])
    if not values or {value.lower() for value in values} <= _FLAGS:
        return cells, [f"column {name} is not read as encounter: it numbers no videos"] if values else []
    shown: dict[str, set[str]] = defaultdict(set)
    for video, animal in zip(videos, names, strict=True):
        if video is not None and animal is not None:
            shown[video].add(animal)
    if 2 * sum(len(animals) > 2 for animals in shown.values()) > len(shown):
        why = "most videos show several animals, so it may number those of each animal anew"
        return cells, [f"column {name} is not read as encounter: {why}; if not: --column encounter={name}"]
    told = replace(
        cells,
        columns={**cells.columns, "encounter": cells.columns[VIDEO]},
        origins={**cells.origins, "encounter": cells.origin(VIDEO)},
        sources={**cells.sources, "encounter": name},
    )
    return told, [
        f"column {name} is read as encounter, since no column gives encounters: {len(values)} videos"
    ]


def by_gap(
    encounters: Sequence[str | None],
    stations: Sequence[str | None],
    times: Sequence[str | None],
    minutes: float,
) -> tuple[list[str | None], str]:
    """The encounters of all photos, made where a photo has none but a station and a time; and a remark.

    Photos of one station, in order of time, are one encounter as long as each follows the one before by less
    than `minutes`. It is named by its station and its first time. Times without a zone count as UTC; a date
    without a time of day is no time. Photos whose encounter is given take no part.
    """
    found, given = list(encounters), set(encounters)
    shots: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for i, (encounter, station, time) in enumerate(zip(encounters, stations, times, strict=True)):
        if encounter is None and station is not None and (moment := moment_of(time)) is not None:
            shots[station].append((moment, i))
    made = 0
    for station, each in shots.items():
        last, name = float("-inf"), ""
        for moment, i in sorted(each):
            if moment - last >= 60 * minutes:
                name, made = f"{station} {times[i]}", made + 1
                name += " (by time)" if name in given else ""
            found[i], last = name, moment
    photos, without = sum(map(len, shots.values())), found.count(None)
    note = f"encounters made from station and time, {minutes:g} minutes apart: {made}, of {photos} photos"
    if without:
        note += f"; {without} photos without a station or a time of day have no encounter"
    return found, note


def moment_of(text: str | None) -> float | None:
    """Seconds since 1970 of a date with a time of day; None without one, or where it cannot be read."""
    if text is None or ":" not in text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
