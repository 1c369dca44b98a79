"""The counter against operations counted by hand, and the engine's branches for a GPU without one."""

import json
import sys

import pytest
import torch
from torch.nn import functional

from pairx_engine.models import load_model
from pairx_engine.relevance.precision import PRECISIONS
from pairx_engine.relevance.presets import PRESETS
from tests.benchmarks import launches
from tests.benchmarks.fake_gpu import fake_chips, fake_explainer, gradients
from tests.benchmarks.launch_counter import counted, layout_of
from tests.pairx_engine.small_networks import small_network


def on_gpu(*shape, last=False, **options):
    made = torch.empty(*shape, device="cuda", **options)
    return made.contiguous(memory_format=torch.channels_last) if last else made


def given(*shapes, **options):
    """Tensors from before the count."""
    made = []
    counted(lambda: made.extend(on_gpu(*shape, **options) for shape in shapes))
    return made


def test_convolutions_and_sums_are_launches_and_views_are_not():
    x, w = given((1, 8, 16, 16), (4, 8, 3, 3))

    def work():
        y = functional.conv2d(x, w, padding=1)
        return (y + 1).view(4, 256).t()[1:]

    found = counted(work)
    assert {name: tally.launches for name, tally in found.ops.items()} == {"convolution": 1, "add": 1}
    assert found.launches == 2
    assert found.flop == found.ops["convolution"].flop == 2 * 4 * 8 * 9 * 256
    assert found.ops["convolution"].bytes == 4 * (8 * 256 + 4 * 8 * 9 + 4 * 256)
    assert found.ops["add"].bytes == 4 * 2 * 4 * 256
    assert found.synchronisations == 0
    assert not found.conversions


def test_bytes_are_read_where_they_are_and_written_once():
    x, y = given((4, 256), (4, 1))
    moved = {
        "mul": lambda: x * y.expand(4, 256),
        "copy_": lambda: x.copy_(y),
        "fill_": lambda: x.fill_(1),
        "add_": lambda: x.add_(1),
        "abs": lambda: torch.abs(x, out=x),
    }
    elements = {"mul": 2 * 1024 + 4, "copy_": 1024 + 4, "fill_": 1024, "add_": 2 * 1024, "abs": 2 * 1024}
    for name, work in moved.items():
        found = counted(work)
        assert {op: tally.bytes for op, tally in found.ops.items()} == {name: 4 * elements[name]}


def test_what_asks_for_a_value_waits_and_is_answered():
    (x,) = given((4, 256))
    asked = {}

    def work():
        asked["all"] = bool((x > 0).all())
        asked["any"] = bool((x > 0).any())
        asked["comparison"] = bool(x.amin() < 0)
        asked["number"] = x.sum().item()
        asked["list"] = torch.stack([(x > 0).all(), (x > 1).all()]).tolist()
        asked["array"] = (x.sum(dim=1) > 0).cpu().numpy().tolist()
        asked["places"] = tuple(x.nonzero().shape)

    found = counted(work)
    assert asked == {
        "all": True,
        "any": False,
        "comparison": False,
        "number": 0,
        "list": [True, True],
        "array": [False] * 4,
        "places": (1024, 2),
    }
    assert found.synchronisations == 7
    assert sum(found.places.values()) == 7
    assert counted(work, answer=lambda origin: origin == "any").synchronisations == 7
    assert asked["any"] is True
    assert asked["all"] is False


def test_copies_between_host_and_gpu_wait_unless_told_not_to():
    def work():
        there = torch.tensor([[1, 2], [3, 4]]).to("cuda")
        there.to("cpu", non_blocking=True)
        return there.cpu()

    found = counted(work)
    assert (found.synchronisations, found.launches) == (2, 0)


def test_layouts_that_meet_are_conversions():
    first, last, weight = (
        *given((1, 8, 16, 16)),
        *given((1, 8, 16, 16), last=True),
        *given((16, 8, 3, 3)),
    )
    (last_weight,) = given((16, 8, 3, 3), last=True)
    assert [layout_of(t) for t in (first, last, *given((8, 8)), *given((1, 8, 1, 1)))] == [
        "first",
        "last",
        None,
        None,
    ]
    assert counted(lambda: first + first).conversions == {}
    assert counted(lambda: first + last).conversions == {"mixed": 1}
    assert counted(lambda: first.contiguous(memory_format=torch.channels_last)).conversions == {"copied": 1}
    assert counted(lambda: last.contiguous(memory_format=torch.channels_last)).launches == 0
    assert counted(lambda: functional.conv2d(first, weight)).conversions == {}
    assert counted(lambda: functional.conv2d(last, last_weight)).conversions == {}
    # The library reorders what is not channels last as soon as one operand is.
    assert counted(lambda: functional.conv2d(last, weight)).conversions == {"operand": 1}
    assert counted(lambda: functional.conv2d(first, last_weight)).conversions == {"operand": 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_results_of_convolutions_lie_as_their_library_lays_them(dtype):
    first, last = given((2, 8, 9, 9), dtype=dtype) + given((2, 8, 9, 9), dtype=dtype, last=True)
    weight, last_weight = given((8, 8, 3, 3), dtype=dtype) + given((8, 8, 3, 3), dtype=dtype, last=True)
    for x in (first, last):
        for w in (weight, last_weight):
            for multiply in (functional.conv2d, functional.conv_transpose2d):
                made = []
                counted(lambda f=multiply, x=x, w=w, made=made: made.append(f(x, w)))
                wanted = "first" if (x is first and w is weight) or dtype == torch.float64 else "last"
                assert layout_of(made[0]) == wanted


def test_shapes_of_convolutions_are_told_apart():
    x, wide, w = given((1, 8, 16, 16), (1, 8, 16, 20), (8, 8, 3, 3))

    def work():
        functional.conv2d(x, w)
        functional.conv2d(x, w)
        functional.conv2d(wide, w)

    assert len(counted(work).shapes) == 2
    assert len(counted(lambda: (functional.conv2d(x, w), functional.conv2d(x, w, stride=2))).shapes) == 2


def test_memory_is_the_most_that_is_alive_at_once():
    (x,) = given((256, 256))
    kilobytes = 256 * 256 * 4

    def work():
        first = x + 1
        second = first + 1
        view = second.view(-1)
        del first, second
        third = view + 1
        del view
        return third.add_(1)

    found = counted(work)
    assert (found.peak, found.kept) == (2 * kilobytes, kilobytes)
    assert counted(lambda: x.add_(1)).peak == 0
    assert counted(lambda: None).kept == 0


def test_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    leaf, other = torch.rand(1, 4, 6, 6, requires_grad=True), torch.rand(4, requires_grad=True)
    output = functional.avg_pool2d((leaf + leaf.pow(2)) * other.view(1, 4, 1, 1), 6).flatten(1)
    unused = torch.rand(3, requires_grad=True)
    start, starts = torch.rand(1, 4), torch.rand(5, 1, 4)
    options = {"retain_graph": True, "allow_unused": True}
    for g, batched in ((start, False), (starts, True)):
        wanted = torch.autograd.grad(output, [leaf, other, unused], g, is_grads_batched=batched, **options)
        found = gradients(output, [leaf, other, unused], g, is_grads_batched=batched, **options)
        assert wanted[2] is found[2] is None
        for a, b in zip(found[:2], wanted[:2], strict=True):
            torch.testing.assert_close(a, b)
    (itself,) = gradients(leaf, [leaf], torch.ones_like(leaf))
    assert torch.equal(itself, torch.ones_like(leaf))


def explained(explainer, size):
    """Counts of a recorded photo with three starts and two pixel maps, after checks of what came out."""
    seen, shapes = [], []
    (chip,), layer = fake_chips(1, size), explainer.layers[0]

    def work():
        seen.append(explainer.see(chip, keep=True))
        starts = launches.partners_starts(explainer, seen[0], 3)
        shapes.append(explainer.relevance(seen[0], starts)[layer].shape)
        shapes.append(explainer.pixel_maps(seen[0], layer, [[0, 0], [3, 1]]).shape)

    found, grid = counted(work), seen[0].features[layer].shape[-2:]
    assert shapes == [(3, *grid), (2, size, size)]
    assert all(tensor.is_cuda for tensor in (seen[0].embedding, *seen[0].features.values()))
    return found


@pytest.mark.parametrize("precision", list(PRECISIONS))
@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_and_precision_runs_on_a_fake_gpu(preset, precision):
    network = small_network("timm EdgeResidual", 0, torch.float32, "conv", "GeM", "batch norm")
    found = explained(fake_explainer(network, preset, precision, "first"), 32)
    assert found.kept > 0
    # Stem, and two blocks of two; forward, z+, and down.
    assert sum(tally.launches for tally in found.ops.values() if tally.flop) >= 3 * 5


@pytest.mark.parametrize(("preset", "precision"), [("published", "float32"), ("conserving", "bfloat16")])
def test_a_whole_model_runs_on_a_fake_gpu(preset, precision):
    model = load_model("embedded")
    assert explained(fake_explainer(model.network, preset, precision, model.layer), 64).launches > 200


@pytest.mark.parametrize("block", ["timm BasicBlock", "timm ConvNeXtBlock", "padded average pooling"])
def test_other_networks_run_on_a_fake_gpu(block):
    explainer = fake_explainer(small_network(block, seed=0, dtype=torch.float32), layer="first")
    assert counted(lambda: launches.whole_pair(explainer, fake_chips(2, 32)))


def test_the_first_photo_costs_more_than_those_after_it():
    model = load_model("embedded")
    explainer = fake_explainer(model.network, layer=model.layer)
    (chip,) = fake_chips(1, 64)
    first, second, third = (counted(lambda: explainer.see(chip, keep=True)) for _ in range(3))
    assert first.launches > second.launches
    assert second == third


@pytest.mark.slow
def test_the_command_line_prints_and_writes_what_it_counted(monkeypatch, capsys, tmp_path):
    file = tmp_path / "found.json"
    monkeypatch.setattr(launches, "MAPS", 2)
    command = ["launches", "--network", "mobilenet", "--size", "64", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", [*command, "--ops", "forward"])
    assert launches.main() == 0
    printed = capsys.readouterr().out
    found = json.loads(file.read_text(encoding="utf-8"))
    assert list(found)[:2] == ["forward", "recorded forward"]
    assert all(name in printed for name in (*found, "cudnn_batch_norm"))
    assert found["whole pair"]["launches"] > found["recorded forward"]["launches"]
    before = {**found, "forward": {**found["forward"], "launches": 7}}
    assert f"| forward | 7 → {found['forward']['launches']} |" in launches.table(found, True, before)
