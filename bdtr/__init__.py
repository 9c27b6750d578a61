"""bdtr: Bayesian dynamic treatment regimes for multilevel and multisite trials.

Every day:

    Trial, Stage                         what is declared
    fit, load, Fit                       what the data say of every stage
    recommend, plan                      which action for whom
    static, rule, embedded, recommended  regimes
    value, compare, crossfit             what regimes are worth
    compare_ways                         do regression and g-computation agree?
    report                               the page
    DataError, FitError, TrialError      what is wrong, and how it is mended
    DesignWarning                        what the data say of the design

Everything else by what it is about: :mod:`bdtr.trial`, :mod:`bdtr.data`, :mod:`bdtr.stages`,
:mod:`bdtr.backward`, :mod:`bdtr.values`, :mod:`bdtr.decisions`, :mod:`bdtr.checks`, :mod:`bdtr.plots`,
:mod:`bdtr.reports`, :mod:`bdtr.results`, and :mod:`bdtr.datasets` with data to try it on. ``help`` on one of
them says what each of its functions answers. Names are loaded when they are first used, so that
``import bdtr`` is quick and does not import PyMC.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0.dev0"
