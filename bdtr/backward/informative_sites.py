r"""Whether the effect of an action goes with the size of a site, or with the share of those who took
the action.

Random effects take the blips of sites to have nothing to do with either. Where they do, estimates of
small sites are drawn to the effect of large ones, and the mean over sites is wrong. With z_j the log
size, or the share, less its mean, g in

    y = X b + g_1 z_j + g_2 z_j x action + Z u + e

is estimated by generalised least squares at draws of the posterior of SDs and correlations (Lindley and
Smith 1972); it is said where its posterior mean is three posterior SDs from 0.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.linkscale import working_response
from bdtr.backward.passes import mean_response, stage_model
from bdtr.backward.residuals import linear_predictor
from bdtr.data.sitelevel import site_means, site_sizes
from bdtr.engine.coefficients.exact import exact_draws
from bdtr.engine.compiled.streams import children
from bdtr.engine.crossproducts import cross_products, response_products
from bdtr.engine.layout import layout
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.posterior import phi_of

__all__ = ["informative_sites"]

_DRAWS = 100
_APART = 3.0  # posterior SDs
_LEAST_SITES = 10


def informative_sites(fit: FitRecord) -> list[str]:
    """Stages at which the effect of an action goes with size or share, and the term that says so."""
    data, found = fit.require_data("checks of the model"), []
    for k, design in enumerate(fit.designs):
        model = stage_model(fit, k)
        group = next((g for g in design.groups if g.role == "site"), None)
        if not isinstance(model, OutcomeModel) or not model.family.closed_form or group is None:
            continue
        stage = data.stages[k]
        frame = data.frame[stage.fitted]
        site, arm = design.site_codes(frame), stage.action[stage.fitted]
        if np.unique(site).size < _LEAST_SITES:
            continue
        known, sites = set(stage.stage.site_terms), len(design.site_levels)
        for a in range(1, len(design.actions)):
            taken = arm == a
            if not taken.any() or not any(
                f"{design.action}[{design.actions[a]}]" in t for t in group.terms
            ):
                continue
            ways = {
                "size": site_sizes(site, sites)[site],
                "share": site_means(taken * 1.0, site, sites)[site],
            }
            for what, z in ways.items():
                if what in known or np.ptp(z) == 0:
                    continue
                apart = _apart(fit, k, z, taken)
                if abs(apart) > _APART:
                    found.append(_said(data.trial.site, design, a, what, apart))
    return found


def _said(site: str | None, design, a: int, what: str, apart: float) -> str:
    label = design.actions[a]
    goes = "larger" if apart > 0 else "smaller"
    of = {
        "size": f"at large sites, the size of {site!r}",
        "share": f"at sites where more have it, the share of {label!r} at {site!r}",
    }[what]
    return (
        f"stage {design.action}: the effect of {label!r} is {goes} {of} goes with it "
        f"({abs(apart):.1f} posterior "
        f"SDs), which random effects do not know; say site_terms=({what!r},) in Stage({design.action!r})"
    )


def _apart(fit: FitRecord, k: int, z: np.ndarray, taken: np.ndarray) -> float:
    """Posterior mean over SD of the coefficient of z x action, SDs and correlations as fitted."""
    model = stage_model(fit, k)
    assert isinstance(model, OutcomeModel)
    own = z / z.std()
    extra = np.c_[own, own * taken]
    rows = replace(model.rows, x=np.hstack([model.rows.x, extra]))
    params = model.parameters
    wide = np.full(2, np.square(0.1))  # precision of a prior that says nothing
    params = replace(
        params, precision=np.r_[params.precision, wide], mean=np.r_[params.mean, 0.0, 0.0]
    )
    response = mean_response(fit, k)
    if model.family.quasi:
        response = working_response(model.payoff, linear_predictor(fit, k, model), response)
    response = (response - model.location) / model.spread
    posterior = fit.posterior(k)
    pick = np.linspace(0, fit.settings.propagated - 1, _DRAWS).astype(int)
    phi = np.ascontiguousarray(phi_of(model, posterior)[pick])
    seed = children(fit.settings.stream("predictive checks"), fit.stages + k + 1)[-1]
    with threadpool_limits(1):
        products = cross_products(rows, layout(model.factors, rows.codes))
        responses = response_products(rows, products.layout, response[:, None])
        shifted = responses.without(products, params.mean)
        which = np.zeros(len(phi), dtype=np.int64)
        found = exact_draws(products, shifted, params, phi, which, seed)[0][:, -1]
    return float(found.mean() / found.std(ddof=1))
