"""Dask clusters by one setting: a kind's name, the address of a scheduler, or `auto`; and a flow's run on one.

A further kind is a `ClusterKind` in a file of its own and its line in `KINDS`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from flows.cluster_gpus import Gpus
from flows.cluster_kinds import Cluster, ClusterKind, Elsewhere, Processes
from schemas.errors import SettingsError
from schemas.settings import Settings

if TYPE_CHECKING:
    from prefect import Flow

_PLACE = re.compile(r"([\w.-]+|\[[0-9A-Fa-f:.%\w]+\]):\d{1,5}/?")
"""A host's name or address, the latter of IPv6 in brackets, and a port."""
T = TypeVar("T")
W = TypeVar("W")

_DYING = {
    # Workers that a shard may end, less one, before it is cut: one can die by accident, and each costs seconds.
    "distributed.scheduler.allowed-failures": 1,
    # A nanny starts another process for one that died. On a busy machine that takes longer than the 15 s after which Dask would
    # close the nanny, too, and a run without workers waits for ever.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
}
"""What becomes of workers that die in a cluster that is started here."""
KINDS: list[ClusterKind] = [Processes(), Gpus(), Elsewhere()]
"""All kinds, as the help lists them; `auto` takes the last one that fits this machine."""


def offered() -> str:
    """The values of the setting, for the help."""
    *others, last = (kind.usage for kind in KINDS)
    return f"auto (default: the GPUs where torch sees any, else the CPU), {', '.join(others)}, or {last}."


def resolve_kind(wanted: str) -> str:
    """`auto` becomes the name of the kind that fits this machine; other values are checked.

    Raises `SettingsError` for a name or scheme that no kind answers to.
    """
    if wanted == "auto":
        return next(kind.words[0] for kind in reversed(KINDS) if kind.fits())
    _kind(wanted)
    return wanted


def worker_count(settings: Settings) -> int:
    """Worker processes that a cluster started here has: as set, or what its kind takes by default."""
    return settings.workers or _kind(resolve_kind(settings.cluster)).workers()


def pairs_per_shard(settings: Settings) -> int:
    """Pairs scored in one task: as set, or else by the kind of cluster. What is done is told by rows, so any size goes on."""
    return settings.pairs_per_shard or _kind(resolve_kind(settings.cluster)).pairs_per_shard


@contextmanager
def dask_cluster(settings: Settings) -> Iterator[Cluster]:
    """A cluster for the length of the block; a scheduler given by its address is used and left running.

    Raises `SettingsError` when the wanted kind is not available here, `PairxError` when a scheduler does not answer.
    """
    import dask

    wanted = resolve_kind(settings.cluster)
    logging.getLogger("distributed").setLevel(logging.WARNING)
    with dask.config.set(_DYING), _kind(wanted).start(wanted, settings) as cluster:
        yield cluster


def run_on_cluster(flow: Flow[[], T], settings: Settings, slot: ContextVar[W], work: W) -> T:
    """Run a flow that takes no parameters on the cluster of the settings; it finds its work in `slot`; see `run_flow`."""
    from prefect_dask import DaskTaskRunner

    from flows.reports import run_flow

    with dask_cluster(settings) as cluster:
        token = slot.set(work)
        try:
            return run_flow(flow.with_options(task_runner=DaskTaskRunner(address=cluster.address)))
        finally:
            slot.reset(token)


def _kind(wanted: str) -> ClusterKind:
    """The kind that answers to a name, or to the scheme of an address."""
    scheme, mark, place = wanted.partition("://")
    for kind in KINDS:
        if scheme + mark in kind.words:
            if mark and not _PLACE.fullmatch(place):
                raise SettingsError(
                    f"cluster {wanted!r} names no host and port", f"write it as {scheme}://HOST:PORT"
                )
            return kind
    *others, last = ("auto", *(kind.usage.split()[0] for kind in KINDS))
    raise SettingsError(f"cluster {wanted!r} is not known", f"use {', '.join(others)} or {last}")
