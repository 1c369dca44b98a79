"""Replayed passes and pulls, with a stand-in for CUDA graphs.

Like a CUDA graph, it puts new results where the first ones lay.
"""

from dataclasses import fields, is_dataclass

import pytest
import torch
from torch import Tensor

from pairx_engine.device.tuning import Tuning
from pairx_engine.errors import EngineError
from pairx_engine.relevance import recorder
from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.fast import FastPath
from pairx_engine.relevance.graphs import GraphedPath
from pairx_engine.relevance.rules import convolution
from tests.pairx_engine.small_networks import random_chip, small_network

GRAPHED = Tuning(2, 2, 4, None, None, windows=False, forward="contiguous", pull=None, graphs=False)


CELLS = [[(1, 1)], [(0, 2), (3, 0)]] * 2


def tensors_of(value, seen):
    """Tensors in an object, in order: in containers, dataclasses, and what functions have closed over."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from tensors_of(one, seen)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_of(one, seen)
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name), seen)
    elif hasattr(value, "__closure__"):
        for cell in value.__closure__ or ():
            yield from tensors_of(cell.cell_contents, seen)


class Replay:
    """Runs the work again and writes what it gives over what it gave the first time."""

    count = 0

    def __init__(self, work, inputs):
        self.work, self.inputs = work, [given.clone() for given in inputs]
        work(self.inputs)
        self.outputs = work(self.inputs)
        self.kept = list(tensors_of(self.outputs, set()))

    def replay(self, inputs):
        Replay.count += 1
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        fresh = list(tensors_of(self.work(self.inputs), set()))
        assert len(fresh) == len(self.kept)
        with torch.no_grad():
            for mine, made in zip(self.kept, fresh, strict=True):
                mine.copy_(made)


@pytest.fixture
def pair(monkeypatch):
    """A plain explainer and a graphed one of the same network, four chips and starts for them."""
    monkeypatch.setattr(recorder, "_on_gpu", lambda value: True)
    Replay.count = 0
    net = small_network("conv + batch norm + SiLU", seed=1, stem="conv", pool="mean", neck="none")
    plain, graphed = (LayerExplainer(net, ["first"], tuning=GRAPHED) for _ in range(2))
    graphed._ways._way = GraphedPath(graphed._ways._way, Replay)
    chips = [random_chip(seed) for seed in range(4)]
    starts = [torch.randn(2, 8, dtype=torch.float64) for _ in chips]
    return plain, graphed, chips, starts


def same(found, wanted):
    for mine, one in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, one, rtol=1e-12, atol=1e-14)


def results(explainer, chips, starts, keep):
    seen = explainer.see_all(chips, keep)
    grids = [found["first"] for found in explainer.channel_relevances(seen, starts)]
    maps = explainer.all_pixel_maps(seen if keep else chips, "first", CELLS[: len(chips)])
    return [*[one.embedding for one in seen], *[one.features["first"] for one in seen], *grids, *maps]


@pytest.mark.parametrize("keep", [False, True])
def test_replays_give_the_numbers_of_plain_passes(pair, keep):
    plain, graphed, chips, starts = pair
    same(results(graphed, chips, starts, keep), results(plain, chips, starts, keep))
    before = set(graphed._ways._way._passes)
    same(results(graphed, chips[::-1], starts[::-1], keep), results(plain, chips[::-1], starts[::-1], keep))
    assert graphed.path == "fast"
    assert set(graphed._ways._way._passes) == before, "one capture per shape"


def test_a_pass_overwritten_by_another_is_replayed_for_its_pulls(pair):
    plain, graphed, chips, starts = pair
    seen = [graphed.see_all(some, keep=True) for some in (chips[:2], chips[2:])]
    wanted = [plain.see_all(some, keep=True) for some in (chips[:2], chips[2:])]
    # The second pass lies where the first one lay.
    replays = Replay.count
    for which in (0, 1, 1, 0):
        found = graphed.relevances(seen[which], starts[2 * which :][:2])
        expected = plain.relevances(wanted[which], starts[2 * which :][:2])
        same([one["first"] for one in found], [one["first"] for one in expected])
    # Four pulls, and three times the pass had to be brought back.
    assert Replay.count - replays == 4 + 3


def test_results_stay_when_others_are_computed(pair):
    _, graphed, chips, starts = pair
    first = results(graphed, chips[:2], starts[:2], True)[:4]
    kept = [one.clone() for one in first]
    results(graphed, chips[2:], starts[2:], True)
    same(first, kept)


def test_where_a_question_is_answered_yes_the_pass_is_recorded_plainly(pair, monkeypatch):
    plain, graphed, chips, _ = pair
    plainly, record = [], FastPath.record

    def noting(path, chips, **asked):
        plainly.append(not asked)
        return record(path, chips, **asked)

    monkeypatch.setattr(FastPath, "record", noting)
    # Answers are about numbers: here every z+ is said to have cancelled, so that sums over signs are taken.
    monkeypatch.setattr(convolution._FromOutput, "question", lambda item: ~item.cancelled.all())
    monkeypatch.setattr(convolution, "MANY_SUMMANDS", 1)
    found = graphed.all_pixel_maps(graphed.see_all(chips, keep=True), "first", [[(1, 1)]] * 4)
    assert plainly.count(True) == 2, "each pass of two photos once more, without a graph"
    monkeypatch.undo()
    same(found, plain.all_pixel_maps(chips, "first", [[(1, 1)]] * 4))


def test_graphs_need_a_gpu():
    net = small_network("conv + batch norm + SiLU", seed=1)
    with pytest.raises(EngineError, match="CUDA device"):
        LayerExplainer(net, ["first"], tuning=Tuning(**{**vars(GRAPHED), "graphs": True}))
