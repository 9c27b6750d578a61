"""A simulated SMART of physical activity, whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdtr.results.arguments import whole

if TYPE_CHECKING:
    import pandas as pd

    from bdtr.trial.trial import Trial

__all__ = ["activity", "activity_trial"]


def activity(units: int = 480, clinics: int = 24, seed: int = 2026) -> pd.DataFrame:
    """Simulate a two-stage trial of ways to have people walk more; no real person is in it.

    Everyone begins with an app or a coach. Who walks 1,000 steps a day more after four weeks goes on as
    before; the others are randomised again, to messages or a coach on top. With S0 the steps at the start,
    u clinic effects with SDs .6 and .4, and noise with SD 1 (in thousand steps a day)

        S1 = S0 + .5 + (.4 + u1 - .15 (S0 - 6)) coach + u0 + noise,
        S2 = S1 + .3 + (.2 + .3 (6 - S1)) [coach later] + noise,

    the last term for non-responders alone, against messages.

    Parameters
    ----------
    units
        Number of people, dealt out evenly to the clinics.
    clinics
        Number of clinics.
    seed
        Seed of the simulation.

    Returns
    -------
    pandas.DataFrame
        ``id``, ``clinic``, ``steps0``, ``a1`` (app, coach), ``steps1``, ``responder`` (1, 0), ``a2``
        (messages, coach; missing for responders) and ``steps2``, steps in thousands a day.

    Examples
    --------
    >>> activity().shape
    (480, 8)
    """
    import numpy as np
    import pandas as pd

    whole("units", units, 1, 10_000_000)
    whole("clinics", clinics, 1, 10_000_000)
    whole("seed", seed, 0)
    rng = np.random.default_rng(seed)
    clinic = np.arange(units) % clinics
    u = rng.normal(size=(clinics, 2)) * (0.6, 0.4)
    steps0 = np.clip(rng.normal(6, 1.5, units), 1, None)
    coach = rng.integers(0, 2, units)
    blip = 0.4 + u[clinic, 1] - 0.15 * (steps0 - 6)
    steps1 = steps0 + 0.5 + blip * coach + u[clinic, 0] + rng.normal(size=units)
    responder = (steps1 - steps0 >= 1).astype(int)
    later = rng.integers(0, 2, units)
    gain = np.where(responder == 1, 0.0, (0.2 + 0.3 * (6 - steps1)) * later)
    steps2 = steps1 + 0.3 + gain + rng.normal(size=units)
    return pd.DataFrame(
        {
            "id": [f"p{i:03d}" for i in range(units)],
            "clinic": [f"clinic {c + 1}" for c in clinic],
            "steps0": steps0.round(2),
            "a1": np.where(coach == 1, "coach", "app"),
            "steps1": steps1.round(2),
            "responder": responder,
            "a2": pd.Series(np.where(later == 1, "coach", "messages")).mask(responder == 1),
            "steps2": steps2.round(2),
        }
    )


def activity_trial() -> Trial:
    """The trial of :func:`activity`: payoff ``steps2``, site ``clinic``.

    Examples
    --------
    >>> [stage.action for stage in activity_trial().stages]
    ['a1', 'a2']
    """
    from bdtr.trial.trial import Stage, Trial

    first = Stage("a1", actions=["app", "coach"], formula="steps0 * a1 + (1 + a1 | clinic)")
    second = Stage(
        "a2",
        actions=["messages", "coach"],
        among="responder == 0",
        formula="steps0 + a1 + steps1 * a2 + (1 | clinic)",
    )
    return Trial([first, second], outcome="steps2", unit="id", site="clinic")
