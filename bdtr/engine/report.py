"""What samplers say of how draws were made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Base of the reports: figures, NaN where one does not apply."""

    def attributes(self) -> dict[str, float]:
        """The figures that apply, as plain numbers."""
        return {
            k: v for k, v in asdict(self).items() if not (isinstance(v, float) and math.isnan(v))
        }
