"""Stages with outcomes that are not Gaussian, on the density with coefficients and effects integrated out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bdtr.engine.laplace.cells import Outcome, cells
from bdtr.engine.laplace.density import Posterior, shape_at
from bdtr.engine.laplace.direct import correct_draws, draw_laplace
from bdtr.engine.laplace.likelihoods import CODES, NEGATIVE_BINOMIAL
from bdtr.engine.laplace.proposals import Places
from bdtr.engine.layout import Layout, layout
from bdtr.engine.phi.importance_weights import khat_limit
from bdtr.stages.coded_priors import coded, partial_alpha
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.posterior import group_covariances, labelled

__all__ = ["complete", "engine_posterior", "laplace_draws", "trusted"]

_LEAST_SHARE = 0.2  # effective share of corrected draws


def engine_posterior(model: OutcomeModel) -> tuple[Posterior, Layout]:
    """Model and data of a stage as the engine takes them, and the layout of its group effects."""
    assert model.recorded is not None and model.companion is not None
    rows, priors, factors = model.rows, model.engine_priors, model.factors
    where = layout(factors, rows.codes)
    y, m = model.recorded, model.companion
    if model.family.coded is not None:
        y, m = model.family.coded(y, m)
    outcome = Outcome(CODES[model.family.engine], (y - model.location) / model.spread, m)
    sd = [coded(p) for f in factors for p in priors.groups[f.name].sd]
    shape = [(p.mu, p.sigma, 0.0) for p in priors.gaps.values()]
    if priors.sigma is not None:
        shape = [coded(priors.sigma)] * rows.strata
    posterior = Posterior(
        cells(rows, where, outcome),
        np.array([f.terms for f in factors], dtype=np.int64),
        np.array([f.correlated for f in factors], dtype=np.bool_),
        np.array([1.0 / p.sigma**2 for p in priors.coefficients]),
        np.array([p.mu for p in priors.coefficients]),
        np.array(sd, dtype=float).reshape(-1, 3),
        partial_alpha(factors, priors),
        np.array(shape, dtype=float).reshape(-1, 3),
    )
    return posterior, where


def laplace_draws(
    model: OutcomeModel,
    seed: np.random.SeedSequence,
    chains: int,
    draws: int,
    progress=None,
) -> tuple[xr.Dataset, dict[str, float]] | None:
    """Posterior of a stage by the direct sampler, and how it was drawn; None where weights are not good
    enough.

    Parameters
    ----------
    model
        The stage's model.
    seed
        Source of randomness.
    chains, draws
        Number of chains, and of draws kept from each.
    progress
        Called with (draws done, draws in all).
    """
    posterior, where = engine_posterior(model)
    found = draw_laplace(posterior, where, chains, draws, seed, progress)
    if found is None:
        return None
    named = labelled_laplace(model, posterior, found.phi, found.coefficients, found.effects, chains)
    return named, found.report.attributes()


def complete(
    model: OutcomeModel,
    posterior: Posterior,
    where: Layout,
    places: Places,
    phi: np.ndarray,
    chains: int,
    seed: np.random.SeedSequence,
) -> tuple[xr.Dataset, dict[str, float]]:
    """Posterior of a stage from draws of phi from Laplace's density, corrected by their exact weights.

    Parameters
    ----------
    model
        The stage's model.
    posterior, where
        As :func:`engine_posterior` returns them.
    places
        Where proposals for coefficients and effects come from.
    phi
        Draws (draw x phi), chain after chain.
    chains
        Number of chains.
    seed
        Source of randomness.

    Returns
    -------
    dataset, how
        Draws, of those of each chain resampled in their order, and figures of the weights.
    """
    corrected = correct_draws(posterior, where, places, phi, chains, seed)
    named = labelled_laplace(
        model, posterior, corrected.phi, corrected.coefficients, corrected.effects, chains
    )
    return named, corrected.report.attributes()


def trusted(how: Mapping[str, float], draws: int) -> bool:
    """Whether the weights that corrected draws from Laplace's density are good enough to trust."""
    return how["khat"] < khat_limit(draws) and how["effective_share"] > _LEAST_SHARE


def labelled_laplace(
    model: OutcomeModel,
    posterior: Posterior,
    phi: np.ndarray,
    coefficients: np.ndarray,
    effects: np.ndarray,
    chains: int,
) -> xr.Dataset:
    """Draws of the engine with the variables, dims and coords of the stage's PyMC model."""
    at, family = shape_at(posterior), posterior.cells.family
    shape, threshold = phi[:, at:], None
    sigma = np.ones((len(phi), 1))
    if family == CODES["ordinal"]:
        threshold = np.cumsum(np.exp(shape), axis=1) if shape.shape[1] else None
    elif shape.shape[1]:
        sigma = np.abs(shape) if family == NEGATIVE_BINOMIAL else np.exp(shape)
    sds = len(posterior.sd)
    # As of a Gaussian stage: SDs relative to the first residual SD, here a dispersion or 1.
    full = np.hstack(
        [
            np.log(sigma[:, :1]),
            phi[:, :sds] / sigma[:, :1],
            phi[:, sds:at],
            np.log(sigma[:, 1:] / sigma[:, :1]),
        ]
    )
    return labelled(
        model,
        full,
        model.coefficients(coefficients),
        model.effects(effects),
        group_covariances(model, full),
        chains,
        threshold,
    )
