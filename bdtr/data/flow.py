"""Units that leave the fit of a stage: counted, each at the first reason; errors unless excluded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bdtr.data.contents import DataError, some

__all__ = ["FLOW", "Faults", "Steps", "raise_faults"]

FLOW = ("stage", "step", "units", "kind")  # columns of the table


class Steps:
    """Counts of the units that leave the fit of a stage, each at the first reason that applies."""

    def __init__(self, stage: str, rows: int):
        self.stage = stage
        self.left = np.ones(rows, dtype=bool)
        self.rows: list[tuple[str, int, str]] = [("units", rows, "")]
        self.masks: dict[str, np.ndarray] = {}
        self.said: list[tuple[str, int, str]] = []

    def drop(self, reason: str, mask: np.ndarray, kind: str = "design") -> None:
        """Take units out; ``kind`` is ``"design"``, ``"missing"`` or ``"off_protocol"``."""
        gone = self.left & mask
        self.left &= ~mask
        if gone.any():
            self.rows.append((reason, int(gone.sum()), kind))
            self.masks[reason] = gone

    def say(self, what: str, mask: np.ndarray) -> None:
        """Count units among those that are left."""
        if (self.left & mask).any():
            self.said.append((what, int((self.left & mask).sum()), ""))

    def table(self) -> pd.DataFrame:
        """Stage, step, units, kind."""
        rows = [*self.rows, ("in the fit", int(self.left.sum()), ""), *self.said]
        return pd.DataFrame(
            [(self.stage, step, count, kind) for step, count, kind in rows],
            columns=list(FLOW),
        )


class Faults:
    """Exclusions that are errors unless the user says otherwise."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, str]] = []
        self.assumed: list[str] = []

    def assume(self, steps: Steps, action: np.ndarray, labels: Sequence[str]) -> None:
        """Note whom a stage loses of those with an action, by arm, and what is assumed of them."""
        gone = np.zeros(len(action), dtype=bool)
        for reason, _, kind in steps.rows:
            if kind == "missing":
                gone |= steps.masks[reason]
        gone &= (action >= 0) & (action < len(labels))
        if gone.any():
            counts = np.bincount(action[gone], minlength=len(labels))
            by_arm = ", ".join(f"{a} {n:,}" for a, n in zip(labels, counts, strict=True))
            self.assumed.append(
                f"stage {steps.stage}: {int(gone.sum()):,} units with an action are left out of the fit as "
                f"values are missing ({by_arm}). That is right if, given what is in the model, whether a "
                "value is missing does not depend on the outcome."
            )

    def add(self, steps: Steps, units: np.ndarray) -> None:
        """Note the exclusions of a stage that may be errors."""
        for reason, count, kind in steps.rows:
            if kind in ("missing", "off_protocol"):
                where = some(units[steps.masks[reason]])
                text = f"stage {steps.stage}: {reason} for {count:,} units ({where})"
                self.found.append((kind, steps.stage, text))


def raise_faults(faults: Faults, missing: str, off_protocol: str) -> None:
    """Raise what the user has not said to exclude."""
    chosen = {"missing": missing, "off_protocol": off_protocol}
    texts = [text for kind, _, text in faults.found if chosen[kind] == "error"]
    if not texts:
        return
    kinds = {kind for kind, _, _ in faults.found if chosen[kind] == "error"}
    ways = [f'{kind}="exclude"' for kind in ("missing", "off_protocol") if kind in kinds]
    raise DataError(
        "Units cannot take part as the data are: "
        + "; ".join(reversed(texts))
        + f". Correct the data, name those outside by design with eligible=, or pass "
        f"{' and '.join(ways)} to leave them out of the fit of that stage, counted."
    )
