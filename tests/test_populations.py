"""Weights of units and sites: means and variances of the populations they stand for, in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from bdtr.values.populations import Cells, cell_means, population_means

SITE = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
X = np.array([1.0, 2.0, 4.0, 0.0, 3.0, 5.0, 1.0, 1.0, 2.0, 7.0])
SAMPLES = 200_000


def mean(population, weight="unit", group=None, values=None, samples=SAMPLES, blocks=3):
    """Draws of the mean of X, which does not vary between draws itself: (group, sample)."""
    group = np.zeros(len(X), dtype=int) if group is None else group
    cells = Cells.of(group, SITE)
    values = np.broadcast_to(X[:, None], (len(X), samples)) if values is None else values
    rng = np.random.default_rng(3)
    parts = ([part] for part in np.array_split(values, blocks))
    sums, mass = cell_means(parts, cells, samples, rng if population == "units" else None)
    return population_means(sums, mass, cells, population, weight, np.random.default_rng(4))[0]


def site_means():
    return np.array([X[j == SITE].mean() for j in range(3)])


def test_the_sample_is_what_it_is():
    assert np.allclose(mean("sample", samples=2), X.mean())
    assert np.allclose(mean("sample", "site", samples=2), site_means().mean())


def close(draws, expected_mean, expected_sd):
    """Mean and SD within five Monte-Carlo standard errors (SDs of near-normal draws)."""
    assert draws.mean() == pytest.approx(expected_mean, abs=5 * expected_sd / np.sqrt(draws.size))
    assert draws.std() == pytest.approx(expected_sd, rel=5 / np.sqrt(draws.size))


def test_dirichlet_weights_over_units():
    """E = mean, Var = sum (x - mean)^2 / (n (n + 1))."""
    n = len(X)
    close(mean("units"), X.mean(), np.sqrt(((X - X.mean()) ** 2).sum() / (n * (n + 1))))


def test_dirichlet_weights_over_sites_of_equal_weight():
    """The same over site means with a = 1/3 for three sites; what happens within sites is fixed."""
    m = site_means()
    close(mean("sites", "site"), m.mean(), np.sqrt(((m - m.mean()) ** 2).sum() / (3 * (3 / 3 + 1))))


def test_dirichlet_weights_over_sites_of_several_sizes():
    """A ratio sum g n m / sum g n: against gamma numbers drawn here."""
    g = np.random.default_rng(9).standard_gamma(1 / 3, (3, SAMPLES))
    share = np.bincount(SITE)[:, None] * g
    expected = (share * site_means()[:, None]).sum(axis=0) / share.sum(axis=0)
    close(mean("sites"), expected.mean(), expected.std())


def test_units_of_sites_of_equal_weight():
    """Dirichlet weights within each site, sites held: variances of the three sites, over 9."""
    variance = sum(
        ((X[j == SITE] - m) ** 2).sum() / (k * (k + 1))
        for j, (m, k) in enumerate(zip(site_means(), np.bincount(SITE), strict=True))
    )
    close(mean("units", "site"), site_means().mean(), np.sqrt(variance) / 3)


def test_a_new_site_is_like_one_of_the_trial():
    draws = mean("new site")[0]
    values, counts = np.unique(draws, return_counts=True)
    assert np.allclose(values, np.sort(site_means()))
    assert np.abs(counts / SAMPLES - 1 / 3).max() < 5 * np.sqrt(2 / 9 / SAMPLES)


def test_groups_of_a_new_site_belong_to_the_same_site():
    group = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
    draws = mean("new site", group=group)
    pairs = {tuple(pair) for pair in draws.T[:1000].round(9)}
    both = [
        tuple(round(float(X[(j == SITE) & (group == g)].mean()), 9) for g in (0, 1))
        for j in range(3)
    ]
    assert pairs == set(both)


def test_a_group_that_some_sites_lack():
    group = (SITE == 1).astype(int)
    draws = mean("new site", group=group, samples=500)
    assert np.allclose(draws[1], site_means()[1])
    assert set(draws[0].round(9)) == set(site_means()[[0, 2]].round(9))


@pytest.mark.parametrize("population", ["sample", "units", "sites", "new site"])
def test_weights_do_not_depend_on_blocks_and_means_are_within_draws(population):
    values = np.random.default_rng(1).normal(size=(len(X), 50)) + X[:, None]
    one = mean(population, values=values, samples=50, blocks=1)
    assert np.allclose(one, mean(population, values=values, samples=50, blocks=7))
    # Within each draw: moving one draw moves that draw alone.
    values[:, 7] += 10
    moved = mean(population, values=values, samples=50)
    assert np.allclose(np.delete(moved, 7, axis=1), np.delete(one, 7, axis=1))
    assert np.allclose(moved[:, 7], one[:, 7] + 10)
