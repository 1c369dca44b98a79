"""The demo: a drawn catalogue with planted errors, the whole nightly job on it, and what it found against the truth."""

from __future__ import annotations

import csv
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from flows.server import prefect_server
from schemas.errors import SettingsError
from schemas.settings import Settings
from tasks.console import connect_analyst
from tasks.drawn_catalogue import write_drawn_catalogue

_OUT = Console(highlight=False, soft_wrap=True, markup=False)


@dataclass(frozen=True)
class Truth:
    """What `truth.csv` says of the photos; the pipeline itself never opens that file."""

    animal: dict[str, str]
    planted: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Truth:
        """Read a truth file."""
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return cls(
            {r["image_id"]: r["true_identity"] for r in rows}, {r["image_id"]: r["planted"] for r in rows}
        )

    def errors(self, photo_a: str, photo_b: str) -> set[str]:
        """The photos of a pair that were planted under a wrong name."""
        return {p for p in (photo_a, photo_b) if self.planted[p] in ("wrong_name", "copy")}

    @property
    def misnamed(self) -> int:
        """How many photos carry a wrong name, copies among them."""
        return sum(kind in ("wrong_name", "copy") for kind in self.planted.values())


def run_demo(out: Path, seed: int, top: int, workers: int | None) -> None:
    """Draw, process and compare; everything lies in `out`, which must be new, empty, or an earlier demo of this seed."""
    begun = time.perf_counter()
    catalogue = out / "catalogue"
    marker, part = catalogue / f"seed-{seed}", out / ".drawing"
    if out.is_file() or (
        out.exists() and {p.name for p in out.iterdir()} - {part.name} and not marker.exists()
    ):
        raise SettingsError(f"{out} holds something else", "name an empty folder with --out, or remove it")
    if not marker.exists():
        _OUT.print("drawing the catalogue …")
        shutil.rmtree(part, ignore_errors=True)
        drawn = write_drawn_catalogue(part, seed)
        (part / marker.name).touch()
        part.rename(catalogue)
        planted = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in drawn.planted.items())
        _OUT.print(
            f"{drawn.photos} photos of {drawn.animals} drawn animals in {catalogue}; planted: {planted}"
        )
    warehouse = out / "warehouse"
    with prefect_server():
        logging.getLogger("prefect").setLevel(logging.CRITICAL)
        from flows.nightly import RunOptions, run
        from flows.progress import Terminal
        from schemas.catalogue import read_catalogue
        from tasks.run_report import EMBEDDED_NOTICE
        from tasks.warehouse import Warehouse

        settings = Settings(workers=workers)
        summary = run(
            read_catalogue(str(catalogue / "metadata.csv")),
            Warehouse(str(warehouse)),
            settings,
            RunOptions(),
            Terminal(),
        )
    for balance in summary.balances:
        _OUT.print(str(balance))
    _print_suspects(warehouse, Truth.read(catalogue / "truth.csv"), top)
    _OUT.print(f"note: {EMBEDDED_NOTICE}")
    _OUT.print(f"report: {summary.report}")
    _OUT.print(f"next:   pairx sql --warehouse {warehouse}")
    _OUT.print(f"done in {time.perf_counter() - begun:.0f} s")


def _print_suspects(warehouse: Path, truth: Truth, top: int) -> None:
    rows = (
        connect_analyst(str(warehouse))
        .execute(
            """
        SELECT rank, score, kind, photo_a, identity_a, photo_b, identity_b FROM suspects ORDER BY rank LIMIT ?
        """,
            [top],
        )
        .fetchall()
    )
    _OUT.print(f"\nfirst {len(rows)} suspects (✓ a planted error, by truth.csv)")
    found: set[str] = set()
    right = 0
    for rank, score, kind, photo_a, name_a, photo_b, name_b in rows:
        errors = truth.errors(photo_a, photo_b)
        right += bool(errors)
        found |= errors
        mark = "✓" if errors else " "
        _OUT.print(
            f"{rank:>3} {mark} {score:.2f}  {kind.replace('_', ' '):<28} {photo_a} ({name_a})  {photo_b} ({name_b})"
        )
    _OUT.print(
        f"\n{right} of the first {len(rows)} suspects are planted errors; "
        f"they name {len(found)} of the {truth.misnamed} misnamed photos"
    )
