r"""Who took which action: counts against plans, balance of the history, overlap, and the flow of units.

Standardised difference of a covariate between an action and the reference, among units that could have taken
either,

    d = mean difference / sqrt((s_a^2 + s_0^2) / 2)   (Austin 2009, Stat. Med. 28(25)),

where the mean difference is that within sites, sum_j w_j (xbar_aj - xbar_0j) / sum_j w_j with
w_j = n_aj n_0j / (n_aj + n_0j), as actions are given within sites; without sites, the plain one. Up to .05 is
fine, to .25 calls for adjustment, beyond is a warning (What Works Clearinghouse, version 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bdtr.checks.assignment import by_stage, treatment_probabilities
from bdtr.data.coding import label_series
from bdtr.data.history import known_columns
from bdtr.results.arguments import a_fit, mapping
from bdtr.results.labels import label_text
from bdtr.results.shown import Captioned

if TYPE_CHECKING:
    from bdtr.backward.fitted import Fit
    from bdtr.data.check import StageData

__all__ = ["attrition", "balance", "covariates", "design_effect", "overlap", "stage_flow"]

FINE, ADJUST = 0.05, 0.25
_MOST_LEVELS = 8


def balance(fit: Fit) -> Captioned:
    """Standardised differences of the history between actions, at each stage.

    Parameters
    ----------
    fit
        A fitted trial with its data.

    Returns
    -------
    Captioned
        Table by ``stage, action, covariate`` (levels of text columns one by one): the number of units with
        the reference and with the action, their means, ``difference`` in SDs, and ``verdict`` (``fine``,
        ``adjust``, ``warning``). Covariates that do not vary among these units are left out.

    References
    ----------
    P. C. Austin (2009), Stat. Med. 28(25); What Works Clearinghouse (2020), Standards Handbook 4.1.

    Examples
    --------
    >>> bdtr.checks.balance(fit)  # doctest: +SKIP
    """
    a_fit(fit)
    data, rows = fit.require_data("balance"), []
    for k, design in enumerate(fit.designs):
        stage = data.stages[k]
        site = design.site_codes(data.frame)
        history = covariates(fit, k)
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
    table = table.dropna(subset=["difference"])
    size = table["difference"].abs()
    table["verdict"] = np.select([size <= FINE, size <= ADJUST], ["fine", "adjust"], "warning")
    within = " within sites" if fit.trial.site else ""
    return Captioned(
        table,
        f"Standardised differences{within} from the reference action, among units that could have taken "
        f"either; up to {FINE:g} fine, to {ADJUST:g} adjust, beyond a warning (WWC 4.1).",
    )


def covariates(fit: Fit, k: int) -> dict[str, np.ndarray]:
    """Numeric history of a stage; text columns as one column for each of a few levels."""
    a_fit(fit)
    data, out = fit.require_data("balance"), {}
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


def overlap(fit: Fit, planned: Mapping[str, Mapping[object, float]] | None = None) -> Captioned:
    """How often each action was taken against its plan, and the probabilities at the sites.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    planned
        By stage, planned weights of all its actions; for each unit the feasible ones are made to add up to 1.

    Returns
    -------
    Captioned
        Table by ``stage, action`` over units with two or more feasible actions: units who could have taken
        it, units who took it, ``share``, ``planned`` (where given) and ``p_value`` of the share under the
        plan (binomial, normal approximation), and the lowest, median and highest
        estimated probability at a site (shares of sites, drawn towards the overall share).

    Raises
    ------
    ValueError
        If planned probabilities name other actions or stages.

    Examples
    --------
    >>> bdtr.checks.overlap(fit, {"a2": {"regular": 1, "aide": 1, "small": 1}})  # doctest: +SKIP
    """
    a_fit(fit)
    from scipy.stats import norm

    data, rows = fit.require_data("overlap"), []
    wanted = by_stage(fit, planned, "planned")
    for name, weights in wanted.items():
        mapping(f"planned[{name!r}]", weights, "actions to weights")
    for k, design in enumerate(fit.designs):
        stage = data.stages[k]
        choice = stage.took & (stage.feasible.sum(axis=1) > 1)
        found = treatment_probabilities(fit, k, "shares")
        own = wanted.get(design.action)
        plan = None if own is None else treatment_probabilities(fit, k, dict(own))
        for a, action in enumerate(design.actions):
            able = choice & stage.feasible[:, a]
            if not able.any():
                continue
            took = stage.action[able] == a
            expected, p_value = np.nan, np.nan
            if plan is not None:
                p = plan[able, a]
                expected = p.mean()
                error = np.sqrt((p * (1 - p)).sum())
                if error > 0:
                    p_value = 2 * norm.sf(abs(took.sum() - p.sum()) / error)
            at = found[able, a]
            rows.append((design.action, action, int(able.sum()), int(took.sum()), took.mean(), expected,
                         p_value, at.min(), np.median(at), at.max()))  # fmt: skip
    columns = ["stage", "action", "could", "took", "share", "planned", "p_value", "lowest", "median",
               "highest"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns).set_index(["stage", "action"])
    if planned is None:
        table = table.drop(columns=["planned", "p_value"])
    return Captioned(
        table,
        "Actions taken by units with a choice, and estimated probabilities (shares of sites, drawn towards "
        "the overall share); a probability near 0 says that nobody there could be compared.",
    )


def stage_flow(fit: Fit) -> Captioned:
    """How units go from action to action, and where they leave the analysis.

    Parameters
    ----------
    fit
        A fitted trial with its data.

    Returns
    -------
    Captioned
        Table with one row for each ``stage, before, now``: ``before`` is the action at the stage before
        (``start`` at the first one), ``now`` the action, ``no decision`` (payoff carried through) or
        ``not in the fit``, and the number of ``units``.

    Examples
    --------
    >>> bdtr.checks.stage_flow(fit)  # doctest: +SKIP
    """
    a_fit(fit)
    data = fit.require_data("the flow of units")
    before = np.full(len(data), "start", dtype=object)
    parts = []
    for design, stage in zip(fit.designs, data.stages, strict=True):
        now = _now(stage, design.actions)
        table = pd.DataFrame({"before": before, "now": now})
        counts = table.groupby(["before", "now"], sort=False).size().rename("units").reset_index()
        order = ["start", *_order(before), *design.actions, *_ASIDE]
        counts["order"] = [
            order.index(b) * 1000 + ([*design.actions, *_ASIDE].index(n))
            for b, n in zip(counts["before"], counts["now"], strict=True)
        ]
        counts = counts.sort_values("order").drop(columns="order")
        parts.append(counts.assign(stage=design.action))
        before = now
    table = pd.concat(parts).set_index(["stage", "before", "now"])
    return Captioned(table, f"Units of the trial ({len(data):,}) from stage to stage.")


def attrition(fit: Fit) -> Captioned:
    """Attrition, overall and differential: who took an action and has no known outcome in the end.

    With n_a units that took action a and l_a of them without an outcome, attrition is l_a / n_a, and
    differential attrition l_a / n_a - l_0 / n_0 against the stage's first action (What Works Clearinghouse,
    Standards Handbook, version 4.1).

    Parameters
    ----------
    fit
        A fitted trial with its data.

    Returns
    -------
    Captioned
        Table by ``stage, action``, and ``all`` of a stage, with ``units``, ``lost``, ``attrition`` and
        ``differential``, shares; NaN where nobody took the action.

    Examples
    --------
    >>> bdtr.checks.attrition(fit)  # doctest: +SKIP
    """
    a_fit(fit)
    data = fit.require_data("attrition")
    gone, rows = np.isnan(data.outcome + data.stages[-1].reward), {}
    for design, stage in zip(fit.designs, data.stages, strict=True):
        took = stage.among & ~stage.outside & (stage.action >= 0)
        sizes = np.bincount(stage.action[took], minlength=len(design.actions))
        lost = np.bincount(stage.action[took & gone], minlength=len(design.actions))
        share = np.divide(lost, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)
        for a, action in enumerate(design.actions):
            rows[design.action, action] = (sizes[a], lost[a], share[a], share[a] - share[0])
        together = lost.sum() / sizes.sum() if sizes.sum() else np.nan
        rows[design.action, "all"] = (sizes.sum(), lost.sum(), together, np.nan)
    index = pd.MultiIndex.from_tuples(rows, names=["stage", "action"])
    table = pd.DataFrame(
        list(rows.values()), index=index, columns=["units", "lost", "attrition", "differential"]
    ).astype({"units": int, "lost": int})
    return Captioned(
        table,
        "Attrition: units that took an action and have no outcome; differential: against the stage's first "
        "action.",
    )


_ASIDE = ("no decision", "not in the fit")


def _order(labels: np.ndarray) -> list[str]:
    return list(dict.fromkeys(labels))


def _now(stage: StageData, actions: tuple[str, ...]) -> np.ndarray:
    names = np.array([*map(label_text, actions), *_ASIDE], dtype=object)
    code = np.where(stage.fitted, stage.action, len(actions) + 1)
    return names[np.where(~stage.among & ~stage.fitted, len(actions), code)]
