"""Checks of explanations: partner, collage, shuffled weights, agreement of ranks; against loops and known maps."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from pairx_engine.explanations import Subject, explain
from pairx_engine.faithfulness import Asked, ChipPair, Protocol, ValueRange, measure
from pairx_engine.faithfulness.agreement import GRID, rank_correlation
from pairx_engine.faithfulness.collage import collage_of, share_inside
from pairx_engine.faithfulness.randomisation import shuffled
from tests.benchmarks.faithfulness.drawn import looked
from tests.pairx_engine.small_networks import random_chip, small_network

VALUES = ValueRange((-2.0,) * 3, (2.0,) * 3)


@pytest.fixture(scope="module")
def subject():
    network = small_network("conv + batch norm + SiLU", 2, stem="conv", pool="average", neck="linear")
    return Subject(network, "first", k=2)


def checks(subject, method, similar=True, n_others=3):
    others = tuple(random_chip(seed) for seed in range(50, 50 + n_others))
    given = ChipPair("p", random_chip(0), random_chip(1), similar, others)
    rows = measure(Asked(subject, given, method, VALUES), Protocol())
    return {row.measure: row.value for row in rows}


def test_ranks_of_maps_are_compared_over_cells_as_scipy_does():
    a, b = (torch.from_numpy(np.random.default_rng(seed).random((40, 64))) for seed in (0, 1))
    side = 40 // GRID
    cells = [
        [
            float(one[row : row + side, column : column + side].sum())
            for row in range(0, 40, side)
            for column in range(0, 64, side)
        ]
        for one in (a, b)
    ]
    assert rank_correlation(a, b) == pytest.approx(spearmanr(*cells).statistic, abs=1e-12)
    assert rank_correlation(a, a) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert math.isnan(rank_correlation(a, torch.ones_like(a)))


@pytest.mark.parametrize("shape", [(20, 30), (21, 33)])
def test_a_collage_holds_four_photos_and_the_first_where_it_says(shape):
    chips = [torch.full((3, *shape), float(i)) for i in range(4)]
    places = set()
    for name in map(str, range(40)):
        made, place = collage_of(chips[0], chips[1:], name)
        assert made.shape == (3, *shape)
        assert torch.equal(made[:, *place], torch.zeros_like(made[:, *place]))
        assert sorted({round(v, 4) for v in made.flatten().tolist()}) == [0, 1, 2, 3]
        assert float((made == 0).double().mean()) == pytest.approx(0.25, abs=0.04)
        places.add((place[0].start, place[1].start))
    assert len(places) == 4
    assert torch.equal(collage_of(chips[0], chips[1:], "a")[0], collage_of(chips[0], chips[1:], "a")[0])


def test_the_share_inside_counts_what_speaks_for_the_similarity_alone():
    relevance = torch.tensor([[1.0, -5.0], [2.0, 1.0]])
    assert share_inside(relevance, (slice(1, 2), slice(0, 1))) == 0.5
    assert share_inside(relevance, (slice(0, 1), slice(1, 2))) == 0.0
    assert math.isnan(share_inside(-relevance.abs(), (slice(0, 1), slice(0, 1))))


def test_upper_weights_are_shuffled_and_nothing_else_is(subject):
    network, chips = subject.network, random_chip(0)[None]
    order = [name for name, p in network.named_parameters() if p.ndim > 1]
    for share, touched in ((0.01, 1), (0.5, round(0.5 * len(order))), (1.0, len(order))):
        changed = shuffled(network, chips, share, seed=3)
        for (name, before), after in zip(network.named_parameters(), changed.parameters(), strict=True):
            assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
            assert torch.equal(before, after) != (name in order[len(order) - touched :]), name
    assert all(map(torch.equal, changed.parameters(), shuffled(network, chips, 1.0, seed=3).parameters()))
    assert not all(map(torch.equal, changed.parameters(), shuffled(network, chips, 1.0, seed=4).parameters()))


def test_later_is_what_runs_later_not_what_is_listed_later():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.stem = nn.Linear(4, 5), nn.Conv2d(3, 4, 3)

        def forward(self, chips):
            return self.head(self.stem(chips).mean((2, 3)))

    torch.manual_seed(0)
    network = Backwards()
    changed = shuffled(network, torch.rand(1, 3, 8, 8), 0.5)
    assert torch.equal(changed.stem.weight, network.stem.weight)
    assert not torch.equal(changed.head.weight, network.head.weight)


def test_blind_maps_are_seen_to_be_blind(subject):
    found = checks(subject, "random_smooth")
    assert (
        found["partner_correlation"] == found["randomised_all"] == found["randomised_top"] == pytest.approx(1)
    )
    assert checks(subject, "simexpert")["simexpert_correlation"] == pytest.approx(1)
    assert checks(subject, "eigen_cam")["partner_correlation"] == pytest.approx(1)


def test_a_map_that_depends_on_partner_and_weights_is_seen_to_do_so(subject):
    found = checks(subject, "hires_cam")
    assert found["partner_correlation"] < 0.95
    assert found["randomised_all"] < 0.9
    assert 0 <= found["localisation"] <= 1
    assert found["seconds"] > 0


def test_each_check_is_of_the_maps_that_it_names(subject):
    found = checks(subject, "hires_cam")
    a, b, *others = (random_chip(seed) for seed in (0, 1, 50, 51, 52))

    def first(*chips, of=subject):
        return explain("hires_cam", of, *chips).maps[0]

    assert found["partner_correlation"] == rank_correlation(first(a, b), first(a, others[0]))
    made, place = collage_of(a, others, "p")
    assert found["localisation"] == share_inside(first(made, b), place)
    for name, share in (("randomised_top", 0.25), ("randomised_all", 1.0)):
        other = Subject(shuffled(subject.network, a[None], share), "first", k=2)
        assert found[name] == pytest.approx(rank_correlation(first(a, b), first(a, b, of=other)))


def test_checks_without_company_are_left_out(subject):
    assert "localisation" not in checks(subject, "gradient", similar=False)
    alone = checks(subject, "gradient", n_others=0)
    assert not {"localisation", "partner_correlation"} & alone.keys()
    assert "partner_correlation" in checks(subject, "gradient", n_others=1)


def test_where_a_map_looks_is_counted_by_its_positive_part():
    cover = torch.tensor([[True, False], [False, False]])
    assert looked(torch.tensor([[3.0, -9.0], [1.0, 0.0]]), cover) == (0.75, 0.25, True)
    assert looked(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), cover) == (0.25, 0.25, False)
    assert looked(-torch.ones(2, 2), cover)[0] == 0.25


def test_a_layer_that_the_witness_cannot_read_loses_its_check_and_no_other():
    class Vectors(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 5, stride=5).double(), nn.Linear(6, 7).double()

        def forward(self, chips):
            return self.head(self.conv(chips).mean((2, 3)))

    torch.manual_seed(0)
    found = checks(Subject(Vectors().eval(), "head"), "gradient")
    assert "simexpert_correlation" not in found
    assert {"gap", "partner_correlation", "randomised_all"} <= found.keys()
