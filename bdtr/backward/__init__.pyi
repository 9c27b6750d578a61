from .fitted import Fit as Fit
from .fitting import fit as fit
from .induction import BackwardPass as BackwardPass
from .loading import load as load
from .passes import backward_pass as backward_pass, backward_passes as backward_passes
from .regimes import (
    Regime as Regime,
    RegimeError as RegimeError,
    embedded as embedded,
    recommended as recommended,
    rule as rule,
    static as static,
)
from .saving import StorageError as StorageError
