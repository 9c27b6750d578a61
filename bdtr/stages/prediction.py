"""Q-values of every action, for units x draws, from a stage's posterior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr
from numba import njit

from bdtr.data.groupcolumns import GroupDesign
from bdtr.data.stagecolumns import StageDesign
from bdtr.trial.payoff import Payoff

__all__ = [
    "PLACES",
    "SITES",
    "QFunction",
    "StageDraws",
    "UnitColumns",
    "add_effects",
    "correlation_root",
    "group_root",
    "measured_correlation",
    "shape_of",
    "stage_draws",
    "unit_columns",
]

SITES = ("observed", "new", "typical")
PLACES = (*SITES, "average", "one new")  # where Q-values can be taken
_LEAST_EIGENVALUE = 1e-10  # of a correlation matrix; 0 at correlations of 1
_FOR_MEANS = 250  # draws that a mean is taken over where each has to be evaluated
_NODES = 15  # Gauss-Hermite nodes for a delivery cluster on a curved link


@dataclass(frozen=True)
class StageDraws:
    """Parameters of one stage with the draws last: what the Q-function needs.

    ``coefficients`` (term, sample) of columns as measured, and of smooth terms after these; ``effects`` per
    factor (level, term, sample); ``root`` per factor (sample, term, term), Cholesky factor of the covariance
    between terms; ``new`` the effects (term, sample) of one new site, the same site at all stages and under
    all policies; ``shape`` what the payoff needs beside the linear predictor: thresholds of an ordinal
    outcome (category, sample), or sigma of each action, or of all (action, sample); sigma and nu (2, action,
    sample).
    """

    coefficients: np.ndarray
    effects: Mapping[str, np.ndarray]
    root: Mapping[str, np.ndarray]
    new: Mapping[str, np.ndarray]
    shape: np.ndarray | None = None

    @property
    def samples(self) -> int:
        """Number of draws."""
        return self.coefficients.shape[1]

    def thinned(self, most: int) -> StageDraws:
        """Up to so many of the draws, evenly spaced."""
        step = -(-self.samples // most)
        return StageDraws(
            np.ascontiguousarray(self.coefficients[:, ::step]),
            {name: np.ascontiguousarray(u[..., ::step]) for name, u in self.effects.items()},
            {name: root[::step] for name, root in self.root.items()},
            {name: np.ascontiguousarray(u[..., ::step]) for name, u in self.new.items()},
            None if self.shape is None else self.shape[..., ::step],
        )


def stage_draws(
    posterior: xr.Dataset,
    design: StageDesign,
    payoff: Payoff,
    new_site: xr.Dataset | None = None,
) -> StageDraws:
    """Arrays of a stored posterior, chains stacked.

    Parameters
    ----------
    posterior
        Dataset with dims ``chain, draw``.
    design
        The stage's columns.
    payoff
        Its payoff.
    new_site
        Effects of a new site, as in :func:`bdtr.stages.posterior.new_site`.

    Returns
    -------
    StageDraws
    """
    b = design.measure.back @ _stacked(posterior["b"])
    bends = [_stacked(posterior[f"u_{s.name}"]) for s in design.smooths]
    b = np.vstack([b, *(u.reshape(-1, u.shape[-1]) for u in bends)])
    effects, root = {}, {}
    for g in design.groups:
        root[g.name] = group_root(posterior, g)
        if g.role != "delivery":
            effects[g.name] = _stacked(posterior[f"u_{g.name}"])
    sites = {} if new_site is None else new_site.data_vars
    new = {str(name).removeprefix("u_"): _stacked(values) for name, values in sites.items()}
    return StageDraws(np.ascontiguousarray(b), effects, root, new, shape_of(posterior, payoff))


def shape_of(posterior: xr.Dataset, payoff: Payoff) -> np.ndarray | None:
    """What the mean payoff takes beside the linear predictor, as in :class:`StageDraws`."""
    if "threshold" in posterior:
        return _stacked(posterior["threshold"])
    if not payoff.family.mean_takes_sigma:
        return None
    sigma = _stacked(posterior["sigma"])
    sigma = sigma if sigma.ndim > 1 else sigma[None]
    if not payoff.family.has_nu:
        return sigma
    return np.stack(np.broadcast_arrays(sigma, _stacked(posterior["nu"])))


def _stacked(values: xr.DataArray) -> np.ndarray:
    """Values with dims (..., sample)."""
    inner = [d for d in values.dims if d not in ("chain", "draw")]
    array = values.transpose(*inner, "chain", "draw").to_numpy()
    return np.ascontiguousarray(array.reshape(*array.shape[:-2], -1))


def group_root(posterior: xr.Dataset, group: GroupDesign) -> np.ndarray:
    """A root of the covariance between the terms of a factor, as written (sample, term, term)."""
    sd, cor = measured_correlation(posterior, group)
    root = sd[:, :, None] * (np.eye(sd.shape[1]) if cor is None else correlation_root(cor))
    return group.measure.turn @ root


def measured_correlation(
    posterior: xr.Dataset, group: GroupDesign
) -> tuple[np.ndarray, np.ndarray | None]:
    """SDs (sample, term) of the terms of a factor as measured, and their correlation matrix (sample, term,
    term); None where the terms are independent."""
    total = measured_covariance(posterior, group)
    # Where an SD is next to 0, rounding on the way from the terms as written may leave less than 0.
    sd = np.sqrt(np.maximum(np.diagonal(total, axis1=1, axis2=2), 0.0))
    if not group.correlated:
        return sd, None
    size = np.maximum(sd, 1e-300)
    cor = np.clip(total / (size[:, :, None] * size[:, None, :]), -1.0, 1.0)
    at = np.arange(sd.shape[1])
    cor[:, at, at] = 1.0
    return sd, cor


def correlation_root(cor: np.ndarray) -> np.ndarray:
    """Triangular root of correlation matrices (.., term, term), of those that rounding has left next to or
    beyond the edge of what a correlation matrix can be as well."""
    values, vectors = np.linalg.eigh(cor)
    values = np.maximum(values, _LEAST_EIGENVALUE)
    return np.linalg.cholesky((vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2))


def measured_covariance(posterior: xr.Dataset, group: GroupDesign) -> np.ndarray:
    """Covariance between the terms of a factor as measured (sample, term, term).

    Terms whose variables have their zero far away are nearly collinear as written, and not as measured.
    """
    sd = _stacked(posterior[f"sd_{group.name}"]).T
    if not group.correlated:
        total = np.square(sd)[:, :, None] * np.eye(sd.shape[1])
    else:
        cor = np.moveaxis(_stacked(posterior[f"cor_{group.name}"]), -1, 0)
        total = cor * sd[:, :, None] * sd[:, None, :]
    return group.measure.back @ total @ group.measure.back.T


@dataclass(frozen=True)
class GroupColumns:
    """One grouping factor of some units: its columns under each action, level codes, and the labels
    of levels that the fit has not seen (None: there are none, or they count as zero)."""

    name: str
    z: tuple[np.ndarray, ...]
    codes: np.ndarray
    unseen: np.ndarray | None = None

    def part(self, rows: np.ndarray) -> GroupColumns:
        """Those of some of the units."""
        codes, unseen = self.codes[rows], self.unseen
        if unseen is not None:
            place = np.cumsum(self.codes < 0) - 1
            unseen = unseen[place[rows][codes < 0]]
        return GroupColumns(self.name, tuple(z[rows] for z in self.z), codes, unseen)


@dataclass(frozen=True)
class UnitColumns:
    """The columns of some units under each action: all of the Q-function that does not depend on draws.

    ``common`` are the common columns and those of smooth terms.
    """

    common: tuple[np.ndarray, ...]
    groups: tuple[GroupColumns, ...]

    def only(self, action: int) -> UnitColumns:
        """The columns under one action."""
        groups = (GroupColumns(g.name, (g.z[action],), g.codes, g.unseen) for g in self.groups)
        return UnitColumns((self.common[action],), tuple(groups))

    def part(self, rows: np.ndarray) -> UnitColumns:
        """The columns of some of the units."""
        return UnitColumns(
            tuple(x[rows] for x in self.common), tuple(g.part(rows) for g in self.groups)
        )


def unit_columns(
    design: StageDesign, frame: pd.DataFrame, sites: str = "observed", taken: bool = False
) -> UnitColumns:
    """The columns of units under every action, or under the one that they have taken.

    Parameters
    ----------
    design
        The stage's columns.
    frame
        Coded history of the units.
    sites
        As in :class:`QFunction`.
    taken
        Whether the action of each unit, in the frame, is the only one.

    Returns
    -------
    UnitColumns
    """
    known = sites == "observed" and design.sites.names
    site = design.site_codes(frame) if known else np.full(len(frame), -1)
    used = [g for g in design.groups if g.role != "delivery"]
    acting = [frame] if taken else [design.acting(frame, a) for a in range(len(design.arms))]
    groups = []
    for g in used:
        codes, unseen = g.codes(frame), None
        if g.role == "site" and sites != "observed":
            codes = np.full(len(frame), -1)
        if (codes < 0).any() and not (g.role == "site" and sites == "typical"):
            unseen = pd.Index(g.labels(frame)[codes < 0].astype(str)).to_numpy()
        groups.append(GroupColumns(g.name, tuple(g.matrix(one) for one in acting), codes, unseen))
    return UnitColumns(tuple(design.predicting(one, site) for one in acting), tuple(groups))


@dataclass(frozen=True)
class QFunction:
    """Mean payoff of every action given history, by draw.

    Site effects and effects of clusters already known are part of it; the delivery cluster of the
    stage is integrated out: zero on an identity link, quadrature otherwise.

    ``sites``: ``"observed"`` (every site known to the fit), ``"new"`` (sites drawn from their
    population distribution), ``"typical"`` (site effects at their mean, zero), ``"average"`` (mean over the
    population of sites; on an identity link the same), ``"one new"`` (all units at one new site, whose
    effects are paired with those of the other stages and policies). In the last two, classes known
    before the action count as the site does, at their mean.

    ``unknown``: grouping factors whose effects are not known yet, as those of a class that an earlier action
    is still to form; they are integrated out.
    """

    design: StageDesign
    payoff: Payoff
    draws: StageDraws
    sites: str = "observed"
    seed: int = 0
    unknown: frozenset[str] = frozenset()

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """Q-values.

        Parameters
        ----------
        frame
            Coded history of a block of units.

        Returns
        -------
        numpy.ndarray
            (action, unit, sample), in units of the outcome.
        """
        return self.evaluate(self.columns(frame))

    def columns(self, frame: pd.DataFrame) -> UnitColumns:
        """The columns of units with this coded history, as :meth:`evaluate` takes them."""
        return unit_columns(self.design, frame, self.sites)

    def evaluate(self, columns: UnitColumns) -> np.ndarray:
        """Q-values of units whose columns are at hand (action, unit, sample)."""
        return self.mean_payoff(self.predictor(columns), columns)

    def of_action(self, columns: UnitColumns, action: int) -> np.ndarray:
        """Q-values of one action (unit, sample)."""
        shape = self.draws.shape
        if self.payoff.family.mean_takes_sigma and shape is not None and shape.shape[-2] > 1:
            shape = shape[..., action : action + 1, :]
        one = replace(self, draws=replace(self.draws, shape=shape))
        return one.evaluate(columns.only(action))[0]

    def mean(self, columns: UnitColumns) -> np.ndarray:
        """Posterior means of Q-values (action, unit): of all draws on an identity link, else of some."""
        if not self.payoff.family.linear:
            return (
                replace(self, draws=self.draws.thinned(_FOR_MEANS)).evaluate(columns).mean(axis=2)
            )
        b = self.draws.coefficients.mean(axis=1)
        out = np.stack([common @ b for common in columns.common])
        for group in columns.groups:
            codes, effects = self._effects(group)
            mean = np.vstack([effects.mean(axis=2), np.zeros((1, effects.shape[1]))])
            for a, z in enumerate(group.z):
                out[a] += (z * mean[codes]).sum(axis=1)
        return out

    def blind(self, factors: frozenset[str]) -> QFunction:
        """The same before the classes of these factors are known."""
        return replace(self, unknown=self.unknown | factors)

    def predictor(self, columns: UnitColumns) -> np.ndarray:
        """Linear predictors of the same (action, unit, sample), effects that are not known left out."""
        groups = [(*self._effects(group), group) for group in columns.groups]
        units = len(columns.common[0])
        out = np.empty((len(columns.common), units, self.draws.samples))
        for a, common in enumerate(columns.common):
            np.dot(common, self.draws.coefficients, out=out[a])
            for codes, effects, group in groups:
                add_effects(out[a], group.z[a], codes, effects)
        return out

    def _effects(self, group: GroupColumns) -> tuple[np.ndarray, np.ndarray]:
        """Level codes, and effects with those of unseen levels appended."""
        effects = self.draws.effects[group.name]
        at_site = any(g.name == group.name and g.role == "site" for g in self.design.groups)
        if self.sites == "one new" and at_site:
            return np.zeros(len(group.codes), dtype=np.int64), self.draws.new[group.name][None]
        gone = group.name in self.unknown or (self.sites == "typical" and at_site)
        if gone or self.sites in ("one new", "average"):
            return np.full(len(group.codes), -1), effects
        if group.unseen is None:
            return group.codes, effects
        unseen = group.codes < 0
        distinct, inverse = np.unique(group.unseen, return_inverse=True)
        extra = np.stack([self._new_level(group.name, str(label)) for label in distinct])
        codes = group.codes.copy()
        codes[unseen] = len(effects) + inverse
        return codes, np.concatenate([effects, extra])

    def _new_level(self, factor: str, label: str) -> np.ndarray:
        """Effects (term, sample) of a level the fit has not seen; the same for the same label."""
        root = self.draws.root[factor]
        words = [self.seed, *f"{factor}\0{label}".encode()]
        noise = np.random.default_rng(words).standard_normal((root.shape[1], len(root)))
        return np.einsum("sqr,rs->qs", root, noise)

    def mean_payoff(self, eta: np.ndarray, columns: UnitColumns) -> np.ndarray:
        """Mean payoff given the linear predictor, effects that are not known integrated out."""
        if self.payoff.family.linear:
            return eta
        shape = self.draws.shape
        if self.payoff.family.mean_takes_sigma and shape is not None:
            shape = shape[..., None, :]  # (action, unit, sample)
        variance = self.unknown_variance(columns)
        if variance is None:
            return self.payoff.mean(eta, shape)
        sd = np.sqrt(variance)
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        total = np.zeros_like(eta)
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            total += weight * self.payoff.mean(eta + node * sd, shape)
        return total

    def unknown_variance(self, columns: UnitColumns) -> np.ndarray | None:
        """Variance of the effects that are integrated out, or None (.., sample)."""
        delivered = [g for g in self.design.groups if g.role == "delivery"]
        found = [np.square(self.draws.root[g.name][:, 0, 0]) for g in delivered]
        for group in columns.groups:
            if self.sites == "average" or group.name in self.unknown:
                root = self.draws.root[group.name]
                found.append(np.stack([np.square(z @ root).sum(axis=2).T for z in group.z]))
        return sum(found[1:], found[0]) if found else None


@njit(cache=True, nogil=True)
def add_effects(out: np.ndarray, z: np.ndarray, codes: np.ndarray, effects: np.ndarray) -> None:
    """out[i] += sum_t z[i, t] effects[codes[i], t]; code -1 adds nothing."""
    for i in range(len(out)):
        if codes[i] < 0:
            continue
        row = out[i]
        for t in range(z.shape[1]):
            value = z[i, t]
            if value == 0.0:
                continue
            effect = effects[codes[i], t]
            for s in range(row.size):
                row[s] += value * effect[s]
