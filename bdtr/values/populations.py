"""Whom a mean is over: the units of the sample, a population they came from, or a site not seen yet.

A mean payoff is a sum of w_i Q_i over units, taken within each draw. The weights say the population:

- ``"sample"``: these units, w_i = 1/n, or 1/(J n_j) for sites of equal weight;
- ``"units"``: the population that the units are a sample of, by the Bayesian bootstrap (Rubin 1981, Ann.
  Statist. 9(1)): w ~ Dirichlet(1, .., 1) over units;
- ``"sites"``: the population that the sites are a sample of, Dirichlet(a, .., a) over sites, the shares of
  units within a site fixed: Dirichlet weights at both levels would count the variance within sites
  twice. With J sites a = (J - 4)/J, for which a mean has the variance of a t interval of J - 1 degrees of
  freedom, s^2/J (J - 1)/(J - 3): var(sum w_j m_j) = (J - 1)/J s^2 / (J a + 1). With a = 1 it is s^2/J (J
  - 1)/(J + 1), too narrow below some 20 sites. The estimand is the same for any number of sites;
- ``"new site"``: one site of that population: its units are like those of one of the trial's sites, chosen
  anew in each draw.

Every draw has one set of weights, the same for all regimes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

__all__ = ["FEW_SITES", "POPULATIONS", "WEIGHTS", "Cells", "cell_means", "population_means"]

POPULATIONS = ("sample", "units", "sites", "new site")
WEIGHTS = ("unit", "site")
FEW_SITES = 8  # below, weights over sites say too little


@dataclass(frozen=True)
class Cells:
    """Units by group and site: ``code`` of each unit's cell, ``group`` and ``site`` of each cell."""

    code: np.ndarray
    group: np.ndarray
    site: np.ndarray

    @classmethod
    def of(cls, group: np.ndarray, site: np.ndarray) -> Cells:
        """Cells of units with these codes of group and site; only those with units."""
        wide = int(site.max(initial=0)) + 1
        known, code = np.unique(group.astype(np.int64) * wide + site, return_inverse=True)
        return cls(code, known // wide, known % wide)


def cell_means(
    blocks: Iterator[Sequence[np.ndarray]],
    cells: Cells,
    samples: int,
    bootstrap: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of payoffs in each cell, and the weights they were summed with.

    Parameters
    ----------
    blocks
        For one block of units after another, in order: the expected payoffs (unit, sample) under each
        regime, in units of the outcome.
    cells
        Cell of each unit.
    samples
        Number of draws.
    bootstrap
        Source of weights of units, or None for equal ones.

    Returns
    -------
    sums : numpy.ndarray
        (regime, cell, sample).
    mass : numpy.ndarray
        (cell, sample), or (cell, 1) where units have equal weights.
    """
    count, at, sums = len(cells.group), 0, []
    mass = np.zeros((count, samples)) if bootstrap else np.bincount(cells.code)[:, None] * 1.0
    one = np.ones((1, 1))
    for values in blocks:
        rows = len(values[0])
        code, at = cells.code[at : at + rows], at + rows
        if not sums:
            sums = [np.zeros((count, samples)) for _ in values]
        weight = one
        if bootstrap:
            weight = bootstrap.standard_exponential((rows, samples))
            _add_rows(mass, code, weight, one)
        for total, own in zip(sums, values, strict=True):
            _add_rows(total, code, own, weight)
    return np.stack(sums), mass


@njit(cache=True, nogil=True)
def _add_rows(out, code, values, weight):
    """out[code[i]] += weight[i] * values[i]; a weight of one number is that of all."""
    equal = weight.size == 1
    for i in range(len(code)):
        row = out[code[i]]
        if equal:
            for s in range(row.size):
                row[s] += values[i, s]
        else:
            for s in range(row.size):
                row[s] += weight[i, s] * values[i, s]


def population_means(
    sums: np.ndarray,
    mass: np.ndarray,
    cells: Cells,
    population: str,
    weight: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mean payoff of each group in each draw.

    Parameters
    ----------
    sums, mass
        From :func:`cell_means`.
    cells
        Group and site of each cell.
    population
        One of :data:`POPULATIONS`; for ``"units"`` the weights are in the sums already.
    weight
        ``"unit"``: sites count by their units; ``"site"``: all sites the same.
    rng
        Source of weights of sites.

    Returns
    -------
    numpy.ndarray
        (regime, group, sample).
    """
    samples, first = sums.shape[2], np.flatnonzero(np.diff(cells.group, prepend=-1))
    share = np.ones_like(mass) if weight == "site" else mass
    if population == "sites":
        sites = int(cells.site.max()) + 1
        count = np.unique(cells.site).size
        share = share * rng.standard_gamma(max(count - 4, 1) / count, (sites, samples))[cells.site]
    elif population == "new site":
        share = _one_of_each(cells, first, rng.random(samples))
    share = np.broadcast_to(share, (len(share), samples))
    total = np.add.reduceat(share * (sums / mass), first, axis=1)
    return total / np.add.reduceat(share, first, axis=0)


def _one_of_each(cells: Cells, first: np.ndarray, at: np.ndarray) -> np.ndarray:
    """One site of each group in each draw (cell, sample); the same one where all have units of all groups."""
    sizes = np.diff(first, append=len(cells.group))
    chosen = first[:, None] + np.floor(sizes[:, None] * at).astype(np.int64)
    out = np.zeros((len(cells.group), at.size))
    np.put_along_axis(out, chosen, 1.0, axis=0)
    return out
