"""An outside explanation that must learn from a catalogue first is seen wherever explanations are."""

from __future__ import annotations

import pytest
import torch

from pairx_engine.errors import EngineError
from pairx_engine.explanations import (
    NamedChip,
    Subject,
    Trained,
    explain,
    explanations,
    usual,
)
from pairx_engine.faithfulness import ChipPair, Flipping, Protocol, ValueRange, measure_pairs
from tests.pairx_engine.small_networks import random_chip, small_network
from tests.seams.toy_explanation import Unusual, registered  # noqa: F401  # a fixture


@pytest.fixture
def subject() -> Subject:
    network = small_network("conv + batch norm + SiLU", 2, stem="conv", pool="average", neck="linear")
    return Subject(network, "first", k=2)


def test_it_is_listed_last_and_known_as_one_that_learns() -> None:
    assert list(explanations())[-1] == "unusual"
    assert isinstance(explanations()["unusual"], Trained)
    assert not isinstance(explanations()["gradient"], Trained)
    assert "gradient" in usual()
    assert "unusual" not in usual()


def test_it_explains_with_what_it_has_learned_and_not_without(subject: Subject) -> None:
    chips = [random_chip(seed) for seed in range(3)]
    state = Unusual().train(subject, [NamedChip(chip, None) for chip in chips])
    found = explain("unusual", subject, chips[0], chips[1], state)
    wanted = (chips[0] - torch.stack(chips).mean(dim=0)).abs().sum(dim=0)
    assert torch.allclose(found.maps[0], wanted)
    assert found.shown.heat[0].shape == wanted.shape
    assert len(found.shown.relevance) == 0
    with pytest.raises(EngineError, match="learns from a catalogue first"):
        explain("unusual", subject, chips[0], chips[1])


def test_its_faithfulness_is_measured_like_that_of_any_other(subject: Subject) -> None:
    chips = [random_chip(seed) for seed in range(3)]
    states = {"unusual": Unusual().train(subject, [NamedChip(chip, None) for chip in chips])}
    values = ValueRange((-2.0,) * 3, (2.0,) * 3)
    how = Flipping(n_steps=3, fill="mean")
    pairs = [ChipPair("p", chips[0], chips[1], True)]
    rows = list(
        measure_pairs(subject, pairs, values, ["gradient", "unusual"], Protocol((how,)), states=states)
    )
    assert {row.method for row in rows} == {"gradient", "unusual"}
    assert {row.measure for row in rows if row.method == "gradient"} == {
        row.measure for row in rows if row.method == "unusual"
    }


def test_whoever_names_an_unknown_one_is_told_of_it(subject: Subject) -> None:
    with pytest.raises(EngineError, match="unusual"):
        explain("usual", subject, random_chip(0), random_chip(1))


@pytest.mark.parametrize("name", ["pairx_published", "relevance_published", "gradient", "random", "centre"])
def test_who_says_that_it_sees_the_partner_does_and_nobody_else(subject: Subject, name: str) -> None:
    chip = random_chip(0)
    maps = [explain(name, subject, chip, random_chip(partner)).maps[0] for partner in (1, 2)]
    assert torch.equal(*maps) != explanations()[name].sees_partner
