"""Errors of settings, catalogues and warehouses; `PairxError` is their base.

It is the engine's base, too, so a command catches one class. What all errors share comes from the engine through
this module alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pairx_engine.errors import PairxError, did_you_mean

__all__ = [
    "AcceleratorFailure", "CatalogueError", "LeaseLost", "NewerWarehouse", "NoRun", "NoStorage", "NoWarehouse", "PairxError",
    "PathOutsideRoot", "Problem", "SettingsError", "StorageError", "WarehouseBusy", "WarehouseError", "did_you_mean",
]  # fmt: skip

SHOWN_PER_KIND = 20
"""How many problems of one kind a message lists; the others are counted."""


class SettingsError(PairxError, ValueError):
    """A setting is unknown, out of range or contradicts another."""

    exit_code = 2


class WarehouseError(PairxError, ValueError):
    """A warehouse cannot be reached, was written by another version, or holds damaged files."""


class NoWarehouse(WarehouseError):
    """There is no warehouse at the address that was given."""

    exit_code = 2

    def __init__(self, url: str, near: str = "") -> None:
        super().__init__(
            f"there is no warehouse at {url}{near}", "pairx run CATALOGUE --warehouse URL makes one"
        )
        self.url = url
        self._near = near

    def __reduce__(self) -> tuple[type[NoWarehouse], tuple[str, str]]:
        return type(self), (self.url, self._near)


class NewerWarehouse(WarehouseError):
    """A warehouse, or a file of it, was written by a newer version of this program."""

    exit_code = 2


class NoRun(WarehouseError):
    """A warehouse has no run of the name that was given."""

    exit_code = 2


class StorageError(WarehouseError):
    """A store of files failed to read, write or list, after several tries."""


class NoStorage(StorageError):
    """There is no such store, it cannot be reached, or it refuses us; found before any work."""

    exit_code = 2


class WarehouseBusy(WarehouseError):
    """Another run is at work on the warehouse."""

    exit_code = 3

    def __init__(self, url: str, owner: str) -> None:
        super().__init__(
            f"{url} is busy: {owner}",
            "run again when it has finished, or with --wait; one that was killed is followed by itself, on another machine after minutes",
        )
        self._given = (url, owner)

    def __reduce__(self) -> tuple[type[WarehouseBusy], tuple[str, str]]:
        return type(self), self._given


class LeaseLost(WarehouseError):
    """The warehouse is gone, or this run may no longer write to it."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"the warehouse {url} was taken from this run while it was at work: {why}",
            "see what became of it, then run again: only what is missing is computed",
        )
        self._given = (url, why)

    def __reduce__(self) -> tuple[type[LeaseLost], tuple[str, str]]:
        return type(self), self._given


class AcceleratorFailure(PairxError):
    """The device of a process failed and only a new process can help; nothing was stored."""

    def __init__(self, message: str, cure: str | None = None) -> None:
        super().__init__(
            message,
            cure
            or "run again: only what is missing is computed; if it fails again, see dmesg for Xid errors of the GPU",
        )


class PathOutsideRoot(PairxError, ValueError):
    """A relative path would leave the folder that it is relative to."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a catalogue: its kind, where (row and column), what, and the cure.

    Rows are counted as a spreadsheet shows them: the header of a CSV is row 1. Rows of Parquet are counted
    from 1.
    """

    kind: str
    where: str
    what: str
    cure: str

    def __post_init__(self) -> None:
        if not (self.kind and self.where and self.what and self.cure):
            raise ValueError("a problem needs a kind, a place, a description and a cure")


class CatalogueError(PairxError, ValueError):
    """A catalogue cannot be used; `problems` holds everything that is wrong with it, not only the first."""

    exit_code = 2

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        if not self.problems:
            raise ValueError("a CatalogueError needs at least one problem")
        super().__init__(_describe(source, self.problems))

    def __reduce__(self) -> tuple[type[CatalogueError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.source, self.problems)


def _describe(source: str, problems: tuple[Problem, ...]) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"the catalogue {source} cannot be used: {count}"]
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    for kind, members in kinds.items():
        lines.append(f"{kind} ({len(members)})")
        lines += [f"  {problem.where}: {problem.what}" for problem in members[:SHOWN_PER_KIND]]
        if len(members) > SHOWN_PER_KIND:
            lines.append(f"  and {len(members) - SHOWN_PER_KIND} more")
        lines += [f"  cure: {cure}" for cure in dict.fromkeys(p.cure for p in members[:SHOWN_PER_KIND])]
    return "\n".join(lines)
