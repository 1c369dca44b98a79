"""Freed memory kept for reuse: activations of one pass take the place of those of the pass before."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt, from malloc.h."""
_MOST = (2 << 30) - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep up to 2 GB of freed blocks instead of returning their pages.

    By default every large tensor is mapped anew and faults in page by page. That takes a third of a recorded
    forward pass and doubles the time of small networks. The setting holds for the whole process, whose memory
    then stays at its peak. Returns false where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all(mallopt(parameter, _MOST) == 1 for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
