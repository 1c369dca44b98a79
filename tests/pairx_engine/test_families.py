"""The engine against the slow way: every model family, shallow and deep layers, all presets, both float formats."""

from dataclasses import dataclass
from functools import cache

import pytest
import timm
import torch
from timm.layers import ScaledStdConv2d
from torch import Tensor, nn
from torchvision.models import EfficientNet, MobileNetV3, ResNet
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.resnet import BasicBlock, Bottleneck

from pairx_engine.errors import EngineError
from pairx_engine.lrp import preset_named, reduce_channels
from pairx_engine.models.miewid import build_miewid
from pairx_engine.relevance import LayerExplainer, cosine_shares, cosine_start
from tests.pairx_engine.slow_relevance import slow_relevance
from tests.pairx_engine.small_networks import random_chip, randomise

EXACT, SINGLE = 1e-10, 1e-5
"""Largest errors in double and in single precision, relative to the largest value of the same map."""
AMPLIFIED = 8
"""Where cancellation in the network (a pooled mean or a linear output near zero) amplifies single precision's rounding,
both ways err by more than `SINGLE`; then the fast path may err this many times as much as the slow way."""
CELLS = [(0, 0), (-1, -1), (-1, 0), (1, 1)]
"""(column, row), negative from the right and from below: three corners and one cell off the edge."""
NARROW = {"channels": (16, 24, 32, 40)}
MIEWID = {
    "backbone": {
        "arch_def": [
            ["cn_r1_k3_s1_c8_skip"],
            ["er_r2_k3_s2_e4_c16"],
            ["ir_r2_k3_s2_e4_c24_se0.25"],
            ["ir_r2_k5_s2_e4_c24"],
        ],
        "stem_size": 8,
        "num_features": 48,
    }
}


def timm_model(name, **options):
    return lambda: timm.create_model(name, pretrained=False, num_classes=0, **options)


def timm_blocks(name, **options):
    """One of timm's EfficientNets or MobileNets with at most two blocks in each stage."""

    def build():
        network = timm.create_model(name, pretrained=False, num_classes=0, **options)
        for stage in network.blocks:
            del stage[2:]
        return network

    return build


def torchvision_efficientnet():
    stages = [
        FusedMBConvConfig(2, 3, 1, 16, 16, 2),
        FusedMBConvConfig(4, 3, 2, 16, 24, 2),
        MBConvConfig(4, 5, 2, 24, 32, 2),
    ]
    return EfficientNet(stages, dropout=0.2, num_classes=12, last_channel=48)


def torchvision_mobilenet():
    blocks = [
        (16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        (16, 3, 48, 24, False, "RE", 2, 1, 1.0),
        (24, 5, 64, 24, True, "HS", 1, 1, 1.0),
    ]
    return MobileNetV3([InvertedResidualConfig(*block) for block in blocks], last_channel=40, num_classes=12)


def torchvision_resnet(block):
    return lambda: ResNet(block, [1, 2, 1, 1], num_classes=12)


# Builder, layers (beside blocks' ends some inside a residual branch), height and width of the chip.
FAMILIES = {
    "efficientnet_b0": (timm_blocks("efficientnet_b0"), ["blocks.1", "blocks.4.1.conv_dw", "blocks.4"], (64, 48)),
    "tf_efficientnetv2_b0": (timm_blocks("tf_efficientnetv2_b0"), ["blocks.1", "blocks.3.0.bn2", "blocks.4"], (49, 64)),
    "efficientnetv2_rw_t": (timm_blocks("efficientnetv2_rw_t"), ["blocks.2", "blocks.4"], (48, 64)),
    "efficientnet_lite0": (timm_blocks("efficientnet_lite0"), ["blocks.2", "blocks.4"], (64, 64)),
    "mobilenetv2_100": (timm_blocks("mobilenetv2_100"), ["blocks.2", "blocks.3.1.bn1", "blocks.5"], (64, 80)),
    "mobilenetv2_050, same padding": (timm_blocks("mobilenetv2_050", pad_type="same"), ["blocks.2", "blocks.4"], (61, 80)),
    "mobilenetv3_small_100": (timm_blocks("mobilenetv3_small_100"), ["blocks.1", "blocks.3.0.conv_pw", "blocks.4"], (64, 80)),
    "tf_mobilenetv3_small_minimal_100": (timm_blocks("tf_mobilenetv3_small_minimal_100"), ["blocks.1", "blocks.3"], (63, 80)),
    "mobilenetv4_conv_small": (timm_blocks("mobilenetv4_conv_small"), ["blocks.1", "blocks.2.1.dw_mid", "blocks.3"], (64, 80)),
    "resnet18": (timm_model("resnet18", **NARROW), ["layer1", "layer2.0.bn2", "layer3"], (64, 80)),
    "resnet34": (timm_model("resnet34", layers=(1, 2, 3, 1), **NARROW), ["maxpool", "layer3"], (57, 80)),
    "resnet50": (timm_model("resnet50", layers=(1, 2, 1, 1), **NARROW), ["layer1", "layer2.1.conv2", "layer3"], (64, 80)),
    "resnet26d": (timm_model("resnet26d", **NARROW), ["layer1", "layer3"], (64, 72)),
    "seresnet50": (timm_model("seresnet50", layers=(1, 1, 2, 1), **NARROW), ["layer2", "layer3.1.bn3"], (64, 80)),
    "convnext_atto": (timm_model("convnext_atto", depths=(1, 2, 2, 1), dims=(16, 24, 32, 40)), ["stages.0", "stages.1.blocks.1.conv_dw", "stages.2"], (64, 80)),
    "convnext_tiny": (timm_model("convnext_tiny", depths=(1, 1, 2, 1), dims=(16, 24, 32, 40)), ["stages.0", "stages.2"], (64, 80)),
    "torchvision resnet18": (torchvision_resnet(BasicBlock), ["layer1", "layer2.1.bn1", "layer3"], (33, 48)),
    "torchvision resnet50": (torchvision_resnet(Bottleneck), ["layer1", "layer2.1.conv3", "layer3"], (33, 48)),
    "torchvision efficientnet_v2": (torchvision_efficientnet, ["features.2", "features.3.1.block.1", "features.3"], (64, 80)),
    "torchvision mobilenet_v3": (torchvision_mobilenet, ["features.1", "features.3.block.2", "features.3"], (64, 80)),
    "MiewID": (lambda: build_miewid(MIEWID), ["backbone.blocks.1", "backbone.blocks.2.1.conv_pw", "backbone.blocks.3"], (64, 80)),
}  # fmt: skip


@cache
def case(family, dtype):
    """Network, chip, layers and starts of three kinds; the same numbers in both formats."""
    build, layers, size = FAMILIES[family]
    torch.manual_seed(len(family))
    network = randomise(build(), torch.randn(8, 3, *size))
    chip, other = random_chip(1, size, torch.float32), random_chip(2, size, torch.float32)
    embeddings = network(torch.stack([chip, other]))
    drawn = torch.randn(len(embeddings[0]), generator=torch.Generator().manual_seed(3))
    starts = torch.stack([cosine_start(*embeddings)[0], cosine_shares(*embeddings)[0], drawn])
    return network.to(dtype), chip.to(dtype), layers, starts.to(dtype)


@cache
def slow_way(family, rules, dtype):
    network, chip, layers, starts = case(family, dtype)
    return slow_relevance(network, rules, chip, layers, starts, CELLS)


@dataclass(frozen=True)
class Wanted:
    """What is right for each start or cell (P, ...), and what its error is measured by (P,): the largest number in it.

    Where channels or colours are summed it is the largest sum of absolute values, since such a sum may cancel to nothing.
    """

    value: Tensor
    size: Tensor

    def error(self, found):
        """Largest relative error of the worst start or cell."""
        assert found.shape == self.value.shape
        assert self.value.isfinite().all()
        assert (self.size > 0).all()
        return float(((found.double() - self.value.double()).abs().flatten(1).amax(dim=1) / self.size).max())


def itself(value):
    return Wanted(value, value.abs().flatten(1).amax(dim=1))


def summed(value, reduction):
    return Wanted(reduce_channels(value, reduction), value.abs().sum(dim=1).flatten(1).amax(dim=1))


def wanted_of(slow, preset):
    """Everything that the slow way says of a chip, under names."""
    wanted = {"embedding": itself(slow.embedding[None])}
    for layer, channels in slow.channels.items():
        wanted[f"features of {layer}"] = itself(slow.features[layer][None])
        wanted[f"channels of {layer}"] = itself(channels)
        wanted[f"relevance of {layer}"] = summed(channels, preset_named(preset).reduction)
        wanted[f"pixels of {layer}"] = summed(slow.cell_pixels[layer], "abs_of_sum")
    return wanted


def found_by(explainer, chip, starts):
    """The same from an explainer."""
    seen = explainer.see(chip)
    relevance, channels = explainer.relevance(seen, starts), explainer.channel_relevance(seen, starts)
    found = {"embedding": seen.embedding[None]}
    for layer in explainer.layers:
        h, w = seen.features[layer].shape[-2:]
        cells = [(column % w, row % h) for column, row in CELLS]
        found[f"features of {layer}"] = seen.features[layer][None]
        found[f"channels of {layer}"] = channels[layer]
        found[f"relevance of {layer}"] = relevance[layer]
        found[f"pixels of {layer}"] = explainer.pixel_maps(chip, layer, cells)
    return found


def errors_of(found, wanted):
    assert found.keys() == wanted.keys()
    return {name: wanted[name].error(found[name]) for name in wanted}


def beyond(limit, errors):
    return {name: error for name, error in errors.items() if not error <= limit}


def rules_of(preset):
    return "conserving" if preset == "conserving" else "zennit"


@pytest.mark.parametrize("preset", ["published", "paper", "conserving"])
@pytest.mark.parametrize("family", FAMILIES)
def test_double_precision_equals_the_slow_way(family, preset):
    network, chip, layers, starts = case(family, torch.float64)
    explainer = LayerExplainer(network, layers, preset)
    assert explainer.path == "fast"
    assert explainer.notice is None
    wanted = wanted_of(slow_way(family, rules_of(preset), torch.float64), preset)
    assert not beyond(EXACT, errors_of(found_by(explainer, chip, starts), wanted))


@pytest.mark.parametrize("preset", ["published", "paper", "conserving"])
@pytest.mark.parametrize("family", FAMILIES)
def test_single_precision_is_as_exact_as_the_slow_way(family, preset):
    network, chip, layers, starts = case(family, torch.float32)
    explainer = LayerExplainer(network, layers, preset)
    assert explainer.path == "fast"
    found = found_by(explainer, chip, starts)
    slow, exact = (
        wanted_of(slow_way(family, rules_of(preset), dtype), preset)
        for dtype in (torch.float32, torch.float64)
    )
    errors, slow_errors = errors_of(found, exact), errors_of({n: w.value for n, w in slow.items()}, exact)
    amplified = {name for name in errors if errors[name] <= AMPLIFIED * slow_errors[name]}
    assert not beyond(SINGLE, errors_of(found, slow)).keys() - amplified


@pytest.mark.parametrize("preset", ["published", "conserving"])
def test_layers_together_equal_layers_alone_in_any_order(preset):
    network, chip, layers, starts = case("mobilenetv4_conv_small", torch.float64)
    together = found_by(LayerExplainer(network, layers[::-1], preset), chip, starts)
    for layer in layers:
        for name, alone in found_by(LayerExplainer(network, [layer], preset), chip, starts).items():
            assert itself(alone).error(together[name]) <= EXACT, name


@pytest.mark.parametrize("family", ["tf_mobilenetv3_small_minimal_100", "resnet26d"])
def test_one_explainer_serves_chips_of_any_size(family):
    network, _, layers, starts = case(family, torch.float64)
    explainer = LayerExplainer(network, layers)
    for seed, size in enumerate([(64, 64), (33, 50), (47, 70), (64, 64)]):
        chip = random_chip(seed, size)
        wanted = wanted_of(slow_relevance(network, "zennit", chip, layers, starts, CELLS), "published")
        assert not beyond(EXACT, errors_of(found_by(explainer, chip, starts), wanted))


class Upsampled(nn.Module):
    """A transposed convolution on the way: zennit has a rule for it, the fast path has none."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.SiLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(6, 5, 3, 2), nn.BatchNorm2d(5), nn.ReLU())
        self.head = nn.Conv2d(5, 7, 3)

    def forward(self, x):
        return self.head(self.up(self.down(x))).mean((2, 3))


class Standardised(nn.Module):
    """Convolutions that standardise their weights as they run."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(ScaledStdConv2d(3, 6, 3, stride=2), nn.SiLU(inplace=True))
        self.up = ScaledStdConv2d(6, 8, 3)

    def forward(self, x):
        return self.up(self.down(x)).mean((2, 3))


class Branching(nn.Module):
    """Control flow that depends on the values, which no tracing can follow."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.up = nn.Conv2d(6, 8, 3)

    def forward(self, x):
        x = self.down(x)
        return self.up(x if x.mean() > 0 else -x).mean((2, 3))


class Reflected(nn.Module):
    """A convolution that pads with something else than zeros."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1, padding_mode="reflect"), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.up = nn.Conv2d(6, 8, 3, padding="same")

    def forward(self, x):
        return self.up(self.down(x)).mean((2, 3))


UNKNOWN = {
    "ConvTranspose2d": Upsampled,
    "ScaledStdConv2d": Standardised,
    "read": Branching,
    "Conv2d": Reflected,
}
"""What the notice must name, and the network."""


def unknown_case(name, dtype=torch.float64):
    torch.manual_seed(0)
    network = randomise(UNKNOWN[name](), torch.randn(4, 3, 20, 26)).to(dtype)
    chip = random_chip(4, (20, 26), dtype)
    return network, chip, torch.randn(3, network(chip[None]).shape[1]).to(dtype)


@pytest.mark.parametrize("preset", ["published", "paper"])
@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_networks_take_the_general_path_and_say_so(name, preset):
    network, chip, starts = unknown_case(name)
    explainer = LayerExplainer(network, ["up", "down"], preset)
    found = found_by(explainer, chip, starts)
    assert explainer.path == "general"
    assert "general path" in explainer.notice
    assert name in explainer.notice
    wanted = wanted_of(slow_relevance(network, "zennit", chip, ["up", "down"], starts, CELLS), preset)
    assert not beyond(EXACT, errors_of(found, wanted))


@pytest.mark.parametrize("options", [{"path": "fast"}, {"preset": "conserving"}])
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_only_the_fast_path_can_do_is_refused_for_unknown_networks(name, options):
    with pytest.raises(EngineError, match=name):
        LayerExplainer(unknown_case(name)[0], ["down"], **options)


@pytest.mark.parametrize("family", ["mobilenetv3_small_100", "resnet18"])
def test_the_general_path_serves_known_networks_too(family):
    network, chip, layers, starts = case(family, torch.float64)
    explainer = LayerExplainer(network, layers, path="general")
    assert explainer.path == "general"
    wanted = wanted_of(slow_way(family, "zennit", torch.float64), "published")
    assert not beyond(EXACT, errors_of(found_by(explainer, chip, starts), wanted))


class Odd(nn.Module):
    """A known network but for one operation, which is done after the first layer."""

    def __init__(self, operation):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.operation = operation

    def forward(self, x):
        return self.second(self.operation(self.first(x))).mean((2, 3))


OPERATIONS = {
    "sin": torch.sin,
    "mul": lambda x: x * torch.sigmoid(x),
    "sub": lambda x: x - x.mean((2, 3), keepdim=True),
    "softmax": lambda x: torch.nn.functional.softmax(x, dim=1),
    "shape": lambda x: x + x.mean((2, 3), keepdim=True),
    "PixelShuffle": nn.PixelShuffle(1),
    "InstanceNorm2d": nn.InstanceNorm2d(4),
}
"""What the error must name, and the operation."""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_conserving_names_what_it_has_no_rule_for(operation):
    network, chip = Odd(OPERATIONS[operation]).double().eval(), random_chip(0, (9, 9))
    with pytest.raises(EngineError, match=operation):
        found_by(LayerExplainer(network, ["first"], "conserving"), chip, torch.ones(1, 4).double())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_published_differentiates_what_has_no_rule_plainly(operation):
    torch.manual_seed(1)
    network, chip, starts = Odd(OPERATIONS[operation]), random_chip(0, (9, 9)), torch.randn(3, 4).double()
    network = network.double().eval().requires_grad_(False)
    for group in (starts, starts[:1]):
        found = found_by(LayerExplainer(network, ["first"]), chip, group)
        wanted = wanted_of(slow_relevance(network, "zennit", chip, ["first"], group, CELLS), "published")
        assert not beyond(EXACT, errors_of(found, wanted))
