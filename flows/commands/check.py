"""`pairx check`: says what is wrong with a warehouse and what to move aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from schemas.errors import SHOWN_PER_KIND, PairxError
from tasks.check.damage import Damage
from tasks.check.findings import Advance, Report, check
from tasks.check.quarantine import move_aside
from tasks.store.lease import at_work
from tasks.store.warehouse import Warehouse

_OUT = Console(highlight=False, soft_wrap=True, markup=False)


def check_warehouse(url: str, quick: bool, quarantine: bool, quiet: bool = False) -> None:
    """Check a warehouse, and move aside what is damaged if wanted.

    Raises `PairxError` that lists what was found, moved or not, and `NoWarehouse` where there is none.
    """
    warehouse = Warehouse(url)
    warehouse.require()
    with (
        at_work(warehouse, "pairx check --quarantine") if quarantine else nullcontext(),
        _progress(quiet) as (begin, advance),
    ):
        report = check(warehouse, quick, begin, advance)
        moved = (
            move_aside(warehouse, report.listing, report.problems) if quarantine and report.problems else {}
        )
    if report.problems:
        raise PairxError("\n".join([_listed(report.problems), *_moved(moved)]))
    looked = "footers and sizes are" if quick else "every byte and every row is"
    _OUT.print(f"{looked} as it should be: {_counted(report)}")


def _counted(report: Report) -> str:
    files = len(report.listing.by_path)
    return f"{files} files, {report.recorded} recorded by the runs that wrote them, {files - report.recorded} not"


def _moved(moved: Mapping[str, str | None]) -> Iterator[str]:
    """Lines that say what was moved aside, damaged or a partner of what is, and what to do now."""
    if not moved:
        return
    yield f"moved aside ({len(moved)})"
    yield from (
        f"  {path} → {kept}" if kept else f"  {path}: gone, and noted as gone" for path, kept in moved.items()
    )
    yield "now run `pairx run` with the catalogue, which computes again what it needs of them, and check once more"


def _listed(problems: tuple[Damage, ...]) -> str:
    kinds: dict[str, list[Damage]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    lines = ["1 problem" if len(problems) == 1 else f"{len(problems)} problems"]
    for kind, members in kinds.items():
        lines.append(f"{kind} ({len(members)})")
        lines += [f"  {p.where}: {p.what}" for p in members[:SHOWN_PER_KIND]]
        if len(members) > SHOWN_PER_KIND:
            lines.append(f"  and {len(members) - SHOWN_PER_KIND} more")
        lines += [f"  cure: {cure}" for cure in dict.fromkeys(p.cure for p in members)]
    return "\n".join(lines)


@contextmanager
def _progress(quiet: bool) -> Iterator[tuple[Advance, Advance]]:
    """Two functions: one takes the total of bytes, the other how many more were looked at.

    They move a bar on a terminal and do nothing elsewhere, or where it is to be quiet.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("check"), BarColumn(28), DownloadColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        console=console, transient=True, disable=quiet or not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("check", total=None)
        yield lambda size: bar.update(task, total=size), lambda size: bar.advance(task, size)
