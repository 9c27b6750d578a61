"""Draws of the exact engine with the variables, dims and coords of the stage's PyMC model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bdtr.data.stagecolumns import StageDesign
from bdtr.engine.compiled.streams import children
from bdtr.engine.density.elimination import factors_of_each
from bdtr.stages.outcome import OutcomeModel, coords, variable_dims
from bdtr.stages.prediction import correlation_root, measured_correlation
from bdtr.stages.settings import Settings

__all__ = [
    "Propagated",
    "common_effects",
    "engine_roots",
    "group_covariances",
    "group_parameters",
    "group_roots",
    "labelled",
    "new_site",
    "new_site_seed",
    "phi_of",
]

_NEW_SITE = 1 << 20  # number of a child that no stage gets to


def labelled(
    model: OutcomeModel,
    phi: np.ndarray,
    coefficients: np.ndarray,
    effects: np.ndarray,
    covariances: Sequence[np.ndarray],
    chains: int,
    shape: Mapping[str, np.ndarray] | None = None,
) -> xr.Dataset:
    """A posterior dataset from draws of phi, coefficients and group effects.

    Parameters
    ----------
    model
        The stage's model.
    phi
        (draw x phi) in the units of the engines, the first chain first.
    coefficients
        (draw x term) of columns as measured, in units of the outcome.
    effects
        (draw x effect) of terms as written, factors in order and level-major.
    covariances
        Per factor the covariance between its terms as written (draw, term, term).
    chains
        Number of chains.
    shape
        What the outcome has beside residual SDs: ``threshold`` (draw, category), ``nu`` (draw).

    Returns
    -------
    xarray.Dataset
        Dims ``chain, draw`` and those of :func:`bdtr.stages.outcome.variable_dims`.
    """
    design, factors = model.design, model.factors
    count = len(phi)
    sigma = np.exp(phi[:, 0]) * model.spread
    b = coefficients @ design.measure.turn.T
    found: dict[str, np.ndarray] = {"b": b}
    effect_at = 0
    for factor, total in zip(factors, covariances, strict=True):
        if factor.smooth:
            break  # smooth terms come last
        q, name = factor.terms, factor.name
        sd = np.sqrt(np.diagonal(total, axis1=1, axis2=2))
        found[f"sd_{name}"] = sd
        if factor.correlated:
            scale = np.maximum(sd, 1e-300)
            cor = total / (scale[:, :, None] * scale[:, None, :])
            cor[:, np.arange(q), np.arange(q)] = 1.0
            found[f"cor_{name}"] = cor
        size = factor.levels * q
        found[f"u_{name}"] = effects[:, effect_at : effect_at + size].reshape(count, -1, q)
        effect_at += size
    own = np.sqrt([c[:, 0, 0] for c in covariances[len(design.groups) :]]).T
    at = 0
    for s in design.smooths:
        curves, size = len(s.curves), s.effects
        found[f"sd_{s.name}"] = own[:, at : at + curves]
        found[f"u_{s.name}"] = effects[:, effect_at : effect_at + size].reshape(count, curves, -1)
        at, effect_at = at + curves, effect_at + size
    dims = variable_dims(design)
    data: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        name: (("chain", "draw", *dims[name]), values.reshape(chains, -1, *values.shape[1:]))
        for name, values in found.items()
    }
    for name, values in (shape or {}).items():
        split = values.reshape(chains, -1, *values.shape[1:])
        data[name] = (("chain", "draw", "category")[: split.ndim], split)
    if model.family.has_sigma and model.by_action:
        strata = model.rows.strata
        ratios = np.hstack([np.zeros((count, 1)), phi[:, phi.shape[1] - strata + 1 :]])
        own = (sigma[:, None] * np.exp(ratios)).reshape(chains, -1, strata)
        data["sigma"] = (("chain", "draw", "action"), own)
    elif model.family.has_sigma:
        data["sigma"] = (("chain", "draw"), sigma.reshape(chains, -1))
    ids = {"chain": np.arange(chains), "draw": np.arange(count // chains)}
    return xr.Dataset(data, coords={**coords(design, model.by_action, model.categories), **ids})


def group_covariances(model: OutcomeModel, phi: np.ndarray) -> list[np.ndarray]:
    """Covariance between the terms of each factor (draw, term, term)."""
    return [root @ np.swapaxes(root, 1, 2) for root in group_roots(model, phi)]


def group_roots(model: OutcomeModel, phi: np.ndarray) -> list[np.ndarray]:
    """Root of the covariance between the terms of each factor, as written (draw, term, term)."""
    return [t @ root for t, root in zip(model.turns, engine_roots(model, phi), strict=True)]


def engine_roots(model: OutcomeModel, phi: np.ndarray) -> list[np.ndarray]:
    """Triangular root of the covariance between the terms of each factor, in the units of the engines."""
    if not model.factors:
        return []
    terms = np.array([f.terms for f in model.factors], dtype=np.int64)
    correlated = np.array([f.correlated for f in model.factors], dtype=np.bool_)
    roots = factors_of_each(phi, terms, correlated)
    roots *= np.exp(phi[:, 0])[:, None, None, None]
    return [roots[:, f, :q, :q] for f, q in enumerate(terms)]


def phi_of(model: OutcomeModel, posterior: xr.Dataset) -> np.ndarray:
    """phi (draw x phi) of a stage, in the units of the engines, from its labelled posterior.

    Partial correlations from the Cholesky factor L of a correlation matrix (Lewandowski, Kurowicka and Joe
    2009, J. Multivar. Anal. 100(9)): L[i, k] / sqrt(1 - sum_{l < k} L[i, l]^2).
    """

    sigma = _draws_of(posterior, "sigma") / model.spread
    log_sigma = np.log(sigma)
    sds, partial = group_parameters(model, posterior)
    return np.hstack(
        [log_sigma[:, :1], sds / sigma[:, :1], partial, log_sigma[:, 1:] - log_sigma[:, :1]]
    )


def _draws_of(posterior: xr.Dataset, name: str) -> np.ndarray:
    """A variable with the draws first (draw, value)."""
    values = posterior[name].to_numpy()
    return values.reshape(values.shape[0] * values.shape[1], -1)


def group_parameters(model: OutcomeModel, posterior: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """SDs of group terms and atanh partial correlations (draw, value), in the units of the engines."""
    draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    sds, partial = [np.zeros((draws, 0))], [np.zeros((draws, 0))]
    for group in model.design.groups:
        sd, cor = measured_correlation(posterior, group)
        sds.append(sd / model.spread)
        if cor is None:
            continue
        root, terms = correlation_root(cor), len(group.terms)
        for i in range(1, terms):
            left = np.ones(len(root))
            for k in range(i):
                c = root[:, i, k] / np.sqrt(left)
                partial.append(np.arctanh(np.clip(c, -1 + 1e-12, 1 - 1e-12))[:, None])
                left = np.maximum(left - root[:, i, k] ** 2, 1e-12)
    sds += [_draws_of(posterior, f"sd_{s.name}") / model.spread for s in model.design.smooths]
    return np.hstack(sds), np.hstack(partial)


def common_effects(design: StageDesign, settings: Settings, count: int) -> np.ndarray | None:
    """Standard normal numbers (draw, effect) for the levels of a stage, the same for the same label.

    Fits to different units of the same sites do not know the same things of a site: with draws that share
    these numbers, what is left unknown of a site does not average out over the fits.
    """
    if settings.common is None:
        return None
    parts = []
    for g in design.groups:
        own = np.empty((count, len(g.levels), len(g.terms)))
        for i, label in enumerate(g.levels):
            words = [settings.common, design.index, *f"{g.name}\0{label}".encode()]
            own[:, i] = np.random.default_rng(words).standard_normal((count, len(g.terms)))
        parts.append(own.reshape(count, -1))
    for s in design.smooths:
        words = [settings.common, design.index, *s.name.encode()]
        parts.append(np.random.default_rng(words).standard_normal((count, s.effects)))
    return np.hstack(parts) if parts else None


def new_site_seed(seed: np.random.SeedSequence) -> np.random.SeedSequence:
    """Source of randomness for the new site of a stage: none that the stage's draws use."""
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, _NEW_SITE))


def new_site(
    model: OutcomeModel,
    roots: Sequence[np.ndarray],
    streams: np.ndarray,
    seed: np.random.SeedSequence,
    chains: int,
    known: Mapping[str, np.ndarray] | None = None,
) -> xr.Dataset:
    """Effects of a site that is not in the trial, one for each draw.

    Policies that are drawn together share the site: its effects are drawn as those of the trial's sites
    are, from the same streams of random numbers, and known effects are carried to it as to them.

    Parameters
    ----------
    model
        The stage's model.
    roots
        Per grouping factor a root of the covariance between its terms (draw, term, term).
    streams
        How each draw combines the streams of random numbers (draw x stream).
    seed
        Source of randomness, the same for all policies.
    chains
        Number of chains.
    known
        Known effects of this site (term, draw).

    Returns
    -------
    xarray.Dataset
        ``u_<site>`` with dims ``chain, draw`` and that of the terms; empty without site effects.
    """
    found = {}
    for g, root in zip(model.design.groups, roots, strict=True):
        if g.role != "site":
            continue
        noise = np.zeros(root.shape[:2])
        for weight, source in zip(streams.T, children(seed, streams.shape[1]), strict=True):
            noise += weight[:, None] * np.random.default_rng(source).standard_normal(noise.shape)
        effects = np.einsum("sij,sj->si", root, noise)
        if known and g.name in known:
            effects += known[g.name].T
        dim = variable_dims(model.design)[f"u_{g.name}"][-1]
        values = effects.reshape(chains, -1, effects.shape[1])
        found[f"u_{g.name}"] = xr.DataArray(
            values, dims=("chain", "draw", dim), coords={dim: list(g.terms)}
        )
    return xr.Dataset(found)


@dataclass(frozen=True)
class Propagated:
    """Draws of one stage under one policy: posterior, parameters phi of the engine, how it was drawn,
    and effects of a new site."""

    posterior: xr.Dataset
    engine: xr.Dataset
    new_site: xr.Dataset
