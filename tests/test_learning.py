"""Places of posteriors learned from a few responses: near the mean, and better than a common place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_marginal import design

from bdtr.engine.crossproducts import cross_products, response_products
from bdtr.engine.density.modes import find_peaks
from bdtr.engine.direct import draw_posterior
from bdtr.engine.layout import layout
from bdtr.engine.phi.importance_weights import effective
from bdtr.engine.phi.proposal_places import gained, learn_gains, learn_shape, learners, shaped
from bdtr.engine.phi.proposals import ellipses, proposals
from bdtr.engine.system import Posteriors
from bdtr.stages.coded_priors import parameters

COUNT = 240


@pytest.fixture(scope="module")
def many():
    """Responses of one stage that differ in their variances, and what the kernels take."""
    rows, factors, priors = design("correlated", rows=400)
    rng = np.random.default_rng(3)
    spread, between = 0.7 + 0.6 * rng.random(COUNT), 0.2 + rng.random(COUNT)
    y = (
        rng.normal(size=(400, COUNT)) * spread
        + rng.normal(size=(5, COUNT))[rows.codes[0]] * between
    )
    where = layout(factors, rows.codes)
    products, responses = cross_products(rows, where), response_products(rows, where, y)
    params = parameters(factors, priors, rows.strata)
    return Posteriors.given(products, responses, params, 1e-6)


@pytest.fixture(scope="module")
def gains(many):
    size = many.params.size
    which = learners(np.arange(COUNT), size)
    assert which is not None
    some = many.of(which)
    peaks = find_peaks(np.full(size, 0.1), 0.01 * np.eye(size), some)
    shape = learn_shape(*peaks, some, np.random.SeedSequence(1))
    places = shaped(peaks[0], peaks[1], shape, some)
    return learn_gains(places, peaks[2], some, np.random.SeedSequence(2))


def test_places_are_near_posterior_means(many, gains):
    """Responses that taught nothing: within half an SD of their own mean, from a chain of each."""
    products, responses, params = many.products, many.responses, many.params
    others = np.array([1, 50, 100, 200])
    centre = gained(gains, many.of(others)).centre
    for i, s in enumerate(others):
        one = response_of(responses, s)
        draws = draw_posterior(products, one, params, 4, 500, np.random.SeedSequence(int(s)))
        phi = params.folded(draws.phi)
        away = np.abs(phi.mean(axis=0) - centre[i]) / phi.std(axis=0)
        assert away.max() < 0.5


def test_a_place_of_ones_own_has_better_weights_than_a_common_one(many, gains):
    at = np.arange(0, COUNT, 7)
    targets = many.of(at)
    places = gained(gains, targets)
    common = ellipses(np.tile(gains.start, (at.size, 1)), places.root, targets.sds)
    seeds, counts = np.arange(at.size, dtype=np.uint64), np.full(at.size, 200)

    def share(where) -> float:
        weights = proposals(where, seeds, 1, counts, targets)[1]
        return float(np.median(effective(weights)) / 200)

    assert share(places) > 0.25
    assert share(places) > 2 * share(common)


def test_too_few_responses_teach_nothing():
    assert learners(np.arange(40), 8) is None
    found = learners(np.arange(1000, 2000), 8)
    assert found is not None and len(found) == 48 and found[0] == 1000 and found[-1] == 1999


def response_of(responses, s: int):
    """One of the responses alone."""
    pick = slice(s, s + 1)
    return replace(
        responses,
        zty=responses.zty[..., pick],
        hty=responses.hty[..., pick],
        yty=responses.yty[..., pick],
    )
