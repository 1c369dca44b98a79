"""Where reports lie, and the pictures beside them: each is one file, whichever reports show it.

A picture's name is a hash of its bytes, or of the photo that it shows, so a later run that shows it again writes
nothing. Reports are kept, and with them their pictures.
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
PICTURE = re.compile(rf"(?:photo-)?[0-9a-f]{{{_HASH}}}\.webp")
"""Valid names of pictures."""
_OF_BYTES = re.compile(rf"[0-9a-f]{{{_HASH}}}\.webp")


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


def photo_name(photo_id: str, chip_id: str) -> str:
    """The name of a photo's own picture, which shows what a model saw of it: known before it is drawn."""
    text = f"{photo_id}\0{chip_id}"
    return f"photo-{digest_of(text.encode('utf-8', 'surrogatepass'))[:_HASH]}.webp"


def is_of_reports(path: str) -> bool:
    """Whether a path below the root is that of a report or of a picture of reports."""
    folder, _, name = path.rpartition("/")
    return folder == REPORTS or (folder == f"{REPORTS}/{PICTURES}" and bool(PICTURE.fullmatch(name)))


def is_other_picture(path: str, data: bytes) -> bool:
    """Whether a file of reports has the name of another picture, though no record says what it was."""
    name = path.rpartition("/")[2]
    return path == picture_path(name) and bool(_OF_BYTES.fullmatch(name)) and name != picture_name(data)


def stored_pictures(warehouse: Warehouse) -> dict[str, int]:
    """Sizes in bytes of the pictures that are there, by name and by one listing."""
    there = warehouse.storage.find(f"{warehouse.root}/{REPORTS}/{PICTURES}")
    return {path.rpartition("/")[2]: stored.size for path, stored in there.items()}


def store_pictures(warehouse: Warehouse, pictures: Mapping[str, bytes], there: Mapping[str, int]) -> None:
    """Put those pictures (name -> bytes) that are not there yet with their size."""
    for name, data in pictures.items():
        if there.get(name) != len(data):
            warehouse.write_file(picture_path(name), data)
