"""A stored report as one file: the pictures that lie beside it are put into it."""

from __future__ import annotations

import re

from schemas.errors import PairxError
from tasks.pages.scatter import data_uri
from tasks.store.reports import PICTURE, PICTURES, is_other_picture, picture_path, report_path
from tasks.store.warehouse import Warehouse

BESIDE = "'self' file: "
"""What the content policy of a report allows besides pictures in the page itself.

Browsers differ in whether 'self' holds for a page that was opened from the disk.
"""
_LINK = re.compile(rf'(<img [^>]*?src=")(?:{PICTURES})/({PICTURE.pattern})"')


def self_contained(warehouse: Warehouse, run_id: str) -> str:
    """The report of a run with its pictures as data URIs; a report of an older version is one file already.

    Raises `FileNotFoundError` where there is no such report, `PairxError` where a picture is gone or is another.
    """
    page = warehouse.storage.get(f"{warehouse.root}/{report_path(run_id)}").decode("utf-8")
    uris = {name: _uri(warehouse, name) for name in sorted({name for _, name in _LINK.findall(page)})}
    # A text of the catalogue holds no quotation mark that is not escaped, so these are tags of the page.
    page = _LINK.sub(lambda link: f'{link[1]}{uris[link[2]]}"', page)
    return page.replace(f"img-src {BESIDE}data:", "img-src data:", 1)


def _uri(warehouse: Warehouse, name: str) -> str:
    path = picture_path(name)
    try:
        data = warehouse.storage.get(f"{warehouse.root}/{path}")
    except FileNotFoundError as error:
        raise PairxError(
            f"the picture {path} of the report is gone from {warehouse.url}",
            "run again: a run writes the pictures of its own report that are missing",
        ) from error
    if is_other_picture(path, data):
        raise PairxError(
            f"the picture {path} of the report is not what a run wrote",
            "`pairx check --quarantine` moves it aside, and the next run writes it again",
        )
    return data_uri("image/webp", data)
