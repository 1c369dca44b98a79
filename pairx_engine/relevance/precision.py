"""Number formats of the pull; the forward pass always runs in the network's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from pairx_engine.errors import EngineError


@dataclass(frozen=True)
class Precision:
    """How ratio terms are kept and relevances pulled.

    `operands` is the format of the operands of convolutions and matrix products, `relevance` that of
    everything between them; None means the network's own. `rescale` divides each start by its largest value
    before a product and multiplies it back afterwards, since relevances span more than the format's range.
    `tf32` lets NVIDIA GPUs round operands to ten bits of mantissa; elsewhere it changes nothing.

    `negligible` is the share of a single cell's relevance, by magnitude, that may be left out on the way to
    the pixels. It is left out where relevance is thinnest, at the edges of the cell's receptive field. In the
    short formats it is one step of the format at 1. It is looked for where branches meet, on a CPU, and for
    one cell at a time.
    """

    name: str
    operands: torch.dtype | None = None
    relevance: torch.dtype | None = None
    rescale: bool = False
    tf32: bool = False
    negligible: float = 0.0


PRECISIONS: dict[str, Precision] = {
    "float32": Precision("float32"),
    "tf32": Precision("tf32", tf32=True),
    "bfloat16": Precision("bfloat16", torch.bfloat16, torch.bfloat16, negligible=2**-7),
    "float16": Precision("float16", torch.float16, rescale=True, negligible=2**-10),
}
"""`float32` means the network's own format: a double-precision network is pulled in double precision."""
FULL = PRECISIONS["float32"]
"""The format of forward passes, whatever the pull's format is."""


def precision_named(name: str) -> Precision:
    """The precision of that name; raises `EngineError` that lists the known names."""
    if name not in PRECISIONS:
        raise EngineError(f"unknown precision {name!r}; choose one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


_SWITCHES = threading.RLock()


@contextmanager
def tensor_cores(precision: Precision) -> Iterator[None]:
    """Allow or forbid TF32 within the context, as the precision says.

    torch's process-wide switches are restored afterwards. By default torch allows TF32 for convolutions, and
    lets sums of 16-bit products be rounded to 16 bits on the way. Here these sums are never rounded so, in
    any precision. Without a GPU nothing is changed.
    """
    if not torch.cuda.is_available():
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    wanted: tuple[tuple[Any, str, bool], ...] = (
        (products, "allow_tf32", precision.tf32),
        (convolutions, "allow_tf32", precision.tf32),
        (products, "allow_bf16_reduced_precision_reduction", False),
        (products, "allow_fp16_reduced_precision_reduction", False),
    )
    with _SWITCHES:
        before = [getattr(where, name) for where, name, _ in wanted]
        for where, name, value in wanted:
            setattr(where, name, value)
        try:
            yield
        finally:
            for (where, name, _), value in zip(wanted, before, strict=True):
                setattr(where, name, value)
