r"""Payoffs that are zero for many and spread widely among the others: costs, or minutes of practice.

Whether there is anything and how much of it are two questions, and an action may answer them differently. No
family of ``Trial`` has both parts.

Mathematics. For each part p, 1 for whether and 2 for how much, with site s(i) and action 0 the first one,

    eta_pi = u_ps + x_i'b_p + sum_{k > 0} 1[action_i = k] (d_pk + m_i'c_pk),   u_ps ~ N(a_p, tau_p^2),
    P(payoff_i > 0) = 1 / (1 + exp(-eta_1i)),   log payoff_i | payoff_i > 0 ~ N(eta_2i, sigma),

where m are some of the columns x. The mean payoff is exp(eta_2 + sigma^2 / 2) / (1 + exp(-eta_1)). A site
that the fit has not seen is the mean one on both scales: u_p = a_p.

Dims. ``part`` (whether, how much), ``action`` (all but the first), ``term`` (columns of x), ``modifier`` (of
m), ``level`` (sites); in ``q`` also ``sample``.

Priors. With s the SD of log payoffs above 0 (of the logit: 1), for centred columns with an SD of about 1:
a_1 ~ N(0, 1.5), a_2 ~ N(mean log payoff above 0, 2.5 s), b, c and d ~ N(0, s), tau ~ half-normal(0.5 s),
sigma ~ half-normal(s).

References. Cragg (1971), Some statistical models for limited dependent variables with application to the
demand for durable goods, Econometrica 39(5); Duan, Manning, Morris and Newhouse (1983), A comparison of
alternative models for the demand for medical care, J. Bus. Econ. Stat. 1(2); Neelon, O'Malley and Smith
(2016), Modeling zero-modified count and semicontinuous data in health services research, Stat. Med. 35(27).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hurdle:
    """A stage model in two parts, whether there is a payoff and how much, with effects of sites on both.

    Parameters
    ----------
    action
        The stage's action column.
    site
        The grouping factor, which the stage's formula names.
    linear
        Columns that shift both parts: numbers, centred, with an SD of about 1 (labels: columns of 0 and 1).
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

        if (payoff < 0).any() or (payoff > 0).sum() < 2:
            raise ValueError("payoff: must be 0 or above, and above 0 more than once.")
        x, taken, tailored = self._columns(history)
        level = history[self.site].cat.codes.to_numpy()
        logs = np.log(payoff[payoff > 0])
        scale = np.array([1.0, float(np.std(logs)) or 1.0])
        coords = {
            "part": ["whether", "how much"],
            "action": list(history[self.action].cat.categories)[1:],
            "term": list(self.linear),
            "modifier": list(self.tailoring),
            "level": list(history[self.site].cat.categories),
        }
        with pm.Model(coords=coords) as model:
            a = pm.Normal("a", [0.0, logs.mean()], [1.5, 2.5 * scale[1]], dims="part")
            b = pm.Normal("b", 0, scale, dims=("term", "part"))
            c = pm.Normal("c", 0, scale, dims=("modifier", "action", "part"))
            d = pm.Normal("d", 0, scale, dims=("action", "part"))
            tau = pm.HalfNormal("tau", 0.5 * scale, dims="part")
            z = pm.Normal("z", dims=("level", "part"))
            u = pm.Deterministic("u", a + tau * z, dims=("level", "part"))
            eta = pm.math.dot(x, b) + u[level] + pm.math.dot(taken, d)
            for k in range(len(self.tailoring)):
                eta = eta + tailored[:, k, None] * pm.math.dot(taken, c[k])
            sigma = pm.HalfNormal("sigma", scale[1])
            pm.HurdleLogNormal(
                "y",
                psi=pm.math.sigmoid(eta[:, 0]),
                mu=eta[:, 1],
                sigma=sigma,
                observed=pm.Data("payoff", payoff),
            )
        return model

    def q(self, posterior, history):
        """Mean payoff (row, sample)."""
        x, taken, tailored = self._columns(history)
        level = history[self.site].cat.codes.to_numpy()  # -1 for a site that the fit has not seen
        a, u = posterior["a"].to_numpy(), posterior["u"].to_numpy()
        eta = np.concatenate([u, a[None]])[level]  # (row, part, sample)
        eta = eta + np.einsum("it,tps->ips", x, posterior["b"].to_numpy())
        eta += np.einsum("ik,kps->ips", taken, posterior["d"].to_numpy())
        eta += np.einsum("im,ik,mkps->ips", tailored, taken, posterior["c"].to_numpy())
        sigma = posterior["sigma"].to_numpy()
        return np.exp(eta[:, 1] + 0.5 * sigma**2) / (1.0 + np.exp(-eta[:, 0]))

    def _columns(self, history) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x (row, term), whether each action but the first was taken (row, action), modifiers."""
        codes = history[self.action].cat.codes.to_numpy()
        count = len(history[self.action].cat.categories)
        taken = np.eye(count)[codes][:, 1:]
        x = history[list(self.linear)].to_numpy(dtype=float)
        return x, taken, history[list(self.tailoring)].to_numpy(dtype=float)
