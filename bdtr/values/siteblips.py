"""What differs between sites: blips, which action is best where, and how much each site is pooled.

The blip of an action at a site is the mean over its units, with complete history at the stage and free
to take either action, of Q(h, a) - Q(h, reference), later stages recommended.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.passes import backward_passes, mean_response
from bdtr.results.arguments import a_fit, probability
from bdtr.results.captions import Captioned, Shown
from bdtr.results.diagnostics import State, gate_decisions, rhat_limit, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of, stacked
from bdtr.results.labels import NEW_SITE, label_text
from bdtr.stages.outcome import OutcomeModel
from bdtr.values.populations import Cells, cell_means

__all__ = [
    "SiteBlips",
    "pooling",
    "same_best_action",
    "shrinkage",
    "site_blips",
]


@dataclass(frozen=True, repr=False)
class SiteBlips(Shown):
    """Blips at each site: draws with dims ``chain, draw, site, action``, and a table by site and action.

    ``table`` has ``mean, sd, lower, upper`` of the blip, ``p_best``, the probability that the action is
    the site's best, and ``units``. The last site, ``"(new site)"``, stands for one that is not in the
    trial, its effects drawn from the population of sites, its units like all of the trial's; a stage
    with a model of your own has none.
    """

    draws: xr.DataArray
    table: pd.DataFrame
    stage: str
    reference: str
    interval: float
    higher_is_better: bool
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Blips of stage {self.stage} against {self.reference}, mean over the units of "
            "each site (population: sample), later stages recommended; "
            f"{kind_of(self.interval)}s."
        )


def site_blips(
    fit: Fit, stage: str | None = None, reference: object = None, interval: float = 0.95
) -> SiteBlips:
    """Blips of every action at every site, and at a new one.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of a stage; left out: the first.
    reference
        An action of this stage; left out: the first.
    interval
        Probability of the equal-tailed intervals.

    Returns
    -------
    SiteBlips
        In units of the outcome. A site where nobody may take an action has no blip of it (NaN).

    Raises
    ------
    ValueError
        If the trial has no sites, or no such stage or action.

    Examples
    --------
    >>> found = bdtr.values.site_blips(fit, "a1", reference="regular")
    >>> found.draws.sizes
    Frozen({'chain': 4, 'draw': 50, 'site': 21, 'action': 3})
    """
    a_fit(fit)
    probability("interval", interval)
    k, base = _stage(fit, stage), 0
    data, design = fit.require_data("blips of sites"), fit.designs[k]
    actions, labels = list(design.actions), [*data.site_levels, NEW_SITE]
    if reference is not None:
        if label_text(reference) not in actions:
            raise ArgumentError(
                f"reference={reference!r}: the actions of {design.action} are {actions}."
            )
        base = actions.index(label_text(reference))
    parts = [_mean_blips(fit, k, base, "observed")]
    if fit.trial.stages[k].model is None:
        parts.append(_mean_blips(fit, k, base, "one new"))
    else:  # which does not say how sites vary
        labels = labels[:-1]
    chains = fit.settings.chains
    found = np.concatenate([blips for blips, _ in parts], axis=1)  # (action, site, sample)
    others = [a for a in range(len(actions)) if a != base]
    draws = xr.DataArray(
        found.reshape(*found.shape[:2], chains, -1),
        dims=("action", "site", "chain", "draw"),
        coords={"action": actions, "site": labels},
        name="blip",
    ).transpose("chain", "draw", "site", "action")
    table = estimates(draws, interval)
    table["p_best"] = _p_best(found, fit.trial.higher_is_better).T.ravel()
    units = np.concatenate([numbers for _, numbers in parts], axis=1)
    table["units"] = units.T.ravel()
    shown = draws.isel(action=others)
    shown = shown.where(shown.notnull().all(("chain", "draw")), 0.0)
    limit = rhat_limit(chains, draws.sizes["draw"])
    state = worst([fit.state, gate_decisions(shown.to_dataset(), limit)])
    better = fit.trial.higher_is_better
    return SiteBlips(draws, table, design.action, actions[base], interval, better, state)


def _stage(fit: Fit, stage: str | None) -> int:
    if fit.trial.site is None:
        raise ArgumentError("The trial names no site column.")
    return 0 if stage is None else fit.stage_index(stage)


def _with_coefficients(fit: Fit, stage: str | None) -> int:
    """A stage that has a regression; left out, the first that has one."""
    k = _stage(fit, stage)
    if stage is None:
        k = next((j for j in range(fit.stages) if fit.trial.by_formula(j)), k)
    return k


def _mean_blips(fit: Fit, k: int, base: int, sites: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean blips (action, site, sample) and numbers of units (action, site); at a new site one row."""
    data, design = fit.require_data("blips of sites"), fit.designs[k]
    stage, (done,) = data.stages[k], backward_passes(fit, [None], sites=sites)
    units = np.flatnonzero(stage.history & stage.feasible[:, base])
    count = len(data.site_levels) if sites == "observed" else 1
    site = design.site_codes(data.frame.iloc[units]) if sites == "observed" else 0 * units
    free = stage.feasible.T[: len(design.actions)]  # (action, unit): who may take an action as well
    numbers = np.stack([np.bincount(site, own[units], count) for own in free])

    def blips():
        for block in done.blocks(units):
            q = done.q_values(k, block)[: len(free)]
            yield [
                np.where(own[block, None], one - q[base], 0.0)
                for own, one in zip(free, q, strict=True)
            ]

    out = np.full((len(free), count, done.samples), np.nan)
    if units.size:
        cells = Cells.of(0 * site, site)
        out[:, cells.site], _ = cell_means(blips(), cells, done.samples)
    out[numbers == 0] = np.nan
    with np.errstate(invalid="ignore"):
        return out / numbers[..., None], numbers.astype(np.int64)


def _p_best(blips: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Probability that an action is the best of a site (action, site), NaN where it has no blip."""
    best = _best(blips, higher_is_better)
    found = np.stack([(best == a).mean(axis=1) for a in range(len(blips))])
    return np.where(np.isnan(blips).any(axis=2) | (_compared(blips) < 2), np.nan, found)


def _compared(blips: np.ndarray) -> np.ndarray:
    """Number of actions that have a blip at each site."""
    return (~np.isnan(blips).any(axis=2)).sum(axis=0)


def _best(blips: np.ndarray, higher_is_better: bool) -> np.ndarray:
    """Code of the best action (site, sample)."""
    sign = 1.0 if higher_is_better else -1.0
    return np.where(np.isnan(blips), -np.inf, sign * blips).argmax(axis=0)


def same_best_action(blips: SiteBlips) -> Captioned:
    """Probability that two sites have the same best action.

    Parameters
    ----------
    blips
        From :func:`site_blips`.

    Returns
    -------
    Captioned
        Its ``table`` is site by site; on the diagonal 1. NaN where a site has no two actions to compare.

    Notes
    -----
    Taken within draws: P(best_j = best_l), not the product of each site's probabilities.
    """
    if not isinstance(blips, SiteBlips):
        raise ArgumentError(f"blips={blips!r}: must be blips of sites, as site_blips makes them.")
    flat = stacked(blips.draws).transpose("action", "site", "sample")
    best = _best(flat.to_numpy(), blips.higher_is_better)
    alone = _compared(flat.to_numpy()) < 2
    same = np.zeros((len(best), len(best)))
    for a in range(flat.sizes["action"]):
        hit = (best == a).astype(float)
        same += hit @ hit.T
    same = np.where(alone | alone[:, None], np.nan, same / best.shape[1])
    labels = pd.Index(flat["site"].to_numpy(), name="site")
    table = pd.DataFrame(same, index=labels, columns=labels.rename("other"))
    about = f"Probability that two sites have the same best action at stage {blips.stage}"
    return Captioned(
        table, f"{blips.state}. {about}; population: sample; later stages recommended."
    )


def pooling(fit: Fit, stage: str | None = None, interval: float = 0.95) -> Captioned:
    r"""Effects of every site in a stage's model, and how much of each comes from the other sites.

    With tau the SD of an effect between sites, ``pooled`` is

        mean over draws of Var(u_j | phi, y) / tau^2, estimated by Var(u_j | y) / E(tau^2 | y).

    For a site mean of n units with residual variance s^2 this is (s^2 / n) / (s^2 / n + tau^2), the share
    by which the site's own estimate is drawn to the mean of all sites: 1 for a site without data, near 0
    for a site that speaks for itself.

    Parameters
    ----------
    fit
        A fitted trial.
    stage
        Action column of a stage; left out: the first.
    interval
        Probability of the equal-tailed intervals.

    Returns
    -------
    Captioned
        Its ``table`` has ``mean, sd, lower, upper`` of the effect in units of the (linear) predictor,
        ``sd_between`` and ``pooled``, by site and term.

    Raises
    ------
    ValueError
        If the stage's model has no site effects.

    References
    ----------
    Gelman, A., Pardoe, I. (2006). Bayesian measures of explained variance and pooling in multilevel
    (hierarchical) models. Technometrics 48(2), 241-251.
    """
    a_fit(fit)
    probability("interval", interval)
    k = _with_coefficients(fit, stage)
    name = next((g.name for g in fit.designs[k].groups if g.role == "site"), None)
    posterior = fit.posterior(k)
    if name is None or f"u_{name}" not in posterior:
        raise ArgumentError(f"stage {fit.designs[k].action}: the model has no site effects.")
    effects = posterior[f"u_{name}"].transpose("chain", "draw", ...)
    level, term = (str(d) for d in effects.dims[2:])
    table = estimates(effects, interval)
    between = stacked(posterior[f"sd_{name}"] ** 2).mean("sample").to_numpy()
    table["sd_between"] = np.tile(np.sqrt(between), effects.sizes[level])
    table["pooled"] = np.minimum(np.square(table["sd"]) / np.square(table["sd_between"]), 1.0)
    caption = (
        f"{fit.state}. Effects of sites in the model of stage {fit.designs[k].action}, later stages "
        f"recommended; {kind_of(interval)}s; pooled: share of each that comes from "
        "the other sites."
    )
    return Captioned(table.rename_axis(index={level: "site", term: "term"}), caption)


def _without_common(fit: Fit, k: int) -> np.ndarray:
    """Mean responses of the rows of a stage less the common terms without the action, at posterior means."""
    data, design = fit.require_data("shrinkage of sites"), fit.designs[k]
    rows = np.flatnonzero(data.stages[k].fitted)
    b = stacked(fit.posterior(k)["b"]).mean("sample").to_numpy()
    free = np.array([design.action not in made_of for made_of in design.variables])
    site = design.site_codes(data.frame)[rows]
    common = design.written(data.frame.iloc[rows], site)[:, free] @ b[free]
    for smooth in design.smooths:
        if smooth.term.by != design.action:
            bends = stacked(fit.posterior(k)[f"u_{smooth.name}"]).mean("sample").to_numpy()
            common = common + smooth.matrix(data.frame.iloc[rows]) @ bends.ravel()
    return mean_response(fit, k) - common


def shrinkage(fit: Fit, stage: str | None = None, action: object = None) -> Captioned:
    r"""Blips of one action at every site: raw, pooled by the model, and rescaled.

    *Raw* is the difference of the site's mean responses, action minus reference, after the common terms
    that do not involve the action have been taken out at their posterior means. *Pooled* is the posterior
    mean of the site's blip. As a picture of the spread between sites raw ones are too wide and pooled ones
    too narrow; *rescaled* are

        m + (pooled_j - m) sqrt(E[Var_j(blip_j) | y] / Var_j(pooled_j)),   m = mean_j pooled_j,

    whose variance between sites is the one expected a posteriori (constrained Bayes, Ghosh 1992).

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of a stage; left out: the first.
    action
        An action other than the reference; left out: the second.

    Returns
    -------
    Captioned
        Table by site with ``raw`` (NaN where nobody took one of the two), ``pooled``, ``sd`` (posterior),
        ``rescaled``, in units of the outcome, and ``units``, those who took either.

    Raises
    ------
    ValueError
        If the trial has no sites, the stage a model of its own, or no such stage or action.

    References
    ----------
    Ghosh, M. (1992). Constrained Bayes estimation with applications. JASA 87(418), 533-540.

    Examples
    --------
    >>> found = bdtr.values.shrinkage(fit, "a1", "small")
    >>> list(found.table)
    ['raw', 'pooled', 'sd', 'rescaled', 'units']
    """
    a_fit(fit)
    k = _with_coefficients(fit, stage)
    data, design = fit.require_data("shrinkage of sites"), fit.designs[k]
    model = fit.model(k)
    if not isinstance(model, OutcomeModel) or not model.family.linear:
        raise ArgumentError(
            f"stage {design.action}: raw blips need a Gaussian stage that a formula makes."
        )
    actions = list(design.actions)
    label = actions[1] if action is None else label_text(action)
    if label not in actions[1:]:
        raise ArgumentError(f"action={action!r}: allowed are {', '.join(map(repr, actions[1:]))}.")
    blips = site_blips(fit, design.action)
    own = blips.table.xs(label, level="action").drop(NEW_SITE)
    rows = np.flatnonzero(data.stages[k].fitted)
    site, took = design.site_codes(data.frame)[rows], data.stages[k].action[rows]
    rest = np.mean([_without_common(one, k) for one in fit.parts or (fit,)], axis=0)
    arms = [took == 0, took == actions.index(label)]
    count = [np.bincount(site[arm], minlength=len(own)) for arm in arms]
    with np.errstate(invalid="ignore"):
        means = [
            np.bincount(site[arm], rest[arm], len(own)) / n
            for arm, n in zip(arms, count, strict=True)
        ]
    pooled, sd = own["mean"].to_numpy(), own["sd"].to_numpy()
    draws = blips.draws.sel(action=label).drop_sel(site=NEW_SITE)
    expected = float(draws.var("site", skipna=True).mean())
    centre, variance = np.nanmean(pooled), np.nanvar(pooled)
    scale = np.sqrt(expected / variance) if variance > 0 else 1.0
    table = pd.DataFrame(
        {
            "raw": means[1] - means[0],
            "pooled": pooled,
            "sd": sd,
            "rescaled": centre + (pooled - centre) * scale,
            "units": count[0] + count[1],
        },
        index=own.index,
    )
    caption = (
        f"{fit.state}. Blips of {label} against {actions[0]} at stage {design.action}, later stages "
        "recommended: raw differences, posterior means, and these rescaled to the spread between sites "
        "that is expected a posteriori."
    )
    return Captioned(table, caption)
