"""Paths that are URLs: those below the root become relative, others are refused with one cure for all.

A catalogue is untrusted, so no photo is fetched from where it says, only from below the root that the user
gave.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from schemas.catalogue.cells import Column
from schemas.catalogue.formats.sheet import join_places
from schemas.errors import Problem
from schemas.paths import is_url
from schemas.storage_errors import masked


def below_root(url: str, root: str) -> str | None:
    """The part of `url` below `root`; None where it is not below it."""
    before = f"{root.rstrip('/')}/"
    return url[len(before) :] if is_url(root) and url.startswith(before) and url != before else None


def refuse_remote(
    column: Column, paths: Sequence[str | None], rows: Sequence[int], problems: list[Problem]
) -> None:
    """One problem for all `rows` whose paths are URLs that are not below the root."""
    urls = [paths[i] or "" for i in rows]
    count = sum(path is not None for path in paths)
    what = f"{len(urls)} of {count} paths are URLs, for example {masked(urls[0])[:120]!r}"
    cure = "download the photos and give their paths below the catalogue's root"
    shared = _folder_of_all(urls)
    if len(urls) == count and shared:
        cure += f"; or, to read them where they are, give the address that they share as the root: --root {shared}"
    elif len(urls) < count:
        cure += f", as those of the other {count - len(urls)}"
    places = [column.row(i) for i in rows]
    where = f"{join_places(places) if len(places) > 1 else places[0]}, {column.origin(rows[0])[1]}"
    problems.append(Problem("photos behind URLs", where, what, cure))


def by_tails(urls: Sequence[str]) -> tuple[list[str], int]:
    """The ends of the URLs' paths, of as few parts as tell all of them apart, and how many parts these are."""
    split = [[part for part in urlsplit(url).path.split("/") if part] for url in urls]
    different = len({tuple(parts) for parts in split})
    longest = max(map(len, split), default=1)
    for parts in range(1, longest + 1):
        if len({tuple(each[-parts:]) for each in split}) == different:
            break
    return ["/".join(each[-parts:]) for each in split], parts


def _folder_of_all(urls: Sequence[str]) -> str:
    """The address below which all URLs lie; empty where they share no host or carry secrets."""
    first, last = min(urls), max(urls)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    shared = first[:same].rpartition("/")[0]
    parts = urlsplit(shared)
    return shared if parts.netloc and "@" not in parts.netloc and masked(shared) == shared else ""
