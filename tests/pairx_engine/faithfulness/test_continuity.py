"""Continuity of explanations with a known answer: constant maps, and maps that move with the photo."""

import numpy as np
import pytest
import torch

from pairx_engine.errors import EngineError
from pairx_engine.faithfulness.continuity import Translation, continuity, moved_right
from tests.pairx_engine.small_networks import random_chip


def constant(chip_a, chip_b):
    drawn = random_chip(7, chip_a.shape[1:])[0]
    return drawn, drawn * 7


def brightness(chip_a, chip_b):
    """Moves along with the photo, edge included."""
    return chip_a.square().sum(dim=0), chip_b.square().sum(dim=0)


def spot(width=40, at=5):
    """A chip of one bright pixel."""
    chip = torch.zeros(3, 12, width, dtype=torch.float64)
    chip[:, 6, at] = 1
    return chip


def test_the_photo_goes_there_and_back():
    assert Translation().offsets == [*range(1, 11), *range(9, -1, -1)]
    assert Translation(n_steps=3, pixels=4).offsets == [4, 8, 12, 8, 4, 0]
    assert Translation(n_steps=1).offsets == [1, 0]


def test_what_comes_in_repeats_the_left_edge():
    picture = torch.arange(12).view(1, 3, 4)
    assert moved_right(picture, 2).tolist() == [[[0, 0, 0, 1], [4, 4, 4, 5], [8, 8, 8, 9]]]
    assert torch.equal(moved_right(picture, 0), picture)


@pytest.mark.parametrize("norm", ["l2", "sum"])
def test_a_map_that_ignores_the_photo_never_moves(norm):
    curve = continuity(constant, random_chip(0, (12, 30)), Translation(norm=norm))
    np.testing.assert_allclose(curve.difference, 0, atol=1e-12)
    assert curve.mean == pytest.approx(0, abs=1e-12)
    assert curve.aligned_mean > 1e-3


@pytest.mark.parametrize("norm", ["l2", "sum"])
def test_a_map_that_moves_along_is_the_same_once_laid_over(norm):
    curve = continuity(brightness, random_chip(0, (12, 30)), Translation(norm=norm))
    np.testing.assert_allclose(curve.aligned, 0, atol=1e-12)
    assert (curve.difference[:-1] > 1e-3).all()
    assert curve.difference[-1] == curve.offset[-1] == 0


@pytest.mark.parametrize("norm", ["l2", "sum"])
def test_a_single_spot_is_the_root_of_two_away_from_itself(norm):
    curve = continuity(brightness, spot(), Translation(norm=norm))
    np.testing.assert_allclose(curve.difference[:-1], np.sqrt(2))
    assert curve.max == pytest.approx(np.sqrt(2))
    assert curve.mean == pytest.approx(np.sqrt(2) * 19 / 20)


def test_the_way_back_mirrors_the_way_there():
    curve = continuity(brightness, random_chip(1, (10, 30)), Translation(n_steps=6, pixels=2))
    assert curve.offset.tolist() == [2, 4, 6, 8, 10, 12, 10, 8, 6, 4, 2, 0]
    np.testing.assert_array_equal(curve.difference[:5], curve.difference[6:-1][::-1])


def test_the_scale_of_a_map_does_not_count():
    chip = random_chip(2, (10, 30))

    def larger(chip_a, chip_b):
        map_a, map_b = brightness(chip_a, chip_b)
        return 1e6 * map_a, 1e-6 * map_b

    for norm in ("l2", "sum"):
        plain, scaled = (continuity(way, chip, Translation(norm=norm)) for way in (brightness, larger))
        np.testing.assert_allclose(scaled.difference, plain.difference, rtol=1e-9, atol=1e-12)


def test_each_offset_is_explained_once_on_the_photo_and_its_moved_copy():
    chip, seen = random_chip(3, (10, 30)), []

    def explain(chip_a, chip_b):
        assert torch.equal(chip_a, chip)
        seen.append(chip_b)
        return brightness(chip_a, chip_b)

    continuity(explain, chip, Translation(n_steps=4, pixels=2))
    assert len(seen) == 5
    for offset, moved in zip((0, 2, 4, 6, 8), seen, strict=True):
        assert torch.equal(moved[..., offset:], chip[..., : 30 - offset])


def test_with_a_partner_both_are_explained_beside_it_and_their_own_maps_compared():
    chip, partner, seen = random_chip(3, (10, 30)), random_chip(4, (6, 9)), []

    def explain(chip_a, chip_b):
        assert torch.equal(chip_b, partner)
        seen.append(chip_a)
        return brightness(chip_a, chip_b)

    how = Translation(n_steps=4, pixels=2)
    curve = continuity(explain, chip, how, partner)
    assert len(seen) == 6
    # The brightness of a photo does not depend on what it is paired with.
    alone = continuity(brightness, chip, how)
    np.testing.assert_array_equal(curve.difference, alone.difference)
    np.testing.assert_array_equal(curve.aligned, alone.aligned)


def test_a_map_of_zeros_stays_zero():
    curve = continuity(lambda a, b: (a[0] * 0, b[0].abs()), random_chip(0, (8, 20)))
    np.testing.assert_allclose(curve.difference, 1)


def test_what_makes_no_sense_is_refused():
    chip = random_chip(0, (8, 20))
    with pytest.raises(EngineError, match="cannot be moved"):
        continuity(brightness, chip, Translation(n_steps=20))
    with pytest.raises(EngineError, match="finite"):
        continuity(lambda a, b: (a[0] * torch.nan, b[0]), chip)
    with pytest.raises(EngineError, match="size"):
        continuity(lambda a, b: (a[0, :4], b[0, :4]), chip)
    for wrong in ({"n_steps": 0}, {"pixels": 0}, {"norm": "max"}):
        with pytest.raises(ValueError, match=r"step|scaled"):
            Translation(**wrong)
