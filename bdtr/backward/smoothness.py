r"""How far smooth terms are from lines: their effective degrees of freedom.

Given the standard deviations phi, a term with bends u ~ N(0, sd^2 I) has the effective degrees of freedom

    d + tr(I - Cov(u | phi, y) / sd^2),

d of its linear part and between 0 and the number of bends beyond it (Wood 2017, *Generalized Additive
Models*, 5.4.2). Cov does not depend on the response, so that with draws u_0 given a response of zero the
trace is the mean of |u_0|^2 / sd^2 over the posterior of phi.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bdtr.backward.drawnmodels import drawn_models
from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.passes import stage_model
from bdtr.backward.residuals import linear_predictor
from bdtr.engine.coefficients.exact import exact_draws
from bdtr.engine.crossproducts import Rows, cross_products, response_products, weighted
from bdtr.engine.layout import layout
from bdtr.stages.coded_priors import parameters
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.posterior import phi_of
from bdtr.trial.priors import HalfNormal

__all__ = ["smoothness"]

_DRAWS = 2_000


def smoothness(fit: FitRecord) -> pd.DataFrame:
    """Effective degrees of freedom of each curve of each smooth term.

    Parameters
    ----------
    fit
        A fit with its data.

    Returns
    -------
    pandas.DataFrame
        Indexed by stage (or ``state y``), term and curve (an action, or another label of ``by``): ``edf``, 1
        for a line in one variable and 2 for a plane in two; ``most``, what it can be at most; ``sd``,
        posterior mean of the SD of how far the function is from a line, in units of the payoff or of the
        linear predictor.
    """
    rows = []
    for label, owner, k in drawn_models(fit) if fit.data is not None else ():
        model, design = stage_model(owner, k), owner.designs[k]
        if not design.smooths or not isinstance(model, OutcomeModel):
            continue
        effects, sds = _without_response(owner, k, model)
        at, j = effects.shape[1] - sum(s.effects for s in design.smooths), 0
        for s in design.smooths:
            line = len(s.term.variables)
            own = owner.posterior(k)[f"sd_{s.name}"].mean(("chain", "draw")).to_numpy()
            for curve, sd in zip(s.curves, own, strict=True):
                left = np.square(effects[:, at : at + s.bends] / sds[:, j, None]).sum(axis=1)
                edf = line + max(s.bends - float(left.mean()), 0.0)  # a Monte-Carlo mean
                rows.append((label, s.name, curve, edf, line + s.bends, float(sd)))
                at, j = at + s.bends, j + 1
    found = pd.DataFrame(rows, columns=["stage", "term", "curve", "edf", "most", "sd"])
    return found.set_index(["stage", "term", "curve"])


def _without_response(fit: FitRecord, k: int, model: OutcomeModel) -> tuple[np.ndarray, np.ndarray]:
    """Effects given a response of zero (draw, effect) and the SDs of smooth terms (draw, term), in the units
    of the engine."""
    rows, priors, phi = model.rows, model.engine_priors, None
    posterior = (fit.parts[0] if fit.parts else fit).posterior(k)
    if model.family.closed_form:
        phi = phi_of(model, posterior)
    else:
        rows, phi = _as_gaussian(fit, k, model)
        priors = replace(priors, sigma=HalfNormal(1.0))  # it is 1
    params = parameters(model.factors, priors, rows.strata)
    phi = phi[np.linspace(0, len(phi) - 1, _DRAWS).astype(int)]
    with threadpool_limits(1):  # the same bits on any number of threads
        products = cross_products(rows, layout(model.factors, rows.codes))
        none = response_products(rows, products.layout, np.zeros((len(rows.x), 1)))
        which, seed = np.zeros(len(phi), dtype=np.int64), fit.settings.stream("smoothness")
        effects = exact_draws(products, none, params, phi, which, seed)[1]
    first = params.group_sds.stop - sum(len(s.curves) for s in model.design.smooths)
    sds = np.abs(phi[:, first : params.group_sds.stop]) * np.exp(phi[:, :1])
    return effects, np.maximum(sds, 1e-300)


def _as_gaussian(fit: FitRecord, k: int, model: OutcomeModel) -> tuple[Rows, np.ndarray]:
    """Rows with what they say of their linear predictor as weights, and phi for residual SDs of 1."""
    from bdtr.stages.laplace import information, laplace_phi

    one = fit.parts[0] if fit.parts else fit
    posterior = one.posterior(k)
    weight = information(model, posterior, linear_predictor(one, k, model))
    phi = laplace_phi(model, posterior)
    sds = sum(f.terms for f in model.factors)
    partial = sds + sum(f.terms * (f.terms - 1) // 2 for f in model.factors if f.correlated)
    own = np.hstack([np.zeros((len(phi), 1)), phi[:, :partial]])
    return weighted(replace(model.rows, stratum=None, strata=1), weight), own
