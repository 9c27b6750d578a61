"""Checks of the model that every fit goes through: what they find lowers the model's line of its state."""

from __future__ import annotations

from bdtr.backward.bounds import bounds
from bdtr.backward.factors import indistinct_factors
from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.informative_sites import informative_sites
from bdtr.backward.overdispersion import overdispersion
from bdtr.backward.residuals import imbalance, misfit, residual_structure
from bdtr.results.diagnostics import State, doubt

__all__ = ["doubts"]

_CHECKS = (
    indistinct_factors, bounds, misfit, overdispersion, residual_structure, imbalance, informative_sites,
)  # fmt: skip


def doubts(fit: FitRecord) -> list[State]:
    """What there is against the model of a fit.

    Parameters
    ----------
    fit
        A fitted trial with its data.

    Returns
    -------
    list of State
        Treatment that reaches whole clusters which the model does not know; grouping factors whose SDs
        the data cannot tell; predictions outside the bounds of the payoff; responses that look unlike
        those the model makes, or vary more; blips that go with a variable in another way than the model
        says; actions given to different people; effects that go with size of a site or share of an action.
    """
    data = fit.require_data("checks of the model")
    return [doubt(*data.doubts), *(doubt(*check(fit)) for check in _CHECKS)]
