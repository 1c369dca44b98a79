"""Loaded by the worker processes of disturbed runs, as Dask's `preload` allows.

Photos end a worker, or memory runs out.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from importlib import import_module
from typing import Any

POISON = "PAIRX_TEST_POISON"
"""This variable holds a photo's SHA-256, the module that must not decode it, and what happens then."""
DEEDS = ("crash", "kill", "memory")
_STEP = 64 << 20


def dask_setup(worker: Any) -> None:
    """Called in each worker process when it starts, also in those that replace dead ones."""
    signal.signal(signal.SIGUSR1, lambda number, frame: threading.Thread(target=want_memory).start())
    if poison := os.environ.get(POISON):
        _poison(*poison.split())


def want_memory() -> None:
    """Take memory until the process is ended for it."""
    taken = []
    while True:
        taken.append(b"x" * _STEP)


def _poison(photo: str, where: str, deed: str) -> None:
    module = import_module(where)
    decode = module.decode_photo

    def decode_or_die(data: bytes, *rest: Any) -> Any:
        if hashlib.sha256(data).hexdigest() != photo:
            return decode(data, *rest)
        if deed == "memory":
            want_memory()
        os.kill(os.getpid(), signal.SIGSEGV if deed == "crash" else signal.SIGKILL)

    module.decode_photo = decode_or_die  # type: ignore[attr-defined]
