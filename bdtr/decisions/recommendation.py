"""Recommended actions of units, known or new, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.data.coding import label_series
from bdtr.data.contents import DataError
from bdtr.data.exclusions import feasible_sets
from bdtr.data.frames import as_frame
from bdtr.decisions.optimality import summarise_actions
from bdtr.results.arguments import a_fit, amount, one_of, probability, text
from bdtr.results.captions import as_html
from bdtr.results.diagnostics import State
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import kind_of
from bdtr.results.labels import UNCLEAR
from bdtr.results.progress import progress_bar
from bdtr.stages.prediction import SITES
from bdtr.stages.settings import FitError
from bdtr.trial.condition import Condition

__all__ = ["Recommendation", "recommend", "recommend_known"]

_CELLS = 8_000_000


@dataclass(frozen=True)
class Recommendation:
    """Recommended actions.

    ``actions`` has one row per unit and stage: the recommended action, its probability of being
    optimal, its expected regret; ``choices`` counts feasible actions, and ``decision`` is the action, or
    ``"no clear choice"`` where P(optimal) is below ``clear``. With a ``margin``, ``within_margin`` names
    the actions that lose at most so much against the best, each with probability ``sure``. ``table``
    has one row per unit, stage and feasible action, with the mean and interval of its Q-value. Below
    the last stage "optimal" means best now, given the recommended later rule. ``left_out`` counts the
    units without a recommendation, with reasons.
    """

    actions: pd.DataFrame
    table: pd.DataFrame
    left_out: pd.DataFrame
    sites: str
    interval: float
    clear: float
    margin: float | None
    sure: float
    state: State
    override: str | None = None

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        reason = f" Overridden: {self.override}." if self.override else ""
        within = ""
        if self.margin is not None:
            within = (
                f" Within margin: at most {self.margin:g} worse than the best with probability "
                f"{self.sure:g} or more."
            )
        return (
            f"{self.state}.{reason} Recommended actions, later stages recommended; sites: "
            f"{self.sites}; {kind_of(self.interval)}s. No clear choice: P(optimal) "
            f"below {self.clear:g}.{within}{self._left_out()}"
        )

    def _left_out(self) -> str:
        """How many units have no recommendation, and why, by stage."""
        said = "; ".join(
            f"stage {stage}: {count:,} ({reason})"
            for stage, reason, count in self.left_out.itertuples(index=False)
        )
        return f" Left out: {said}." if said else ""

    def __repr__(self) -> str:
        return f"{self.caption}\n{self.actions}"

    def _repr_html_(self) -> str:
        return as_html(self.caption, self.actions, index=False)


def recommend(
    fit: Fit,
    data: pd.DataFrame,
    sites: str | None = None,
    interval: float = 0.95,
    override: str | None = None,
    margin: float | None = None,
    sure: float = 0.95,
    clear: float = 0.8,
    progress: bool = False,
) -> Recommendation:
    """Recommended action, P(optimal), Q-values and expected regret, per unit and stage.

    Parameters
    ----------
    fit
        A fitted trial.
    data
        Units with their history; stages whose history is not complete are left out, counted.
    sites
        ``"observed"``: every site is one of the fit. ``"new"``: all sites are new, their effects
        drawn from the population of sites. ``"typical"``: site effects at their mean. Required
        where the data hold sites that the fit has not seen.
    interval
        Probability of the equal-tailed intervals of Q-values.
    override
        A reason in words to recommend although the state is ``refused``; it is kept and shown.
    margin
        Loss of value that does not matter, in units of the outcome: all actions are named that
        lose at most so much with probability ``sure``.
    sure
        That probability.
    clear
        P(optimal) below which there is no clear choice.
    progress
        Whether to show progress.

    Returns
    -------
    Recommendation
        ``actions`` (one row per unit and stage) and ``table`` (one per action as well).

    Raises
    ------
    FitError
        If the state is ``refused`` and no reason is given.

    Examples
    --------
    >>> found = bdtr.recommend(fit, pupils, margin=0.05)
    >>> list(found.actions[["unit", "stage", "action", "p_optimal"]])
    ['unit', 'stage', 'action', 'p_optimal']
    """
    a_fit(fit)
    probability("interval", interval)
    if override is not None:
        text("override", override)
    if fit.state.level == "refused" and not (override and override.strip()):
        raise FitError(
            f"No action is recommended: {fit.state}. Diagnostics stay readable in fit.summary(). To "
            "recommend all the same, pass override= with the reason in words."
        )
    for name, given in (("sure", sure), ("clear", clear)):
        probability(name, given)
    if margin is not None:
        margin = amount("margin", margin)
    frame = as_frame(data)
    sites = _sites(fit, frame, sites)
    units = _unit_labels(fit, frame)
    parts, gaps = [], []
    for k, design in enumerate(fit.designs):
        coded, ready, feasible, reasons = _ready(fit, frame, k)
        gaps += [(design.action, reason, count) for reason, count in reasons]
        rows = np.flatnonzero(ready)
        if not rows.size:
            continue
        q_function = fit.q_function(k, sites=sites)
        size = max(1, _CELLS // (q_function.draws.samples * (len(design.actions) + 2)))
        with progress_bar(progress, f"recommendations of stage {design.action}") as report:
            for at in range(0, len(rows), size):
                block = rows[at : at + size]
                q = q_function(coded.iloc[block])[: len(design.actions)]
                if not np.isfinite(q).all():
                    raise FitError(
                        f"stage {design.action}: Q-values are missing or not finite. Nothing is "
                        "recommended from such draws, whatever the state says; fit again."
                    )
                better = fit.trial.higher_is_better
                found = summarise_actions(q, feasible[block], interval, better, margin or 0.0)
                parts.append(_block_table(design, units[block], block, feasible[block], found))
                if report:
                    report(at + len(block), len(rows))
    if not parts:
        raise DataError(
            "recommend: no unit has a complete history at any stage: "
            + "; ".join(f"stage {s}: {r} ({c:,} units)" for s, r, c in gaps)
        )
    table = _joined(parts)
    row = table.pop("row").to_numpy()
    if margin is None:
        table = table.drop(columns="p_within")
    chosen = table[table["recommended"]].reset_index(drop=True)
    actions = chosen[["unit", "stage", "action", "choices", "p_optimal", "regret", "q_mean"]]
    unclear = actions["p_optimal"].to_numpy() < clear
    decision = actions["action"].cat.add_categories(UNCLEAR).mask(unclear, UNCLEAR)
    actions = actions.assign(decision=decision)
    if margin is not None:
        actions["within_margin"] = _within_margin(table, row, sure)
    left_out = pd.DataFrame(gaps, columns=["stage", "reason", "units"])
    return Recommendation(
        actions, table, left_out, sites, interval, clear, margin, sure, fit.state, override
    )


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """One table, repeated labels kept once."""
    labels = {name: {} for name in ("stage", "action")}
    for part in parts:
        for name, known in labels.items():
            known.update(dict.fromkeys(part[name].cat.categories))
    kinds = {name: pd.CategoricalDtype(list(known)) for name, known in labels.items()}
    return pd.concat([part.astype(kinds) for part in parts], ignore_index=True)


def _within_margin(table: pd.DataFrame, row: np.ndarray, sure: float) -> Any:
    """Names of the actions within the margin, for each unit and stage in order."""
    close = (table["p_within"] >= sure).to_numpy() | table["recommended"].to_numpy()
    # Rows of one unit and stage stand together, each with one recommended action.
    stage = table["stage"].cat.codes.to_numpy()
    change = np.r_[True, (stage[1:] != stage[:-1]) | (row[1:] != row[:-1])]
    group = np.cumsum(change) - 1
    action = table["action"].cat.codes.to_numpy().astype(np.int64)
    masks = np.bincount(group, weights=close * 2.0**action).astype(np.int64)
    distinct, code = np.unique(masks, return_inverse=True)
    names = list(table["action"].cat.categories)
    if any(", " in name for name in names):
        names = list(map(repr, names))  # else "x, y" would be both of two actions or a third
    texts = [", ".join(n for a, n in enumerate(names) if mask >> a & 1) for mask in distinct]
    return _labelled(code, texts)


def _labelled(codes: np.ndarray, labels: Sequence[str]) -> Any:
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(labels)))


def recommend_known(fit: Fit, interval: float, override: str | None = None) -> Recommendation:
    """Recommendations for the units of the fit itself."""
    data = fit.require_data("recommendations for the units of the fit")
    return recommend(fit, data.named, None, interval, override)


def _sites(fit: Fit, frame: pd.DataFrame, sites: str | None) -> str:
    if sites is not None:
        one_of("sites", sites, SITES)
    name = fit.trial.site
    if name is None or not any(g.role == "site" for d in fit.designs for g in d.groups):
        return sites or "observed"
    if name not in frame.columns:
        unseen, what = True, f"the site column {name!r} is absent"
    else:
        coded = fit.designs[0].coding.code(frame, [name])
        gone = fit.designs[0].site_codes(coded) < 0
        unseen = bool(gone.any())
        labels = label_series(coded[name][gone]).unique()[:5]
        what = f"{int(gone.sum()):,} units are at sites the fit has not seen ({', '.join(map(repr, labels))})"
    if unseen and sites in (None, "observed"):
        raise ArgumentError(
            f"recommend: {what}. Say sites='new' (effects drawn from the population of sites) or "
            "sites='typical' (effects at their mean)."
        )
    return sites or "observed"


def _unit_labels(fit: Fit, frame: pd.DataFrame) -> np.ndarray:
    name = fit.trial.unit
    if name is None or name not in frame.columns:
        return np.arange(len(frame)).astype(str).astype(object)
    return frame[name].astype(object).to_numpy()


def _ready(fit: Fit, frame: pd.DataFrame, k: int):
    """Coded history, who can be given a recommendation, feasible actions, and who cannot and why."""
    design, stage = fit.designs[k], fit.trial.stages[k]
    conditions = [Condition(text) for text in (stage.feasible or {})]
    if stage.among:
        conditions.append(Condition(stage.among))
    clusters = {c for g in design.groups if g.role == "history" for c in g.factor}
    pure = clusters - set(design.formula.model_columns)
    wanted = dict.fromkeys((*design.history, *(c for x in conditions for c in x.columns)))
    site = fit.trial.site
    if site is not None and site in frame.columns:
        wanted.setdefault(site)
    absent = [c for c in wanted if c not in frame.columns and c not in pure and c != site]
    everyone, nobody = np.ones(len(frame), dtype=bool), np.zeros(len(frame), dtype=bool)
    if absent:
        reason = f"columns absent: {', '.join(absent)}"
        return frame, nobody, np.zeros((len(frame), 0)), [(reason, len(frame))]
    coded = design.coding.code(frame, [c for c in wanted if c in frame.columns])
    for name in wanted:
        if name not in coded:
            coded[name] = pd.Series([None] * len(frame), dtype="str")
    ready, reasons = everyone, []

    def drop(reason: str, mask: np.ndarray) -> None:
        nonlocal ready
        if (ready & mask).any():
            reasons.append((reason, int((ready & mask).sum())))
        ready = ready & ~mask

    if stage.among:
        truth = Condition(stage.among).evaluate(coded)
        drop("no decision here (among)", truth == 0)
        drop("decision due unknown (among)", truth < 0)
    for name in design.history:
        # An unknown class is a class the fit has not seen; an unknown site is for sites= to say.
        if name not in pure and name != site:
            drop(f"{name} missing", coded[name].isna().to_numpy())
    feasible, known = feasible_sets(stage, coded, ready, np.arange(len(frame)))
    drop("feasible set unknown", ~known)
    return coded, ready, feasible, reasons


def _block_table(design, units, rows, feasible, found) -> pd.DataFrame:
    action, unit = np.nonzero(feasible.T)
    order = np.lexsort((action, unit))
    action, unit = action[order], unit[order]
    return pd.DataFrame(
        {
            "unit": units[unit],
            "row": rows[unit],  # ids may be repeated, or missing
            "stage": _labelled(np.zeros(len(unit), dtype=np.int8), [design.action]),
            "action": _labelled(action, design.actions),
            "recommended": found.best[unit] == action,
            "choices": feasible.sum(axis=1)[unit],
            "p_optimal": found.p_optimal[action, unit],
            "q_mean": found.mean[action, unit],
            "q_lower": found.lower[action, unit],
            "q_upper": found.upper[action, unit],
            "regret": found.regret[action, unit],
            "p_within": found.p_within[action, unit],
        }
    )
