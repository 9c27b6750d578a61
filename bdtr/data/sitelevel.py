r"""What is known of sites: means of individual history, treatment shares, size.

Site means keep site effects from being confounded with who goes to which site (Mundlak 1978,
Econometrica 46(1)).
They do not help where the *effect* of an action goes with the share of those who took it, or with the
size of the site: with s_j the log number of units, or the share, less their means, the terms
``site_terms=("size", "share")`` are

    s_j  and  s_j x action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdtr.data.trialdata import StageData

__all__ = ["SiteLevel", "site_level", "site_means", "site_sizes"]

_MIN_SITES_PER_MEAN = 3


@dataclass(frozen=True)
class SiteLevel:
    """Columns that vary between sites alone, and their products with actions.

    ``table`` (site, value) holds values less their average over the rows of the fit, 0 for sites
    without rows.
    Each column is one of the values (``value``), for all or for those who took one action (``action``,
    -1: all).
    """

    names: tuple[str, ...]
    table: np.ndarray
    value: tuple[int, ...]
    action: tuple[int, ...]
    variables: tuple[frozenset[str], ...]

    @classmethod
    def none(cls, sites: int) -> SiteLevel:
        """No such columns."""
        return cls((), np.zeros((sites, 0)), (), (), ())

    def only(self, kept: np.ndarray) -> SiteLevel:
        """Some of the columns (a flag for each)."""
        at = np.flatnonzero(kept)
        return SiteLevel(
            tuple(self.names[i] for i in at),
            self.table,
            tuple(self.value[i] for i in at),
            tuple(self.action[i] for i in at),
            tuple(self.variables[i] for i in at),
        )

    @property
    def term(self) -> list[int]:
        """Number of the term of each column: products of one value with the actions are one term."""
        pairs = list(zip(self.value, (a >= 0 for a in self.action), strict=True))
        known = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        return [known[pair] for pair in pairs]

    def matrix(self, site_code: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """Row x column values, given the site of each row (-1: an average one) and the action."""
        values = np.vstack([self.table, np.zeros(self.table.shape[1])])[site_code]
        out = values[:, list(self.value)]
        for i, a in enumerate(self.action):
            if a >= 0:
                out[:, i] *= taken == a
        return out


def site_level(
    stage: StageData,
    columns: Sequence[tuple[int, str, frozenset[str]]],
    matrix: np.ndarray,
    site: np.ndarray,
    sites: int,
    where: str,
) -> tuple[SiteLevel, list[str]]:
    """The columns of a stage that are known of sites.

    Parameters
    ----------
    stage
        The stage.
    columns
        Place, name and variables of the columns whose means may enter.
    matrix
        The formula's columns of the rows of the fit.
    site
        Site of each row.
    sites
        Number of sites.
    where
        The stage's name, for notes.

    Returns
    -------
    SiteLevel
        And notes on what was left out.
    """
    own, action = stage.stage, stage.stage.action
    notes: list[str] = []
    counts = np.bincount(site, minlength=sites)
    names, values, value, taken, variables = [], [], [], [], []

    def add(name: str, column: np.ndarray | None, a: int, about: frozenset[str]) -> None:
        if column is not None:
            values.append(column)
        names.append(name)
        value.append(len(values) - 1)
        taken.append(a)
        variables.append(about)

    wanted = [c for c in columns if _varies_within(matrix[:, c[0]], site, sites)]
    present = np.unique(site).size
    if own.site_means and wanted and present < _MIN_SITES_PER_MEAN * len(wanted):
        notes.append(
            f"{where}: site means are left out, {len(wanted)} of them are too many for {present} "
            f"sites (at least {_MIN_SITES_PER_MEAN} sites for each)."
        )
    elif own.site_means:
        for i, name, about in wanted:
            about = frozenset(f"mean of {v}" for v in about)
            add(f"site_mean({name})", site_means(matrix[:, i], site, sites), -1, about)
    arms = stage.action[stage.fitted]
    actions = [a for a in range(1, len(own.actions or ())) if (arms == a).any()]
    labels = [f"{action}[{label}]" for label in own.actions or ()]
    if "size" in own.site_terms:
        about = frozenset({"site size"})
        add("site_size", site_sizes(site, sites), -1, about)
        for a in actions:
            add(f"{labels[a]}:site_size", None, a, about | {action})
    if "share" in own.site_terms:
        for a in actions:
            about = frozenset({f"mean of {action}"})
            known = f"site_mean({labels[a]})"
            if known not in names:
                add(known, site_means((arms == a) * 1.0, site, sites), -1, about)
            names.append(f"{labels[a]}:{known}")
            value.append(value[names.index(known)])
            taken.append(a)
            variables.append(about | {action})
    if (counts == 0).any() and values:
        notes.append(
            f"{where}: {int((counts == 0).sum())} sites without rows have the average of the site "
            "means, and site effects drawn from their population distribution."
        )
    table = np.column_stack(values) if values else np.zeros((sites, 0))
    return SiteLevel(tuple(names), table, tuple(value), tuple(taken), tuple(variables)), notes


def site_sizes(site: np.ndarray, sites: int) -> np.ndarray:
    """Log number of rows at each site, less its average over rows."""
    counts = np.bincount(site, minlength=sites)
    sizes = np.log(np.maximum(counts, 1.0))
    return np.where(counts > 0, sizes - sizes[site].mean(), 0.0)


def site_means(values: np.ndarray, site: np.ndarray, sites: int) -> np.ndarray:
    """Mean of the rows of each site, less the mean of all; 0 for sites without rows."""
    counts = np.bincount(site, minlength=sites)
    sums = np.bincount(site, weights=values - values.mean(), minlength=sites)
    return np.where(counts > 0, sums / np.maximum(counts, 1), 0.0)


def _varies_within(values: np.ndarray, site: np.ndarray, sites: int) -> bool:
    away = values - values.mean()
    inside = away - site_means(values, site, sites)[site]
    return bool(np.abs(inside).max() > 1e-9 * np.abs(away).max(initial=0.0))
