"""What clusters made for a run on other machines share: their extra, their size, the first wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flows.clusters.kinds import PATIENCE_KEY, Cluster, Device, client_of, patience
from schemas.errors import PairxError, SettingsError
from schemas.settings import PAIRS_PER_SHARD, Settings


class Hired:
    """What kinds share whose workers are started for a run on other machines, which may cost money."""

    words: tuple[str, ...]
    unit: str
    """The site's word for a worker."""
    pairs_per_shard = PAIRS_PER_SHARD
    devices: tuple[Device, ...] = ("cpu", "cuda")
    foreign = True

    @property
    def usage(self) -> str:
        """For the help."""
        return f"{self.words[0]} ({self.unit})"

    def fits(self) -> bool:
        """Never: such workers are started only on request."""
        return False

    def workers(self) -> int:
        """Raise `SettingsError`: the user must say how many."""
        raise SettingsError(
            f"cluster {self.words[0]!r} has to be told how many {self.unit} to start", "name it: --workers N"
        )

    def require(self, settings: Settings) -> None:
        """Raise `SettingsError` where the settings do not say how many workers."""
        if not settings.workers:
            self.workers()


@contextmanager
def or_install(extra: str) -> Iterator[None]:
    """A block that imports what only the extra `extra` installs.

    Raises `SettingsError` with the command to install it where it is absent.
    """
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

    Raises `PairxError` when none comes in the time that Dask's configuration lets work wait for workers,
    by default an hour.
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
