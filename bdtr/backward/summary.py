"""A fit in words and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.drawnmodels import drawn_models
from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.smoothness import smoothness
from bdtr.results.arguments import one_of, probability
from bdtr.results.diagnostics import State, convergence
from bdtr.results.estimates import kind_of
from bdtr.trial.states import states_of

_LONG = 50  # numbers in a variable of a user's model, beyond which it is no parameter to list

__all__ = ["Summary", "how_drawn", "html", "summary", "text", "tidy_draws", "why_nuts"]


def how_drawn(attrs: Mapping[str, Any]) -> str:
    """How the draws of a stage were made, in words, from the attributes of an engine group."""
    if attrs.get("sampler") == "refits":
        return (
            f"{attrs['refits']:,} draws by NUTS refits, one of {attrs['draws']} draws after "
            f"{attrs['tune']} of warm-up for each response ({attrs['divergences']:,} divergent "
            f"transitions, {attrs['unsettled']:,} refits with an R-hat above 1.1)"
        )
    counts = {name: int(attrs.get(name, 0)) for name in ("independence", "slices", "linear")}
    parts = []
    if counts["independence"]:
        parts.append(
            f"{counts['independence']:,} by independence chains (smallest effective share of proposals "
            f"{attrs['effective_share']:.2f}, largest k-hat {attrs['khat']:.2f})"
        )
    if counts["slices"] and "laplace_error" in attrs:
        parts.append(
            f"{counts['slices']:,} by slice chains on Laplace's density ({int(attrs['sweeps'])} sweeps "
            f"a draw), resampled with exact weights (effective share {attrs['effective_share']:.2f}, k-hat "
            f"{attrs['khat']:.2f})"
        )
    elif counts["slices"]:
        parts.append(
            f"{counts['slices']:,} by slice chains of {int(attrs['sweeps'])} sweeps (slowest lag-1 "
            f"correlation of a sweep {attrs['correlation']:.2f}{_checked(attrs)})"
        )
    if counts["linear"]:
        parts.append(f"{counts['linear']:,} for responses without residuals")
    if attrs.get("nuts"):
        counts["nuts"] = int(attrs["nuts"])
        parts.append(f"{counts['nuts']:,} by NUTS of every parameter, {why_nuts(attrs)}")
    if "laplace_error" in attrs and (counts["independence"] or counts["slices"]):
        parts[-1] += f"; SD of log(exact / Laplace) {attrs['laplace_error']:.2f}"
    return f"{sum(counts.values()):,} draws: {', '.join(parts)}"


def why_nuts(attrs: Mapping[Any, Any]) -> str:
    """Why NUTS had to take over."""
    if attrs.get("crossed"):
        return f"as {int(attrs['crossed']):,} levels of factors cross others"
    return "as importance weights were not good enough"


def _checked(attrs: Mapping[str, Any]) -> str:
    p = attrs.get("ranks")
    return "" if p is None else f"; ranks within long chains: p = {p:.2g}"


def _drawn_models(fit: FitRecord) -> Iterator[tuple[str, str, xr.Dataset]]:
    """Models whose parameters were drawn: the stage, what its parameters are called by where that is a state,
    and those worth a row."""
    for label, owner, k in drawn_models(fit):
        prefix = "" if owner is fit else f"{label.removeprefix('state ')}: "
        yield owner.designs[k].action, prefix, _reported(owner, k)


def _reported(fit: FitRecord, k: int) -> xr.Dataset:
    """Parameters worth a row: not the effects of single levels, nor long vectors of a user's model."""
    posterior = fit.tree[f"stage_{k + 1}/posterior"].to_dataset()
    names = [str(n) for n in posterior.data_vars]
    if fit.trial.stages[k].model is None:
        return posterior[[name for name in names if not name.startswith("u_")]]
    short = [name for name in names if posterior[name][0, 0].size <= _LONG]
    return posterior[short or names]


@dataclass(frozen=True)
class Summary:
    """Parameters of a fit: ``table`` is indexed by stage and parameter; the state comes first.

    ``smooths`` has the effective degrees of freedom of smooth terms, as in
    :func:`bdtr.backward.smoothness.smoothness`.
    """

    table: pd.DataFrame
    interval: float
    state: State
    smooths: pd.DataFrame

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return f"{self.state}. {kind_of(self.interval)}s."

    def __repr__(self) -> str:
        smooths = "".join(f"\n{line}" for line in _smooth_words(self.smooths))
        return f"{self.caption}\n{self.table.round(3).to_string()}{smooths}"

    def _repr_html_(self) -> str:
        smooths = "".join(f"<p>{escape(line)}</p>" for line in _smooth_words(self.smooths))
        return f"<p>{escape(self.caption)}</p>{self.table.round(3).to_html(escape=True)}{smooths}"


def summary(fit: FitRecord, interval: float = 0.95) -> Summary:
    """See :meth:`bdtr.Fit.summary`."""
    probability("interval", interval)
    tail = (1 - interval) / 2
    parts = []
    for action, prefix, posterior in _drawn_models(fit):
        measures = convergence(posterior)
        flat = _flat(posterior)
        lower, upper = np.quantile(flat, [tail, 1 - tail], axis=0)
        moments = {"mean": flat.mean(axis=0), "sd": flat.std(axis=0, ddof=1)}
        table = pd.DataFrame({**moments, "lower": lower, "upper": upper}, index=measures.index)
        table = table.join(measures[["r_hat", "ess_bulk", "ess_tail"]])
        table = table[~measures["constant"] & ~_mirrored(posterior)]
        table.index = pd.MultiIndex.from_product([[action], prefix + table.index])
        parts.append(table)
    table = pd.concat(parts)
    table.index.names = ["stage", "parameter"]
    return Summary(table, interval, fit.state, smoothness(fit))


def _smooth_words(found: pd.DataFrame) -> list[str]:
    """Effective degrees of freedom of each smooth term, in a line."""
    out = []
    for place in dict.fromkeys(
        zip(*(found.index.get_level_values(i) for i in (0, 1)), strict=True)
    ):
        own = found.loc[place]
        each = ", ".join(f"{curve} {edf:.1f}" for curve, edf in own["edf"].items())
        stage, term = place
        flat = "a plane has one a variable" if "," in term.split(", by=")[0] else "1 is a line"
        most = int(own["most"].iloc[0])
        out.append(
            f"{stage}: {term}, effective degrees of freedom of at most {most}: {each} ({flat})"
        )
    return out


def _flat(posterior: xr.Dataset) -> np.ndarray:
    columns = []
    for values in posterior.data_vars.values():
        inner = [d for d in values.dims if d not in ("chain", "draw")]
        array = values.transpose("chain", "draw", *inner).to_numpy()
        columns.append(array.reshape(array.shape[0] * array.shape[1], -1))
    return np.hstack(columns)


def _mirrored(posterior: xr.Dataset) -> np.ndarray:
    """The second of the two rows of a correlation, in the order of :func:`_flat`."""
    parts = []
    for name, values in posterior.data_vars.items():
        inner = tuple(n for d, n in values.sizes.items() if d not in ("chain", "draw"))
        matrix = str(name).startswith("cor_") and len(inner) == 2
        parts.append(np.tri(*inner, k=-1, dtype=bool) if matrix else np.zeros(inner, dtype=bool))
    return np.concatenate([part.reshape(-1) for part in parts])


def tidy_draws(fit: FitRecord, stage: str | None) -> pd.DataFrame:
    """See :meth:`bdtr.Fit.draws`."""
    known = [d.action for d in fit.designs]
    if stage is not None:
        one_of("stage", stage, known)
    parts = []
    for action, prefix, posterior in _drawn_models(fit):
        if stage not in (None, action):
            continue
        flat = _flat(posterior)
        names = prefix + convergence(posterior).index
        chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
        parts.append(
            pd.DataFrame(
                {
                    "stage": action,
                    "chain": np.tile(np.repeat(np.arange(chains), draws), len(names)),
                    "draw": np.tile(np.arange(draws), chains * len(names)),
                    "parameter": np.repeat(names, len(flat)),
                    "value": flat.T.ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _head(fit: FitRecord) -> list[str]:
    trial, s = fit.trial, fit.settings
    lines = [
        str(fit.state),
        f"bdtr fit of {fit.stages} stage(s), payoff {trial.outcome}, site {trial.site}; "
        f"{s.chains} chains of {s.draws} draws, {s.propagated} propagated, seed {s.random_seed}",
    ]
    for k, design in enumerate(fit.designs):
        rows = fit.flow[(fit.flow["stage"] == design.action) & (fit.flow["step"] == "in the fit")]
        names = states_of(trial, k)
        what = (
            f"computed from {'a model' if len(names) == 1 else 'models'} of {', '.join(names)}"
            if names
            else f"payoff ~ {design.formula.text}{_scale(fit, k)}"
        )
        lines.append(
            f"stage {k + 1}: {design.action} in {{{', '.join(design.actions)}}}, "
            f"{int(rows['units'].iloc[0]):,} units; {what}"
        )
        lines += [
            f"    {name} ~ {fit.states[name].designs[0].formula.text}{_scale(fit.states[name], 0)}"
            for name in names
        ]
    return lines


def _scale(fit: FitRecord, k: int) -> str:
    """Family and link of a stage whose coefficients are not in units of the payoff."""
    family = fit.payoff(k).family
    if fit.trial.stages[k].model is not None or family.name == "gaussian":
        return ""
    return f" ({family.name.replace('_', ' ')}, {family.link} link)"


def text(fit: FitRecord) -> str:
    """A readable summary, the state first."""
    found = summary(fit)
    table = found.table
    own = [s.action for s in fit.trial.stages if s.model is not None]
    stages, names = table.index.get_level_values(0), table.index.get_level_values(1)
    coefficients = table[names.str.contains(r"^(?:\S+: )?b\[") | stages.isin(own)]
    lines = [*_head(fit), "", "Coefficients (mean, SD, 95 % equal-tailed interval):"]
    lines.append(coefficients[["mean", "sd", "lower", "upper"]].round(3).to_string())
    if len(found.smooths):
        lines += ["", "Smooth terms:", *_smooth_words(found.smooths)]
    if fit.notes or fit.added:
        lines += ["", *(f"note: {note}" for note in (*fit.added, *fit.notes))]
    return "\n".join(lines)


def html(fit: FitRecord) -> str:
    """The same for a notebook."""
    head = "".join(f"<p>{escape(line)}</p>" for line in _head(fit))
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*fit.added, *fit.notes))
    found = summary(fit)
    table = found.table[["mean", "sd", "lower", "upper", "r_hat", "ess_bulk"]].round(3)
    caption = "<p>95 % equal-tailed intervals.</p>"
    smooths = "".join(f"<p>{escape(line)}</p>" for line in _smooth_words(found.smooths))
    return f"{head}{caption}{table.to_html(escape=True)}{smooths}<ul>{notes}</ul>"
