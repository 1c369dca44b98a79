"""Gradients that are zero outside a range of an axis say the same as with their zeros."""

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pairx_engine.relevance.explainer import LayerExplainer
from pairx_engine.relevance.rules import modified_gradients
from pairx_engine.relevance.rules.narrow import Narrow, added, narrowed, reshaped, whole_of
from tests.pairx_engine.small_transformers import transformer

SHAPES = [(2, 6, 4), (2, 3, 2, 4), (2, 24), (12, 4), (2, 6, 2, 2), (2, 3, 8), (1, 2, 6, 4)]


@st.composite
def parts(draw, shape=None):
    shape = shape or draw(st.sampled_from(SHAPES))
    axis = draw(st.integers(0, len(shape) - 1))
    start = draw(st.integers(0, shape[axis] - 1))
    length = draw(st.integers(1, shape[axis] - start))
    size = [3, *shape]
    size[axis + 1] = length
    values = torch.randn(size, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return Narrow(values, axis, start, shape[axis]), shape


@given(parts(), st.sampled_from(SHAPES))
def test_a_reshaped_part_is_the_part_of_the_reshaped(drawn, given):
    part, output = drawn
    found = reshaped(part, output, given)
    if found is None:
        return
    assert torch.equal(found.whole(), part.whole().reshape(3, *given))


@pytest.mark.parametrize(
    ("output", "given", "axis", "start", "length", "wanted"),
    [
        ((1, 5, 3, 4, 2), (1, 5, 24), 2, 2, 1, (2, 16, 8)),  # the values among queries, keys and values
        ((1, 5, 24), (1, 5, 4, 6), 1, 3, 1, (1, 3, 1)),  # a token
        ((1, 4, 6, 8), (1, 24, 8), 1, 2, 1, (1, 12, 6)),  # a row of cells
        ((1, 24, 8), (1, 4, 6, 8), 1, 13, 1, None),  # a cell is none of whole rows
        ((6, 4), (2, 3, 4), 0, 2, 2, None),
    ],
)
def test_ranges_stay_ranges_where_they_can(output, given, axis, start, length, wanted):
    size = [1, *output]
    size[axis + 1] = length
    found = reshaped(Narrow(torch.ones(size), axis, start, output[axis]), output, given)
    assert wanted == (None if found is None else (found.axis, found.start, found.length))


@given(st.data())
def test_sums_are_those_of_the_whole(data):
    shape = data.draw(st.sampled_from(SHAPES))
    both = [data.draw(parts(shape))[0] for _ in range(2)]
    given = [one.whole() if data.draw(st.booleans()) else one for one in both]
    before = [whole_of(one).clone() for one in given]
    assert torch.allclose(whole_of(added(*given)), before[0] + before[1])
    assert all(torch.equal(whole_of(one), kept) for one, kept in zip(given, before, strict=True))


@given(parts())
def test_a_gradient_is_narrowed_where_most_of_it_is_zero(drawn):
    part, _ = drawn
    found = narrowed(part.whole(), part.axis)
    assert torch.equal(whole_of(found), part.whole())
    assert isinstance(found, Narrow) == (2 * part.length <= part.size)


def test_nothing_is_narrowed_to_nothing():
    assert torch.equal(narrowed(torch.zeros(1, 2, 3), 1), torch.zeros(1, 2, 3))


def test_a_network_that_reads_its_class_token_pulls_its_last_block_through_that_row(monkeypatch):
    network, (chip, _), _ = transformer("ViT (DINOv2)", torch.float64)
    explainer = LayerExplainer(network, ["blocks.1"], "cp")
    seen = explainer.see(chip, keep=True)
    rows = []
    product = modified_gradients.product

    def counted(given, *rest):
        rows.append(prod(given.shape[:-1]))
        return product(given, *rest)

    monkeypatch.setattr(modified_gradients, "product", counted)
    start = seen.embedding[None]
    seen.kept.pulls.above(start)
    tokens = 1 + 4 * 6
    # fc2 and fc1 by gamma, two products each, then the projection; queries, keys and values are made of all tokens.
    assert rows == [1, 1, 1, 1, 1, tokens]
