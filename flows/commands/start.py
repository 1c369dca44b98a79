"""How commands on a catalogue begin: read it, then take the warehouse beside a Prefect API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from flows.log_format import is_json, say
from flows.terminal import PlainConsole
from schemas.catalogue.reader import Catalogue, read_catalogue
from schemas.catalogue.reading import Reading
from schemas.catalogue.summary import said_of
from schemas.catalogue.whereabouts import Whereabouts, look_for_photos
from schemas.settings import Settings

if TYPE_CHECKING:
    from tasks.job import Job
    from tasks.store.lease import Lease

OUT = PlainConsole()
_ERR = PlainConsole(stderr=True)


def note(text: str) -> None:
    """Print a note on standard error; the work goes on."""
    if is_json():
        say("note", text.strip(), "warning")
        return
    _ERR.print(f"note: {text}", style="yellow")


def look_up(catalogue: str, root: str | None, reading: Reading) -> Whereabouts:
    """The catalogue and its photos, looked for; raises `CatalogueError` with all problems of the catalogue."""
    return look_for_photos(read_catalogue(catalogue, root, reading), root is not None)


def read(catalogue: str, root: str | None, settings: Settings) -> Catalogue:
    """The catalogue to work on, after all remarks on it are printed.

    Raises `CatalogueError` for a bad catalogue, and where none of its photos is there.
    """
    looked = look_up(catalogue, root, Reading.of(settings))
    for said in said_of(looked.catalogue):
        note(said)
    return looked.required(catalogue)


def warehouse_for(
    warehouse: str, settings: Settings, who: str, wait: bool
) -> AbstractContextManager[tuple[Job, Lease]]:
    """A job and the lease of a warehouse for a block, as `flows.work.beginning.warehouse_for`; notes are printed."""
    from flows.work.beginning import warehouse_for

    return warehouse_for(warehouse, settings, who, wait, note)


@contextmanager
def at_work_on(warehouse: str, settings: Settings, who: str, wait: bool) -> Iterator[tuple[Job, Lease]]:
    """A job and the lease of a warehouse, beside a Prefect API, for the length of a block.

    All refusals come before the warehouse is taken. Raises `PairxError` for a cluster, a model or an API
    that cannot be had, and `WarehouseBusy` where another run is at work and `wait` is false.
    """
    from flows.api.server import prefect_server, require_api, silence_prefect
    from flows.clusters.choice import require_cluster
    from tasks.job import prepare_job
    from tasks.store.lease import at_work
    from tasks.store.warehouse import Warehouse

    require_cluster(settings)
    place = Warehouse(warehouse)
    place.prepare()
    job = prepare_job(place, settings)
    require_api()
    with at_work(place, who, wait, note) as lease, prefect_server():
        silence_prefect()
        yield job, lease
