"""Backward passes of a fit: which policies, stage after stage, by the exact engine or by refits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bdtr.backward.carried_effects import Carried, KnownEffects, carried_terms, slope_of
from bdtr.backward.computed import ComputedDraws
from bdtr.backward.fitrecord import Draws, FitRecord
from bdtr.backward.induction import (
    BackwardPass,
    Chosen,
    Policy,
    StageResponses,
    stage_by_stage,
    together,
)
from bdtr.backward.policies import decisions, named_policy, pass_key
from bdtr.backward.pooled import PooledPass, choices_of, chosen_together, in_part
from bdtr.backward.regimes import Regime
from bdtr.backward.unit_columns import columns_of
from bdtr.engine.crossproducts import weighted
from bdtr.results.arguments import a_fit, one_of, truth
from bdtr.results.errors import ArgumentError
from bdtr.results.progress import progress_bar
from bdtr.stages.outcome import OutcomeModel, outcome_model, response_scale, stage_rows
from bdtr.stages.posterior import common_effects
from bdtr.stages.prediction import PLACES, QFunction, StageDraws
from bdtr.stages.stagemodel import OwnModel, own_model
from bdtr.stages.states import ComputedModel
from bdtr.trial.states import states_of

if TYPE_CHECKING:
    from bdtr.backward.propagation import Anchor, Totals
    from bdtr.stages.posterior import Propagated

__all__ = [
    "backward_pass",
    "backward_passes",
    "known_effects",
    "mean_payoff",
    "mean_response",
    "policy_of",
    "run_passes",
    "set_with",
    "sets_of_passes",
    "stage_model",
]

_LOOKED_AT = 200  # units at which two scales are compared
_OWN, _OF_ALL = "set_", "together_"  # names of sets of passes

type Progress = Callable[[int, int], None]


def run_passes(fit: FitRecord, further: Sequence[Policy], where: str, progress: bool) -> None:
    """Run the pass that comes with a fit, or further ones together with it, and keep their draws in the tree.

    Parameters
    ----------
    fit
        The fit, its last stage fitted.
    further
        Policies beside the one that comes with the fit; none: that pass itself.
    where
        Name of the set of further passes.
    progress
        Whether to show progress.
    """
    parts = fit.parts or (fit,)
    policies = [[fit.followed, *further]]
    if fit.parts:
        policies = [[one.followed, *in_part(further, one.settings)] for one in parts]
    last = fit.stages - 1
    draws: list[list[dict[int, Draws]]] = [
        [{last: one.q_function(last).draws} for _ in own]
        for one, own in zip(parts, policies, strict=True)
    ]
    choices = choices_of(fit.parts, [fit.followed, *further], draws) if fit.parts else [None]
    reports: dict[int, list[Progress | None]] = {}

    def steps(d: int) -> Iterator[int]:
        one, data = parts[d], parts[d].require_data("a backward pass")
        return stage_by_stage(
            decisions(data),
            policies[d],
            draws[d],
            [np.flatnonzero(s.fitted) for s in data.stages],
            lambda k, responses, later: _drawn(
                one, k, policies[d], responses, later, where, reports[k][d]
            ),
            lambda k, own, units, at: _q_values(one, k, own, units, at),
            one.settings.propagated,
            choices[d],
        )

    every, names = [steps(d) for d in range(len(parts))], [p.name for p in further or policies[0]]
    for k in reversed(range(last)):
        with progress_bar(
            progress, f"stage {fit.designs[k].action} ({', '.join(names)})"
        ) as report:
            reports[k] = _shares_of(report, len(parts))
            for one in every:
                next(one)


def _q_values(fit: FitRecord, k: int, draws: Draws, units: np.ndarray, sites: str) -> np.ndarray:
    q = fit.q_of(k, draws, sites)
    return q.evaluate(columns_of(fit, k, units, q))


def _shares_of(report: Progress | None, parts: int) -> list[Progress | None]:
    """Progress of each of several parts as that of the whole."""
    if report is None or parts == 1:
        return [report] * parts

    def share(d: int) -> Progress:
        return lambda done, every: report(d * every + done, parts * every)

    return [share(d) for d in range(parts)]


def _drawn(
    fit: FitRecord,
    k: int,
    policies: Sequence[Policy],
    responses: list[StageResponses],
    later: list,
    where: str,
    report: Progress | None,
) -> list[Draws]:
    """Draws of one stage under policies, kept in the tree; further ones are those after the first."""
    further = bool(where)
    if states_of(fit.trial, k):
        return _computed(fit, k, policies, later, where)
    if fit.trial.stages[k].model is not None:
        found = _refitted(fit, k, responses, further, report)
    else:
        found = _propagated(fit, k, policies, responses, later, further, report)
    for rule, one in zip(policies[1:] if further else policies, found, strict=True):
        if rule.name == fit.followed.name:
            fit.tree[f"stage_{k + 1}/posterior"] = xr.DataTree(one.posterior)
            fit.tree[f"stage_{k + 1}/engine"] = xr.DataTree(one.engine)
            fit.tree[f"stage_{k + 1}/new_site"] = xr.DataTree(one.new_site)
        else:
            posterior = one.posterior.assign_attrs(one.engine.attrs)
            place = f"passes/{where}/{pass_key(rule.name)}/stage_{k + 1}"
            fit.tree[place] = xr.DataTree(posterior)
            fit.tree[f"{place}/new_site"] = xr.DataTree(one.new_site)
    drawn: list[Draws] = [fit.stage_draws(k, one.posterior, one.new_site) for one in found]
    return [fit.q_function(k).draws, *drawn] if further else drawn


def _computed(
    fit: FitRecord, k: int, policies: Sequence[Policy], later: list, where: str
) -> list[Draws]:
    """Nothing is drawn at a stage that is computed: its draws are those of the states and of later stages."""
    for rule in policies[1:] if where else []:  # so that the pass is known to have been run
        fit.tree[f"passes/{where}/{pass_key(rule.name)}/stage_{k + 1}"] = xr.DataTree()
    return [
        ComputedDraws(own, rule, fit.settings.propagated)
        for own, rule in zip(later, policies, strict=True)
    ]


def _propagated(
    fit: FitRecord,
    k: int,
    policies: Sequence[Policy],
    responses: list[StageResponses],
    later: list[Draws],
    further: bool,
    report,
) -> list[Propagated]:
    """One draw of stage k for each response by the exact engine."""
    from bdtr.backward.propagation import propagate

    design = fit.designs[k]
    known = [
        known_effects(fit, k, rule, d) if isinstance(d, StageDraws) else None
        for rule, d in zip(policies, later, strict=True)
    ]
    if fit.payoff(k).family.quasi:
        model, totals, kept = _curved(fit, k, responses, known, further)
    else:
        (model, totals), kept = _straight(fit, k, responses, further), xr.Dataset()
    anchor = _anchor(fit, k) if further else None
    seed, chains = fit.settings.stream(k), fit.settings.chains
    common = common_effects(design, fit.settings, fit.settings.propagated)
    found = propagate(model, totals, known, seed, chains, anchor, report, common)
    return [replace(one, engine=one.engine.merge(kept).assign_attrs(**kept.attrs)) for one in found]


def _straight(
    fit: FitRecord, k: int, responses: list[StageResponses], further: bool
) -> tuple[OutcomeModel, Totals]:
    """The model of a stage whose values have no bounds, and cross-products with them."""
    from bdtr.backward.propagation import accumulate

    data, design = fit.require_data("a backward pass"), fit.designs[k]
    model = stage_model(fit, k) if further else None
    assert model is None or isinstance(model, OutcomeModel)
    rows = stage_rows(data, design) if model is None else model.rows
    units = None if model is None else (model.location, model.spread)
    constant = bool(design.constant.any())
    totals = accumulate(rows, design.factors, together(responses), units, constant)
    if model is None:
        width = fit.settings.prior_width
        model = outcome_model(
            data, design, fit.payoff(k), rows, totals.centre, totals.spread, totals.location, width
        )
        fit.keep_model(k, model, totals.mean)
    return model, totals


def _curved(
    fit: FitRecord,
    k: int,
    responses: list[StageResponses],
    known: Sequence[KnownEffects | None],
    further: bool,
) -> tuple[OutcomeModel, Totals, xr.Dataset]:
    """The model of a stage whose values have bounds, cross-products with working responses, and what is kept
    for further passes."""
    from bdtr.backward.linkscale import on_link_scale

    before = None
    if further:
        model = stage_model(fit, k)
        assert isinstance(model, OutcomeModel)
        before = model, mean_response(fit, k)
    effects = [None if one is None else one.effects for one in known]
    found = on_link_scale(fit, k, responses, effects, before)
    if not further:
        fit.keep_model(k, found.model, found.mean)
    return found.model, found.totals, found.kept


def _carried(fit: FitRecord, k: int, rule: Policy) -> Carried:
    """Which effects of stage k + 1 are known at stage k under a policy; kept, as a jackknife asks often."""
    fixed = rule.actions[k + 1] if rule.kind == "regime" else None
    key = k, None if fixed is None else fixed.tobytes()
    if key not in fit.carried:
        data = fit.require_data("a backward pass")
        fit.carried[key] = carried_terms(data, fit.designs[k], fit.designs[k + 1], fixed)
    return fit.carried[key]


def known_effects(fit: FitRecord, k: int, rule: Policy, draws: StageDraws) -> KnownEffects | None:
    """Effects of stage k + 1 that are known at stage k under a policy, from draws of stage k + 1."""
    terms, slope = _carried(fit, k, rule), 1.0
    if terms.maps and k + 1 == fit.stages - 1:
        units = np.flatnonzero(fit.require_data("a backward pass").stages[k + 1].fitted)
        units = units[:: max(1, len(units) // _LOOKED_AT)]
        q = fit.q_of(k + 1, draws)
        assert isinstance(q, QFunction)
        slope = slope_of(q, columns_of(fit, k + 1, units), fit.payoff(k))
    return terms.effects(draws, fit.designs[k].factors, slope)


def _refitted(
    fit: FitRecord, k: int, responses: list[StageResponses], further: bool, report
) -> list[Propagated]:
    """One draw of stage k for each response by NUTS refits of the user's model."""
    from bdtr.stages.refits import Refits, propagate_by_refits

    data = fit.require_data("a backward pass")
    if further:
        model = stage_model(fit, k)  # that of the recommended pass, priors scaled to its payoffs
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


def _anchor(fit: FitRecord, k: int) -> Anchor:
    """Draws of the exact engine of the recommended pass."""
    from bdtr.backward.propagation import Anchor

    engine = fit.tree[f"stage_{k + 1}/engine"].to_dataset()
    phi = engine["phi"].to_numpy().reshape(-1, engine.sizes["phi_dim"])
    return Anchor(phi, engine.attrs.get("independence") == len(phi))


def backward_pass(
    fit: FitRecord, chosen: Regime | Policy | str | None = None, progress: bool = False
) -> BackwardPass:
    """The backward pass under a policy, run now if it has not been.

    Parameters
    ----------
    fit
        A fit.
    chosen
        A regime, ``"recommended"`` (default) or ``"optimal"``.
    progress
        Whether to show progress.

    Returns
    -------
    BackwardPass

    Raises
    ------
    FitError
        If the pass has to be run and the fit was saved without data.
    """
    return backward_passes(fit, [chosen], progress)[0]


def backward_passes(
    fit: FitRecord,
    chosen: Sequence[Regime | Policy | str | None],
    progress: bool = False,
    sites: str = "observed",
) -> list[BackwardPass]:
    """Backward passes under several policies, drawn together, run now if they have not been.

    Policies that are drawn together are a joint posterior: contrasts between them have the right
    spread. Their draws under one policy are from the same posterior whatever else is drawn.

    Parameters
    ----------
    fit
        A fit.
    chosen
        Regimes, ``"recommended"``, ``"untailored"`` (recommended on average over sites) or ``"optimal"``.
    progress
        Whether to show progress.
    sites
        Where their Q-values are taken, as in :class:`bdtr.stages.prediction.QFunction`.

    Returns
    -------
    list of BackwardPass

    Raises
    ------
    FitError
        If passes have to be run and the fit was saved without data.
    """
    a_fit(fit)
    truth("progress", progress)
    one_of("sites", sites, PLACES)
    if not isinstance(chosen, (list, tuple)):
        raise ArgumentError(f"chosen={chosen!r}: must be a list of regimes or policies.")
    fit.require_data("a backward pass")
    rules = [policy_of(fit, one) for one in chosen]
    further = {r.name: r for r in rules if r.name != fit.followed.name}
    where = "" if fit.stages == 1 or not further else set_with(fit, list(further))
    if where is None:
        where = f"{_OF_ALL if fit.parts else _OWN}{len(sets_of_passes(fit)) + 1}"
        run_passes(fit, list(further.values()), where, progress)

    def place(rule: Policy) -> str:
        own = rule.name == fit.followed.name
        return "recommended" if own else f"{where}/{pass_key(rule.name)}"

    if fit.parts:
        return [_pooled(fit, rule, place(rule), sites) for rule in rules]
    return [_pass(fit, rule, place(rule), sites) for rule in rules]


def policy_of(fit: FitRecord, chosen: Regime | Policy | str | None) -> Policy:
    """The policy of a regime or of a word, also as it is in each completed data set."""
    if not fit.parts or isinstance(chosen, Policy):
        return named_policy(chosen, fit.require_data("a backward pass"))
    each = [named_policy(chosen, one.require_data("a backward pass")) for one in fit.parts]
    if each[0].kind != "regime":
        return each[0]
    each = [replace(one, name=each[0].name) for one in each]
    return replace(each[0], in_parts=tuple(each))


def _pass(
    fit: FitRecord, rule: Policy, path: str, sites: str, chosen: Chosen | None = None
) -> BackwardPass:
    def q_at(sites: str):
        def values(k: int, units: np.ndarray) -> np.ndarray:
            q = fit.q_function(k, path, sites, rule)
            return q.evaluate(columns_of(fit, k, units, q))

        return values

    data, samples = fit.require_data("a backward pass"), fit.settings.propagated
    return BackwardPass(decisions(data), rule, q_at(sites), q_at("average"), samples, chosen)


def _pooled(fit: FitRecord, rule: Policy, path: str, sites: str) -> PooledPass:
    """The pass of a fit to several completed data sets."""

    def draws_at(k: int) -> list[Draws]:
        return [one.q_function(k, path).draws for one in fit.parts]

    chosen = chosen_together(fit.parts, rule, draws_at, sites)
    parts = tuple(
        _pass(one, in_part([rule], one.settings)[0], path, sites, chosen[d])
        for d, one in enumerate(fit.parts)
    )
    whole = _pass(fit, rule, path, sites)
    return PooledPass(
        whole.decisions, rule, whole.q_values, whole.average, whole.samples, None, parts,
        fit.settings.chains,
    )  # fmt: skip


def sets_of_passes(fit: FitRecord) -> dict[str, list[str]]:
    """Sets of further passes that were drawn together, with the names in each: those of all completed data
    sets, or those of one that was asked by itself, in which its own draws say what is recommended."""
    tree = (fit.parts or (fit,))[0].tree
    if "passes" not in tree:
        return {}
    return {
        str(name): [str(n) for n in one.children]
        for name, one in tree["passes"].children.items()
        if str(name).startswith(_OF_ALL if fit.parts else _OWN)
    }


def set_with(fit: FitRecord, names: Sequence[str]) -> str | None:
    """A set that holds all these passes."""
    wanted = {pass_key(name) for name in names}
    return next((s for s, held in sets_of_passes(fit).items() if wanted <= set(held)), None)


def mean_response(fit: FitRecord, k: int) -> np.ndarray:
    """Response of the rows of stage k: the observed payoff, or the mean over draws of the stage value; where
    values were imputed, of the first completed data set, as in :func:`stage_model`."""
    if fit.parts:
        return mean_response(fit.parts[0], k)
    if k not in fit.mean_responses:
        data = fit.require_data("a model's rows")
        if k == fit.stages - 1:
            return data.payoff
        rows = np.flatnonzero(data.stages[k].fitted)
        done = backward_pass(fit, fit.followed)
        fit.mean_responses[k] = mean_payoff(done.responses(k, rows))
    return fit.mean_responses[k]


def stage_model(fit: FitRecord, k: int) -> OutcomeModel | OwnModel | ComputedModel:
    """The outcome model of stage k with the rows of its fit, or that it is computed; where values were
    imputed, those of the first completed data set."""
    if fit.parts:
        return stage_model(fit.parts[0], k)
    if names := states_of(fit.trial, k):
        return ComputedModel(fit.designs[k], names)
    if k not in fit.models and fit.trial.stages[k].model is not None:
        data = fit.require_data("a model's rows")
        fit.models[k] = own_model(data, fit.designs[k], mean_response(fit, k))
    if k not in fit.models:
        data, location = fit.require_data("a model's rows"), None
        rows = stage_rows(data, fit.designs[k])
        if k < fit.stages - 1:
            engine = fit.tree[f"stage_{k + 1}/engine"].to_dataset()
            centre, spread, location = (engine.attrs[n] for n in ("centre", "spread", "location"))
            if fit.payoff(k).family.quasi:
                rows = weighted(rows, engine["weight"].to_numpy())
        else:
            centre, spread = response_scale(data, fit.payoff(k))
        width = fit.settings.prior_width
        fit.models[k] = outcome_model(
            data, fit.designs[k], fit.payoff(k), rows, centre, spread, location, width
        )
    return fit.models[k]
