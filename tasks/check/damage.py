"""What a check finds: a problem, its cure, and the files that can be moved aside for it."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import Problem

MOVE_AND_RUN = "`pairx check --quarantine` moves it aside, and `pairx run` computes it again"
"""The cure of most damage to a file."""
_CANNOT_BE_COMPUTED = {
    "reviews": "verdicts of people cannot be computed: put the file back from a copy; `pairx check --quarantine` moves it aside "
    "and goes on without these verdicts",
    "runs": "what a run said of itself cannot be computed: put the file back from a copy; `pairx check --quarantine` moves it aside "
    "and forgets that run, while its rows stay valid",
    "files": "digests of files that are there cannot be had again: put it back from a copy; `pairx check --quarantine` moves it "
    "aside, and what it vouched for is checked by page checksums alone",
    "reports": "a report is of its moment: `pairx check --quarantine` moves it aside, and the next run writes its own",
}
_OF_EVALUATIONS = {"evaluation_pairs", "measurements", "learned", "faithfulness"}


def cure_of(place: str) -> str:
    """How to get rid of a damaged file in a table or folder, and what computes the file again."""
    if place in _OF_EVALUATIONS:
        return "`pairx check --quarantine` moves it aside, and `pairx evaluate` computes it again"
    return _CANNOT_BE_COMPUTED.get(place, MOVE_AND_RUN)


@dataclass(frozen=True)
class Damage(Problem):
    """A problem of a warehouse; `files` are the paths that `--quarantine` moves because of it.

    They are relative to the root. There are none where the damage is elsewhere: rows whose other half is
    missing are right themselves.
    """

    files: tuple[str, ...] = ()
