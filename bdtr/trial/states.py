"""Models of what later stages tailor by: states, which an earlier action can change.

With a model of each state that stage k + 1 tailors by, the Q-function of stage k is computed and not
regressed (g-computation, Robins 1986):

    Q_k(h, a) = E[R_k | h, a] + integral V_{k+1}(h, a, s) p(s | h, a) ds,

p being the product of the models of the states in the order in which they are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from bdtr.results.arguments import one_of, truth
from bdtr.results.errors import BdtrError
from bdtr.trial.condition import Condition
from bdtr.trial.families import FAMILIES
from bdtr.trial.formula import Formula, FormulaError
from bdtr.trial.priors import Prior, prior_from_text

__all__ = [
    "StateError",
    "StateModel",
    "computed_stages",
    "decides_by",
    "read_states",
    "states_fault",
    "states_of",
]

_FAMILIES = tuple(name for name in FAMILIES if name not in ("lognormal", "weibull", "censored"))
_OF_REGRESSION = ("priors", "weights", "site_terms", "shape")
_ALL = (*_FAMILIES, "lognormal", "weibull")


class StateError(BdtrError, ValueError):
    """A model of a state that cannot be one."""


@dataclass(frozen=True)
class StateModel:
    """The model of a state: a history variable that an earlier action can change.

    Parameters
    ----------
    formula
        Right-hand side, in the syntax of stages: history, the action of the stage before, and states that
        are named before this one. Delivery clusters, and what still earlier stages tailor by, are added as
        they are at stages.
    family
        Its distribution: a family of :class:`bdtr.Trial` but ``"censored"``; times all end in the event. Left
        out: ``"bernoulli"`` for 0 and 1 and for two labels, else ``"gaussian"``. Say ``"ordinal"`` of labels
        that run from the lowest to the highest.
    trials, exposure
        Columns of a binomial or a count, as in :class:`bdtr.Trial`.
    priors
        Priors that replace the defaults, by parameter name.
    residual
        ``"arm"``: each action has its own residual SD; ``"common"``: one for all.
    site_means
        Whether site means of individual history and of treatment shares enter the model.

    Examples
    --------
    >>> StateModel("female + a1 * lunch + (1 + a1 | school)").family is None
    True
    """

    formula: str
    family: str | None = None
    trials: str | None = None
    exposure: str | None = None
    priors: Mapping[str, Prior] | None = None
    residual: str = "arm"
    site_means: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.formula, str) or not self.formula.strip():
            raise StateError(
                f"formula must be the right-hand side of a model, got {self.formula!r}."
            )
        try:
            Formula.parse(self.formula)
        except FormulaError as error:
            raise StateError(str(error)) from None
        if self.family is not None:
            one_of("family", self.family, _ALL, StateError)
        for name in ("trials", "exposure"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, str) or not value:
                raise StateError(f"{name} must name a column, got {value!r}.")
            if self.family is None or FAMILIES[self.family].companion != name:
                users = [f for f in _ALL if FAMILIES[f].companion == name]
                raise StateError(f"{name}= belongs to family={' or '.join(map(repr, users))}.")
        if self.family and FAMILIES[self.family].companion == "trials" and not self.trials:
            raise StateError(f"family={self.family!r}: name the column with the number of trials.")
        one_of("residual", self.residual, ("arm", "common"), StateError)
        truth("site_means", self.site_means, StateError)
        if self.priors is not None and not isinstance(self.priors, Mapping):
            raise StateError(f"priors must map parameters to priors, got {self.priors!r}.")
        for key, prior in (self.priors or {}).items():
            if not isinstance(prior, Prior):
                raise StateError(
                    f"priors[{key!r}] must be a prior such as bdtr.trial.Normal(0, 1)."
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that its formula names, and its companion."""
        more = [c for c in (self.trials, self.exposure) if c]
        return tuple(dict.fromkeys([*Formula.parse(self.formula).columns, *more]))

    def to_dict(self) -> dict[str, Any]:
        """What differs from the defaults, as plain text and truth values."""
        out = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name == "formula" or getattr(self, f.name) != f.default
        }
        if self.priors:
            out["priors"] = {name: str(prior) for name, prior in self.priors.items()}
        return out


def read_states(given: Any) -> dict[str, StateModel] | None:
    """Models of states by column, of formulas as text, tables of arguments or :class:`StateModel`.

    Raises
    ------
    StateError
        If one is none of these: which, and what it should be.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise StateError(f"states must map columns to the formulas of their models, got {given!r}.")
    out = {}
    for name, one in given.items():
        where = f"states[{name!r}]"
        if not isinstance(name, str) or not name:
            raise StateError(f"{where}: must be the name of a column.")
        try:
            out[name] = _read(one)
        except StateError as error:
            raise StateError(f"{where}: {error}") from None
        except BdtrError as error:
            raise StateError(f"{where}: {error}") from None
    return out or None


def _read(one: Any) -> StateModel:
    if isinstance(one, StateModel):
        return one
    if isinstance(one, str):
        return StateModel(one)
    if not isinstance(one, Mapping):
        raise StateError(
            f"must be a formula, or bdtr.trial.StateModel(formula, family=...), got {one!r}."
        )
    allowed = [f.name for f in fields(StateModel)]
    wrong = [str(key) for key in one if key not in allowed]
    if wrong or "formula" not in one:
        what = f"there is no {wrong[0]!r}" if wrong else "the formula is missing"
        raise StateError(f"{what}; allowed are {', '.join(allowed)}.")
    if not isinstance(one.get("priors") or {}, Mapping):
        raise StateError(f"priors must map parameters to priors, got {one['priors']!r}.")
    priors = {
        name: prior if isinstance(prior, Prior) else prior_from_text(prior)
        for name, prior in (one.get("priors") or {}).items()
    }
    return StateModel(**{**one, "priors": priors or None})


class Decided(Protocol):
    """What a stage says of itself."""

    @property
    def action(self) -> str: ...
    @property
    def formula(self) -> str: ...
    @property
    def among(self) -> str | None: ...
    @property
    def feasible(self) -> Mapping[str, Sequence[Any]] | None: ...
    @property
    def outside(self) -> str | None: ...
    @property
    def reward(self) -> str | None: ...
    @property
    def delivered_in(self) -> str | None: ...
    @property
    def model(self) -> Any: ...
    @property
    def residual(self) -> str: ...


class Staged(Protocol):
    """A trial with states."""

    @property
    def stages(self) -> Sequence[Decided]: ...
    @property
    def states(self) -> Mapping[str, StateModel] | None: ...
    @property
    def outcome(self) -> str | None: ...
    @property
    def unit(self) -> str | None: ...
    @property
    def site(self) -> str | None: ...


def decides_by(stage: Decided) -> list[str]:
    """Columns that the Q-function of a stage, or what is feasible there, depends on."""
    found = list(Formula.parse(stage.formula).columns)
    for text in (stage.among, *(stage.feasible or {})):
        found += Condition(text).columns if text else ()
    return list(dict.fromkeys(found))


def _after(trial: Staged, name: str) -> int | None:
    """The stage (0 = first) whose action a state follows: the one before the first that decides by it, or
    that whose reward it is; -1 if it is known at the first decision, None if nothing decides by it."""
    for k, stage in enumerate(trial.stages):
        if stage.reward == name:
            return k
        if name in decides_by(stage):
            return k - 1
    return None


def states_of(trial: Staged, k: int) -> tuple[str, ...]:
    """States that have models and follow the action of stage k (0 = first), in the order of their models."""
    return tuple(name for name in trial.states or {} if _after(trial, name) == k)


def computed_stages(trial: Staged) -> frozenset[int]:
    """Stages whose Q-function is computed from models of the states that follow."""
    found = {_after(trial, name) for name in trial.states or {}}
    return frozenset(k for k in found if k is not None)


def states_fault(trial: Staged) -> str | None:
    """What is wrong with the states of a trial, in words."""
    if not trial.states:
        return None
    roles = {trial.outcome: "the outcome", trial.unit: "the unit", trial.site: "the site"}
    roles |= {s.action: "an action" for s in trial.stages}
    roles |= {s.delivered_in: "a delivery cluster" for s in trial.stages}
    last = len(trial.stages) - 1
    for name in trial.states:
        after = _after(trial, name)
        if name in roles:
            return f"Trial(states=...): {name!r} is {roles[name]}, and no state."
        if after is None or after == last:
            return (
                f"Trial(states=...): no later stage tailors by {name!r}: a state is named by the formula, "
                "among or feasible of a later stage, or is the reward of an earlier one. Leave it out."
            )
        if after < 0:
            return (
                f"Trial(states=...): {name!r} is known at the first decision, which no action comes "
                "before. Leave it out."
            )
    for k in sorted(computed_stages(trial)):
        if fault := _gap_fault(trial, k):
            return fault
    return None


def _gap_fault(trial: Staged, k: int) -> str | None:
    """What is wrong with the states between stage k and the next."""
    stage, later, states = trial.stages[k], trial.stages[k + 1], states_of(trial, k)
    if stage.model is not None:
        return (
            f"Stage({stage.action!r}) has a model of your own, and states={{{states[0]!r}: ...}} would "
            "compute it. Leave one of them out."
        )
    given = [name for name in _OF_REGRESSION if getattr(stage, name)]
    if stage.residual != "arm":
        given.append("residual")
    if given:
        return (
            f"Stage({stage.action!r}): {' and '.join(given)}: for a regression, and states={{"
            f"{states[0]!r}: ...}} computes the stage. Leave them out; models of states have priors= and "
            "residual= of their own."
        )
    actions = {s.action for s in trial.stages[: k + 1]}
    clusters = {s.delivered_in for s in trial.stages[: k + 1] if s.delivered_in}
    known = {trial.site, *actions, *clusters}
    for one in trial.stages[: k + 1]:
        known |= {*decides_by(one)}
    unknown = {trial.outcome, *(s.action for s in trial.stages[k + 1 :])}
    unknown |= {s.reward for s in trial.stages[k:]} | {
        s.delivered_in for s in trial.stages[k + 1 :]
    }
    unknown |= {n for n in trial.states or {} if (_after(trial, n) or 0) >= k} - {None}
    before: set[str] = set()
    for name in states:
        columns = (trial.states or {})[name].columns
        if stage.action not in Formula.parse((trial.states or {})[name].formula).model_columns:
            return (
                f"Trial(states=...): the model of {name!r} does not name {stage.action!r}, the action that "
                f"it follows. Add it, as in '{stage.action} + {(trial.states or {})[name].formula}'."
            )
        wrong = [c for c in columns if c == name or (c in unknown and c not in before)]
        if wrong:
            return (
                f"Trial(states=...): the model of {name!r} names {wrong[0]!r}, which is not known before it. "
                "Name states in the order in which they come about."
            )
        known |= {*columns}
        before.add(name)
    if stage.reward and stage.reward not in states:
        return (
            f"Trial(states=...): Stage({stage.action!r}) has the reward {stage.reward!r}, which needs a "
            f"model as well, as what follows is computed: states={{{stage.reward!r}: ...}}."
        )
    missing = [c for c in decides_by(later) if c not in known | before | {later.action}]
    missing = [c for c in missing if c != later.delivered_in]
    if missing:
        return (
            f"Trial(states=...): Stage({later.action!r}) goes by {missing[0]!r}, which has no model and is "
            f"not known at stage {stage.action}. Give it one, states={{{missing[0]!r}: ...}}; or, if it is "
            f"known by then, name it in the formula of Stage({stage.action!r}) or of a state."
        )
    for one in (stage, later):
        if one.outside == "carry":
            return (
                f"Stage({one.action!r}): outside='carry' carries observed payoffs, and with states= what "
                "those without a decision can expect is computed. Leave outside= out: they are then an arm."
            )
    return None
