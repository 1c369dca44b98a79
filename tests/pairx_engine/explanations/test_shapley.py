"""Shapley values by least squares: against sums over all orders, a constrained solver, and a library."""

from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
import torch

from pairx_engine.explanations.shapley import (
    agreement,
    agreement_of_seeds,
    coalitions,
    fewest,
    solve,
)


def random_game(n, seed=0):
    """What every set of n players reaches, as a table by their numbers."""
    rng = np.random.default_rng(seed)
    return {s: float(rng.normal()) for k in range(n + 1) for s in combinations(range(n), k)}


def reached(game, members):
    return np.array([game[tuple(np.flatnonzero(row))] for row in members])


def by_orders(game, n):
    """Each player's gain on joining, averaged over all orders in which players can join."""
    orders = list(permutations(range(n)))
    values = np.zeros(n)
    for order in orders:
        for place, player in enumerate(order):
            before = tuple(sorted(order[:place]))
            values[player] += game[tuple(sorted((*before, player)))] - game[before]
    return values / len(orders)


def solved(game, n, evaluations, seed=0):
    drawn = coalitions(n, evaluations, np.random.default_rng(seed))
    weights = drawn.weights.mean(axis=0)
    found = reached(game, drawn.members)
    return drawn, solve(drawn.members, weights, found, game[()], game[tuple(range(n))])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_all_coalitions_give_the_shapley_values(n):
    game = random_game(n, n)
    drawn, values = solved(game, n, 2**n)
    assert drawn.exact
    np.testing.assert_allclose(values, by_orders(game, n), rtol=0, atol=1e-9)


def kernel(n, size):
    return (n - 1) / (comb(n, size) * size * (n - size))


def test_draws_are_solved_as_a_constrained_least_squares():
    n, game = 9, random_game(9, 3)
    drawn, values = solved(game, n, 80)
    assert not drawn.exact
    z, w = drawn.members.astype(float), drawn.weights.mean(axis=0)
    total = game[tuple(range(n))] - game[()]
    y = reached(game, drawn.members) - game[()]
    lagrange = np.zeros((n + 1, n + 1))
    lagrange[:n, :n] = z.T @ (w[:, None] * z)
    lagrange[:n, n] = lagrange[n, :n] = 1
    wanted = np.linalg.solve(lagrange, [*(z.T @ (w * y)), total])[:n]
    np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-9)
    assert values.sum() == pytest.approx(total, abs=1e-9)


def test_a_game_of_single_gains_is_found_from_any_draw():
    n, rng = 12, np.random.default_rng(1)
    gains = rng.normal(size=n)
    for seed in range(3):
        drawn = coalitions(n, 2 * fewest(n), np.random.default_rng(seed))
        found = 0.3 + drawn.members @ gains
        for weights in drawn.weights:
            values = solve(drawn.members, weights, found, 0.3, 0.3 + gains.sum())
            np.testing.assert_allclose(values, gains, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("n", "evaluations"), [(5, 22), (8, 40), (35, 142), (35, 1000)])
def test_coalitions_are_distinct_affordable_and_come_with_their_complements(n, evaluations):
    drawn = coalitions(n, evaluations, np.random.default_rng(0))
    rows = {tuple(row): tuple(w) for row, w in zip(drawn.members, drawn.weights.T, strict=True)}
    assert len(rows) == len(drawn.members) <= evaluations - 2
    sizes = drawn.members.sum(axis=1)
    assert sizes.min() >= 1
    assert sizes.max() <= n - 1
    assert all(rows[tuple(not m for m in row)] == pytest.approx(w) for row, w in rows.items())
    everything = sum(comb(n, k) * kernel(n, k) for k in range(1, n))
    np.testing.assert_allclose(drawn.weights.sum(axis=1), everything, rtol=1e-9)
    again = coalitions(n, evaluations, np.random.default_rng(0))
    assert np.array_equal(drawn.members, again.members)
    assert not np.array_equal(drawn.members, coalitions(n, evaluations, np.random.default_rng(1)).members)


def test_small_sizes_are_taken_whole_where_they_can_be_afforded():
    drawn = coalitions(35, 1000, np.random.default_rng(0))
    alone = drawn.members.sum(axis=1) == 1
    assert alone.sum() == 35
    np.testing.assert_allclose(drawn.weights[:, alone], kernel(35, 1), rtol=1e-9)


def test_each_size_weighs_what_the_kernel_says_on_average():
    n, seeds = 10, 300
    by_size = np.zeros((seeds, n + 1))
    for seed in range(seeds):
        drawn = coalitions(n, 60, np.random.default_rng(seed))
        np.add.at(by_size[seed], drawn.members.sum(axis=1), drawn.weights.mean(axis=0))
    for size in range(1, n):
        wanted = comb(n, size) * kernel(n, size)
        error = by_size[:, size].std() / np.sqrt(seeds)
        assert by_size[:, size].mean() == pytest.approx(wanted, abs=5 * error + 1e-9)


def test_more_evaluations_come_nearer_to_the_truth():
    n, game = 10, random_game(10, 5)
    _, wanted = solved(game, n, 2**n)
    errors = [
        np.mean([np.abs(solved(game, n, evaluations, seed)[1] - wanted).max() for seed in range(10)])
        for evaluations in (60, 200, 800, 1024)
    ]
    assert errors[0] > errors[1] > errors[2] > errors[3] == 0


def test_too_few_evaluations_are_refused():
    with pytest.raises(ValueError, match="35 players need at least 142"):
        coalitions(35, 141, np.random.default_rng(0))


def test_agreement_is_a_correlation():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 20))
    assert agreement(values) == pytest.approx(np.corrcoef(values)[0, 1])
    assert agreement(np.stack([values[0], values[0]])) == 1
    assert np.isnan(agreement(np.stack([values[0], np.ones(20)])))


def test_halves_tell_what_seeds_agree_to():
    """The mean of two noisy halves against the mean of two others."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=100_000)
    halves = truth + 1.5 * rng.normal(size=(4, len(truth)))
    told = agreement_of_seeds(agreement(halves[:2]))
    assert told == pytest.approx(agreement(np.stack([halves[:2].mean(0), halves[2:].mean(0)])), abs=0.01)
    assert agreement_of_seeds(-0.5) == -0.5


@pytest.mark.slow
def test_the_library_says_the_same_within_its_noise():
    """Kernel SHAP of captum, where it is installed: it draws with replacement, so only many draws come near."""
    captum = pytest.importorskip("captum.attr")
    n, game = 5, random_game(5, 2)
    _, wanted = solved(game, n, 2**n)

    def forward(given):
        return torch.tensor(reached(game, given.numpy() > 0.5))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = captum.KernelShap(forward).attribute(
            torch.ones(1, n), baselines=torch.zeros(1, n), n_samples=4000, perturbations_per_eval=500
        )
    np.testing.assert_allclose(found[0].numpy(), wanted, rtol=0, atol=0.1 * np.ptp(wanted))
