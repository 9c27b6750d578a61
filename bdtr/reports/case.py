"""What the parts of a report work from: the fit, the choices of its authors, results that several need."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from bdtr.backward.regimes import Regime
from bdtr.decisions.recommendation import recommend_known
from bdtr.reports.blocks import Block, figure as figure_block
from bdtr.reports.choices import Choices, compared
from bdtr.results.estimates import kind_of
from bdtr.values.regimevalues import Values
from bdtr.values.valuation import value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bdtr.backward.fitted import Fit

__all__ = ["Case"]


@dataclass
class Case:
    """A fit that is reported."""

    fit: Fit
    choices: Choices
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Unit of the payoff, for axes and headings."""
        return self.fit.trial.outcome or "payoff"

    @property
    def kind(self) -> str:
        """Kind and level of the intervals."""
        return kind_of(self.choices.interval)

    @property
    def shown(self) -> bool:
        """Whether actions may be recommended in the state of the fit."""
        return self.fit.state.level != "refused" or bool(self.choices.override)

    @cached_property
    def regimes(self) -> list[Regime]:
        """The recommended regime, those embedded in the trial, and those that the authors add."""
        return compared(self.fit.require_data("a report"), self.choices.regimes)

    @cached_property
    def values(self) -> Values:
        """Values of these regimes in the population of the report."""
        c = self.choices
        return value(
            self.fit,
            *self.regimes,
            population=c.population,
            interval=c.interval,
            progress=c.progress,
        )

    @cached_property
    def actions(self) -> pd.DataFrame:
        """Recommendations for the units of the trial who have a choice."""
        c = self.choices
        actions = recommend_known(self.fit, c.interval, c.override).actions
        return actions[actions["choices"] > 1]

    @property
    def reference(self) -> str:
        """The regime that the others are compared with: the authors', or the first embedded one."""
        names = [str(n) for n in self.values.draws["regime"].to_numpy()]
        if self.choices.reference is not None:
            return self.choices.reference
        return names[1] if len(names) > 1 else names[0]

    def draw(self, name: str, figure: Figure, caption: str) -> Block:
        """Keep a figure for the page, and the block that shows it."""
        self.figures[name] = figure
        return figure_block(name, caption, str(figure.get_label()))

    def said(self, name: str) -> Any:
        """A text of the authors, or None."""
        return self.choices.texts.get(name)
