"""What a piece of work would launch on a GPU, counted by operation without computing anything.

An operation is one of ATen's that would start a kernel: no view, no empty allocation. Convolutions and
products count once, however many kernels the library takes for them, so the counts are lower bounds, good for
comparing two versions.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from tests.benchmarks.fake_gpu import FAKE, fake_gpu

LARGE = 1024
"""Elements of a map from which its layout matters."""
_aten = torch.ops.aten
_READ = _aten._local_scalar_dense.default
_PLACES_FOUND = _aten.nonzero.default
_CONVOLUTION = _aten.convolution.default
_COPIES = (_aten.clone.default, _aten._to_copy.default, _aten.copy_.default)
_NO_LAUNCH = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh"),
    *(
        "detach",
        "detach_",
        "alias",
        "_reshape_alias",
        "is_same_size",
        "set_",
        "resize_",
        "sym_size",
        "sym_stride",
    ),
}
_WRITES_ONLY = {"copy_", "fill_", "zero_"}
Answer = Callable[[str], bool | int | float]


class ConvShape(NamedTuple):
    """What a library chooses a convolution's kernel by."""

    values: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool
    dtype: torch.dtype
    layout: str


@dataclass
class Tally:
    """One kind of operation: its launches, FLOP, and bytes read and written."""

    launches: int = 0
    flop: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Counts:
    """What a piece of work costs.

    `flop` are those of convolutions and products, two per multiplication and addition. `bytes` are operands
    read and results written, each once per launch. `peak` are the most bytes alive at once that the work
    allocated. `kept` are those still alive after the work, its result among them. `places` are the engine's
    lines that waited for the GPU or converted.

    `conversions` says how often maps of two layouts meet, by kind: `mixed` in one operation; `copied` from
    one into the other; `operand` of a convolution, in another layout than its result. The library reorders
    such an operand by a launch of its own, which is not among `launches`.
    """

    launches: int
    synchronisations: int
    conversions: Mapping[str, int]
    shapes: frozenset[ConvShape]
    flop: int
    bytes: int
    peak: int
    kept: int
    ops: Mapping[str, Tally]
    places: Mapping[str, int]


def nothing_unusual(origin: str) -> bool | int | float:
    """The answer to a value that the work waits for: `all` and `isfinite` are true, all else is false."""
    return origin in ("all", "isfinite")


def counted(work: Callable[[], Any], answer: Answer = nothing_unusual) -> Counts:
    """Counts of the work, which is run on fake tensors.

    Where it waits for a value, `answer` gives one by the name of the operation that would have computed it. A
    search for places that are not zero finds all places. What the work makes on first use is counted in its
    first run: run it once before.
    """
    with fake_gpu(), LaunchCounter(answer) as counter:
        result = work()
        kept = counter.alive
        del result
    return Counts(
        launches=sum(tally.launches for tally in counter.ops.values()),
        synchronisations=counter.synchronisations,
        conversions=dict(counter.conversions),
        shapes=frozenset(counter.shapes),
        flop=sum(tally.flop for tally in counter.ops.values()),
        bytes=sum(tally.bytes for tally in counter.ops.values()),
        peak=counter.peak,
        kept=kept,
        ops=dict(counter.ops),
        places=dict(counter.places),
    )


@dataclass(eq=False)
class LaunchCounter(TorchDispatchMode):
    """Counts everything that touches the fake GPU within its context."""

    answer: Answer
    synchronisations: int = 0
    alive: int = 0
    peak: int = 0
    ops: dict[str, Tally] = field(default_factory=dict)
    shapes: set[ConvShape] = field(default_factory=set)
    conversions: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    _held: dict[int, Any] = field(default_factory=dict)
    _origins: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count it."""
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        given = _tensors((args, kwargs))
        if func is _READ and isinstance(args[0], FakeTensor):
            return self._read(args[0])
        fake = [isinstance(tensor, FakeTensor) for tensor in given]
        if not any(fake) and torch.device(kwargs.get("device") or "cpu").type != "cuda":
            # The host's own work, such as a list of cells.
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if not all(fake):
            args, kwargs = tree_map_only(Tensor, _as_fake, (args, kwargs))
            given = _tensors((args, kwargs))
        if func is _PLACES_FOUND:
            self._wait()
            return args[0].new_empty((args[0].numel(), args[0].ndim), dtype=torch.long)
        result = func(*args, **kwargs)
        if func is _CONVOLUTION:
            result = _laid_out_as_by_cudnn(result, args)
        self._count(func, args, kwargs, given, result)
        return result

    def _count(self, func: Any, args: Any, kwargs: Any, given: list[Tensor], result: Any) -> None:
        made, name = _tensors(result), func.overloadpacket.__name__
        if made:
            before = [self._origins[key] for key in map(_storage, given) if key in self._origins]
            self._origins[_storage(made[0])] = before[0] if before and name in _CARRYING else name
        devices = {tensor.device.type for tensor in (*given, *made)}
        if "cuda" not in devices:
            return
        self._allocate(made, {_storage(tensor) for tensor in given})
        if func.is_view or name in _NO_LAUNCH:
            return
        if name in ("_to_copy", "copy_") and "cpu" in devices:
            # Both ways: a copy out of ordinary memory of the host is waited for as well.
            if not kwargs.get("non_blocking"):
                self._wait()
            return
        tally = self.ops.setdefault(name, Tally())
        tally.launches += 1
        tally.bytes += sum(map(_bytes, _read_by(name, args, kwargs))) + sum(map(_bytes, made))
        if func.overloadpacket in flop_registry:
            tally.flop += int(flop_registry[func.overloadpacket](*args, **kwargs, out_val=result))
        if func is _CONVOLUTION:
            self._convolution(args, result)
        else:
            self._conversion("copied" if func in _COPIES else "mixed", [*given, *made])

    def _convolution(self, args: Any, result: Tensor) -> None:
        values, weight, _, stride, padding, dilation, transposed, _, groups = args
        layout = layout_of(result)
        self.shapes.add(
            ConvShape(
                *map(tuple, (values.shape, weight.shape, stride, padding, dilation)),
                groups,
                transposed,
                values.dtype,
                layout or "either",
            )
        )
        for operand in (values, weight):
            self._conversion("operand", [operand, result])

    def _conversion(self, kind: str, tensors: Iterable[Tensor]) -> None:
        layouts = {layout_of(tensor) for tensor in tensors if tensor.numel() >= LARGE}
        if len(layouts - {None}) > 1:
            self.conversions[kind] += 1
            self.places[f"{_place()} {kind}"] += 1

    def _read(self, tensor: Tensor) -> bool | int | float:
        if tensor.is_cuda:
            self._wait()
        answer = self.answer(self._origins.get(_storage(tensor), ""))
        return bool(answer) if tensor.dtype == torch.bool else answer

    def _wait(self) -> None:
        self.synchronisations += 1
        self.places[f"{_place()} waits"] += 1

    def _allocate(self, made: Iterable[Tensor], known: set[int]) -> None:
        for tensor in made:
            storage, key = tensor.untyped_storage(), _storage(tensor)
            if key in known or key in self._held or not tensor.is_cuda:
                continue
            size = storage.nbytes()
            self._held[key] = ref(storage, lambda _, key=key, size=size: self._free(key, size))
            self.alive += size
            self.peak = max(self.peak, self.alive)

    def _free(self, key: int, size: int) -> None:
        self.alive -= size
        self._held.pop(key, None)
        self._origins.pop(key, None)


_CARRYING = {"stack", "cat", "view", "_to_copy", "select", "unbind", "reshape", "detach", "expand", "clone"}
"""A value of their result is answered as one of what they were given."""


def layout_of(tensor: Tensor) -> str | None:
    """Where the channels of maps (..., C, H, W) lie: `last`, `first` or `other`.

    None where there is only one channel or one cell, and where the tensor is no map or is expanded.
    """
    if tensor.ndim < 4:
        return None
    (channels, height, width), (step, down, right) = tensor.shape[-3:], tensor.stride()[-3:]
    if channels == 1 or height * width == 1 or 0 in (step, right if width > 1 else down):
        return None
    if step == 1:
        return "last"
    return "first" if (right if width > 1 else down) == 1 else "other"


def _laid_out_as_by_cudnn(result: Tensor, args: Any) -> Tensor:
    """The result in the layout that cuDNN gives it.

    Without a GPU, fake tensors guess another for short formats.
    """
    last = any(suggest_memory_format(operand) == torch.channels_last for operand in args[:2])
    wanted = torch.channels_last if last and result.dtype != torch.float64 else torch.contiguous_format
    if result.ndim != 4 or result.is_contiguous(memory_format=wanted):
        return result
    return torch.empty_like(result, memory_format=wanted)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _as_fake(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, FakeTensor) else FAKE.from_tensor(tensor)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _read_by(name: str, args: Any, kwargs: Any) -> list[Tensor]:
    inputs = args[1:] if name in _WRITES_ONLY else args
    others = {key: value for key, value in kwargs.items() if key != "out"}
    return _tensors((inputs, others))


def _bytes(tensor: Tensor) -> int:
    """Bytes of the distinct elements: what is expanded is read once."""
    elements = 1
    for size, step in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if step else 1
    return elements * tensor.element_size()


def _place() -> str:
    """The engine's line that is at work."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("pairx_engine"):
            return f"{module.removeprefix('pairx_engine.')}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
