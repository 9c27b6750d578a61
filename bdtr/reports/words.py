"""A stage model and the assumptions of the analysis in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdtr.trial.trial import Trial

from bdtr.backward.fitted import Fit
from bdtr.trial.states import states_of

__all__ = ["assumptions", "stage_words"]


def stage_words(fit: Fit, k: int) -> dict[str, Any]:
    """What a stage's model says: response, formula, group effects in words."""
    design, trial = fit.designs[k], fit.trial
    stage = trial.stages[k]
    last = k == fit.stages - 1
    payoff = trial.outcome or stage.reward or "payoff"
    response = (
        f"the observed payoff {payoff}"
        if last
        else f"the expected payoff {payoff} when stage {fit.designs[k + 1].action} follows the "
        "recommended rule, one response for each posterior draw of the later stages"
    )
    sets = [
        f"{', '.join(actions)} where {condition}"
        for condition, actions in (stage.feasible or {}).items()
    ]
    return {
        "action": design.action,
        "actions": ", ".join(design.actions),
        "reference": design.actions[0],
        "feasible": sets,
        "among": stage.among,
        "eligible": stage.eligible,
        "response": response,
        "family": "their own" if stage.model else fit.family(k).replace("_", " "),
        "formula": _model_words(design, stage.model),
        "groups": [_group_words(g) for g in design.groups] if trial.by_formula(k) else [],
        "states": [_state_words(fit, name) for name in states_of(trial, k)],
        "means": [name for name in design.terms if name.startswith("site_mean(")],
    }


def _model_words(design, model) -> str:
    if model is None:
        return f"{design.action}: payoff ~ {design.formula.text}"
    columns = ", ".join(design.formula.columns)
    return f"{design.action}: a PyMC model of the authors, {type(model).__name__}, of {columns}"


def _state_words(fit: Fit, name: str) -> dict[str, Any]:
    """The model of a state, as that of a stage."""
    one = fit.states[name]
    design = one.designs[0]
    return {
        "name": name,
        "family": one.family(0).replace("_", " "),
        "formula": f"{name} ~ {design.formula.text}",
        "groups": [f"{name}, {_group_words(g)}" for g in design.groups],
        "means": [t for t in design.terms if t.startswith("site_mean(")],
    }


def _group_words(group) -> str:
    varying = ", ".join(group.terms)
    together = "correlated" if group.correlated else "independent"
    text = f"{group.name} ({len(group.levels):,} levels): {varying} vary"
    if len(group.terms) > 1:
        text += f", {together}"
    return (
        text
        + {
            "site": "; the site's effects are part of its Q-function",
            "history": "; known when the action is chosen, so part of the Q-function",
            "delivery": "; formed with the action, so integrated out of the Q-function",
        }[group.role]
    )


def assumptions(trial: Trial) -> list[str]:
    """The causal assumptions and the estimand in plain words."""
    out = [
        "Consistency: a unit's observed payoff is the one it would have had under the actions it "
        "took, however they came about; there is one version of each action.",
        "Positivity: everyone could have received each feasible action.",
        "Sequential exchangeability: given the recorded history, who got which action does not depend "
        "on what the payoff would be. Randomisation at each stage gives this by design.",
        "The estimand is hypothetical: everybody stays, at the same site, and receives a feasible "
        "action. Leaving, moving and non-compliance are taken to be ignorable given history.",
        "No interference beyond the delivery cluster; clusters are composed as they were in the trial.",
        "The stage models hold: what they leave out of the history is left out of the rule.",
    ]
    if len(trial.stages) > 1:
        out.append(
            "P(optimal) below the last stage means: best now, given the recommended later rule."
        )
    return out
