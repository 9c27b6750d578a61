r"""Backward passes of a fit to part of its rows, without drawing anew.

The standard deviations and correlations phi of the whole fit are kept; given them, the posterior means of
coefficients and group effects from the rows that are left have a closed form (Lindley and Smith 1972, J. R.
Stat. Soc. B 34(1)),

    E[theta | y, phi] = (W'R(phi)W + P(phi))^{-1} W'R(phi) y,

which is taken for some draws of phi, stage by stage. Of outcomes that are not Gaussian, and of stage values
on their link scale, it is the posterior mode that is taken. Leaving rows out changes coefficients and effects
at first order and phi hardly: what is left of a jackknife by refits but for the refits' Monte-Carlo error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bdtr.backward.carried_effects import KnownEffects
from bdtr.backward.fitted import Fit
from bdtr.backward.induction import BackwardPass, Policy, StageResponses, backward, together
from bdtr.backward.linkscale import part_on_link_scale
from bdtr.backward.passes import known_effects, mean_response
from bdtr.backward.policies import decisions
from bdtr.backward.propagation import accumulate
from bdtr.backward.unit_columns import columns_of
from bdtr.engine.coefficients.exact import solve
from bdtr.engine.crossproducts import CrossProducts, Responses, Rows
from bdtr.engine.system import system
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.posterior import group_roots, phi_of
from bdtr.stages.prediction import QFunction, StageDraws, shape_of

__all__ = ["made_by_formulas", "passes_without"]

_DRAWS = 64  # of phi: with half as many posterior means of sites are off by .02 SDs


def made_by_formulas(fit: Fit) -> bool:
    """Whether all stages are."""
    return all(fit.trial.by_formula(k) for k in range(fit.stages))


def passes_without(fit: Fit, keep: np.ndarray, rules: Sequence[Policy]) -> list[BackwardPass]:
    """Backward passes under some rules from part of the units, at posterior means (or modes) given phi.

    Parameters
    ----------
    fit
        A fit whose stages formulas make, with its data.
    keep
        (unit of the data) whether it is in the fits.
    rules
        What later stages do, for all units of the data.

    Returns
    -------
    list of BackwardPass
        For each rule; their samples are draws of phi. Sites and classes that are left out have effects 0.
    """
    data = fit.require_data("fits to part of the rows")
    last = fit.stages - 1
    pick = np.linspace(0, fit.settings.propagated - 1, _DRAWS).astype(int)
    fitted = [np.flatnonzero(s.fitted & keep) for s in data.stages]
    designs = fit.designs

    def rows(k: int) -> Rows:
        return _model(fit, k).rows.part(keep[data.stages[k].fitted])

    def units(k: int) -> tuple[float, float]:
        return _model(fit, k).location, _model(fit, k).spread

    def draw_stage(
        k: int, responses: list[StageResponses], later: list[StageDraws]
    ) -> list[StageDraws]:
        known = [known_effects(fit, k, rule, own) for rule, own in zip(rules, later, strict=True)]
        if fit.payoff(k).family.quasi:
            before = _model(fit, k), mean_response(fit, k)
            effects = [None if one is None else one.effects for one in known]
            own = keep[data.stages[k].fitted]
            totals = part_on_link_scale(fit, k, responses, effects, before, own)
        else:
            totals = accumulate(rows(k), designs[k].factors, together(responses), units(k))
        phi = fit.tree[f"stage_{k + 1}/engine"].to_dataset()["phi"].to_numpy()
        phi = phi.reshape(-1, phi.shape[-1])[pick]
        return [
            _means(fit, k, totals.products, one, phi, own)
            for one, own in zip(totals.responses, known, strict=True)
        ]

    def q_values(k: int, draws: StageDraws, units: np.ndarray, sites: str) -> np.ndarray:
        return QFunction(designs[k], fit.payoff(k), draws, sites).evaluate(
            columns_of(fit, k, units)
        )

    own = keep[data.stages[last].fitted]
    if _model(fit, last).family.closed_form:
        payoff = data.payoff[own, None]
        blocks = [(slice(0, len(payoff)), [payoff])]
        observed = accumulate(rows(last), designs[last].factors, blocks, units(last))
        phi = phi_of(_model(fit, last), fit.posterior(last))[pick]
        final = _means(fit, last, observed.products, observed.responses[0], phi, None)
    else:
        final = _modes(fit, last, own, pick)
    problem = decisions(data)
    found = backward(problem, rules, final, fitted, draw_stage, q_values, _DRAWS)

    def q_at(draws: Sequence[StageDraws], sites: str):
        return lambda k, units: q_values(k, draws[k], units, sites)

    return [
        BackwardPass(problem, rule, q_at(own, "observed"), q_at(own, "average"), _DRAWS)
        for rule, own in zip(rules, found, strict=True)
    ]


def _model(fit: Fit, k: int) -> OutcomeModel:
    model = fit.model(k)
    assert isinstance(model, OutcomeModel)
    return model


def _means(
    fit: Fit,
    k: int,
    products: CrossProducts,
    responses: Responses,
    phi: np.ndarray,
    known: KnownEffects | None,
) -> StageDraws:
    """Posterior means of one stage for each phi, each with its own response or all with the same."""
    model = _model(fit, k)
    params = model.parameters
    taken_out = None if known is None else model.engine_effects(known.effects.T).T
    rest = responses.without(products, params.mean, taken_out)
    which = np.arange(len(phi)) if rest.count > 1 else np.zeros(len(phi), dtype=np.int64)
    coefficients, effects = solve(
        phi, system(products, params), *rest.each(which), params, products.layout
    )
    coefficients, effects = model.coefficients(coefficients + params.mean), model.effects(effects)
    if known is not None:
        effects = effects + known.effects.T
    return _stage_draws(model, phi, coefficients, effects, None)


def _modes(fit: Fit, k: int, keep: np.ndarray, pick: np.ndarray) -> StageDraws:
    """Posterior modes of the last stage, of a family that is not Gaussian, for some draws of phi."""
    from bdtr.stages.laplace import laplace_phi, modes_of_part, phi_as_labelled

    model, posterior = _model(fit, k), fit.posterior(k)
    phi = laplace_phi(model, posterior)[pick]
    shape = shape_of(posterior, model.payoff)
    shape = None if shape is None else np.ascontiguousarray(shape[..., pick])
    full = phi_as_labelled(model, phi)
    return _stage_draws(model, full, *modes_of_part(model, keep, phi), shape)


def _stage_draws(
    model: OutcomeModel,
    phi: np.ndarray,
    coefficients: np.ndarray,
    effects: np.ndarray,
    shape: np.ndarray | None,
) -> StageDraws:
    by_factor, roots, at = {}, {}, 0
    groups = model.design.groups
    for group, factor, root in zip(groups, model.factors, group_roots(model, phi), strict=False):
        own = effects[:, at : at + factor.levels * factor.terms]
        at += own.shape[1]
        roots[factor.name] = root
        if group.role != "delivery":
            own = own.reshape(len(phi), factor.levels, factor.terms)
            by_factor[factor.name] = np.ascontiguousarray(np.moveaxis(own, 0, -1))
    every = np.hstack([coefficients, effects[:, at:]])  # those of smooth terms come last
    return StageDraws(np.ascontiguousarray(every.T), by_factor, roots, {}, shape)
