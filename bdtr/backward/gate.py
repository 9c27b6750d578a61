"""The gate that every fit passes before anything is recommended from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.modelchecks import doubts
from bdtr.backward.passes import backward_pass
from bdtr.backward.support import support
from bdtr.data.imputation.chain import settled
from bdtr.data.trialdata import TrialData
from bdtr.results.diagnostics import (
    State,
    convergence,
    doubt,
    enough,
    gate_decisions,
    gate_parameters,
    rhat_limit,
    worst,
)
from bdtr.trial.states import states_of

__all__ = ["gate"]

_STARTED_ELSEWHERE = 1e-3  # p-value of the ranks of short slice chains within long ones
_UNSETTLED = 0.02  # share of refits that may not have settled
_DIVERGENT = 0.001  # share of divergent transitions in all refits together
_IMPUTATION_ERROR = 0.2  # of the mean value over completed data sets, in its SDs
_UNSETTLED_MEAN = 1.2  # R-hat over few steps, with many chains
_FEW = 0.005  # share of units that needs no mention
_MUCH_IMPUTED = 0.4  # share of the values of a variable
_UNITS_GATED = 200  # units whose Q differences the gate looks at


def gate(fitted: FitRecord) -> State:
    """The state of a fit: convergence of its parameters and of its decision quantities, support, the
    model; without data, what the draws of the parameters say."""
    settings, last = fitted.settings, fitted.stages - 1
    states = [enough(settings.propagated)]
    for k in range(fitted.stages):
        if names := states_of(fitted.trial, k):
            states += [fitted.states[name].state for name in names]
            continue
        node = fitted.tree[f"stage_{k + 1}"]
        posterior = node["posterior"].to_dataset()
        chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
        divergences = 0
        if k == last and "diverging" in node["sample_stats"].to_dataset():
            divergences = int(node["sample_stats"].to_dataset()["diverging"].sum())
        name = f"stage {fitted.designs[k].action}"
        if k < last:
            engine = node["engine"].to_dataset().attrs
            states += [_short_chains(name, engine), _refits(name, engine)]
        limit = rhat_limit(chains, draws)
        remedy = "raise propagated=" if k < last else "raise draws="
        if k == last and settings.sampler != "direct":
            remedy += " and tune="
        table = convergence(posterior)
        states.append(gate_parameters(name, table, limit, chains * draws, divergences, remedy))
        states += [_finite(name, posterior), _finite(name, node["new_site"].to_dataset())]
    data = fitted.data
    if data is None:
        return worst(states)
    states += [support(data), State(missing=_missing(fitted, data))]
    limit = rhat_limit(settings.chains, settings.propagated // settings.chains)
    quantities = _decision_quantities(fitted, data)
    states.append(gate_decisions(quantities, limit))
    if fitted.parts:
        states += [_imputations(fitted, quantities), _share_imputed(data)]
    if not settings.quick:
        states += doubts(fitted.parts[0] if fitted.parts else fitted)
    return worst(states)


def _finite(stage: str, posterior: xr.Dataset) -> State:
    """Refused where a draw is missing or not finite."""
    bad = [str(n) for n, v in posterior.data_vars.items() if not np.isfinite(v.to_numpy()).all()]
    if not bad:
        return State()
    return State("refused", (f"{stage}: draws of {', '.join(bad)} are missing or not finite",))


def _short_chains(stage: str, attrs: Mapping[str, Any]) -> State:
    """State of draws by slice chains: caution where they may not have forgotten their start."""
    p = attrs.get("ranks", 1.0)
    if p >= _STARTED_ELSEWHERE:
        return State()
    return State(
        "caution",
        (
            f"{stage}: slice chains of {attrs['sweeps']} sweeps differ from long ones (p = {p:.1g}); "
            "leave out group terms or slopes of this stage that the data cannot tell from zero, and compare "
            "values with another random_seed",
        ),
    )


def _refits(stage: str, attrs: Mapping[str, Any]) -> State:
    """State of draws that were made by NUTS refits: some in a hundred may have gone wrong."""
    if attrs.get("sampler") != "refits":
        return State()
    count, unsettled = attrs["refits"], attrs["unsettled"]
    reasons = []
    if unsettled > _UNSETTLED * count:
        reasons.append(f"{stage}: {unsettled} of {count} refits have an R-hat above 1.1")
    if attrs["divergences"] > _DIVERGENT * count * attrs["draws"]:
        reasons.append(f"{stage}: {attrs['divergences']} divergent transitions in {count} refits")
    return State("caution" if reasons else "ok", tuple(reasons))


def _imputations(fitted: FitRecord, quantities: xr.Dataset) -> State:
    """Caution where the Monte-Carlo error of the mean over completed data sets is large.

    With means m_d of the draws given each of D data sets and SD s of all draws, sd(m_d) / (s sqrt(D)).
    """
    count, reasons = len(fitted.parts), list(_unsettled(fitted))
    value = quantities["value"].to_numpy()  # (chain, draw, 1), draws of the data sets in turn
    of_each = value.reshape(len(value), -1, count).mean(axis=(0, 1))
    error = float(of_each.std(ddof=1) / np.sqrt(count) / max(value.std(ddof=1), 1e-300))
    if error > _IMPUTATION_ERROR:
        reasons.append(
            f"{count} completed data sets leave the mean value uncertain by {error:.2f} of its SD; raise "
            "imputations="
        )
    return State("caution" if reasons else "ok", tuple(reasons))


def _unsettled(fitted: FitRecord) -> list[str]:
    """Variables whose chains of imputed values have not settled."""
    if "imputation" not in fitted.tree:
        return []
    record = fitted.tree["imputation"].to_dataset()
    if "mean" not in record:
        return []
    return [
        f"imputed values of {str(name)!r} have not settled (R-hat of their mean {r:.2f}); give a simpler "
        "formula, imputation={..}"
        for name, r in zip(
            record["variable"].values, settled(record["mean"].to_numpy()), strict=True
        )
        if not r < _UNSETTLED_MEAN
    ]


def _missing(fitted: FitRecord, data: TrialData) -> str:
    """Shares of units that have no outcome, and of those with imputed values or left out for other gaps."""
    known, other = data.outcome_known, np.zeros(len(data), dtype=bool)
    for k, stage in enumerate(data.stages):
        if fitted.parts:
            for gap in data.imputed(k).values():
                other |= gap
        else:
            acted = stage.among & ~stage.outside & (stage.action >= 0)
            other |= acted & ~stage.history & known
    what = "with imputed values" if fitted.parts else "left out of the fit of a stage"
    shares = {"without an outcome": (~known).mean(), what: other.mean()}
    said = [
        f"{100 * share:.0f} % of units {text}" for text, share in shares.items() if share >= _FEW
    ]
    return ", ".join(said)


def _share_imputed(data: TrialData) -> State:
    """Caution where values of a variable are imputed for many of the units in the fit of a stage."""
    reasons = []
    for k, stage in enumerate(data.stages):
        fitted = stage.fitted & ~stage.outside
        for name, gap in data.imputed(k).items():
            share = gap[fitted].mean() if fitted.any() else 0.0
            if share > _MUCH_IMPUTED:
                reasons.append(
                    f"stage {stage.stage.action}: {name!r} is imputed for {100 * share:.0f} % of the units "
                    "in the fit; what is said of it rests on the model of missing values"
                )
    return doubt(*reasons)


def _decision_quantities(fitted: FitRecord, data: TrialData) -> xr.Dataset:
    """Value of the regime that is followed, mean Q differences, and those of some units (chain, draw)."""
    chains = fitted.settings.chains
    done = backward_pass(fitted, fitted.followed)
    found = {}

    def add(name: str, values: np.ndarray) -> None:
        found[name] = (
            ("chain", "draw", f"{name}_quantity"),
            values.T.reshape(chains, -1, len(values)),
        )

    for k, stage in enumerate(data.stages):
        units = np.flatnonzero(stage.history)
        units = units[:: max(1, len(units) // _UNITS_GATED)]
        q = done.q_values(k, units)
        feasible = stage.feasible[units]
        first = feasible.argmax(axis=1)
        base = q[first, np.arange(len(units))]
        differences = []
        for a in range(q.shape[0]):
            rows = feasible[:, a] & (first != a)
            if rows.any():
                blips = q[a, rows] - base[rows]
                differences += [blips.mean(axis=0, keepdims=True), blips]
        if differences:
            add(f"Q difference at stage {stage.stage.action}", np.concatenate(differences))
    units = np.flatnonzero(data.valued)
    value = sum(done.continuation(0, b).sum(axis=0) for b in done.blocks(units)) / len(units)
    add("value", np.atleast_2d(value))
    return xr.Dataset(found)
