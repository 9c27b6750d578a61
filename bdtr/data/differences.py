r"""Standardised differences of the history between the actions that units took.

Standardised difference of a covariate between an action and the reference, among units that could have taken
either,

    d = mean difference / sqrt((s_a^2 + s_0^2) / 2)   (Austin 2009, Stat. Med. 28(25)),

where the mean difference is that within sites, sum_j w_j (xbar_aj - xbar_0j) / sum_j w_j with
w_j = n_aj n_0j / (n_aj + n_0j), as actions are given within sites; without sites, the plain one. Up to .05 is
fine, to .25 calls for adjustment, beyond is a warning (What Works Clearinghouse, version 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bdtr.data.coding import label_series
from bdtr.data.history import known_columns
from bdtr.data.stagecolumns import StageDesign
from bdtr.data.trialdata import TrialData

__all__ = ["ADJUST", "FINE", "covariates", "design_effect", "standardised_differences"]

FINE = 0.05


ADJUST = 0.25


_MOST_LEVELS = 8


def standardised_differences(
    each: Sequence[TrialData], designs: Sequence[StageDesign]
) -> pd.DataFrame:
    """Differences from the first action, at each stage, among units that could have taken either.

    Parameters
    ----------
    each
        The data of the trial; or completed data sets, over which means are taken.
    designs
        The columns of each stage's model: they know its actions and sites.

    Returns
    -------
    pandas.DataFrame
        By ``stage, action, covariate``; see :func:`bdtr.checks.covariate_balance`.
    """
    tables = [_differences(data, designs) for data in each]
    table = tables[0]
    if len(tables) > 1:
        levels = list(table.index.names)
        table = pd.concat(tables).groupby(level=levels, sort=False).mean()
        counts = ["units_reference", "units"]
        table[counts] = table[counts].round().astype(int)
    size = table["difference"].abs()
    table["verdict"] = np.select([size <= FINE, size <= ADJUST], ["fine", "adjust"], "warning")
    return table


def _differences(data: TrialData, designs: Sequence[StageDesign]) -> pd.DataFrame:
    """Counts, means and differences in one data set."""
    rows = []
    for k, design in enumerate(designs):
        stage = data.stages[k]
        site = design.site_codes(data.frame)
        history = covariates(data, k)
        for a in range(1, len(design.actions)):
            both = stage.took & stage.feasible[:, 0] & stage.feasible[:, a]
            one = both & (stage.action == a)
            none = both & (stage.action == 0)
            if not (one.any() and none.any()):
                continue
            rows += [
                (design.action, design.actions[a], name, *_difference(x, one, none, site))
                for name, x in history.items()
            ]
    columns = ["stage", "action", "covariate", "units_reference", "units", "mean_reference", "mean",
               "difference"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns).set_index(columns[:3])
    return table.dropna(subset=["difference"])


def covariates(data: TrialData, k: int) -> dict[str, np.ndarray]:
    """Numeric history of a stage; text columns as one column for each of a few levels."""
    out = {}
    skip = {data.trial.site, *(s.stage.delivered_in for s in data.stages)}
    for name in known_columns(data, k):
        column = data.frame[name]
        if name in skip:
            continue
        if pd.api.types.is_numeric_dtype(column) and not isinstance(
            column.dtype, pd.CategoricalDtype
        ):
            out[str(name)] = column.to_numpy(dtype=float)
            continue
        labels = label_series(column)
        levels = list(dict.fromkeys(labels.dropna()))
        if len(levels) > _MOST_LEVELS:
            continue
        for level in sorted(levels):
            value = np.where(labels.isna(), np.nan, labels == level).astype(float)
            out[f"{name}: {level}"] = value
    return out


def _difference(
    x: np.ndarray, one: np.ndarray, none: np.ndarray, site: np.ndarray
) -> tuple[int, int, float, float, float]:
    """Counts, means and the standardised difference of one covariate."""
    known = np.isfinite(x)
    one, none = one & known, none & known
    if not (one.any() and none.any()):
        return int(none.sum()), int(one.sum()), np.nan, np.nan, np.nan
    spread = np.sqrt((x[one].var() + x[none].var()) / 2)
    sites = int(site.max()) + 1
    counts = [np.bincount(site[rows], minlength=sites) for rows in (one, none)]
    means = [
        np.bincount(site[rows], x[rows], minlength=sites) / np.maximum(n, 1)
        for rows, n in zip((one, none), counts, strict=True)
    ]
    weight = counts[0] * counts[1] / np.maximum(counts[0] + counts[1], 1)
    total = weight.sum()
    apart = (weight * (means[0] - means[1])).sum() / total if total > 0 else np.nan
    size = apart / spread if spread > 0 else np.nan
    return int(none.sum()), int(one.sum()), float(x[none].mean()), float(x[one].mean()), float(size)


def design_effect(x: np.ndarray, site: np.ndarray, cluster: np.ndarray | None = None) -> float:
    """Variance of a difference within sites against that among as many units that are alike to no one.

    (v + m t^2) / s^2: v and t^2 the variances of x within and between clusters, inside sites (analysis of
    variance), s^2 that of x, m = sum_c n_c^2 / n. Without sites this is 1 + (m - 1) ICC (Kish 1965, Survey
    Sampling, 5.4; Donner and Klar 2000, 6.2).

    Parameters
    ----------
    x
        The covariate (unit); missing values are left out.
    site
        Code of each unit's site; one code for all without sites.
    cluster
        Code of what was treated as a whole, -1 for none; left out: units were treated one by one.

    Returns
    -------
    float
    """
    use = np.isfinite(x) if cluster is None else np.isfinite(x) & (cluster >= 0)
    values, site = x[use], np.unique(site[use], return_inverse=True)[1]
    n, sites = len(values), int(site.max(initial=-1)) + 1
    if n <= sites or not values.var() > 0:
        return 1.0
    per_site = np.bincount(site)
    centred = values - (np.bincount(site, values) / per_site)[site]
    in_all = float(values.var(ddof=1))
    alone = float(np.square(centred).sum()) / (n - sites) / in_all
    if cluster is None:
        return alone
    codes = np.unique(cluster[use], return_inverse=True)[1]
    size = np.bincount(codes)
    crossed = len(np.unique(codes * sites + site)) > len(size)
    free = len(size) - (1 if crossed else sites)
    if free < 1 or n == len(size):
        return alone
    means = np.bincount(codes, centred) / size
    within = float(np.square(centred - means[codes]).sum()) / (n - len(size))
    between = float((size * np.square(means)).sum()) / free
    whole = n if crossed else per_site[site]
    typical = (n - float((size[codes] / whole).sum())) / free
    apart = max(between - within, 0.0) / typical
    return (within + float(np.square(size).sum()) / n * apart) / in_all
