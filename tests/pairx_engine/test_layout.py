"""Maps stay channels last from the first product to the last, even where a step leaves it open."""

import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.layout import channels_last, is_channels_last, laid_out_like

LAYERS = ["blocks.1", "blocks.3"]


class Convolved(TorchDispatchMode):
    """Notes the layout of every map of several channels and cells that a convolution or batch norm reads."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        if call.overloadpacket in (torch.ops.aten.convolution, torch.ops.aten.native_batch_norm):
            maps = args[0]
            if maps.shape[1] > 1 and maps.shape[2] * maps.shape[3] > 1:
                self.seen.append((tuple(maps.shape), is_channels_last(maps)))
        return call(*args, **(kwargs or {}))


def noted(work):
    with Convolved() as mode:
        result = work()
    assert len(mode.seen) >= 6
    wrong = [shape for shape, channels_are_last in mode.seen if not channels_are_last]
    assert not wrong
    return result


def test_every_product_of_an_explanation_reads_channels_last():
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv2_050", num_classes=0).eval()
    explainer = LayerExplainer(network, LAYERS, path="fast")
    chip = torch.randn(3, 64, 64)
    seen, kept = noted(lambda: explainer.see(chip)), noted(lambda: explainer.see(chip, keep=True))
    starts = torch.randn(2, len(seen.embedding))
    for one in (seen, kept):
        noted(lambda one=one: explainer.relevance(one, starts))
        for layer in LAYERS:
            noted(lambda one=one, layer=layer: explainer.pixel_maps(one, layer, [(0, 0), (1, 2)]))


def test_features_in_another_layout_say_the_same():
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv2_050", num_classes=0).eval()
    explainer = LayerExplainer(network, LAYERS, path="fast")
    seen = explainer.see(torch.randn(3, 64, 64))
    stored = {name: values.contiguous().clone() for name, values in seen.features.items()}
    again = type(seen)(seen.chip, seen.embedding, stored, outputs=stored)
    starts = torch.randn(2, len(seen.embedding))
    of_seen = explainer.relevance(seen, starts)
    of_stored = noted(lambda: explainer.relevance(again, starts))
    assert all(torch.equal(of_seen[name], of_stored[name]) for name in LAYERS)


def test_open_strides_are_closed_without_a_copy():
    one_cell = torch.randn(1, 5, 1, 1)
    one_item = torch.randn(4, 3, 5).permute(2, 0, 1)[None]
    for maps in (one_cell, one_item):
        closed = channels_last(maps)
        _, c, h, w = maps.shape
        assert closed.stride() == (h * w * c, 1, w * c, c)
        assert closed.data_ptr() == maps.data_ptr()
        assert torch.equal(closed, maps)


def test_other_orders_are_copied():
    maps = torch.randn(2, 3, 4, 5)
    assert is_channels_last(channels_last(maps))
    assert torch.equal(channels_last(maps), maps)
    assert laid_out_like(maps, maps) is maps
    assert is_channels_last(laid_out_like(channels_last(maps), maps))
