r"""Probabilities of what happens to a unit given its history: a multilevel categorical regression in PyMC.

    P(C = c | x, site j) proportional to exp(alpha_c + x'b_c + u_jc) over the categories that are possible,
    alpha_c ~ N(0, 2.5^2), b_c ~ N(0, 1) for standardised columns, u_jc ~ N(0, tau_c^2), tau_c ~ HN(1),

the first category being the reference. Posterior means are returned.
"""

from __future__ import annotations

import numpy as np

from bdtr.sampling import sample_model

__all__ = ["category_probabilities"]

_AVERAGED = 250  # draws that probabilities are averaged over
_CHAINS, _DRAWS, _TUNE = 4, 500, 500


def category_probabilities(
    x: np.ndarray,
    site: np.ndarray | None,
    possible: np.ndarray,
    category: np.ndarray,
    seed: np.random.SeedSequence,
    progress: bool = False,
) -> np.ndarray:
    """Posterior mean probability of each category for every row.

    Parameters
    ----------
    x
        Columns of history (row, column); those that do not vary are left out.
    site
        Site of each row, from 0; None without sites.
    possible
        Categories that are possible (row, category).
    category
        What happened, -1 for rows that are only predicted.
    seed
        Source of randomness.
    progress
        Whether to show the sampler's progress.

    Returns
    -------
    numpy.ndarray
        (row, category); rows sum to 1.
    """
    seen = category >= 0
    centre, spread = x[seen].mean(axis=0), x[seen].std(axis=0)
    z = (x[:, spread > 1e-8] - centre[spread > 1e-8]) / spread[spread > 1e-8]
    wanted = ["intercept", *(["b"] if z.shape[1] else []), *(["u"] if site is not None else [])]
    built = _model(z[seen], None if site is None else site[seen], possible[seen], category[seen],
                   0 if site is None else int(site.max()) + 1)  # fmt: skip
    posterior = sample_model(built, wanted, seed, _CHAINS, _DRAWS, _TUNE, progress).posterior
    flat = posterior.stack(sample=("chain", "draw"), create_index=False).transpose("sample", ...)
    step = flat.sizes["sample"] // _AVERAGED
    out = np.zeros(possible.shape)
    for s in range(0, _AVERAGED * step, step):
        one = flat.isel(sample=s)
        eta = np.broadcast_to(one["intercept"].to_numpy(), (len(z), possible.shape[1] - 1))
        if z.shape[1]:
            eta = eta + z @ one["b"].to_numpy()
        if site is not None:
            eta = eta + one["u"].to_numpy()[site]
        eta = np.where(possible, np.column_stack([np.zeros(len(eta)), eta]), -np.inf)
        weight = np.exp(eta - eta.max(axis=1, keepdims=True))
        out += weight / weight.sum(axis=1, keepdims=True)
    return out / _AVERAGED


def _model(z: np.ndarray, site, possible: np.ndarray, category: np.ndarray, sites: int):
    import pymc as pm
    import pytensor.tensor as pt

    others = possible.shape[1] - 1
    with pm.Model() as model:
        eta = pm.Normal("intercept", 0.0, 2.5, shape=others)
        eta = eta + pt.zeros((len(z), others))
        if z.shape[1]:
            eta = eta + z @ pm.Normal("b", 0.0, 1.0, shape=(z.shape[1], others))
        if site is not None:
            tau = pm.HalfNormal("tau", 1.0, shape=others)
            raw = pm.Normal("raw", 0.0, 1.0, shape=(sites, others))
            eta = eta + pt.as_tensor(pm.Deterministic("u", raw * tau))[site]
        full = pt.concatenate([pt.zeros((len(z), 1)), eta], axis=1)
        pm.Categorical(
            "category", logit_p=pt.where(possible, full, -1e9), observed=category.astype(np.int64)
        )
    return model
