"""Shorter number formats: near the exact result, free of overflow, and nothing switched on for good."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from pairx_engine.errors import EngineError
from pairx_engine.models import load_model
from pairx_engine.pair.explain import explain_pair
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.precision import PRECISIONS, Precision, precision_named, tensor_cores
from pairx_engine.relevance.rules.weights import product
from tests.pairx_engine.small_networks import random_chip

SHORT = ("bfloat16", "float16")


@pytest.fixture(scope="module")
def model():
    return load_model("embedded")


@pytest.fixture(scope="module")
def chips(model):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    return [
        np.kron(c, np.ones((14, 14, 1), dtype=np.uint8))[: model.chip.size[0], : model.chip.size[1]]
        for c in coarse
    ]


@pytest.fixture(scope="module")
def exact(model, chips):
    return explain_pair(model, *chips, n_pixel_maps=4)


@pytest.mark.parametrize("preset", ["published", "conserving"])
@pytest.mark.parametrize("precision", SHORT)
def test_shorter_formats_agree_with_the_exact_result(model, chips, exact, precision, preset):
    wanted = exact if preset == "published" else explain_pair(model, *chips, preset=preset, n_pixel_maps=4)
    found = explain_pair(model, *chips, preset=preset, n_pixel_maps=4, precision=precision)
    np.testing.assert_allclose(found.photos[0].embedding, wanted.photos[0].embedding, rtol=0, atol=1e-5)
    assert not np.array_equal(found.finding.sides[0].grid, wanted.finding.sides[0].grid)
    for side in (0, 1):
        a, b = (one.finding.sides[side].grid.ravel() for one in (found, wanted))
        assert spearmanr(a, b).statistic > 0.99
        assert np.corrcoef(a, b)[0, 1] > 0.999
    top = [
        {
            (*a, *b)
            for a, b in zip(
                o.finding.sides[0].cells[:20].tolist(), o.finding.sides[1].cells[:20].tolist(), strict=True
            )
        }
        for o in (found, wanted)
    ]
    assert len(top[0] & top[1]) >= 19


@pytest.mark.parametrize("precision", SHORT)
def test_pixel_maps_in_shorter_formats_agree(model, chips, precision):
    chip = model.normalise([chips[0]])[0]
    cells = [[1, 1], [5, 5], [9, 3]]
    exact, found = (
        LayerExplainer(model.network, [model.layer], precision=p).pixel_maps(chip, model.layer, cells)
        for p in ("float32", precision)
    )
    assert found.dtype == torch.float32
    for a, b in zip(exact, found, strict=True):
        assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.999


@pytest.mark.parametrize("precision", SHORT)
def test_channels_that_are_off_do_not_drown_the_others(precision):
    # A depthwise output whose input is all but zero has a ratio that half precision cannot hold beside the
    # rest.
    torch.manual_seed(0)
    nn = torch.nn
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    with torch.no_grad():
        network[0].weight[0] = 0
        network[0].bias[0] = -25
        network[2].weight[0] = -network[2].weight[0].abs()
        network[2].bias[0] = 1
    chip, start = torch.randn(3, 16, 16), torch.ones(1, 4)
    exact, found = (
        explainer.channel_relevance(explainer.see(chip), start)["0"][0]
        for explainer in (LayerExplainer(network, ["0"], "conserving", p) for p in ("float32", precision))
    )
    assert float((found - exact).abs().sum() / exact.abs().sum()) < 0.02


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_half_precision_products_survive_any_range(scale):
    torch.manual_seed(0)
    scaled, weight = torch.randn(3, 8) * scale, torch.randn(8, 5)
    scaled[1] = 0
    found = product(scaled, weight.half(), torch.matmul, PRECISIONS["float16"])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found / scale, scaled @ weight / scale, rtol=0, atol=2e-2)
    assert (found[1] == 0).all()


def test_without_rescaling_half_precision_would_overflow():
    # What the rescaling is for: relevances of deep networks leave the format's range.
    plain = Precision("plain", torch.float16)
    assert (
        not product(torch.full((1, 4), 1e30), torch.ones(4, 2).half(), torch.matmul, plain).isfinite().all()
    )


def test_full_precision_products_are_torchs_own():
    a, b = torch.randn(3, 4), torch.randn(4, 2)
    for name in ("float32", "tf32"):
        assert torch.equal(product(a, b, torch.matmul, PRECISIONS[name]), a @ b)


def test_tf32_and_short_sums_are_switched_inside_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    products, seen = torch.backends.cuda.matmul, []

    def switches():
        short = (
            products.allow_bf16_reduced_precision_reduction,
            products.allow_fp16_reduced_precision_reduction,
        )
        return products.allow_tf32, torch.backends.cudnn.allow_tf32, *short

    # Back to torch's default: another test may have settled the process's device.
    products.allow_bf16_reduced_precision_reduction = products.allow_fp16_reduced_precision_reduction = True
    before = switches()

    def fail():
        with tensor_cores(PRECISIONS["tf32"]):
            seen.append(switches())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == [(True, True, False, False)]
    assert switches() == before
    with tensor_cores(PRECISIONS["float32"]):
        assert switches() == (False, False, False, False)
    assert switches() == before


def test_double_precision_networks_are_pulled_in_double_precision():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    explainer = LayerExplainer(net.double(), ["1"])
    seen = explainer.see(random_chip(8, (9, 9)))
    assert explainer.relevance(seen, torch.ones(1, 4).double())["1"].dtype == torch.float64


def test_unknown_precisions_and_those_of_the_fast_path_alone_are_refused(model):
    with pytest.raises(EngineError, match="float32, tf32, bfloat16, float16"):
        precision_named("float8")
    with pytest.raises(EngineError, match="needs the fast path"):
        LayerExplainer(model.network, [model.layer], precision="bfloat16", path="general")


def test_forward_passes_run_without_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    seen, convolve = [], torch.nn.functional.conv2d

    def watched(*given, **named):
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return convolve(*given, **named)

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    explainer = LayerExplainer(net, ["0"], precision="tf32", path="fast")
    monkeypatch.setattr(torch.nn.functional, "conv2d", watched)
    for keep in (False, True):
        seen.clear()
        explainer.see(random_chip(1, (8, 8), torch.float32), keep=keep)
        assert set(seen) == {(False, False)}
