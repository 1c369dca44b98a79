"""Rows of the table against the single measures that they are made of."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from pairx_engine.explanations import Subject, explanation_named, usual
from pairx_engine.faithfulness import (
    CHECKS,
    ChipPair,
    Flipping,
    Protocol,
    Translation,
    ValueRange,
    continuity,
    flip,
    measure_pairs,
)
from tests.pairx_engine.small_networks import random_chip, small_network

VALUES = ValueRange((-2.0,) * 3, (2.0,) * 3)
HOW = Flipping(n_steps=4, fill="mean")
MOVE = Translation(n_steps=2)
FLIPS = Protocol((HOW,), None, ())
OF_FLIPS = ["auc_most", "auc_least", "gap", "aopc_most", "aopc_least"]
OF_CHECKS = {
    *("partner_correlation", "localisation", "randomised_top", "randomised_all"),
    *("simexpert_correlation", "seconds"),
}


@pytest.fixture(scope="module")
def subject():
    network = small_network("conv + batch norm + SiLU", 2, stem="conv", pool="average", neck="linear")
    return Subject(network, "first", k=2, values=VALUES)


def maps_of(subject, chip_a, chip_b, method):
    return explanation_named(method).explain(subject, chip_a, chip_b).maps


def pair(similar, seed=0):
    return ChipPair(f"pair {seed}", random_chip(seed), random_chip(seed + 1), similar)


def test_every_pair_method_and_measure_has_one_row(subject):
    others = tuple(random_chip(seed) for seed in (90, 91, 92))
    pairs = [replace(pair(True), others=others), replace(pair(False, 5), others=others)]
    protocol = Protocol((HOW, replace(HOW, fill="blur", superpixel=4)), MOVE)
    known = usual()
    rows = list(measure_pairs(subject, pairs, VALUES, known, protocol))
    moves = [
        f"{kind}continuity_{name}" for kind in ("", "partner_") for name in ("mean", "max", "aligned_mean")
    ]
    for p in pairs:
        for method in known:
            found = [row.measure for row in rows if (row.pair, row.method) == (p.name, method)]
            assert found[:10] == [*OF_FLIPS, *(f"{name}_blur_4" for name in OF_FLIPS)]
            checks = OF_CHECKS if p.similar else OF_CHECKS - {"localisation"}
            assert len(found) == 10 + len(checks) + 6
            assert {*found[10:-6]} == checks
            assert found[-6:] == moves
    undefined = {row.measure for row in rows if not math.isfinite(row.value)}
    assert not undefined & {*OF_FLIPS, *moves, "seconds"}
    assert rows[0]._asdict().keys() == {"pair", "method", "measure", "value"}


def by_measure(rows):
    return {row.measure: row.value for row in rows}


def curves(subject, given, maps, similar, exchanged=False):
    chips = (given.chip_a, given.chip_b)
    if exchanged:
        chips, maps = chips[::-1], maps[::-1]
    return [
        flip(subject.network, *chips, *maps, Flipping(n_steps=4, fill="mean", order=order), similar, VALUES)
        for order in ("most", "least")
    ]


def test_a_similar_pair_is_flipped_on_either_side_in_turn(subject):
    given = pair(True)
    found = by_measure(measure_pairs(subject, [given], VALUES, ["gradient"], FLIPS))
    maps = maps_of(subject, given.chip_a, given.chip_b, "gradient")
    first, second = (curves(subject, given, maps, True, exchanged) for exchanged in (False, True))
    assert abs(first[0].auc - second[0].auc) > 1e-6
    assert found["auc_most"] == pytest.approx((first[0].auc + second[0].auc) / 2)
    assert found["auc_least"] == pytest.approx((first[1].auc + second[1].auc) / 2)
    assert found["aopc_most"] == pytest.approx((first[0].aopc + second[0].aopc) / 2)
    assert found["aopc_least"] == pytest.approx((first[1].aopc + second[1].aopc) / 2)
    assert found["gap"] == pytest.approx(found["auc_least"] - found["auc_most"])
    assert "continuity_mean" not in found


def test_both_photos_of_a_dissimilar_pair_are_flipped_at_once(subject):
    given = pair(False)
    found = by_measure(measure_pairs(subject, [given], VALUES, ["gradient"], FLIPS))
    most, least = curves(subject, given, maps_of(subject, given.chip_a, given.chip_b, "gradient"), False)
    assert (found["auc_most"], found["auc_least"]) == pytest.approx((most.auc, least.auc))


def test_continuity_is_that_of_the_first_photo(subject):
    given = pair(True)
    found = by_measure(
        measure_pairs(subject, [given], VALUES, ["pairx_published"], Protocol((HOW,), MOVE, ()))
    )
    for name, partner in (("continuity", None), ("partner_continuity", given.chip_b)):
        curve = continuity(
            lambda a, b: maps_of(subject, a, b, "pairx_published"), given.chip_a, MOVE, partner
        )
        assert found[f"{name}_mean"] == pytest.approx(curve.mean)
        assert found[f"{name}_max"] == pytest.approx(curve.max)
        assert found[f"{name}_aligned_mean"] == pytest.approx(curve.aligned_mean)
    assert found["continuity_mean"] != pytest.approx(found["partner_continuity_mean"])


def test_a_network_in_training_is_measured_in_evaluation_and_put_back(subject):
    wanted = by_measure(measure_pairs(subject, [pair(True)], VALUES, ["random"], FLIPS))
    subject.network.train()
    try:
        found = by_measure(measure_pairs(subject, [pair(True)], VALUES, ["random"], FLIPS))
        assert subject.network.training
    finally:
        subject.network.eval()
    assert found == wanted
    assert all(p.grad is None for p in subject.network.parameters())


class LeftHalf(nn.Module):
    """Sees the left half of a chip (N, 3, 20, 40) and nothing else."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 5, stride=5).double()

    def forward(self, chips):
        return self.conv(chips[..., :20]).flatten(1)


def test_a_map_of_what_the_network_looks_at_has_a_gap_and_blind_maps_have_little():
    chip = random_chip(0, (20, 40))
    given = ChipPair("same", chip, chip + 0.3 * random_chip(1, (20, 40)), True)
    subject = Subject(LeftHalf(), "conv")
    rows = list(
        measure_pairs(subject, [given], VALUES, ["gradient", "random", "random_smooth"], Protocol(checks=()))
    )
    gap = {row.method: row.value for row in rows if row.measure == "gap"}
    least = {row.method: row.value for row in rows if row.measure == "auc_least"}
    with torch.no_grad():
        untouched = nn.functional.cosine_similarity(
            *(subject.network(c[None]) for c in (given.chip_a, given.chip_b))
        )
    # The blind half goes first, so that the other order changes nothing at all.
    assert least["gradient"] == pytest.approx(float(untouched))
    assert gap["gradient"] > 0.2
    assert max(abs(gap["random"]), abs(gap["random_smooth"])) < gap["gradient"] / 2


def test_flippings_that_cannot_be_told_apart_and_unknown_checks_are_refused():
    for wrong in ({"flippings": ()}, {"flippings": (HOW, replace(HOW, n_steps=9))}, {"checks": ("luck",)}):
        with pytest.raises(ValueError, match="flippings differ|unknown check"):
            Protocol(**wrong)
    assert set(Protocol().checks) == set(CHECKS)
