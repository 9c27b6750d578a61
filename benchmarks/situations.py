"""Trials of the kinds in which values went wrong once: bias and coverage where the truth is known.

Each function takes the name of a design and a seed, simulates a trial, fits it and returns for each quantity
its error, the share of 95 % intervals that hold the truth, and their mean width (means over places where
there are several). Values are those of the units at hand, so that the truth is the mean payoff given their
baseline history and the effects of their sites.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import expit

import bdtr

S = bdtr.Stage
Found = dict[str, list[float]]


def fitted(stages, frame: pd.DataFrame, seed: int, **trial) -> bdtr.Fit:
    """A fit in 400 draws; notes on terms that are added are not the subject here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bdtr.DesignWarning)
        return bdtr.fit(
            bdtr.Trial(stages, outcome="y", **trial), frame, sampler="direct", draws=100,
            propagated=400, random_seed=seed, progress=False,
        )  # fmt: skip


def against(draws: xr.DataArray, truth) -> list[float]:
    """Error, coverage and width of 95 % intervals; ``truth`` has the order of the places of ``draws``."""
    flat = draws.stack(sample=("chain", "draw")).transpose("sample", ...).to_numpy()
    flat, truth = flat.reshape(len(flat), -1), np.atleast_1d(truth)
    lower, upper = np.quantile(flat, [0.025, 0.975], axis=0)
    inside = (lower <= truth) & (truth <= upper)
    error = (flat.mean(axis=0) - truth).mean()
    return [float(error), float(inside.mean()), float((upper - lower).mean())]


def labels(site: np.ndarray) -> list[str]:
    """Labels of sites that sort as their numbers do."""
    return [f"s{j:03d}" for j in site]


@dataclass(frozen=True)
class Regime:
    """A regime and the payoff that it has on average, by unit."""

    name: str
    regime: bdtr.backward.Regime
    payoff: np.ndarray


# Fixed regimes: stages. Units who left a regime's path take its actions later where they are valued.
PLACES = ("two stages", "three stages")


def places(name: str, seed: int) -> Found:
    """Values overall, by subgroup and by site; 20 sites of 30, x = -1 or 1, blip of a2 N(0, .5^2) by site."""
    rng = np.random.default_rng([seed, 1, len(name)])
    site = np.repeat(np.arange(20), 30)
    n = len(site)
    u = rng.normal(size=(20, 2)) * [0.3, 0.5]
    x = 2.0 * rng.integers(0, 2, n) - 1
    a1, a2, a3 = rng.integers(0, 2, (3, n))
    m = 0.5 * x + rng.normal(size=n)
    base, blip = 0.05 * x + u[site, 0], 0.8 * x + u[site, 1]
    frame = pd.DataFrame({"site": labels(site), "x": x, "a1": a1, "m": m, "a2": a2})
    first = S("a1", actions=[0, 1], formula="x * a1 + (1 | site)")
    if name == "two stages":
        frame["y"] = base + 0.5 * m + 0.2 * a1 + a2 * blip + rng.normal(size=n)
        stages = [first, S("a2", actions=[0, 1], formula="a1 + m + x * a2 + (1 + a2 | site)")]
        untreated = base + 0.25 * x
        known = [
            Regime("(0, 0)", bdtr.static(a1=0, a2=0), untreated),
            Regime("(1, 1)", bdtr.static(a1=1, a2=1), untreated + 0.2 + blip),
        ]
    else:  # the reward of the last action goes with x, and differs between those on and off the path
        m3 = 0.5 * m + 0.3 * a2 + rng.normal(size=n)
        frame = frame.assign(m3=m3, a3=a3)
        frame["y"] = base + 0.5 * m3 + 0.2 * a1 + a2 * blip + 0.8 * a3 * x + rng.normal(size=n)
        second = S("a2", actions=[0, 1], formula="a1 + m + x * a2 + (1 + a2 | site)")
        third = "a1 + m + m3 + x * a2 + x * a3 + (1 + a2 | site)"
        stages = [first, second, S("a3", actions=[0, 1], formula=third)]
        untreated = base + 0.125 * x
        late = np.where(x > 0, 0.15 + blip + 0.8, 0.0)
        rule = bdtr.rule("x > 0", a1="1", a2="1 if x > 0 else 0", a3="1 if x > 0 else 0")
        known = [
            Regime("(1, 1, 1)", bdtr.static(a1=1, a2=1, a3=1), untreated + 0.35 + blip + 0.8 * x),
            Regime("1, then by x", rule, untreated + 0.2 + late),
        ]
    fit = fitted(stages, frame, seed, site="site")
    out: Found = {}
    ways = {
        "all units": None,
        "by x": np.where(x > 0, "1", "-1"),
        "by site": np.array(labels(site)),
    }
    for way, by in ways.items():
        draws = bdtr.value(fit, *(k.regime for k in known), by=by).draws["value"]
        group = np.zeros(n, dtype=int) if by is None else np.unique(by, return_inverse=True)[1]
        truth = [np.bincount(group, k.payoff) / np.bincount(group) for k in known]
        if by is not None:
            (dim,) = (d for d in draws.dims if d not in ("chain", "draw", "regime"))
            draws = draws.sortby(dim)
        one, two = (draws.isel(regime=i) for i in (0, 1))
        out[f"value of {known[0].name}, {way}"] = against(one, truth[0])
        out[f"value of {known[1].name}, {way}"] = against(two, truth[1])
        out[f"difference, {way}"] = against(two - one, truth[1] - truth[0])
    return out


# Noise of SD 2 in the quarter with the action, .5 in the others: in one stage without and with sites,
# and at the second of two.
ARMS = ("300 units", "30 sites of 20", "two stages")


def arms(name: str, seed: int) -> Found:
    """Values of both actions and their difference where the residual SD goes with the action."""
    rng = np.random.default_rng([seed, 2, len(name)])
    site = np.repeat(np.arange(30), 20) if "sites" in name else np.zeros(300, dtype=int)
    n = len(site)
    a = (rng.random(n) < 0.25) * 1
    u = rng.normal(size=(30, 2)) * ([0.3, 0.2] if "sites" in name else [0.0, 0.0])
    noise = np.where(a == 1, 2.0, 0.5) * rng.normal(size=n)
    frame = pd.DataFrame({"site": labels(site), "a": a})
    blip = 0.1 + u[site, 1]
    untreated = u[site, 0]
    if name == "two stages":
        first, m = rng.integers(0, 2, n), rng.normal(size=n)
        frame = frame.assign(first=first, m=m, y=0.4 * m + 0.3 * first + blip * a + noise)
        stages = [
            S("first", actions=[0, 1], formula="first"),
            S("a", actions=[0, 1], formula="first + m + a"),
        ]
        fit = fitted(stages, frame, seed)
        pair = bdtr.static(first=1, a=0), bdtr.static(first=1, a=1)
        untreated = untreated + 0.3
    else:
        frame["y"] = untreated + blip * a + noise
        formula = "a + (1 + a | site)" if "sites" in name else "a"
        more = {"site": "site"} if "sites" in name else {}
        fit = fitted([S("a", actions=[0, 1], formula=formula)], frame, seed, **more)
        pair = bdtr.static(a=0), bdtr.static(a=1)
    draws = bdtr.value(fit, *pair).draws["value"]
    zero, one = (draws.isel(regime=i) for i in (0, 1))
    truth = untreated.mean(), (untreated + blip).mean()
    out = {
        "value of 0": against(zero, truth[0]),
        "value of 1": against(one, truth[1]),
        "difference": against(one - zero, truth[1] - truth[0]),
    }
    if "sites" in name:
        by = bdtr.value(fit, *pair, by="site").draws["value"].sortby("site")
        out["difference, by site"] = against(by.isel(regime=1) - by.isel(regime=0), 0.1 + u[:, 1])
    return out


# Responders have no second decision: left out by among=, or with an action of their own.
RESPONDERS = ("among=", 'action "stay"')


def responders(name: str, seed: int) -> Found:
    """The first action, the later rule the same, over all units and by site; 20 sites of 30."""
    rng = np.random.default_rng([seed, 3])  # the same data in both designs
    site = np.repeat(np.arange(20), 30)
    n = len(site)
    u = rng.normal(size=(20, 2)) * 0.3
    x, a1 = rng.normal(size=n), rng.integers(0, 2, n)
    r, a2 = (rng.random(n) < 0.4) * 1, rng.integers(0, 2, n)
    base = 0.3 * x + u[site, 0]
    y = base + (0.2 + u[site, 1]) * a1 + np.where(r == 1, 0.8, 0.4 * a2) + rng.normal(size=n)
    frame = pd.DataFrame({"site": labels(site), "x": x, "a1": a1, "r": r, "y": y})
    text = a2.astype(str).astype(object)
    first = S("a1", actions=[0, 1], formula="x + a1 + (1 + a1 | site)")
    later = "x + a1 + a2 + (1 + a1 | site)"
    if name == "among=":
        second = S("a2", actions=["0", "1"], formula=later, among="r == 0")
        rule = "0"
        frame["a2"] = np.where(r == 1, None, text)
    else:
        feasible = {"r == 1": ["stay"], "r == 0": ["0", "1"]}
        second = S("a2", actions=["0", "1", "stay"], formula=later, feasible=feasible)
        rule = {"r == 1": "stay", "else": "0"}
        frame["a2"] = np.where(r == 1, "stay", text)
    fit = fitted([first, second], frame, seed, site="site")
    pair = [bdtr.rule(f"a1 = {a}", a1=a, a2=rule) for a in "01"]
    # Of those at hand 40 % respond on average: 0.8 for them, nothing for the others.
    treated = base + 0.2 + u[site, 1] + 0.32
    out: Found = {}
    for way, by in {"all units": None, "by site": "site"}.items():
        draws = bdtr.value(fit, *pair, by=by).draws["value"]
        group = np.zeros(n, dtype=int) if by is None else site
        draws = draws if by is None else draws.sortby("site")
        truth = np.bincount(group, treated) / np.bincount(group)
        apart = np.bincount(group, 0.2 + u[site, 1]) / np.bincount(group)
        out[f"value of a1 = 1, {way}"] = against(draws.isel(regime=1), truth)
        out[f"difference, {way}"] = against(draws.isel(regime=1) - draws.isel(regime=0), apart)
    return out


# What the blips of 40 sites go with, and whether the term that says so is in the model.
SITE_LEVEL = ("neither", "neither, terms", "size", "size, term", "share", "share, term")


def site_level(name: str, seed: int) -> Found:
    """The effect of an action over units and over sites, where blips N(.2, .3^2) go with size or share."""
    with_what, _, term = name.partition(", ")
    rng = np.random.default_rng([seed, 4, len(with_what)])
    sites = 40
    blip = 0.2 + np.sort(0.3 * rng.normal(size=sites))
    if with_what == "neither":
        blip = rng.permutation(blip)
    if with_what == "share":
        size, share = np.full(sites, 40), np.sort(rng.beta(3, 3, size=sites))
    else:
        size = np.sort(np.exp(rng.uniform(np.log(8), np.log(150), sites)).round().astype(int))
        share = np.full(sites, 0.5)
    site = np.repeat(np.arange(sites), size)
    a = (rng.random(len(site)) < share[site]) * 1
    y = blip[site] * a + 0.4 * rng.normal(size=sites)[site] + rng.normal(size=len(site))
    frame = pd.DataFrame({"site": labels(site), "a": a, "y": y})
    terms = {"": [], "term": [with_what], "terms": ["size", "share"]}[term]
    stage = S("a", actions=[0, 1], formula="a + (1 + a | site)", site_terms=terms)
    fit = fitted([stage], frame, seed, site="site")
    pair = bdtr.static(a=0), bdtr.static(a=1)
    out: Found = {}
    for weight, truth in (("unit", blip[site].mean()), ("site", blip.mean())):
        draws = bdtr.value(fit, *pair, weight=weight).draws["value"]
        apart = draws.isel(regime=1) - draws.isel(regime=0)
        out[f"difference, mean over {weight}s"] = against(apart, truth)
    by = bdtr.value(fit, *pair, by="site").draws["value"].sortby("site")
    out["difference, by site"] = against(by.isel(regime=1) - by.isel(regime=0), blip)
    told = any("goes with it" in reason for reason in fit.state.model_reasons)
    out["the state says so"] = [0.0, float(told), 0.0]
    return out


# Rules that know site effects, valued where they were not learned: sites, units a site, SD of blips.
CROSSFIT = {
    "20 sites of 24": (20, 24, 0.4),
    "60 sites of 20": (60, 20, 0.4),
    "30 sites of 50": (30, 50, 0.4),
    "20 sites of 24, no effects": (20, 24, 0.0),
}


def crossfit(name: str, seed: int) -> Found:
    """The recommended rule's value, cross-fitted over units and in the sample; blips N(0, SD^2) by site."""
    sites, per, sd = CROSSFIT[name]
    rng = np.random.default_rng([seed, 5, sites, per, int(10 * sd)])
    site = np.repeat(np.arange(sites), per)
    n = len(site)
    u = rng.normal(size=(sites, 2)) * [0.3, sd]
    a = rng.integers(0, 2, n)
    y = u[site, 0] + u[site, 1] * a + rng.normal(size=n)
    frame = pd.DataFrame({"site": labels(site), "a": a, "y": y})
    stage = S("a", actions=[0, 1], formula="a + (1 + a | site)")
    fit = fitted([stage], frame, seed, site="site")
    found = bdtr.crossfit(fit, over="units")

    def worth(actions: pd.DataFrame) -> float:
        act = np.zeros(n, dtype=int)
        act[actions["unit"].astype(int)] = actions["action"].astype(int)
        return float((u[site, 0] + u[site, 1] * act).mean())

    # Few draws: a fit in some hundreds is refused for an effective number of draws that is low by luck.
    whole = bdtr.recommend(fit, frame, override="one of many simulated trials").actions
    draws = found.draws.isel(over=0)
    return {
        "cross-fitted, its own rules": against(draws["value"], worth(found.actions)),
        "cross-fitted, the rule of all data": against(draws["value"], worth(whole)),
        "in the sample, the rule of all data": against(draws["in_sample"], worth(whole)),
    }


# A SMART with remission as the outcome: 24 clinics of 40, responders stay as they are.
REMISSION = ("rate near a half", "rate of a tenth")


def remission(name: str, seed: int) -> Found:
    """Embedded regimes of a yes/no outcome: overall, by x, by clinic, and at a new clinic.

    The mean P(optimal) of the actions recommended, against the share of them that are right, stands beside.
    """
    rng = np.random.default_rng([seed, 6, len(name)])
    clinics, per = 24, 40
    low = -1.8 if "tenth" in name else 0.0
    site = np.repeat(np.arange(clinics + 1), per)  # the last one is not in the trial
    n, inside = len(site), len(site) - per
    u = rng.normal(size=(clinics + 1, 3)) * [0.5, 0.3, 0.4]
    x = 2.0 * rng.integers(0, 2, n) - 1
    a1, a2 = rng.integers(0, 2, (2, n))

    def responds(a):
        return expit(-0.4 + 0.4 * x + 0.6 * a + u[site, 1])

    def remits(a, r, b):
        late = np.where(r == 1, 1.0, b * (0.3 + 0.4 * x + u[site, 2]))
        return expit(low - 0.6 + 0.3 * x + 0.3 * a + u[site, 0] + late)

    def worth(a, b):
        p = responds(a)
        return p * remits(a, 1, b) + (1 - p) * remits(a, 0, b)

    r = (rng.random(n) < responds(a1)) * 1
    y = (rng.random(n) < remits(a1, r, a2)) * 1
    second = np.where(r == 1, None, a2.astype(str).astype(object))
    frame = pd.DataFrame({"site": labels(site), "x": x, "a1": a1, "r": r, "a2": second, "y": y})
    frame = frame.iloc[:inside]
    stages = [
        S("a1", actions=[0, 1], formula="x * a1 + (1 + a1 | site)"),
        S("a2", actions=["0", "1"], formula="a1 + x * a2 + (1 + a2 | site)", among="r == 0"),
    ]
    fit = fitted(stages, frame, seed, site="site", family="bernoulli")
    pairs = [(a, b) for a in (0, 1) for b in (0, 1)]
    regimes = [bdtr.static(a1=a, a2=str(b)) for a, b in pairs]
    truths = np.array([worth(a, b)[:inside] for a, b in pairs])
    out: Found = {}
    ways = {
        "all units": None,
        "by x": np.where(x > 0, "1", "-1")[:inside],
        "by clinic": np.array(labels(site))[:inside],
    }
    for way, by in ways.items():
        draws = bdtr.value(fit, *regimes, by=by).draws["value"]
        group = np.zeros(inside, dtype=int) if by is None else np.unique(by, return_inverse=True)[1]
        truth = np.array([np.bincount(group, t) / np.bincount(group) for t in truths])
        if by is not None:
            (dim,) = (d for d in draws.dims if d not in ("chain", "draw", "regime"))
            draws = draws.sortby(dim)
        one, other = draws.isel(regime=0), draws.isel(regime=3)
        out[f"value of (0, 0), {way}"] = against(one, truth[0])
        out[f"value of (1, 1), {way}"] = against(other, truth[3])
        out[f"difference, {way}"] = against(other - one, truth[3] - truth[0])
        apart = draws.isel(regime=3) - draws.isel(regime=2)
        out[f"(1, 1) less (1, 0), {way}"] = against(apart, truth[3] - truth[2])
    new = [worth(a, b)[inside:].mean() for a, b in pairs]
    draws = bdtr.value(fit, *regimes, population="new site").draws["value"]
    out["value of (1, 1), new clinic"] = against(draws.isel(regime=3), new[3])
    apart = draws.isel(regime=3) - draws.isel(regime=0)
    out["difference, new clinic"] = against(apart, new[3] - new[0])
    found = bdtr.recommend(fit, frame, override="one of many simulated trials")
    late = remits(a1, 0, 1) > remits(a1, 0, 0)
    best_late = np.where(late, "1", "0")
    worths = [np.where(late, worth(a, 1), worth(a, 0)) for a in (0, 1)]
    best = np.where(worths[1] > worths[0], "1", "0")
    for stage, right in (("a1", best), ("a2", best_late)):
        own = found.actions[found.actions["stage"] == stage]
        hit = float((right[own["unit"].astype(int)] == own["action"].astype(str)).mean())
        sure = float(own["p_optimal"].mean())
        out[f"share of right actions at {stage} (mean P(optimal))"] = [sure - hit, hit, sure]
    return out


# P(optimal) of a yes/no outcome over two stages, where truths come from the prior of the last stage.
OPTIMAL = ("yes/no outcome, 24 clinics of 40",)
_LAST = ("Intercept", "x", "a1[1]", "r", "a2[1]", "x:a1[1]", "a2[1]:x", "a2[1]:a1[1]", "a2[1]:r")


def optimal(name: str, seed: int) -> Found:
    """Units, their mean P(action 1 is optimal) and in how many it is, by stage and tenth of P.

    Coefficients and effects of clinics at the last stage are a draw from the prior of its model, outcomes
    those of that draw: there P is calibrated if the posterior is right. At the first stage the mean payoff
    that follows is no curve of the model's.
    """
    rng = np.random.default_rng([seed, 8])
    site = np.repeat(np.arange(24), 40)
    n = len(site)
    x = rng.normal(size=n)
    a1, a2 = rng.integers(0, 2, (2, n))
    c, v = rng.normal(0, 0.6, 3), rng.normal(0, 0.4, 24)

    def responds(a):
        return expit(c[0] + c[1] * x + c[2] * a + v[site])

    r = (rng.random(n) < responds(a1)) * 1
    frame = pd.DataFrame({"site": labels(site), "x": x, "a1": a1, "r": r, "a2": a2})
    frame["y"] = rng.integers(0, 2, n)
    known = {term: bdtr.trial.Normal(0, 0.7) for term in _LAST}
    known["sd(site)"] = bdtr.trial.HalfNormal(0.4)
    stages = [
        S("a1", actions=[0, 1], formula="x * a1 + (1 + a1 | site)"),
        S(
            "a2",
            actions=[0, 1],
            formula="x * a1 + r + a2 * (x + a1 + r) + (1 + a2 | site)",
            site_means=False,
            priors=known,
        ),
    ]
    any_outcome = fitted(stages, frame, seed, site="site", family="bernoulli")
    prior = any_outcome.add_groups("prior")["prior"].to_dataset().isel(chain=0, draw=seed % 100)
    b = prior["b"].to_series()
    u = prior["u_site"].to_pandas()

    def probability(a, r, late):
        columns = {"Intercept": 1.0, "x": x, "a1[1]": a, "r": r, "a2[1]": late}
        eta = np.zeros(n)
        for term, value in b.items():
            eta += value * np.prod([columns[part] * np.ones(n) for part in term.split(":")], axis=0)
        for term in u:
            eta += columns[term] * u[term].to_numpy()[site]
        return expit(eta)

    frame["y"] = (rng.random(n) < probability(a1, r, a2)) * 1
    fit = fitted(stages, frame, seed, site="site", family="bernoulli")
    best = [
        sum(
            share * np.maximum(probability(a, r, 0), probability(a, r, 1))
            for r, share in ((0, 1 - responds(a)), (1, responds(a)))
        )
        for a in (0, 1)
    ]
    right = {
        "a1": best[1] > best[0],
        "a2": probability(a1, r, 1) > probability(a1, r, 0),
    }
    actions = bdtr.recommend(fit, frame, override="one of many simulated trials").actions
    out: Found = {}
    for stage, better in right.items():
        own = actions[actions["stage"] == stage]
        one = own["action"].astype(str) == "1"
        p = np.where(one, own["p_optimal"], 1 - own["p_optimal"])
        truth = better[own["unit"].astype(int)]
        tenth = np.minimum((10 * p).astype(int), 9)
        for k in range(10):
            mine = tenth == k
            out[f"{stage}, {k / 10:.1f} to {(k + 1) / 10:.1f}"] = [
                float(mine.sum()), float(p[mine].sum()), float(truth[mine].sum()),
            ]  # fmt: skip
    return out


# Clinics as units: successes out of 10 to 200 patients; truths are means over clinics that differ.
COUNTS = ("60 clinics in 8 systems", "the same, binomial model")


def counts(name: str, seed: int) -> Found:
    """Means of both actions by the beta-binomial model, and by the binomial one, where clinics differ."""
    rng = np.random.default_rng([seed, 7])  # the same data in both designs
    system = np.repeat(np.arange(8), 8)[:60]
    n = len(system)
    x, a = 2.0 * rng.integers(0, 2, n) - 1, rng.permutation(n) % 2
    patients = rng.integers(10, 201, n)
    base = -0.4 + 0.4 * x + 0.3 * rng.normal(size=8)[system]
    size = 1 / 0.4**2
    means = [expit(base), expit(base + 0.5 + 0.2 * x)]
    mean = np.where(a == 1, means[1], means[0])
    rate = rng.beta(mean * size, (1 - mean) * size)
    frame = pd.DataFrame({"system": labels(system), "x": x, "a": a, "n": patients})
    frame["y"] = rng.binomial(patients, rate)
    stage = S("a", actions=[0, 1], formula="x * a + (1 | system)", site_means=False)
    family = "binomial" if "binomial model" in name else "beta_binomial"
    fit = fitted([stage], frame, seed, site="system", family=family, trials="n")
    draws = bdtr.value(fit, bdtr.static(a=0), bdtr.static(a=1)).draws["value"]
    one, other = draws.isel(regime=0), draws.isel(regime=1)
    out: Found = {
        "value of a = 0": against(one, means[0].mean()),
        "value of a = 1": against(other, means[1].mean()),
        "difference": against(other - one, (means[1] - means[0]).mean()),
    }
    by = np.where(x > 0, "1", "-1")
    draws = (
        bdtr.value(fit, bdtr.static(a=0), bdtr.static(a=1), by=by).draws["value"].sortby("group")
    )
    apart = draws.isel(regime=1) - draws.isel(regime=0)
    group = np.unique(by, return_inverse=True)[1]
    truth = np.bincount(group, means[1] - means[0]) / np.bincount(group)
    out["difference, by x"] = against(apart, truth)
    return out
