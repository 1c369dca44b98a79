"""Ratios moved into the activations above them, which saves every start a pass over the map.

Between two convolutions with only passing steps in between, relevance is multiplied by the upper one's
activations and then by the lower one's ratio. Both are known before any start: R_in q = (A q) * W^T s. The
ratio itself is dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from pairx_engine.relevance.rules.base import Pass, Recording
from pairx_engine.relevance.rules.convolution import ConvRecording


def folded(
    recordings: Mapping[int, Recording], inputs: Mapping[int, tuple[int, ...]], fixed: Collection[int]
) -> dict[int, Recording]:
    """Recordings by the value that they give, with ratios folded into the recordings above.

    A ratio is folded where a value has one reader and is not in `fixed`. `inputs` are the values that each
    recording pulls to. `fixed` are the values where relevance is handed in or out.
    """
    readers: dict[int, list[int]] = {}
    for index, values in inputs.items():
        for value in values:
            readers.setdefault(value, []).append(index)
    made = dict(recordings)
    for index, lower in recordings.items():
        upper = _next_convolution(index, recordings, readers, fixed)
        # Exact types, since a subclass may use its ratio otherwise.
        if type(lower) is ConvRecording and lower.foldable and lower.ratio is not None and upper is not None:
            taking, emptied = made[upper], made[index]
            assert isinstance(taking, ConvRecording)
            assert isinstance(emptied, ConvRecording)
            made[upper] = taking.scaled(lower.ratio)
            made[index] = replace(emptied, ratio=None)
    return made


def _next_convolution(
    value: int,
    recordings: Mapping[int, Recording],
    readers: Mapping[int, list[int]],
    fixed: Collection[int],
) -> int | None:
    """The convolution that is a value's only reader, through steps that hand relevance on as it is."""
    while value not in fixed and len(readers.get(value, ())) == 1:
        (value,) = readers[value]
        if type(recordings[value]) is ConvRecording:
            return value
        if type(recordings[value]) is not Pass:
            return None
    return None
