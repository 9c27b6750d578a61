"""Who took which action: counts against plans, balance of the history, and overlap."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.checks.assignment import by_stage, treatment_probabilities
from bdtr.data.differences import ADJUST, FINE, standardised_differences
from bdtr.results.arguments import a_fit, mapping
from bdtr.results.captions import Captioned

__all__ = ["covariate_balance", "overlap"]


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
        ``adjust``, ``warning``). Covariates that do not vary among these units are left out. Where values
        were imputed, means over the completed data sets.

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
    table = standardised_differences(fit.completed("balance"), fit.designs)
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
