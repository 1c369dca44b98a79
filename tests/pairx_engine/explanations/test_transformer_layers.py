"""Layers of transformers: tokens and maps with the channels last are explained as maps of cells."""

import pytest
import timm
import torch

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Subject, explanation_named
from pairx_engine.explanations.cams import cams
from pairx_engine.explanations.cell_points import points_of_cells
from pairx_engine.explanations.cell_products import cell_products
from pairx_engine.explanations.recorded import recorded
from pairx_engine.models.timm_model import PooledFeatures
from tests.pairx_engine.small_networks import Twice, random_chip

SIZE = (32, 48)
METHODS = [each.name for each in (*cams(), *cell_products(), *points_of_cells())]
VIT = {
    "img_size": SIZE,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 2,
    "reg_tokens": 2,
    "dynamic_img_size": True,
}
SWIN = {
    "img_size": SIZE,
    "window_size": 4,
    "embed_dim": 16,
    "depths": (2, 2, 1),
    "num_heads": (2, 2, 2),
    "strict_img_size": False,
}


def network_of(name):
    torch.manual_seed(0)
    made = {
        "tokens": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=0, **VIT),
        "mean token": lambda: timm.create_model(
            "vit_tiny_patch16_224", num_classes=0, global_pool="avg", **VIT
        ),
        "channels last": lambda: timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **SWIN),
    }[name]()
    for parameter in made.requires_grad_(False).parameters():
        # As they are made, all that attention and blocks add is next to nothing.
        parameter.normal_(std=0.3) if parameter.ndim > 1 else parameter.add_(
            0.2 * torch.randn_like(parameter)
        )
    return PooledFeatures(made).double().eval()


LAYERS = {
    "tokens": "backbone.blocks.1",
    "mean token": "backbone.blocks.2",
    "channels last": "backbone.layers.1",
}


@pytest.fixture(scope="module", params=LAYERS)
def subject(request):
    return Subject(network_of(request.param), LAYERS[request.param], k=3)


@pytest.fixture(scope="module")
def chips():
    return random_chip(0, SIZE), random_chip(1, SIZE)


def cells_by_hand(output, extra):
    """(C, h, w) cell by cell."""
    if output.ndim == 4:
        rows = [[output[0, y, x] for x in range(output.shape[2])] for y in range(output.shape[1])]
    else:
        rows = [[output[0, extra + 6 * y + x] for x in range(6)] for y in range(4)]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def test_a_record_holds_cells_of_output_gradient_and_share(subject, chips):
    layer = subject.network.get_submodule(subject.layer)
    with recorded(subject, *chips) as both:
        outputs = []
        handle = layer.register_forward_hook(lambda *given: outputs.append(given[-1].requires_grad_()))
        embedding = subject.network(chips[0][None])[0]
        handle.remove()
        cosine = embedding @ both[0].partner / (embedding.norm() * both[0].partner.norm())
        (slope,) = torch.autograd.grad(cosine, outputs)
        assert torch.equal(both[0].activation, cells_by_hand(outputs[0].detach(), both[0].grid.extra))
        torch.testing.assert_close(both[0].gradient, cells_by_hand(slope, both[0].grid.extra))
        assert both[0].gradient.any()
        assert both[0].activation.shape[1:] == (4, 6)
        assert both[0].grid.extra == (0 if both[0].grid.form == "channels last" else 3)


def test_changed_cells_go_back_into_the_layer_and_tokens_stay(subject, chips):
    with recorded(subject, *chips) as both:
        one, step = both[0], 1e-6
        assert float(one.cosines_of_maps(one.activation[None])[0]) == pytest.approx(one.cosine, abs=1e-12)
        for at in ((0, 0, 0), (3, 1, 2), (7, 0, 1)):
            moved = one.activation.expand(2, -1, -1, -1).clone()
            moved[0][at] += step
            moved[1][at] -= step
            up, down = one.cosines_of_maps(moved).tolist()
            assert float(one.gradient[at]) == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-9)


def test_pushing_and_pulling_are_the_same_derivative(subject, chips):
    with recorded(subject, *chips) as both:
        one, rng = both[0], torch.Generator().manual_seed(2)
        moves = torch.randn(2, *one.activation.shape, generator=rng, dtype=torch.float64)
        weights = torch.randn(3, len(one.embedding), generator=rng, dtype=torch.float64)
        pushed, pulled = one.pushed(moves), one.pulled(weights)
        torch.testing.assert_close(pushed @ weights.T, torch.einsum("nchw,mchw->nm", moves, pulled))
        assert pushed.abs().min() > 0
        ends = [subject.network(chips[0][None])[0]]
        layer = subject.network.get_submodule(subject.layer)
        moved = one.grid.placed(one.activation[None] + 1e-6 * moves[:1], one.output)
        handle = layer.register_forward_hook(lambda *_: moved)
        ends.append(subject.network(chips[0][None])[0])
        handle.remove()
        torch.testing.assert_close((ends[1] - ends[0]) / 1e-6, pushed[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_it(subject, chips, method):
    each, other = explanation_named(method), random_chip(5, SIZE)
    maps = each.explain(subject, *chips).maps
    for found, again in zip(maps, each.explain(subject, *chips[::-1]).maps[::-1], strict=True):
        assert found.shape == SIZE
        assert found.isfinite().all()
        assert float(found.std()) > 0
        torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-7 * float(found.abs().max()))
    changed = each.explain(subject, chips[0], other).maps[0]
    assert torch.allclose(maps[0], changed, rtol=1e-9, atol=0) != each.sees_partner


@pytest.mark.parametrize("layer", ["backbone.blocks.2", "backbone.norm"])
def test_a_layer_that_only_class_tokens_are_read_of_is_refused(chips, layer):
    with pytest.raises(EngineError, match="through class and register tokens alone.*choose an earlier block"):
        explanation_named("grad_cam").explain(Subject(network_of("tokens"), layer), *chips)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [("backbone.layers.0.blocks.0.attn", r"\(6, 16, 16\)"), ("backbone.head", r"\(1, 64\)")],
)
def test_windows_and_vectors_have_no_place(chips, layer, shape):
    with pytest.raises(EngineError, match=rf"no single map of cells: {shape} for a chip of 32 x 48 pixels"):
        explanation_named("grad_cam").explain(Subject(network_of("channels last"), layer), *chips)


def test_a_layer_that_runs_twice_is_refused(chips):
    with pytest.raises(EngineError, match="it runs 2 times in a forward pass"):
        explanation_named("grad_cam").explain(Subject(Twice().double().eval(), "conv"), *chips)
