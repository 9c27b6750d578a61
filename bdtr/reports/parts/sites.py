"""Sites: what is worth what where, how far the model draws them together. Small sites are not named."""

from __future__ import annotations

import pandas as pd

from bdtr import plots
from bdtr.reports.blocks import Block, Part, folded, table, text
from bdtr.reports.case import Case
from bdtr.results.labels import NEW_SITE
from bdtr.stages.outcome import OutcomeModel
from bdtr.values.siteblips import shrinkage, site_blips

__all__ = ["sites"]


def sites(case: Case) -> Part | None:
    """Blips of every action at every site with enough units, and at a new one."""
    fit, blocks = case.fit, []
    if fit.trial.site is None:
        return None
    for k, design in enumerate(fit.designs):
        if any(g.role == "site" for g in design.groups):
            blocks += _stage(case, k)
    if not blocks:
        blocks = [text("No stage's model has effects of sites.")]
    return Part("sites", "Sites", blocks)


def _stage(case: Case, k: int) -> list[Block]:
    fit, few = case.fit, case.choices.min_cell
    stage = fit.designs[k].action
    found = site_blips(fit, stage, interval=case.choices.interval)
    rows = found.table.drop(found.reference, level="action").dropna(subset=["mean"])
    units = rows["units"]
    enough = (units >= few) | (rows.index.get_level_values("site") == NEW_SITE)
    hidden = rows.index[~enough].get_level_values("site").unique()
    draws = found.draws.drop_sel(site=list(hidden))
    out: list[Block] = [text(f"Stage {stage}. {found.caption}", note=True)]
    if len(hidden):
        out.append(text(f"{len(hidden)} sites with fewer than {few} units are not shown."))
    new = rows[rows.index.get_level_values("site") == NEW_SITE].droplevel("site")
    if len(new):
        at_new = new.drop(columns="units")
        out.append(table(at_new, "At a new site."))
    for action in dict.fromkeys(rows.index.get_level_values("action")):
        drawn = plots.blip_caterpillar(draws, str(action), case.unit, case.choices.interval)
        out.append(case.draw(f"sites {stage} {action}", drawn, f"Blip of {action} at each site."))
        out += _pooled(case, k, str(action), hidden)
    shown = rows[enough].drop(NEW_SITE, level="site", errors="ignore")
    out.append(folded(f"Sites at stage {stage}", [table(shown)]))
    return out


def _pooled(case: Case, k: int, action: str, hidden: pd.Index) -> list[Block]:
    model = case.fit.model(k)
    if not isinstance(model, OutcomeModel) or not model.family.linear:
        return []
    stage = case.fit.designs[k].action
    found = shrinkage(case.fit, stage, action)
    shown = found.table.drop(hidden, errors="ignore")
    few = case.choices.min_cell
    shown = shown[shown["units"] >= few]
    if shown["raw"].notna().sum() < 2:
        return []
    return [
        case.draw(
            f"shrinkage {stage} {action}", plots.shrinkage_plot(shown, case.unit), found.caption
        ),
        folded(f"Raw, pooled and rescaled blips of {action}", [table(shown)]),
    ]
