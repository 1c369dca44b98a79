"""Facts of stages: name, what is counted, tables that are filled, and how items may fail.

A stage's module in `tasks` binds these facts to its work. The view `failures`, the sums of a run and the
words of the tables follow from them. To add a stage, write its facts here and add their name to the list at
the end (`register_stage` from outside the package).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.failures import FailureCode

ITEM_KEYS = {"photo": ("photo_id", "chip_id"), "pair": ("pair_id",)}
"""Columns that name an item of each kind, its id first.

The view of current items has the kind's plural as its name.
"""
ALWAYS = (FailureCode.WORKER_DIED, FailureCode.OUT_OF_MEMORY, FailureCode.INTERNAL_ERROR)
"""Codes that any item of any stage may get."""
OF_PHOTOS = tuple(
    code
    for code in FailureCode
    if code not in (FailureCode.EMBEDDING_NOT_FINITE, FailureCode.SCORE_NOT_FINITE)
)
"""Codes of a photo that cannot be read."""


@dataclass(frozen=True)
class Failing:
    """What fails in a stage: photos or pairs, and the codes that it gives.

    A failure stands in for the item's row of one of `tables`. It lies under that table's fingerprint, in
    a shard of the same name, so stages whose failures share a fingerprint must name their shards
    differently. A failure is made good by that row or, with `revision`, by a later revision of the photo,
    because there failing items have rows as well.
    """

    items: Literal["photo", "pair"]
    tables: tuple[str, ...]
    codes: tuple[FailureCode, ...] = OF_PHOTOS
    made_good_by: Literal["row", "revision"] = "row"


@dataclass(frozen=True)
class StageFacts:
    """A stage: its name, what it counts, its tables in the order of their commit, how items fail.

    With `counted_as`, a past participle, each run checks that every current item has a row of the last
    table or has failed, in this stage or in one before it.
    """

    name: str
    unit: str
    tables: tuple[str, ...]
    failing: Failing | None = None
    counted_as: str | None = None


INGEST = StageFacts("ingest", "photos", ("photos",), Failing("photo", ("photos",), made_good_by="revision"))
EMBED = StageFacts(
    "embed",
    "photos",
    ("keypoints", "embeddings"),
    Failing("photo", ("keypoints", "embeddings"), (*OF_PHOTOS, FailureCode.EMBEDDING_NOT_FINITE)),
    counted_as="embedded",
)
RETRIEVE = StageFacts("retrieve", "photos", ("galleries", "neighbours", "horizons", "pairs"))
SCORE = StageFacts(
    "score",
    "pairs",
    ("matches", "relevances", "signals", "scores"),
    Failing("pair", ("scores",), (*OF_PHOTOS, FailureCode.SCORE_NOT_FINITE)),
    counted_as="scored",
)
SIGNALS = StageFacts("signals", "pairs", ("signals",), Failing("pair", ("signals",), ()))
VERIFY = StageFacts("verify", "pairs", ("copies",), Failing("pair", ("copies",)))
JUDGE = StageFacts(
    "judge",
    "photos",
    (
        "judges",
        "reliability",
        "judged_catalogues",
        "judged_names",
        "judged_photos",
        "candidates",
        "judgements",
    ),
)
FLAG = StageFacts("flag", "suspects", ("suspects",))
DRAW = StageFacts("draw", "figures", ("explanations",), Failing("pair", ("explanations",)))
LIST = StageFacts("list", "photos", ("galleries", "evaluation_pairs"))
SWEEP = StageFacts(
    "sweep",
    "pairs",
    ("measurements",),
    Failing("pair", ("measurements",), (*OF_PHOTOS, FailureCode.SCORE_NOT_FINITE)),
)
LEARN = StageFacts("learn", "photos", ("learned",))
FAITHFULNESS = StageFacts("faithfulness", "pairs", ("faithfulness",), Failing("pair", ("faithfulness",)))

STAGES: dict[str, StageFacts] = {
    stage.name: stage
    for stage in (
        *(INGEST, EMBED, RETRIEVE, SCORE, SIGNALS, VERIFY, JUDGE, FLAG, DRAW),
        *(LIST, SWEEP, LEARN, FAITHFULNESS),
    )
}
"""Every stage by its name, in the order in which they run."""


def register_stage(stage: StageFacts) -> StageFacts:
    """Make a stage from outside the package known; returns it.

    Raises `ValueError` for a name that another stage has.
    """
    if STAGES.setdefault(stage.name, stage) != stage:
        raise ValueError(f"there is another stage {stage.name}")
    return stage


def stage_that_fills(table: str) -> StageFacts:
    """The stage that fills a table; raises `KeyError` where none does."""
    for stage in STAGES.values():
        if table in stage.tables:
            return stage
    raise KeyError(f"no stage fills {table}")
