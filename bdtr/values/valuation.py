"""What a regime is worth: the mean payoff when everyone follows it, as draws and a table.

    V(d) = sum over units of w_i Q_1(H_i, d_1(H_i)),

one number per draw, the later stages' regime being part of Q_1; the weights are those of
:mod:`bdtr.values.populations`. Averages are taken within draws and summarised last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.bounds import outside_bounds
from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.fitted import Fit
from bdtr.backward.induction import BackwardPass, Policy
from bdtr.backward.passes import backward_passes
from bdtr.backward.regimes import Regime, embedded, recommended, regime_list
from bdtr.data.coding import label_series
from bdtr.data.grouping import By, grouping
from bdtr.results.arguments import a_fit, one_of, probability
from bdtr.results.diagnostics import State, doubt, gate_decisions, rhat_limit, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates
from bdtr.results.progress import progress_bar
from bdtr.stages.pooled import missing_information
from bdtr.values.comparison import compare, ranks
from bdtr.values.populations import (
    FEW_SITES,
    POPULATIONS,
    WEIGHTS,
    Cells,
    cell_means,
    population_means,
)
from bdtr.values.regimevalues import Values

__all__ = ["mean_payoffs", "value"]


def value(
    fit: Fit,
    *regimes: Regime | Sequence[Regime],
    population: str = "sample",
    weight: str = "unit",
    by: By = None,
    site: object = None,
    interval: float = 0.95,
    progress: bool = False,
) -> Values:
    """Values of regimes, in the sample or in a population, overall or by group.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    *regimes
        Regimes; left out: the recommended one and all embedded in the trial. The value of the
        recommended regime is learned and evaluated on the same data, hence optimistic.
    population
        ``"sample"``: the units with complete stage-1 history. ``"units"``: the population that they
        are a sample of. ``"sites"``: the population that the sites are a sample of; with fewer than 8
        sites by the model, the mean over new sites. ``"new site"``: one site of that population.
        See :mod:`bdtr.values.populations`.
    weight
        ``"unit"``: every unit counts the same; ``"site"``: every site.
    by
        ``"site"`` for a value at each site; the name of a column of the trial, a tuple of several, or
        labels of all rows of the data, for a value in each group; see :func:`bdtr.data.grouping.grouping`.
    site
        A site, or several, to which the population is restricted.
    interval
        Probability of the equal-tailed intervals.
    progress
        Whether to show progress.

    Returns
    -------
    Values
        Draws with dims ``chain, draw, regime`` (and ``site`` or ``group``), in units of the outcome.

    Raises
    ------
    bdtr.backward.RegimeError
        If a regime is not feasible on its own path.
    ValueError
        If the other arguments do not fit each other or the trial.

    Notes
    -----
    The backward passes of all regimes are drawn together, so that contrasts are draws from their joint
    posterior; so are the effects of the new site. In the fits of earlier stages all units follow the regime
    where its action is feasible for them, and the recommended action elsewhere. A new site, and a mean
    over new sites, cannot follow a rule that knows the effects of the trial's sites: the recommended
    regime is then the untailored one.

    Examples
    --------
    >>> found = bdtr.value(fit, bdtr.static(a1="small", a2="small"), by="site")
    >>> len(found.table)
    20
    """
    a_fit(fit)
    probability("interval", interval)
    data = fit.require_data("values")
    if isinstance(by, str) and by == fit.trial.site:
        by = "site"
    _check(fit, population, weight, by, site, interval)
    chosen = regime_list(regimes) or [recommended(), *embedded(data)]
    sites_known = population in ("sample", "units") or (
        population == "sites" and len(data.site_levels) >= FEW_SITES
    )
    if not sites_known and fit.trial.stages[0].model is not None:
        raise ArgumentError(
            f"population={population!r}: stage {fit.trial.stages[0].action} has a model of your own, which "
            "does not say how sites vary. Use 'sample' or 'units'."
        )
    if not sites_known:
        chosen = [replace(r, tailored=False) if r.is_recommended else r for r in chosen]
    names = [r.name for r in chosen]
    if len(set(names)) != len(names):
        raise ArgumentError(f"regimes: two have the same name: {names}. Give them names.")
    groups = grouping(data, by)
    units, left_out = _units(fit, groups.code >= 0, site)
    group, labels = groups.of(units)
    where = fit.designs[0].site_codes(data.frame.iloc[units])
    cells = Cells.of(group, where if _needs_sites(population, weight) else np.zeros_like(group))
    at = "observed" if sites_known else ("one new" if population == "new site" else "average")
    passes = backward_passes(fit, chosen, progress, at)
    unit_rng, site_rng = map(np.random.default_rng, fit.settings.stream("values").spawn(2))
    with progress_bar(progress, f"values ({population})") as report:
        sums, mass = cell_means(
            _payoffs(passes, units, report),
            cells,
            fit.settings.propagated,
            unit_rng if population == "units" else None,
        )
    found = population_means(sums, mass, cells, population, weight, site_rng)
    text = _described(population, weight, len(units), len(data.site_levels), site, left_out)
    array = _labelled(found, fit.settings.chains, [r.name for r in chosen], groups.dim, labels)
    followed = [_followed(fit, one.policy, units, group, len(labels)) for one in passes]
    few = population == "sites" and not sites_known
    by_model = (
        f"population='sites' rests on the model: {len(data.site_levels)} sites are too few to weigh",
    )
    return _result(fit, array, chosen, followed, interval, text, doubt(*(by_model if few else ())))


def _followed(
    fit: FitRecord, policy: Policy, units: np.ndarray, group: np.ndarray, groups: int
) -> np.ndarray:
    """Units of each group that had left a regime's path, and those that cannot follow it (2, group); where
    values are imputed, the mean over completed data sets."""
    if policy.in_parts:
        each = [
            _followed(part, own, units, group, groups)
            for part, own in zip(fit.parts, policy.in_parts, strict=True)
        ]
        return np.rint(np.mean(each, axis=0)).astype(int)
    data = fit.require_data("values")
    away, unable = np.zeros((2, len(data)), dtype=bool)
    if policy.kind == "regime" and policy.off_path:
        away = policy.off_path[-1]
        for stage, codes in zip(data.stages, policy.actions, strict=True):
            unable |= stage.history & (codes < 0)
    return np.stack([np.bincount(group, one[units], groups) for one in (away, unable)]).astype(int)


def _needs_sites(population: str, weight: str) -> bool:
    return weight == "site" or population in ("sites", "new site")


def _check(fit, population, weight, by, site, interval) -> None:
    one_of("population", population, POPULATIONS)
    one_of("weight", weight, WEIGHTS)
    at_sites = [f"population={population!r}"] if population in ("sites", "new site") else []
    at_sites += ["by='site'"] if isinstance(by, str) and by == "site" else []
    at_sites += [f"weight={weight!r}"] if weight == "site" else []
    at_sites += [f"site={site!r}"] if site is not None else []
    if at_sites and fit.trial.site is None:
        raise ArgumentError(f"{at_sites[0]}: the trial names no site column.")
    parts = [word for word in at_sites[1:] if not word.startswith("weight")]
    if parts and population in ("sites", "new site"):
        raise ArgumentError(f"{parts[0]} does not go with {at_sites[0]}: it is over all sites.")


def _units(fit: Fit, grouped: np.ndarray, site: object) -> tuple[np.ndarray, str]:
    """Positions of the units that a value is over, and who was left out beyond incomplete histories."""
    data = fit.require_data("values")
    keep, left_out = data.valued.copy(), ""
    if site is not None:
        given = np.atleast_1d(np.asarray(site, dtype=object))
        if given.ndim != 1:
            raise ArgumentError(f"site={site!r}: name one site, or several in a list.")
        wanted = pd.Series(given)
        labels = label_series(wanted).tolist()
        unknown = [x for x in labels if x not in set(data.site_levels)]
        if unknown:
            raise ArgumentError(
                f"site={site!r}: the fit has no site {unknown[0]!r}; it has "
                f"{', '.join(map(repr, data.site_levels[:5]))}, .."
            )
        codes = fit.designs[0].site_codes(data.frame)
        keep &= np.isin(codes, np.flatnonzero(np.isin(data.site_levels, labels)))
    if (keep & ~grouped).any():
        left_out = f"; {int((keep & ~grouped).sum()):,} units without a group left out"
    units = np.flatnonzero(keep & grouped)
    if not units.size:
        raise ArgumentError("value: no unit is left to take the mean over.")
    return units, left_out


def mean_payoffs(passes: Sequence[BackwardPass], units: np.ndarray) -> np.ndarray:
    """Mean payoff over these units under each policy (policy, sample), units of equal weight."""
    nobody = np.zeros(len(units), dtype=np.int64)
    cells = Cells.of(nobody, nobody)
    sums, mass = cell_means(_payoffs(passes, units, None), cells, passes[0].samples)
    return (sums / mass)[:, 0]


def _payoffs(
    passes: Sequence[BackwardPass], units: np.ndarray, report
) -> Iterator[list[np.ndarray]]:
    """Expected payoffs under each regime, one block of units after another."""
    done = 0
    for block in passes[0].blocks(units):
        yield [one.continuation(0, block) for one in passes]
        done += len(block)
        if report:
            report(done, len(units))


def _described(population, weight, units, sites, site, left_out) -> str:
    who = f"{units:,} units with complete stage-1 history"
    if site is not None:
        who += f" at site {site}" if isinstance(site, str) else f" at sites {site}"
    if population == "sample":
        law = "equal weights" if weight == "unit" else "sites of equal weight"
        return f"sample ({who}, {law}{left_out})"
    means = "units" if weight == "unit" else "sites of equal weight"
    law = {
        "units": f"Bayesian bootstrap over units, {means}",
        "sites": f"Dirichlet weights over {sites:,} sites, spread as that of a t interval, {means}"
        if sites >= FEW_SITES
        else f"mean over new sites by the model, as {sites:,} sites are few: effects that go with "
        f"the size of a "
        f"site are not in it, {means}",
        "new site": "units like those of one of the trial's sites",
    }[population]
    return f"{population} ({who}; {law}{left_out})"


def _labelled(
    found: np.ndarray, chains: int, names: list[str], dim: str | None, labels: np.ndarray
) -> xr.DataArray:
    """Draws (regime, group, sample) with labels; without a name of the groups there is one, not shown."""
    shaped = np.moveaxis(found.reshape(*found.shape[:2], chains, -1), (0, 1), (2, 3))
    coords = {"chain": np.arange(chains), "draw": np.arange(shaped.shape[1]), "regime": names}
    if dim is None:
        shaped = shaped[..., 0]
        return xr.DataArray(shaped, coords, ("chain", "draw", "regime"), name="value")
    coords[dim] = list(labels)
    return xr.DataArray(shaped, coords, ("chain", "draw", "regime", dim), name="value")


def _result(
    fit: Fit,
    array: xr.DataArray,
    chosen: Sequence[Regime],
    followed: Sequence[np.ndarray],
    interval: float,
    population: str,
    doubted: State,
) -> Values:
    table = estimates(array, interval)
    learned = tuple(r.name for r in chosen if r.is_recommended)
    named = [r.name for r in chosen if not r.is_recommended]
    table["p_best"] = np.nan  # of learned regimes, and of the only one
    if len(named) > 1:
        of_named = ranks(array.sel(regime=named), fit.trial.higher_is_better)
        table["p_best"] = of_named.table["p_best"]
    if fit.parts:
        table["fmi"] = missing_information(array, len(fit.parts)).ravel()
    policy_text = "the regime itself"
    if fit.stages > 1:
        counts = np.stack(followed)  # (regime, 2, group), as the rows of the table
        table["off_path"], table["cannot_follow"] = counts[:, 0].ravel(), counts[:, 1].ravel()
        if counts[:, 1].any():
            policy_text += ", the recommended action for units that cannot take its own"
    better = fit.trial.higher_is_better
    against = (array - array.isel(regime=0)).rename("contrast")
    limit = rhat_limit(array.sizes["chain"], array.sizes["draw"])
    own = [gate_decisions(part.to_dataset(), limit) for part in (array, against)]
    outside = outside_bounds(
        fit, np.moveaxis(array.to_numpy().reshape(-1, *array.shape[2:]), 0, -1), "values"
    )
    state = worst([fit.state, *own, doubt(*outside), doubted])
    about = {
        "state": str(state),
        "population": population,
        "policy": policy_text,
        "higher_is_better": int(better),
    }
    return Values(
        array.to_dataset().assign_attrs(about),
        table,
        population,
        interval,
        policy_text,
        state,
        better,
        learned,
        _contrasts(array, interval, better),
    )


def _contrasts(array: xr.DataArray, interval: float, better: bool) -> pd.DataFrame:
    """Differences from the first regime; none where there is one alone."""
    if array.sizes["regime"] < 2:
        return pd.DataFrame(columns=["mean", "sd", "lower", "upper", "p_better"], dtype=float)
    return compare(array, interval=interval, higher_is_better=better).table
