"""The demo: a drawn catalogue, the nightly job on it, and its findings against the truth."""

from __future__ import annotations

import csv
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from flows.demo.catalogue import write_drawn_catalogue
from flows.terminal import PlainConsole
from flows.work.beginning import warehouse_for
from schemas.errors import SettingsError
from schemas.settings import Settings
from tasks.sql.console import connect_analyst

_OUT = PlainConsole()


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

    def named(self, blamed: str | None, photo_a: str, photo_b: str) -> set[str]:
        """The misnamed photos that a suspect points at.

        That is the photo that it blames, or either of the two where it blames none.
        """
        return self.errors(blamed, blamed) if blamed is not None else self.errors(photo_a, photo_b)

    @property
    def misnamed(self) -> int:
        """How many photos have a wrong name, copies included."""
        return sum(kind in ("wrong_name", "copy") for kind in self.planted.values())


def run_demo(out: Path, seed: int, top: int, workers: int | None, quiet: bool = False) -> None:
    """Draw, process and compare; everything lies in `out`.

    Raises `SettingsError` unless `out` is new, empty, or an earlier demo of this seed.
    """
    begun = time.perf_counter()
    catalogue = out / "catalogue"
    marker, part = catalogue / f"seed-{seed}", out / ".drawing"
    if out.is_file() or (
        out.exists() and {p.name for p in out.iterdir()} - {part.name} and not marker.exists()
    ):
        raise SettingsError(f"{out} holds something else", "name an empty folder with --out, or remove it")
    if not marker.exists():
        if not quiet:
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
    with warehouse_for(str(warehouse), Settings(workers=workers), "pairx demo") as (job, lease):
        from flows.night.run import run
        from flows.night.values import RunOptions
        from flows.work.progress import reporter
        from schemas.catalogue.reader import read_catalogue
        from schemas.catalogue.whereabouts import look_for_photos
        from schemas.settings import EMBEDDED_NOTICE

        source = str(catalogue / "metadata.csv")
        read = look_for_photos(read_catalogue(source), False).required(source)
        summary = run(read, job, lease, RunOptions(), reporter(quiet))
    for balance in summary.balances:
        _OUT.print(str(balance))
    _print_suspects(warehouse, Truth.read(catalogue / "truth.csv"), top)
    _OUT.print(f"note: {EMBEDDED_NOTICE}")
    _OUT.print(f"report: {summary.report}")
    _OUT.print(f"next:   pairx sql --warehouse {warehouse}")
    _OUT.print(f"done in {time.perf_counter() - begun:.0f} s")


def _print_suspects(warehouse: Path, truth: Truth, top: int) -> None:
    connection = connect_analyst(str(warehouse))
    rows = connection.execute(
        """
        SELECT kind, probability, blamed_photo, proposed_name, expected, photo_a, identity_a, photo_b, identity_b
        FROM suspects JOIN expected_precision USING (rank) ORDER BY rank
        """
    ).fetchall()
    shown = min(top, len(rows))
    _OUT.print(
        f"\nfirst {shown} suspects (✓ a planted error, by truth.csv; probability; expected share so far)"
    )
    found: set[str] = set()
    right = 0
    for rank, row in enumerate(rows[:top], start=1):
        kind, probability, blamed, proposed, expected, photo_a, name_a, photo_b, name_b = row
        errors = truth.named(blamed, photo_a, photo_b)
        right += bool(errors)
        found |= errors
        mark = "✓" if errors else " "
        should_be = f"  → {proposed}" if proposed is not None else ""
        _OUT.print(
            f"{rank:>3} {mark} {probability:.2f} {expected:.2f}  {kind.replace('_', ' '):<20} "
            f"{photo_a} ({name_a})  {photo_b} ({name_b})"
            + (f"  {blamed}{should_be}" if blamed else should_be)
        )
    everywhere = set().union(*(truth.named(row[2], row[5], row[7]) for row in rows))
    _OUT.print(
        f"\n{right} of the first {shown} suspects are planted errors; they name {len(found)} of the {truth.misnamed} "
        f"misnamed photos, all {len(rows)} suspects name {len(everywhere)}"
    )
    guess = connection.execute(
        "SELECT wrong_names, wrong_names_low, wrong_names_high FROM judged_catalogues"
    ).fetchone()
    if guess is not None:
        _OUT.print(
            "without the truth {:.0f} were expected, nine times in ten {:.0f} to {:.0f}".format(*guess)
        )
