"""Draws of the exact engine with the variables, dims and coords of the stage's PyMC model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from bdtr.multilevel.marginal import relative_factors
from bdtr.outcome import OutcomeModel, coords, variable_dims

__all__ = ["labelled"]


def labelled(
    model: OutcomeModel,
    phi: np.ndarray,
    coefficients: np.ndarray,
    effects: np.ndarray,
    chains: int,
    known: Mapping[str, np.ndarray] | None = None,
) -> xr.Dataset:
    """A posterior dataset from draws of phi, coefficients and group effects.

    Parameters
    ----------
    model
        The stage's model.
    phi
        (draw x phi), the first chain first.
    coefficients
        (draw x term) of centred columns.
    effects
        (draw x effect), factors in order and level-major.
    chains
        Number of chains.
    known
        Per factor covariances (draw, term, term) that group effects have beyond those of phi.

    Returns
    -------
    xarray.Dataset
        Dims ``chain, draw`` and those of :func:`bdtr.outcome.variable_dims`.
    """
    design, factors = model.design, model.factors
    count = len(phi)
    sigma = np.exp(phi[:, 0])
    b = coefficients.copy()
    if design.has_intercept:
        b[:, 0] -= b @ design.shift
    found: dict[str, np.ndarray] = {"b": b}
    covariances = _covariances(model, phi)
    effect_at = 0
    for factor, own in zip(factors, covariances, strict=True):
        q, name = factor.terms, factor.name
        total = own + known[name] if known and name in known else own
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
    dims = variable_dims(design)
    data = {
        name: (("chain", "draw", *dims[name]), values.reshape(chains, -1, *values.shape[1:]))
        for name, values in found.items()
    }
    if model.propagated:
        strata = model.rows.strata
        ratios = np.hstack([np.zeros((count, 1)), phi[:, phi.shape[1] - strata + 1 :]])
        own = (sigma[:, None] * np.exp(ratios)).reshape(chains, -1, strata)
        data["sigma"] = (("chain", "draw", "action"), own)
    else:
        data["sigma"] = (("chain", "draw"), sigma.reshape(chains, -1))
    ids = {"chain": np.arange(chains), "draw": np.arange(count // chains)}
    return xr.Dataset(data, coords={**coords(design, model.propagated), **ids})


def _covariances(model: OutcomeModel, phi: np.ndarray) -> list[np.ndarray]:
    """Covariance between the terms of each factor (draw, term, term)."""
    if not model.factors:
        return []
    terms = np.array([f.terms for f in model.factors], dtype=np.int64)
    correlated = np.array([f.correlated for f in model.factors], dtype=np.bool_)
    roots = np.stack([relative_factors(one, terms, correlated) for one in phi])
    roots *= np.exp(phi[:, 0])[:, None, None, None]
    out = []
    for f, q in enumerate(terms):
        root = roots[:, f, :q, :q]
        out.append(root @ np.swapaxes(root, 1, 2))
    return out
