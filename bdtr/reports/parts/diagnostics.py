"""Whether the draws can be trusted, and whether the models look like the data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bdtr import plots
from bdtr.backward.fitted import Fit
from bdtr.backward.smoothness import smoothness
from bdtr.backward.summary import how_drawn, summary, why_nuts
from bdtr.checks.curves import has_curves, outcome_curves
from bdtr.checks.predictive import predictive_checks
from bdtr.checks.residuals import residuals_along
from bdtr.reports.blocks import Block, Part, folded, items, number, table, text
from bdtr.reports.case import Case
from bdtr.results.diagnostics import convergence
from bdtr.trial.states import states_of

__all__ = ["diagnostics", "predictive"]


def diagnostics(case: Case) -> Part:
    """How the draws were made; R-hat and ESS of parameters and of what is derived from them."""
    found = summary(case.fit, case.choices.interval).table
    ess = found[["ess_bulk", "ess_tail"]].min(axis=1).to_numpy()
    r_hat = found["r_hat"].to_numpy()
    names = [", ".join(map(str, i)) for i in found.index]
    derived = _derived(case)
    worst = derived["r_hat"].max()
    least = derived[["ess_bulk", "ess_tail"]].min(axis=1).min()
    columns = ["mean", "sd", "lower", "upper", "r_hat", "ess_bulk"]
    shown = found[columns].assign(ess_bulk=found["ess_bulk"].round().astype(int))
    blocks = [
        items([f"{line}." for line in _samplers(case)]),
        text(
            f"Parameters: largest R-hat {number(r_hat.max())} ({names[int(r_hat.argmax())]}), smallest ESS "
            f"{ess.min():.0f} ({names[int(ess.argmin())]}). Values and their contrasts: largest "
            f"R-hat {number(worst)}, smallest ESS {least:.0f}. The state of the fit also looks at every "
            "group effect and at Q differences of units."
        ),
        table(
            derived,
            "Convergence of values, of their differences from the reference, and of being best.",
            3,
        ),
        folded(
            "Parameters",
            [table(shown, f"Mean, SD, {case.kind}.")],
        ),
    ]
    return Part("diagnostics", "Convergence", blocks)


def _derived(case: Case) -> pd.DataFrame:
    values = case.values.draws["value"]
    apart = values - values.sel(regime=case.reference)
    others = [r for r in values["regime"].to_numpy() if r != case.reference]
    found = xr.Dataset(
        {
            "value": values,
            "difference": apart.sel(regime=others).rename(regime="other"),
        }
    )
    out = convergence(found)
    out = out[~out["constant"]].drop(columns="constant")
    return out.assign(
        ess_bulk=out["ess_bulk"].round().astype(int), ess_tail=out["ess_tail"].round().astype(int)
    ).rename_axis("quantity")


def _corrected(attrs: Mapping[Hashable, Any]) -> str:
    """How draws from Laplace's density were corrected, or that NUTS drew every parameter."""
    if attrs.get("nuts"):
        return f", of every parameter, {why_nuts(attrs)}"
    if "laplace_error" not in attrs:
        return ""
    return (
        "; draws from Laplace's density, resampled with exact weights (effective share "
        f"{attrs['effective_share']:.2f}, k-hat {attrs['khat']:.2f}, SD of log(exact / Laplace) "
        f"{attrs['laplace_error']:.2f})"
    )


def _stats(fit: Fit, name: str) -> Mapping[str, Any]:
    """How the draws of a state's model were made."""
    return {str(k): v for k, v in fit.states[name].tree["stage_1/sample_stats"].attrs.items()}


def _samplers(case: Case) -> list[str]:
    fit = case.fit
    last, s = fit.stages - 1, fit.settings
    stats = fit.tree[f"stage_{last + 1}/sample_stats"].to_dataset()
    if "diverging" in stats:
        how = (
            f"NUTS (PyMC, nutpie), {s.chains} chains of {s.draws} draws after "
            f"{stats.attrs.get('tune', s.tune)} of warm-up, "
            f"{int(stats['diverging'].sum())} divergent transitions"
        )
        if "energy" in stats:
            energy = stats["energy"].to_numpy()
            bfmi = np.square(np.diff(energy, axis=1)).mean(axis=1) / energy.var(axis=1)
            how += f", smallest E-BFMI {bfmi.min():.2f}"
        how += _corrected(stats.attrs)
    else:
        how = f"direct sampler, {s.chains} chains of {s.draws} draws; {how_drawn(stats.attrs)}"
    out = [f"stage {fit.designs[last].action}: {how}"]
    for k in reversed(range(last)):
        if names := states_of(fit.trial, k):
            out.append(
                f"stage {fit.designs[k].action}: computed by g-computation from the models of "
                f"{', '.join(names)}, in each of {s.propagated} draws"
            )
            out += [
                f"state {name}: direct sampler; {how_drawn(_stats(fit, name))}" for name in names
            ]
            continue
        attrs = fit.tree[f"stage_{k + 1}/engine"].to_dataset().attrs
        sampler = "refits" if attrs["sampler"] == "refits" else "direct sampler"
        out.append(
            f"stage {fit.designs[k].action}: {sampler}, one draw for each of {s.propagated} "
            f"propagated responses; {how_drawn(attrs)}"
        )
    return out


def _curves(case: Case) -> list[Block]:
    """Calibration, rootogram, categories or survival curves, of outcomes that have them."""
    if not has_curves(case.fit):
        return []
    found = outcome_curves(case.fit, interval=case.choices.interval)
    drawn = plots.outcome_plot(found, case.unit)
    return [case.draw("outcomes", drawn, found.caption), folded("In numbers", [table(found.table)])]


def _residuals(case: Case) -> list[Block]:
    """Mean residuals along the history, and how far smooth terms are from lines."""
    along = residuals_along(case.fit)
    blocks = []
    if len(along.table):
        blocks.append(case.draw("residuals", plots.residual_plot(along.table), along.caption))
    smooths = smoothness(case.fit)
    if len(smooths):
        blocks.append(
            table(
                smooths,
                "Smooth terms: effective degrees of freedom (1 is a line; a plane in two variables has 2), "
                "what they can be at most, and the SD of how far the function is from a line.",
                2,
            )
        )
    return blocks


def predictive(case: Case) -> Part:
    """Posterior predictive checks by stage and site."""
    found = predictive_checks(case.fit, interval=case.choices.interval)
    blocks = [text(found.caption, note=True)]
    if len(found.histograms):
        drawn = plots.predictive_plot(found.histograms, case.unit, case.choices.interval)
        blocks.append(
            case.draw("predictive", drawn, "Responses of each stage over replicated ones.")
        )
    blocks += _curves(case)
    blocks += _residuals(case)
    if len(found.table):
        far = found.table[~found.table["p"].between(0.025, 0.975)]
        named = ", ".join(f"{statistic} (stage {stage})" for stage, statistic in far.index)
        blocks.append(
            text(
                f"Statistics far from their replicates (p below .025 or above .975): {named or 'none'}."
            )
        )
        blocks.append(folded("Checks in numbers", [table(found.table)]))
    few = case.choices.min_cell
    if len(found.sites):
        enough = found.sites[found.sites["units"] >= few]
        away = enough[~enough["p"].between(0.025, 0.975)]
        blocks.append(
            text(
                f"Mean response of sites with {few} units or more: {len(away)} of {len(enough)} have p below "
                ".025 or above .975."
            )
        )
        if len(away):
            blocks.append(folded("These sites", [table(away)]))
    return Part("predictive", "Do the models look like the data?", blocks)
