"""Which decisions are taken, on which history, among which feasible actions, for which payoff."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from bdtr.results.arguments import is_real, mapping, one_of, truth
from bdtr.results.errors import BdtrError
from bdtr.results.labels import BESIDE_ACTIONS, UNCLEAR, label_text, look_alike
from bdtr.trial.condition import Condition, ConditionError
from bdtr.trial.families import FAMILIES
from bdtr.trial.formula import Formula, FormulaError
from bdtr.trial.payoff import COMPANIONS, Payoff, payoff_fault, payoff_of
from bdtr.trial.priors import Prior, prior_from_text
from bdtr.trial.rules import read_rule
from bdtr.trial.states import StateError, computed_stages, read_states, states_fault

__all__ = ["Stage", "Trial", "TrialError"]


class TrialError(BdtrError, ValueError):
    """A trial that contradicts itself, whatever the data."""


@dataclass(frozen=True)
class Stage:
    """One decision point: the action taken there, what is feasible, and the model of the payoff.

    Parameters
    ----------
    action
        Column that holds the action taken at this stage.
    actions
        The possible actions in your order; the first is the reference. May be left out when the
        column is a pandas categorical: its categories, in their order, are then the actions.
        Actions are categories whatever their type: 0, 1, 2 is no dose.
    formula
        Right-hand side of the stage model, in the syntax of lme4, brms and bambi, for example
        ``"lunch + y_k * a2 + (1 + a2 | school)"``. Group terms in the formula are part of the
        Q-function.
    feasible
        Conditions on history and the actions feasible under each; every unit must meet exactly
        one. Left out: every action is feasible for everyone.
    among
        Condition that says for whom there is a decision at this stage, for example
        ``"responder == 0"``. Units outside have no action here.
    outside
        What becomes of the units outside ``among`` in the fits: ``"arm"``, they are an arm of their own
        in the stage's model, "no decision", and their expected payoff is predicted as everybody's;
        ``"carry"``, their observed payoff is carried to the earlier stages. Left out: an arm where the
        trial has sites, where some of these payoffs are missing, or behind a delivery cluster; else
        carried.
    eligible
        Condition that says who takes part in the fit of this stage by design, for example
        ``"school_1 == school"``. Units outside it are counted, not fitted, and take part in
        earlier stages through their predicted stage value.
    delivered_in
        Column with the delivery cluster (class, teacher, wave) that is formed with the action.
        Its random intercept is in the model but not in the Q-function of this stage; at later
        stages it is history.
    reward
        Column with a payoff earned at this stage, added to the outcome.
    priors
        Priors that replace the defaults, by parameter name as ``fit.priors`` prints it.
    site_means
        Whether the site means of individual history and of treatment shares enter the model
        (Mundlak 1978), so that site effects are not confounded with who goes to which site.
    site_terms
        What is known of a site and may change the effect of the action there: ``"size"``, the log
        number of its units, and ``"share"``, the shares of actions at it; each enters by itself and times
        the action.
    earlier_clusters
        Whether random intercepts of the delivery clusters of earlier stages enter the model.
    earlier_terms
        Whether what earlier stages tailor by (``a1:lunch``, ``(1 + a1 | school)``) enters the model where the
        formula lacks it. Without, these direct effects are zero with certainty.
    residual
        ``"arm"``: each action has its own residual SD; ``"common"``: one for all, at the last stage. Stage
        values of earlier stages always have one for each.
    shape
        How the mean payoff goes with the numbers that meet the action: ``"smooth"`` adds
        ``s(x, by=action)``, a spline for each action that shrinks to a line where a line will do (of two
        numbers a surface, ``s(x, z, by=action)``; of more than four none); ``"linear"`` does not. Left out:
        smooth but at the last stage, as the value of later choices is no straight line. Numbers inside
        ``bs``, ``poly``, ``log`` or another transform with the action are left as they are.
    weights
        Column with known precision weights, as ``weights=`` of lme4: the residual variance of a
        unit is sigma^2 / weight. For units that are means of others, their numbers.
    model
        A PyMC model of your own (:class:`bdtr.stages.StageModel`) in place of the one that the
        formula makes; the formula then only names the columns that the model sees.

    Examples
    --------
    >>> Stage("a2", actions=["regular", "aide"], formula="y_k * a2 + (1 + a2 | school)").action
    'a2'
    """

    action: str
    actions: Sequence[Any] | None = None
    formula: str = ""
    feasible: Mapping[str, Sequence[Any]] | None = None
    among: str | None = None
    eligible: str | None = None
    delivered_in: str | None = None
    reward: str | None = None
    priors: Mapping[str, Prior] | None = None
    site_means: bool = True
    earlier_clusters: bool = True
    weights: str | None = None
    model: Any = None
    outside: str | None = None
    site_terms: Sequence[str] = ()
    earlier_terms: bool = True
    residual: str = "arm"
    shape: str | None = None

    def __post_init__(self) -> None:
        where = f"Stage({self.action!r})"
        if not isinstance(self.action, str) or not self.action:
            raise TrialError(f"Stage(action=...): must name a column, got {self.action!r}.")
        if self.actions is not None:
            labels = _labels(self.actions, f"{where}: actions")
            if len(set(labels)) != len(labels):
                raise TrialError(f"{where}: actions has repeated labels: {labels}.")
            _told_apart(labels, f"{where}: actions")
            for word in (*BESIDE_ACTIONS, UNCLEAR):
                if word in labels:
                    raise TrialError(
                        f"{where}: {word!r} is what tables say beside or in place of actions; give the "
                        "action another label."
                    )
            if len(labels) < 2:
                raise TrialError(
                    f"{where}: actions must name at least two actions, got {labels}. A stage with "
                    "one action is no decision; leave it out or model it as history."
                )
            object.__setattr__(self, "actions", tuple(labels))
        if not isinstance(self.formula, str) or not self.formula.strip():
            raise TrialError(
                f"{where}: formula is missing. Give the right-hand side of the stage model, for "
                f'example "x * {self.action} + (1 + {self.action} | site)".'
            )
        if self.feasible is not None:
            self._check_feasible(where)
        try:
            Formula.parse(self.formula)
        except FormulaError as error:
            raise FormulaError(f"{where}: {error}") from None
        for name in ("delivered_in", "reward", "weights"):
            _column(getattr(self, name), f"{where}: {name}")
        for name in ("site_means", "earlier_clusters", "earlier_terms"):
            truth(f"{where}: {name}", getattr(self, name), TrialError)
        for name in ("among", "eligible"):
            text = getattr(self, name)
            if text is not None:
                _parse(text, f"{where}: {name}")
        if self.priors is not None and not isinstance(self.priors, Mapping):
            raise TrialError(f"{where}: priors must map parameters to priors, got {self.priors!r}.")
        for key, prior in (self.priors or {}).items():
            if not isinstance(prior, Prior):
                raise TrialError(
                    f"{where}: priors[{key!r}] must be a prior such as bdtr.trial.Normal(0, 1), "
                    f"got {prior!r}."
                )

        self._check_choices(where)
        if self.model is not None:
            self._check_model(where)

    def _check_choices(self, where: str) -> None:
        if self.outside is not None:
            one_of(f"{where}: outside", self.outside, ("arm", "carry"), TrialError)
        if self.outside is not None and self.among is None:
            raise TrialError(
                f"{where}: outside={self.outside!r} needs among=, which says who is outside."
            )
        one_of(f"{where}: residual", self.residual, ("arm", "common"), TrialError)
        if self.shape is not None:
            one_of(f"{where}: shape", self.shape, ("smooth", "linear"), TrialError)
        if not isinstance(self.site_terms, Iterable):
            raise TrialError(
                f"{where}: site_terms={self.site_terms!r}: allowed are 'size' and 'share'."
            )
        given = (self.site_terms,) if isinstance(self.site_terms, str) else tuple(self.site_terms)
        wrong = [one for one in given if one not in ("size", "share")]
        if wrong or len(set(given)) != len(given):
            raise TrialError(
                f"{where}: site_terms={given}: allowed are 'size' and 'share', once each."
            )
        object.__setattr__(self, "site_terms", given)

    def _check_model(self, where: str) -> None:
        absent = [name for name in ("build", "q") if not callable(getattr(self.model, name, None))]
        if isinstance(self.model, type) or absent:
            what = "a class" if isinstance(self.model, type) else f"{self.model!r}"
            raise TrialError(
                f"{where}: model must be an object with the methods build(history, payoff) and "
                f"q(posterior, history), got {what}. See bdtr.stages.StageModel."
            )
        taken = [
            name for name in ("priors", "weights", "site_terms", "shape") if getattr(self, name)
        ]
        if self.outside == "arm":
            raise TrialError(f"{where}: outside='arm' belongs to the model that a formula makes.")
        if taken:
            raise TrialError(
                f"{where}: {' and '.join(taken)} belong to the model that a formula makes; with a "
                "model of your own, write them there."
            )
        # Nothing is added to the columns that the formula names.
        object.__setattr__(self, "site_means", False)
        object.__setattr__(self, "earlier_clusters", False)
        object.__setattr__(self, "earlier_terms", False)

    def _check_feasible(self, where: str) -> None:
        if not isinstance(self.feasible, Mapping):
            raise TrialError(
                f"{where}: feasible must map conditions to lists of actions, got {self.feasible!r}."
            )
        if not self.feasible:
            raise TrialError(f"{where}: feasible is empty; leave it out if all is feasible.")
        sets = {}
        for condition, allowed in self.feasible.items():
            _parse(condition, f"{where}: feasible")
            labels = tuple(_labels(allowed, f"{where}: feasible[{condition!r}]"))
            if not labels:
                raise TrialError(
                    f"{where}: feasible[{condition!r}] must be a non-empty list of actions, got "
                    f"{allowed!r}."
                )
            unknown = [a for a in labels if self.actions is not None and a not in self.actions]
            if unknown:
                raise TrialError(
                    f"{where}: feasible[{condition!r}] names {unknown}, which actions does not "
                    f"have: {list(self.actions or ())}."
                )
            sets[condition] = labels
        object.__setattr__(self, "feasible", sets)

    def with_actions(self, actions: Sequence[Any]) -> Stage:
        """The same stage with its actions filled in, once the data have shown them."""
        return replace(self, actions=list(actions))


@dataclass(frozen=True)
class Trial:
    """A sequentially randomised trial: its stages, its payoff, its units and sites.

    Parameters
    ----------
    stages
        The stages in the order of time.
    outcome
        Column with the final outcome, or arithmetic of several: ``"score - 0.1 * sessions"``. The payoff is
        the outcome plus the rewards of all stages;
        may be left out if the last stage has a reward.
    unit
        Column that identifies units (pupils, patients); one row per unit. Left out: row numbers.
    site
        Column with the site (school, hospital). Left out: a trial without sites.
    family
        Distribution of the outcome at the last stage: ``"gaussian"``, ``"student_t"`` (a few values are
        wild), ``"bernoulli"`` (0 or 1), ``"binomial"`` or ``"beta_binomial"`` (successes out of ``trials``,
        of units that are alike, or not), ``"beta"`` (between 0 and 1), ``"poisson"`` or
        ``"negative_binomial"`` (counts), ``"gamma"`` (above 0), ``"ordinal"`` (ordered categories),
        ``"weibull"`` or ``"lognormal"`` (times above 0, until an ``event`` where there is one), or
        ``"censored"`` (scores with a ``floor`` or ``ceiling``). The payoff is the outcome, the share of
        successes, the count per unit of exposure, the utility of the category, the time, the time until a
        ``horizon``, or no event by a time; of ``"student_t"`` its location, as wild values are noise. At
        earlier stages the response is the expected payoff, within the bounds of the payoff.
    trials
        Column with the number of trials of a binomial outcome.
    exposure
        Column with what a count is taken over (time, persons). Left out: 1.
    utility
        What each category of an ordinal outcome is worth, from the lowest category to the highest:
        ``{"none": 0, "some": 0.5, "full": 1}``. Left out: the categories are numbers, and worth these. Of
        numbers, times and counts a function of the outcome that is the payoff, as text such as
        ``"min(score, 100)"`` or ``"-max(days - 3, 0)"``, with min, max, abs, exp, log and sqrt, or a callable
        of an array, which files cannot hold.
    event
        Column with 1 where a time ended in the event and 0 where all that is known is that it was longer
        (right-censored, for reasons that history explains). Left out: all times ended in it.
    horizon
        Count the time until the horizon alone: the payoff is the restricted mean time.
    survival_at
        The payoff is 1 without an event by this time, else 0: its mean is the probability.
    floor, ceiling
        Lowest and highest score that a ``"censored"`` outcome can have.
    states
        Models of what later stages tailor by, by column: a formula, or a :class:`bdtr.trial.StateModel`, such
        as ``{"y_k": "female + a1 * lunch + (1 + a1 | school)"}``. The stage before is then computed
        (g-computation) and its formula says only what is known there; left out: it is regressed on the values
        of the next one.
    higher_is_better
        Whether a larger payoff is better.

    Raises
    ------
    TrialError
        If stages contradict one another.

    Examples
    --------
    >>> stage = Stage("a", actions=[0, 1], formula="x * a")
    >>> Trial([stage], outcome="y").stages[0].actions
    ('0', '1')
    """

    stages: Sequence[Stage]
    outcome: str | None = None
    unit: str | None = None
    site: str | None = None
    family: str = "gaussian"
    higher_is_better: bool = True
    trials: str | None = None
    exposure: str | None = None
    utility: Mapping[Any, float] | str | Callable[[np.ndarray], np.ndarray] | None = None
    event: str | None = None
    horizon: float | None = None
    survival_at: float | None = None
    floor: float | None = None
    ceiling: float | None = None
    states: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        stages = tuple(self.stages) if isinstance(self.stages, Iterable) else ()
        object.__setattr__(self, "stages", stages)
        if not stages or not all(isinstance(s, Stage) for s in stages):
            raise TrialError("Trial(stages=...): must be a non-empty list of bdtr.Stage.")
        actions = [s.action for s in stages]
        if len(set(actions)) != len(actions):
            raise TrialError(f"Trial(stages=...): two stages share an action column: {actions}.")
        for name in ("outcome", "unit", "site", *COMPANIONS):
            _column(getattr(self, name), f"Trial: {name}")
        truth("Trial: higher_is_better", self.higher_is_better, TrialError)
        self._check_roles()
        one_of("Trial: family", self.family, FAMILIES, TrialError)
        if self.outcome is None and stages[-1].reward is None:
            raise TrialError("Trial: name the outcome column, or a reward at the last stage.")
        if fault := payoff_fault(self):
            raise TrialError(fault)
        if not self.payoff.gaussian and any(s.reward for s in stages):
            raise TrialError(
                f"Trial(family={self.family!r}): rewards cannot be added to an outcome that is not gaussian, "
                "or has a utility. Leave reward out, or use a gaussian payoff."
            )
        self._label_categories()
        if not self.payoff.gaussian and stages[-1].weights:
            raise TrialError(
                f"Stage({actions[-1]!r}): weights are precisions of a Gaussian payoff; the payoff is "
                f"{self.family}. Leave them out."
            )
        self._check_carried_clusters()
        try:
            object.__setattr__(self, "states", read_states(self.states))
        except StateError as error:
            raise TrialError(f"Trial: {error}") from None
        if fault := states_fault(self):
            raise TrialError(fault)

    def by_formula(self, k: int) -> bool:
        """Whether the model of stage k (0 = first) is a regression that its formula makes: no model of the
        user's, nor one that is computed from models of states."""
        return self.stages[k].model is None and k not in computed_stages(self)

    @property
    def categories(self) -> Mapping[str, float] | None:
        """What each category of an ordinal outcome is worth."""
        return self.utility if isinstance(self.utility, Mapping) else None

    def _label_categories(self) -> None:
        if not isinstance(self.utility, Mapping):
            return
        table = {
            _labels([category], "Trial(utility=...)")[0]: float(worth)
            for category, worth in self.utility.items()
        }
        if len(table) < len(self.utility) or len(set(table.values())) < 2:
            raise TrialError(
                f"Trial(utility=...): categories must differ and not all be worth the same: {self.utility!r}."
            )
        object.__setattr__(self, "utility", table)

    @property
    def companion(self) -> str | None:
        """Column that the outcome is recorded with: its trials, its exposure, or the event."""
        return self.trials or self.exposure or self.event

    @property
    def payoff(self) -> Payoff:
        """How the payoff comes from the model of the last stage."""
        return payoff_of(self)

    def _check_roles(self) -> None:
        """Raise where a column has two roles; only weights and delivery clusters may serve several stages."""
        roles = [(name, getattr(self, name)) for name in ("outcome", "unit", "site", *COMPANIONS)]
        for s in self.stages:
            roles.append((f"the action of stage {s.action}", s.action))
            roles.append((f"the reward of stage {s.action}", s.reward))
        roles += [("delivered_in", c) for c in dict.fromkeys(s.delivered_in for s in self.stages)]
        roles += [("weights", c) for c in dict.fromkeys(s.weights for s in self.stages)]
        taken: dict[str, str] = {}
        for role, column in roles:
            if column is None:
                continue
            if column in taken:
                payoffs = [r for r in (role, taken[column]) if r == "outcome" or "reward" in r]
                raise TrialError(
                    f"Trial: the column {column!r} is {taken[column]} and {role}; a column has one role."
                    + (" Its payoff would be counted twice." if len(payoffs) == 2 else "")
                )
            taken[column] = role

    def _check_carried_clusters(self) -> None:
        # A carried payoff brings the class noise of later stages along, which earlier models
        # do not know (DESIGN 3.2): 69 % coverage in a caricature.
        for k, stage in enumerate(self.stages):
            noisy = [s.action for s in self.stages[k:] if s.delivered_in]
            carried = stage.outside == "carry" or stage.model is not None
            if stage.among is not None and carried and noisy and k > 0:
                raise TrialError(
                    f"Stage({stage.action!r}): outside='carry' carries observed payoffs to earlier stages, "
                    f"and stage {', '.join(noisy)} has delivered_in: the payoff then brings the "
                    "class effect along, which the earlier model does not know. Leave outside= out: these "
                    "units are then an arm of their own."
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns named outside formulas and conditions."""
        names = [self.unit, self.site, self.outcome, self.companion]
        for stage in self.stages:
            names += [stage.action, stage.delivered_in, stage.reward, stage.weights]
        return tuple(dict.fromkeys(name for name in names if name))

    def to_dict(self) -> dict[str, Any]:
        """The trial as plain lists, dictionaries and text, fit for JSON."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        out["stages"] = [_stage_dict(stage) for stage in self.stages]
        out["states"] = self.states and {name: one.to_dict() for name, one in self.states.items()}
        if callable(self.utility):
            raise TrialError(
                f"Trial(utility={self.utility!r}): a file cannot hold a function. Write it as text, such as "
                "utility='min(y, 100)'."
            )
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], models: Mapping[str, Any] | None = None) -> Trial:
        """The trial that :meth:`to_dict` described, with the stage models of your own by action."""
        stages, models = [], {} if models is None else models
        mapping("models", models, "stages to models of your own")
        if not isinstance(values, Mapping) or not isinstance(values.get("stages"), list):
            raise TrialError("from_dict: takes what to_dict() of a trial returned.")
        own = {s["action"] for s in values["stages"] if s.get("model") is not None}
        if set(models) - own:
            raise TrialError(
                f"models: stage {sorted(set(models) - own)[0]!r} has no model of your own; those that "
                f"have: {', '.join(sorted(own)) or 'none'}."
            )
        for stage in values["stages"]:
            priors = stage.get("priors") or {}
            parsed = {name: prior_from_text(text) for name, text in priors.items()}
            name, action = stage.get("model"), stage["action"]
            if name is not None and action not in models:
                raise TrialError(
                    f"Stage({action!r}) was fitted with a model of your own, {name}, whose code is not "
                    f"in the file: give it as models={{{action!r}: {name}(...)}}."
                )
            given = models.get(action)
            if given is not None and type(given).__name__ != name:
                raise TrialError(
                    f"models[{action!r}]: the stage was fitted with {name}, not with "
                    f"{type(given).__name__}."
                )
            stages.append(Stage(**{**stage, "priors": parsed or None, "model": given}))
        return cls(**{**values, "stages": stages})


def _stage_dict(stage: Stage) -> dict[str, Any]:
    out = {f.name: getattr(stage, f.name) for f in fields(stage)}
    out["actions"] = None if stage.actions is None else list(stage.actions)
    out["feasible"] = stage.feasible and {c: list(a) for c, a in stage.feasible.items()}
    out["priors"] = {name: str(prior) for name, prior in (stage.priors or {}).items()}
    out["site_terms"] = list(stage.site_terms)
    out["model"] = None if stage.model is None else type(stage.model).__name__
    return out


def _labels(given: Any, where: str) -> list[str]:
    """Labels of actions in their order, the first being the reference: sets have none."""
    if (
        not isinstance(given, Iterable)
        or isinstance(given, (str, bytes, Mapping, Set))
        or getattr(given, "ndim", 1) != 1
    ):
        raise TrialError(f"{where} must be a list of actions, got {given!r}.")
    given = list(given)
    for label in given:
        number = isinstance(label, (bool, np.bool_)) or (is_real(label) and np.isfinite(label))
        if not number and (not isinstance(label, str) or "\0" in label):
            raise TrialError(f"{where}: {label!r} is no label of an action; give text or numbers.")
    return [label_text(label) for label in given]


def _told_apart(labels: list[str], where: str) -> None:
    """Raise where two labels look the same, or one in the text of a rule is another."""
    if twins := look_alike(labels):
        raise TrialError(f"{where}: {twins[0]!a} and {twins[1]!a} look the same.")
    for label in labels:
        try:
            read = read_rule(label)
        except BdtrError:  # it has to be quoted
            continue
        if isinstance(read, str) and read != label and read in labels:
            raise TrialError(
                f"{where}: {label!r} in the text of a rule is {read!r}. Give one of them another label."
            )


def _column(name: object, where: str) -> None:
    if name is not None and (not isinstance(name, str) or not name):
        raise TrialError(f"{where} must name a column, got {name!r}.")


def _parse(text: str, where: str) -> Condition:
    try:
        return Condition(text)
    except ConditionError as error:
        raise TrialError(f"{where}: {error}") from None
