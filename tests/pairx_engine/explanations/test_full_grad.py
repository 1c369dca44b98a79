"""FullGrad: complete for networks of pieces that are linear, against loops, parameters and a library."""

import numpy as np
import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional

from pairx_engine.explanations import Subject, explanation_named
from pairx_engine.explanations.full_grad import full_gradient_terms
from pairx_engine.models.timm_model import PooledFeatures
from tests.pairx_engine.small_networks import random_chip, randomise, small_network

CHIP = (17, 22)


def relu_network(bias=False):
    """Convolutions with and without batch norms, ReLUs, plain pooling, a linear head."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, 2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5, bias=bias),
    )
    return randomise(network, torch.randn(8, 3, *CHIP)).double()


@pytest.fixture(scope="module")
def chips():
    return random_chip(0, CHIP), random_chip(1, CHIP)


def share_of(network, chip, partner):
    """The cosine with the partner, as a function whose norm is a constant."""
    embedding = network(chip[None])[0]
    return embedding @ partner / (embedding.detach().norm() * partner.norm())


def bias_share(network, chip, partner):
    """The sum over all bias parameters of bias times the share's slope."""
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    for bias in biases:
        bias.requires_grad_(True)
    slopes = torch.autograd.grad(share_of(network, chip, partner), biases, allow_unused=True)
    for bias in biases:
        bias.requires_grad_(False)
    return sum(float((b.detach() * s).sum()) for b, s in zip(biases, slopes, strict=True) if s is not None)


@pytest.mark.parametrize("bias", [False, True])
def test_all_terms_sum_to_the_cosine(chips, bias):
    network = relu_network(bias)
    found = explanation_named("full_grad_signed").explain(Subject(network, "5"), *chips)
    cosine = float(functional.cosine_similarity(*(network(chip[None]) for chip in chips)))
    for side in (0, 1):
        kept = {name: float(values[side]) for name, values in found.arrays.items() if values.shape == (2,)}
        assert kept["share"] == pytest.approx(cosine, abs=1e-12)
        assert abs(kept["gap"]) < 1e-12
        assert min(abs(kept["input_sum"]), abs(kept["bias_sum"])) > 1e-3
        assert (abs(kept["unplaced_sum"]) > 1e-3) == bias
        assert float(found.maps[side].sum()) == pytest.approx(kept["input_sum"] + kept["bias_sum"], abs=1e-12)


def test_a_term_is_the_slope_at_each_place_of_the_layer(chips):
    network = relu_network()
    chip, partner = chips[0], network(chips[1][None])[0]
    terms = full_gradient_terms(network, chip, partner)
    assert [tuple(term.shape) for term in terms.biases] == [(6, 17, 22), (8, 3, 5)]
    norm = network(chip[None])[0].norm() * partner.norm()
    batch_norm = network[4]
    implicit = batch_norm.bias - batch_norm.weight * batch_norm.running_mean / torch.sqrt(
        batch_norm.running_var + batch_norm.eps
    )
    for layer, bias, term in (("0", network[0].bias, terms.biases[0]), ("4", implicit, terms.biases[1])):
        for at in ((0, 0, 0), (3, 2, 4), (5, 1, 3)):
            ends = []
            for step in (1e-6, -1e-6):
                moved = torch.zeros(1, *term.shape, dtype=torch.float64)
                moved[0][at] = step
                handle = network.get_submodule(layer).register_forward_hook(
                    lambda _, inputs, output, moved=moved: output + moved
                )
                ends.append(float(network(chip[None])[0] @ partner / norm))
                handle.remove()
            slope = (ends[0] - ends[1]) / 2e-6
            assert float(term[at]) == pytest.approx(float(bias[at[0]]) * slope, rel=1e-5, abs=1e-9)


def stretched(grid):
    return functional.interpolate(grid[None, None], CHIP, mode="bilinear", align_corners=False)[0, 0]


def test_the_published_map_stretches_each_channel_to_its_own_range(chips):
    network = relu_network()
    terms = full_gradient_terms(network, chips[0], network(chips[1][None])[0])
    wanted = torch.zeros(CHIP, dtype=torch.float64)
    for term in (terms.pixels, *terms.biases):
        for channel in term.abs():
            spread = channel.max() - channel.min()
            if spread > 0:
                wanted += stretched((channel - channel.min()) / spread)
    found = explanation_named("full_grad").explain(Subject(network, "5"), *chips).maps[0]
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_gates_and_necks_have_no_place_and_are_counted(chips):
    network = small_network(
        "timm InvertedResidual with gate", 2, stem="conv", pool="average", neck="linear + batch norm"
    )
    partner = network(chips[1][None])[0]
    terms = full_gradient_terms(network, chips[0], partner)
    gates = sum(name.endswith(("conv_reduce", "conv_expand")) for name, _ in network.named_modules())
    assert gates == 4
    assert all(term.shape[1] * term.shape[2] > 1 for term in terms.biases)
    slopes = {}
    for name, module in network.named_modules():
        if name.endswith(("conv_reduce", "conv_expand")):
            module.bias.requires_grad_(True)
            slopes[name] = module.bias
    found = torch.autograd.grad(share_of(network, chips[0], partner), list(slopes.values()))
    wanted = sum(float((b.detach() * s).sum()) for b, s in zip(slopes.values(), found, strict=True))
    norm = network.neck[1]
    implicit = norm.bias - norm.weight * norm.running_mean / torch.sqrt(norm.running_var + norm.eps)
    embedding = network(chips[0][None])[0].detach()
    wanted += float(implicit @ partner) / float(embedding.norm() * partner.norm())
    assert terms.unplaced == pytest.approx(wanted, abs=1e-12)
    assert abs(wanted) > 1e-3


def test_norms_that_hold_their_activation_are_the_same_as_both_apart(chips):
    torch.manual_seed(1)
    apart = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    apart = randomise(apart, torch.randn(8, 3, *CHIP)).double()
    together = nn.Sequential(apart[0], BatchNormAct2d(4).double().eval(), *apart[3:])
    together[1].load_state_dict(apart[1].state_dict())
    partner = torch.randn(4, dtype=torch.float64)
    wanted, found = (full_gradient_terms(network, chips[0], partner) for network in (apart, together))
    assert len(found.biases) == 1
    torch.testing.assert_close(found.biases[0], wanted.biases[0])
    assert abs(found.sums["gap"]) < 1e-12


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2, "reg_tokens": 2}),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "window_size": 4, "depths": (2, 1), "num_heads": (2, 4), "embed_dim": 16},
        ),
    ],
)
def test_biases_of_tokens_are_where_their_cells_are_and_the_rest_is_counted(name, options):
    torch.manual_seed(0)
    network = PooledFeatures(timm.create_model(name, num_classes=0, **options)).double().eval()
    for key, parameter in network.requires_grad_(False).named_parameters():
        if key.endswith("bias"):
            parameter.normal_(std=0.1)
    chip, partner = random_chip(0, (32, 32)), network(random_chip(1, (32, 32))[None])[0]
    terms = full_gradient_terms(network, chip, partner)
    sums = terms.sums
    wanted = bias_share(network, chip, partner)
    assert sums["bias_sum"] + sums["unplaced_sum"] == pytest.approx(wanted, abs=1e-9)
    # Class tokens, and windows, in which nobody knows the place.
    assert abs(sums["unplaced_sum"]) > 1e-6
    grids = {tuple(term.shape[1:]) for term in terms.biases}
    assert grids == ({(4, 4)} if "vit" in name else {(8, 8), (4, 4)})
    assert sums["gap"] != pytest.approx(0, abs=1e-3)


def test_the_library_says_the_same(chips):
    """pytorch-grad-cam's FullGrad, where it is installed; its target is made large against its epsilon."""
    pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.fullgrad_cam import FullGrad

    network = relu_network().float().requires_grad_(True)
    given = [chip.float() for chip in chips]
    partner = network(given[1][None])[0].detach()
    with FullGrad(network, []) as library:

        def target(embedding):
            return 1e6 * (embedding @ partner) / (embedding.detach().norm() * partner.norm())

        wanted = library(given[0][None].clone(), [target])[0]
    found = explanation_named("full_grad").explain(Subject(network, "5"), *given).maps[0].numpy()
    scaled = (found - found.min()) / (found.max() - found.min())
    np.testing.assert_allclose(scaled, wanted, atol=2e-3)
    assert np.corrcoef(scaled.ravel(), wanted.ravel())[0, 1] > 0.99999
