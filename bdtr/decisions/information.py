r"""What it is worth to know more before deciding: everything, one site's blips, or a new trial's results.

With Q(a) the payoffs of a unit, data or knowledge D to come,

    value of D = E_D[ max_a E(Q(a) | D) ] - max_a E Q(a)   >= 0,

the mean over units. Perfect information: D says what the parameters are, E max_a Q(a) - max_a E Q(a).
For partial information E(Q(a) | D) is the regression of Q(a) on what is learned, over draws: linear, hence
exact where they are jointly normal (Strong, Oakley and Brennan 2014, Med. Decis. Making 34(3), on
regression; Jalal and Alarid-Escudero 2018, Med. Decis. Making 38(2), on the linear normal case).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bdtr.backward.fitted import Fit
from bdtr.backward.induction import BackwardPass
from bdtr.backward.passes import backward_pass, backward_passes
from bdtr.backward.residuals import linear_predictor
from bdtr.backward.unit_columns import columns_of
from bdtr.decisions.outcome_spread import arm_means, outcome_variance
from bdtr.engine.compiled.streams import children
from bdtr.engine.crossproducts import ResponseProducts, Rows, cross_products, weighted
from bdtr.engine.layout import Factor, layout
from bdtr.engine.parameters import Parameters
from bdtr.results.arguments import a_fit, is_whole, number_list, one_of, whole
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State
from bdtr.results.errors import ArgumentError
from bdtr.results.progress import progress_bar
from bdtr.stages.coded_priors import parameters
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.prediction import StageDraws
from bdtr.trial.priors import HalfNormal
from bdtr.values.siteblips import site_blips
from bdtr.values.valuation import mean_payoffs

__all__ = ["Information", "perfect_information", "sample_information", "site_information"]

_CELLS = 4_000_000  # simulated outcomes in memory at once


@dataclass(frozen=True, repr=False)
class Information(Shown):
    """What knowing more is worth: ``table`` with its mean per unit, ``by_unit`` where it is of units."""

    table: pd.DataFrame
    about: str
    state: State
    by_unit: pd.DataFrame | None = None

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return f"{self.state}. {self.about}; in units of the outcome, mean per unit."

    def _shown(self) -> list[pd.DataFrame]:
        """The table with small numbers readable."""
        small = self.table.columns.intersection(["value", "mc_error"])
        return [self.table.assign(**{c: self.table[c].map("{:.2g}".format) for c in small})]


def perfect_information(fit: Fit, progress: bool = False) -> Information:
    """Expected value of perfect information: for the whole decision, per stage and per unit.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    progress
        Whether to show progress of the backward pass that has to be run.

    Returns
    -------
    Information
        ``table`` has the value for each stage, over its units with complete history and with the later
        stages recommended, and for ``"all stages"``: the best actions of all stages in every draw against
        the recommended regime, both passes on the same random numbers. ``by_unit`` has the value per unit
        and stage, which is the expected regret of the recommended action.

    Examples
    --------
    >>> found = bdtr.decisions.perfect_information(fit)
    >>> list(found.table)
    ['units', 'value']
    """
    a_fit(fit)
    data, done = fit.require_data("the value of information"), backward_pass(fit)
    rows, parts = [], []
    for k, stage in enumerate(data.stages):
        units = np.flatnonzero(stage.history)
        found = np.concatenate(
            [_gain(q, free) for q, free, _ in _blocks(fit, done, k, units)] or [np.zeros(0)]
        )
        name = stage.stage.action
        rows.append((name, len(units), found.mean() if len(units) else np.nan))
        parts.append(pd.DataFrame({"unit": data.units[units], "stage": name, "value": found}))
    units, sign = np.flatnonzero(data.valued), (1.0 if data.trial.higher_is_better else -1.0)
    passes = backward_passes(fit, ["optimal", "recommended"], progress)
    best, followed = (mean_payoffs([one], units)[0].mean() for one in passes)
    rows.append(("all stages", len(units), sign * (best - followed)))
    table = pd.DataFrame(rows, columns=["stage", "units", "value"]).set_index("stage")
    about = (
        "Expected value of perfect information; population: sample; of one stage: later stages recommended; "
        "of all stages: the best actions of every draw against the recommended regime"
    )
    return Information(table, about, fit.state, pd.concat(parts, ignore_index=True))


def site_information(fit: Fit, stage: str | None = None) -> Information:
    """Expected value of learning one site's blips, for each site.

    A study at the site would find out the mean blip of each action there; what that says of its units'
    own blips is a linear regression over draws.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of a stage; left out: the first.

    Returns
    -------
    Information
        Per site ``units``, the ``value`` per unit of the site, and its ``share`` of what perfect
        information would be worth there (NaN where that is nothing).

    Raises
    ------
    ValueError
        If the trial has no sites, or no such stage.

    Examples
    --------
    >>> found = bdtr.decisions.site_information(fit, "a1")
    >>> list(found.table)
    ['units', 'value', 'share']
    """
    a_fit(fit)
    blips = site_blips(fit, stage)
    k = fit.stage_index(blips.stage)
    data, design, done = (
        fit.require_data("the value of information"),
        fit.designs[k],
        backward_pass(fit),
    )
    labels = list(data.site_levels)
    learned = (
        blips.draws.sel(site=labels).transpose("site", "action", "chain", "draw").to_numpy()[:, 1:]
    )
    learned = np.nan_to_num(learned.reshape(*learned.shape[:2], -1))
    learned -= learned.mean(axis=2, keepdims=True)
    covariance = learned @ np.swapaxes(learned, 1, 2) / learned.shape[2]
    inverse = np.linalg.pinv(covariance, hermitian=True)
    units = np.flatnonzero(data.stages[k].history)
    gains, most, counts = np.zeros((3, len(labels)))
    for q, free, rows in _blocks(fit, done, k, units):
        site = design.site_codes(data.frame.iloc[rows])
        mean = q.mean(axis=2, keepdims=True)
        slope = np.einsum("aus,ubs->aub", q - mean, learned[site]) / q.shape[2]
        known = mean + np.einsum(
            "aub,ubc,ucs->aus", slope, inverse[site], learned[site], optimize=True
        )
        for total, found in ((gains, _gain(known, free)), (most, _gain(q, free))):
            total += np.bincount(site, found, len(labels))
        counts += np.bincount(site, minlength=len(labels))
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame(
            {"units": counts.astype(int), "value": gains / counts, "share": gains / most},
            index=pd.Index(labels, name="site"),
        )
    unlike = int((~data.stages[k].feasible[units, 0]).sum())
    about = (
        f"Expected value of learning a site's blips of stage {blips.stage}, for decisions there; "
        "later stages recommended"
    )
    if unlike:
        about += f"; {unlike:,} units who may not take {blips.reference} learn from those of others at best"
    return Information(table, about, fit.state)


def _blocks(
    fit: Fit, done: BackwardPass, k: int, units: np.ndarray, sites: str = "observed"
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Payoffs (action, unit, sample), larger ones better, feasible actions, and units, block by block.

    Where values were imputed, all draws are given the histories of the first completed data set: what is to
    be learned are parameters, not values that were not recorded.
    """
    first = fit.parts[0] if fit.parts else fit
    stage = first.require_data("the value of information").stages[k]
    sign = 1.0 if fit.trial.higher_is_better else -1.0
    q = first.q_of(k, fit.q_function(k, sites=sites).draws, sites) if fit.parts else None
    for rows in done.blocks(units):
        values = q.evaluate(columns_of(first, k, rows)) if q else done.q_values(k, rows)
        yield sign * values, stage.feasible[rows], rows


def _gain(known: np.ndarray, feasible: np.ndarray) -> np.ndarray:
    """Mean of the best of what is known (action, unit, sample) minus the best of its mean (unit).

    Taken against the action that is best on average, in every sample: it cannot be negative, and chance
    differences between means of samples cancel.
    """
    free = feasible.T
    now = np.where(free, known.mean(axis=2), -np.inf).argmax(axis=0)
    best = np.where(free[:, :, None], known, -np.inf).max(axis=0)
    return (best - known[now, np.arange(known.shape[1])]).mean(axis=1)


def sample_information(
    fit: Fit,
    stage: str,
    sizes: Sequence[int] = (10, 20, 50, 100),
    at: str = "new sites",
    simulations: int | None = None,
    random_seed: int | None = None,
    progress: bool = False,
) -> Information:
    r"""Expected value of a new trial of one stage, for several sizes.

    A trial of n sites is made of n of this trial's sites, drawn with replacement: their units, histories,
    actions and classes, with new effects of sites and classes and new outcomes, later stages
    recommended. For draws s of the posterior one such trial each is simulated,

        y = X b^(s) + Z u + e,    u ~ N(0, Sigma^(s)),    e ~ N(0, spread of outcomes given history),

    and analysed by the direct sampler, with the current posterior of the common coefficients b, taken as
    normal, as their prior; SDs have the priors of this trial's model. What it says of b is E(b | y); what
    that says of a unit's payoffs is their linear regression on b over draws.

    Where payoffs are not Gaussian, y is a working response: at the last stage e has the variance 1 / w of the
    outcome's information w on its linear predictor, at an earlier one Var(Y | h, a) / mu'^2, as in reweighted
    least squares; what a trial says of b is right to first order in the size of what it adds.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of a stage.
    sizes
        Numbers of new sites; of new units where the trial has no sites.
    at
        Who is decided about: units like the trial's at ``"new sites"``, by a rule free of site effects, or
        the trial's units at ``"its sites"``.
    simulations
        Number of trials simulated for each size, from as many draws of the posterior; left out: 250, or
        as many draws as there are.
    random_seed
        Seed; left out: that of the fit.
    progress
        Whether to show progress.

    Returns
    -------
    Information
        Per size ``value`` and its Monte-Carlo standard error ``mc_error``; the last row, size infinity,
        is the value of knowing b.

    Raises
    ------
    ValueError
        If the arguments do not fit the trial, or the stage or a later one has a model of your own.

    Examples
    --------
    >>> found = bdtr.decisions.sample_information(fit, "a1", sizes=(20, 80))
    >>> list(found.table)
    ['value', 'mc_error']
    """
    a_fit(fit)
    k = fit.stage_index(stage)
    one_of("at", at, _AT)
    if not number_list("sizes", sizes, 1) or not all(map(is_whole, sizes)):
        raise ArgumentError(f"sizes={sizes!r}: name whole numbers above 0.")
    most = fit.settings.propagated
    simulations = min(250, most) if simulations is None else simulations
    whole("simulations", simulations, 2, most)
    simulated = _Simulator.of(fit, k, np.linspace(0, most - 1, simulations).astype(int))
    seeds = children(fit.settings.stream("new trial", random_seed), len(sizes))
    learned = []
    with progress_bar(progress, f"new trials of stage {stage}") as report:
        for i, (size, seed) in enumerate(zip(sizes, seeds, strict=True)):
            learned.append(simulated.learned(int(size), seed))
            if report:
                report(i + 1, len(sizes))
    learned.append(simulated.known)
    values = _learning(fit, k, simulated.known, learned, _AT[at])
    found = pd.DataFrame(
        {
            "value": [one.mean() for one in values],
            "mc_error": [one.std(ddof=1) / np.sqrt(len(one)) for one in values],
        },
        index=pd.Index([*map(float, sizes), np.inf], name="sites" if fit.trial.site else "units"),
    )
    about = f"Expected value of a new trial of stage {stage} for decisions at {at}; later stages recommended"
    return Information(found, about, fit.state)


_AT = {"new sites": "average", "its sites": "observed"}


def _learning(
    fit: Fit, k: int, known: np.ndarray, learned: Sequence[np.ndarray], where: str
) -> list[np.ndarray]:
    """Value of what is learned of b, mean over units: per kind of trial one for each simulation.

    ``known`` are the draws of b, standardised (term, sample), ``learned`` what is expected of them.
    """
    data = fit.require_data("the value of information")
    (done,) = backward_passes(fit, [None], sites=where)
    units = np.flatnonzero(data.stages[k].history)
    out = [np.zeros(one.shape[1]) for one in learned]
    for q, feasible, _ in _blocks(fit, done, k, units, where):
        mean = q.mean(axis=2)
        slope = (q - mean[:, :, None]) @ known.T / known.shape[1]
        free = feasible.T
        now = np.where(free, mean, -np.inf).argmax(axis=0)
        for i, one in enumerate(learned):
            then = np.where(free[:, :, None], mean[:, :, None] + slope @ one, -np.inf)
            out[i] += (then.max(axis=0) - then[now, np.arange(len(now))]).sum(axis=0)
    return [one / len(units) for one in out]


@dataclass(frozen=True)
class _Noise:
    """Outcomes of a new trial about their means: rows of the stage's fit with their weights, parameters of
    the analysis and its grouping factors, and SDs of an outcome with a weight of 1 (action, sample), in the
    units of the engine."""

    rows: Rows
    params: Parameters
    factors: tuple[Factor, ...]
    sd: np.ndarray


def _noise(fit: Fit, k: int) -> _Noise:
    model, posterior, payoff = fit.model(k), fit.posterior(k), fit.payoff(k)
    variance = outcome_variance(fit, k, classes=False)
    assert isinstance(model, OutcomeModel)
    # Bends of smooth terms are among the coefficients: a new trial adds to what is known of them.
    groups = model.factors[: len(model.design.groups)]
    old = model.rows
    rows = replace(
        old,
        x=np.hstack([old.x, *old.z[len(groups) :]]),
        z=old.z[: len(groups)],
        codes=old.codes[: len(groups)],
    )
    if not payoff.family.closed_form:  # the last stage
        from bdtr.stages.laplace import information

        weight = information(model, posterior, linear_predictor(fit, k, model))
        priors = replace(model.engine_priors, sigma=HalfNormal(2.0))  # it is 1
        return _Noise(
            weighted(replace(rows, stratum=None, strata=1), weight),
            parameters(groups, priors, 1),
            groups,
            np.ones(variance.shape),
        )
    params = parameters(groups, model.engine_priors, rows.strata)
    if not payoff.family.quasi:
        return _Noise(rows, params, groups, np.sqrt(variance) / model.spread)
    # Rows have the weight mu' = v(mu): the variance of a working response is Var(Y) / v(mu)^2.
    assert rows.weight is not None
    size = np.ptp(payoff.ends)
    stage = fit.require_data("a new trial").stages[k]
    arm = stage.action[stage.fitted]
    own = arm_means(rows.weight, arm, len(variance))
    return _Noise(rows, params, groups, np.sqrt(variance / own[:, None]) / size)


@dataclass(frozen=True)
class _Simulator:
    """Makes new trials of one stage and says what is learned from them.

    ``known`` are the draws of the common coefficients, in units in which they have mean zero and are
    uncorrelated with variance one (term, sample); ``drawn`` those that trials are simulated from, ``roots``
    and ``sd`` the group effects and the spread of outcomes in them; ``columns`` the rows of the stage's
    fit, its common columns in the same units; ``home`` the site (or unit) of each row.
    """

    known: np.ndarray
    drawn: np.ndarray
    columns: Rows
    factors: tuple[Factor, ...]
    params: Parameters
    roots: tuple[np.ndarray, ...]
    sd: np.ndarray
    action: np.ndarray
    home: np.ndarray

    @classmethod
    def of(cls, fit: Fit, k: int, some: np.ndarray) -> _Simulator:
        data, model, draws = fit.require_data("a new trial"), fit.model(k), fit.q_function(k).draws
        if data.trial.site is None and fit.designs[k].groups:
            raise ArgumentError(
                f"new_trial: stage {fit.designs[k].action} has groups such as classes, and the trial names "
                "no site to draw them with. Name a site column."
            )
        noise = _noise(fit, k)
        assert isinstance(model, OutcomeModel)
        assert isinstance(draws, StageDraws)
        b = draws.coefficients
        mean = b.mean(axis=1, keepdims=True)
        total = np.atleast_2d(np.cov(b))
        root = np.linalg.cholesky(total + 1e-12 * np.trace(total) / len(b) * np.eye(len(b)))
        known = np.linalg.solve(root, b - mean)
        rows, stage = noise.rows, data.stages[k]
        params, turns = noise.params, {g.name: g.measure.back for g in model.design.groups}
        p = len(b)
        site = model.design.site_codes(data.frame.iloc[np.flatnonzero(stage.fitted)])
        return cls(
            known,
            np.ascontiguousarray(known[:, some]),
            replace(rows, x=rows.x @ root / model.spread),
            noise.factors,
            replace(params, precision=np.ones(p), mean=np.zeros(p)),
            tuple(turns[f.name] @ draws.root[f.name][some] / model.spread for f in noise.factors),
            noise.sd[:, some],
            stage.action[stage.fitted],
            site if data.trial.site else np.arange(len(site)),
        )

    def learned(self, size: int, seed: np.random.SeedSequence) -> np.ndarray:
        """Posterior means of the coefficients after a new trial for each draw (term, simulation)."""
        from bdtr.engine.coefficients.exact import solve
        from bdtr.engine.direct import draw_each
        from bdtr.engine.system import system

        which, noise, sampler = children(seed, 3)
        rows, copy = self._rows(size, np.random.default_rng(which))
        codes = [_recoded(copy, code[rows]) for code in self.columns.codes]
        factors = tuple(
            replace(f, levels=int(c.max(initial=-1)) + 1)
            for f, c in zip(self.factors, codes, strict=True)
        )
        old = self.columns
        columns = replace(
            old,
            x=old.x[rows],
            z=tuple(z[rows] for z in old.z),
            codes=tuple(codes),
            stratum=None if old.stratum is None else old.stratum[rows],
            weight=None if old.weight is None else old.weight[rows],
        )
        with threadpool_limits(1):  # the same bits on any number of threads
            where = layout(factors, columns.codes)
            products = cross_products(columns, where)
            total = ResponseProducts(columns, where, self.drawn.shape[1])
            for at, y in self._outcomes(columns, factors, rows, np.random.default_rng(noise)):
                total.add(at, y)
            responses = total.responses
            phi = draw_each(products, responses, self.params, sampler).phi
            every = responses.each(np.arange(len(phi)))
            found, _ = solve(phi, system(products, self.params), *every, self.params, where)
        return found.T

    def _rows(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Rows of sites drawn with replacement, and the number of the copy that each belongs to."""
        places, start, counts = np.unique(np.sort(self.home), return_index=True, return_counts=True)
        chosen = rng.integers(0, len(places), size)
        order = np.argsort(self.home, kind="stable")
        lengths = counts[chosen]
        offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return order[np.repeat(start[chosen], lengths) + offset], np.repeat(
            np.arange(size), lengths
        )

    def _outcomes(
        self,
        columns: Rows,
        factors: Sequence[Factor],
        rows: np.ndarray,
        rng: np.random.Generator,
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Outcomes (row, simulation) of the new trial under each draw, in blocks of rows."""
        samples = self.drawn.shape[1]
        effects = [
            np.einsum("sij,lsj->lis", root, rng.standard_normal((f.levels, samples, f.terms)))
            for root, f in zip(self.roots, factors, strict=True)
        ]
        step = max(1, _CELLS // samples)
        for first in range(0, len(rows), step):
            at = slice(first, first + step)
            y = columns.x[at] @ self.drawn
            for u, z, code in zip(effects, columns.z, columns.codes, strict=True):
                y += np.einsum("rt,rts->rs", z[at], u[code[at]])
            spread = self.sd[self.action[rows[at]]]
            if columns.weight is not None:
                spread = spread / np.sqrt(columns.weight[at])[:, None]
            yield at, y + spread * rng.standard_normal(y.shape)


def _recoded(copy: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Levels of each copy are its own."""
    joined = copy.astype(np.int64) * (int(code.max(initial=0)) + 1) + code
    return np.unique(joined, return_inverse=True)[1]
