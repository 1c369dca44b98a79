"""Small networks with random weights.

There is one for every block type, and the models' own architectures in miniature.
"""

from collections.abc import Callable
from functools import partial

import torch
from timm.layers import BatchNormAct2d, ConvNormAct, LayerNorm2d, SEModule
from timm.models._efficientnet_blocks import (
    ConvBnAct,
    DepthwiseSeparableConv,
    EdgeResidual,
    InvertedResidual,
    SqueezeExcite,
    UniversalInvertedResidual,
)
from timm.models.convnext import ConvNeXtBlock
from timm.models.resnet import BasicBlock, Bottleneck, downsample_avg, downsample_conv
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import efficientnet, mobilenetv3, resnet

from pairx_engine.models.miewid import GeneralisedMeanPool


def randomise(network, chips, seed=0):
    """Give the network random parameters of both signs that keep its activations in bounds, and freeze it.

    Batch norms are given statistics of the size of what reaches them from `chips` (N, 3, H, W), but not
    these: dividing by the true deviation in layer after layer makes deep random networks chaotic, so that
    rounding is all one compares. Layer scales and biases, which start at next to nothing, become as large as
    anything else.
    """
    torch.manual_seed(seed)
    network = network.eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(std=0.3)
        elif parameter.ndim == 1 and not name.endswith("pool.p"):
            parameter.copy_((0.5 + torch.rand_like(parameter)) * torch.randn_like(parameter).sign())

    def calibrate(norm, inputs):
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        mean, square = inputs[0].mean(axes), inputs[0].square().mean(axes)
        square = square.clamp(min=0.2 * float(square.mean()))
        norm.running_mean.copy_(0.2 * mean + 0.3 * square.sqrt() * torch.randn_like(mean))
        norm.running_var.copy_(square * (0.5 + 1.5 * torch.rand_like(square)))

    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    handles = [norm.register_forward_pre_hook(calibrate) for norm in norms]
    network(chips)
    for handle in handles:
        handle.remove()
    return network


class SmallNetwork(nn.Module):
    """Stem, two blocks, a pooling to vectors and a neck.

    All relevance passes through `stem`, `first` and `second`.
    """

    def __init__(self, stem, first, second, pool, neck):
        super().__init__()
        self.stem, self.first, self.second, self.pool, self.neck = stem, first, second, pool, neck

    def forward(self, chips):
        return self.neck(self.pool(self.second(self.first(self.stem(chips)))))


class SpatialMean(nn.Module):
    """Global average pooling without a pooling module."""

    def forward(self, x):
        return x.mean((2, 3))


class Functional(nn.Module):
    """A residual block whose activation and sum are functions."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.nn.functional.relu(torch.add(self.norm(self.conv(x)), x))


class ReadTwice(nn.Module):
    """A convolution that its batch norm does not read alone, so that the two cannot be merged."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.SiLU()

    def forward(self, x):
        raw = self.conv(x)
        return self.act(self.norm(raw)) + raw


class NormFirst(nn.Module):
    """A batch norm before its convolution, which cannot be merged into anything."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv(self.act(self.norm(x)))


def conv_norm_act(act, channels, **options):
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, **options), nn.BatchNorm2d(channels), act(inplace=True)
    )


def mb_conv(block, config, channels):
    return block(config(2, 3, 1, channels, channels, 1), 0.0, nn.BatchNorm2d)


def v3_block(channels):
    config = mobilenetv3.InvertedResidualConfig(channels, 3, 2 * channels, channels, True, "HS", 1, 1, 1.0)
    return mobilenetv3.InvertedResidual(config, nn.BatchNorm2d)


def downsampled(block, make, channels):
    """A ResNet block with stride 2 and a projected shortcut, from and to `channels`."""
    return block(
        channels, channels // block.expansion, 2, make(channels, channels, 1, 2, norm_layer=nn.BatchNorm2d)
    )


# Each takes maps of that many channels, a multiple of eight, and gives as many.
BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "conv + batch norm + ReLU": partial(conv_norm_act, nn.ReLU),
    "conv + batch norm + SiLU": partial(conv_norm_act, nn.SiLU),
    "conv + batch norm + ReLU6": partial(conv_norm_act, nn.ReLU6),
    "conv + batch norm + Hardswish": partial(conv_norm_act, nn.Hardswish, bias=False),
    "strided conv": partial(conv_norm_act, nn.ReLU, stride=2),
    "grouped dilated conv": partial(conv_norm_act, nn.SiLU, groups=4, dilation=2),
    "read twice": ReadTwice,
    "norm first": NormFirst,
    "functional": Functional,
    "average pooling": lambda c: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
    "padded average pooling": lambda c: nn.AvgPool2d(3, 2, padding=1),
    "max pooling": lambda c: nn.MaxPool2d(3, 2, padding=1),
    "layer norm": LayerNorm2d,
    "timm ConvNormAct": lambda c: ConvNormAct(c, c, 3, act_layer=nn.SiLU),
    "timm conv + BatchNormAct2d": lambda c: nn.Sequential(
        nn.Conv2d(c, c, 3, padding=1), BatchNormAct2d(c, act_layer=nn.Hardswish)
    ),
    "timm ConvBnAct with skip": lambda c: ConvBnAct(c, c, 3, skip=True, act_layer=nn.SiLU),
    "timm DepthwiseSeparableConv": lambda c: DepthwiseSeparableConv(c, c, act_layer=nn.ReLU6),
    "timm DepthwiseSeparableConv with gate": lambda c: DepthwiseSeparableConv(
        c, c, act_layer=nn.SiLU, se_layer=partial(SqueezeExcite, rd_ratio=0.25)
    ),
    "timm InvertedResidual with gate": lambda c: InvertedResidual(
        c, c, exp_ratio=2, act_layer=nn.SiLU, se_layer=partial(SqueezeExcite, rd_ratio=0.25)
    ),
    "timm InvertedResidual, same padding": lambda c: InvertedResidual(
        c, c, dw_kernel_size=5, stride=2, exp_ratio=2, pad_type="same", act_layer=nn.Hardswish
    ),
    "timm EdgeResidual": lambda c: EdgeResidual(c, c, exp_ratio=2, act_layer=nn.SiLU),
    "timm EdgeResidual, same padding": lambda c: EdgeResidual(
        c, c, exp_kernel_size=3, stride=2, exp_ratio=2, pad_type="same", act_layer=nn.SiLU
    ),
    "timm UniversalInvertedResidual": lambda c: UniversalInvertedResidual(
        c, c, dw_kernel_size_start=3, dw_kernel_size_mid=5, exp_ratio=2, layer_scale_init_value=0.1
    ),
    "timm BasicBlock": lambda c: BasicBlock(c, c),
    "timm BasicBlock with gate": lambda c: BasicBlock(c, c, attn_layer=SEModule),
    "timm BasicBlock, strided": partial(downsampled, BasicBlock, downsample_conv),
    "timm Bottleneck": lambda c: Bottleneck(c, c // 4),
    "timm Bottleneck, averaged shortcut": partial(downsampled, Bottleneck, downsample_avg),
    "timm ConvNeXtBlock": lambda c: ConvNeXtBlock(c, mlp_ratio=2, kernel_size=3),
    "timm ConvNeXtBlock of convolutions": lambda c: ConvNeXtBlock(c, mlp_ratio=2, conv_mlp=True),
    "torchvision BasicBlock": lambda c: resnet.BasicBlock(c, c),
    "torchvision Bottleneck": lambda c: resnet.Bottleneck(c, c // 4),
    "torchvision MBConv": partial(mb_conv, efficientnet.MBConv, efficientnet.MBConvConfig),
    "torchvision FusedMBConv": partial(mb_conv, efficientnet.FusedMBConv, efficientnet.FusedMBConvConfig),
    "torchvision InvertedResidual": v3_block,
}

STEMS: dict[str, Callable[[int], nn.Module]] = {
    "conv": lambda c: nn.Sequential(
        nn.Conv2d(3, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c), nn.SiLU(inplace=True)
    ),
    "conv + max pooling": lambda c: nn.Sequential(
        nn.Conv2d(3, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    ),
    "patches": lambda c: nn.Sequential(nn.Conv2d(3, c, 2, 2), LayerNorm2d(c)),
}

POOLS: dict[str, Callable[[], nn.Module]] = {
    "average": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "mean": SpatialMean,
    "GeM": GeneralisedMeanPool,
}

NECKS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda c: nn.Identity(),
    "batch norm": nn.BatchNorm1d,
    "linear": lambda c: nn.Linear(c, 6),
    "linear + batch norm": lambda c: nn.Sequential(nn.Linear(c, 6, bias=False), nn.BatchNorm1d(6)),
}

LAYERS = ("stem", "first", "second")
CHIP = (16, 23)
"""Height and width: small, not square, and awkward.

Halving them leaves strides a rest and makes `same` padding lopsided.
"""


def small_network(block, seed, dtype=torch.float64, stem=None, pool=None, neck=None, channels=8):
    """A network with that block twice; what is not named of stem, pooling and neck is drawn by the seed."""
    torch.manual_seed(seed)

    def part(parts, name):
        drawn = list(parts)[int(torch.randint(len(parts), ()))]
        return parts[name or drawn]

    make = BLOCKS[block]
    network = SmallNetwork(
        part(STEMS, stem)(channels),
        make(channels),
        make(channels),
        part(POOLS, pool)(),
        part(NECKS, neck)(channels),
    )
    return randomise(network, torch.randn(8, 3, *CHIP), seed).to(dtype)


def random_chip(seed, size=CHIP, dtype=torch.float64):
    """A normalised chip (3, H, W) of noise."""
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Twice(nn.Module):
    """Runs its only layer, `conv`, twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(self.conv(x)).mean((2, 3))
