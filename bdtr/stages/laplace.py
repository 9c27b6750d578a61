"""Stages with outcomes that are not Gaussian, on the density with coefficients and effects integrated out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from bdtr.engine.crossproducts import strata_of
from bdtr.engine.laplace.cells import Outcome, cells
from bdtr.engine.laplace.curvatures import curvatures
from bdtr.engine.laplace.density import Posterior, shape_at
from bdtr.engine.laplace.direct import correct_draws, draw_laplace
from bdtr.engine.laplace.likelihoods import CODES, FOLDED
from bdtr.engine.laplace.modes import modes_given
from bdtr.engine.laplace.proposals import Places
from bdtr.engine.layout import Layout, layout
from bdtr.stages.coded_priors import coded, group_sds, partial_alpha
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.posterior import group_covariances, group_parameters, labelled

__all__ = [
    "complete",
    "engine_posterior",
    "information",
    "laplace_draws",
    "laplace_phi",
    "modes_of_part",
    "phi_as_labelled",
]


def engine_posterior(model: OutcomeModel) -> tuple[Posterior, Layout]:
    """Model and data of a stage as the engine takes them, and the layout of its group effects."""
    assert model.recorded is not None and model.companion is not None
    rows, priors, factors = model.rows, model.engine_priors, model.factors
    where = layout(factors, rows.codes)
    y, m = model.recorded, model.companion
    if model.family.coded is not None:
        y, m = model.family.coded(y, m)
    outcome = Outcome(CODES[model.family.engine], (y - model.location) / model.spread, m)
    sd = group_sds(factors, priors)
    shape = [(p.mu, p.sigma, 0.0) for p in priors.gaps.values()]
    if priors.sigma is not None:
        shape = [coded(priors.sigma)] * rows.strata
    if priors.nu is not None:
        shape.append((priors.nu.alpha, priors.nu.beta, 0.0))
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
) -> tuple[xr.Dataset, dict[str, float]] | None:
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
        Draws, of those of each chain resampled in their order, and figures of the weights; None where no draw
        of a chain has a weight.
    """
    corrected = correct_draws(posterior, where, places, phi, chains, seed)
    if corrected is None:
        return None
    named = labelled_laplace(
        model, posterior, corrected.phi, corrected.coefficients, corrected.effects, chains
    )
    return named, corrected.report.attributes()


def laplace_phi(model: OutcomeModel, posterior: xr.Dataset) -> np.ndarray:
    """phi of the engine (draw x phi) from a labelled posterior: the inverse of what labels it."""
    parts = [*group_parameters(model, posterior)]
    if "threshold" in posterior:
        gaps = np.diff(posterior["threshold"].to_numpy(), axis=-1, prepend=0.0)
        parts.append(np.log(gaps).reshape(len(parts[0]), -1))
    elif model.family.has_sigma:
        sigma = posterior["sigma"].to_numpy().reshape(len(parts[0]), -1) / model.spread
        parts.append(sigma if FOLDED[CODES[model.family.engine]] else np.log(sigma))
    if model.family.has_nu:
        parts.append(np.log(posterior["nu"].to_numpy().reshape(-1, 1) - 1.0))
    return np.hstack(parts)


def information(model: OutcomeModel, posterior: xr.Dataset, eta: np.ndarray) -> np.ndarray:
    """What each row says of its linear predictor at posterior means, in the units of the engine (row).

    Minus the second derivative of the log likelihood at the outcome observed, which is Fisher's information
    on average over units that are alike. Where that of some is negative (long tails), all of an arm have its
    mean.

    Parameters
    ----------
    model
        The stage's model.
    posterior
        Its labelled posterior.
    eta
        Linear predictor of its rows, in units of the outcome.
    """
    assert model.recorded is not None and model.companion is not None
    y, m, rows = model.recorded, model.companion, model.rows
    if model.family.coded is not None:
        y, m = model.family.coded(y, m)
    phi = laplace_phi(model, posterior).mean(axis=0)
    count = len(model.priors.gaps) or (rows.strata if model.family.has_sigma else 0)
    stratum = strata_of(rows)
    found = curvatures(
        model.family.engine, (y - model.location) / model.spread, m, stratum,
        phi[len(phi) - count - model.family.has_nu :], (eta - model.location) / model.spread,
    )  # fmt: skip
    if (found < 0).any():
        found = (np.bincount(stratum, found) / np.maximum(np.bincount(stratum), 1))[stratum]
    return np.maximum(found, 1e-9 * found.max())


def modes_of_part(
    model: OutcomeModel, keep: np.ndarray, phi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Modes of coefficients (draw x term, columns as measured) and group effects (draw x effect, terms as
    written) given each phi, from some of the rows.

    Parameters
    ----------
    model
        The stage's model.
    keep
        Which rows.
    phi
        From :func:`laplace_phi`.
    """
    assert model.recorded is not None and model.companion is not None
    part = replace(
        model,
        rows=model.rows.part(keep),
        recorded=model.recorded[keep],
        companion=model.companion[keep],
    )
    with threadpool_limits(1):
        found = modes_given(*engine_posterior(part), phi)
    return model.coefficients(found[0]), model.effects(found[1])


def labelled_laplace(
    model: OutcomeModel,
    posterior: Posterior,
    phi: np.ndarray,
    coefficients: np.ndarray,
    effects: np.ndarray,
    chains: int,
) -> xr.Dataset:
    """Draws of the engine with the variables, dims and coords of the stage's PyMC model."""
    shape = {}
    if model.priors.gaps:
        shape["threshold"] = np.cumsum(np.exp(phi[:, shape_at(posterior) :]), axis=1)
    elif model.family.has_nu:
        shape["nu"] = 1.0 + np.exp(phi[:, -1])
    full = phi_as_labelled(model, phi)
    return labelled(
        model,
        full,
        model.coefficients(coefficients),
        model.effects(effects),
        group_covariances(model, full),
        chains,
        shape,
    )


def phi_as_labelled(model: OutcomeModel, phi: np.ndarray) -> np.ndarray:
    """phi of the engine as that of a Gaussian stage: SDs relative to the first residual SD, here a dispersion
    or 1, then the logarithms of the dispersions, or 0."""
    strata = model.rows.strata if model.family.has_sigma else 0
    phi = phi[:, : phi.shape[1] - model.family.has_nu]
    own = phi.shape[1] - (strata or len(model.priors.gaps))
    sds = sum(f.terms for f in model.factors)
    shape, sigma = phi[:, own:], np.ones((len(phi), 1))
    if strata:
        sigma = np.abs(shape) if FOLDED[CODES[model.family.engine]] else np.exp(shape)
    relative = np.log(sigma[:, 1:] / sigma[:, :1])
    return np.hstack([np.log(sigma[:, :1]), phi[:, :sds] / sigma[:, :1], phi[:, sds:own], relative])
