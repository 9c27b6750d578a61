"""The model of one variable in all completed data sets: columns, groups, and the regressions of its
response."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from bdtr.data.imputation.regression import Groups, Regression
from bdtr.data.imputation.responses import Response
from bdtr.data.imputation.values import MadeColumns, Values
from bdtr.data.stagecolumns import StageDesign

__all__ = ["Model", "OutcomeColumns"]

type Instead = Mapping[str, np.ndarray]
type Moments = Callable[[int], tuple[np.ndarray, np.ndarray]]


class Making(Protocol):
    """What makes columns of variables."""

    def matrix(
        self, values: Values, rows: np.ndarray, instead: Instead | None = None
    ) -> np.ndarray: ...
    def involves(self, name: str) -> bool: ...


class OutcomeColumns:
    """The common columns of the last stage, site means of the values at hand and those of smooth terms among
    them."""

    def __init__(self, design: StageDesign, values: Values, rows: np.ndarray, site: np.ndarray):
        self.design, self.rows, self.site = design, rows, site
        self.made = MadeColumns(design.columns, design.keep, values, rows)
        of_arm = [design.columns.names[i] for i in design.arm_of]
        self.of_arm = [self.made.names.index(n) for n in of_arm]
        self.used = [n for n in values.held if n in design.formula.model_columns]
        self.means: list[int] = []
        self.others: list[int] = []
        for i, name in enumerate(design.sites.names):
            inner = name.removeprefix("site_mean(").removesuffix(")")
            if name.startswith("site_mean(") and inner in self.made.names:
                self.means.append(self.made.names.index(inner))
            else:
                self.others.append(i)

    def involves(self, name: str) -> bool:
        """Whether a variable is in them."""
        return self.made.involves(name)

    def matrix(
        self, values: Values, rows: np.ndarray, instead: Instead | None = None
    ) -> np.ndarray:
        """Columns (data set, row, column) of some units."""
        base = self.made.matrix(values, rows, instead)
        parts, action = [base], values.held[self.design.action][:, rows]
        if self.of_arm:
            arm = len(self.design.arms) - 1
            parts.append(base[:, :, self.of_arm] * (action == arm)[..., None])
        if self.means:
            every = self.made.matrix(values, self.rows)[:, :, self.means]
            sites = int(self.site.max()) + 1
            groups = Groups.of(self.site[self.rows], sites, 1)
            count = np.maximum(np.bincount(groups.codes, minlength=sites), 1)
            parts.append((groups.sums(every) / count[:, None])[:, self.site[rows]])
        if self.others:
            fixed = self.design.sites.matrix(self.site[rows], action[0].astype(np.int64))
            parts.append(
                np.broadcast_to(fixed[:, self.others], (*base.shape[:2], len(self.others)))
            )
        if self.design.smooths:
            frame = values.frame(self.used, rows, instead or {})
            bends = [s.matrix(frame) for s in self.design.smooths]
            parts += [one.reshape(*base.shape[:2], -1) for one in bends]
        return np.concatenate(parts, axis=2) if len(parts) > 1 else base


class Model:
    """One variable given what came before it.

    Parameters
    ----------
    name
        The variable.
    rows
        Units that it is known for, or drawn for.
    columns
        Its common columns, the constant first.
    groups
        Columns, level of each unit, and levels of each grouping factor.
    response
        The variable as the regressions see it.
    values
        All variables at the start.
    stratum, strata
        Residual SD of each row.
    """

    def __init__(
        self,
        name: str,
        rows: np.ndarray,
        columns: Making,
        groups: Sequence[tuple[MadeColumns, np.ndarray, int]],
        response: Response,
        values: Values,
        stratum: np.ndarray | None = None,
        strata: int = 1,
    ):
        self.name, self.rows, self.columns, self.response = name, rows, columns, response
        self.place = np.full(values.units, -1)
        self.place[rows] = np.arange(len(rows))
        self.group_columns = [made for made, _, _ in groups]
        own = [Groups.of(codes[rows], levels, len(made.keep)) for made, codes, levels in groups]
        x = columns.matrix(values, rows)
        stratum = np.zeros(len(rows), dtype=np.int64) if stratum is None else stratum
        parts = range(response.parts)
        self.regressions = [Regression(x, own, stratum, strata, response.unit) for _ in parts]

    def involves(self, name: str) -> bool:
        """Whether a variable is in its columns."""
        return self.columns.involves(name) or any(m.involves(name) for m in self.group_columns)

    def _columns(self, values: Values, units: np.ndarray, instead: Instead | None = None):
        x = self.columns.matrix(values, units, instead)
        return x, [made.matrix(values, units, instead) for made in self.group_columns]

    def draw_parameters(self, rng: np.random.Generator, values: Values) -> None:
        """One step for the parameters, given the values at hand."""
        x, z = self._columns(values, self.rows)
        own = np.broadcast_to(values.held[self.name][:, self.rows], x.shape[:2])
        every = np.arange(len(self.rows))
        for part, regression in enumerate(self.regressions):
            mean, sd = regression.mean(x, z, every), regression.residual_sd(every)
            r, among = self.response.latent(rng, part, own, mean, sd)
            regression.draw(rng, x, z, r, among)

    def moments(self, values: Values, units: np.ndarray, instead: Instead | None = None) -> Moments:
        """Mean and residual SD (data set, unit) of the response of each regression, by its number."""
        x, z = self._columns(values, units, instead)
        at = self.place[units]

        def of(part: int) -> tuple[np.ndarray, np.ndarray]:
            regression = self.regressions[part]
            return regression.mean(x, z, at), regression.residual_sd(at)

        return of

    def log_density(
        self, values: Values, units: np.ndarray, instead: Instead, own: np.ndarray | None = None
    ) -> np.ndarray:
        """Log density (data set, unit) of the variable, others having the values in ``instead``."""
        if own is None:
            shape = values.sets, len(units)
            own = np.broadcast_to(values.held[self.name][:, units], shape)
        return self.response.log_density(own, self.moments(values, units, instead))
