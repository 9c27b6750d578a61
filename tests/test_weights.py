"""Quality of importance weights, against ArviZ."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base import array_stats

from bdtr.engine.phi.importance_weights import effective, khat_limit, pareto_k


@pytest.mark.parametrize("count", [96, 500, 4000])
@pytest.mark.parametrize("shape", [0.1, 0.5, 0.9])
def test_khat_is_that_of_arviz(count, shape):
    """ArviZ takes minus the log weights."""
    rng = np.random.default_rng(int(1000 * shape) + count)
    log_weights = np.log1p(shape * rng.pareto(1 / shape, (5, count)))
    expected = [array_stats.psislw(-one)[1] for one in log_weights]
    assert pareto_k(log_weights) == pytest.approx(np.array(expected, dtype=float), abs=1e-6)


def test_weights_that_cannot_be_judged_have_an_infinite_khat():
    assert np.isinf(pareto_k(np.full(100, -np.inf)))
    assert np.isinf(pareto_k(np.zeros(10)))  # too few for a tail


def test_effective_numbers():
    assert effective(np.zeros((2, 50))) == pytest.approx([50, 50])
    assert effective(np.log([[1, 1, 2], [1e-300, 1, 1e-300]])) == pytest.approx([16 / 6, 1])
    assert effective(np.full((1, 5), -np.inf))[0] == 0


def test_the_limit_is_that_of_vehtari_et_al():
    assert khat_limit(100) == pytest.approx(0.5)
    assert khat_limit(10_000) == pytest.approx(0.7)
