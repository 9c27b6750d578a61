"""PyMC models of a stage: in full, or with coefficients and group effects integrated out.

The first is what anyone would write, and the yardstick of the engines; NUTS samples the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bdtr.data.groupcolumns import GroupDesign
from bdtr.data.smooths import SmoothDesign
from bdtr.engine.crossproducts import CrossProducts, Responses
from bdtr.engine.parameters import Parameters
from bdtr.stages.outcome import OutcomeModel, coords, level_dim
from bdtr.trial.priors import Exponential, Gamma, HalfNormal, HalfStudentT, Prior, StagePriors

if TYPE_CHECKING:
    import pymc as pm

    from bdtr.engine.laplace.density import Posterior

__all__ = ["laplace_model", "marginal_model", "pymc_model"]


def pymc_model(model: OutcomeModel, response: np.ndarray) -> pm.Model:
    """The stage model in PyMC, with the response as ``pm.Data``.

    Parameters
    ----------
    model
        The outcome model.
    response
        Observed payoff of the rows of the fit.

    Returns
    -------
    pymc.Model
        Deterministics ``b`` (coefficients of the columns as they are), ``sd_*, cor_*, u_*``.
    """
    import pymc as pm
    import pytensor.tensor as pt

    design, priors = model.design, model.engine_priors
    names = {**coords(design, model.by_action, model.categories), "row": np.arange(len(response))}
    with pm.Model(coords=names) as built:
        centred = pm.Normal(
            "b_measured",
            np.array([p.mu for p in priors.coefficients]),
            np.array([p.sigma for p in priors.coefficients]),
            dims="term",
        )
        measured = model.spread * centred + model.location * design.constant
        pm.Deterministic("b", pt.dot(design.measure.turn, measured), dims="term")
        eta = pt.dot(model.rows.x, measured)
        if model.factors:
            effects = [_group_effects(pm, pt, g, model).flatten() for g in design.groups]
            effects += [_bends(pm, pt, s, model).flatten() for s in design.smooths]
            # One gather for all factors: small graphs compile faster.
            at, z = _effect_positions(model)
            eta = eta + pt.sum(pt.take(pt.concatenate(effects), at) * z, axis=1)
        sigma: Any = None
        if priors.sigma is not None:
            own = _sd(pm, "sigma_measured", (priors.sigma,), **_each(model)) * model.spread
            sigma = pm.Deterministic("sigma", own, dims="action" if model.by_action else None)
            if model.by_action:
                sigma = sigma[model.rows.stratum]
            if model.rows.weight is not None:
                sigma = sigma / np.sqrt(model.rows.weight)
        observed = pm.Data("payoff", np.asarray(response, dtype=float), dims="row")
        shape = sigma
        if priors.gaps:
            shape = _thresholds(pm, pt, priors)
        elif priors.nu is not None:
            shape = sigma, pm.Deterministic("nu", 1.0 + _above_one(pm, priors.nu))
        model.family.likelihood(pm, "y", eta, shape, observed, model.companion, "row")
    return built


def _thresholds(pm, pt, priors: StagePriors) -> Any:
    """Thresholds above the lowest, which is 0, and part of the posterior as such."""
    gaps = pt.exp(_log_gaps(pm, priors))
    return pm.Deterministic("threshold", pt.cumsum(gaps), dims="category")


def _above_one(pm, prior: Gamma) -> Any:
    """Degrees of freedom less 1."""
    return pm.Gamma("nu_above_1", prior.alpha, prior.beta)


def _log_gaps(pm, priors: StagePriors) -> Any:
    mean = np.array([p.mu for p in priors.gaps.values()])
    sd = np.array([p.sigma for p in priors.gaps.values()])
    return pm.Normal("log_gap", mean, sd, dims="category")


def _each(model: OutcomeModel) -> dict[str, Any]:
    return {"shape": model.rows.strata} if model.by_action else {}


def marginal_model(
    model: OutcomeModel, products: CrossProducts, response: Responses, params: Parameters
) -> pm.Model:
    """The same model in PyMC with coefficients and group effects integrated out (Gaussian stages).

    Free are the standard deviations and partial correlations alone, so NUTS meets no funnel and the
    cost of a step does not depend on the number of units.

    Parameters
    ----------
    model
        The outcome model.
    products, response, params
        Cross-products, with the response shifted to zero prior means, and the layout of phi.

    Returns
    -------
    pymc.Model
        Free variables ``sigma``, ``sd_*`` and ``partial_*`` (0 to 1 for -1 to 1).
    """
    import pymc as pm
    import pytensor.tensor as pt

    from bdtr.engine.density.pytensor_op import marginal_log_likelihood

    priors, design = model.engine_priors, model.design
    terms = {f"{g.name}_term": list(g.terms) for g in design.groups}
    terms |= {s.dims[0]: list(s.curves) for s in design.smooths}
    assert priors.sigma is not None
    with pm.Model(coords=terms) as built:
        every: Any = _sd(pm, "sigma", (priors.sigma,), **_each(model))
        sigma = every[0] if model.by_action else every
        sds, partial = _group_parameters(pm, pt, model, params.alpha)
        log_sigma: Any = pt.log(sigma)
        ratios = [pt.log(every[1:]) - log_sigma] if model.by_action else []
        phi = pt.concatenate(
            [pt.stack([log_sigma]), *(sd / sigma for sd in sds), *partial, *ratios]
        )
        pm.Potential("marginal", marginal_log_likelihood(phi, products, response, params))
    return built


def laplace_model(model: OutcomeModel, posterior: Posterior, mode: np.ndarray) -> pm.Model:
    """The model of an outcome that is not Gaussian in PyMC, coefficients and group effects integrated out by
    Laplace's approximation.

    Parameters
    ----------
    model
        The outcome model.
    posterior
        Model and data as the engine takes them.
    mode
        Effects and coefficients that climbs begin at.

    Returns
    -------
    pymc.Model
        Free variables ``sd_*``, ``partial_*`` (0 to 1 for -1 to 1), ``sigma``, ``log_gap`` or
        ``nu_above_1``; ``phi`` holds them as the engine takes them.
    """
    import pymc as pm
    import pytensor.tensor as pt

    from bdtr.engine.laplace.pytensor_op import laplace_log_likelihood

    priors, design = model.engine_priors, model.design
    terms = {f"{g.name}_term": list(g.terms) for g in design.groups}
    terms |= {s.dims[0]: list(s.curves) for s in design.smooths}
    with pm.Model(coords={**terms, "category": model.categories}) as built:
        sds, partial = _group_parameters(pm, pt, model, posterior.alpha)
        shape = []
        if priors.sigma is not None:
            sigma: Any = _sd(pm, "sigma", (priors.sigma,), shape=model.rows.strata)
            shape.append(sigma if posterior.sides[-1] else pt.log(sigma))
        elif priors.gaps:
            shape.append(_log_gaps(pm, priors))
        if priors.nu is not None:
            above: Any = pt.log(_above_one(pm, priors.nu))
            shape.append(above[None])
        phi = pm.Deterministic("phi", pt.concatenate([*sds, *partial, *shape]))
        pm.Potential("marginal", laplace_log_likelihood(phi, posterior, mode))
    return built


def _group_parameters(pm, pt, model: OutcomeModel, alpha: np.ndarray) -> tuple[list, list]:
    """SDs of each factor, and the atanh of partial correlations of those that have any."""
    sds, partial, at = [], [], 0
    for g in model.design.groups:
        own = model.engine_priors.groups[g.name].sd
        sds.append(_several_sds(pm, pt, f"sd_{g.name}", f"{g.name}_term", own))
        if g.correlated:
            pairs = len(g.terms) * (len(g.terms) - 1) // 2
            here = alpha[at : at + pairs]
            c = 2 * pm.Beta(f"partial_{g.name}", here, here, shape=pairs) - 1
            partial.append(pt.arctanh(c))
            at += pairs
    for s in model.design.smooths:
        own = model.engine_priors.groups[s.name].sd
        sds.append(_several_sds(pm, pt, f"sd_{s.name}", s.dims[0], own))
    return sds, partial


def _effect_positions(model: OutcomeModel) -> tuple[np.ndarray, np.ndarray]:
    """Per row the places of its effects among all of them, and the values they are multiplied by."""
    places, first = [], 0
    for factor, codes in zip(model.factors, model.rows.codes, strict=True):
        places.append(first + factor.places(codes))
        first += factor.levels * factor.terms
    return np.hstack(places), np.hstack(model.rows.z)


def _sd(pm, name: str, priors: Sequence[Prior], **size):
    """Standard deviations under priors of one kind."""

    def values(field: str):
        found = np.array([getattr(p, field) for p in priors])
        return found if size else float(found[0])

    match priors[0]:
        case HalfStudentT():
            return pm.HalfStudentT(name, values("nu"), values("sigma"), **size)
        case HalfNormal():
            return pm.HalfNormal(name, values("sigma"), **size)
        case Exponential():
            return pm.Exponential(name, scale=values("scale"), **size)
    raise TypeError(f"{priors[0]} is no prior of a standard deviation.")


def _several_sds(pm, pt, name: str, dims: str, priors: Sequence[Prior]) -> Any:
    """The SDs of a factor or a smooth term: one vector, or one variable each where priors are of several
    kinds."""
    if len({type(p) for p in priors}) == 1:
        return _sd(pm, name, priors, dims=dims)
    parts = [_sd(pm, f"{name}_{i}", (p,), shape=1) for i, p in enumerate(priors)]
    return pm.Deterministic(name, pt.concatenate(parts), dims=dims)


def _bends(pm, pt, smooth: SmoothDesign, model: OutcomeModel) -> Any:
    """Effects of a smooth term (curve x bend) in units of the outcome."""
    name, prior = smooth.name, model.engine_priors.groups[smooth.name].sd
    own = _several_sds(pm, pt, f"sd_measured_{name}", smooth.dims[0], prior)
    sd = pm.Deterministic(f"sd_{name}", own * model.spread, dims=smooth.dims[0])
    z = pm.Normal(f"z_{name}", 0.0, 1.0, dims=smooth.dims)
    return pm.Deterministic(f"u_{name}", sd[:, None] * z, dims=smooth.dims)


def _group_effects(pm, pt, group: GroupDesign, model: OutcomeModel) -> Any:
    """Group effects (level x term), of terms as measured; kept are those of terms as written."""
    prior, name = model.engine_priors.groups[group.name], group.name
    dims, q = f"{name}_term", len(group.terms)
    sd = _several_sds(pm, pt, f"sd_measured_{name}", dims, prior.sd) * model.spread
    if prior.cor is not None:
        factor = sd[:, None] * pm.LKJCorr(f"chol_{name}", n=q, eta=prior.cor.eta)
    else:
        factor = pt.diag(sd)
    written = pt.dot(group.measure.turn, factor)
    total = pt.dot(written, written.T)
    own = pm.Deterministic(f"sd_{name}", pt.sqrt(pt.diag(total)), dims=dims)
    if prior.cor is not None:
        cor = total / (own[:, None] * own[None, :])
        pm.Deterministic(f"cor_{name}", cor, dims=(dims, f"{dims}_bis"))
    z = pm.Normal(f"z_{name}", 0.0, 1.0, shape=(len(group.levels), q))
    pm.Deterministic(f"u_{name}", z @ written.T, dims=(level_dim(group), dims))
    return z @ factor.T
