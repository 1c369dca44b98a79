"""What cells are matched by: a layer's own output, or the keys of a block's attention.

A layer's name says it: ``backbone.blocks.8`` or ``backbone.blocks.8:keys``. Keys are what a block's other
tokens look for, and describe parts of a body well (Amir et al., 2022). Relevance is that of the block's
output in either case.
"""

from __future__ import annotations

from torch import Tensor

from pairx_engine.errors import EngineError
from pairx_engine.relevance.reading import FUSED_ATTENTION, Reading
from pairx_engine.relevance.trace import Value

KEYS = "keys"


def path_of(layer: str) -> str:
    """The dotted module path in a layer's name; raises `EngineError` for unknown descriptors."""
    path, _, what = layer.partition(":")
    if what not in ("", KEYS) or layer.endswith(":"):
        raise EngineError(
            f"layer {layer!r} asks for descriptors {what!r}; there are {KEYS}, as in {path}:{KEYS}"
        )
    return path


def has_keys(layer: str) -> bool:
    """Whether a layer's name asks for keys as descriptors."""
    return path_of(layer) != layer


def entry_of(layer: str) -> str:
    """The name under which a forward pass gives a layer's keys, beside its output."""
    return f"descriptors of {layer}"


def keys_at(reading: Reading, layer: str) -> int:
    """The value of the keys (N, heads, T, d) in the block that a layer names.

    Raises `EngineError` where the block has no attention of its own, or one that torch does not compute as a
    whole, as the windows of Swin.
    """
    path, trace = path_of(layer), reading.trace
    (end,) = trace.outputs[path]
    inside = [
        value for name, values in trace.outputs.items() if name.startswith(f"{path}.") for value in values
    ]
    found = [
        step
        for step in trace.steps
        if step.index in reading.attending and min(inside, default=end) < step.index < end
    ]
    if len(found) != 1 or reading.at(found[0]).name != FUSED_ATTENTION:
        raise EngineError(
            f"layer {path} has no keys to match by: it is no block with one attention over all tokens; "
            f"choose {path} alone, or a block of a vision transformer"
        )
    key = found[0].args[1] if len(found[0].args) > 1 else found[0].kwargs["key"]
    assert isinstance(key, Value)
    return key.index


def as_tokens(keys: Tensor) -> Tensor:
    """Keys (N, heads, T, d) as tokens (N, T, heads d)."""
    return keys.transpose(1, 2).flatten(2)
