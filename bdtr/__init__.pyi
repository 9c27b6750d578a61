from . import (
    backward as backward,
    checks as checks,
    data as data,
    datasets as datasets,
    decisions as decisions,
    plots as plots,
    reports as reports,
    results as results,
    stages as stages,
    trial as trial,
    values as values,
)
from .backward import (
    Fit as Fit,
    embedded as embedded,
    fit as fit,
    load as load,
    recommended as recommended,
    rule as rule,
    static as static,
)
from .checks import compare_ways as compare_ways
from .data import DataError as DataError, DesignWarning as DesignWarning
from .decisions import plan as plan, recommend as recommend
from .reports import report as report
from .stages import FitError as FitError
from .trial import Stage as Stage, Trial as Trial, TrialError as TrialError
from .values import compare as compare, crossfit as crossfit, value as value

__version__: str
