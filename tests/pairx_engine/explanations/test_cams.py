"""Class activation maps and products of cells: against loops, differences of cosines, and a library."""

import importlib
import math
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

from pairx_engine.errors import EngineError
from pairx_engine.explanations import Subject, explanation_named, explanations
from pairx_engine.explanations.cams import cams
from pairx_engine.explanations.cell_points import points_of_cells
from pairx_engine.explanations.cell_products import cell_products, shares, transport
from pairx_engine.explanations.diff_cam import diff_cam
from pairx_engine.explanations.full_grad import full_gradients
from pairx_engine.explanations.integrated_gradients import integrated_gradients
from pairx_engine.explanations.recorded import recorded
from pairx_engine.photo.value_range import ValueRange
from tests.pairx_engine.explanations.learning import learned
from tests.pairx_engine.small_networks import random_chip, small_network

LAYER = "first"
NEW = [
    *(*cams(), *cell_products(), *points_of_cells(), *diff_cam(), *full_gradients(), *integrated_gradients())
]
VALUES = ValueRange((-2.0,) * 3, (2.0,) * 3)


@pytest.fixture(scope="module")
def network():
    return small_network(
        "timm InvertedResidual with gate", 2, torch.float64, stem="conv", pool="average", neck="linear"
    )


@pytest.fixture(scope="module")
def chips():
    return [random_chip(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def both(network, chips):
    with recorded(Subject(network, LAYER), *chips) as found:
        yield found


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_a_record_holds_the_layers_output_and_the_cosine(network, chips, both):
    outputs = []
    handle = network.first.register_forward_hook(lambda *given: outputs.append(given[-1][0]))
    with torch.no_grad():
        embeddings = [network(chip[None])[0] for chip in chips]
    handle.remove()
    for one, output in zip(both, outputs, strict=True):
        assert torch.equal(one.activation, output)
        assert one.cosine == pytest.approx(cosine(*embeddings), abs=1e-12)
        assert float(one.cosines_of_maps(one.activation[None])[0]) == pytest.approx(one.cosine, abs=1e-12)
        assert float(one.cosines_of_chips(one.chip[None])[0]) == pytest.approx(one.cosine, abs=1e-12)


def test_the_gradient_is_the_slope_of_the_cosine(both):
    step = 1e-6
    for one in both:
        for at in ((0, 0, 0), (3, 2, 5), (7, 1, 1)):
            moved = one.activation.expand(2, -1, -1, -1).clone()
            moved[0][at] += step
            moved[1][at] -= step
            up, down = one.cosines_of_maps(moved).tolist()
            assert float(one.gradient[at]) == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-9)


def test_with_the_norm_held_a_linear_rest_shares_out_the_whole_cosine():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7, bias=False)
    )
    network = network.double().eval()
    chips = [torch.rand(3, 9, 12, dtype=torch.float64), torch.rand(3, 8, 8, dtype=torch.float64)]
    with recorded(Subject(network, "1"), *chips) as found:
        for one in found:
            assert float((one.activation * one.share).sum()) == pytest.approx(one.cosine, abs=1e-12)
            # The full gradient leaves out what lengthens the embedding: nothing is left of the sum.
            assert float((one.activation * one.gradient).sum()) == pytest.approx(0, abs=1e-12)


def naive(one):
    """Every map by loops over channels and cells, but for those of components."""
    a, g = one.activation.numpy(), one.gradient.numpy()
    channels, height, width = a.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    n = len(cells)

    def weighted(weights):
        return np.array(
            [
                [max(0, sum(weights[c] * a[c, y, x] for c in range(channels))) for x in range(width)]
                for y in range(height)
            ]
        )

    def by_cell(value):
        return np.array(
            [[sum(value(c, y, x) for c in range(channels)) for x in range(width)] for y in range(height)]
        )

    def curvature(c):
        total = sum(a[c, y, x] for y, x in cells)
        found = 0.0
        for y, x in cells:
            slope = g[c, y, x]
            found += slope**2 / (2 * slope**2 + total * slope**3) * max(0, slope) if slope else 0
        return found

    without = []
    for c in range(channels):
        gone = one.activation.clone()
        gone[c] = 0
        without.append(float(one.cosines_of_maps(gone[None])[0]))
    return {
        "grad_cam": weighted([sum(g[c, y, x] for y, x in cells) / n for c in range(channels)]),
        "grad_cam_plus": weighted([curvature(c) for c in range(channels)]),
        "xgrad_cam": weighted(
            [
                sum(g[c, y, x] * a[c, y, x] for y, x in cells) / sum(a[c, y, x] for y, x in cells)
                for c in range(channels)
            ]
        ),
        "hires_cam": by_cell(lambda c, y, x: g[c, y, x] * a[c, y, x]),
        "elementwise_cam": by_cell(lambda c, y, x: max(0, g[c, y, x] * a[c, y, x])),
        "layer_cam": np.maximum(0, by_cell(lambda c, y, x: max(0, g[c, y, x]) * a[c, y, x])),
        "ablation_cam": weighted([(one.cosine - s) / abs(one.cosine) for s in without]),
    }


@pytest.mark.parametrize("side", [0, 1])
def test_maps_equal_the_loops(both, side):
    one = both[side]
    wanted = naive(one)
    made = {cam.name: cam.grid(one).numpy() for cam in cams() if cam.name in wanted}
    assert made.keys() == wanted.keys()
    for name, grid in made.items():
        np.testing.assert_allclose(
            grid, wanted[name], rtol=1e-9, atol=1e-12 * abs(wanted[name]).max(), err_msg=name
        )


def test_score_cam_masks_the_chip_by_each_channel(network, chips, both):
    one = both[0]
    scores = []
    for channel in one.activation:
        mask = nn.functional.interpolate(channel[None, None], one.chip.shape[-2:], mode="bilinear")[0, 0]
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        with torch.no_grad():
            scores.append(cosine(network((one.chip * mask)[None])[0], one.partner))
    top = max(scores)
    weights = [math.exp(s - top) for s in scores]
    wanted = sum(w / sum(weights) * a for w, a in zip(weights, one.activation, strict=True)).clamp(min=0)
    (made,) = (cam.grid(one) for cam in cams() if cam.name == "score_cam")
    torch.testing.assert_close(made, wanted, rtol=1e-9, atol=1e-12)


def component_of(name, one):
    (made,) = (cam.grid(one) for cam in cams() if cam.name == name)
    return made


@pytest.mark.parametrize(("name", "maps"), [("eigen_cam", "activation"), ("eigen_grad_cam", "both")])
def test_components_are_the_largest_ones_of_the_covariance(both, name, maps):
    for one in both:
        x = one.activation if maps == "activation" else one.activation * one.gradient
        cells = x.flatten(1).T.numpy()
        cells = cells - cells.mean(0)
        _, vectors = np.linalg.eigh(cells.T @ cells)
        wanted = (cells @ vectors[:, -1]).reshape(x.shape[-2:])
        found = component_of(name, one).numpy()
        np.testing.assert_allclose(np.abs(found), np.abs(wanted), rtol=1e-6, atol=1e-9 * np.abs(wanted).max())
        assert np.corrcoef(found.ravel(), x.norm(dim=0).numpy().ravel())[0, 1] >= 0


def test_the_kernel_component_is_that_of_scikit_learn(both):
    decomposition = pytest.importorskip("sklearn.decomposition")
    for one in both:
        cells = one.activation.flatten(1).T.numpy()
        wanted = decomposition.KernelPCA(n_components=1, kernel="sigmoid").fit_transform(
            cells - cells.mean(0)
        )
        found = component_of("kpca_cam", one).numpy().ravel()
        np.testing.assert_allclose(
            np.abs(found), np.abs(wanted.ravel()), rtol=1e-5, atol=1e-8 * np.abs(wanted).max()
        )


@pytest.mark.parametrize(
    ("name", "module", "kind"),
    [
        ("grad_cam", "grad_cam", "GradCAM"),
        ("hires_cam", "hirescam", "HiResCAM"),
        ("elementwise_cam", "grad_cam_elementwise", "GradCAMElementWise"),
        ("layer_cam", "layer_cam", "LayerCAM"),
        ("xgrad_cam", "xgrad_cam", "XGradCAM"),
        ("eigen_cam", "eigen_cam", "EigenCAM"),
        ("eigen_grad_cam", "eigen_grad_cam", "EigenGradCAM"),
    ],
)
def test_the_library_says_the_same(both, name, module, kind):
    """pytorch-grad-cam, where it is installed, given our activations and gradients."""
    pytest.importorskip("pytorch_grad_cam")
    library = getattr(importlib.import_module(f"pytorch_grad_cam.{module}"), kind)
    for one in both:
        theirs = object.__new__(library)
        theirs.activations_and_grads = Mock()
        given = one.activation[None].numpy(), one.gradient[None].numpy()
        wanted = theirs.get_cam_image(None, None, None, *given, False)[0]
        found = component_of(name, one).numpy()
        if name == "hires_cam":
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9 * abs(wanted).max())
        elif "eigen" in name:
            np.testing.assert_allclose(abs(found), abs(wanted), rtol=1e-5, atol=1e-8 * abs(wanted).max())
        else:
            np.testing.assert_allclose(found, np.maximum(wanted, 0), rtol=1e-3, atol=1e-6 * abs(wanted).max())


def test_shares_of_cells_are_the_products_with_all_cells_of_the_other():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, *size, generator=rng, dtype=torch.float64) for size in ((2, 3), (3, 2)))
    mean_a, mean_b = a.mean((1, 2)), b.mean((1, 2))
    norm = float(mean_a.norm() * mean_b.norm()) * a[0].numel() * b[0].numel()
    share_a, share_b = shares(a, b)
    for y in range(2):
        for x in range(3):
            wanted = sum(float(a[:, y, x] @ b[:, v, u]) for v in range(3) for u in range(2)) / norm
            assert float(share_a[y, x]) == pytest.approx(wanted, abs=1e-12)
    for grid in (share_a, share_b):
        assert float(grid.sum()) == pytest.approx(cosine(mean_a, mean_b), abs=1e-12)


def test_transport_keeps_both_distributions_and_prefers_what_is_near():
    rng = torch.Generator().manual_seed(1)
    cost = torch.rand(5, 7, generator=rng, dtype=torch.float64)
    one, other = (torch.rand(n, generator=rng, dtype=torch.float64) for n in (5, 7))
    one, other = one / one.sum(), other / other.sum()
    flow = transport(cost, one, other)
    assert (flow >= 0).all()
    torch.testing.assert_close(flow.sum(0), other, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(flow.sum(1), one, rtol=1e-2, atol=1e-4)
    even = torch.full((6,), 1 / 6, dtype=torch.float64)
    stays = transport(1 - torch.eye(6, dtype=torch.float64), even, even)
    torch.testing.assert_close(stays, torch.eye(6, dtype=torch.float64) / 6, rtol=0, atol=1e-6)


def test_a_photo_corresponds_to_itself_cell_by_cell(network, chips):
    found = explanation_named("correspondence").explain(Subject(network, LAYER, k=5), chips[0], chips[0])
    a, b = found.shown.points
    assert 1 <= len(a) <= 5
    np.testing.assert_array_equal(a, b)
    assert (np.diff(found.shown.relevance) <= 0).all()


@pytest.mark.parametrize("method", [each.name for each in NEW])
def test_a_method_says_truly_whether_it_sees_the_partner(network, chips, method):
    each, subject, other = explanations()[method], Subject(network, LAYER, values=VALUES), random_chip(5)
    state = learned(method, subject)
    maps = [each.explain(subject, chips[0], partner, state).maps[0] for partner in (chips[1], other)]
    assert torch.allclose(*maps, rtol=1e-9, atol=0) != each.sees_partner


@pytest.mark.parametrize("method", [each.name for each in NEW])
def test_the_order_of_the_photos_does_not_matter(network, chips, method):
    each, subject = explanations()[method], Subject(network, LAYER, values=VALUES)
    one, other = (
        each.explain(subject, *both, learned(method, subject)).maps for both in (chips, chips[::-1])
    )
    for found, wanted in zip(one, other[::-1], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7 * float(wanted.abs().max()))


def test_a_layer_without_maps_is_refused(network, chips):
    with pytest.raises(EngineError, match=r"layer 'neck' gives no single map"):
        explanation_named("grad_cam").explain(Subject(network, "neck"), *chips)
