"""Groups that ArviZ knows beside the posterior: prior, predictive draws, log prior, log likelihood.

They belong to the last stage, which is fitted to the observed payoff, and are computed from the model's
terms, so that they are the same whichever sampler made the posterior. The likelihood is that of a unit
given its group effects: p(y_i | b, u, sigma).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr
from scipy.special import betaln, gammaln

from bdtr.engine.compiled.streams import children
from bdtr.results.errors import BdtrError
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.posterior import group_covariances, labelled
from bdtr.stages.prediction import add_effects, group_root
from bdtr.trial.priors import Exponential, HalfNormal, HalfStudentT, Prior

__all__ = ["GROUPS", "GroupError", "groups", "replicates"]

_CELLS = 8_000_000  # linear predictors in memory at once
_PRIOR_DRAWS = 1000

GROUPS: tuple[str, ...] = (
    "prior",
    "prior_predictive",
    "posterior_predictive",
    "log_prior",
    "log_likelihood",
    "observed_data",
)


class GroupError(BdtrError, ValueError):
    """A group that is not known."""


def groups(
    model: OutcomeModel,
    response: np.ndarray,
    units: Sequence[str],
    posterior: xr.Dataset,
    wanted: Sequence[str],
    seed: np.random.SeedSequence,
) -> dict[str, xr.Dataset]:
    """Compute groups.

    Parameters
    ----------
    model
        Model of the last stage.
    response
        Observed payoff of its rows.
    units
        Labels of its rows.
    posterior
        Draws with dims ``chain, draw``.
    wanted
        Names of :data:`GROUPS`.
    seed
        Source of randomness of prior and predictive draws.

    Returns
    -------
    dict
        A dataset for each name; pointwise variables are called ``y``, with dim ``unit``.
    """
    unknown = [name for name in wanted if not isinstance(name, str) or name not in GROUPS]
    if unknown:
        raise GroupError(f"groups: {unknown[0]!r} is not known; allowed are {', '.join(GROUPS)}.")
    seeds = dict(zip(GROUPS, children(seed, len(GROUPS)), strict=True))
    out: dict[str, xr.Dataset] = {}
    prior = None
    if {"prior", "prior_predictive"} & set(wanted):
        prior = _prior(model, seeds["prior"])
    for name in wanted:
        rng = np.random.default_rng(seeds[name])
        if name == "prior" and prior is not None:
            out[name] = prior
        elif name == "prior_predictive" and prior is not None:
            out[name] = _pointwise(model, prior, units, _predictive(model, rng))
        elif name == "posterior_predictive":
            out[name] = _pointwise(model, posterior, units, _predictive(model, rng))
        elif name == "log_likelihood":
            out[name] = _pointwise(model, posterior, units, _log_likelihood(model, response))
        elif name == "log_prior":
            out[name] = _log_prior(model, posterior)
        else:
            out[name] = xr.Dataset({"y": ("unit", response)}, coords={"unit": list(units)})
    return out


# Residual SDs and the like of some rows, with degrees of freedom where there are any.
type Shape = np.ndarray | tuple[np.ndarray, np.ndarray] | None
type Pointwise = Callable[[slice, np.ndarray, Shape], np.ndarray]


def _pointwise(
    model: OutcomeModel, draws: xr.Dataset, units: Sequence[str], of: Pointwise
) -> xr.Dataset:
    """A value for each unit and draw, from linear predictor and what the family takes beside it, in blocks
    of units."""
    design, rows = model.design, model.rows
    flat = draws.stack(sample=("chain", "draw"))
    b = design.measure.back @ flat["b"].transpose("term", "sample").to_numpy()
    effects = [
        np.ascontiguousarray(
            g.measure.back @ flat[f"u_{g.name}"].transpose(..., "sample").to_numpy()
        )
        for g in design.groups
    ]
    bends = [
        u for s in design.smooths for u in flat[f"u_{s.name}"].transpose(..., "sample").to_numpy()
    ]
    samples, n = b.shape[1], len(rows.x)
    shape = {
        name: flat[name].transpose(..., "sample").to_numpy()
        for name in model.family.variables
        if name in flat
    }
    out = np.empty((samples, n))
    size = max(1, _CELLS // samples)
    for at in range(0, n, size):
        block = slice(at, min(at + size, n))
        eta = rows.x[block] @ b
        for z, codes, u in zip(rows.z, rows.codes, effects, strict=False):  # smooth terms come last
            add_effects(eta, np.ascontiguousarray(z[block]), codes[block], u)
        for z, u in zip(rows.z[len(effects) :], bends, strict=True):
            eta += z[block] @ u
        out[:, block] = of(block, eta, _of_rows(model, block, shape)).T
    sizes = draws.sizes["chain"], draws.sizes["draw"], n
    coords = {"chain": draws["chain"], "draw": draws["draw"], "unit": list(units)}
    return xr.Dataset({"y": (("chain", "draw", "unit"), out.reshape(sizes))}, coords=coords)


def _of_rows(model: OutcomeModel, block: slice, shape: Mapping[str, np.ndarray]) -> Shape:
    """What the family takes beside the linear predictor of some rows: residual SDs (row, draw), or (draw)
    where one is that of all; thresholds (category, draw)."""
    if "sigma" not in shape:
        return shape.get("threshold")
    rows, sigma = model.rows, shape["sigma"]
    own = sigma if sigma.ndim == 1 or rows.stratum is None else sigma[rows.stratum[block]]
    own = own if rows.root is None else own / rows.root[block]
    return (own, shape["nu"]) if "nu" in shape else own


def _companion(model: OutcomeModel, block: slice) -> np.ndarray:
    return np.ones((1, 1)) if model.companion is None else model.companion[block, None]


def _predictive(model: OutcomeModel, rng: np.random.Generator) -> Pointwise:
    def draw(block: slice, eta: np.ndarray, shape: Shape) -> np.ndarray:
        return model.payoff.draw(rng, eta, shape, _companion(model, block))

    return draw


def replicates(model: OutcomeModel, draws: xr.Dataset, rng: np.random.Generator) -> np.ndarray:
    """Replicated responses of the rows of a stage, given its group effects (sample, row).

    Parameters
    ----------
    model
        Model of any stage.
    draws
        Its posterior, dims ``chain, draw``.
    rng
        Source of randomness.
    """
    rows = [str(i) for i in range(len(model.rows.x))]
    found = _pointwise(model, draws, rows, _predictive(model, rng))["y"].to_numpy()
    return found.reshape(-1, len(rows))


def _log_likelihood(model: OutcomeModel, response: np.ndarray) -> Pointwise:
    recorded = response if model.recorded is None else model.recorded

    def log(block: slice, eta: np.ndarray, shape: Shape) -> np.ndarray:
        m = _companion(model, block)
        return model.family.log_likelihood(recorded[block, None], m, eta, shape)

    return log


def _log_normal(x: np.ndarray, sd: np.ndarray | float) -> np.ndarray:
    return -0.5 * np.log(2 * np.pi) - np.log(sd) - 0.5 * (x / sd) ** 2


def _prior(model: OutcomeModel, seed: np.random.SeedSequence) -> xr.Dataset:
    """Draws from the prior with the variables of the posterior (one chain)."""
    rng, count = np.random.default_rng(seed), _PRIOR_DRAWS
    priors, factors = model.engine_priors, model.factors
    shape = (count, model.rows.strata)
    every = np.ones(shape) if priors.sigma is None else _draw_sd(priors.sigma, rng, shape)
    sigma = every[:, 0]
    columns, partial = [np.log(sigma)[:, None]], []
    for name, factor in {f.name: f for f in factors}.items():
        prior = priors.groups[name]
        columns += [(_draw_sd(p, rng, count) / sigma)[:, None] for p in prior.sd]
        if prior.cor is not None:
            q, eta = factor.terms, prior.cor.eta
            alpha = np.array([eta + (q - 2 - k) / 2 for i in range(1, q) for k in range(i)])
            partial.append(np.arctanh(2 * rng.beta(alpha, alpha, (count, alpha.size)) - 1))
    phi = np.hstack([*columns, *partial, np.log(every[:, 1:] / every[:, :1])])
    means = np.array([p.mu for p in priors.coefficients])
    sds = np.array([p.sigma for p in priors.coefficients])
    b = model.coefficients(means + sds * rng.standard_normal((count, len(means))))
    sizes = [f.levels * f.terms for f in factors]
    effects = np.zeros((count, sum(sizes)))
    gaps = [rng.normal(p.mu, p.sigma, count) for p in priors.gaps.values()]
    beside = {"threshold": np.cumsum(np.exp(np.array(gaps)), axis=0).T} if gaps else {}
    if priors.nu is not None:
        beside["nu"] = 1.0 + rng.gamma(priors.nu.alpha, 1.0 / priors.nu.beta, count)
    found = labelled(model, phi, b, effects, group_covariances(model, phi), 1, beside)
    for g, factor in zip(model.design.groups, factors, strict=False):
        u, root = found[f"u_{factor.name}"], group_root(found, g)
        z = rng.standard_normal((count, factor.levels, factor.terms))
        found[f"u_{factor.name}"] = (u.dims, np.einsum("sqr,slr->slq", root, z)[None])
    for s in model.design.smooths:
        sd, u = found[f"sd_{s.name}"].to_numpy(), found[f"u_{s.name}"]
        found[f"u_{s.name}"] = (u.dims, sd[..., None] * rng.standard_normal(u.shape))
    return found


def _draw_sd(prior: Prior, rng: np.random.Generator, count: int | tuple[int, ...]) -> np.ndarray:
    match prior:
        case HalfNormal(sigma):
            return np.abs(rng.normal(0, sigma, count))
        case HalfStudentT(nu, sigma):
            return np.abs(rng.standard_t(nu, count)) * sigma
        case Exponential(scale):
            return rng.exponential(scale, count)
    raise TypeError(f"{prior} is no prior of a standard deviation.")


def _log_prior(model: OutcomeModel, draws: xr.Dataset) -> xr.Dataset:
    """Log prior density of each parameter, group effects given their SDs and correlations.

    Coefficients, SDs and correlations are those of terms as measured, to which the priors belong: the
    map from terms as written has determinant one, but for constants.
    """
    priors, design = model.priors, model.design
    shape = draws.sizes["chain"], draws.sizes["draw"]
    b = draws["b"].to_numpy() @ (design.measure.back / design.measure.scale[:, None]).T
    mu = np.array([p.mu for p in priors.coefficients])
    sd = np.array([p.sigma for p in priors.coefficients])
    found: dict[str, tuple] = {"b": (draws["b"].dims, _log_normal(b - mu, sd))}
    for group in design.groups:
        name, prior, terms = group.name, priors.groups[group.name], len(group.terms)
        written = group_root(draws, group)
        turned = (group.measure.back / group.measure.scale[:, None]) @ written
        total = turned @ np.swapaxes(turned, 1, 2)
        sds = np.sqrt(np.diagonal(total, axis1=1, axis2=2))
        logs = np.stack([_log_sd(p, sds[:, i]) for i, p in enumerate(prior.sd)], axis=-1)
        found[f"sd_{name}"] = (draws[f"sd_{name}"].dims, logs.reshape(*shape, terms))
        if prior.cor is not None:
            cor = total / (sds[:, :, None] * sds[:, None, :])
            found[f"cor_{name}"] = (("chain", "draw"), _log_lkj(cor, prior.cor.eta).reshape(shape))
        u = draws[f"u_{name}"].to_numpy().reshape(len(written), -1, terms)
        z = np.linalg.solve(written[:, None], u[..., None])[..., 0]
        logdet = np.linalg.slogdet(written)[1]
        log_u = _log_normal(z, 1.0).sum(axis=2) - logdet[:, None]
        found[f"u_{name}"] = (draws[f"u_{name}"].dims[:-1], log_u.reshape(*shape, -1))
    for s in design.smooths:
        sd, u = draws[f"sd_{s.name}"].to_numpy(), draws[f"u_{s.name}"]
        logs = [_log_sd(p, sd[..., i]) for i, p in enumerate(priors.groups[s.name].sd)]
        found[f"sd_{s.name}"] = (draws[f"sd_{s.name}"].dims, np.stack(logs, axis=-1))
        found[f"u_{s.name}"] = (u.dims, _log_normal(u.to_numpy(), sd[..., None]))
    if priors.sigma is not None:
        found["sigma"] = (draws["sigma"].dims, _log_sd(priors.sigma, draws["sigma"].to_numpy()))
    if priors.nu is not None:
        alpha, beta, above = priors.nu.alpha, priors.nu.beta, draws["nu"] - 1.0
        logs = alpha * np.log(beta) - gammaln(alpha) + (alpha - 1) * np.log(above) - beta * above
        found["nu"] = (logs.dims, logs.to_numpy())
    if priors.gaps:
        threshold = draws["threshold"].to_numpy()
        gaps = np.diff(threshold, axis=-1, prepend=0.0)
        means, sds = np.array([(p.mu, p.sigma) for p in priors.gaps.values()]).T
        logs = _log_normal(np.log(gaps) - means, sds) - np.log(gaps)
        found["threshold"] = (draws["threshold"].dims, logs)
    return xr.Dataset(found, coords=_coords_of(found, draws))


def _coords_of(found: Mapping[str, tuple], draws: xr.Dataset) -> dict:
    used = {dim for dims, _ in found.values() for dim in dims}
    return {dim: draws[dim] for dim in used if dim in draws.coords}


def _log_sd(prior: Prior, sd: np.ndarray) -> np.ndarray:
    match prior:
        case HalfNormal(sigma):
            return np.log(2) + _log_normal(sd, sigma)
        case HalfStudentT(nu, sigma):
            constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi)
            tail = -(nu + 1) / 2 * np.log1p((sd / sigma) ** 2 / nu)
            return np.log(2) + constant - np.log(sigma) + tail
        case Exponential(scale):
            return -np.log(scale) - sd / scale
    raise TypeError(f"{prior} is no prior of a standard deviation.")


def _log_lkj(cor: np.ndarray, eta: float) -> np.ndarray:
    """Log density of correlation matrices, |R|^(eta - 1) over its integral (Lewandowski et al. 2009,
    equations 16 and 17)."""
    q = cor.shape[-1]
    constant = 0.0
    for k in range(1, q):
        a = eta + (q - k - 1) / 2
        constant += (2 * eta - 2 + q - k) * (q - k) * np.log(2) + (q - k) * betaln(a, a)
    return (eta - 1) * np.linalg.slogdet(cor)[1] - constant
