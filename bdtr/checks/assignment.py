r"""How actions were assigned: the probability of each feasible action given history.

Known ones are the trial's. Left out, they are those of a multilevel regression on the history that the
stage's model has, with effects of sites and of the set of feasible actions (:mod:`bdtr.stages.propensity`).
``"shares"`` are those of actions among units with the same feasible actions, at each site where there are
sites, drawn to the shares over all sites; they do not know that assignment depends on history:

    P(a | site j) = (n_ja + m p_a) / (n_j + m),

n_ja the units of site j with action a, n_j with any, p_a the share over all sites, m the number of feasible
actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.engine.compiled.streams import children
from bdtr.results.arguments import is_real, mapping
from bdtr.results.errors import ArgumentError
from bdtr.results.labels import label_text
from bdtr.stages.propensity import category_probabilities
from bdtr.trial.alignment import aligned

__all__ = ["WORDS", "Known", "by_action", "by_stage", "treatment_probabilities"]

# Probabilities by action, renormalised over the feasible ones of each unit; an array (unit, action); a word.
type Known = Mapping | np.ndarray | str | None


WORDS = ("model", "shares")


def treatment_probabilities(fit: Fit, k: int, known: Known = None) -> np.ndarray:
    """Probability of each action for each unit of the data.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    k
        Stage, from 0.
    known
        Probabilities by action, renormalised over the feasible actions of each unit; or an array
        (unit, action), actions in the order of the stage; ``"model"`` (also if left out): a multilevel
        categorical regression on the stage's history; ``"shares"``: shares by site.

    Returns
    -------
    numpy.ndarray
        (unit, action); zero for actions that are not feasible, NaN for units without a complete history.
        Where values were imputed, means over the completed data sets.

    Raises
    ------
    ValueError
        If the probabilities do not fit the stage, or leave no feasible action.

    Examples
    --------
    >>> chances = treatment_probabilities(fit, 0, {"small": 1, "regular": 1, "aide": 2})
    >>> chances[0].round(2)
    array([0.25, 0.25, 0.5 ])
    """
    if fit.parts:
        return np.mean([treatment_probabilities(one, k, known) for one in fit.parts], axis=0)
    data, design = fit.require_data("treatment probabilities"), fit.designs[k]
    stage, actions = data.stages[k], list(design.actions)
    # Those without a decision are in their arm for sure.
    alone = 0, len(design.arms) - len(actions)
    due = stage.history & stage.among
    out = np.full(stage.feasible.shape, np.nan)
    where = f"probabilities[{design.action!r}]"
    known = "model" if known is None else known
    if isinstance(known, str):
        if known not in WORDS:
            raise ArgumentError(
                f"{where}: {known!r} is not allowed; words are {', '.join(map(repr, WORDS))}."
            )
        out[due] = _modelled(fit, k, due) if known == "model" else _shares(fit, k)[due]
    elif isinstance(known, Mapping):
        wanted = np.pad(by_action(known, actions, where), alone, constant_values=1.0)
        out[due] = wanted * stage.feasible[due]
    else:
        known = _in_order(known, data.index, actions, where)
        try:
            given = np.asarray(known, dtype=float)
        except (TypeError, ValueError, OverflowError):
            raise ArgumentError(
                f"{where}={known!r}: must be {' or '.join(map(repr, WORDS))}, a number for each action, or "
                "an array (unit, action) of numbers."
            ) from None
        if given.shape != (len(data), len(actions)):
            raise ArgumentError(
                f"{where}: must have the shape {(len(data), len(actions))} (unit, action), got {given.shape}."
            )
        given = np.pad(given, ((0, 0), alone), constant_values=1.0)
        out[due] = given[due] * stage.feasible[due]
    total = out[due].sum(axis=1, keepdims=True)
    if not (np.isfinite(out[due]).all() and (out[due] >= 0).all() and (total > 0).all()):
        raise ArgumentError(
            f"{where}: must be 0 or more, and above 0 for one feasible action of each unit."
        )
    out[due] /= total
    return out


def by_action(known: Mapping, actions: Sequence[str], where: str) -> list[float]:
    """The number of each action, in the order of the stage, or an error."""
    mapping(where, known, "actions to numbers")
    labels = {label_text(a): p for a, p in known.items()}
    if set(labels) != set(actions):
        raise ArgumentError(f"{where}: name all actions {list(actions)}, got {list(labels)}.")
    if not all(map(is_real, labels.values())):
        raise ArgumentError(f"{where}={known!r}: must map actions to numbers.")
    return [labels[a] for a in actions]


def _in_order(known: Any, index: pd.Index | None, actions: list[str], where: str) -> Any:
    """Columns of a data frame by their names, its rows by their index; all else as given."""
    if isinstance(known, pd.DataFrame) and not known.columns.equals(pd.RangeIndex(len(actions))):
        names = [label_text(c) for c in known.columns]
        if sorted(names) != sorted(actions):
            raise ArgumentError(f"{where}: the columns must be the actions {actions}, got {names}.")
        known = known.iloc[:, [names.index(a) for a in actions]]
    return aligned(known, index, where)


def by_stage[T](
    fit: Fit, known: Mapping[str, T] | None, argument: str = "probabilities"
) -> Mapping[str, T]:
    """What is known of the probabilities, by the action columns of stages, or an error; None: nothing."""
    if known is None:
        return {}
    mapping(argument, known, "stages to probabilities of actions")
    for stage in known:
        fit.stage_index(stage)
    return known


def _modelled(fit: Fit, k: int, due: np.ndarray) -> np.ndarray:
    """Probabilities by the multilevel regression for the units that are due (unit, action)."""
    data, design = fit.require_data("treatment probabilities"), fit.designs[k]
    stage, frame = data.stages[k], data.frame[due].reset_index(drop=True)
    site = design.site_codes(frame)
    feasible = stage.feasible[due]
    taken = np.where(stage.took[due] & (feasible.sum(axis=1) > 1), stage.action[due], -1)
    # Under another set of feasible actions the same two may have been given at other rates.
    pattern = np.unique(feasible, axis=0, return_inverse=True)[1].ravel()
    sets = (pattern[:, None] == np.unique(pattern[taken >= 0])[1:]).astype(float)
    x = np.column_stack([design.common(design.acting(frame, 0), site), sets])
    seed = children(fit.settings.stream("assignment"), k + 1)[k]
    return category_probabilities(x, site if data.trial.site else None, feasible, taken, seed)


def _shares(fit: Fit, k: int) -> np.ndarray:
    data, design = fit.require_data("treatment probabilities"), fit.designs[k]
    stage = data.stages[k]
    rows, choice = stage.feasible, stage.feasible.sum(axis=1)
    pattern = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    site = np.zeros(len(rows), dtype=np.int64)
    if data.trial.site:
        site = design.site_codes(data.frame)
    cell = pattern * (site.max() + 1) + site
    # All who took a feasible action: those who stayed would also say who stays under which action.
    seen, hit = stage.took, np.zeros(rows.shape)
    hit[seen, stage.action[seen]] = 1.0
    overall, own = (np.zeros((c.max() + 1, rows.shape[1])) for c in (pattern, cell))
    np.add.at(overall, pattern, hit)
    np.add.at(own, cell, hit)
    # A feasible set that nobody has acted under: all its actions alike.
    nobody = overall.sum(axis=1) == 0
    overall[pattern[nobody[pattern]]] = rows[nobody[pattern]]
    overall /= np.maximum(overall.sum(axis=1, keepdims=True), 1e-300)
    total = own[cell].sum(axis=1, keepdims=True)
    return (own[cell] + choice[:, None] * overall[pattern]) / np.maximum(total + choice[:, None], 1)
