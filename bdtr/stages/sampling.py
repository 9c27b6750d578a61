"""The only caller of samplers: a stage compiled once and fitted to the observed payoff."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from bdtr.engine.coefficients.exact import exact_draws
from bdtr.engine.compiled.streams import children
from bdtr.engine.crossproducts import (
    CrossProducts,
    Responses,
    cross_products,
    response_products,
)
from bdtr.engine.direct import DirectDraws, draw_posterior
from bdtr.engine.layout import Layout, layout
from bdtr.engine.parameters import Parameters
from bdtr.results.errors import BdtrError
from bdtr.stages.outcome import OutcomeModel, variable_dims
from bdtr.stages.posterior import group_covariances, labelled
from bdtr.stages.pymc_models import laplace_model, marginal_model, pymc_model
from bdtr.stages.stagemodel import OwnModel

if TYPE_CHECKING:
    from bdtr.engine.laplace.density import Posterior
    from bdtr.engine.laplace.proposals import Places

__all__ = [
    "CompiledStage",
    "Lengths",
    "Sampled",
    "SamplingError",
    "compiled_laplace",
    "compiled_marginal",
    "compiled_plain",
    "fit_direct",
]

_MOST_CROSSED = 400  # levels of factors that cross others, up to which they are integrated out
_LEAST_TUNE = 1000  # warm-up draws where every parameter is sampled in place of few

type Progress = Callable[[int, int], None]


class SamplingError(BdtrError, RuntimeError):
    """A sampler that stopped early or returned draws that are not all there."""


@dataclass(frozen=True)
class Sampled:
    """Draws of one stage: the posterior (dims ``chain, draw``) and the sampler's statistics."""

    posterior: xr.Dataset
    stats: xr.Dataset


class Lengths(Protocol):
    """How many chains, how many draws of each are kept, and how many it warms up for."""

    @property
    def chains(self) -> int: ...
    @property
    def draws(self) -> int: ...
    @property
    def tune(self) -> int: ...


@dataclass(frozen=True)
class _Lengths:
    chains: int
    draws: int
    tune: int


class CompiledStage(Protocol):
    """A stage model compiled once, fitted to one response after another."""

    def fit(
        self,
        response: np.ndarray,
        seed: np.random.SeedSequence,
        lengths: Lengths,
        progressbar: bool,
    ) -> Sampled:
        """Fit the model to a response of its rows with NUTS."""
        ...


@dataclass(frozen=True)
class _Plain:
    compiled: Any
    wanted: list[str]

    def fit(self, response, seed, lengths, progressbar) -> Sampled:
        compiled = self.compiled.with_data(payoff=np.asarray(response, dtype=float))
        return _nuts(compiled, self.wanted, seed, lengths, progressbar)


@dataclass(frozen=True)
class _Marginal:
    model: OutcomeModel
    products: CrossProducts
    params: Parameters
    compiled: Any

    def fit(self, response, seed, lengths, progressbar) -> Sampled:
        nuts_seed, normal_seed = children(seed, 2)
        with threadpool_limits(1):
            responses = _responses(self.model, self.products, response)
            shifted = responses.without(self.products, self.params.mean)
            from bdtr.engine.density.pytensor_op import marginal_data  # loads PyTensor

            data = marginal_data(self.products, shifted, self.params)
            compiled = self.compiled.with_data(**data)
            sds, partial = _marginal_names(self.model)
            found = _nuts(compiled, sds + partial, nuts_seed, lengths, progressbar)
            phi = _phi(found.posterior, sds, partial)
            which = np.zeros(len(phi), dtype=np.int64)
            drawn = exact_draws(self.products, shifted, self.params, phi, which, normal_seed)
        return Sampled(_labelled(self.model, phi, *drawn, lengths.chains), found.stats)


def compiled_plain(model: OutcomeModel | OwnModel) -> CompiledStage:
    """PyMC's model of a stage, or one of the user's, every parameter sampled by NUTS.

    Parameters
    ----------
    model
        The stage's model.

    Returns
    -------
    CompiledStage
    """
    if isinstance(model, OwnModel):
        built = model.build()
        wanted = [v.name for v in (*built.free_RVs, *built.deterministics)]
    else:
        # Any response of the right length and range will do: it is replaced at every fit.
        if model.recorded is None:
            built = pymc_model(model, model.location + model.spread * _any(model))
        else:
            built = pymc_model(model, model.recorded)
        shape = (
            ()
            if model.family.shape == "threshold" and not model.categories
            else model.family.variables
        )
        wanted = [*variable_dims(model.design), *shape]
    return _Plain(_compile(built, wanted), wanted)


def compiled_marginal(model: OutcomeModel) -> CompiledStage:
    """PyMC's model on the marginal density of SDs and correlations, for Gaussian stages.

    NUTS draws the standard deviations and partial correlations; coefficients and group effects are
    drawn afterwards from their exact normal given these. The posterior is that of
    :func:`compiled_plain`, with the same variables, dims and coords.

    Parameters
    ----------
    model
        The stage's model.

    Returns
    -------
    CompiledStage
    """
    with threadpool_limits(1):
        products = cross_products(model.rows, layout(model.factors, model.rows.codes))
        params = model.parameters
        anything = _responses(model, products, model.location + model.spread * _any(model))
        built = marginal_model(model, products, anything, params)
    sds, partial = _marginal_names(model)
    return _Marginal(model, products, params, _compile(built, sds + partial))


@dataclass(frozen=True)
class _Laplace:
    model: OutcomeModel
    posterior: Posterior
    where: Layout
    places: Places
    compiled: Any

    def fit(self, response, seed, lengths, progressbar) -> Sampled:
        from bdtr.engine.laplace.direct import trusted
        from bdtr.stages.laplace import complete

        nuts_seed, normal_seed = children(seed, 2)
        found = _nuts(self.compiled, ["phi"], nuts_seed, lengths, progressbar)
        phi = found.posterior["phi"].to_numpy().reshape(-1, self.posterior.size)
        with threadpool_limits(1):
            given = self.model, self.posterior, self.where, self.places
            made = complete(*given, phi, lengths.chains, normal_seed)
        if made is None or not trusted(made[1]["khat"], made[1]["effective_share"], len(phi)):
            return _every_parameter(self.model, response, seed, lengths, progressbar)
        posterior, how = made
        return Sampled(posterior, found.stats.assign_attrs(how))


def _every_parameter(model, response, seed, lengths, progressbar) -> Sampled:
    """NUTS where importance weights are not good enough; the statistics count these draws."""
    longer = _Lengths(lengths.chains, lengths.draws, max(lengths.tune, _LEAST_TUNE))
    found = compiled_plain(model).fit(response, children(seed, 3)[2], longer, progressbar)
    how = {"nuts": lengths.chains * lengths.draws, "tune": longer.tune, "crossed": _crossed(model)}
    return Sampled(found.posterior, found.stats.assign_attrs(how))


@dataclass(frozen=True)
class _EveryParameter:
    model: OutcomeModel

    def fit(self, response, seed, lengths, progressbar) -> Sampled:
        return _every_parameter(self.model, response, seed, lengths, progressbar)


def _crossed(model: OutcomeModel) -> int:
    """Levels of factors that cross others, where these are too many to be integrated out, else 0."""
    border = layout(model.factors, model.rows.codes).border.size
    return border if border > _MOST_CROSSED else 0


def compiled_laplace(model: OutcomeModel) -> CompiledStage:
    """PyMC's model on Laplace's marginal density of phi, for stages that are not Gaussian.

    NUTS draws standard deviations, correlations and dispersions; coefficients and group effects are drawn
    afterwards, and exact weights correct the approximation. The posterior is that of :func:`compiled_plain`,
    with the same variables, dims and coords.

    Parameters
    ----------
    model
        The stage's model.

    Returns
    -------
    CompiledStage
        The plain model where there is no phi (no group terms, dispersions or thresholds), no mode of it, or
        where very many levels cross others.
    """
    from bdtr.engine.laplace.direct import first_places
    from bdtr.stages.laplace import engine_posterior

    if _crossed(model):
        return _EveryParameter(model)
    with threadpool_limits(1):
        posterior, where = engine_posterior(model)
        if not posterior.size:
            return compiled_plain(model)
        places = first_places(posterior)
        if places is None:
            return _EveryParameter(model)
        built = laplace_model(model, posterior, places.mode)
    return _Laplace(model, posterior, where, places, _compile(built, ["phi"]))


def _any(model: OutcomeModel) -> np.ndarray:
    """Zeros and ones for the rows of a model, to build it with."""
    return np.arange(len(model.rows.x)) % 2 + 0.0


def _marginal_names(model: OutcomeModel) -> tuple[list[str], list[str]]:
    sds = ["sigma", *(f"sd_{name}" for name in dict.fromkeys(f.name for f in model.factors))]
    return sds, [f"partial_{f.name}" for f in model.factors if f.correlated]


def _responses(model: OutcomeModel, products: CrossProducts, response: np.ndarray) -> Responses:
    """Products with a response, which is centred before anything is squared."""
    scaled = (np.asarray(response, dtype=float) - model.location) / model.spread
    return response_products(model.rows, products.layout, scaled[:, None])


def _labelled(
    model: OutcomeModel, phi: np.ndarray, coefficients: np.ndarray, effects: np.ndarray, chains: int
) -> xr.Dataset:
    return labelled(
        model,
        phi,
        model.coefficients(coefficients),
        model.effects(effects),
        group_covariances(model, phi),
        chains,
    )


def _phi(posterior: xr.Dataset, sds: list[str], partial: list[str]) -> np.ndarray:
    """Draws of phi (draw x phi) from those of the marginal PyMC model."""

    def flat(name: str) -> np.ndarray:
        return posterior[name].to_numpy().reshape(chains * draws, -1)

    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    every = flat(sds[0])
    sigma = every[:, :1]
    c = [np.clip(2 * flat(name) - 1, -1 + 1e-12, 1 - 1e-12) for name in partial]
    ratios = np.log(every[:, 1:] / sigma)
    relative = [flat(n) / sigma for n in sds[1:]]
    return np.hstack([np.log(sigma), *relative, *map(np.arctanh, c), ratios])


def _compile(built, wanted: list[str]):
    import nutpie
    from pytensor.configdefaults import config

    # The same seed gives other draws with a cold and a warm cache unless fast maths is off.
    # Options are added to PyTensor's config at run time, where pyright cannot see them.
    config.numba__fastmath = False  # pyright: ignore[reportAttributeAccessIssue]
    with warnings.catch_warnings():
        # Stage models are compiled by numba: a missing BLAS for PyTensor's C code costs nothing.
        warnings.filterwarnings("ignore", "PyTensor could not link to a BLAS", UserWarning)
        return nutpie.compile_pymc_model(built, var_names=wanted)


def _nuts(compiled, wanted, seed, lengths: Lengths, progressbar) -> Sampled:
    import nutpie

    tree = nutpie.sample(
        compiled,
        chains=lengths.chains,
        draws=lengths.draws,
        tune=lengths.tune,
        seed=int(seed.generate_state(1)[0]),
        progress_bar=progressbar,
    )
    posterior = tree["posterior"].to_dataset()[wanted]
    stats = tree["sample_stats"].to_dataset()[["diverging", "energy", "n_steps", "step_size"]]
    return Sampled(_complete(posterior, lengths.chains, lengths.draws), stats)


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
    lengths: Lengths,
    progress: Progress | None = None,
    common: np.ndarray | None = None,
) -> Sampled:
    """Fit a stage to the observed outcome with the direct sampler.

    Where importance weights are not good enough for an outcome that is not Gaussian, or more than some
    hundred levels of factors cross others, NUTS samples every parameter; the statistics then count these
    draws as ``nuts``.

    Parameters
    ----------
    model
        The stage's model.
    response
        Observed payoff of its rows.
    seed
        Source of randomness.
    lengths
        Chains, and draws kept from each.
    progress
        Called with (draws done, draws in all).
    common
        As in :class:`bdtr.engine.coefficients.joint_draws.Shared`.

    Returns
    -------
    Sampled
    """
    if not model.family.closed_form:
        return _fit_laplace(model, response, seed, lengths, progress)
    with threadpool_limits(1):  # the same bits on any number of threads
        products = cross_products(model.rows, layout(model.factors, model.rows.codes))
        responses = _responses(model, products, response)
        params = model.parameters
        drawn = draw_posterior(
            products, responses, params, lengths.chains, lengths.draws, seed, progress, common
        )
    return _sampled(model, drawn, lengths.chains)


def _fit_laplace(model, response, seed, lengths, progress) -> Sampled:
    from bdtr.stages.laplace import laplace_draws  # its kernels are compiled when they are needed

    if _crossed(model):
        return _every_parameter(model, response, seed, lengths, False)
    direct_seed = children(seed, 1)[0]
    with threadpool_limits(1):
        made = laplace_draws(model, direct_seed, lengths.chains, lengths.draws, progress)
    if made is not None:
        posterior, how = made
        stats = xr.Dataset(attrs={"sampler": "direct", **how})
        return Sampled(_complete(posterior, lengths.chains, lengths.draws), stats)
    return _every_parameter(model, response, seed, lengths, False)


def _sampled(model: OutcomeModel, drawn: DirectDraws, chains: int) -> Sampled:
    """Draws of the direct sampler as a dataset, with how they were made."""
    posterior = _labelled(model, drawn.phi, drawn.coefficients, drawn.effects, chains)
    stats = xr.Dataset(attrs={"sampler": "direct", **drawn.report.attributes()})
    return Sampled(_complete(posterior, chains, len(drawn.phi) // chains), stats)
