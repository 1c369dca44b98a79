"""Checks workers before they get work: one that differs from this process is refused.

That happens at the start, or when a worker joins in mid-run.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, Worker, WorkerPlugin

from flows.api.server import silence_services
from flows.clusters.kinds import GPU, Cluster, Device, client_of
from flows.work.shard_work import end_process
from schemas.errors import PairxError
from tasks.job import Job
from tasks.runs.surroundings import SAME_VERSIONS, Fact, Sight, token_in, versions

_TO_ANSWER, _TO_LOOK = 30.0, 180.0
"""Seconds within which a worker must answer, and within which it must have looked around.

To look is to import what computes, load the model and read a photo. A disk that hangs must not hold up a
night for ever.
"""
_TO_BE_HEARD = 3.0
_DIFFERS = 78
"""Exit status of a worker process that joined and differs: a configuration error, in sysexits.h."""
_SHOWN = 8
"""How many workers a message describes."""
Differences = list[tuple[str, str]]
"""What differs in a worker, each with its cure."""


@contextmanager
def equal_workers(cluster: Cluster, job: Job, photo: tuple[str, str] | None) -> Iterator[None]:
    """A block in which all workers of the cluster compute with and see the same as this process.

    Raises `PairxError` that says which workers differ and how. A worker that joins within the block and
    differs ends before it gets work. `photo` is the root and path of a photo that workers must be able to
    read.
    """
    with token_in(job.warehouse) as token, client_of(cluster) as client:
        gate = Gate(Sight(job, token, photo), cluster.device)
        # The first question needs only Python, the second this package, the third equal packages.
        for function, judge, seconds in (
            (platform.python_version, _of_python, _TO_ANSWER),
            (versions, _of_versions, _TO_LOOK),
            (gate.differences, _of_sight, _TO_LOOK),
        ):
            answers = _ask(client, function, seconds)
            _refuse(client, cluster, {who: judge(said) for who, said in answers.items()})
        name = f"pairx-{token}"
        client.register_plugin(gate, name=name)
        try:
            yield
        finally:
            with suppress(Exception):  # a scheduler that died has forgotten it
                client.unregister_worker_plugin(name)


class Gate(WorkerPlugin):
    """Checks every worker that joins; one that differs ends, with its nanny, before it takes any work."""

    def __init__(self, sight: Sight, device: Device) -> None:
        self._sight, self._device, self._versions = sight, device, versions()
        kinds: tuple[Device, ...] = ("cpu", "cuda") if device == "cuda" else ("cpu",)
        self._expected = {kind: sight.expected(kind) for kind in kinds}

    async def setup(self, worker: Worker) -> None:
        """Let the worker in, or end it. Dask waits for this before a worker hears of its first task."""
        silence_services()
        if "//127.0.0.1:" in worker.scheduler.address:
            # Ours, and nobody but this run could read its words: where the run was killed, they only alarm.
            logging.getLogger("distributed.worker").addFilter(_heartbeat_arrived)
        differing = differences(self._versions, versions()) or await self.differences(worker)
        if not differing:
            return
        why = "; ".join(f"{what} (cure: {cure})" for what, cure in differing)
        # The scheduler gives its work to others, and blames no task for its end.
        await worker.scheduler.unregister(
            address=worker.contact_address, expected=True, stimulus_id="pairx-differs"
        )
        if worker.nanny is not None:
            # A nanny that has just begun does not listen yet; it gives up by itself when its first worker
            # ends.
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(_send_home(worker), _TO_BE_HEARD)
        end_process(f"it differs from the run: {why}", _DIFFERS)

    async def differences(self, dask_worker: Worker) -> Differences:
        """What this worker sees differently."""
        declares = GPU in dask_worker.state.total_resources
        on: Device = "cuda" if self._device == "cuda" and declares else "cpu"
        try:
            seen = await asyncio.wait_for(asyncio.to_thread(self._sight.seen, on), _TO_LOOK - _TO_ANSWER)
        except TimeoutError:
            return [
                (
                    f"it has not loaded the model and read a photo within {_TO_LOOK - _TO_ANSWER:.0f} s",
                    "see its disks",
                )
            ]
        return differences(self._expected[on], seen)


def _heartbeat_arrived(record: logging.LogRecord) -> bool:
    """Whether a record says anything but that a heartbeat found no scheduler, with its traceback."""
    return "communicate with scheduler during heartbeat" not in record.getMessage()


async def _send_home(worker: Worker) -> None:
    """Tell a worker's nanny not to start another one."""
    async with worker.rpc(worker.nanny) as nanny:
        await nanny.close_gracefully(reason="pairx-differs")


def differences(expected: Sequence[Fact], seen: Sequence[Fact]) -> Differences:
    """What differs from what is expected, among the facts that were seen at all."""
    found = {fact.what: fact.value for fact in seen}
    return [
        (f"{fact.what} is {found[fact.what]}, not {fact.value}", fact.cure)
        for fact in expected
        if found.get(fact.what, fact.value) != fact.value
    ]


def _of_python(said: Any) -> Differences:
    if isinstance(said, Exception):
        return [(f"it does not answer: {type(said).__name__}: {said}", "see its log")]
    here, there = (version.rpartition(".")[0] for version in (platform.python_version(), said))
    return [] if here == there else [(f"Python is {there}, not {here}", SAME_VERSIONS)]


def _of_versions(said: Any) -> Differences:
    if isinstance(said, Exception):
        return [(f"this package is not there, or not whole: {type(said).__name__}: {said}", SAME_VERSIONS)]
    return differences(versions(), said)


def _of_sight(said: Any) -> Differences:
    return (
        [(f"it cannot look: {type(said).__name__}: {said}", "see its log")]
        if isinstance(said, Exception)
        else said
    )


def _ask(client: Client, function: Callable[..., Any], seconds: float) -> Mapping[str, Any]:
    """Each worker's answer, by its address; the error of a worker that cannot answer."""
    try:
        return client.run(function, on_error="return", callback_timeout=seconds)
    except TimeoutError:
        silent = [address for address in _workers(client) if _is_silent(client, address)]
        raise PairxError(
            f"workers do not answer within {seconds:.0f} s: {', '.join(silent) or 'one that has left by now'}",
            "end them, or wait until they are free; then run again",
        ) from None


def _is_silent(client: Client, address: str) -> bool:
    try:
        client.run(platform.python_version, workers=[address], callback_timeout=2)
    except Exception:  # whatever keeps it from answering
        return True
    return False


def _workers(client: Client) -> Mapping[str, Any]:
    return client.scheduler_info(n_workers=-1)["workers"]


def _refuse(client: Client, cluster: Cluster, found: Mapping[str, Differences]) -> None:
    """Raise `PairxError` if any worker differs."""
    differing = {who: what for who, what in found.items() if what}
    if not differing:
        return
    workers = _workers(client)
    names = {who: f"{who} ({worker['name']})" for who, worker in workers.items() if worker["name"] != who}
    lines = [
        f"  {names.get(who, who)}: {'; '.join(text for text, _ in what)}" for who, what in differing.items()
    ]
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    cures = dict.fromkeys(cure for what in differing.values() for _, cure in what)
    raise PairxError(
        f"{len(differing)} of {len(found)} workers of {cluster.address} differ from this process, so nothing was started:\n"
        + "\n".join([*lines[:_SHOWN], *more]),
        "; ".join(cures),
    )
