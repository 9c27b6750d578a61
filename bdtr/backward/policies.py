"""Policies of a fit: regimes and words, named by what they do, and policies with shifted payoffs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.induction import (
    POLICIES,
    Decisions,
    Policy,
)
from bdtr.backward.regimes import Regime, policy
from bdtr.data.trialdata import TrialData
from bdtr.results.errors import ArgumentError
from bdtr.stages.settings import FitError

__all__ = ["decisions", "named_policy", "pass_key", "payoff_sd", "shifted"]

_MOST_SHIFT = 100  # SDs of the payoff


def decisions(data: TrialData) -> Decisions:
    """The decision problem of the units of a trial."""
    return Decisions(
        [s.among for s in data.stages],
        [s.feasible for s in data.stages],
        [s.reward for s in data.stages],
        data.outcome,
        data.trial.higher_is_better,
    )


def named_policy(chosen: Regime | Policy | str | None, data: TrialData) -> Policy:
    """The policy of a regime or of a word, named by what it does."""
    if chosen is None:
        return Policy()
    if isinstance(chosen, Policy):
        return chosen
    if isinstance(chosen, str):
        if chosen not in POLICIES:
            raise FitError(f"policy {chosen!r}: allowed are {POLICIES} or a regime.")
        return Policy(chosen, chosen)
    rule = policy(chosen, data)
    return replace(rule, name=_regime_key(chosen, rule)) if rule.kind == "regime" else rule


def _regime_key(regime: Regime, rule: Policy) -> str:
    """Name of the pass of a regime: its rules, whatever it is called, and a digest of them; of functions, of
    what they did. Texts alone may be the same for labels that hold their marks."""
    if any(callable(one) for one in regime.rules.values()):
        said = b"".join(codes.tobytes() for codes in rule.actions)
    else:
        parts = [
            [stage, list(one.items()) if isinstance(one, Mapping) else one]
            for stage, one in regime.rules.items()
        ]
        said = json.dumps(parts).encode()
    return f"{regime} ({sha256(said).hexdigest()[:12]})"


def payoff_sd(fit: FitRecord) -> float:
    """SD of the observed payoff, rewards of all stages included: the unit of the scale ``"sd"``."""
    if fit.parts:
        return float(np.mean([payoff_sd(one) for one in fit.parts]))
    data = fit.require_data("the SD of the payoff")
    payoff = data.outcome + np.sum([stage.reward for stage in data.stages], axis=0)
    return float(np.nanstd(payoff, ddof=1))


def shifted(
    fit: FitRecord, rule: Policy, shifts: Sequence[tuple[np.ndarray, np.ndarray]], words: str
) -> Policy:
    """A policy with shifts, named by what is assumed and, as passes are kept by name, by the numbers.

    Earlier stages are fitted to what is left after the shift with priors in units of the outcome, which no
    longer hold where a shift is many times as large: an error beyond some SDs of the payoff.
    """
    most = _MOST_SHIFT * payoff_sd(fit)
    if any(np.abs(amount).max() * np.abs(size).max() > most for amount, size in shifts):
        raise ArgumentError(
            f"{words}: changes payoffs by more than {_MOST_SHIFT} SDs, which are {most:.3g}. Give sizes and "
            "prices in units of the outcome."
        )
    digest = sha256(b"".join(x.tobytes() for pair in shifts for x in pair)).hexdigest()
    return replace(rule, name=f"{rule.name} [{words}; {digest[:12]}]", shifts=tuple(shifts))


def pass_key(name: str) -> str:
    """A pass name as a group name of a tree, which may not hold a slash; different names stay different."""
    return name.replace("%", "%25").replace("/", "%2F")
