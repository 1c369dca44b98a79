"""What errors of a device mean, and what settling switches.

The messages are those that torch 2.11 to 2.15 is known to give.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from pairx_engine.device import accelerator
from pairx_engine.device.accelerator import describe, device_failed, out_of_memory, settle

ADVICE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)
"""What torch adds to every error of the CUDA runtime."""
AcceleratorError = getattr(torch, "AcceleratorError", RuntimeError)

NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:126] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    RuntimeError("CUDA error: out of memory" + ADVICE),
    AcceleratorError("CUDA error: out of memory" + ADVICE),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA ran out of memory outside PyTorch's allocator. If this workload uses many dynamic shapes, …"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDNN_BACKEND_TENSOR_DESCRIPTOR: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
]  # fmt: skip
DEAD = [
    RuntimeError("CUDA error: an illegal memory access was encountered" + ADVICE),
    AcceleratorError("CUDA error: device-side assert triggered" + ADVICE),
    AcceleratorError("CUDA error: unspecified launch failure" + ADVICE),
    AcceleratorError("CUDA error: uncorrectable ECC error encountered" + ADVICE),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART"),
    RuntimeError("CUDA driver error: device not ready"),
    RuntimeError("HIP kernel reported: unspecified launch failure"),
]  # fmt: skip
NEITHER = [
    RuntimeError("shapes differ"),
    ValueError("a photo's title says CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmul`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input."),
    AcceleratorError("CUDA error: invalid configuration argument" + ADVICE),
    AcceleratorError("CUDA error: operation not permitted when stream is capturing" + ADVICE),
    KeyboardInterrupt(),
]  # fmt: skip


def raised_from(cause: BaseException) -> BaseException:
    try:
        try:
            raise cause
        except BaseException as error:
            raise ValueError("no figure") from error
    except ValueError as error:
        return error


def said(error: BaseException) -> str:
    return str(error)[:60] or type(error).__name__


@pytest.mark.parametrize("error", NO_MEMORY, ids=said)
def test_memory_that_ran_out_is_not_a_dead_device(error):
    for found in (error, raised_from(error)):
        assert out_of_memory(found)
        assert not device_failed(found)


@pytest.mark.parametrize("error", DEAD, ids=said)
def test_a_dead_device_is_not_memory_that_ran_out(error):
    for found in (error, raised_from(error)):
        assert device_failed(found)
        assert not out_of_memory(found)


@pytest.mark.parametrize("error", NEITHER, ids=said)
def test_other_errors_are_neither(error):
    for found in (error, raised_from(error)):
        assert not device_failed(found)
        assert not out_of_memory(found)


def test_a_device_that_died_of_what_followed_lost_memory_counts_as_dead():
    dead = RuntimeError("CUDA error: an illegal memory access was encountered")
    dead.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert device_failed(dead)
    assert not out_of_memory(dead)


def test_causes_in_a_circle_end():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert not device_failed(one)
    assert not out_of_memory(one)


def test_a_torch_without_a_class_for_it_is_understood_by_the_message(monkeypatch):
    monkeypatch.setattr(accelerator, "_ACCELERATOR_ERROR", None)
    assert device_failed(RuntimeError("CUDA error: misaligned address"))


SWITCHES = """
import os, torch, warnings
from pairx_engine.device.accelerator import settle
settle(torch.device({device!r}))
print([
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic,
    torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
    torch.utils.deterministic.fill_uninitialized_memory, os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
])
"""


def switches(device: str, **environment: str) -> str:
    """What settling leaves behind, in a process of its own: the switches hold for a whole process."""
    kept = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    return subprocess.run(
        [sys.executable, "-c", SWITCHES.format(device=device)],
        env=kept | environment, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


@pytest.mark.slow
def test_settling_a_gpu_forbids_what_makes_numbers_vary():
    wanted = [False, False, False, False, False, True, True, True, False]
    assert switches("cuda") == str([*wanted, ":4096:8"])
    assert switches("cuda", CUBLAS_WORKSPACE_CONFIG=":16:8") == str([*wanted, ":16:8"])


@pytest.mark.slow
def test_settling_a_cpu_leaves_its_kernels_alone():
    settle(torch.device("cpu"))
    assert not torch.are_deterministic_algorithms_enabled()
    assert switches("cpu") == str([False, False, False, False, False, True, False, False, True, None])


def test_a_device_is_described_by_what_its_numbers_may_depend_on(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.15.0+cu132")
    assert describe(torch.device("cpu")) == "cpu, torch 2.15.0"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert describe(torch.device("cuda")) == "NVIDIA H100 80GB HBM3, torch 2.15.0, CUDA 13.2"
