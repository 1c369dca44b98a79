"""The closed set of reasons why an item was not processed, and the value behind a `failures` row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

MAX_MESSAGE = 2000
"""Characters of a message that are kept, since libraries quote whole inputs in theirs."""


class FailureCode(StrEnum):
    """Why an item failed; `FAILURE_MEANINGS` says what each code means."""

    MISSING_FILE = "missing_file"
    UNREADABLE_FILE = "unreadable_file"
    PATH_OUTSIDE_ROOT = "path_outside_root"
    CHANGED_FILE = "changed_file"
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    WRONG_TYPE = "wrong_type"
    HEIC = "heic"
    CAMERA_RAW = "camera_raw"
    MANY_PAGES = "many_pages"
    WEB_PAGE = "web_page"
    GIT_LFS_POINTER = "git_lfs_pointer"
    TRUNCATED = "truncated"
    TOO_MANY_PIXELS = "too_many_pixels"
    BAD_BOX = "bad_box"
    BOX_OUTSIDE = "box_outside"
    BOX_EMPTY = "box_empty"
    TOO_SMALL = "too_small"
    EMBEDDING_NOT_FINITE = "embedding_not_finite"
    SCORE_NOT_FINITE = "score_not_finite"
    WORKER_DIED = "worker_died"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL_ERROR = "internal_error"


PASSING = (
    FailureCode.MISSING_FILE,
    FailureCode.UNREADABLE_FILE,
    FailureCode.CHANGED_FILE,
    FailureCode.OUT_OF_MEMORY,
)
"""Codes whose cause may be gone by the next run.

Such items are tried again, all others only on request.
"""

FAILURE_MEANINGS: dict[FailureCode, str] = {
    FailureCode.MISSING_FILE: "no file at the photo's path",
    FailureCode.UNREADABLE_FILE: "the file exists but cannot be read: a folder, no permission, or damaged",
    FailureCode.PATH_OUTSIDE_ROOT: "the path led out of the catalogue's root when the photo was opened",
    FailureCode.CHANGED_FILE: "the file changed between being ingested and being processed; run again",
    FailureCode.EMPTY_FILE: "the file has no bytes",
    FailureCode.NOT_AN_IMAGE: "the bytes are no picture in any known format, whatever the file's name says",
    FailureCode.WRONG_TYPE: "a picture in a format that is not accepted",
    FailureCode.HEIC: "a HEIC/HEIF photo of a telephone; convert it to JPEG",
    FailureCode.CAMERA_RAW: "a camera's raw file (CR2, NEF, DNG, …); develop it to JPEG or TIFF, or give its JPEG",
    FailureCode.MANY_PAGES: "a TIFF of several pages; save each page as a photo of its own",
    FailureCode.WEB_PAGE: "a web page that was saved instead of the picture; download the photo again",
    FailureCode.GIT_LFS_POINTER: "a pointer to a photo in Git LFS; fetch the photos: git lfs pull",
    FailureCode.TRUNCATED: "the picture breaks off before its end",
    FailureCode.TOO_MANY_PIXELS: "more pixels than the setting max_pixels, which may be raised; refused before decoding",
    FailureCode.BAD_BOX: "the catalogue's box cannot be used; mend it there, and the next run reads the photo",
    FailureCode.BOX_OUTSIDE: "the box lies mostly outside the photo",
    FailureCode.BOX_EMPTY: "the box has no area in this photo",
    FailureCode.TOO_SMALL: "the cut is only a few pixels wide or high",
    FailureCode.EMBEDDING_NOT_FINITE: "the model gave NaN, infinity or a zero vector for the photo",
    FailureCode.SCORE_NOT_FINITE: "relevance or a score of the pair came out as NaN or infinity",
    FailureCode.WORKER_DIED: "the worker processes that had this photo or pair, and nothing else, died or ran past the time limit",
    FailureCode.OUT_OF_MEMORY: "memory ran out even with the item alone",
    FailureCode.INTERNAL_ERROR: "an unexpected error, named in the message; please report it",
}
"""One line per code: the report and the column descriptions of the SQL views print it."""


@dataclass(frozen=True)
class Failure:
    """One item that a stage could not process; its fields are the columns of the `failures` table.

    `stage` is the name of one of `schemas.stages`, `item` the id of one of the photos or pairs that it
    processes. `layer`, `revision` and `chip_id`, where they are set, say what part of the item failed.
    `code` may be given as text. A message longer than `MAX_MESSAGE` characters is cut. Raises
    `ValueError` for a code outside the closed set.
    """

    stage: str
    item: str
    code: FailureCode
    message: str
    layer: str | None = None
    revision: int | None = None
    chip_id: str | None = None

    def __post_init__(self) -> None:
        if not self.item:
            raise ValueError("a failure needs the photo id or pair id that failed")
        object.__setattr__(self, "code", FailureCode(self.code))
        if len(self.message) > MAX_MESSAGE:
            object.__setattr__(self, "message", self.message[: MAX_MESSAGE - 1] + "…")

    def row(self) -> dict[str, Any]:
        """The row of the `failures` table: column name to value, the code as plain text."""
        return {**asdict(self), "code": self.code.value}
