"""The device of a process: settled once so that its numbers repeat, and what its errors mean.

An accelerator fails in two ways. Either memory runs out, and a smaller group will fit. Or a kernel crashes,
and the process can no longer use the device: only a new process helps. torch distinguishes the two by class
for some errors and by message for others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import torch

_MEMORY = re.compile(
    r"CUDA\b.*\bout of memory"
    r"|can't allocate memory"  # the CPU's allocator has no class of its own for it
    r"|\b(?:CUDNN|CUBLAS|CUSOLVER)_STATUS_\w*ALLOC(?:ATION)?_FAILED"
    # What torch says when no kernel's workspace could be had. Had that another cause, halving ends at a
    # single item with the same words.
    r"|unable to find an engine to execute this computation"
)
_DEAD = re.compile(
    r"CUDA (?:driver )?error:"
    r"|\b(?:CUDNN|CUBLAS|CUSOLVER)_STATUS_EXECUTION_FAILED"
    r"|device-side assert|unspecified launch failure|illegal memory access"
)
_REFUSED = re.compile(
    r"CUDA (?:driver )?error: (?:invalid argument|invalid configuration argument|operation not supported)"
    r"|\b(?:CUDNN|CUBLAS|CUSOLVER)_STATUS_(?:NOT_SUPPORTED|INVALID_VALUE|BAD_PARAM|ARCH_MISMATCH)"
    r"|stream is capturing|during (?:a )?capture|cudaErrorStreamCapture"
)
"""One call was refused and the device goes on, so the error belongs to the caller."""
_ACCELERATOR_ERROR: type[BaseException] | None = getattr(torch, "AcceleratorError", None)
"""Class of the errors that the CUDA runtime reports; absent before torch 2.8."""


def settle(device: torch.device) -> None:
    """Make the numbers of this process repeat from run to run on one kind of device.

    Call it before any work on the device. Single precision is single precision (no TF32), sums of 16-bit
    products are kept in 32 bits, and kernels are chosen by shape alone, never by a timing. On a CUDA device
    torch also takes deterministic kernels wherever it has them and warns where it has none. Nothing here
    changes what a CPU does.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device.type == "cuda":
        # cuBLAS reads it when its first handle is made; its results repeat with a workspace of fixed size
        # only.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Otherwise each new tensor is filled with NaN first, a kernel per allocation.
        torch._C._set_deterministic_fill_uninitialized_memory(False)


def describe(device: torch.device) -> str:
    """The kind of a device: ``cpu, torch 2.15.0`` or ``NVIDIA H100 80GB HBM3, torch 2.15.0, CUDA 13.2``.

    On devices of one kind numbers are equal bit for bit. Between kinds their last digits differ, since the
    kernels differ.
    """
    version = torch.__version__.partition("+")[0]
    if device.type != "cuda":
        return f"{device.type}, torch {version}"
    return f"{torch.cuda.get_device_name(device)}, torch {version}, CUDA {torch.version.cuda}"


def out_of_memory(error: BaseException) -> bool:
    """Whether the error, or any of its causes, says that the device or the machine ran out of memory."""
    return not device_failed(error) and any(_no_memory(link) for link in _chain(error))


def device_failed(error: BaseException) -> bool:
    """Whether the error, or any of its causes, left this process's accelerator unusable.

    Running out of memory does not, nor does a single call that was refused for its arguments.
    """
    return any(_dead(link) for link in _chain(error))


def _no_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


def _dead(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError) or _no_memory(error) or _REFUSED.search(str(error)):
        return False
    known = _ACCELERATOR_ERROR is not None and isinstance(error, _ACCELERATOR_ERROR)
    return known or _DEAD.search(str(error)) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, each once: a chain may lead back to itself."""
    passed: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in passed:
        passed.add(id(link))
        yield link
        link = link.__cause__
