"""The only caller of samplers: a stage fitted to the observed payoff, or to propagated responses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from bdtr.multilevel.crossproducts import (
    Columns,
    CrossProducts,
    Layout,
    Responses,
    cross_products,
    layout,
    response_products,
)
from bdtr.multilevel.direct import DirectDraws, draw_each, draw_posterior, exact_draws
from bdtr.multilevel.marginal import Parameters, parameters
from bdtr.outcome import OutcomeModel, coords, marginal_model, pymc_model, variable_dims

__all__ = [
    "Sampled",
    "SamplingError",
    "fit_direct",
    "fit_marginal",
    "fit_plain",
    "phi_of",
    "propagate",
]

type Progress = Callable[[int, int], None]


class SamplingError(RuntimeError):
    """A sampler that stopped early or returned draws that are not all there."""


@dataclass(frozen=True)
class Sampled:
    """Draws of one stage: the posterior (dims ``chain, draw``) and the sampler's statistics."""

    posterior: xr.Dataset
    stats: xr.Dataset


def fit_plain(
    model: OutcomeModel,
    response: np.ndarray,
    seed: np.random.SeedSequence,
    chains: int = 4,
    draws: int = 1000,
    tune: int = 1000,
    progressbar: bool = True,
) -> Sampled:
    """Fit a stage to the observed payoff with PyMC's model, every parameter sampled by NUTS.

    Parameters
    ----------
    model
        The stage's model.
    response
        Observed payoff of its rows.
    seed
        Source of randomness.
    chains, draws, tune
        Chains, draws kept from each, and draws of warm-up.
    progressbar
        Whether to show progress.

    Returns
    -------
    Sampled

    Raises
    ------
    SamplingError
        If the fit was interrupted or a draw is not finite.
    """
    wanted = list(variable_dims(model.design)) + (["sigma"] if model.family.has_sigma else [])
    built = pymc_model(model, response)
    return _nuts(built, wanted, seed, chains, draws, tune, progressbar)


def fit_marginal(
    model: OutcomeModel,
    response: np.ndarray,
    seed: np.random.SeedSequence,
    chains: int = 4,
    draws: int = 1000,
    tune: int = 1000,
    progressbar: bool = True,
) -> Sampled:
    """Fit a Gaussian stage with PyMC on the marginal density of its SDs and correlations.

    NUTS draws the standard deviations and partial correlations; coefficients and group effects are
    drawn afterwards from their exact normal given these. The posterior is that of
    :func:`fit_plain`, with the same variables, dims and coords.

    Parameters
    ----------
    model, response, seed, chains, draws, tune, progressbar
        As in :func:`fit_plain`.

    Returns
    -------
    Sampled
    """
    nuts_seed, normal_seed = seed.spawn(2)
    with threadpool_limits(1):
        products, responses, params = _system(model, response)
        shifted = responses.shifted(products, params.mean)
        built = marginal_model(model, products, shifted, params)
        wanted = ["sigma", *(f"sd_{f.name}" for f in model.factors)]
        partial = [f"partial_{f.name}" for f in model.factors if f.correlated]
        found = _nuts(built, wanted + partial, nuts_seed, chains, draws, tune, progressbar)
        phi = _phi(found.posterior, wanted, partial)
        which = np.zeros(len(phi), dtype=np.int64)
        drawn = exact_draws(products, shifted, params, phi, which, normal_seed)
    return Sampled(_posterior(model, phi, *drawn, chains), found.stats)


def _phi(posterior: xr.Dataset, sds: list[str], partial: list[str]) -> np.ndarray:
    """Draws of phi (draw x phi) from those of the marginal PyMC model."""

    def flat(name: str) -> np.ndarray:
        return posterior[name].to_numpy().reshape(chains * draws, -1)

    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    sigma = flat(sds[0])
    c = [np.clip(2 * flat(name) - 1, -1 + 1e-12, 1 - 1e-12) for name in partial]
    return np.hstack([np.log(sigma), *(flat(n) / sigma for n in sds[1:]), *map(np.arctanh, c)])


def _nuts(built, wanted, seed, chains, draws, tune, progressbar) -> Sampled:
    import nutpie
    from pytensor.configdefaults import config

    # The same seed gives other draws with a cold and a warm cache unless fast maths is off.
    # Options are added to PyTensor's config at run time, where pyright cannot see them.
    config.numba__fastmath = False  # pyright: ignore[reportAttributeAccessIssue]
    compiled = nutpie.compile_pymc_model(built, var_names=wanted)
    tree = nutpie.sample(
        compiled,
        chains=chains,
        draws=draws,
        tune=tune,
        seed=int(seed.generate_state(1)[0]),
        progress_bar=progressbar,
    )
    posterior = tree["posterior"].to_dataset()[wanted]
    stats = tree["sample_stats"].to_dataset()[["diverging", "energy", "n_steps", "step_size"]]
    return Sampled(_complete(posterior, chains, draws), stats)


def _complete(posterior: xr.Dataset, chains: int, draws: int) -> xr.Dataset:
    """Hold the draws against what was asked for: an interrupted fit returns as if it had succeeded."""
    got = posterior.sizes.get("chain", 0), posterior.sizes.get("draw", 0)
    if got != (chains, draws):
        raise SamplingError(
            f"Asked for {chains} chains of {draws} draws and got {got[0]} of {got[1]}: the fit was "
            "interrupted. Run it again."
        )
    bad = [str(n) for n, v in posterior.data_vars.items() if not np.isfinite(v.to_numpy()).all()]
    if bad:
        raise SamplingError(
            f"Draws of {', '.join(bad)} are not finite: the fit was interrupted, or the model does "
            "not fit the data. Look at the scale of the outcome and the priors."
        )
    return posterior


def fit_direct(
    model: OutcomeModel,
    response: np.ndarray,
    seed: np.random.SeedSequence,
    chains: int = 4,
    draws: int = 1000,
    progress: Progress | None = None,
) -> Sampled:
    """Fit a Gaussian stage to the observed payoff with the direct sampler.

    Parameters
    ----------
    model, response, seed, chains, draws
        As in :func:`fit_plain`.
    progress
        Called with (draws done, draws in all).

    Returns
    -------
    Sampled
    """
    with threadpool_limits(1):  # the same bits on any number of threads
        products, responses, params = _system(model, response)
        drawn = draw_posterior(products, responses, params, chains, draws, seed, progress)
    return _sampled(model, drawn, chains)


def _system(
    model: OutcomeModel, response: np.ndarray
) -> tuple[CrossProducts, Responses, Parameters]:
    """Cross-products of a stage's rows with one response, and the layout of phi."""
    where = layout(model.factors, model.rows.codes)
    products = cross_products(model.rows, where)
    responses = response_products(model.rows, where, response[:, None])
    return products, responses, parameters(model.factors, model.priors)


def propagate(
    model: OutcomeModel,
    responses: Iterable[tuple[slice, np.ndarray]],
    seed: np.random.SeedSequence,
    chains: int,
    progress: Progress | None = None,
    start: np.ndarray | None = None,
) -> Sampled:
    """One posterior draw of a stage for each propagated response.

    Parameters
    ----------
    model
        The stage's model.
    responses
        Blocks of rows of the responses: places among the rows, (row, response).
    seed
        Source of randomness.
    chains
        Number of chains that the responses came from, stacked.
    progress
        Called with (responses done, responses in all).
    start
        States to start the chains from, such as those of a pass under another policy.

    Returns
    -------
    Sampled
        As many draws as responses, in their order.
    """
    where = layout(model.factors, model.rows.codes)
    with threadpool_limits(1):
        products = cross_products(model.rows, where)
        total = _accumulated(model.rows, where, responses)
        params = parameters(model.factors, model.priors)
        drawn = draw_each(products, total, params, seed, progress, start)
    return _sampled(model, drawn, chains)


def phi_of(posterior: xr.Dataset, model: OutcomeModel) -> np.ndarray:
    """The parameters phi of the marginal density (draw x phi) that a stored posterior holds."""
    flat = posterior.stack(sample=("chain", "draw"))
    sigma = flat["sigma"].to_numpy()
    parts = [np.log(sigma)[:, None]]
    partial = []
    for factor in model.factors:
        dim = f"{factor.name}_term"
        sd = flat[f"sd_{factor.name}"].transpose("sample", dim).to_numpy()
        parts.append(sd / sigma[:, None])
        if factor.correlated:
            cor = flat[f"cor_{factor.name}"].transpose("sample", dim, f"{dim}_bis").to_numpy()
            partial.append(_partial_correlations(cor))
    return np.hstack(parts + partial)


def _partial_correlations(cor: np.ndarray) -> np.ndarray:
    """Atanh partial correlations (draw x pair), the inverse of :func:`_correlations`."""
    q = cor.shape[1]
    factor = np.linalg.cholesky(cor + 1e-10 * np.eye(q))
    out = []
    for i in range(1, q):
        left = np.ones(len(cor))
        for k in range(i):
            c = np.clip(factor[:, i, k] / np.sqrt(left), -1 + 1e-9, 1 - 1e-9)
            out.append(np.arctanh(c))
            left = np.maximum(left * (1 - c**2), 1e-12)
    return np.stack(out, axis=1)


def _accumulated(rows: Columns, where: Layout, responses) -> Responses:
    """Cross-products with the responses, block by block."""
    parts = None
    for at, values in responses:
        block = Columns(rows.x[at], tuple(z[at] for z in rows.z), tuple(c[at] for c in rows.codes))
        one = response_products(block, where, values)
        if parts is None:
            parts = one
        else:
            parts = Responses(parts.zty + one.zty, parts.xty + one.xty, parts.yty + one.yty)
    assert parts is not None
    return parts


def _sampled(model: OutcomeModel, drawn: DirectDraws, chains: int) -> Sampled:
    """Draws of the direct sampler as a dataset, with how they were made."""
    posterior = _posterior(model, drawn.phi, drawn.coefficients, drawn.effects, chains)
    report = drawn.report
    stats = xr.Dataset(
        attrs={
            "sampler": "direct",
            "sweeps": report.sweeps,
            "correlation": report.correlation,
            "evaluations": report.evaluations,
        }
    )
    return Sampled(_complete(posterior, chains, len(drawn.phi) // chains), stats)


def _posterior(
    model: OutcomeModel,
    phi: np.ndarray,
    coefficients: np.ndarray,
    effects: np.ndarray,
    chains: int,
) -> xr.Dataset:
    """Draws of phi, coefficients and effects with the variables, dims and coords of PyMC's model."""
    design = model.design
    count = len(phi)
    sigma = np.exp(phi[:, 0])
    b = coefficients.copy()
    if design.has_intercept:
        b[:, 0] -= b @ design.shift
    found: dict[str, np.ndarray] = {"b": b}
    sd_at, effect_at = 1, 0
    cor_at = 1 + sum(f.terms for f in model.factors)
    for factor in model.factors:
        q, name = factor.terms, factor.name
        found[f"sd_{name}"] = sigma[:, None] * np.abs(phi[:, sd_at : sd_at + q])
        sd_at += q
        if factor.correlated:
            pairs = q * (q - 1) // 2
            found[f"cor_{name}"] = _correlations(phi[:, cor_at : cor_at + pairs], q)
            cor_at += pairs
        size = factor.levels * q
        found[f"u_{name}"] = effects[:, effect_at : effect_at + size].reshape(count, -1, q)
        effect_at += size
    dims = variable_dims(design)
    data = {
        name: (("chain", "draw", *dims[name]), values.reshape(chains, -1, *values.shape[1:]))
        for name, values in found.items()
    }
    data["sigma"] = (("chain", "draw"), sigma.reshape(chains, -1))
    ids = {"chain": np.arange(chains), "draw": np.arange(count // chains)}
    return xr.Dataset(data, coords={**coords(design), **ids})


def _correlations(partial: np.ndarray, q: int) -> np.ndarray:
    """Correlation matrices (draw, term, term) from atanh partial correlations."""
    factor = np.zeros((len(partial), q, q))
    at = 0
    for i in range(q):
        left = np.ones(len(partial))
        for k in range(i):
            c = np.tanh(partial[:, at])
            at += 1
            factor[:, i, k] = c * np.sqrt(left)
            left = left * (1 - c**2)
        factor[:, i, i] = np.sqrt(left)
    return factor @ np.swapaxes(factor, 1, 2)
