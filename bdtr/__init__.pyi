from . import (
    backward as backward,
)
from . import (
    checks as checks,
)
from . import (
    data as data,
)
from . import (
    datasets as datasets,
)
from . import (
    decisions as decisions,
)
from . import (
    plots as plots,
)
from . import (
    reports as reports,
)
from . import (
    results as results,
)
from . import (
    stages as stages,
)
from . import (
    trial as trial,
)
from . import (
    values as values,
)
from .backward import (
    Fit as Fit,
)
from .backward import (
    embedded as embedded,
)
from .backward import (
    fit as fit,
)
from .backward import (
    load as load,
)
from .backward import (
    recommended as recommended,
)
from .backward import (
    rule as rule,
)
from .backward import (
    static as static,
)
from .data import DataError as DataError
from .data import DesignWarning as DesignWarning
from .decisions import plan as plan
from .decisions import recommend as recommend
from .reports import report as report
from .stages import FitError as FitError
from .trial import Stage as Stage
from .trial import Trial as Trial
from .trial import TrialError as TrialError
from .values import compare as compare
from .values import crossfit as crossfit
from .values import value as value

__version__: str
