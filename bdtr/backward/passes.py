"""Backward passes of a fit: which policies, stage after stage, by the exact engine or by refits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bdtr.backward.carried_effects import Carried, carried_terms
from bdtr.backward.induction import (
    POLICIES,
    Decisions,
    Policy,
    StageResponses,
    backward,
    together,
)
from bdtr.backward.regimes import Regime, policy
from bdtr.data.check import TrialData
from bdtr.results.errors import ArgumentError
from bdtr.results.progress import progress_bar
from bdtr.results.settings import FitError
from bdtr.stages.outcome import OutcomeModel, outcome_model, stage_rows
from bdtr.stages.posterior import common_effects
from bdtr.stages.prediction import StageDraws, unit_columns
from bdtr.stages.stagemodel import OwnDraws, OwnModel, own_columns, own_model

if TYPE_CHECKING:
    from bdtr.backward.fitted import Fit
    from bdtr.backward.propagation import Propagated

__all__ = [
    "carried",
    "columns_of",
    "decisions",
    "mean_payoff",
    "named_policy",
    "pass_key",
    "payoff_sd",
    "run_passes",
    "shifted",
]

_MOST_SHIFT = 100  # SDs of the payoff
_CELLS_KEPT = 30_000_000  # of the columns of units under all actions: 240 MB


def run_passes(fit: Fit, further: Sequence[Policy], where: str, progress: bool) -> None:
    """Run the recommended pass, or further ones together with it, and keep their draws in the tree.

    Parameters
    ----------
    fit
        The fit, its last stage fitted.
    further
        Policies beside the recommended one; none: the recommended pass itself.
    where
        Name of the set of further passes.
    progress
        Whether to show progress.
    """
    data, settings = fit.require_data("a backward pass"), fit.settings
    policies = [Policy(), *further]
    names = ", ".join(p.name for p in further) or "recommended"

    def draw_stage(k: int, responses: list[StageResponses], later: list) -> list:
        own = fit.trial.stages[k].model is not None
        with progress_bar(progress, f"stage {fit.designs[k].action} ({names})") as report:
            if own:
                found = _refitted(fit, k, responses, bool(further), report)
            else:
                found = _propagated(fit, k, policies, responses, later, bool(further), report)
        for rule, one in zip(further or policies, found, strict=True):
            if rule.name == "recommended":
                fit.tree[f"stage_{k + 1}/posterior"] = xr.DataTree(one.posterior)
                fit.tree[f"stage_{k + 1}/engine"] = xr.DataTree(one.engine)
                fit.tree[f"stage_{k + 1}/new_site"] = xr.DataTree(one.new_site)
            else:
                posterior = one.posterior.assign_attrs(one.engine.attrs)
                place = f"passes/{where}/{pass_key(rule.name)}/stage_{k + 1}"
                fit.tree[place] = xr.DataTree(posterior)
                fit.tree[f"{place}/new_site"] = xr.DataTree(one.new_site)
        drawn = [fit.stage_draws(k, one.posterior, one.new_site) for one in found]
        return [fit.q_function(k).draws, *drawn] if further else drawn

    fitted = [np.flatnonzero(s.fitted) for s in data.stages]
    backward(
        decisions(data),
        policies,
        fit.q_function(fit.stages - 1).draws,
        fitted,
        draw_stage,
        lambda k, draws, units, sites: fit.q_of(k, draws, sites).evaluate(
            columns_of(fit, k, units)
        ),
        settings.propagated,
    )


def _propagated(
    fit: Fit,
    k: int,
    policies: Sequence[Policy],
    responses: list[StageResponses],
    later: list[StageDraws | OwnDraws],
    further: bool,
    report,
) -> list[Propagated]:
    """One draw of stage k for each response by the exact engine."""
    from bdtr.backward.propagation import accumulate, propagate

    data, design = fit.require_data("a backward pass"), fit.designs[k]
    known_model = fit.model(k) if further else None
    assert known_model is None or isinstance(known_model, OutcomeModel)
    rows = stage_rows(data, design) if known_model is None else known_model.rows
    units = None if known_model is None else (known_model.location, known_model.spread)
    constant = bool(design.constant.any())
    totals = accumulate(rows, design.factors, together(responses), units, constant)
    if known_model is None:
        width = fit.settings.prior_width
        known_model = outcome_model(
            data, design, "gaussian", rows, totals.centre, totals.spread, totals.location, width
        )
        fit.keep_model(k, known_model, totals.mean)
    known = [
        carried(fit, k, rule).effects(d, design.factors) if isinstance(d, StageDraws) else None
        for rule, d in zip(policies, later, strict=True)
    ]
    anchor = _phi(fit, k) if further else None
    seed, chains = fit.settings.stream(k), fit.settings.chains
    common = common_effects(design, fit.settings, fit.settings.propagated)
    return propagate(known_model, totals, known, seed, chains, anchor, report, common)


def carried(fit: Fit, k: int, rule: Policy) -> Carried:
    """Which effects of stage k + 1 are known at stage k under a policy; kept, as a jackknife asks often."""
    fixed = rule.actions[k + 1] if rule.kind == "regime" else None
    key = k, None if fixed is None else fixed.tobytes()
    if key not in fit.carried:
        data = fit.require_data("a backward pass")
        fit.carried[key] = carried_terms(data, fit.designs[k], fit.designs[k + 1], fixed)
    return fit.carried[key]


def _refitted(
    fit: Fit, k: int, responses: list[StageResponses], further: bool, report
) -> list[Propagated]:
    """One draw of stage k for each response by NUTS refits of the user's model."""
    from bdtr.stages.refits import Refits, propagate_by_refits

    data = fit.require_data("a backward pass")
    if further:
        model = fit.model(k)  # that of the recommended pass, priors scaled to its payoffs
    else:
        mean = mean_payoff(responses[0])
        model = own_model(data, fit.designs[k], mean)
        fit.keep_model(k, model, mean)
    assert isinstance(model, OwnModel)
    wanted = responses[1:] if further else responses
    seed, chains = fit.settings.stream(k), fit.settings.chains
    return propagate_by_refits(
        Refits(model), together(wanted), len(model.history), seed, chains, report
    )


def mean_payoff(responses: StageResponses) -> np.ndarray:
    """Mean over draws of the responses of a stage, for the units of its fit."""
    return np.concatenate([values.mean(axis=1) for _, values in responses])


def _phi(fit: Fit, k: int) -> np.ndarray:
    """Parameters of the exact engine of the recommended pass (draw x phi)."""
    phi = fit.tree[f"stage_{k + 1}/engine"].to_dataset()["phi"]
    return phi.to_numpy().reshape(-1, phi.shape[-1])


def columns_of(fit: Fit, k: int, units: np.ndarray) -> Any:
    """Columns of units of the data at stage k, as its Q-function takes them.

    They are made for many units at a time and kept, as they are the same for all draws and policies.
    """
    data, design = fit.require_data("columns of units"), fit.designs[k]
    kept = fit.unit_columns.get(k)
    if kept is None or (kept[1][units] < 0).any():
        window = max(_CELLS_KEPT // (len(design.arms) * len(design.terms)), len(units))
        stage = data.stages[k]
        known = np.flatnonzero(stage.history | stage.fitted)
        if len(known) > window:
            known = np.union1d(known[known >= units.min()][:window], units)
        place = np.full(len(data), -1)
        place[known] = np.arange(len(known))
        make = unit_columns if fit.trial.stages[k].model is None else own_columns
        kept = make(design, data.frame.iloc[known]), place
        fit.unit_columns[k] = kept
    return kept[0].part(kept[1][units])


def decisions(data: TrialData) -> Decisions:
    """The decision problem of the units of a trial."""
    return Decisions(
        [s.among for s in data.stages],
        [s.feasible for s in data.stages],
        [s.reward for s in data.stages],
        data.outcome,
        data.trial.higher_is_better,
    )


def named_policy(chosen: Regime | Policy | str | None, data: TrialData) -> Policy:
    """The policy of a regime or of a word, named by what it does."""
    if chosen is None:
        return Policy()
    if isinstance(chosen, Policy):
        return chosen
    if isinstance(chosen, str):
        if chosen not in POLICIES:
            raise FitError(f"policy {chosen!r}: allowed are {POLICIES} or a regime.")
        return Policy(chosen, chosen)
    rule = policy(chosen, data)
    return replace(rule, name=_regime_key(chosen, rule)) if rule.kind == "regime" else rule


def _regime_key(regime: Regime, rule: Policy) -> str:
    """Name of the pass of a regime: its rules, whatever it is called, and a digest of them; of functions, of
    what they did. Texts alone may be the same for labels that hold their marks."""
    if any(callable(one) for one in regime.rules.values()):
        said = b"".join(codes.tobytes() for codes in rule.actions)
    else:
        parts = [
            [stage, list(one.items()) if isinstance(one, Mapping) else one]
            for stage, one in regime.rules.items()
        ]
        said = json.dumps(parts).encode()
    return f"{regime} ({sha256(said).hexdigest()[:12]})"


def payoff_sd(fit: Fit) -> float:
    """SD of the observed payoff, rewards of all stages included: the unit of the scale ``"sd"``."""
    data = fit.require_data("the SD of the payoff")
    payoff = data.outcome + np.sum([stage.reward for stage in data.stages], axis=0)
    return float(np.nanstd(payoff, ddof=1))


def shifted(
    fit: Fit, rule: Policy, shifts: Sequence[tuple[np.ndarray, np.ndarray]], words: str
) -> Policy:
    """A policy with shifts, named by what is assumed and, as passes are kept by name, by the numbers.

    Earlier stages are fitted to what is left after the shift with priors in units of the outcome, which no
    longer hold where a shift is many times as large: an error beyond some SDs of the payoff.
    """
    most = _MOST_SHIFT * payoff_sd(fit)
    if any(np.abs(amount).max() * np.abs(size).max() > most for amount, size in shifts):
        raise ArgumentError(
            f"{words}: changes payoffs by more than {_MOST_SHIFT} SDs, which are {most:.3g}. Give sizes and "
            "prices in units of the outcome."
        )
    digest = sha256(b"".join(x.tobytes() for pair in shifts for x in pair)).hexdigest()
    return replace(rule, name=f"{rule.name} [{words}; {digest[:12]}]", shifts=tuple(shifts))


def pass_key(name: str) -> str:
    """A pass name as a group name of a tree, which may not hold a slash; different names stay different."""
    return name.replace("%", "%25").replace("/", "%2F")
