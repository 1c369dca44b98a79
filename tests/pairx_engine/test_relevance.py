"""The explainer: starts, many starts at once, several layers, pixel maps, threads, and what it refuses."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pairx_engine.lrp import lrp_rules
from pairx_engine.relevance import LayerExplainer, cosine_start


class Residual(nn.Module):
    """A block whose sum is made in place, as in many ResNets."""

    def __init__(self, channels):
        super().__init__()
        self.side = nn.Conv2d(channels, channels, 1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        out = self.side(x)
        out += self.conv(x)
        return out


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        )
        self.two = Residual(4)
        self.three = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3, padding=1), nn.SiLU())
        self.unused = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.three(self.two(self.one(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def chips():
    return torch.randn(4, 3, 10, 12, generator=torch.Generator().manual_seed(1)).double()


def starts_of(count, seed=2):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)).double()


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-12)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 10_000))
def test_cosine_start_is_the_gradient_of_the_cosine(size, seed):
    generator = torch.Generator().manual_seed(seed)
    e0, e1 = (torch.randn(3, size, generator=generator).double().requires_grad_() for _ in range(2))
    torch.nn.functional.cosine_similarity(e0, e1, dim=1).sum().backward()
    g0, g1 = cosine_start(e0.detach(), e1.detach())
    torch.testing.assert_close(g0, e0.grad, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(g1, e1.grad, rtol=1e-7, atol=1e-9)
    assert (e0.detach() * g0).sum(dim=1).abs().max() < 1e-9


def test_cosine_start_of_a_zero_embedding_is_finite():
    for gradient in cosine_start(torch.zeros(4), torch.ones(4)):
        assert gradient.isfinite().all()


def test_activations_are_those_of_the_network(net, chips):
    seen = LayerExplainer(net, ["one", "three"]).activations(chips)
    assert torch.equal(seen.embeddings, net(chips))
    assert torch.equal(seen.features["one"], net.one(chips))
    assert not seen.embeddings.requires_grad


def test_activations_are_the_layers_own_although_overwritten_later(net, chips):
    seen = LayerExplainer(net, ["one.1"]).activations(chips)
    assert torch.equal(seen.features["one.1"], net.one[1](net.one[0](chips)))
    assert (seen.features["one.1"] < 0).any()


def test_activations_within_open_rules_are_bit_equal(net, chips):
    explainer = LayerExplainer(net, ["two"])
    wanted = explainer.activations(chips)
    with explainer.open():
        found = explainer.activations(chips)
    assert torch.equal(found.embeddings, wanted.embeddings)
    assert torch.equal(found.features["two"], wanted.features["two"])


@pytest.mark.parametrize("layers", [["one"], ["two"], ["one", "two", "three"], ["three", "one"]])
def test_many_starts_equal_single_calls(net, chips, layers):
    explainer, starts = LayerExplainer(net, layers), starts_of(5)
    together = explainer.relevance(chips[0], starts)
    for p, start in enumerate(starts):
        assert_same(
            {name: grid[p : p + 1] for name, grid in together.items()},
            explainer.relevance(chips[0], start[None]),
        )


def test_several_layers_equal_one_at_a_time(net, chips):
    names, starts = ["one", "two.side", "two", "three.1", "three"], starts_of(3)
    together = LayerExplainer(net, names).relevance(chips[1], starts)
    for name in names:
        assert_same({name: together[name]}, LayerExplainer(net, [name]).relevance(chips[1], starts))


@pytest.mark.parametrize("layer", ["one", "two", "three"])
def test_relevance_is_the_gradient_under_the_rules_of_the_whole_network(net, chips, layer):
    start, kept = starts_of(1), []
    handle = net.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: kept.append(output)
    )
    with lrp_rules(net):
        embedding = net(chips[:1].clone().requires_grad_())
        (channels,) = torch.autograd.grad(embedding, kept[0], start)
    handle.remove()
    found = LayerExplainer(net, [layer], "paper").relevance(chips[0], start)
    assert_same(found, {layer: channels.sum(dim=1)})


@pytest.mark.parametrize(
    "layers", [["two.side"], ["two.conv"], ["two.side", "two.conv"], ["two.conv", "three"]]
)
def test_layers_beside_the_main_path_equal_single_calls(net, chips, layers):
    explainer, starts = LayerExplainer(net, layers), starts_of(4)
    together = explainer.relevance(chips[0], starts)
    for p, start in enumerate(starts):
        assert_same(
            {name: grid[p : p + 1] for name, grid in together.items()},
            explainer.relevance(chips[0], start[None]),
        )


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_relevance_is_linear_in_the_start(net, chips, data):
    a, b = data.draw(st.floats(-3, 3)), data.draw(st.floats(-3, 3))
    explainer, starts = LayerExplainer(net, ["two"], "paper"), starts_of(2, data.draw(st.integers(0, 99)))
    mixed = explainer.relevance(chips[0], (a * starts[:1] + b * starts[1:]))["two"]
    parts = explainer.relevance(chips[0], starts)["two"]
    torch.testing.assert_close(mixed[0], a * parts[0] + b * parts[1], rtol=1e-9, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=9),
    st.integers(1, 10),
    st.sampled_from(["one", "two.side"]),
)
def test_many_photos_equal_one_call_per_photo_in_any_order_and_chunk(net, chips, owners, chunk, layer):
    explainer, starts, owner = LayerExplainer(net, [layer]), starts_of(len(owners)), torch.tensor(owners)
    found = explainer.relevances(chips, owner, starts, chunk=chunk)
    for p, photo in enumerate(owners):
        wanted = explainer.relevance(chips[photo], starts[p : p + 1])
        assert_same({layer: found[layer][p : p + 1]}, wanted)


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 50])
def test_pixel_maps_equal_one_backward_each(net, chips, chunk):
    explainer = LayerExplainer(net, ["two"])
    cells = [[0, 0], [5, 4], [3, 1], [3, 1], [2, 2]]
    found = explainer.pixel_maps(chips[0], "two", cells, chunk=chunk)
    assert found.shape == (5, 10, 12)
    for (column, row), grid in zip(cells, found, strict=True):
        pixels = chips[:1].clone().requires_grad_()
        with lrp_rules(net):
            features = net.two(net.one(pixels))
            start = torch.zeros_like(features)
            start[0, :, row, column] = features.detach()[0, :, row, column]
            (gradient,) = torch.autograd.grad(features, pixels, start)
        torch.testing.assert_close(grid, gradient[0].sum(dim=0).abs(), rtol=1e-10, atol=1e-12)


def test_no_cells_give_no_maps(net, chips):
    assert LayerExplainer(net, ["two"]).pixel_maps(chips[0], "two", []).shape == (0, 10, 12)


def test_open_rules_keep_no_tensors_between_calls(net, chips):
    explainer = LayerExplainer(net, ["two"])
    with explainer.open():
        explainer.relevance(chips[0], starts_of(2))
        explainer.activations(chips)
        kept = [
            hook.__self__
            for module in net.modules()
            for hook in module._forward_pre_hooks.values()
            if hasattr(hook, "__self__")
        ]
        assert kept
        assert all(not hook.stored_tensors and not hook.tensor_handles for hook in kept)


def test_open_calls_equal_closed_calls(net, chips):
    explainer, starts = LayerExplainer(net, ["two"]), starts_of(3)
    wanted = explainer.relevance(chips[0], starts), explainer.pixel_maps(chips[0], "two", [[1, 1]])
    with explainer.open(), explainer.open():
        for _ in range(2):
            assert torch.equal(explainer.relevance(chips[0], starts)["two"], wanted[0]["two"])
            assert torch.equal(explainer.pixel_maps(chips[0], "two", [[1, 1]]), wanted[1])


def test_threads_sharing_a_network_get_what_they_would_alone(net, chips):
    explainers = [LayerExplainer(net, ["two"]), LayerExplainer(net, ["one"])]
    starts, wanted, found = starts_of(3), {}, {}

    def work(index):
        explainer, chip = explainers[index % 2], chips[index]
        maps = explainer.pixel_maps(chip, explainer.layers[0], [[1, 2]])
        plain = explainer.activations(chip[None]).embeddings
        return explainer.relevance(chip, starts)[explainer.layers[0]], maps, plain

    for index in range(4):
        wanted[index] = work(index)
    barrier = threading.Barrier(4)

    def repeat(index):
        barrier.wait()
        found[index] = [work(index) for _ in range(5)]

    threads = [threading.Thread(target=repeat, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        assert len(found[index]) == 5
        for results in found[index]:
            assert all(torch.equal(a, b) for a, b in zip(results, wanted[index], strict=True))


def test_refusals_name_the_cure(net, chips):
    with pytest.raises(ValueError, match="near names: .*three"):
        LayerExplainer(net, ["tree"])
    with pytest.raises(ValueError, match="at least one layer"):
        LayerExplainer(net, [])
    with pytest.raises(ValueError, match="published, paper"):
        LayerExplainer(net, ["one"], "best")
    with pytest.raises(ValueError, match="not a map"):
        LayerExplainer(net, ["head"]).activations(chips)
    with pytest.raises(ValueError, match="no part"):
        LayerExplainer(net, ["unused"]).activations(chips)
    with pytest.raises(ValueError, match="not among"):
        LayerExplainer(net, ["one"]).pixel_maps(chips[0], "two", [[0, 0]])
    with pytest.raises(ValueError, match="outside"):
        LayerExplainer(net, ["one"]).pixel_maps(chips[0], "one", [[0, 5]])
    with pytest.raises(ValueError, match="starts have shape"):
        LayerExplainer(net, ["one"]).relevance(chips[0], torch.zeros(2, 4).double())
    with pytest.raises(ValueError, match="at least one start"):
        LayerExplainer(net, ["one"]).relevance(chips[0], torch.zeros(0, 5).double())


def test_a_layer_that_runs_twice_is_refused(chips):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(self.conv(x)).mean((2, 3))

    with pytest.raises(ValueError, match="more than once"):
        LayerExplainer(Twice().double().eval(), ["conv"]).activations(chips)
