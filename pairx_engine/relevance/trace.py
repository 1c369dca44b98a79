"""A network's forward pass as a list of steps, read once with torch.fx from a shadow of the network.

The shadow is a copy of the module tree that shares every parameter and buffer with the original, in
evaluation mode and without in-place activations. The original is never hooked, patched or switched. An
in-place operation changes a value that others read under its old name. So all later readers of its operand
read its result instead.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from timm.models._features_fx import get_notrace_functions, get_notrace_modules
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, fx, nn

CHIP = 0
"""The chip's place among the values of a forward pass."""


class Untraceable(Exception):
    """The network cannot be read into known steps; the message says why."""


@dataclass(frozen=True)
class Value:
    """Stands for an earlier value among a step's arguments."""

    index: int


@dataclass
class Step:
    """One operation: value `index` is `call` of earlier values and constants.

    `reads` lists the earlier values that it reads, each once, in the order of the arguments.
    """

    index: int
    name: str
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    reads: tuple[int, ...]

    @property
    def module(self) -> nn.Module | None:
        """The module behind the step, if there is one."""
        return self.call if isinstance(self.call, nn.Module) else None

    def run(self, values: Mapping[int, Any]) -> Any:
        """The step's value, computed from earlier values by index."""
        args, kwargs = self.given(values)
        return self.call(*args, **kwargs)

    def given(self, values: Mapping[int, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The step's arguments by place and by name, with earlier values in them."""
        placed: Any = lambda a: values[a.index] if isinstance(a, Value) else a  # noqa: E731
        args: Any = fx.node.map_aggregate(self.args, placed)
        kwargs: Any = fx.node.map_aggregate(dict(self.kwargs), placed)
        return args, kwargs


@dataclass(frozen=True)
class Trace:
    """A network's steps in order, and what is needed to run them.

    `constants` are those that the steps read, `names` says which of them are which parameter or buffer,
    `outputs` which values are which module's outputs, and `result` is the output of the network.
    """

    shadow: nn.Module
    steps: tuple[Step, ...]
    constants: Mapping[int, Any]
    names: Mapping[int, str]
    outputs: Mapping[str, tuple[int, ...]]
    result: int

    def readers(self) -> dict[int, list[Step]]:
        """Steps that read each value."""
        found: dict[int, list[Step]] = {}
        for step in self.steps:
            for value in step.reads:
                found.setdefault(value, []).append(step)
        return found

    def depending_on(self, values: set[int], stops: Callable[[Step], bool] = lambda step: False) -> set[int]:
        """These values and all values that are computed from them, but through steps that are `stops`."""
        reached = set(values)
        for step in self.steps:
            if any(value in reached for value in step.reads) and not stops(step):
                reached.add(step.index)
        return reached

    def leading_to(self, value: int, known: set[int]) -> set[int]:
        """Values from which `value` is computed, itself included; it stops at the `known` values."""
        by_index = {step.index: step for step in self.steps}
        reached, open_ = {value}, [value]
        while open_:
            index = open_.pop()
            if index in known or index not in by_index:
                continue
            for read in by_index[index].reads:
                if read not in reached:
                    reached.add(read)
                    open_.append(read)
        return reached


def trace(network: nn.Module, whole: tuple[type[nn.Module], ...]) -> Trace:
    """Read a network, modules of the types `whole` as one step each.

    Raises `Untraceable` where its control flow depends on values or a module is used in unknown ways.
    """
    try:
        shadow = shadow_of(network)
        tracer = _Tracer(whole)
        graph = tracer.trace(shadow, concrete_args=_defaults(shadow))
    except Exception as error:  # reading a network runs its code with stand-ins, which may fail in any way
        raise Untraceable(f"its forward pass cannot be read: {str(error).splitlines()[0]}") from error
    _turn_readers_of_overwritten_values(graph, shadow)
    _take_parts_one_by_one(graph)
    return _steps(graph, tracer, shadow)


def shadow_of(network: nn.Module) -> nn.Module:
    """A copy of the module tree with the same parameters and buffers.

    It is in evaluation mode, and nothing works in place.
    """
    shared = {id(t): t for t in (*network.parameters(), *network.buffers())}
    shadow = copy.deepcopy(network, dict(shared)).eval()
    within = {id(inner) for m in shadow.modules() if is_batch_norm_act(m) for inner in m.modules()}
    for module in shadow.modules():
        # A batch norm's own activation may overwrite the batch norm's output, which no other step reads.
        if getattr(module, "inplace", False) is True and id(module) not in within:
            module._pairx_inplace = True  # type: ignore[assignment]
            module.inplace = False  # type: ignore[assignment]
        for kind, method in _BY_SHAPE:
            if isinstance(module, kind) and any(module.shift_size):
                setattr(module, method, ByShape(getattr(module, method)))
    return shadow


_BY_SHAPE = ((SwinTransformerBlock, "get_attn_mask"), (SwinTransformerV2Block, "get_attn_mask"))
"""Methods that make something of a tensor's shape, in ways that cannot be read: one step each."""


@dataclass(frozen=True)
class ByShape:
    """A call whose result depends on its arguments' shapes alone."""

    call: Callable[..., Any]

    __name__ = "by_shape"

    def __call__(self, *args: Any) -> Any:
        """The result, or what stands for it while a network is read."""
        for given in args:
            if isinstance(given, fx.Proxy):
                return given.tracer.create_proxy("call_function", self, args, {})
        return self.call(*args)


class _Tracer(fx.Tracer):
    """Keeps some modules, torch's own and timm's untraceable ones whole, and notes each module's output."""

    def __init__(self, whole: tuple[type[nn.Module], ...]) -> None:
        # timm's own list of functions that look at sizes.
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self.outputs: dict[str, list[fx.Node]] = {}
        self._whole = (*whole, *get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether the module is one step."""
        return isinstance(m, self._whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Trace the module, noting the node of its output."""
        output = super().call_module(m, forward, args, kwargs)
        if isinstance(output, fx.Proxy):
            self.outputs.setdefault(self.path_of_module(m), []).append(output.node)
        return output


def _defaults(network: nn.Module) -> dict[str, Any]:
    """Defaults of all arguments of forward except the first, which make them constants."""
    _, *others = inspect.signature(network.forward).parameters.values()
    return {
        p.name: p.default
        for p in others
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.default is not p.empty
    }


def _overwrites(node: fx.Node, shadow: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(shadow.get_submodule(str(node.target)), "_pairx_inplace", False))
    if node.op == "call_function":
        return node.target in _OUT_OF_PLACE or node.kwargs.get("inplace") is True
    return node.op == "call_method" and str(node.target).endswith("_") and not str(node.target).endswith("__")


_OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
    operator.itruediv: operator.truediv,
}


def _turn_readers_of_overwritten_values(graph: fx.Graph, shadow: nn.Module) -> None:
    seen: set[fx.Node] = set()
    for node in graph.nodes:
        seen.add(node)
        if not _overwrites(node, shadow):
            continue
        operand = node.args[0]
        for reader in [user for user in operand.users if user not in seen]:
            reader.replace_input_with(operand, node)
        if node.op == "call_function":
            node.target = _OUT_OF_PLACE.get(node.target, node.target)
            node.kwargs = {k: v for k, v in node.kwargs.items() if k != "inplace"}
        elif node.op == "call_method":
            node.target = str(node.target).removesuffix("_")


SEVERAL = ("chunk", "split", "split_with_sizes", "tensor_split", "unbind")
"""Functions and methods that give several tensors."""


def _take_parts_one_by_one(graph: fx.Graph) -> None:
    """Let each part of a tensor that is split be a step of its own, so that every step gives one tensor.

    Parts are left as they are where something else than a part by its number is read.
    """
    for node in list(graph.nodes):
        users = list(node.users)
        if node.op not in ("call_function", "call_method") or _name(node) not in SEVERAL:
            continue
        if not all(user.target is operator.getitem and isinstance(user.args[1], int) for user in users):
            continue
        called = getattr(Tensor, node.target) if node.op == "call_method" else node.target
        for user in users:
            part = Part(called, user.args[1])
            with graph.inserting_before(user):
                user.replace_all_uses_with(graph.call_function(part, node.args, node.kwargs))
            graph.erase_node(user)
        graph.erase_node(node)


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


@dataclass(frozen=True)
class Part:
    """One of the tensors into which `split` takes a tensor apart."""

    split: Callable[..., Sequence[Tensor]]
    number: int

    __name__ = "part"

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The part."""
        return self.split(*args, **kwargs)[self.number]


@dataclass
class _Reader:
    """Numbers the nodes of a graph and turns them into steps."""

    shadow: nn.Module
    places: dict[fx.Node, int] = field(default_factory=dict)
    constants: dict[int, Any] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def read(self, node: fx.Node) -> None:
        index = self.places[node] = len(self.places)
        if node.op == "get_attr":
            self.constants[index] = operator.attrgetter(str(node.target))(self.shadow)
            self.names[index] = str(node.target)
            return
        if node.op not in ("call_module", "call_function", "call_method"):
            return
        call: Any = node.target
        if node.op == "call_module":
            call = self.shadow.get_submodule(str(node.target))
        elif node.op == "call_method":
            # A view of the network's own layout may be impossible in ours, channels last.
            call = getattr(Tensor, "reshape" if node.target == "view" else str(node.target))
        placed: Any = lambda n: Value(self.places[n])  # noqa: E731
        args: Any = fx.node.map_arg(node.args, placed)
        kwargs: Any = fx.node.map_arg(node.kwargs, placed)
        reads = tuple(dict.fromkeys(self.places[n] for n in node.all_input_nodes))
        self.steps.append(Step(index, f"{node.name}", call, args, kwargs, reads))


def _steps(graph: fx.Graph, tracer: _Tracer, shadow: nn.Module) -> Trace:
    (end,) = (node for node in graph.nodes if node.op == "output")
    if not isinstance(end.args[0], fx.Node):
        raise Untraceable("its forward pass does not turn one tensor into one tensor")
    reader = _Reader(shadow)
    # Other steps may stand between the arguments of the forward pass.
    defaults = iter([None, *_defaults(shadow).values()])
    for node in graph.nodes:
        if node.op != "output":
            reader.read(node)
        if node.op == "placeholder":
            reader.constants[reader.places[node]] = next(defaults)
    del reader.constants[CHIP]
    outputs = {path: tuple(reader.places[n] for n in nodes) for path, nodes in tracer.outputs.items()}
    result = reader.places[end.args[0]]
    return Trace(shadow, tuple(reader.steps), reader.constants, reader.names, outputs, result)


def is_batch_norm_act(module: nn.Module | None) -> bool:
    """Whether a module is timm's batch norm with an activation in it."""
    return isinstance(module, BatchNormAct2d)


def activation_within(module: nn.Module) -> nn.Module:
    """The activation of a batch norm that holds one, else the module itself."""
    inner = getattr(module, "act", None)
    return inner if is_batch_norm_act(module) and isinstance(inner, nn.Module) else module


def no_grad_needed(tensor: object) -> bool:
    """Whether a value cannot carry relevance: it is no tensor, or a tensor of whole numbers."""
    return not (isinstance(tensor, Tensor) and torch.is_floating_point(tensor))
