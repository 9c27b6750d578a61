r"""What an action adds as a smooth function of one history variable: a Gaussian process in a Hilbert basis.

Mathematics. With t the history variable, scaled so that its support is [-1, 1], and action 0 the first one,

    payoff_i = a + x_i'b + g_0(t_i) + sum_{k > 0} 1[action_i = k] (d_k + g_k(t_i)) + e_i,
    e_i ~ N(0, sigma^2),
    g_k(t) = sum_j sqrt(S_k(w_j)) z_kj phi_j(t),   z_kj ~ N(0, 1),
    phi_j(t) = (sin(w_j (t + c)) - r_j) / sqrt(c),   w_j = j pi / (2 c),   j = 1, .., m,

where S_k is the spectral density of a Matern 5/2 covariance with SD eta and a length, and r_j makes the
function average to 0 over the support: a and d_k are levels, g_k what varies about them, and neither can
stand in for the other. The blip of action k is d_k + g_k(t). Beyond its support the blip stays what it is
at the end: a sine says nothing there.

Dims. ``curve`` (the common curve, then one for each action but the first), ``action`` (these actions),
``kind`` (common, blip), ``basis``, ``term`` (columns of x); in ``q`` also ``sample``.

Priors. With s the SD of the payoff: a ~ N(mean, 2.5 s), b and d ~ N(0, s) for centred columns with an SD of
about 1, eta ~ half-normal(0.5 s), one for the common curve and one for the blips, the SD before centring;
length ~ log-normal(log 0.5, 0.4) of half the support; sigma ~ half-normal(s). By Riutort-Mayol et al.,
section 4, the basis is near to the process for lengths from 2.65 c / m to c / 4.1 of half the support, .33
to .61 for c = 2.5 and m = 20; longer ones are a little too narrow at the ends, shorter ones a little too
smooth.

References. Solin and Sarkka (2020), Hilbert space methods for reduced-rank Gaussian process regression,
Stat. Comput. 30; Riutort-Mayol, Burkner, Andersen, Solin and Vehtari (2023), Practical Hilbert space
approximate Bayesian Gaussian processes for probabilistic programming, Stat. Comput. 33(17).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HSGPBlip:
    """A stage model with a smooth blip.

    Parameters
    ----------
    action
        The stage's action column.
    along
        The history variable that the blip is a function of.
    support
        Where the function lives, in units of that variable.
    linear
        Further columns: numbers, centred, with an SD of about 1 (labels as columns of 0 and 1).
    basis, boundary
        Number m of basis functions, and c.
    """

    action: str
    along: str
    support: tuple[float, float]
    linear: tuple[str, ...] = ()
    basis: int = 20
    boundary: float = 2.5

    def __post_init__(self):
        if not self.support[0] < self.support[1]:
            raise ValueError(
                f"support={self.support!r}: must be two numbers, the smaller one first."
            )

    def build(self, history, payoff):
        """The PyMC model."""
        import pymc as pm

        codes = history[self.action].cat.codes.to_numpy()
        actions = list(history[self.action].cat.categories)[1:]
        curves = ["common", *actions]
        x, phi = history[list(self.linear)].to_numpy(dtype=float), self._functions(history)
        scale = float(np.std(payoff))
        coords = {
            "curve": curves,
            "action": actions,
            "kind": ["common", "blip"],
            "term": list(self.linear),
            "basis": range(1, self.basis + 1),
        }
        kind = np.array([0] + [1] * len(actions))
        with pm.Model(coords=coords) as model:
            intercept = pm.Normal("intercept", float(np.mean(payoff)), 2.5 * scale)
            b = pm.Normal("b", 0, scale, dims="term")
            d = pm.Normal("d", 0, scale, dims="action")
            eta = pm.HalfNormal("eta", 0.5 * scale, dims="kind")
            length = pm.LogNormal("length", np.log(0.5), 0.4, dims="kind")
            z = pm.Normal("z", dims=("curve", "basis"))
            densities = [
                pm.gp.cov.Matern52(1, length[k]).power_spectral_density(
                    self._frequencies()[:, None]
                )
                for k in (0, 1)
            ]
            roots = pm.math.stack([eta[k] * pm.math.sqrt(densities[k]) for k in (0, 1)])
            weight = pm.Deterministic("weight", z * roots[kind], dims=("curve", "basis"))
            taken = np.eye(len(curves))[codes][:, 1:]  # (row, action), the first action left out
            curve = pm.math.dot(phi, weight.T)
            mean = intercept + pm.math.dot(x, b) + curve[:, 0]
            mean = mean + (taken * (d + curve[:, 1:])).sum(axis=1)
            sigma = pm.HalfNormal("sigma", scale)
            pm.Normal("y", mean, sigma, observed=pm.Data("payoff", payoff))
        return model

    def q(self, posterior, history):
        """Mean payoff (row, sample)."""
        codes = history[self.action].cat.codes.to_numpy()
        x, phi = history[list(self.linear)].to_numpy(dtype=float), self._functions(history)
        weight, d = posterior["weight"].to_numpy(), posterior["d"].to_numpy()
        out = posterior["intercept"].to_numpy() + x @ posterior["b"].to_numpy() + phi @ weight[0]
        for k in range(1, len(weight)):
            own = codes == k
            out[own] += d[k - 1] + phi[own] @ weight[k]
        return out

    def _frequencies(self) -> np.ndarray:
        return np.arange(1, self.basis + 1) * np.pi / (2.0 * self.boundary)

    def _functions(self, history) -> np.ndarray:
        """Basis functions (row, basis) at the history variable, held at the ends of its support."""
        low, high = self.support
        t = (2.0 * history[self.along].to_numpy(dtype=float) - low - high) / (high - low)
        w, c = self._frequencies(), self.boundary
        average = (np.cos(w * (c - 1.0)) - np.cos(w * (c + 1.0))) / (2.0 * w)
        return (np.sin(w * (np.clip(t, -1.0, 1.0)[:, None] + c)) - average) / np.sqrt(c)
