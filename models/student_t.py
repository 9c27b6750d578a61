r"""A multilevel model with Student-t residuals: a few wild payoffs do not decide what is recommended.

``Trial(family="student_t")`` fits such a model, with correlated effects and in seconds; this one is for those
who have to change it: other residuals, other priors, effects that are not of sites.

Mathematics. With site s(i) and action 0 the first one,

    payoff_i = u_s + x_i'b + sum_{k > 0} 1[action_i = k] (d_k + m_i'c_k + v_sk) + e_i,
    e_i ~ t_nu(0, sigma),   u_s ~ N(a, tau_0^2),   v_sk ~ N(0, tau_k^2),

where m are some of the columns x. The mean payoff is the location of the t distribution, as nu > 1: wild
payoffs are noise, as likely up as down, and not what an action does to a few. A site that the fit has not
seen is the mean one: u = a, v = 0. Effects of a site are independent here; models that formulas make
correlate them. NUTS moves the levels u as they stand, since sites mostly differ clearly in level, and what
actions add, in which they seldom do, as v = tau z.

Dims. ``action`` (all but the first), ``term`` (columns of x), ``modifier`` (of m), ``effect`` (intercept,
then the actions), ``level`` (sites); in ``q`` also ``sample``.

Priors. With s the median absolute deviation of the payoff over 0.6745, which wild payoffs do not widen, or
its SD where half of the payoffs are the same: a ~ N(median, 2.5 s), b, c and d ~ N(0, s) for centred
columns with an SD of about 1, tau ~ half-normal(0.5 s), sigma ~ half-normal(s), nu = 1 + gamma(2, 0.1),
which is near to normal residuals and allows heavy tails.

References. Lange, Little and Taylor (1989), Robust statistical modeling using the t distribution, J. Am.
Stat. Assoc. 84(408); Juarez and Steel (2010), Model-based clustering of non-Gaussian panel data based on
skew-t distributions, J. Bus. Econ. Stat. 28(1), for the prior of nu; Betancourt and Girolami (2015),
Hamiltonian Monte Carlo for hierarchical models, for z in place of v.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StudentT:
    """A stage model with heavy-tailed residuals and effects of sites.

    Parameters
    ----------
    action
        The stage's action column.
    site
        The grouping factor, which the stage's formula names.
    linear
        Columns that shift the payoff: numbers, centred, with an SD of about 1 (labels: columns of 0 and 1).
    tailoring
        Those among them that also change what an action adds.
    """

    action: str
    site: str
    linear: tuple[str, ...] = ()
    tailoring: tuple[str, ...] = ()

    def __post_init__(self):
        missing = [name for name in self.tailoring if name not in self.linear]
        if missing:
            raise ValueError(f"tailoring: {missing[0]!r} must be among the linear columns as well.")

    def build(self, history, payoff):
        """The PyMC model."""
        import pymc as pm

        actions = list(history[self.action].cat.categories)[1:]
        level = history[self.site].cat.codes.to_numpy()
        x, taken, tailored = self._columns(history)
        middle = float(np.median(payoff))
        scale = float(np.median(np.abs(payoff - middle))) / 0.6745 or float(np.std(payoff))
        coords = {
            "action": actions,
            "term": list(self.linear),
            "modifier": list(self.tailoring),
            "effect": ["intercept", *actions],
            "level": list(history[self.site].cat.categories),
        }
        with pm.Model(coords=coords) as model:
            intercept = pm.Normal("intercept", middle, 2.5 * scale)
            b = pm.Normal("b", 0, scale, dims="term")
            c = pm.Normal("c", 0, scale, dims=("modifier", "action"))
            d = pm.Normal("d", 0, scale, dims="action")
            tau = pm.HalfNormal("tau", 0.5 * scale, dims="effect")
            u = pm.Normal("u", intercept, tau[0], dims="level")
            z = pm.Normal("z", dims=("level", "action"))
            v = pm.Deterministic("v", tau[1:] * z, dims=("level", "action"))
            mean = pm.math.dot(x, b) + u[level]
            mean = mean + (taken * (d + pm.math.dot(tailored, c) + v[level])).sum(axis=1)
            nu = pm.Deterministic("nu", 1.0 + pm.Gamma("nu_above_1", 2, 0.1))
            sigma = pm.HalfNormal("sigma", scale)
            pm.StudentT("y", nu=nu, mu=mean, sigma=sigma, observed=pm.Data("payoff", payoff))
        return model

    def q(self, posterior, history):
        """Mean payoff (row, sample)."""
        x, taken, tailored = self._columns(history)
        level = history[self.site].cat.codes.to_numpy()  # -1 for a site that the fit has not seen
        intercept = posterior["intercept"].to_numpy()
        u = np.concatenate([posterior["u"].to_numpy(), intercept[None]])
        out = u[level] + x @ posterior["b"].to_numpy()
        d, c = posterior["d"].to_numpy(), posterior["c"].to_numpy()
        v = posterior["v"].to_numpy()
        v = np.concatenate([v, np.zeros((1, *v.shape[1:]))])
        for k in range(taken.shape[1]):
            own = taken[:, k] > 0
            out[own] += d[k] + tailored[own] @ c[:, k] + v[level[own], k]
        return out

    def _columns(self, history) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x (row, term), whether each action but the first was taken (row, action), modifiers."""
        codes = history[self.action].cat.codes.to_numpy()
        count = len(history[self.action].cat.categories)
        taken = np.eye(count)[codes][:, 1:]
        x = history[list(self.linear)].to_numpy(dtype=float)
        return x, taken, history[list(self.tailoring)].to_numpy(dtype=float)
