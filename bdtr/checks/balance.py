"""Who took which action: counts against plans, balance of the history, overlap, and the flow of units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.checks.assignment import by_stage, treatment_probabilities
from bdtr.data.differences import ADJUST, FINE, standardised_differences
from bdtr.results.arguments import a_fit, mapping
from bdtr.results.captions import Captioned
from bdtr.results.labels import label_text

if TYPE_CHECKING:
    from bdtr.data.trialdata import StageData

__all__ = ["attrition", "covariate_balance", "overlap", "stage_flow"]


def covariate_balance(fit: Fit) -> Captioned:
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
    >>> found = bdtr.checks.covariate_balance(fit)
    >>> list(found.table)
    ['units_reference', 'units', 'mean_reference', 'mean', 'difference', 'verdict']
    """
    a_fit(fit)
    table = standardised_differences(fit.require_data("balance"), fit.designs)
    within = " within sites" if fit.trial.site else ""
    return Captioned(
        table,
        f"Standardised differences{within} from the reference action, among units that could have taken "
        f"either; up to {FINE:g} fine, to {ADJUST:g} adjust, beyond a warning (WWC 4.1).",
    )


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
    >>> found = bdtr.checks.overlap(fit, {"a2": {"regular": 1, "aide": 1, "small": 1}})
    >>> list(found.table)
    ['could', 'took', 'share', 'planned', 'p_value', 'lowest', 'median', 'highest']
    """
    a_fit(fit)
    from scipy.special import ndtr

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
                    p_value = 2 * ndtr(-abs(took.sum() - p.sum()) / error)
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
    >>> found = bdtr.checks.stage_flow(fit)
    >>> list(found.table)
    ['units']
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
    >>> found = bdtr.checks.attrition(fit)
    >>> list(found.table)
    ['units', 'lost', 'attrition', 'differential']
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
