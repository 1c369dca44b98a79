"""What methods share on a pair is made once, and changes no number."""

import time
from dataclasses import replace

import pytest
import torch

from pairx_engine.explanations import Subject, recorded
from pairx_engine.faithfulness import Asked, ChipPair, Common, Flipping, Protocol, ValueRange, flip, measure
from tests.pairx_engine.small_networks import random_chip, small_network

VALUES = ValueRange((-2.0,) * 3, (2.0,) * 3)
FLIPPING = Flipping(n_steps=4, fill="mean")
METHODS = ("grad_cam", "simexpert", "gradient", "pairx_published")


@pytest.fixture(scope="module")
def subject():
    network = small_network("conv + batch norm + SiLU", 2, stem="conv", pool="average", neck="linear")
    return Subject(network, "first", k=2, values=VALUES)


def pair(number):
    chips = [random_chip(seed) for seed in range(5 * number, 5 * number + 5)]
    return ChipPair(f"p{number}", *chips[:2], True, tuple(chips[2:]))


def rows(subject, given, method, common=None):
    found = measure(Asked(subject, given, method, VALUES, common=common), Protocol((FLIPPING,)))
    return {row.measure: row.value for row in found if row.measure != "seconds"}


def test_shared_parts_change_no_number(subject):
    common = Common(subject, kept=2)
    for method in METHODS:
        for number in (0, 1):
            assert rows(subject, pair(number), method, common) == rows(subject, pair(number), method)


def test_a_pass_is_recorded_once_for_all_methods_and_never_for_the_timed_one(subject, monkeypatch):
    made = []
    plain = recorded._recorded
    monkeypatch.setattr(recorded, "_recorded", lambda *given: made.append(given[0]) or plain(*given))
    given, common = pair(0), Common(subject)
    rows(subject, given, "grad_cam", common)
    # Timed, with another partner, in a collage, under two shuffles, and the witness.
    assert len(made) == 6
    assert sum(one.passes is None for one in made) == 1
    rows(subject, given, "hires_cam", common)
    assert len(made) == 7
    assert made[-1].passes is None


def test_parts_of_the_latest_pairs_are_kept(subject):
    common = Common(subject, kept=2)
    parts = [common.of(pair(number)) for number in range(2)]
    assert common.of(pair(0)) is parts[0]
    common.of(pair(2))
    assert common.of(pair(0)) is parts[0]
    assert common.of(pair(1)) is not parts[1]
    assert common.of(pair(0)).subject(1.0).network is common.of(pair(1)).subject(1.0).network
    assert common.of(pair(0)).subject().network is subject.network


def test_flips_are_embedded_by_what_is_given_in_place_of_the_network(subject):
    seen = []

    def embed(chips):
        seen.append(len(chips))
        return subject.network(chips)

    given = replace(pair(0), others=())
    assert rows(subject, given, "gradient", Common(subject, embed=embed)) == rows(subject, given, "gradient")
    assert seen == [1, 1, 4, 4, 4, 4]


def test_known_embeddings_are_not_made_again(subject):
    chips, maps = (random_chip(0), random_chip(1)), [random_chip(n)[0] for n in (2, 3)]
    batches = []

    def embed(some):
        batches.append(len(some))
        return subject.network(some)

    with torch.no_grad():
        known = subject.network(chips[0][None]), subject.network(chips[1][None])
    for similar, expected in ((True, [4]), (False, [4, 4])):
        batches.clear()
        found = flip(embed, *chips, *maps, FLIPPING, similar, VALUES, 8, known).similarity
        assert batches == expected
        assert found == pytest.approx(
            flip(subject.network, *chips, *maps, FLIPPING, similar, VALUES).similarity
        )


@pytest.mark.parametrize(("clock", "processor", "expected"), [(5.0, 2.0, 2.0), (3.0, 9.0, 3.0)])
def test_seconds_are_the_processors_where_others_held_the_machine(
    subject, monkeypatch, clock, processor, expected
):
    times = {"perf_counter": iter((10.0, 10.0 + clock)), "process_time": iter((20.0, 20.0 + processor))}
    for name, values in times.items():
        monkeypatch.setattr(time, name, lambda values=values: next(values))
    assert Asked(subject, pair(0), "centre", VALUES).seconds == expected
