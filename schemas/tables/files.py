"""The table of digests of files as runs wrote them; a check compares the files with it."""

from __future__ import annotations

import pyarrow as pa

from schemas.tables.columns import I64, STRING, Table, column, required

FILES_PARTITION = "all"
"""The one partition; the rows cover files of every table and every setting alike."""

FILES = Table(
    "files",
    "one row per file that a run wrote or a check moved aside: what its bytes were; of a path the newest run counts",
    ("path", "run_id", "digest"),
    pa.schema(
        [
            required("path", STRING, "path below the warehouse's root"),
            required("run_id", STRING, "run that wrote it, or the time of the check that moved it aside"),
            column("bytes", I64, "its size; null when it was moved aside"),
            column("digest", STRING, "BLAKE2b of all its bytes, 40 hex digits; null when it was moved aside"),
        ]
    ),
)
