"""A simulated SMART of children with ADHD: monthly ratings, children lost, adherence not always recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdtr.results.arguments import truth, whole

if TYPE_CHECKING:
    import pandas as pd

    from bdtr.trial.trial import Trial

__all__ = ["adhd", "adhd_trial", "adhd_truth"]

_MONTHS = 8
_MANY = 1_000_000  # children from which the truth is computed
_SEED = 2012


def adhd(units: int = 150, seed: int = 1, complete: bool = False) -> pd.DataFrame:
    """Simulate a SMART of ways to help children with ADHD at school; no real child is in it.

    Its shape is that of a trial of medication and behaviour modification (Nahum-Shani and others 2012,
    Psychol. Methods 17(4)): teachers rate each child at the start and in months 1 to 8, higher is better.
    Children begin with medication or behaviour modification. Those whose rating has not risen by .6 after two
    months are randomised again, to more of the same (``intensify``) or both (``add``). With severity s,
    oppositional behaviour o, earlier medication p, M for medication and h for high adherence

        rating_0 = 2.5 - .4 s - .2 o + noise (SD .4)
        P(h) = expit(.4 + .5 (1 - M) + .8 p M - .4 o)
        rating_2 = rating_0 + .2 + (.05 + .3 p - .2 o) M + .35 h + noise (SD .4)
        rating_8 = rating_2 + .1 + (.1 + (.45 - .7 h) [add]) [no responder] + v + noise (SD .25),

    v, with SD .35, is how a child goes on; ratings of months 3 to 7 lie on the way, with the same noise.
    Adding is better for those who did not adhere (by .45), and worse for those who did (by .25).

    About 8 % of the children are lost, more of those whose last rating was low or who are oppositional, in
    any month; adherence is missing for about 15 %, more often where the rating in month 2 was low and in
    behaviour modification; of the other monthly ratings 3 % are missing. All of it is missing at random given
    what is recorded before and, for adherence, the rating of the same month.

    Parameters
    ----------
    units
        Number of children.
    seed
        Seed of the simulation.
    complete
        Whether to give the data before anything is missing.

    Returns
    -------
    pandas.DataFrame
        ``child``, ``severity``, ``odd`` and ``premed`` (1, 0), ``rating_0``, ``a1`` (medication, behaviour),
        ``rating_1``, ``rating_2``, ``adherence`` (low, high), ``responder`` (1, 0), ``a2`` (intensify, add;
        missing for responders), ``rating_3`` to ``rating_8``.

    Examples
    --------
    >>> children = adhd()
    >>> len(children), int(children["rating_8"].isna().sum())
    (150, 16)
    """
    import pandas as pd

    whole("units", units, 1, 10_000_000)
    whole("seed", seed, 0)
    truth("complete", complete)
    rng = np.random.default_rng(seed)
    medication, add = rng.integers(0, 2, (2, units))
    found = _children(rng, units, medication, add)
    frame = pd.DataFrame(
        {
            "child": [f"c{i:03d}" for i in range(units)],
            "severity": found["severity"],
            "odd": found["odd"],
            "premed": found["premed"],
            "rating_0": found["rating_0"].round(1),
            "a1": np.where(medication == 1, "medication", "behaviour"),
            "rating_1": found["rating_1"].round(1),
            "rating_2": found["rating_2"].round(1),
            "adherence": np.where(found["high"] == 1, "high", "low"),
            "responder": found["responder"].astype(float),
            "a2": pd.Series(np.where(add == 1, "add", "intensify")).mask(found["responder"] == 1),
            **{f"rating_{t}": found[f"rating_{t}"].round(1) for t in range(3, _MONTHS + 1)},
        }
    )
    return frame if complete else _with_gaps(rng, frame)


def _expit(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _children(
    rng: np.random.Generator, units: int, medication: np.ndarray, add: np.ndarray
) -> dict[str, np.ndarray]:
    """What becomes of children under these actions; those who respond go on as before."""
    severity = rng.normal(size=units).round(1)
    odd, premed = (rng.random(units) < 0.4).astype(int), (rng.random(units) < 0.3).astype(int)
    start = 2.5 - 0.4 * severity - 0.2 * odd + rng.normal(0, 0.4, units)
    adheres = 0.4 + 0.5 * (1 - medication) + 0.8 * premed * medication - 0.4 * odd
    high = (rng.random(units) < _expit(adheres)).astype(int)
    effect = (0.05 + 0.3 * premed - 0.2 * odd) * medication
    second = start + 0.2 + effect + 0.35 * high + rng.normal(0, 0.4, units)
    responder = (second.round(1) - start.round(1) >= 0.6 - 1e-9).astype(int)
    gain = 0.1 + np.where(responder == 1, 0.0, 0.1 + (0.45 - 0.7 * high) * add)
    own = rng.normal(0, 0.35, units)
    out = {"severity": severity, "odd": odd, "premed": premed, "high": high, "responder": responder,
           "rating_0": start, "rating_2": second}  # fmt: skip
    out["rating_1"] = (start + second) / 2 + rng.normal(0, 0.25, units)
    for t in range(3, _MONTHS + 1):
        way = (t - 2) / (_MONTHS - 2)
        out[f"rating_{t}"] = second + way * (gain + own) + rng.normal(0, 0.25, units)
    return out


def _with_gaps(rng: np.random.Generator, frame: pd.DataFrame) -> pd.DataFrame:
    """The data as they come in: children lost, adherence and single ratings not recorded."""
    out, here = frame.copy(), np.ones(len(frame), dtype=bool)
    for t in range(1, _MONTHS + 1):
        before = frame[f"rating_{t - 1}"].to_numpy()
        lost = here & (
            rng.random(len(frame)) < _expit(-4.7 - 0.8 * (before - 2.5) + 0.5 * frame["odd"])
        )
        here &= ~lost
        gone = [f"rating_{m}" for m in range(t, _MONTHS + 1)]
        gone += ["adherence", "responder", "a2"] if t <= 2 else []
        out.loc[lost, gone] = None
    low = 2.6 - frame["rating_2"].to_numpy()
    silent = rng.random(len(frame)) < _expit(-2.2 + 0.8 * low + 0.6 * (frame["a1"] == "behaviour"))
    out.loc[silent, "adherence"] = None
    for t in (1, *range(3, _MONTHS + 1)):
        out.loc[rng.random(len(frame)) < 0.03, f"rating_{t}"] = np.nan
    return out


def adhd_trial() -> Trial:
    """The trial of :func:`adhd`: payoff ``rating_8``, non-responders randomised again.

    Examples
    --------
    >>> [stage.action for stage in adhd_trial().stages]
    ['a1', 'a2']
    """
    from bdtr.trial.trial import Stage, Trial

    first = Stage(
        "a1", actions=["medication", "behaviour"],
        formula="severity + odd * a1 + premed * a1 + rating_0 * a1",
    )  # fmt: skip
    second = Stage(
        "a2",
        actions=["intensify", "add"],
        among="responder == 0",
        formula="severity + odd + premed + rating_0 + a1 + rating_2 * a2 + adherence * a2",
        outside="arm",
    )
    return Trial([first, second], outcome="rating_8", unit="child")


def adhd_truth() -> pd.DataFrame:
    """The true mean rating in month 8 if all children followed a regime of :func:`adhd`.

    Returns
    -------
    pandas.DataFrame
        By ``regime``: the ``value``, the mean over a million simulated children (Monte-Carlo error .001),
        for those embedded in the trial, with the columns ``a1`` and ``a2``, and for those that add
        behaviour modification or medication for children who did not adhere and intensify for others.

    Examples
    --------
    >>> adhd_truth()["value"].round(2).to_dict()["medication; by adherence"]
    3.19
    """
    import pandas as pd

    rows = []
    for medication, first in ((1, "medication"), (0, "behaviour")):
        values = {}
        for add, second in ((0, "intensify"), (1, "add")):
            rng = np.random.default_rng(_SEED)
            found = _children(rng, _MANY, np.full(_MANY, medication), np.full(_MANY, add))
            values[second] = found["rating_8"]
            high = found["high"] == 1
            rows.append((f"{first}; {second}", first, second, values[second].mean()))
        best = np.where(high, values["intensify"], values["add"])
        rows.append((f"{first}; by adherence", first, "by adherence", best.mean()))
    table = pd.DataFrame(rows, columns=["regime", "a1", "a2", "value"])
    return table.set_index("regime")
