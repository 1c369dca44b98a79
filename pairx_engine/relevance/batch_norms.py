"""Batch norms folded into the layer before them.

Which layers they follow, and the weight and bias of the two as one layer.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from zennit.core import collect_leaves
from zennit.types import BatchNorm, ConvolutionTranspose, Linear


def fold_batch_norm(linear: Any, batch_norm: Any) -> tuple[Tensor, Tensor]:
    """The weight and bias of one layer that equals `linear` followed by `batch_norm`.

    Both are in evaluation mode.
    """
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
    """The factor (C,) by which a batch norm multiplies each channel in evaluation mode."""
    scale: Tensor = (batch_norm.running_var + batch_norm.eps).rsqrt()
    return scale if batch_norm.weight is None else scale * batch_norm.weight.detach()


def following_batch_norms(network: nn.Module) -> dict[nn.Module, nn.Module]:
    """Linear or convolution leaves, each with the batch-norm leaf that comes next in the module tree.

    Only leaves count, as in zennit: a `BatchNormAct2d` has children and is therefore not a leaf. Batch norms
    without running statistics cannot be folded and are left out.
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
