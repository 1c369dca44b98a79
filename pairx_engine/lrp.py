"""Layer-wise relevance propagation as PAIR-X uses it, by hooks: zennit's EpsilonPlus rules with two additions.

The general path of the engine, and what its fast path is held against. The rules are those called `published`.

With A the input of a layer, z its output and R the relevance of the output, the rules are

* convolutions, ZPlus: R_in = A+ * W+^T (R / z+) + A- * W-^T (R / z+), where z+ = W+ A+ + bias+ + W- A-;
* linear layers, Epsilon: R_in = A * W^T (R / (z + 1e-6 sign z)); average pooling modules likewise;
* activations and batch norms (timm's `BatchNormAct2d` as a whole), Pass: R_in = R;
* squeeze-and-excitation, signal only: R_in = R for the signal, nothing for the gate;
* a plain batch norm that follows a convolution or linear layer in the module tree is folded into that layer's weights
  for its rule (zennit's `SequentialMergeBatchNorm`); timm's `BatchNormAct2d` is not, as in the published code;
* everything else, residual sums included, is differentiated plainly, so a sum copies its relevance to both branches.

Values of the forward pass are the network's own, bit for bit: the rules act on the backward pass alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from timm.layers import EffectiveSEModule, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation  # type: ignore[import-untyped]
from zennit.composites import EpsilonPlus
from zennit.core import Composite, Hook, ParamMod, collect_leaves
from zennit.rules import Epsilon, ZPlus
from zennit.types import BatchNorm, ConvolutionTranspose, Linear

from pairx_engine.presets import Reduction

SQUEEZE_EXCITE = (SqueezeExcite, SEModule, EffectiveSEModule, SqueezeExcitation)


def reduce_channels(channels: Tensor, reduction: Reduction) -> Tensor:
    """Signed channel relevances (..., C, h, w) to one number per cell (..., h, w)."""
    if reduction == "sum_of_abs":
        return channels.abs().sum(dim=-3)
    total = channels.sum(dim=-3)
    if reduction == "positive_sum":
        return total.clamp(min=0)
    return total.abs() if reduction == "abs_of_sum" else total


class _CopyToSignal(torch.autograd.Function):
    """Forward: the gated value. Backward: its gradient goes to the signal unchanged."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor, gated: Tensor) -> Tensor:
        # A copy, since autograd forbids in-place operations on an input that a function hands through.
        return gated.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class SignalOnly(Hook):
    """Rule of squeeze-and-excitation: all relevance goes to the signal, none through the gate.

    The module runs on a detached input, so that its inner layers take no part in the backward pass at all.
    """

    def pre_forward(self, module: nn.Module, input: tuple[Tensor, ...]) -> Tensor:
        """Keep the signal, hand the module a detached one."""
        self.stored_tensors["signal"] = input[0]
        return input[0].detach()

    def post_forward(self, module: nn.Module, input: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Tie the gated value to the kept signal."""
        signal = self.stored_tensors.pop("signal")
        if not (signal.requires_grad and torch.is_grad_enabled()):
            return output
        tied: Tensor = _CopyToSignal.apply(signal, output)
        return tied


class _FoldedBatchNorm(ParamMod):
    """Parameters of a linear layer with the batch norm after it folded in, then modified as the rule wants."""

    def __init__(self, batch_norm: nn.Module, inner: ParamMod) -> None:
        super().__init__(inner.modifier)
        self.batch_norm = batch_norm
        self.inner = inner

    @contextmanager
    def __call__(self, module: nn.Module) -> Iterator[nn.Module]:
        """Give `module` the folded parameters inside the context, and its own again afterwards."""
        weight, bias = module.weight, module.bias
        folded_weight, folded_bias = fold_batch_norm(module, self.batch_norm)
        try:
            module.weight, module.bias = nn.Parameter(folded_weight), nn.Parameter(folded_bias)
            with self.inner(module) as modified:
                yield modified
        finally:
            module.weight, module.bias = weight, bias


def fold_batch_norm(linear: Any, batch_norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one layer that equals `linear` followed by `batch_norm` in evaluation mode."""
    weight: Tensor = linear.weight.detach()
    scale = batch_norm_scale(batch_norm)
    own_bias = 0.0 if linear.bias is None else linear.bias.detach()
    bias: Tensor = (own_bias - batch_norm.running_mean) * scale
    if batch_norm.bias is not None:
        bias = bias + batch_norm.bias.detach()
    shape = [1] * weight.ndim
    shape[1 if isinstance(linear, ConvolutionTranspose) else 0] = -1
    return weight * scale.view(shape), bias


def batch_norm_scale(batch_norm: Any) -> Tensor:
    """What a batch norm multiplies each channel by in evaluation mode (C,)."""
    scale: Tensor = (batch_norm.running_var + batch_norm.eps).rsqrt()
    return scale if batch_norm.weight is None else scale * batch_norm.weight.detach()


def following_batch_norms(network: nn.Module) -> dict[nn.Module, nn.Module]:
    """Linear or convolution leaves to the batch-norm leaf that comes next in the module tree.

    Leaves only, as in zennit: a `BatchNormAct2d` has children and is therefore not one. Batch norms without running
    statistics cannot be folded and are left out.
    """
    pairs: dict[nn.Module, nn.Module] = {}
    previous: nn.Module | None = None
    for leaf in collect_leaves(network):
        foldable = isinstance(leaf, BatchNorm) and getattr(leaf, "running_var", None) is not None
        if foldable and previous is not None and isinstance(previous, Linear):
            width = getattr(previous, "out_channels", None) or previous.out_features
            if width == leaf.num_features:
                pairs[previous] = leaf
        previous = leaf
    return pairs


def _composite(network: nn.Module) -> Composite:
    base = EpsilonPlus(layer_map=[(SQUEEZE_EXCITE, SignalOnly())])
    folds = following_batch_norms(network)

    def rule_of(context: dict[str, Any], name: str, module: nn.Module) -> Hook | None:
        if module not in folds:
            return base.module_map(context, name, module)
        rule = Epsilon() if isinstance(module, nn.Linear) else ZPlus()
        rule.param_modifiers = [_FoldedBatchNorm(folds[module], inner) for inner in rule.param_modifiers]
        return rule

    return Composite(module_map=rule_of)


@dataclass
class _State:
    lock: Any = field(default_factory=threading.RLock)
    composite: Composite | None = None


_STATES: WeakKeyDictionary[nn.Module, _State] = WeakKeyDictionary()
_STATES_LOCK = threading.Lock()


def _state_of(network: nn.Module) -> _State:
    with _STATES_LOCK:
        return _STATES.setdefault(network, _State())


@contextmanager
def exclusive(network: nn.Module) -> Iterator[None]:
    """Hold the network for this thread, in evaluation mode and with frozen parameters; restore both afterwards.

    Re-entrant within a thread; other threads wait. Networks that share modules under different roots are not covered.
    """
    state = _state_of(network)
    with state.lock:
        training = [module for module in network.modules() if module.training]
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        try:
            for module in training:
                module.training = False
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in learning:
                parameter.requires_grad_(True)
            _forget_tensors(state)


def _forget_tensors(state: _State) -> None:
    # Hooks keep each layer's input, and a handle per layer and forward; while rules stay open both would pile up.
    for hook in [] if state.composite is None else list(state.composite.hook_refs):
        hook.remove()


@contextmanager
def lrp_rules(network: nn.Module) -> Iterator[None]:
    """Within the context, gradients of the network's output are LRP relevances (rules in the module's docstring).

    Implies `exclusive`. Re-entrant: an inner context finds the rules in place and costs next to nothing, so holding one
    open over many calls saves their registration. The network is left as it was found, also after an exception: no
    hooks, the same parameters, `requires_grad` and training flags.
    """
    state = _state_of(network)
    with exclusive(network):
        if state.composite is not None:
            yield
            return
        composite = _composite(network)
        try:
            state.composite = composite
            composite.register(network)
            yield
        finally:
            state.composite = None
            composite.remove()
