r"""Responders known only by a test that errs: the action is chosen by the result, the payoff by the truth.

Mathematics. R_i says whether unit i has responded, T_i in {0, 1} whether the test says so. With a known
sensitivity se = P(T = 1 | R = 1) and specificity sp = P(T = 0 | R = 0), and action 0 the first one,

    R_i ~ Bernoulli(p_i),   logit p_i = a + z_i'g,   P(T_i = 1) = p_i se + (1 - p_i)(1 - sp),
    payoff_i | R_i = r ~ N(m_r(i), sigma^2),   m_r(i) = l_r + x_i'b + sum_{k > 0} 1[action_i = k] d_rk.

R is summed out: given the test, unit i is a responder with probability

    w_i = p_i se_i / (p_i se_i + (1 - p_i) fp_i),   se_i, fp_i = (se, 1 - sp) if T_i = 1, (1 - se, sp) if not,

and the payoff is a mixture of the two normal densities with weights w_i and 1 - w_i. The mean payoff of an
action, for one who decides by history and test, is w m_1 + (1 - w) m_0. The two groups keep their names
because se + sp > 1. Given z and the test, R must depend on neither x nor the action: what predicts the
response and had a part in the choice belongs among z. Whoever takes the test for the truth mixes up what
the action does for the two groups.

Dims. ``response`` (non-responder, responder), ``action`` (all but the first), ``term`` (columns of x),
``predictor`` (columns of z); in ``q`` also ``sample``.

Priors. With s the SD of the payoff: l ~ N(mean, 2.5 s), b and d ~ N(0, s) and g ~ N(0, 1) for centred
columns with an SD of about 1, a ~ N(0, 1.5), sigma ~ half-normal(s).

References. Rogan and Gladen (1978), Estimating prevalence from the results of a screening test, Am. J.
Epidemiol. 107(1); Gelman and Carpenter (2020), Bayesian analysis of tests with unknown specificity and
sensitivity, J. R. Stat. Soc. C 69(5); Gustafson (2003), Measurement error and misclassification in
statistics and epidemiology, Chapman and Hall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ImperfectBiomarker:
    """A stage model for payoffs that depend on a response seen through a test.

    Parameters
    ----------
    action
        The stage's action column.
    test
        The column of the test's result, 0 or 1.
    sensitivity, specificity
        Of the test, below 1; their sum is above 1.
    linear
        Columns x that shift the payoff: numbers, centred, with an SD of about 1 (labels: columns of 0 and 1).
    predictors
        Columns z that predict the response, likewise.
    """

    action: str
    test: str
    sensitivity: float
    specificity: float
    linear: tuple[str, ...] = ()
    predictors: tuple[str, ...] = ()

    def __post_init__(self):
        if not (0 < self.sensitivity < 1 and 0 < self.specificity < 1):
            raise ValueError(
                "sensitivity and specificity: must lie between 0 and 1; for a test that never errs in "
                "one group write 0.999."
            )
        if not self.sensitivity + self.specificity > 1:
            raise ValueError(
                "sensitivity + specificity: must be above 1, or the test says nothing."
            )

    def build(self, history, payoff):
        """The PyMC model."""
        import pymc as pm

        actions = list(history[self.action].cat.categories)[1:]
        x, z, taken, test = self._columns(history)
        scale = float(np.std(payoff))
        coords = {
            "response": ["non-responder", "responder"],
            "action": actions,
            "term": list(self.linear),
            "predictor": list(self.predictors),
        }
        if_responder, if_not = self._likelihoods(test)
        with pm.Model(coords=coords) as model:
            level = pm.Normal("level", float(np.mean(payoff)), 2.5 * scale, dims="response")
            b = pm.Normal("b", 0, scale, dims="term")
            d = pm.Normal("d", 0, scale, dims=("response", "action"))
            logit = pm.Normal("logit", 0, 1.5)
            g = pm.Normal("g", 0, 1, dims="predictor")
            sigma = pm.HalfNormal("sigma", scale)
            p = pm.math.sigmoid(logit + pm.math.dot(z, g))
            positive = p * self.sensitivity + (1 - p) * (1 - self.specificity)
            pm.Bernoulli("seen", positive, observed=test)
            w = p * if_responder / (p * if_responder + (1 - p) * if_not)
            mean = level + pm.math.dot(x, b)[:, None] + pm.math.dot(taken, d.T)
            parts = pm.Normal.dist(mean, sigma)
            weights = pm.math.stack([1 - w, w], axis=1)
            pm.Mixture("y", weights, parts, observed=pm.Data("payoff", payoff))
        return model

    def q(self, posterior, history):
        """Mean payoff (row, sample)."""
        x, z, taken, test = self._columns(history)
        p = 1.0 / (1.0 + np.exp(-(posterior["logit"].to_numpy() + z @ posterior["g"].to_numpy())))
        if_responder, if_not = (one[:, None] for one in self._likelihoods(test))
        w = p * if_responder / (p * if_responder + (1 - p) * if_not)
        level, d = posterior["level"].to_numpy(), posterior["d"].to_numpy()
        non, yes = (level[r] + taken @ d[r] for r in (0, 1))
        return x @ posterior["b"].to_numpy() + (1 - w) * non + w * yes

    def _likelihoods(self, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability of each result if the unit has responded, and if not."""
        responder = np.where(test > 0, self.sensitivity, 1.0 - self.sensitivity)
        return responder, np.where(test > 0, 1.0 - self.specificity, self.specificity)

    def _columns(self, history) -> tuple[np.ndarray, ...]:
        """x (row, term), z (row, predictor), actions but the first (row, action), the test (row)."""
        codes = history[self.action].cat.codes.to_numpy()
        taken = np.eye(len(history[self.action].cat.categories))[codes][:, 1:]
        x = history[list(self.linear)].to_numpy(dtype=float)
        z = history[list(self.predictors)].to_numpy(dtype=float)
        test = history[self.test].to_numpy(dtype=float)
        if not np.isin(test, (0.0, 1.0)).all():
            raise ValueError(f"{self.test}: must be 0 or 1 in every row.")
        return x, z, taken, test.astype(int)
