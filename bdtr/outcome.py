"""The outcome model of a stage: design, family and priors; as a PyMC model on request.

link(E[Y | h, a]) = x(h, a)'b + sum_g z_g(h, a)'u_g[level],    u_g ~ N(0, Sigma_g)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bdtr.data import TrialData
from bdtr.design import GroupDesign, StageDesign
from bdtr.families import FAMILIES, Family
from bdtr.multilevel.crossproducts import Columns, CrossProducts, Responses
from bdtr.multilevel.layout import Factor
from bdtr.multilevel.parameters import Parameters
from bdtr.priors import Exponential, HalfNormal, HalfStudentT, Prior, StagePriors, stage_priors

if TYPE_CHECKING:
    import pymc as pm

__all__ = [
    "OutcomeModel",
    "coords",
    "level_dim",
    "marginal_model",
    "outcome_model",
    "pymc_model",
    "stage_rows",
    "variable_dims",
]


@dataclass(frozen=True)
class OutcomeModel:
    """The model of one stage and the coded rows of its fit.

    ``propagated`` says that its response is a stage value: then each action has a residual SD of its
    own, as the spread of stage values differs between arms.
    """

    design: StageDesign
    family: Family
    priors: StagePriors
    rows: Columns
    propagated: bool = False

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The grouping factors as the exact engine takes them."""
        return self.design.factors


def stage_rows(data: TrialData, design: StageDesign, propagated: bool) -> Columns:
    """The rows of a stage's fit, coded.

    Parameters
    ----------
    data
        Checked data.
    design
        The stage's columns.
    propagated
        Whether the response is a stage value.

    Returns
    -------
    Columns
        With a stratum for each action where the response is a stage value.
    """
    stage = data.stages[design.index]
    frame = data.frame[stage.fitted].reset_index(drop=True)
    return Columns(
        design.common(frame, design.site_codes(frame)),
        tuple(g.matrix(frame) for g in design.groups),
        tuple(g.codes(frame) for g in design.groups),
        stage.action[stage.fitted].astype(np.int64) if propagated else None,
        len(design.actions) if propagated else 1,
        None if stage.weight is None else stage.weight[stage.fitted],
    )


def outcome_model(
    data: TrialData,
    design: StageDesign,
    family: str,
    rows: Columns,
    centre: float,
    spread: float,
    propagated: bool = False,
) -> OutcomeModel:
    """Put a stage's model together.

    Parameters
    ----------
    data
        Checked data.
    design
        The stage's columns.
    family
        Name of the outcome family.
    rows
        From :func:`stage_rows`.
    centre, spread
        Mean and SD of the response on the scale of the linear predictor, which scale the priors.
    propagated
        Whether the response is a stage value.

    Returns
    -------
    OutcomeModel
    """
    chosen = FAMILIES[family]
    groups = {
        g.name: (g.terms, _group_scale(z), g.correlated)
        for g, z in zip(design.groups, rows.z, strict=True)
    }
    priors = stage_priors(
        design.terms,
        design.scale,
        groups,
        centre,
        max(spread, 1e-12),
        chosen.has_sigma,
        data.stages[design.index].stage.priors,
    )
    return OutcomeModel(design, chosen, priors, rows, propagated)


def _group_scale(z: np.ndarray) -> np.ndarray:
    """Scale of a group term: its range where it has two values, else its SD."""
    scales = []
    for column in z.T:
        values = np.unique(column)
        scales.append(np.ptp(values) if values.size == 2 else np.std(column))
    return np.array([s if s > 1e-12 else 1.0 for s in scales])


def level_dim(group: GroupDesign) -> str:
    """Dimension of a factor's levels: ``site`` for sites, else the factor's own name."""
    return "site" if group.role == "site" else group.name


def coords(design: StageDesign, propagated: bool = False) -> dict[str, Any]:
    """Coordinates of a stage's posterior."""
    out: dict[str, Any] = {"term": list(design.terms)}
    if propagated:
        out["action"] = list(design.actions)
    for g in design.groups:
        out[level_dim(g)] = list(g.levels)
        out[f"{g.name}_term"] = list(g.terms)
        if g.correlated:
            out[f"{g.name}_term_bis"] = list(g.terms)
    return out


def variable_dims(design: StageDesign) -> dict[str, list[str]]:
    """Dimensions of each stored variable, chain and draw apart."""
    out = {"b": ["term"]}
    for g in design.groups:
        out[f"sd_{g.name}"] = [f"{g.name}_term"]
        if g.correlated:
            out[f"cor_{g.name}"] = [f"{g.name}_term", f"{g.name}_term_bis"]
        out[f"u_{g.name}"] = [level_dim(g), f"{g.name}_term"]
    return out


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

    design, priors = model.design, model.priors
    with pm.Model(coords={**coords(design), "row": np.arange(len(response))}) as built:
        centred = pm.Normal(
            "b_centred",
            np.array([p.mu for p in priors.coefficients]),
            np.array([p.sigma for p in priors.coefficients]),
            dims="term",
        )
        pm.Deterministic("b", _uncentred(centred, design), dims="term")
        eta = pt.dot(model.rows.x, centred)
        if design.groups:
            effects = [_group_effects(pm, pt, g, priors).flatten() for g in design.groups]
            # One gather for all factors: small graphs compile faster.
            at, z = _effect_positions(model)
            eta = eta + pt.sum(pt.take(pt.concatenate(effects), at) * z, axis=1)
        sigma = _sd(pm, "sigma", (priors.sigma,)) if priors.sigma is not None else None
        if sigma is not None and model.rows.weight is not None:
            sigma = sigma / np.sqrt(model.rows.weight)
        observed = pm.Data("payoff", np.asarray(response, dtype=float), dims="row")
        model.family.likelihood(pm, "y", eta, sigma, observed, "row")
    return built


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

    from bdtr.multilevel.op import marginal_log_likelihood

    priors, design = model.priors, model.design
    terms = {f"{g.name}_term": list(g.terms) for g in design.groups}
    assert priors.sigma is not None
    with pm.Model(coords=terms) as built:
        sigma = _sd(pm, "sigma", (priors.sigma,))
        sds, partial, at = [], [], 0
        for g in design.groups:
            sds.append(_group_sds(pm, pt, g.name, priors.groups[g.name].sd) / sigma)
            if g.correlated:
                pairs = len(g.terms) * (len(g.terms) - 1) // 2
                alpha = params.alpha[at : at + pairs]
                c = 2 * pm.Beta(f"partial_{g.name}", alpha, alpha, shape=pairs) - 1
                partial.append(pt.arctanh(c))
                at += pairs
        log_sigma: Any = pt.log(sigma)
        phi = pt.concatenate([pt.stack([log_sigma]), *sds, *partial])
        pm.Potential("marginal", marginal_log_likelihood(phi, products, response, params))
    return built


def _uncentred(centred, design: StageDesign):
    """Coefficients of the columns as they are: only the intercept changes."""
    import pytensor.tensor as pt

    if not design.has_intercept:
        return centred
    return pt.set_subtensor(centred[0], centred[0] - pt.dot(design.shift, centred))


def _effect_positions(model: OutcomeModel) -> tuple[np.ndarray, np.ndarray]:
    """Per row the places of its effects among all of them, and the values they are multiplied by."""
    places, first = [], 0
    for factor, codes in zip(model.factors, model.rows.codes, strict=True):
        places.append(first + codes[:, None] * factor.terms + np.arange(factor.terms))
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


def _group_sds(pm, pt, name: str, priors: Sequence[Prior]) -> Any:
    """The SDs of a factor: one vector, or one variable each where priors are of several kinds."""
    if len({type(p) for p in priors}) == 1:
        return _sd(pm, f"sd_{name}", priors, dims=f"{name}_term")
    parts = [_sd(pm, f"sd_{name}_{i}", (p,), shape=1) for i, p in enumerate(priors)]
    return pm.Deterministic(f"sd_{name}", pt.concatenate(parts), dims=f"{name}_term")


def _group_effects(pm, pt, group: GroupDesign, priors: StagePriors) -> Any:
    """Group effects (level x term)."""
    prior, name = priors.groups[group.name], group.name
    dims, q = f"{name}_term", len(group.terms)
    sd = _group_sds(pm, pt, name, prior.sd)
    if prior.cor is not None:
        corr = pm.LKJCorr(f"chol_{name}", n=q, eta=prior.cor.eta)
        pm.Deterministic(f"cor_{name}", corr @ corr.T, dims=(dims, f"{dims}_bis"))
        factor = sd[:, None] * corr
    else:
        factor = pt.diag(sd)
    z = pm.Normal(f"z_{name}", 0.0, 1.0, shape=(len(group.levels), q))
    return pm.Deterministic(f"u_{name}", z @ factor.T, dims=(level_dim(group), dims))
