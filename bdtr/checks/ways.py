"""Regression and g-computation side by side: two ways to the same Q-functions, with models of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.backward.fitting import fit_checked
from bdtr.backward.passes import backward_pass
from bdtr.backward.regimes import Regime, recommended, regime_list
from bdtr.data.check import check_again
from bdtr.decisions.optimality import summarise_actions
from bdtr.results.arguments import a_fit, probability
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import kind_of
from bdtr.results.progress import progress_bar
from bdtr.trial.states import computed_stages
from bdtr.trial.trial import Trial
from bdtr.values.learned_rules import quick_settings
from bdtr.values.valuation import value

__all__ = ["Ways", "compare_ways"]

_WAYS = ("regression", "g-computation")


@dataclass(frozen=True, repr=False)
class Ways(Shown):
    """Decisions and values by regression and by g-computation.

    ``table`` by ``stage``: ``units`` with a choice; ``same``, the share of them for whom both ways recommend
    the same action; ``sure_regression`` and ``sure_computed``, the shares with a P(optimal) of at least
    ``sure``; ``opposed``, the share for whom both are sure, and of different actions; ``apart``, how far
    posterior means of blips are apart (root mean square over units and actions), and ``sd``, that of their
    posterior SDs by g-computation, in units of the outcome. ``values`` by ``regime`` and ``way``; ``units``
    has for each unit and stage the recommended action and its P(optimal) by either way.
    """

    table: pd.DataFrame
    values: pd.DataFrame
    units: pd.DataFrame
    sure: float
    interval: float
    state: State

    _tables: ClassVar[tuple[str, ...]] = ("table", "values")

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Regression on values of the next stage, and g-computation by models of states; "
            f"sure: P(optimal) of at least {self.sure:g}; population: sample; {kind_of(self.interval)}s."
        )


def compare_ways(
    fit: Fit,
    *regimes: Regime,
    states: Mapping[str, Any] | None = None,
    sure: float = 0.9,
    interval: float = 0.95,
    progress: bool = False,
) -> Ways:
    """Fit the trial the other way as well, and say where regression and g-computation disagree.

    Regression needs the formula of a stage to follow the value of the next one, which bends where the best
    action changes; g-computation needs the models of states. Both are right where their models are: where
    they disagree by more than their SDs, one of the models is wrong.

    Parameters
    ----------
    fit
        A fitted trial with its data, with models of states or without.
    *regimes
        Regimes whose values are compared; left out: the recommended one.
    states
        Models of states, as in :class:`bdtr.Trial`, where the fit has none.
    sure
        P(optimal) from which on a way is sure of an action.
    interval
        Probability of the equal-tailed intervals.
    progress
        Whether to show progress.

    Returns
    -------
    Ways

    Raises
    ------
    ValueError
        If neither the fit nor ``states`` says how states come about, or both do.

    References
    ----------
    Nahum-Shani, I., and others (2012). Q-learning: a data analysis method for constructing adaptive
    interventions. Psychological Methods 17(4), 478-494. Robins, J. (1986). A new approach to causal inference
    in mortality studies with a sustained exposure period. Mathematical Modelling 7, 1393-1512.

    Examples
    --------
    >>> found = bdtr.compare_ways(fit, states={"y_k": "lunch * a1 + (1 | school)"})
    >>> list(found.table)
    ['units', 'same', 'sure_regression', 'sure_computed', 'opposed', 'apart', 'sd']
    """
    a_fit(fit)
    for name, given in (("interval", interval), ("sure", sure)):
        probability(name, given)
    own = fit.trial.states
    if (own is None) == (states is None):
        said = (
            "give models of states, states={..}" if own is None else "the fit has models of states"
        )
        raise ArgumentError(f"states: {said}.")
    chosen = regime_list(regimes) or [recommended()]
    with progress_bar(progress, "the other way") as report:
        other = _other(fit, states)
        if report:
            report(1, 1)
    both = (other, fit) if own else (fit, other)
    stages = sorted(computed_stages(both[1].trial))
    tables = [_decided(both, k, sure) for k in range(max(stages) + 1)]
    each = {
        way: value(one, *chosen, interval=interval).table[["mean", "sd", "lower", "upper"]]
        for way, one in zip(_WAYS, both, strict=True)
    }
    values = pd.concat(each, names=["way"]).swaplevel()
    order = [(r.name, way) for r in chosen for way in _WAYS]
    return Ways(
        pd.concat([table for table, _ in tables]),
        values.loc[order],
        pd.concat([units for _, units in tables], ignore_index=True),
        sure,
        interval,
        worst([fit.state, other.state]),
    )


def _other(fit: Fit, states: Mapping[str, Any] | None) -> Fit:
    """The fit by the other way, to the same data with the same settings."""
    data = fit.require_data("a fit the other way")
    if fit.parts:
        raise ArgumentError(
            "compare_ways: values were imputed, which models of states do not go with. Fit with "
            "missing='exclude'."
        )
    trial = _with_states(data.trial, states)
    for name, model in (trial.states or {}).items():
        if absent := [c for c in model.columns if c not in data.frame]:
            raise ArgumentError(
                f"states[{name!r}]: names {absent[0]!r}, which the trial that was fitted does not, so that "
                "the fit does not have it. Fit the trial with states=, and compare from there."
            )
    settings = fit.settings
    again = check_again(trial, data.named, settings.missing, settings.off_protocol)
    return fit_checked(again, replace(quick_settings(fit), quick=settings.quick))


def _with_states(trial: Trial, states: Mapping[str, Any] | None) -> Trial:
    """The trial computed by these models, or regressed; what a regression has of its own is left out of a
    stage that is computed."""
    if states is None:
        return replace(trial, states=None)
    plain = [
        replace(s, priors=None, weights=None, site_terms=(), shape=None, residual="arm")
        for s in trial.stages
    ]
    computed = computed_stages(replace(trial, stages=plain, states=states))
    stages = [plain[k] if k in computed else s for k, s in enumerate(trial.stages)]
    return replace(trial, stages=stages, states=states)


def _decided(both: tuple[Fit, Fit], k: int, sure: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What both ways decide at a stage: in figures, and for each unit."""
    data = both[0].require_data("decisions")
    stage, design = data.stages[k], both[0].designs[k]
    units = np.flatnonzero(stage.choosing & both[1].require_data("decisions").stages[k].choosing)
    feasible, better = stage.feasible[units], data.trial.higher_is_better
    best, p, blips, sds = [], [], [], []
    for fit in both:
        done = backward_pass(fit)
        parts = [done.q_values(k, block) for block in done.blocks(units)]
        q = np.concatenate(parts, axis=1) if parts else done.q_values(k, units)
        found = summarise_actions(q, feasible, higher_is_better=better)
        rows = np.arange(len(units))
        best.append(found.best)
        p.append(found.p_optimal[found.best, rows])
        first = feasible.argmax(axis=1)
        own = q - q[first, rows]
        blips.append(own.mean(axis=2))
        sds.append(own.std(axis=2))
    counted = feasible.T & (np.arange(len(blips[0]))[:, None] != feasible.argmax(axis=1))
    certain = [one >= sure for one in p]
    row = {
        "units": len(units),
        "same": float(np.mean(best[0] == best[1])),
        "sure_regression": float(certain[0].mean()),
        "sure_computed": float(certain[1].mean()),
        "opposed": float(np.mean(certain[0] & certain[1] & (best[0] != best[1]))),
        "apart": float(np.sqrt(np.square(blips[0] - blips[1])[counted].mean())),
        "sd": float(np.sqrt(np.square(sds[1])[counted].mean())),
    }
    table = pd.DataFrame([row], index=pd.Index([design.action], name="stage"))
    labels = np.array(design.arms)
    each = pd.DataFrame(
        {
            "unit": data.units[units],
            "stage": design.action,
            "regression": pd.Categorical(labels[best[0]], list(design.arms)),
            "g_computation": pd.Categorical(labels[best[1]], list(design.arms)),
            "p_regression": p[0],
            "p_g_computation": p[1],
        }
    )
    return table, each
