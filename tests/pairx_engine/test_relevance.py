"""The explainer: starts, several layers, pixel maps, threads, and what it refuses.

Many starts are pulled at once.
"""

import dataclasses
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pairx_engine.device.groups import in_groups
from pairx_engine.device.tuning import CPU
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.hooks import lrp_rules
from pairx_engine.relevance.presets import REDUCTIONS, preset_named
from pairx_engine.relevance.starts import cosine_shares, cosine_start
from pairx_engine.relevance.starts import starts_of as starts_of_preset
from pairx_engine.relevance.tape import Tape
from tests.pairx_engine.small_networks import Twice


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


def relevance(explainer, chip, starts):
    return explainer.relevance(explainer.see(chip), starts)


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


def test_shares_sum_to_the_cosine():
    e0, e1 = torch.randn(2, 5, 7).double().unbind()
    shares0, shares1 = cosine_shares(e0, e1)
    assert torch.equal(shares0, shares1)
    wanted = torch.nn.functional.cosine_similarity(e0, e1, dim=1)
    torch.testing.assert_close(shares0.sum(dim=1), wanted, rtol=1e-12, atol=1e-12)


def test_presets_choose_their_start():
    e0, e1 = torch.randn(2, 6)
    assert torch.equal(starts_of_preset(preset_named("published"), e0, e1)[1], cosine_start(e0, e1)[1])
    assert torch.equal(starts_of_preset(preset_named("conserving"), e0, e1)[1], cosine_shares(e0, e1)[1])


PATHS = pytest.mark.parametrize("path", ["fast", "general"])


@PATHS
def test_what_is_seen_is_the_networks_own(net, chips, path):
    seen = LayerExplainer(net, ["one", "three"], path=path).see(chips[0])
    torch.testing.assert_close(seen.embedding, net(chips[:1])[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(seen.features["one"], net.one(chips[:1])[0], rtol=1e-12, atol=1e-12)
    assert not seen.embedding.requires_grad


@PATHS
@pytest.mark.parametrize("preset", ["published", "paper"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_reduction_given_takes_the_place_of_the_presets_own(net, chips, path, preset, reduction):
    explainer, starts = (
        LayerExplainer(net, ["one", "three"], preset, path=path, reduction=reduction),
        starts_of(3),
    )
    assert (explainer.preset.name, explainer.preset.reduction) == (preset, reduction)
    seen = explainer.see(chips[0])
    channels = explainer.channel_relevance(seen, starts)
    wanted = {
        "abs_of_sum": {n: c.sum(dim=1).abs() for n, c in channels.items()},
        "signed_sum": {n: c.sum(dim=1) for n, c in channels.items()},
        "sum_of_abs": {n: c.abs().sum(dim=1) for n, c in channels.items()},
        "positive_sum": {n: c.sum(dim=1).clamp(min=0) for n, c in channels.items()},
    }
    found = explainer.relevance(seen, starts)
    at_once = explainer.relevance_by_reduction(seen, starts, REDUCTIONS)
    assert all(torch.equal(at_once[reduction][name], found[name]) for name in found)
    for how, grids in wanted.items():
        assert_same(at_once[how], grids)
    assert_same(found, wanted.pop(reduction))
    for other in wanted.values():
        assert any(not torch.allclose(found[name], other[name]) for name in found)


@PATHS
def test_features_are_the_layers_own_although_overwritten_later(net, chips, path):
    seen = LayerExplainer(net, ["one.1"], path=path).see(chips[0])
    wanted = net.one[1](net.one[0](chips[:1]))[0]
    torch.testing.assert_close(seen.features["one.1"], wanted, rtol=1e-12, atol=1e-12)
    assert (seen.features["one.1"] < 0).any()


@pytest.mark.parametrize("layers", [["one"], ["two"], ["one", "two", "three"], ["three", "one"]])
def test_many_starts_equal_single_calls(net, chips, layers):
    explainer, starts = LayerExplainer(net, layers), starts_of(5)
    together = relevance(explainer, chips[0], starts)
    for p, start in enumerate(starts):
        assert_same(
            {name: grid[p : p + 1] for name, grid in together.items()},
            relevance(explainer, chips[0], start[None]),
        )


def test_several_layers_equal_one_at_a_time(net, chips):
    names, starts = ["one", "two.side", "two", "three.1", "three"], starts_of(3)
    together = relevance(LayerExplainer(net, names), chips[1], starts)
    for name in names:
        assert_same({name: together[name]}, relevance(LayerExplainer(net, [name]), chips[1], starts))


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
    found = relevance(LayerExplainer(net, [layer], "paper"), chips[0], start)
    assert_same(found, {layer: channels.sum(dim=1)})


@pytest.mark.parametrize(
    "layers", [["two.side"], ["two.conv"], ["two.side", "two.conv"], ["two.conv", "three"]]
)
def test_layers_beside_the_main_path_equal_single_calls(net, chips, layers):
    explainer, starts = LayerExplainer(net, layers), starts_of(4)
    together = relevance(explainer, chips[0], starts)
    for p, start in enumerate(starts):
        assert_same(
            {name: grid[p : p + 1] for name, grid in together.items()},
            relevance(explainer, chips[0], start[None]),
        )


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_relevance_is_linear_in_the_start(net, chips, data):
    a, b = data.draw(st.floats(-3, 3)), data.draw(st.floats(-3, 3))
    explainer, starts = LayerExplainer(net, ["two"], "paper"), starts_of(2, data.draw(st.integers(0, 99)))
    mixed = relevance(explainer, chips[0], (a * starts[:1] + b * starts[1:]))["two"]
    parts = relevance(explainer, chips[0], starts)["two"]
    torch.testing.assert_close(mixed[0], a * parts[0] + b * parts[1], rtol=1e-9, atol=1e-10)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.sampled_from(["one", "two.side"]))
def test_a_starts_numbers_do_not_depend_on_its_company(net, chips, chosen, layer):
    explainer, starts = LayerExplainer(net, [layer]), starts_of(10)
    seen = explainer.see(chips[0])
    everyone = explainer.relevance(seen, starts)[layer]
    assert torch.equal(explainer.relevance(seen, starts[chosen])[layer], everyone[chosen])


def test_large_maps_are_not_filled_up_and_give_the_same_numbers(net, monkeypatch):
    side = 24
    explainer, starts = LayerExplainer(net, ["one"]), starts_of(7)
    seen = explainer.see(torch.randn(3, side, side, dtype=torch.float64))
    filled = explainer.relevance(seen, starts)["one"]
    sizes, pull = [], Tape.pull
    monkeypatch.setattr(Tape, "pull", lambda *given: sizes.append(len(given[2])) or pull(*given))
    explainer.tuning = dataclasses.replace(CPU, filled_below=1)
    torch.testing.assert_close(explainer.relevance(seen, starts)["one"], filled, rtol=1e-12, atol=1e-14)
    assert sizes == [5, 2]


@pytest.mark.parametrize("layer", ["one", "two.side"])
def test_what_was_seen_is_enough_above_the_layer(net, chips, layer):
    explainer, starts = LayerExplainer(net, [layer]), starts_of(2)
    seen = explainer.see(chips[0])
    wanted = explainer.relevance(seen, starts)
    beside = dataclasses.replace(seen, chip=torch.full_like(seen.chip, torch.nan))
    found = explainer.relevance(beside, starts)[layer]
    # A layer that a branch goes around is the one case that needs the chip again.
    assert torch.equal(found, wanted[layer]) if layer == "one" else found.isnan().all()


@PATHS
def test_pixel_maps_equal_one_backward_each(net, chips, path):
    explainer = LayerExplainer(net, ["two"], path=path)
    cells = [[0, 0], [5, 4], [3, 1], [3, 1], [2, 2]]
    found = explainer.pixel_maps(chips[0], "two", cells)
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


def test_inference_mode_changes_nothing(net, chips):
    explainer, start = LayerExplainer(net, ["two"]), starts_of(2)
    wanted = relevance(explainer, chips[0], start)["two"], explainer.pixel_maps(chips[0], "two", [[1, 1]])
    with torch.inference_mode():
        found = (
            relevance(explainer, chips[0].clone(), start.clone())["two"],
            explainer.pixel_maps(chips[0].clone(), "two", [[1, 1]]),
        )
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


class Memory:
    """Work that runs out of memory above a number of items at once."""

    def __init__(self, fits, error):
        self.fits, self.error, self.sizes = fits, error, []

    def __call__(self, group, size):
        self.sizes.append(size)
        if size > self.fits:
            raise self.error
        return list(group)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory")],
)
@pytest.mark.parametrize(("fits", "sizes"), [(8, [8, 8]), (4, [8, 4, 4, 4]), (1, [8, 4, 2] + [1] * 10)])
def test_running_out_of_memory_halves_the_group_and_goes_on(error, fits, sizes):
    work = Memory(fits, error)
    assert [item for group in in_groups(range(10), 8, work) for item in group] == list(range(10))
    assert work.sizes == sizes


def test_a_short_group_is_halved_from_its_own_length():
    """A group of five that has room for sixty-four: smaller fillings first, down to a single item alone."""
    work = Memory(2, torch.OutOfMemoryError("CUDA out of memory"))
    assert [item for group in in_groups(range(5), 64, work) for item in group] == list(range(5))
    assert work.sizes == [64, 3, 2, 2, 2]
    alone = Memory(1, torch.OutOfMemoryError("CUDA out of memory"))
    assert list(in_groups("a", 64, alone)) == [["a"]]
    assert alone.sizes == [64, 1]


def test_an_error_that_kills_the_device_is_not_tried_again():
    work = Memory(0, RuntimeError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal"):
        list(in_groups(range(3), 8, work))
    assert work.sizes == [8]


def test_other_errors_and_a_single_item_that_does_not_fit_are_raised():
    with pytest.raises(torch.OutOfMemoryError):
        list(in_groups(range(3), 2, Memory(0, torch.OutOfMemoryError())))
    with pytest.raises(RuntimeError, match="shapes"):
        list(in_groups(range(3), 2, Memory(0, RuntimeError("shapes differ"))))


def test_explanations_go_on_in_smaller_groups_when_memory_runs_out(net, chips, monkeypatch):
    explainer, starts = LayerExplainer(net, ["one"]), starts_of(5)
    seen = explainer.see(chips[0])
    wanted = explainer.relevance(seen, starts)["one"]
    sizes, pull = [], Tape.pull

    def small_memory(self, source, relevance, *rest):
        sizes.append(len(relevance))
        if len(relevance) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pull(self, source, relevance, *rest)

    monkeypatch.setattr(Tape, "pull", small_memory)
    found = explainer.relevance(seen, starts)["one"]
    assert sizes == [5, 3, 2, 2, 2]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@PATHS
def test_changed_weights_are_noticed(chips, path):
    torch.manual_seed(3)
    net = Net().double().eval()
    explainer, start = LayerExplainer(net, ["one"], path=path), starts_of(1)
    before = relevance(explainer, chips[0], start)["one"]
    with torch.no_grad():
        net.head.weight.mul_(-1.5)
        net.two.conv.weight.add_(0.1)
    after = relevance(explainer, chips[0], start)["one"]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, relevance(LayerExplainer(net, ["one"]), chips[0], start)["one"])


@PATHS
def test_threads_sharing_a_network_get_what_they_would_alone(net, chips, path):
    explainers = [LayerExplainer(net, ["two"], path=path), LayerExplainer(net, ["one"], path=path)]
    starts, wanted, found = starts_of(3), {}, {}

    def work(index):
        explainer, chip = explainers[index % 2], chips[index]
        maps = explainer.pixel_maps(chip, explainer.layers[0], [[1, 2]])
        plain = explainer.see(chip).embedding
        return relevance(explainer, chip, starts)[explainer.layers[0]], maps, plain

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
    with pytest.raises(ValueError, match="positive_sum"):
        LayerExplainer(net, ["one"], reduction="mean")
    with pytest.raises(ValueError, match="not a map"):
        LayerExplainer(net, ["head"]).see(chips[0])
    with pytest.raises(ValueError, match="no part"):
        LayerExplainer(net, ["unused"]).see(chips[0])
    with pytest.raises(ValueError, match="not among"):
        LayerExplainer(net, ["one"]).pixel_maps(chips[0], "two", [[0, 0]])
    with pytest.raises(ValueError, match="outside"):
        LayerExplainer(net, ["one"]).pixel_maps(chips[0], "one", [[0, 5]])
    with pytest.raises(ValueError, match="starts have shape"):
        relevance(LayerExplainer(net, ["one"]), chips[0], torch.zeros(2, 4).double())
    with pytest.raises(ValueError, match="at least one of them"):
        relevance(LayerExplainer(net, ["one"]), chips[0], torch.zeros(0, 5).double())


def test_a_layer_that_runs_twice_is_refused(chips):
    with pytest.raises(ValueError, match="more than once"):
        LayerExplainer(Twice().double().eval(), ["conv"]).see(chips[0])
