"""What clusters have in common that are made for a run on other machines: their extra, their number of
workers, the wait for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flows.clusters.kinds import PATIENCE_KEY, Cluster, Device, client_of, patience
from schemas.errors import PairxError, SettingsError
from schemas.settings import PAIRS_PER_SHARD, Settings


class Hired:
    """What kinds have in common whose workers are started for a run on other machines, and are paid for or
    accounted for there."""

    words: tuple[str, ...]
    unit: str
    """What a worker is there."""
    pairs_per_shard = PAIRS_PER_SHARD
    devices: tuple[Device, ...] = ("cpu", "cuda")
    foreign = True

    @property
    def usage(self) -> str:
        """For the help."""
        return f"{self.words[0]} ({self.unit})"

    def fits(self) -> bool:
        """Never: they are started only where they are asked for."""
        return False

    def workers(self) -> int:
        """Raises `SettingsError`: their number is the user's to say."""
        raise SettingsError(
            f"cluster {self.words[0]!r} has to be told how many {self.unit} to start", "name it: --workers N"
        )

    def require(self, settings: Settings) -> None:
        """Raise `SettingsError` without a number of them."""
        if not settings.workers:
            self.workers()


@contextmanager
def or_install(extra: str) -> Iterator[None]:
    """A block that imports what only `extra` installs; raises `SettingsError` with the command where it is
    absent."""
    try:
        yield
    except ImportError as error:
        raise SettingsError(
            f"cluster {extra!r} needs a package that is not installed: {error}",
            f"pip install -c deploy/constraints.txt '.[{extra}]'",
        ) from error


def asked_device(settings: Settings) -> Device:
    """The device to ask a site for: the CPU unless the settings say otherwise."""
    return "cuda" if settings.device == "cuda" else "cpu"


def wait_for_a_worker(cluster: Cluster, look_at: str) -> None:
    """Wait until the first worker has come; the others may join in mid-run.

    Raises `PairxError` when none comes for as long as Dask's configuration lets work wait for workers, by
    default an hour.
    """
    seconds = patience()
    try:
        with client_of(cluster) as client:
            client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise PairxError(
            f"cluster {cluster.kind!r} has no worker after {seconds:.0f} s",
            f"{look_at}; to wait longer set {PATIENCE_KEY} in Dask's configuration",
        ) from error
