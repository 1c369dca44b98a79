"""Layer-wise relevance propagation as presets: which rules a network's modules follow, and how channels become one grid.

Both presets follow zennit's EpsilonPlus: z-plus for convolutions, epsilon for linear layers, relevance passed unchanged
through activations and batch norms; squeeze-excite gates pass all relevance to the signal. They reproduce what the public
PAIR-X code computes on timm networks, with its two known departures from conservation: `BatchNormAct2d` is not merged into
the convolution before it (batch norm and activation together pass relevance on), and a residual sum copies its relevance to
both branches. Batch norms that directly follow a convolution as plain modules (torchvision) are merged.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from zennit.canonizers import AttributeCanonizer, SequentialMergeBatchNorm
from zennit.composites import EpsilonPlus

Reduction = Literal["abs_of_sum", "signed_sum", "sum_of_abs"]


@dataclass(frozen=True)
class Preset:
    """A named way to compute relevance; stored with every row through the fingerprint.

    `reduction` turns the channel relevances of a cell into its one value: `abs_of_sum` |sum_c R_c| as the public code does,
    `signed_sum` sum_c R_c as Eq. 1 of the paper says.
    """

    name: str
    reduction: Reduction


PRESETS: dict[str, Preset] = {p.name: p for p in (Preset("published", "abs_of_sum"), Preset("paper", "signed_sum"))}


def reduce_channels(relevance: Tensor, reduction: Reduction) -> Tensor:
    """Channel relevances (…, C, h, w) to grids (…, h, w); raises ValueError for an unknown reduction."""
    if reduction == "abs_of_sum":
        return relevance.sum(-3).abs()
    if reduction == "signed_sum":
        return relevance.sum(-3)
    if reduction == "sum_of_abs":
        return relevance.abs().sum(-3)
    raise ValueError(f"reduction {reduction!r} is not one of abs_of_sum, signed_sum, sum_of_abs")


class _SignalOnly(torch.autograd.Function):
    """Forward: the gated signal. Backward: everything to the signal, nothing to the gate."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, gated: Tensor) -> Tensor:
        return gated.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor, None]:
        return relevance[0], None


def _signal_only_forward(module: nn.Module, signal: Tensor) -> Tensor:
    gated = type(module).forward(module, signal)
    result: Tensor = _SignalOnly.apply(signal, gated.detach())
    return result


def _gates(name: str, module: nn.Module) -> dict[str, Any] | None:
    """Squeeze-excite modules of timm and torchvision by the classes' names: they share no base class."""
    if type(module).__name__ in ("SqueezeExcite", "SEModule", "SqueezeExcitation", "EffectiveSEModule"):
        return {"forward": MethodType(_signal_only_forward, module)}
    return None


_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


def lock_of(network: nn.Module) -> threading.RLock:
    """The network's own lock: rules hook into the modules, so one thread at a time may propagate through them."""
    with _LOCKS_GUARD:
        return _LOCKS.setdefault(network, threading.RLock())


@contextmanager
def lrp_rules(network: nn.Module) -> Iterator[None]:
    """Let backward passes through `network` propagate relevance instead of gradients.

    Inside the block the calling thread owns the network. Afterwards, also after an exception, hooks, patched forwards,
    merged batch norms and `requires_grad` are as before. The network must be in evaluation mode (ValueError).
    """
    if network.training:
        raise ValueError("relevance is defined for a network in evaluation mode; call network.eval() first")
    with lock_of(network):
        wanted = {name: p.requires_grad for name, p in network.named_parameters()}
        state = {name: value.clone() for name, value in _mergeable(network)}
        composite = EpsilonPlus(canonizers=[SequentialMergeBatchNorm(), AttributeCanonizer(_gates)])
        network.requires_grad_(False)
        try:
            composite.register(network)
            yield
        finally:
            composite.remove()
            with torch.no_grad():
                for name, value in state.items():
                    network.get_parameter(name).copy_(value)
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(wanted[name])


def _mergeable(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters that merging may rescale; removing a merge divides them back, which is exact only up to rounding."""
    if any(isinstance(m, nn.BatchNorm2d) and not any(True for _ in m.children()) for m in network.modules()):
        yield from network.named_parameters()
