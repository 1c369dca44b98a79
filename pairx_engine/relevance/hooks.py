"""Layer-wise relevance propagation as PAIR-X uses it: zennit's EpsilonPlus rules with two additions.

It works by hooks. It is the general path of the engine, and the reference of its fast path. The rules are
those called `published`.

With A the input of a layer, z its output and R the relevance of the output, the rules are

* convolutions, ZPlus: R_in = A+ * W+^T (R / z+) + A- * W-^T (R / z+), where z+ = W+ A+ + bias+ + W- A-;
* linear layers, Epsilon: R_in = A * W^T (R / (z + 1e-6 sign z)); average pooling modules likewise;
* activations and batch norms (timm's `BatchNormAct2d` as a whole), Pass: R_in = R;
* squeeze-and-excitation, signal only: R_in = R for the signal, nothing for the gate;
* a plain batch norm that follows a convolution or linear layer in the module tree is folded into that layer's
  weights for its rule (zennit's `SequentialMergeBatchNorm`); timm's `BatchNormAct2d` is not, as in the
  published code;
* everything else, residual sums included, is differentiated plainly, so a sum copies its relevance to both
  branches.

Values of the forward pass are the network's own, bit for bit: the rules act on the backward pass alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import EffectiveSEModule, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation  # type: ignore[import-untyped]
from zennit.composites import EpsilonPlus
from zennit.core import Composite, Hook, ParamMod
from zennit.rules import Epsilon, ZPlus

from pairx_engine.relevance.batch_norms import fold_batch_norm, following_batch_norms
from pairx_engine.relevance.locking import exclusive, state_of

SQUEEZE_EXCITE = (SqueezeExcite, SEModule, EffectiveSEModule, SqueezeExcitation)


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
        """Keep the signal, and give the module a detached one."""
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
    """Parameters of a linear layer with its batch norm folded in, then modified as the rule wants."""

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


@contextmanager
def lrp_rules(network: nn.Module) -> Iterator[None]:
    """Within the context, gradients of the network's output are LRP relevances.

    The rules are in the module's docstring. Implies `exclusive`. Re-entrant: an inner context finds the rules
    in place and costs next to nothing, so a context held open over many calls saves their registration. The
    network is left as it was found, also after an exception: no hooks, the same parameters, `requires_grad`
    and training flags.
    """
    state = state_of(network)
    with exclusive(network):
        if state.at_release is not None:
            yield
            return
        composite = _composite(network)
        try:
            state.at_release = lambda: _forget_tensors(composite)
            composite.register(network)
            yield
        finally:
            state.at_release = None
            composite.remove()


def _forget_tensors(composite: Composite) -> None:
    # Hooks keep each layer's input, and a handle per layer and forward pass. While rules stay open, both
    # would pile up.
    for hook in list(composite.hook_refs):
        hook.remove()
