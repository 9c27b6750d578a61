from .fitted import Fit as Fit
from .fitting import fit as fit
from .opening import load as load
from .passes import backward_pass as backward_pass
from .passes import backward_passes as backward_passes
from .regimes import (
    Regime as Regime,
)
from .regimes import (
    RegimeError as RegimeError,
)
from .regimes import (
    embedded as embedded,
)
from .regimes import (
    recommended as recommended,
)
from .regimes import (
    rule as rule,
)
from .regimes import (
    static as static,
)
from .storage import StorageError as StorageError
