"""One shard of one stage, within a time limit; a process ends where nothing else helps."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from uuid import uuid4

from distributed import Client, get_worker
from distributed.scheduler import KilledWorker

from flows.log_format import is_json, say
from pairx_engine.device.accelerator import device_failed
from schemas.errors import AcceleratorFailure
from tasks.costs import counting
from tasks.job import Job
from tasks.memory import within_memory
from tasks.photo_files import refusing_photos
from tasks.shards import Divisible, ShardResult, Stage
from tasks.store.written import hearing

_DEVICE_FAILED, _TIMED_OUT = 70, 75
"""Exit status of a worker process whose device died, or whose shard took too long.

In sysexits.h: an internal software error, and a temporary failure.
"""
_TOPIC = "pairx-device-failed"
"""Topic of events by which a worker says, before it ends, that its device is to blame and no photo."""
_TO_BE_HEARD = 0.5


class Work:
    """One shard and what to do with it.

    An object and no collection, since Prefect and Dask search the collections that they know for futures.

    `on_device`: whether it needs the run's device. `seconds`: how long a shard that can be cut may take
    on a worker that a nanny restarts. `refused`: why its photos are not read any more; its items become
    failures with this text.
    """

    def __init__(
        self, stage: Stage[Any, Any], job: Job, shard: Any, seconds: float, refused: str | None = None
    ) -> None:
        self.stage, self.job, self.shard = stage.name, job, shard
        self.work: Callable[[Job, Any], ShardResult] = stage.work
        self.on_device = stage.on_device
        # A shard that cannot be cut would only be ended again and again.
        self.seconds = seconds if isinstance(shard, Divisible) else None
        self.refused = refused
        self.token = uuid4().hex

    def do(self) -> ShardResult:
        """Process the shard; its rows go to the warehouse, and only a small result comes back.

        Where the device of a Dask worker died, or the time is over, the worker's process ends. Its
        nanny starts another, and the scheduler gives the shard to any worker, a few times at most.
        Without a nanny, `AcceleratorFailure` is raised for a device, and a shard takes as long as it
        takes.
        """
        try:
            with (
                _within(self.seconds, self.stage),
                within_memory(_memory_of_a_thread()),
                refusing_photos(self.refused) if self.refused else nullcontext(),
            ):
                begun, worked = time.perf_counter(), time.process_time()
                with hearing() as written, counting() as costs:
                    result = self.work(self.job, self.shard)
                return replace(
                    result,
                    written=tuple(written),
                    worker_seconds=time.perf_counter() - begun,
                    processor_seconds=time.process_time() - worked,
                    parts=costs.seconds,
                )
        except Exception as error:
            if isinstance(error, AcceleratorFailure) or device_failed(error):
                why = f"a shard of {self.stage} is tried elsewhere, since the device failed: {error}"
                if _watched():
                    get_worker().log_event(_TOPIC, self.token)
                    time.sleep(_TO_BE_HEARD)
                    end_process(why, _DEVICE_FAILED)
            if device_failed(error) and not isinstance(error, AcceleratorFailure):
                raise AcceleratorFailure(f"{self.stage}: {error}") from error
            raise


@contextmanager
def _within(seconds: float | None, stage: str) -> Iterator[None]:
    """End this worker if the block takes longer than `seconds` and a nanny will start another.

    The process must end, since a thread that hangs cannot be stopped.
    """
    if seconds is None or not _watched():
        yield
        return
    why = f"a shard of {stage} took longer than {seconds:.0f} s"
    timer = threading.Timer(seconds, end_process, (why, _TIMED_OUT))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _memory_of_a_thread() -> int | None:
    """Bytes at which this worker's nanny ends it, shared among its threads.

    None outside a worker, or where the worker has no limit.
    """
    try:
        worker = get_worker()
    except ValueError:
        return None
    limit = worker.memory_manager.memory_limit
    return limit // worker.state.nthreads if limit else None


def _watched() -> bool:
    """Whether this thread runs a task on a worker that a nanny watches."""
    try:
        return get_worker().nanny is not None
    except ValueError:
        return False


def end_process(why: str, status: int) -> None:
    """End this worker's process at once, without clean-up, which a dead device or disk would stop."""
    text = f"worker process {os.getpid()} ends; {why}"
    if is_json():
        say("worker_ended", text, "warning")
    else:
        print(f"pairx: {text}", file=sys.stderr, flush=True)
    os._exit(status)


def blames_no_device(error: BaseException, work: Work, client: Callable[[], Client]) -> bool:
    """Whether work failed because every worker that had it died, with no device to blame.

    `client` makes a client of the workers' scheduler, which has heard what they said before they ended.
    """
    if not isinstance(error, KilledWorker):
        return False
    return all(token != work.token for _, token in client().get_events(_TOPIC))
