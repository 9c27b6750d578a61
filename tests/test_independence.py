"""Independence chains: their moves, and the posterior of each response."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
from test_learning import response_of
from test_marginal import design

from bdtr.engine.crossproducts import cross_products, response_products
from bdtr.engine.direct import draw_each, draw_posterior
from bdtr.engine.layout import layout
from bdtr.engine.phi import independence
from bdtr.stages.coded_priors import parameters


def test_a_chain_moves_by_the_ratio_of_weights():
    equal = independence._metropolis(np.zeros(2), np.zeros((2, 3)), np.full((2, 3), -0.1))
    assert equal.tolist() == [[0, 1, 2], [0, 1, 2]]
    heavy = independence._metropolis(np.array([5.0]), np.zeros((1, 3)), np.full((1, 3), -1.0))
    assert heavy.tolist() == [[-1, -1, -1]]
    impossible = independence._metropolis(
        np.zeros(1), np.array([[-np.inf, 0.0]]), np.full((1, 2), -9.0)
    )
    assert impossible.tolist() == [[-1, 1]]


def test_proposals_outside_the_support_only_make_chains_stay():
    """Two of 800 had no density, and the number of proposals to a draw was NaN."""
    rng = np.random.default_rng(1)
    weights = 0.1 * rng.normal(size=800)
    all_in = independence._thinning(weights, 200, np.random.default_rng(2), 0.02)
    few = np.where(np.arange(800) < 2, -np.inf, weights)
    assert independence._thinning(few, 200, np.random.default_rng(2), 0.02) == all_in
    half = np.where(np.arange(800) < 400, -np.inf, weights)
    assert independence._thinning(half, 200, np.random.default_rng(2), 0.02) > all_in


def test_last_states_of_chains_follow_the_target():
    """Weights of a known target under a flat proposal on ten places."""
    rng = np.random.default_rng(5)
    target = np.arange(1.0, 11.0) / 55
    chains, steps = 40_000, 40
    proposed = rng.integers(10, size=(chains, steps))
    level = np.log(rng.random((chains, steps)))
    start = np.zeros(chains, dtype=int)  # the least likely place
    weights = np.log(target)
    last = independence._metropolis(weights[start], weights[proposed], level)[:, -1]
    state = np.where(last < 0, start, proposed[np.arange(chains), last])
    assert st.chisquare(np.bincount(state, minlength=10), chains * target).pvalue > 1e-4


def test_each_of_many_unlike_responses_has_draws_from_its_own_posterior():
    """A few responses many times each among others: their draws are those of long chains."""
    rows, factors, priors = design("classes of two grades", rows=200, strata=2)
    rng = np.random.default_rng(8)
    kinds, copies = 12, 150
    y = rng.normal(size=(200, kinds)) * (0.6 + rng.random(kinds))
    y += rng.normal(size=(5, kinds))[rows.codes[0]] * rng.random(kinds)
    where = layout(factors, rows.codes)
    products, params = cross_products(rows, where), parameters(factors, priors, rows.strata)
    responses = response_products(rows, where, np.tile(y, copies))
    drawn = draw_each(products, responses, params, np.random.SeedSequence(1))
    assert drawn.report.independence > 0.9 * kinds * copies
    phi = params.folded(drawn.phi).reshape(copies, kinds, -1)
    for s in range(kinds):
        one = response_of(responses, s)
        long = draw_posterior(products, one, params, 4, 1000, np.random.SeedSequence(100 + s))
        reference = params.folded(long.phi)
        for i in range(params.size):
            assert st.ks_2samp(phi[:, s, i], reference[:, i]).pvalue > 1e-5


@pytest.mark.parametrize("draws", [25, 500])
def test_chains_are_thinned_until_neighbours_are_nearly_independent(draws):
    rows, factors, priors = design("correlated")
    y = np.random.default_rng(2).normal(size=(len(rows.x), 1))
    where = layout(factors, rows.codes)
    products, params = cross_products(rows, where), parameters(factors, priors, rows.strata)
    responses = response_products(rows, where, y)
    drawn = draw_posterior(products, responses, params, 4, draws, np.random.SeedSequence(3))
    assert drawn.report.independence == 4 * draws
    sigma = drawn.phi[:, 0].reshape(4, draws)
    lag = np.corrcoef(sigma[:, 1:].ravel(), sigma[:, :-1].ravel())[0, 1]
    assert lag < 0.08 + 4 / np.sqrt(4 * draws)
