"""Gather what a report shows, draw its figures, fill the template, write the file."""

from __future__ import annotations

import base64
import datetime as dt
import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bdtr import plots
from bdtr.recommendation import recommend_known
from bdtr.regimes import recommended
from bdtr.reports.words import assumptions, stage_words
from bdtr.summary import how_drawn, summary
from bdtr.values import value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bdtr.fitted import Fit

__all__ = ["report"]

_CLEAR, _SURE = 0.80, 0.95


def report(
    fit: Fit,
    path: str | os.PathLike,
    *,
    title: str | None = None,
    command: str | None = None,
    interval: float = 0.95,
    override: str | None = None,
    progress: bool = False,
) -> Path:
    """Write the posterior report of a fit as one HTML file that needs no network.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    path
        File to write; it is complete or absent.
    title
        Heading of the page.
    command
        The command that makes this report again.
    interval
        Probability of the equal-tailed intervals.
    override
        A reason in words to show recommendations although the state is ``refused``.
    progress
        Whether to show progress of backward passes that have to be run.

    Returns
    -------
    pathlib.Path
        The file.

    Examples
    --------
    >>> bdtr.report(fit, "star.html")  # doctest: +SKIP
    """
    page = _page(_contents(fit, title, command, interval, override, progress))
    path = Path(path)
    aside = path.with_name(path.name + ".part")
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, path)
    return path


def _page(contents: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    # jinja2 escapes nothing unless told to, and labels come from the user's data.
    environment = Environment(
        loader=PackageLoader("bdtr.reports", ""),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(**contents)


def _contents(fit, title, command, interval, override, progress) -> dict[str, Any]:
    unit = fit.trial.outcome or "payoff"
    values = value(fit, interval=interval, progress=progress)
    figures = {"values": _embedded(plots.value_forest(values.draws, unit, interval))}
    best = str(values.draws["regime"].to_numpy()[0])
    if fit.trial.site is not None:
        by_site = value(fit, recommended(), by="site", interval=interval, progress=progress)
        figures["sites"] = _embedded(plots.site_caterpillar(by_site.draws, best, unit, interval))
    shown = fit.state.level != "refused" or bool(override)
    certainty = None
    if shown:
        actions = recommend_known(fit, interval, override).actions
        choices = actions[actions["choices"] > 1]
        certainty = _certainty(choices)
        figures["certainty"] = _embedded(plots.p_optimal(choices))
    table = summary(fit, interval).table
    return {
        "title": title or "Posterior report",
        "state": fit.state,
        "override": override,
        "interval": f"{100 * interval:g} % equal-tailed",
        "unit": unit,
        "values": _rows(values.table),
        "contrasts": _rows(values.contrasts),
        "population": values.population,
        "answer": _answer(fit, values, certainty, unit, interval),
        "figures": figures,
        "best": best,
        "flow": _flow(fit),
        "stages": [stage_words(fit, k) for k in range(fit.stages)],
        "priors": fit.priors.to_dict("records"),
        "parameters": _parameters(table),
        "worst": _worst(table),
        "sampler": _samplers(fit),
        "certainty": certainty,
        "sure": f"{_SURE:g}",
        "clear": f"{_CLEAR:g}",
        "notes": fit.notes,
        "assumptions": assumptions(fit.trial),
        "provenance": _provenance(fit, command),
    }


def _embedded(figure: Figure) -> str:
    """A figure as SVG inside the page: sharp at any size, nothing to fetch."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a font without a glyph of the user's label
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _number(x: float, digits: int = 3) -> str:
    return "–" if not np.isfinite(x) else f"{x:.{digits}f}".replace("-", "−")


def _rows(table: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {"name": str(name), **{str(c): _number(row[c]) for c in table.columns}}
        for name, row in table.iterrows()
    ]


def _answer(fit, values, certainty, unit, interval) -> list[str]:
    """The answer in a few sentences, with its uncertainty."""
    draws = values.draws["value"]
    sign = 1 if fit.trial.higher_is_better else -1
    fixed = draws.isel(regime=slice(1, None))
    best = int(np.argmax(sign * fixed.mean(("chain", "draw")).to_numpy()))
    top = str(fixed["regime"].to_numpy()[best])
    share = float(((sign * fixed).argmax("regime") == best).mean())
    row, rec = values.table.loc[top], values.table.iloc[0]
    percent = f"{100 * interval:g} %"
    out = [
        f"Of the {fixed.sizes['regime']} regimes embedded in the trial, “{top}” has the best mean "
        f"payoff: {_number(row['mean'])} ({percent} interval {_number(row['lower'])} to "
        f"{_number(row['upper'])}) in units of {unit}; it is the best of them with posterior "
        f"probability {share:.2f}.",
        f"Following the recommended action at every stage is worth {_number(rec['mean'])} "
        f"({_number(rec['lower'])} to {_number(rec['upper'])}). This rule was learned and valued on the "
        "same data, so its value is optimistic.",
    ]
    for stage in certainty or []:
        out.append(
            f"At stage {stage['stage']} the recommended action is optimal with probability above "
            f"{_SURE:g} for {stage['sure']} of the {stage['units']} units who have a choice, and below "
            f"{_CLEAR:g} for {stage['unclear']}."
        )
    return out


def _certainty(actions: pd.DataFrame) -> list[dict[str, Any]]:
    out = []
    for stage, rows in actions.groupby("stage", sort=False):
        p = rows["p_optimal"]
        by_action = [
            {
                "action": action,
                "units": f"{len(part):,}",
                "share": f"{100 * len(part) / len(rows):.1f} %",
                "p": f"{part['p_optimal'].mean():.2f}",
                "regret": f"{part['regret'].mean():.3f}",
            }
            for action, part in rows.groupby("action", sort=False)
        ]
        out.append(
            {
                "stage": stage,
                "units": f"{len(rows):,}",
                "sure": f"{100 * (p > _SURE).mean():.0f} %",
                "unclear": f"{100 * (p < _CLEAR).mean():.0f} %",
                "actions": by_action,
            }
        )
    return out


def _flow(fit: Fit) -> list[dict[str, Any]]:
    why = {"design": "by design", "missing": "missing", "off_protocol": "off protocol", "": ""}
    columns = zip(*(fit.flow[c] for c in ("stage", "step", "units", "kind")), strict=True)
    return [
        {"stage": stage, "step": step, "units": f"{units:,}", "kind": why[kind]}
        for stage, step, units, kind in columns
    ]


def _parameters(table: pd.DataFrame) -> list[dict[str, str]]:
    out = []
    for (stage, name), (_, row) in zip(table.index, table.iterrows(), strict=True):
        cells = {c: _number(row[c]) for c in ("mean", "sd", "lower", "upper", "r_hat")}
        out.append({"stage": stage, "name": name, **cells, "ess": f"{row['ess_bulk']:.0f}"})
    return out


def _worst(table: pd.DataFrame) -> dict[str, str]:
    ess = table[["ess_bulk", "ess_tail"]].min(axis=1).to_numpy()
    r_hat = table["r_hat"].to_numpy()
    names = table.index.get_level_values("parameter")
    return {
        "r_hat": _number(r_hat.max()),
        "r_hat_of": str(names[int(r_hat.argmax())]),
        "ess": f"{ess.min():.0f}",
        "ess_of": str(names[int(ess.argmin())]),
    }


def _samplers(fit: Fit) -> list[str]:
    last, s = fit.stages - 1, fit.settings
    stats = fit.tree[f"stage_{last + 1}/sample_stats"].to_dataset()
    if "diverging" in stats:
        how = (
            f"NUTS (PyMC, nutpie), {s.chains} chains of {s.draws} draws after {s.tune} of warm-up, "
            f"{int(stats['diverging'].sum())} divergent transitions"
        )
    else:
        how = f"direct sampler, {s.chains} chains of {s.draws} draws; {how_drawn(stats.attrs)}"
    out = [f"stage {fit.designs[last].action}: {how}"]
    for k in reversed(range(last)):
        attrs = fit.tree[f"stage_{k + 1}/engine"].to_dataset().attrs
        sampler = "refits" if attrs["sampler"] == "refits" else "direct sampler"
        out.append(
            f"stage {fit.designs[k].action}: {sampler}, one draw for each of {s.propagated} "
            f"propagated responses; {how_drawn(attrs)}"
        )
    return out


def _provenance(fit: Fit, command: str | None) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {number}" for name, number in fit.versions.items())
    rows = [
        ("random seed", str(fit.settings.random_seed)),
        ("data hash (SHA-256, columns used)", fit.data_hash),
        ("versions", versions),
        ("written", dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")),
    ]
    return [("command", command), *rows] if command else rows
