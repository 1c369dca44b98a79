"""Transformers of every family in miniature, with random weights."""

from functools import cache

import timm
import torch
from timm.models.edgenext import EdgeNeXt
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pairx_engine.models.cells import cell_grid, extra_tokens
from tests.pairx_engine.small_networks import random_chip, randomise

SMALL = {"embed_dim": 24, "depth": 3, "num_heads": 4, "num_classes": 0}


def vit(**options):
    return lambda: VisionTransformer(**{"img_size": (28, 42), "patch_size": 7, **SMALL, **options})


def eva(**options):
    return lambda: Eva(**{"img_size": (32, 48), "patch_size": 8, **SMALL, **options})


def dinov3(**options):
    return lambda: timm.create_model(
        "vit_small_patch16_dinov3", num_classes=0, embed_dim=24, depth=3, num_heads=2, patch_size=8, **options
    )


SWIN = {"img_size": (32, 48), "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 0}  # fmt: skip
EDGENEXT = {"dims": (8, 16, 24, 32), "depths": (1, 2, 2, 1), "heads": (2, 2, 2, 2), "num_classes": 0}

# Builder, layers, height and width of the chip.
FAMILIES = {
    "ViT (DINOv2)": (vit(init_values=1.0), ["blocks.0", "blocks.1"], (28, 42)),
    "ViT with registers": (vit(init_values=1.0, reg_tokens=3, no_embed_class=True), ["blocks.1"], (28, 42)),
    "ViT, mean of tokens, normed queries": (vit(global_pool="avg", qk_norm=True, class_token=False), ["blocks.1"], (28, 42)),
    "ViT, attention pooled": (vit(global_pool="map", class_token=False), ["blocks.1", "blocks.2"], (28, 42)),
    "ViT, any size": (vit(dynamic_img_size=True, global_pool="avg"), ["blocks.1"], (35, 49)),
    "ViT, gated": (vit(mlp_layer=timm.layers.SwiGLUPacked, mlp_ratio=2.0), ["blocks.1"], (28, 42)),
    "ViT, root-mean-square norms": (vit(norm_layer=timm.layers.RmsNorm, qk_norm=True, global_pool="avg"), ["blocks.1"], (28, 42)),
    "DINOv3": (dinov3(), ["blocks.0", "blocks.1"], (32, 48)),
    "EVA-02": (eva(swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True, qkv_fused=False, num_heads=3), ["blocks.1"], (32, 48)),
    "Swin": (lambda: SwinTransformer(**SWIN), ["layers.0", "layers.1.blocks.0"], (32, 48)),
    "Swin, any size": (lambda: SwinTransformer(**SWIN, strict_img_size=False), ["layers.0"], (40, 32)),
    "SwinV2": (lambda: SwinTransformerV2(**SWIN), ["layers.0", "layers.1"], (32, 48)),
    "EdgeNeXt": (lambda: EdgeNeXt(**EDGENEXT), ["stages.1", "stages.2"], (64, 96)),
}  # fmt: skip


@cache
def transformer(family, dtype):
    """Network, chip and another, and layers; the same numbers in both formats."""
    build, layers, size = FAMILIES[family]
    torch.manual_seed(len(family))
    network = randomise(build(), torch.randn(2, 3, *size))
    chips = [random_chip(seed, size, torch.float32).to(dtype) for seed in (1, 2)]
    return network.to(dtype), chips, layers


def beside_attention(network):
    """Weights of the layers that make queries, keys and values, or read what attention gives, by their names."""
    names = ("qkv", "q", "k", "v", "kv", "proj", "q_proj", "k_proj", "v_proj", "out")
    found = []
    for path, module in network.named_modules():
        inside = any("attn" in part or "xca" in part for part in path.split("."))
        if inside and path.rpartition(".")[2] in names and isinstance(module, nn.Linear):
            found.append(module.weight)
    return found


def as_maps(network, layer, chip):
    """Turns an output of the layer for such chips into maps (N, C, h, w)."""
    outputs = []
    handle = network.get_submodule(layer).register_forward_hook(lambda m, i, o: outputs.append(o))
    network(chip[None])
    handle.remove()
    return cell_grid(outputs[0], chip.shape[-2:], extra_tokens(network, layer)).maps
