"""Where reports lie, and the pictures beside them: each is one file, whichever reports show it.

A picture's name is a hash of its bytes, so a later run that shows it again writes nothing. Reports are kept, and
with them their pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from schemas.errors import WarehouseError
from tasks.store.warehouse import Warehouse
from tasks.store.written import digest_of

REPORTS = "reports"
"""Folder of the pages that runs leave."""
PICTURES = "pictures"
"""Folder of their pictures, as the pages name it."""
_RUN_ID = re.compile(r"[a-z0-9-]{1,64}")
_HASH = 32
PICTURE = re.compile(rf"[0-9a-f]{{{_HASH}}}\.webp")
"""Valid names of pictures."""


def report_path(run_id: str) -> str:
    """Where the report of a run lies below the warehouse's root.

    Raises `WarehouseError` for what is no run's id: a table that others have written to must not lead
    elsewhere.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise WarehouseError(
            f"{run_id!r} is no id of a run", "the table `runs` was tampered with: pairx check"
        )
    return f"{REPORTS}/{run_id}.html"


def picture_path(name: str) -> str:
    """Where a picture of reports lies below the warehouse's root."""
    return f"{REPORTS}/{PICTURES}/{name}"


def picture_name(data: bytes) -> str:
    """The name of a picture: 32 hex digits of BLAKE2b of its bytes, and what it is."""
    return f"{digest_of(data)[:_HASH]}.webp"


def is_of_reports(path: str) -> bool:
    """Whether a path below the root is that of a report or of a picture of reports."""
    folder, _, name = path.rpartition("/")
    return folder == REPORTS or (folder == f"{REPORTS}/{PICTURES}" and bool(PICTURE.fullmatch(name)))


def is_other_picture(path: str, data: bytes) -> bool:
    """Whether a file of reports has the name of another picture, though no record says what it was."""
    name = path.rpartition("/")[2]
    return path == picture_path(name) and name != picture_name(data)


def store_pictures(warehouse: Warehouse, pictures: Mapping[str, bytes]) -> int:
    """Put those pictures (name -> bytes) that are not there yet, by one listing; returns their number."""
    if not pictures:
        return 0
    there = warehouse.storage.find(f"{warehouse.root}/{REPORTS}/{PICTURES}")
    sizes = {path.rpartition("/")[2]: stored.size for path, stored in there.items()}
    new = [name for name, data in pictures.items() if sizes.get(name) != len(data)]
    for name in new:
        warehouse.write_file(picture_path(name), pictures[name])
    return len(new)
