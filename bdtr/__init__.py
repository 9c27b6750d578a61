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
    from bdtr.clusters import DesignWarning
    from bdtr.coding import DataError
    from bdtr.crossfitting import crossfit
    from bdtr.fitted import Fit
    from bdtr.fitting import fit
    from bdtr.regimes import Regime, embedded, recommended, rule, static
    from bdtr.reports import report
    from bdtr.settings import FitError
    from bdtr.storage import load
    from bdtr.trial import Stage, Trial, TrialError
    from bdtr.values import value

_HOME = {
    "DataError": "bdtr.coding",
    "DesignWarning": "bdtr.clusters",
    "Fit": "bdtr.fitted",
    "FitError": "bdtr.settings",
    "Regime": "bdtr.regimes",
    "Stage": "bdtr.trial",
    "Trial": "bdtr.trial",
    "TrialError": "bdtr.trial",
    "crossfit": "bdtr.crossfitting",
    "embedded": "bdtr.regimes",
    "fit": "bdtr.fitting",
    "load": "bdtr.storage",
    "recommended": "bdtr.regimes",
    "report": "bdtr.reports",
    "rule": "bdtr.regimes",
    "static": "bdtr.regimes",
    "value": "bdtr.values",
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
