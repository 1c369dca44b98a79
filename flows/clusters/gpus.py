"""The cluster on the GPUs of this machine: one worker for each, or several that share one."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from flows.clusters.kinds import (
    GPU,
    LOOPBACK,
    VISIBLE,
    Cluster,
    Device,
    memory_limit,
    sharing_the_cores,
    stopped_in_the_end,
)
from schemas.errors import SettingsError
from schemas.settings import PAIRS_PER_SHARD_ON_GPU, Settings

_GPU_BYTES_PER_WORKER = 6 << 30
"""Memory of a GPU that a worker may want, in bytes.

A CUDA context takes 0.5 GB and a model with the operands of its rules 0.8 GB. A pair with its pixel maps, or
four photos with ten partners each, holds 2.4 GB at once. The rest is work space of cuDNN. Counted for
MiewID's shape at 440 px by `tests.benchmarks.launches`; not measured on a GPU.
"""


class Gpus:
    """Workers on the GPUs: by dask-cuda where each has its own, else plain workers that share."""

    words: tuple[str, ...] = ("cuda",)
    usage = "cuda (GPUs)"
    pairs_per_shard = PAIRS_PER_SHARD_ON_GPU
    devices: tuple[Device, ...] = ("cuda",)
    foreign = False

    def fits(self) -> bool:
        """Whether torch sees a GPU."""
        return bool(_gpus())

    def workers(self) -> int:
        """One per GPU."""
        return max(1, len(_gpus()))

    def require(self, settings: Settings) -> None:
        """Raise `SettingsError` without a GPU, and for more workers on one than its memory holds."""
        if not (names := _gpus()):
            raise SettingsError(
                "cluster 'cuda' needs a CUDA device and torch sees none", "use --cluster local"
            )
        _check_memory(names, settings.workers or self.workers())

    def start(self, wanted: str, settings: Settings) -> AbstractContextManager[Cluster]:
        """Workers that each see one GPU."""
        names, count = _gpus(), settings.workers or self.workers()
        shared = count > len(names) or not _has_dask_cuda()
        cluster = _sharing_gpus(names, count) if shared else _by_dask_cuda(count)
        return stopped_in_the_end(cluster, wanted, "cuda")


def _by_dask_cuda(count: int) -> Any:
    from dask_cuda import LocalCUDACluster

    with sharing_the_cores(count):
        return LocalCUDACluster(
            n_workers=count,
            threads_per_worker=1,
            host=LOOPBACK,
            dashboard_address=f"{LOOPBACK}:0",
            resources={GPU: 1},
        )


def _sharing_gpus(names: Sequence[str], count: int) -> Any:
    """Plain workers that see one GPU each; several may share one, 6 GB of its memory each."""
    from distributed import Nanny, Scheduler, SpecCluster

    options = {
        "nthreads": 1,
        "host": LOOPBACK,
        "silence_logs": logging.ERROR,
        "memory_limit": memory_limit(count),
        "resources": {GPU: 1},
    }
    # Nannies live in this process and start side by side. What differs between workers is therefore set in
    # the worker itself, before anything there asks for a device.
    workers = {
        i: {"cls": Nanny, "options": options | {"env": {VISIBLE: names[i % len(names)]}}}
        for i in range(count)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": LOOPBACK, "port": 0, "dashboard": True, "dashboard_address": f"{LOOPBACK}:0"},
    }
    with sharing_the_cores(count):
        return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR)


def _check_memory(names: Sequence[str], count: int) -> None:
    """Raise `SettingsError` for more workers on a GPU than its memory holds; one alone is allowed."""
    most = -(-count // len(names))
    if most == 1:
        return
    memory = min(_gpu_memory(i) for i in range(len(names)))
    fit = max(1, memory // _GPU_BYTES_PER_WORKER)
    if most > fit:
        gpus = "1 GPU" if len(names) == 1 else f"{len(names)} GPUs"
        raise SettingsError(
            f"{count} workers on {gpus} make {most} on one, and each may want {_GPU_BYTES_PER_WORKER >> 30} GB of "
            f"its {memory / (1 << 30):.0f} GB",
            f"use --workers {fit * len(names)} at most",
        )


def _gpus() -> list[str]:
    """The GPUs that torch sees, each as CUDA_VISIBLE_DEVICES names it: by its index or UUID."""
    if _no_driver():
        return []
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return (given or [str(i) for i in range(count)])[:count]


def _no_driver() -> bool:
    """Whether it is plain, without torch, that there is no GPU; its import takes longer than a night without news."""
    if "torch" in sys.modules or sys.platform != "linux":
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


def _gpu_memory(index: int) -> int:
    """Bytes of memory of the GPU with torch's number `index`."""
    import torch

    return int(torch.cuda.get_device_properties(index).total_memory)


def _has_dask_cuda() -> bool:
    from importlib.util import find_spec

    return find_spec("dask_cuda") is not None
