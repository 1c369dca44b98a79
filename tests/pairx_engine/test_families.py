"""The engine against the slow way: every model family, and shallow and deep layers.

Both are compared under all presets and in both float formats.
"""

from functools import cache

import pytest
import timm
import torch
from torchvision.models import EfficientNet, MobileNetV3, ResNet
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.resnet import BasicBlock, Bottleneck

from pairx_engine.models.miewid import build_miewid
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.starts import cosine_shares, cosine_start
from tests.pairx_engine.comparison import (
    CELLS,
    EXACT,
    SINGLE,
    beyond,
    errors_of,
    found_by,
    itself,
    wanted_of,
)
from tests.pairx_engine.slow_relevance import slow_relevance
from tests.pairx_engine.small_networks import random_chip, randomise

AMPLIFIED = 8
"""How many times as much as the slow way the fast path may err, where both err by more than `SINGLE`.

Both do where cancellation in the network (a pooled mean or a linear output near zero) amplifies single
precision's rounding.
"""
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
    "efficientnet_b0": (timm_blocks("efficientnet_b0"), ["blocks.1", "blocks.4.1.conv_dw"], (48, 32)),
    "tf_efficientnetv2_b0": (timm_blocks("tf_efficientnetv2_b0"), ["blocks.1", "blocks.3.0.bn2", "blocks.4"], (33, 48)),
    "efficientnetv2_rw_t": (timm_blocks("efficientnetv2_rw_t"), ["blocks.2", "blocks.4"], (48, 64)),
    "efficientnet_lite0": (timm_blocks("efficientnet_lite0"), ["blocks.2", "blocks.4"], (48, 48)),
    "mobilenetv2_100": (timm_blocks("mobilenetv2_100"), ["blocks.2", "blocks.3.1.bn1", "blocks.5"], (48, 64)),
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


def sampled(families, always):
    """Families as parameters: one of each kind of block by default, all of them with the slow tests."""
    return [pytest.param(name, marks=() if name in always else pytest.mark.slow) for name in families]


ALWAYS = (
    "efficientnet_b0",
    "mobilenetv2_100",
    "resnet50",
    "seresnet50",
    "convnext_atto",
    "torchvision mobilenet_v3",
    "MiewID",
)


def rules_of(preset):
    return "conserving" if preset == "conserving" else "zennit"


@pytest.mark.parametrize("preset", ["published", "paper", "conserving"])
@pytest.mark.parametrize("family", sampled(FAMILIES, ALWAYS))
def test_double_precision_equals_the_slow_way(family, preset):
    network, chip, layers, starts = case(family, torch.float64)
    explainer = LayerExplainer(network, layers, preset)
    assert explainer.path == "fast"
    assert explainer.notice is None
    wanted = wanted_of(slow_way(family, rules_of(preset), torch.float64), preset)
    assert not beyond(EXACT, errors_of(found_by(explainer, chip, starts), wanted))


@pytest.mark.parametrize("preset", ["published", "paper", "conserving"])
@pytest.mark.parametrize("family", sampled(FAMILIES, ALWAYS))
def test_single_precision_is_as_exact_as_the_slow_way(family, preset):
    network, chip, layers, starts = case(family, torch.float32)
    explainer = LayerExplainer(network, layers, preset)
    assert explainer.path == "fast"
    found = found_by(explainer, chip, starts, keep=True)
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


@pytest.mark.parametrize("family", ["mobilenetv3_small_100", "resnet18"])
def test_the_general_path_serves_known_networks_too(family):
    network, chip, layers, starts = case(family, torch.float64)
    explainer = LayerExplainer(network, layers, path="general")
    assert explainer.path == "general"
    wanted = wanted_of(slow_way(family, "zennit", torch.float64), "published")
    assert not beyond(EXACT, errors_of(found_by(explainer, chip, starts), wanted))
