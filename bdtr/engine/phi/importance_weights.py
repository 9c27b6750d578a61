r"""Quality of importance weights: their effective number and the Pareto shape of their tail.

The effective number is (sum w)^2 / sum w^2. k-hat (Vehtari, Simpson, Gelman, Yao and Gabry 2024, J. Mach.
Learn. Res. 25(72)) is the shape of a generalised Pareto distribution fitted to the largest weights as in
Zhang and Stephens (2009, Technometrics 51(3)).
"""

from __future__ import annotations

import numpy as np

__all__ = ["effective", "khat_limit", "pareto_k"]


def khat_limit(proposals):
    """Largest k-hat at which a sample of weights of this size is trusted (Vehtari et al. 2024)."""
    return np.minimum(1.0 - 1.0 / np.log10(proposals), 0.7)


def effective(log_weights: np.ndarray) -> np.ndarray:
    """Effective number of weights along the last axis; zero where there are none."""
    top = log_weights.max(axis=-1, keepdims=True, initial=-np.inf)
    w = np.exp(log_weights - np.where(np.isfinite(top), top, 0.0))
    return w.sum(axis=-1) ** 2 / np.maximum((w * w).sum(axis=-1), 1e-300)


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """k-hat of the largest weights along the last axis; infinite where it cannot be fitted."""
    count = log_weights.shape[-1]
    tail = min(count // 5, int(3.0 * np.sqrt(count)))
    ordered = np.sort(log_weights, axis=-1)[..., -tail - 1 :]
    top = ordered[..., -1:] if tail >= 5 else np.full((*log_weights.shape[:-1], 1), -np.inf)
    known = np.isfinite(top)
    if not known.any():
        return np.full(known.shape[:-1], np.inf)
    w = np.exp(np.where(known, ordered - np.where(known, top, 0.0), 0.0))
    x = np.maximum(w[..., 1:] - w[..., :1], 1e-300)
    # Zhang and Stephens: a profile likelihood over a grid, its mean as the estimate.
    grid = 30 + int(np.sqrt(tail))
    quartile = x[..., int(tail / 4.0 + 0.5) - 1, None]
    place = 1.0 - np.sqrt(grid / (np.arange(grid) + 0.5))
    theta = 1.0 / x[..., -1:] + place / (3.0 * quartile)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        k = np.log1p(-theta[..., None] * x[..., None, :]).mean(axis=-1)
        likelihood = tail * (np.log(-theta / k) - k - 1.0)
        weight = np.exp(likelihood - likelihood.max(axis=-1, keepdims=True))
        best = (theta * weight).sum(axis=-1, keepdims=True) / weight.sum(axis=-1, keepdims=True)
        k = np.log1p(-best * x).mean(axis=-1)
    shape = (tail * k + 5.0) / (tail + 10.0)  # shrunk to 0.5 by ten observations
    return np.where(known[..., 0] & np.isfinite(shape), shape, np.inf)
