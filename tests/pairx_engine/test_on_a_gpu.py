"""What the engine would do on a GPU, counted on fake tensors (`tests.benchmarks.fake_gpu`).

No number is computed here.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from pairx_engine.device.tuning import tuning_for
from pairx_engine.models import load_model
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.starts import starts_of
from tests.benchmarks.fake_gpu import DEVICE, fake_chips, fake_explainer
from tests.benchmarks.launch_counter import Counts, counted

SIZE = 96
CELLS = [[(0, 0), (3, 2), (1, 1)], [(2, 1), (0, 3), (4, 4)]]


def embedded(preset: str = "published", precision: str = "float32", **changes: object) -> LayerExplainer:
    model = load_model("embedded")
    tuning = replace(tuning_for(DEVICE, precision), **changes)
    return fake_explainer(model.network, preset, precision, layer=model.layer, tuning=tuning)


def pair(explainer: LayerExplainer, cells: list[list[tuple[int, int]]] = CELLS) -> Counts:
    """Both photos of a pair explained, in the steady state."""
    chips, layer = fake_chips(2, SIZE), explainer.layers[0]

    def work() -> object:
        seen = explainer.see_all(chips, keep=True)
        starts = starts_of(explainer.preset, *(one.embedding for one in seen))
        explainer.relevances(seen, [start[None] for start in starts])
        return explainer.all_pixel_maps(seen, layer, cells)

    counted(work)
    return counted(work)


def convolutions(explainer: LayerExplainer) -> int:
    return sum(isinstance(module, nn.Conv2d) for module in explainer.network.modules())


@pytest.mark.parametrize(("preset", "rounds"), [("published", 1), ("paper", 1), ("conserving", 2)])
def test_a_recorded_pass_waits_for_its_answers_together(preset: str, rounds: int) -> None:
    explainer = embedded(preset)
    (chip,) = fake_chips(1, SIZE)
    counted(lambda: explainer.see(chip, keep=True))
    assert (
        counted(lambda: explainer.see(chip, keep=True)).synchronisations == rounds < convolutions(explainer)
    )


def test_in_single_precision_maps_and_operands_have_one_layout() -> None:
    found = pair(embedded())
    assert not found.conversions
    assert "last" not in {shape.layout for shape in found.shapes}


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
def test_the_forward_pass_keeps_its_layout_and_format_whatever_the_pulls_have(precision: str) -> None:
    explainer = embedded(precision=precision)
    (chip,) = fake_chips(1, SIZE)
    counted(lambda: explainer.see(chip))
    forward = counted(lambda: explainer.see(chip))
    assert {shape.dtype for shape in forward.shapes} == {torch.float32}
    assert "last" not in {shape.layout for shape in forward.shapes}
    assert "last" in {shape.layout for shape in pair(explainer).shapes - forward.shapes}


@pytest.mark.slow
def test_other_cells_bring_no_new_shapes() -> None:
    explainer = embedded()
    first, second = pair(explainer), pair(explainer, [[(5, 5)], [(0, 1), (2, 2)]])
    assert first.shapes == second.shapes
    assert first.launches == second.launches


def test_depthwise_products_are_turned_round_by_convolutions() -> None:
    # At stride one; at two there is no such convolution.
    def depthwise(shapes: frozenset) -> set[tuple[bool, tuple[int, ...]]]:
        return {(s.transposed, s.stride) for s in shapes if s.groups > 1 and s.groups == s.weight[0]}

    found = depthwise(pair(embedded()).shapes)
    assert (False, (1, 1)) in found
    assert not any(transposed and stride == (1, 1) for transposed, stride in found)


@pytest.mark.slow
def test_two_photos_recorded_together_take_half_the_launches() -> None:
    together, alone = pair(embedded()), pair(embedded(photos=1))
    assert together.launches < 0.55 * alone.launches
    assert together.flop == pytest.approx(alone.flop, rel=0.01)


@pytest.mark.slow
def test_ten_partners_are_ten_starts() -> None:
    model = load_model("embedded")
    explainer = fake_explainer(model.network, layer=model.layer).suited_to("score")
    (chip,) = fake_chips(1, SIZE)
    seen = []
    counted(lambda: seen.append(explainer.see(chip)))

    def pull(n: int) -> float:
        starts = []
        counted(lambda: starts.append(torch.empty(n, *seen[0].embedding.shape, device=DEVICE)))
        counted(lambda: explainer.relevance(seen[0], starts[0]))
        return counted(lambda: explainer.relevance(seen[0], starts[0])).flop

    # One size of groups for whatever a photo has: its numbers do not depend on how many partners it has.
    assert pull(10) == pull(3) < pull(11)
