r"""Missing values of the history, drawn in the order of time given what came before and what was seen later.

The trial's variables factorise in the order of time,

    p(x_1) p(x_2 | x_1, a_1) .. p(y | x_1, a_1, .., a_K),

so that a missing x_j is drawn from p(x_j | before) times the densities of all later variables that depend on
it, the payoff by the formula of the last stage among them: products with actions, squares and site means are
kept as they are there (imputation compatible with the substantive model, Bartlett and others 2015, Stat.
Methods Med. Res. 24(4); in sequential form Ibrahim, Lipsitz and Chen 1999, J. R. Stat. Soc. B 61(1)). One
chain for each completed data set alternates between parameters given all values
(:mod:`bdtr.data.imputation.regression`) and missing values given parameters: categories exactly, numbers by a
Metropolis step whose proposal is Laplace's approximation, a normal density with the gradient and curvature of
the target, which accepts always where the target is normal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bdtr.data.imputation.models import Model
from bdtr.data.imputation.responses import Categories, Labels, Numbers
from bdtr.data.imputation.values import Values
from bdtr.data.imputation.variables import Variable

__all__ = ["Chains", "run_chains", "settled"]

_SETTLED, _LONGEST = 1.1, 5  # R-hat of means; how many times as long chains may become
_STEP = 0.1  # of a normal score, for derivatives
_WIDEST = 4.0  # SD of a proposal, in SDs of the variable given what came before


@dataclass(frozen=True)
class Chains:
    """What chains did: mean imputed value of each variable, as the regressions see it (iteration, variable,
    data set), and the share of Metropolis proposals that were accepted (iteration, variable)."""

    means: np.ndarray
    accepted: np.ndarray

    @property
    def rhat(self) -> np.ndarray:
        """R-hat of the means of each variable."""
        return settled(self.means)


def settled(means: np.ndarray) -> np.ndarray:
    """Potential scale reduction (variable) of means (iteration, variable, data set) over the second half of
    the iterations."""
    half = means[len(means) // 2 :]
    n = len(half)
    within = half.var(axis=0, ddof=1).mean(axis=-1)
    across = half.mean(axis=0).var(axis=-1, ddof=1)
    return np.sqrt((n - 1) / n + across / np.maximum(within, 1e-300))


def run_chains(
    values: Values,
    models: Sequence[Model],
    imputed: Sequence[Variable],
    iterations: int,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> Chains:
    """Run one chain for each completed data set; ``values`` then hold the last state.

    Parameters
    ----------
    values
        All variables, missing ones with a value to start from.
    models
        In the order of time, the payoff last.
    imputed
        Variables with missing values.
    iterations
        Steps of each chain; as many more, up to five times, until the means of what is imputed have settled.
    rng
        Source of randomness.
    progress
        Called with (steps done, steps in all).
    """
    if not imputed:
        return Chains(np.zeros((1, 0, values.sets)), np.zeros((1, 0)))
    means, accepted = [], []
    at = {one.name: i for i, one in enumerate(models)}
    wanted = iterations
    while len(means) < wanted:
        for model in models:
            model.draw_parameters(rng, values)
        means.append([])
        accepted.append([])
        for one in imputed:
            own = models[at[one.name]]
            later = [m for m in models[at[one.name] + 1 :] if m.involves(one.name)]
            units = np.flatnonzero(one.missing)
            target = _Target(values, own, later, units)
            accepted[-1].append(target.draw(rng))
            means[-1].append(own.response.place(values.held[one.name][:, units]).mean(axis=1))
        if progress:
            progress(len(means), wanted)
        if len(means) == wanted < _LONGEST * iterations:
            found = Chains(np.array(means), np.array(accepted))
            wanted += iterations * bool((found.rhat > _SETTLED).any())
    return Chains(np.array(means), np.array(accepted))


@dataclass
class _Target:
    """Density of the missing values of one variable."""

    values: Values
    own: Model
    later: Sequence[Model]
    units: np.ndarray

    def of_later(self, candidate: np.ndarray) -> np.ndarray:
        """Log densities (data set, unit) of what was seen later, if the values were these."""
        out = np.zeros(candidate.shape)
        for model in self.later:
            some = model.place[self.units] >= 0
            if some.any():
                instead = {self.own.name: candidate[:, some]}
                out[:, some] += model.log_density(self.values, self.units[some], instead)
        return out

    def keep(self, drawn: np.ndarray) -> None:
        """Put drawn values into their places."""
        self.values.held[self.own.name][:, self.units] = drawn

    def draw(self, rng: np.random.Generator) -> float:
        """A value for each; the share that was accepted."""
        if isinstance(self.own.response, Numbers):
            return self.draw_numbers(rng)
        self.draw_categories(rng)
        return 1.0

    def draw_categories(self, rng: np.random.Generator) -> None:
        """One of the categories, by their probabilities."""
        response = self.own.response
        assert isinstance(response, (Categories, Labels))
        shape = (self.values.sets, len(self.units))
        logs = np.empty((response.count, *shape))
        for code in range(response.count):
            candidate = response.written(np.full(shape, code))
            before = self.own.log_density(self.values, self.units, {}, candidate)
            logs[code] = before + self.of_later(candidate)
        self.keep(response.written((logs + rng.gumbel(size=logs.shape)).argmax(axis=0)))

    def draw_numbers(self, rng: np.random.Generator) -> float:
        """A Metropolis step for each; the share that was accepted."""
        response = self.own.response
        assert isinstance(response, Numbers)
        mean, sd = self.own.moments(self.values, self.units)(0)
        if not self.later:
            self.keep(response.number(mean + sd * rng.standard_normal(mean.shape)))
            return 1.0

        def log(z: np.ndarray) -> np.ndarray:
            return -0.5 * np.square((z - mean) / sd) + self.of_later(response.smooth(z))

        z = response.score(self.values.held[self.own.name][:, self.units])
        here, centre, spread = _proposal(log, z, mean, sd)
        new = centre + spread * rng.standard_normal(z.shape)
        there, back, spread_back = _proposal(log, new, mean, sd)
        forward = -np.log(spread) - 0.5 * np.square((new - centre) / spread)
        backward = -np.log(spread_back) - 0.5 * np.square((z - back) / spread_back)
        with np.errstate(invalid="ignore"):
            ratio = there - here + backward - forward
        yes = np.log(rng.random(z.shape)) < ratio
        self.keep(response.number(np.where(yes, new, z)))
        return float(yes.mean())


def _proposal(
    log: Callable[[np.ndarray], np.ndarray], z: np.ndarray, mean: np.ndarray, sd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log target at z, and the normal density with its gradient and curvature there; where it is bent upwards
    or nearly flat, that of what came before."""
    step = _STEP
    here, up, down = log(z), log(z + step), log(z - step)
    slope, bend = (up - down) / (2 * step), (up + down - 2 * here) / step**2
    fine = np.isfinite(slope) & (bend < -1.0 / np.square(_WIDEST * sd))
    curve = np.where(fine, -bend, 1.0)
    centre = np.where(fine, z + np.where(fine, slope, 0.0) / curve, mean)
    return here, centre, np.where(fine, curve**-0.5, sd)
