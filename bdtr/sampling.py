"""The only caller of samplers: a stage fitted to the observed payoff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from bdtr.multilevel.crossproducts import (
    CrossProducts,
    Responses,
    cross_products,
    response_products,
)
from bdtr.multilevel.direct import DirectDraws, draw_posterior
from bdtr.multilevel.exact import exact_draws
from bdtr.multilevel.layout import layout
from bdtr.multilevel.marginal import Parameters, parameters
from bdtr.multilevel.randomness import children
from bdtr.outcome import OutcomeModel, marginal_model, pymc_model, variable_dims
from bdtr.posterior import labelled

__all__ = [
    "Sampled",
    "SamplingError",
    "fit_direct",
    "fit_marginal",
    "fit_plain",
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
    nuts_seed, normal_seed = children(seed, 2)
    with threadpool_limits(1):
        products, responses, params = _system(model, response)
        shifted = responses.without(products, params.mean)
        built = marginal_model(model, products, shifted, params)
        wanted = ["sigma", *(f"sd_{f.name}" for f in model.factors)]
        partial = [f"partial_{f.name}" for f in model.factors if f.correlated]
        found = _nuts(built, wanted + partial, nuts_seed, chains, draws, tune, progressbar)
        phi = _phi(found.posterior, wanted, partial)
        which = np.zeros(len(phi), dtype=np.int64)
        drawn = exact_draws(products, shifted, params, phi, which, normal_seed)
    return Sampled(labelled(model, phi, *drawn, chains), found.stats)


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


def _sampled(model: OutcomeModel, drawn: DirectDraws, chains: int) -> Sampled:
    """Draws of the direct sampler as a dataset, with how they were made."""
    posterior = labelled(model, drawn.phi, drawn.coefficients, drawn.effects, chains)
    stats = xr.Dataset(attrs={"sampler": "direct", **drawn.report.attributes()})
    return Sampled(_complete(posterior, chains, len(drawn.phi) // chains), stats)
