"""The engine's branches for a GPU without one, on fake `cuda` tensors: shapes and strides, no numbers.

PyTorch's fake tensors do not offer all that the engine does with real ones. What is missing is put in their
place within `fake_gpu`, and here only: autograd's engine asks for a CUDA context, so graphs are walked in
Python by the same operations.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch._vmap_internals import _vmap

from pairx_engine.models import build_miewid
from pairx_engine.models.timm_model import build_timm, describe_timm
from pairx_engine.relevance.explainer import LayerExplainer
from tests.benchmarks.cases import _CONFIGS

FAKE = FakeTensorMode(allow_non_fake_inputs=False)
"""One for all: fake tensors of two modes cannot meet."""
DEVICE = torch.device("cuda", 0)
LAYER = "backbone.blocks.3"


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Within the context, tensors made on `cuda` are fake.

    An operation that needs their values must be answered by another mode.
    """
    with (
        warnings.catch_warnings(),
        mock.patch.object(torch.autograd, "grad", gradients),
        mock.patch.object(FakeTensor, "tolist", _tolist, create=True),
        mock.patch.object(FakeTensor, "numpy", _numpy, create=True),
        FAKE,
    ):
        # The engine compares addresses to notice changed weights; those of fake tensors are all zero.
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        yield


def on_fake_gpu(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, with frozen fake parameters and buffers of its shapes and layouts."""
    made: dict[int, Tensor] = {}

    def fake(held: Tensor) -> Tensor:
        if id(held) not in made:
            with FAKE:
                copy = torch.empty_strided(held.shape, held.stride(), dtype=held.dtype, device=DEVICE)
            is_parameter = isinstance(held, nn.Parameter)
            made[id(held)] = nn.Parameter(copy, requires_grad=False) if is_parameter else copy
        return made[id(held)]

    for module in network.modules():
        for table in (module._parameters, module._buffers):
            table.update({name: fake(held) for name, held in table.items() if held is not None})
    return network.eval()


def fake_chips(n: int, size: int) -> list[Tensor]:
    """Normalised chips, each (3, size, size)."""
    with FAKE:
        return [torch.empty(3, size, size, device=DEVICE) for _ in range(n)]


def build(network: str) -> nn.Module:
    """One of the benchmark's networks, with fake weights."""
    config = _CONFIGS[network]
    return on_fake_gpu(build_miewid() if network == "miewid" else build_timm(describe_timm(config)))


def default_size(network: str) -> int:
    """Side of the network's chips, in pixels."""
    return int(_CONFIGS[network]["input"]["size"][0])


def fake_explainer(
    network: str | nn.Module,
    preset: str = "published",
    precision: str = "float32",
    layer: str = LAYER,
    **options: Any,
) -> LayerExplainer:
    """An explainer on a fake GPU, of a benchmark's network by its name or of a real network.

    A real network's weights are replaced by fake ones in place. `options` go to `LayerExplainer`.
    """
    module = build(network) if isinstance(network, str) else on_fake_gpu(network)
    with fake_gpu():
        return LayerExplainer(module, [layer], preset=preset, precision=precision, path="fast", **options)


def gradients(
    output: Tensor,
    inputs: Sequence[Tensor],
    given: Tensor,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
    is_grads_batched: bool = False,
    **others: Any,
) -> tuple[Tensor | None, ...]:
    """`torch.autograd.grad` of one output, by the same operations.

    With `is_grads_batched`, `given` (P, ...) holds P gradients that are pulled at once.
    """
    if isinstance(output, tuple | list):
        (output,), (given,) = output, given
    inputs = [inputs] if isinstance(inputs, Tensor) else inputs
    walk = functools.partial(_walk, output, inputs)
    with torch.no_grad():
        if is_grads_batched:
            return tuple(_vmap(walk, 0, 0, allow_none_pass_through=True)(given))
        return walk(given)


def _walk(output: Tensor, inputs: Sequence[Tensor], given: Tensor) -> tuple[Tensor | None, ...]:
    if output.grad_fn is None:
        # A step such as flattening may hand out its own input.
        return tuple(given if leaf is output else None for leaf in inputs)
    waiting: dict[Any, dict[int, Tensor]] = {output.grad_fn: {output.output_nr: given}}
    found: dict[int, Tensor] = {}
    for node in _from_the_end(output.grad_fn):
        arrived = waiting.pop(node, None)
        if arrived is None:
            continue
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[id(leaf)] = arrived[0]
            continue
        handed = node(*(arrived.get(i) for i in range(max(arrived) + 1)))
        handed = handed if isinstance(handed, tuple) else (handed,)
        for (below, place), part in zip(node.next_functions, handed, strict=True):
            if below is not None and part is not None:
                shape = torch.Size(below._input_metadata[place].shape)
                if part.shape != shape:
                    # The operand was broadcast.
                    part = part.sum_to_size(shape)
                at = waiting.setdefault(below, {})
                at[place] = at[place] + part if place in at else part
    return tuple(found.get(id(leaf)) for leaf in inputs)


def _from_the_end(last: Any) -> list[Any]:
    """A graph's nodes, each before those that it hands gradients to."""
    done: list[Any] = []
    seen: set[Any] = set()

    def visit(node: Any) -> None:
        seen.add(node)
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                visit(below)
        done.append(node)

    visit(last)
    return done[::-1]


def _tolist(tensor: Tensor) -> Any:
    # A real list is copied as a whole; torch would read a fake one value by value.
    return np.full(tuple(tensor.shape), _one_value(tensor.cpu())).tolist()


def _numpy(tensor: Tensor) -> Any:
    if tensor.is_cuda:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
    kind = np.dtype(str(tensor.dtype).removeprefix("torch."))
    return np.full(tuple(tensor.shape), _one_value(tensor), dtype=kind)


def _one_value(tensor: Tensor) -> Any:
    """The answer for all of a tensor's values."""
    return tensor.flatten()[0].item() if tensor.numel() else 0
