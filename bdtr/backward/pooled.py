"""Backward passes through several completed data sets together.

Each data set has its own histories, columns and draws; what is recommended rests on the mean over the draws
of all, for the history that a unit has in each: a rule is a function of history, and knows no later outcome
from which a value may have been imputed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from bdtr.backward.fitrecord import Draws, FitRecord
from bdtr.backward.induction import BackwardPass, Chosen, Policy, best_mean
from bdtr.backward.unit_columns import columns_of
from bdtr.results.errors import ArgumentError
from bdtr.stages.pooled import different, interleaved, pooled_dataset, pooled_draws
from bdtr.stages.prediction import StageDraws
from bdtr.stages.settings import Settings

__all__ = ["PooledPass", "choices_of", "chosen_together", "in_part", "pooled_tree"]

_COUNTS = ("independence", "slices", "linear", "nuts")
_LOWEST = ("effective_share", "ranks")
_CELLS = 2_000_000  # Q-values in memory at once

type DrawsAt = Callable[[int], Sequence[Draws]]


@dataclass(frozen=True)
class PooledPass(BackwardPass):
    """The pass of a fit to several completed data sets, from those of its ``parts``."""

    parts: tuple[BackwardPass, ...] = ()
    chains: int = 1

    def continuation(self, k: int, units: np.ndarray) -> np.ndarray:
        """As of a backward pass (unit, sample), each draw with its histories."""
        return interleaved([one.continuation(k, units) for one in self.parts], self.chains)


def pooled_tree(parts: Sequence[FitRecord]) -> xr.DataTree:
    """Draws of all stages together, with how they were made: counts in all, else the least favourable."""
    found = {}
    for k in range(parts[0].stages):
        nodes = [one.tree[f"stage_{k + 1}"] for one in parts]
        for name in nodes[0].children:
            each = [node[name].to_dataset() for node in nodes]
            whole = each[0] if name in ("engine", "sample_stats") else pooled_dataset(each)
            kept = whole[[]] if name == "engine" else whole
            found[f"stage_{k + 1}/{name}"] = kept.assign_attrs(_worst([e.attrs for e in each]))
    return xr.DataTree.from_dict(found)


def _worst(each: Sequence[Mapping[Any, Any]]) -> dict[Any, Any]:
    out = {}
    for name in dict.fromkeys(name for one in each for name in one):  # some may have figures alone
        values = [one[name] for one in each if name in one]
        out[name] = values[0]
        if name in _COUNTS:
            out[name] = sum(values)
        elif isinstance(values[0], (int, float)) and not isinstance(values[0], bool):
            out[name] = (np.nanmin if name in _LOWEST else np.nanmax)(values)
    return out


def in_part(policies: Sequence[Policy], settings: Settings) -> list[Policy]:
    """Policies as they are in one completed data set, whose settings these are: what they do there, and what
    is added to its draws."""
    assert settings.part is not None
    out = []
    for one in policies:
        own = one.in_parts[settings.part] if one.in_parts else one
        shifts = tuple((amount, _of_part(size, settings)) for amount, size in one.shifts)
        out.append(replace(own, name=one.name, shifts=shifts))
    return out


def _of_part(size: np.ndarray, settings: Settings) -> np.ndarray:
    """Numbers for each draw of the whole (.., sample) as those for the draws of one data set."""
    if size.shape[-1] == 1:
        return size
    each = size.reshape(*size.shape[:-1], settings.chains, -1, settings.imputations)
    return each[..., settings.part].reshape(*size.shape[:-1], -1)


def choices_of(
    parts: Sequence[FitRecord],
    policies: Sequence[Policy],
    draws: Sequence[Sequence[dict[int, Draws]]],
) -> list[list[Chosen]]:
    """What is recommended in each part under each policy, from draws (part, policy, stage) so far."""

    def draws_at(p: int) -> DrawsAt:
        return lambda k: [own[p][k] for own in draws]

    by_policy = [
        chosen_together(parts, rule, draws_at(p), "observed") for p, rule in enumerate(policies)
    ]
    return [list(own) for own in zip(*by_policy, strict=True)]


def chosen_together(
    parts: Sequence[FitRecord], policy: Policy, draws_at: DrawsAt, sites: str
) -> list[Chosen]:
    """What is recommended in each part, by the mean over the draws of all.

    Parameters
    ----------
    parts
        Fits to completed data sets.
    policy
        The policy of the whole, by whose shifts actions are weighed as well.
    draws_at
        Draws of a stage, for each part.
    sites
        Where Q-values are taken; on average over sites where a policy is not tailored to them.

    Returns
    -------
    list of Chosen
        Codes of actions of (stage, units, kind of the policy).
    """
    tables: dict[tuple[int, str], np.ndarray] = {}

    def of(d: int) -> Chosen:
        def chosen(k: int, units: np.ndarray, kind: str) -> np.ndarray:
            at = "average" if kind == "untailored" else sites
            if (k, at) not in tables:
                added = _mean_shift(policy, k)
                tables[k, at] = _recommended(parts, k, draws_at(k), at, added)
            return tables[k, at][d, units]

        return chosen

    return [of(d) for d in range(len(parts))]


def _mean_shift(policy: Policy, k: int) -> np.ndarray | None:
    """What a policy adds to the mean Q-values of a stage (action, unit)."""
    if not policy.shifts:
        return None
    amount, size = policy.shifts[k]
    return amount * size.mean(axis=-1)


def _recommended(
    parts: Sequence[FitRecord],
    k: int,
    draws: Sequence[Draws],
    sites: str,
    added: np.ndarray | None,
) -> np.ndarray:
    """Codes of the recommended actions (part, unit); histories that are the same are looked at once."""
    each = [one for one in draws if isinstance(one, StageDraws)]
    if len(each) < len(draws):
        raise ArgumentError(
            "missing: values are not imputed where a stage has a model of your own. Pass missing='exclude'."
        )
    whole = pooled_draws(each, parts[0].settings.chains)
    out = np.zeros((len(parts), len(parts[0].require_data("a backward pass"))), dtype=np.int64)
    for d, one in enumerate(parts):
        data, q = one.require_data("a backward pass"), one.q_of(k, whole, sites)
        units = np.flatnonzero(data.stages[k].history)
        if d:
            first = parts[0].require_data("a backward pass").stages[k]
            out[d] = out[0]
            same = first.history[units] & (first.feasible == data.stages[k].feasible)[units].all(
                axis=1
            )
            of_both = columns_of(parts[0], k, units[same]), columns_of(one, k, units[same])
            units = np.concatenate([units[~same], units[same][different(*of_both)]])
        size = max(1, _CELLS // (whole.samples * len(one.designs[k].arms)))
        for at in range(0, len(units), size):
            block = units[at : at + size]
            values = q.evaluate(columns_of(one, k, block))
            if added is not None:
                values = values + added[:, block, None]
            better = data.trial.higher_is_better
            out[d, block] = best_mean(values, data.stages[k].feasible[block], better)
    return out
