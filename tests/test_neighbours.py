"""Draws that start at those of responses much alike: from their own posteriors, and alike where these are."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
from test_marginal import design
from test_propagation import two_responses

from bdtr.engine.coefficients.joint_draws import (
    Shared,
    Streams,
    stream_correlations,
    stream_roots,
)
from bdtr.engine.crossproducts import Responses, cross_products, response_products
from bdtr.engine.direct import draw_each, draw_posterior
from bdtr.engine.further_responses import draw_beside, known_neighbours
from bdtr.engine.layout import layout
from bdtr.stages.coded_priors import parameters

COUNT, RANKED, LONG = 240, 120, 99
FLOOR = 1e-6


@pytest.fixture(scope="module")
def pairs():
    """Responses that differ in their variances, others that are like them, and draws of both."""
    rows, factors, priors = design("correlated", rows=400)
    rng = np.random.default_rng(3)
    spread, between = 0.7 + 0.6 * rng.random(COUNT), 0.2 + rng.random(COUNT)
    site = rng.normal(size=(5, COUNT)) * between
    noise = rng.normal(size=(400, COUNT)) * spread
    before = site[rows.codes[0]] + noise
    other = site * 0.8 + 0.3 * rng.normal(size=(5, COUNT))
    after = other[rows.codes[0]] + 0.8 * noise + 0.4 * rng.normal(size=(400, COUNT))
    where = layout(factors, rows.codes)
    products, params = cross_products(rows, where), parameters(factors, priors, rows.strata)
    both = [response_products(rows, where, y) for y in (before, after)]
    seed = np.random.SeedSequence(1)
    first = draw_each(products, both[0], params, seed, floor=FLOOR)
    near = known_neighbours(products, both[0], params, first.phi, FLOOR)
    assert near is not None
    second = draw_beside(near, products, both[1], params, seed, None, FLOOR)
    assert second is not None
    return products, params, both, first, second


def one_of(responses: Responses, s: int) -> Responses:
    """A response by itself."""
    parts = (responses.zty, responses.hty, responses.yty)
    return Responses(*(np.ascontiguousarray(a[..., s : s + 1]) for a in parts))


def test_each_draw_is_one_of_its_own_posterior(pairs):
    """Ranks within an independent chain on each response are uniform, for phi and coefficients."""
    products, params, (_, after), _, second = pairs
    assert second.report.evaluations < 75  # draw_each takes 110
    which = np.linspace(0, COUNT - 1, RANKED).astype(int)
    phi, ranks = params.folded(second.phi), []
    for s in which:
        seed = np.random.SeedSequence([7, int(s)])
        long = draw_posterior(products, one_of(after, s), params, 1, LONG, seed)
        less = np.concatenate(
            [
                (params.folded(long.phi) < phi[s]).sum(axis=0),
                (long.coefficients < second.coefficients[s]).sum(axis=0),
            ]
        )
        ranks.append(less)
    rng = np.random.default_rng(0)
    uniform = (np.array(ranks) + rng.random((RANKED, len(ranks[0])))) / (LONG + 1)
    p = [st.kstest(column, "uniform").pvalue for column in uniform.T]
    assert min(p) > 1e-3 / len(p), np.round(p, 4)


def test_draws_of_both_are_alike(pairs):
    """Differences of phi vary less than between draws with random numbers of their own."""
    products, params, (_, after), first, second = pairs
    apart = draw_each(products, after, params, np.random.SeedSequence(5), floor=FLOOR)
    known = params.folded(first.phi)
    together, alone = (np.std(params.folded(d.phi) - known, axis=0) for d in (second, apart))
    assert together[0] < 0.9 * alone[0]
    assert (together < 1.05 * alone).all()


def test_contrasts_spread_somewhat_more_than_the_fit_of_their_difference():
    """Random numbers are shared but for those that phi is moved by: with residuals that correlate by .8 an SD
    of a contrast is up to a quarter too large, and never too small."""
    products, found, difference, crossed, params = two_responses()
    floors, ratios = [1e-4, 1e-4], []
    for s in range(1, 6):
        seed = np.random.SeedSequence(s)
        first = draw_each(products, found[0], params, seed)
        near = known_neighbours(products, found[0], params, first.phi, floors[0])
        assert near is not None
        both = stream_correlations(products, found, crossed, params, first.phi, floors)
        residuals, effects = (np.moveaxis(stream_roots(r), 1, 0) for r in both)
        shared = [Shared(Streams(residuals[i], effects[i])) for i in range(2)]
        one = draw_each(products, found[0], params, seed, shared=shared[0])
        other = draw_beside(near, products, found[1], params, seed, None, floors[1], shared[1])
        assert other is not None
        alone = draw_each(products, difference, params, np.random.SeedSequence(100 + s))
        spread = (other.coefficients - one.coefficients).std(axis=0)
        ratios.append(spread / alone.coefficients.std(axis=0))
    # 5 x 400 draws: a ratio of SDs is known to 2.2 %.
    mean = np.mean(ratios, axis=0)
    assert (mean > 0.93).all()
    assert (mean < 1.32).all()


def test_too_few_draws_or_responses_without_residuals_teach_nothing(pairs):
    products, params, (before, _), first, _ = pairs
    few = Responses(*(a[..., :20] for a in (before.zty, before.hty, before.yty)))
    assert known_neighbours(products, few, params, first.phi[:20], FLOOR) is None
    flat = Responses(*(np.zeros_like(a) for a in (before.zty, before.hty, before.yty)))
    assert known_neighbours(products, flat, params, first.phi, FLOOR) is None


def test_responses_that_are_far_away_are_left_to_other_ways(pairs):
    """Of a thousandfold size: no step leads there, and proposals have no weight."""
    products, params, (before, _), first, _ = pairs
    near = known_neighbours(products, before, params, first.phi, FLOOR)
    far = before.divided(1e-3)
    seed = np.random.SeedSequence(1)
    assert draw_beside(near, products, far, params, seed, None, FLOOR) is None
