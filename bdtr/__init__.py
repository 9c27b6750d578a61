"""bdtr: Bayesian dynamic treatment regimes for multilevel and multisite trials.

A trial (:class:`Trial`, :class:`Stage`), a fit (:func:`fit`), and plain functions on a fit. Names are
loaded when first used, so that ``import bdtr`` is quick and does not import PyMC.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdtr import (
        balance,
        comparison,
        datasets,
        effects,
        equity,
        information,
        maximum,
        opinion,
        planning,
        plots,
        predictive,
        priors,
        protocol,
        risk,
        sensitivity,
        sites,
        tailoring,
        trees,
    )
    from bdtr.backward.fitted import Fit
    from bdtr.backward.fitting import fit
    from bdtr.backward.opening import load
    from bdtr.backward.regimes import Regime, embedded, recommended, rule, static
    from bdtr.data.clusters import DesignWarning
    from bdtr.data.coding import DataError
    from bdtr.reports import report
    from bdtr.results.settings import FitError
    from bdtr.trial.trial import Stage, Trial, TrialError
    from bdtr.values.crossfitting import crossfit
    from bdtr.values.valuation import value

_HOME = {
    "DataError": "bdtr.data.coding",
    "DesignWarning": "bdtr.data.clusters",
    "Fit": "bdtr.backward.fitted",
    "FitError": "bdtr.results.settings",
    "Regime": "bdtr.backward.regimes",
    "Stage": "bdtr.trial.trial",
    "Trial": "bdtr.trial.trial",
    "TrialError": "bdtr.trial.trial",
    "crossfit": "bdtr.values.crossfitting",
    "embedded": "bdtr.backward.regimes",
    "fit": "bdtr.backward.fitting",
    "load": "bdtr.backward.storage",
    "recommended": "bdtr.backward.regimes",
    "report": "bdtr.reports",
    "rule": "bdtr.backward.regimes",
    "static": "bdtr.backward.regimes",
    "value": "bdtr.values.valuation",
}
_ROOMS = (
    "balance",
    "comparison",
    "datasets",
    "effects",
    "equity",
    "information",
    "maximum",
    "opinion",
    "planning",
    "plots",
    "predictive",
    "priors",
    "protocol",
    "risk",
    "sensitivity",
    "sites",
    "tailoring",
    "trees",
)

__version__ = "0.1.0.dev0"
__all__ = [
    "DataError",
    "DesignWarning",
    "Fit",
    "FitError",
    "Regime",
    "Stage",
    "Trial",
    "TrialError",
    "balance",
    "comparison",
    "crossfit",
    "datasets",
    "effects",
    "embedded",
    "equity",
    "fit",
    "information",
    "load",
    "maximum",
    "opinion",
    "planning",
    "plots",
    "predictive",
    "priors",
    "protocol",
    "recommended",
    "report",
    "risk",
    "rule",
    "sensitivity",
    "sites",
    "static",
    "tailoring",
    "trees",
    "value",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"bdtr.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'bdtr' has no attribute {name!r}")
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
