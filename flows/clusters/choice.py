"""Dask clusters by one setting: a kind's name, the address of a scheduler, or `auto`.

To add a kind, write a `ClusterKind` in a file of its own and add a line to `KINDS`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from flows.api.server import refuse_unreachable
from flows.clusters.gpus import Gpus
from flows.clusters.kinds import Cluster, ClusterKind, Elsewhere, Processes
from flows.clusters.kubernetes import Kubernetes
from flows.clusters.slurm import Slurm
from flows.log_format import is_json, take_over_logging
from schemas.errors import SettingsError, did_you_mean
from schemas.settings import PAIRS_PER_SHARD_ON_GPU, Settings

_PLACE = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.%\w]+\]):\d{1,5}/?")
"""A host and a port; the host is a name or an address, and IPv6 stands in brackets."""
_DYING = {
    # How many workers a shard may end, less one, before it is cut. One can die by accident, and each costs
    # seconds.
    "distributed.scheduler.allowed-failures": 1,
    # A nanny starts another process for one that died. On a busy machine that takes longer than the 15 s
    # after which Dask would close the nanny, too; a run without workers would wait for ever.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
}
"""How Dask treats workers that die, in a cluster that is started here."""
KINDS: list[ClusterKind] = [Processes(), Gpus(), Slurm(), Kubernetes(), Elsewhere()]
"""All kinds, as the help lists them; `auto` takes the last one that fits this machine."""


def offered() -> str:
    """The values of the setting, for the help."""
    *others, last = (kind.usage for kind in KINDS)
    return f"auto (default: the GPUs where torch sees any, else the CPU), {', '.join(others)}, or {last}."


def resolve_kind(settings: Settings) -> str:
    """The cluster that the settings mean; `auto` becomes the name of a kind that fits this machine.

    Raises `SettingsError` for a name or scheme that is not known, and for a kind that does not compute on
    the device of the settings.
    """
    wanted, device = settings.cluster, settings.device
    if wanted == "auto":
        fitting = (
            kind.words[0] for kind in reversed(KINDS) if kind.fits() and device in ("auto", *kind.devices)
        )
        # Where none fits, the first kind for this device is taken; its `require` says what is missing.
        return next(fitting, None) or next(kind.words[0] for kind in KINDS if device in kind.devices)
    devices = _kind(wanted).devices
    if device not in ("auto", *devices):
        raise SettingsError(
            f"cluster {wanted!r} computes on {devices[0]!r}, not on {device!r}",
            "leave out --device, or use another --cluster",
        )
    return wanted


def require_cluster(settings: Settings) -> None:
    """Raise `SettingsError` for a cluster that is not known, or that this machine cannot have.

    The same goes for one whose workers could not reach the Prefect server that a run starts.
    """
    wanted = resolve_kind(settings)
    kind = _kind(wanted)
    kind.require(settings)
    if kind.foreign:
        refuse_unreachable(wanted)


def is_foreign(settings: Settings) -> bool:
    """Whether workers may be other installations on other machines, to be checked before any work."""
    return _kind(resolve_kind(settings)).foreign


def worker_count(settings: Settings) -> int:
    """Number of worker processes of a cluster started here: as set, or the default of its kind."""
    return settings.workers or _kind(resolve_kind(settings)).workers()


def pairs_per_shard(settings: Settings) -> int:
    """Pairs scored in one task: as set, or else by the kind of cluster.

    Stored rows tell what is done, so a run may go on with another size.
    """
    by_kind = _kind(resolve_kind(settings)).pairs_per_shard
    return settings.pairs_per_shard or (PAIRS_PER_SHARD_ON_GPU if settings.device == "cuda" else by_kind)


@contextmanager
def dask_cluster(settings: Settings, at_first: int | None = None) -> Iterator[Cluster]:
    """A cluster for the length of the block; a scheduler given by its address is used and left running.

    With `at_first` processes on this machine are no more than so many until the cluster grows.
    Raises `SettingsError` when the wanted kind is not available here, `PairxError` when a scheduler does not
    answer.
    """
    import dask
    import distributed  # noqa: F401  # its configuration and logging, which are changed here, come with it

    wanted = resolve_kind(settings)
    kind = _kind(wanted)
    kind.require(settings)
    logging.getLogger("distributed").setLevel(logging.WARNING)
    # Of a scheduler that is gone our own message tells; a client would say it before, with tracebacks.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    few = {"at_first": at_first} if isinstance(kind, Processes) else {}
    if is_json():
        take_over_logging()
    with dask.config.set(_DYING), kind.start(wanted, settings, **few) as cluster:
        yield cluster


def _kind(wanted: str) -> ClusterKind:
    """The kind that answers to a name, or to the scheme of an address."""
    scheme, mark, place = wanted.partition("://")
    for kind in KINDS:
        if scheme + mark in kind.words:
            if isinstance(kind, Elsewhere) and not _PLACE.fullmatch(place):
                raise SettingsError(
                    f"cluster {wanted!r} names no host and port", f"write it as {scheme}://HOST:PORT"
                )
            return kind
    *others, last = known = ("auto", *(kind.usage.split()[0] for kind in KINDS))
    raise SettingsError(
        f"cluster {wanted!r} is not known{did_you_mean(wanted, known)}", f"use {', '.join(others)} or {last}"
    )
