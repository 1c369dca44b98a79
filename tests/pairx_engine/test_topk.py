"""Exact top-k against brute force in double precision.

With ties, exclusions, blocks, and k larger than the catalogue.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pairx_engine.retrieval import proposals, topk
from pairx_engine.retrieval.rules import PairRule, PhotoKeys
from pairx_engine.retrieval.topk import Neighbours, cosines, exact_top_k, exact_top_k_both_ways

N = 40
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def naive(vectors: torch.Tensor, keys: PhotoKeys, rule: PairRule, k: int) -> list[tuple[int, int, float]]:
    """Every pair by a double loop, every exclusion as a sentence."""
    found = []
    v = vectors.double().numpy()
    for i in range(len(v)):
        candidates = []
        for j in range(len(v)):
            same_encounter = keys.encounter[i] != -1 and keys.encounter[i] == keys.encounter[j]
            other_species = (
                -1 not in (keys.species[i], keys.species[j]) and keys.species[i] != keys.species[j]
            )
            other_view = (
                -1 not in (keys.viewpoint[i], keys.viewpoint[j]) and keys.viewpoint[i] != keys.viewpoint[j]
            )
            same_name = keys.identity[i] != -1 and keys.identity[i] == keys.identity[j]
            if i == j or same_encounter or (rule.same_species and other_species):
                continue
            if (rule.same_viewpoint and other_view) or (rule.same_name and not same_name):
                continue
            cosine = np.float32(sum(v[i] * v[j]) / (np.sqrt(sum(v[i] ** 2)) * np.sqrt(sum(v[j] ** 2))))
            candidates.append((-cosine, j))
        found += [(i, j, -negative) for negative, j in sorted(candidates)[:k]]
    return found


def random_catalogue(seed: int, ties: bool) -> tuple[torch.Tensor, PhotoKeys]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(N, 12))
    if ties:
        vectors = np.sign(vectors[rng.integers(0, 5, N)])
    codes = [rng.integers(-1, high, N).astype(np.int32) for high in (6, 12, 2, 2)]
    return torch.from_numpy(vectors).half(), PhotoKeys(*codes)


def blocks_of(vectors: torch.Tensor, size: int, backwards: bool):
    starts = list(range(0, len(vectors), size))
    return lambda: (
        (np.arange(s, min(s + size, len(vectors))), vectors[s : s + size])
        for s in (reversed(starts) if backwards else starts)
    )


def as_list(found: Neighbours) -> list[tuple[int, int]]:
    return list(zip(found.query.tolist(), found.neighbour.tolist(), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    ties=st.booleans(),
    size=st.sampled_from([1, 7, 16, N]),
    backwards=st.booleans(),
    k=st.sampled_from([1, 3, N + 5]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_equals_brute_force(seed, ties, size, backwards, k, flags):
    vectors, keys = random_catalogue(seed, ties)
    rule = PairRule(*flags)
    rows = np.arange(N)
    found = exact_top_k(vectors, rows, blocks_of(vectors, size, backwards), keys, {"rule": (rule, k)})["rule"]
    expected = naive(vectors, keys, rule, k)
    assert as_list(found) == [(i, j) for i, j, _ in expected]
    np.testing.assert_allclose(found.cosine, [c for *_, c in expected], rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    part=st.tuples(st.integers(0, N), st.integers(0, N)),
    flags=st.tuples(*[st.booleans()] * 4),
)
def test_the_mask_on_a_device_is_that_on_the_host(seed, part, flags):
    _, keys = random_catalogue(seed, ties=False)
    rule, (first, last) = PairRule(*flags), part
    rows, columns = np.arange(N)[min(part) :], np.random.default_rng(seed).permutation(N)[: max(first, last)]
    there = rule.admits(
        keys.on(DEVICE), torch.from_numpy(rows).to(DEVICE)[:, None], torch.from_numpy(columns).to(DEVICE)
    )
    assert (there.dtype, there.device.type) == (torch.bool, DEVICE.type)
    np.testing.assert_array_equal(there.cpu().numpy(), rule.admissible(keys, rows, columns))


def test_the_mask_is_every_exclusion_as_a_sentence():
    for seed in range(4):
        vectors, keys = random_catalogue(seed, ties=False)
        for flags in itertools.product([False, True], repeat=3):
            rule = PairRule(*flags)
            mask = rule.admissible(keys, np.arange(N), np.arange(N))
            allowed = {(i, j) for i, j, _ in naive(vectors, keys, rule, N)}
            assert {(int(i), int(j)) for i, j in zip(*np.nonzero(mask), strict=True)} == allowed


def test_nothing_but_candidates_comes_back_from_the_device(monkeypatch):
    """Masks are made where the products are, and blocks are gathered there.

    So no mask is made in NumPy, and nothing is gathered on the host.
    """
    vectors, keys = random_catalogue(5, ties=False)
    rules = {"all": (PairRule(same_species=True), 4), "name": (PairRule(same_name=True), 2)}
    wanted = exact_top_k(vectors, np.arange(N), blocks_of(vectors, 9, False), keys, rules)
    monkeypatch.setattr(PairRule, "admissible", None)
    found = exact_top_k(vectors, np.arange(N), blocks_of(vectors, 9, False), keys, rules)
    for name in rules:
        assert as_list(found[name]) == as_list(wanted[name])
        np.testing.assert_array_equal(found[name].cosine, wanted[name].cosine)


@contextmanager
def in_small_tiles(width: int, pad: int) -> Iterator[None]:
    """Tiles and surplus so small that a small catalogue takes every way there is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposals, "topk_tile", lambda queries, device: width)
        patch.setattr(topk, "PAD", pad)
        yield


def larger_catalogue(seed: int, kind: str) -> tuple[torch.Tensor, PhotoKeys]:
    """240 photos: of many names, of few, nearly all without one, or with many ties."""
    rng = np.random.default_rng(seed)
    count = 240
    names = {"many": 60, "few": 2, "unnamed": 40, "ties": 8}[kind]
    identity = rng.integers(0, names, count)
    identity[rng.random(count) < (0.95 if kind == "unnamed" else 0.2)] = -1
    vectors = rng.normal(size=(count, 12)) + 0.8 * rng.normal(size=(names + 1, 12))[identity]
    if kind == "ties":
        vectors = np.sign(vectors[rng.integers(0, 40, count)])
    codes = [identity, rng.integers(-1, 60, count), rng.integers(-1, 3, count), rng.integers(-1, 2, count)]
    return torch.from_numpy(vectors).half(), PhotoKeys(*(code.astype(np.int32) for code in codes))


def exact_matrix(vectors: torch.Tensor) -> np.ndarray:
    """All cosines (N, N) as the contract has them: rounded once from double precision."""
    count = len(vectors)
    first, second = (index.flatten() for index in torch.meshgrid(*[torch.arange(count)] * 2, indexing="ij"))
    return cosines(vectors[first], vectors[second]).reshape(count, count).numpy()


RULES = {
    "all": (PairRule(), 5),
    "species": (PairRule(same_species=True, same_viewpoint=True), 3),
    "same_name": (PairRule(same_name=True), 4),
    "other_name": (PairRule(other_name=True), 6),
}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["many", "few", "unnamed", "ties"]),
    width=st.sampled_from([16, 50, 64, 240]),
    pad=st.sampled_from([0, 1, 4]),
    part=st.sampled_from([1, 17, 100, 240]),
)
def test_every_way_through_the_tiles_gives_the_nearest(seed, kind, width, pad, part):
    vectors, keys = larger_catalogue(seed, kind)
    rows = np.sort(np.random.default_rng(seed).permutation(len(keys))[:part])
    exact, everywhere = exact_matrix(vectors), np.arange(len(keys))
    with in_small_tiles(width, pad):
        found = exact_top_k(vectors[rows], rows, blocks_of(vectors, 100, False), keys, RULES)
    for name, (rule, k) in RULES.items():
        expected = []
        for row in rows.tolist():
            allowed = np.flatnonzero(rule.admissible(keys, np.array([row]), everywhere)[0])
            order = sorted(allowed.tolist(), key=lambda other: (-exact[row, other], other))
            expected += [(row, other) for other in order[:k]]
        assert as_list(found[name]) == expected
        np.testing.assert_array_equal(found[name].cosine, [exact[pair] for pair in expected])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["many", "few", "unnamed", "ties"]),
    width=st.sampled_from([16, 50, 240]),
    part=st.sampled_from([1, 17, 100]),
)
def test_both_ways_a_photo_gets_every_query_that_reaches_its_floor(seed, kind, width, part):
    vectors, keys = larger_catalogue(seed, kind)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(keys))[:part])
    exact = exact_matrix(vectors)
    # Floors that are somebody's cosine, so that ties with a floor are among the cases; none; and all.
    floors = {name: exact[rng.integers(0, 240, 240), np.arange(240)] for name in RULES}
    for floor in floors.values():
        floor[rng.random(240) < 0.1] = np.inf
        floor[rng.random(240) < 0.1] = -np.inf
    with in_small_tiles(width, 4):
        forward, taken = exact_top_k_both_ways(
            vectors[rows], rows, blocks_of(vectors, 100, True), keys, RULES, floors
        )
    alone = exact_top_k(vectors[rows], rows, blocks_of(vectors, 100, False), keys, RULES)
    for name, (rule, _) in RULES.items():
        assert as_list(forward[name]) == as_list(alone[name])
        expected = []
        for photo in range(len(keys)):
            allowed = rule.admissible(keys, np.array([photo]), rows)[0]
            reach = [
                row
                for row, ok in zip(rows.tolist(), allowed, strict=True)
                if ok and exact[row, photo] >= floors[name][photo]
            ]
            expected += [(photo, row) for row in sorted(reach, key=lambda row: (-exact[row, photo], row))]
        assert as_list(taken[name]) == expected
        np.testing.assert_array_equal(taken[name].cosine, [exact[b, a] for a, b in expected])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("ties", [False, True])
def test_a_gpu_finds_the_same_neighbours(ties):
    vectors, keys = random_catalogue(11, ties)
    rules = {"all": (PairRule(), 5), "name": (PairRule(same_name=True), 2)}
    on_cpu = exact_top_k(vectors, np.arange(N), blocks_of(vectors, 16, False), keys, rules)
    on_gpu = exact_top_k(vectors.cuda(), np.arange(N), blocks_of(vectors, 16, False), keys, rules)
    for name in rules:
        assert as_list(on_gpu[name]) == as_list(on_cpu[name])
        np.testing.assert_allclose(on_gpu[name].cosine, on_cpu[name].cosine, rtol=0, atol=2**-24)


def test_many_exact_ties_beyond_the_pad_go_to_the_smallest_ids():
    vectors = torch.ones(200, 8).half()
    unknown = np.full(200, -1, dtype=np.int32)
    keys = PhotoKeys(unknown, unknown, unknown, unknown)
    found = exact_top_k(
        vectors, np.arange(200), blocks_of(vectors, 64, True), keys, {"all": (PairRule(), 3)}
    )["all"]
    assert as_list(found)[-3:] == [(199, 0), (199, 1), (199, 2)]
    assert as_list(found)[:3] == [(0, 1), (0, 2), (0, 3)]


def test_rules_share_one_pass_and_queries_can_be_a_part():
    vectors, keys = random_catalogue(3, ties=False)
    rules = {"all": (PairRule(), 4), "name": (PairRule(same_name=True), 2)}
    rows = np.array([5, 17, 31])
    whole = exact_top_k(vectors, np.arange(N), blocks_of(vectors, 9, False), keys, rules)
    part = exact_top_k(vectors[rows], rows, blocks_of(vectors, 40, False), keys, rules)
    for name in rules:
        keep = np.isin(whole[name].query, rows)
        assert as_list(part[name]) == [p for p, use in zip(as_list(whole[name]), keep, strict=True) if use]


def test_blocks_may_hold_rows_in_any_order():
    vectors, keys = random_catalogue(8, ties=True)
    order = np.random.default_rng(0).permutation(N)
    rules = {"all": (PairRule(), 5)}
    plain = exact_top_k(vectors, np.arange(N), blocks_of(vectors, N, False), keys, rules)["all"]
    mixed = exact_top_k(
        vectors,
        np.arange(N),
        lambda: ((part, vectors[part]) for part in np.array_split(order, 3)),
        keys,
        rules,
    )["all"]
    assert as_list(plain) == as_list(mixed)
    np.testing.assert_array_equal(plain.cosine, mixed.cosine)


def test_keys_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one length"):
        PhotoKeys(*(np.zeros(n, dtype=np.int32) for n in (3, 3, 2, 3)))
