"""`pairx compare`: pairs explained by many methods side by side, from two files or from a warehouse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tasks  # noqa: F401  # settings learn from it what they may name
from flows.commands.pictures import box_of, write_file
from flows.inherited import with_inherited
from flows.notebook import compare, states_of
from flows.terminal import PlainConsole
from pairx_engine.comparison import Compared, ComparedPair, Comparer, chosen_methods
from schemas.errors import PairxError, SettingsError
from schemas.settings import Settings
from tasks.job import engine_of, prepare_job
from tasks.pages.comparison import PairOnPage, render_comparison
from tasks.photo_files import read_cut
from tasks.sql.console import connect_analyst
from tasks.sql.stoppable import TimeLimit, close, stoppable
from tasks.store.warehouse import Warehouse

Methods = tuple[tuple[str, ...], bool]
"""The methods that were named, and whether all affordable ones are wanted."""
_OUT, _ERR = PlainConsole(), PlainConsole(stderr=True)
_PAGE = "compare.html"
_LOOK = "pairx sql 'SELECT pair_id, photo_a, photo_b FROM pairs' lists them"
_NAMED = """
SELECT pair_id, '' AS note, a, b
FROM (
    SELECT pair_id, photo_a, photo_b FROM pairs
    UNION
    SELECT pair_id, photo_a, photo_b FROM all_evaluation_pairs
)
JOIN photos AS a ON a.photo_id = photo_a
JOIN photos AS b ON b.photo_id = photo_b
WHERE list_contains($ids, pair_id)
"""
_SUSPECTED = """
SELECT s.pair_id, format('suspect {}: {}', s.rank, s.reason) AS note, a, b
FROM (
    SELECT pair_id, photo_a, photo_b, min(rank) AS rank, any_value(reason ORDER BY rank) AS reason
    FROM suspects GROUP BY ALL ORDER BY rank LIMIT $count
) AS s
JOIN photos AS a ON a.photo_id = s.photo_a
JOIN photos AS b ON b.photo_id = s.photo_b
ORDER BY s.rank
"""


@dataclass(frozen=True)
class _StoredPair:
    """A pair of a warehouse: rows of `photos`, and what is known of it."""

    pair_id: str
    note: str
    photos: tuple[Mapping[str, Any], Mapping[str, Any]]

    @property
    def titles(self) -> tuple[str, str]:
        """Name and path of either photo."""
        a, b = (f"{photo['identity'] or 'unknown'} · {photo['path']}" for photo in self.photos)
        return a, b

    @property
    def title(self) -> str:
        """Ids of both photos."""
        return " · ".join(str(photo["photo_id"]) for photo in self.photos)


def compare_photos(
    photos: tuple[Path | None, Path | None],
    boxes: tuple[str | None, str | None],
    out: Path | None,
    html: Path | None,
    methods: Methods,
    given: Mapping[str, Any],
    warehouse: str | None,
) -> None:
    """Write the sheet of two photos, and its page if wanted."""
    first, second = photos
    if first is None or second is None:
        raise SettingsError(
            "there are no two photos to compare",
            "give both: pairx compare A B, or pairs of a warehouse: --pair PAIR_ID or --suspects N",
        )
    named, everything = methods
    a, b = (box_of(box) for box in boxes)
    found = compare(
        first,
        second,
        named,
        everything=everything,
        box_a=a,
        box_b=b,
        warehouse=warehouse,
        told=_told,
        **given,
    )
    _refuse_failed(found)
    sheet = out or Path("compare.png")
    write_file(sheet, found._repr_png_(), "-o")
    _OUT.print(f"{found.line}\nsheet: {sheet}")
    if html is not None:
        page = PairOnPage.of(found, f"{first.name} · {second.name}")
        _write_page(html, [page], found.settings)


def compare_pairs_of_warehouse(
    warehouse: str | None,
    ids: tuple[str, ...],
    suspects: int,
    of_photos: Sequence[object],
    out: Path | None,
    html: Path | None,
    methods: Methods,
    given: Mapping[str, Any],
) -> None:
    """Write a sheet for each pair and a page of all; `of_photos` is what belongs to two photos alone.

    A pair that cannot be compared is said and left out; raises `PairxError` where none could be.
    """
    if any(each is not None for each in of_photos):
        raise SettingsError(
            "two photos or boxes, and pairs of a warehouse, are two different comparisons",
            "give photos A and B, or --pair and --suspects",
        )
    place = Warehouse(warehouse or "warehouse")
    place.require()
    pairs = _pairs(place, ids, suspects)
    settings = _settings(place, given)
    job = prepare_job(place, settings)
    names = chosen_methods(job.settings.preset, *methods)
    comparer = Comparer(engine_of(job), names, max(1, settings.n_pixel_maps), states_of(job, names), _told)
    folder, pages = out or Path("compare"), []
    for number, pair in enumerate(pairs, 1):
        _OUT.print(f"pair {number} of {len(pairs)}: {pair.title}")
        found = _compared(comparer, pair, settings.max_pixels)
        if found is not None:
            write_file(folder / f"{_file_name(pair, number)}.png", found._repr_png_(), "-o")
            pages.append(PairOnPage.of(found, pair.title, pair.note))
    if not pages:
        raise PairxError(f"none of {len(pairs)} pairs could be compared", "see the reasons above")
    _OUT.print(f"sheets: {len(pages)} in {folder}")
    _write_page(html or folder / _PAGE, pages, comparer.settings)


def _compared(comparer: Comparer, pair: _StoredPair, max_pixels: int) -> ComparedPair | None:
    """The compared pair; None, and the reason said, where a photo cannot be read or no method works."""
    try:
        a, b = (read_cut(photo, max_pixels) for photo in pair.photos)
        found = comparer.compare((a, b), pair.titles)
        _refuse_failed(found)
    except PairxError as error:
        if error.ends_the_run:
            raise
        _ERR.print(f"pair {pair.pair_id} is left out: {error}")
        return None
    return found


def _pairs(place: Warehouse, ids: tuple[str, ...], suspects: int) -> list[_StoredPair]:
    """The pairs of these ids, then those of the first suspects, each once."""
    named = {pair.pair_id: pair for pair in _query(place, _NAMED, {"ids": list(ids)})} if ids else {}
    if unknown := [one for one in ids if one not in named]:
        raise SettingsError(f"{place.url} has no pair {unknown[0]!r}", _LOOK)
    found = {one: named[one] for one in ids}
    if suspects:
        found |= {pair.pair_id: pair for pair in _query(place, _SUSPECTED, {"count": suspects})}
    if not found:
        raise PairxError(f"{place.url} has no suspects", f"name pairs with --pair; {_LOOK}")
    return list(found.values())


def _query(place: Warehouse, query: str, values: Mapping[str, Any]) -> Iterator[_StoredPair]:
    connection = connect_analyst(place.url, query=query)
    try:
        rows = stoppable(connection, lambda: connection.execute(query, values).fetchall(), TimeLimit())
    finally:
        close(connection)
    return (_StoredPair(pair_id, note, (a, b)) for pair_id, note, a, b in rows)


def _settings(place: Warehouse, given: Mapping[str, Any]) -> Settings:
    from flows.evaluation import settings_of_newest_run

    inherited = settings_of_newest_run(place)
    asked = {name: value for name, value in given.items() if value is not None}
    if not inherited and "model" not in asked:
        raise PairxError(
            f"no run has finished in {place.url}, so that its settings are not known",
            "say with --model (and other options) how its photos are to be seen",
        )
    return with_inherited(inherited, asked)


class AllMethodsFailed(PairxError):
    """No method could explain a pair; the next one may be explained."""

    ends_the_run = False


def _refuse_failed(found: ComparedPair) -> None:
    if all(one.explained is None for one in found.methods):
        first = found.methods[0]
        raise AllMethodsFailed(
            f"none of {len(found.methods)} methods could explain this pair; {first.method.name}: {first.reason}",
            "choose another --layer, --model or --method",
        )


def _told(one: Compared) -> None:
    _OUT.print(f"  {one.method.name:24}{one.seconds:6.2f} s{'  ' if one.reason else ''}{one.reason}")


def _file_name(pair: _StoredPair, number: int) -> str:
    """The pair's id, unless the table was tampered with and it is none: it must not lead elsewhere."""
    return pair.pair_id if re.fullmatch(r"[0-9a-f]{8,64}", pair.pair_id) else f"pair-{number}"


def _write_page(path: Path, pages: Sequence[PairOnPage], settings: Mapping[str, str]) -> None:
    write_file(path, render_comparison(pages, settings).encode("utf-8"), "--html")
    _OUT.print(f"page: {path}")
