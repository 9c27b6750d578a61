"""Coverage of 95 % intervals and bias of values, in simulated trials whose truth is known.

    python benchmarks/calibration.py nine --sets 1000         # stage 1; an hour on two cores
    python benchmarks/calibration.py clustered --sets 1000 --raw results.jsonl  # three hours
    python benchmarks/calibration.py values --sets 1000       # of the recommended regime
    python benchmarks/calibration.py populations --sets 1000  # of regimes named in advance
    python benchmarks/calibration.py opinion --sets 200       # outcome model right and wrong
    python benchmarks/calibration.py places --sets 300        # fixed regimes by subgroup and site

and likewise ``arms``, ``responders``, ``site_level``, ``crossfit``, ``remission``, ``optimal`` and
``counts``, whose trials are in situations.py, ``missing``, in incomplete.py, ``smooth``, in bending.py, and
``computed`` and ``folded``, in computed.py.

With ``--raw`` each data set's results go to a file as they come; a second run reads it and goes on. With
``--only`` a run works on some designs; the table has all those that the file knows.

The nine scenarios are those of Chakraborty, Murphy and Strecher (2010, Stat. Methods Med. Res. 19(3)) and
Chakraborty, Laber and Zhao (2013, Biometrics 69(3)); the quantity of the first table is the coefficient of
A1 in -1/1 coding, averaged over O1. Cells have the share of intervals that hold the truth and their mean
width.
The tables that were measured last are kept beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # one data set a process, one thread each

import bending
import computed
import incomplete
import numpy as np
import pandas as pd
import situations
from designs import (
    BEST,
    CLUSTERED,
    OPINION,
    POPULATIONS,
    SCENARIOS,
    UNITS,
    clustered_data,
    clustered_trial,
    nine_best,
    nine_data,
    nine_trial,
    nine_value,
    opinion_data,
    population_data,
    population_effects,
    population_trial,
    population_values,
)
from scipy.stats import binomtest, norm

import bdtr
from bdtr.backward.passes import backward_passes, set_with

HERE = Path(__file__).parent
BOOTSTRAPS = 1000
XI = 0.05  # tuning constant of the m-out-of-n bootstrap


def nine_intervals(name: str, seed: int) -> dict[str, tuple[float, float]]:
    """95 % intervals of the contrast by each method, for one data set."""
    rng = np.random.default_rng([seed, ord(name)])
    frame = nine_data(name, rng)
    fit = bdtr.fit(
        nine_trial(), frame, sampler="direct", draws=500, random_seed=seed, progress=False
    )
    backward_passes(fit, ["optimal"])
    where = set_with(fit, ["optimal"])
    out = {}
    for label, path in (("recommended", "recommended"), ("optimal", f"{where}/optimal")):
        contrast = fit.posterior(0, path)["b"].sel(term="a1[1]").to_numpy().ravel() / 2
        out[label] = tuple(np.quantile(contrast, [0.025, 0.975]))
    return out | least_squares_intervals(frame, rng)


def least_squares_intervals(frame: pd.DataFrame, rng) -> dict[str, tuple[float, float]]:
    """Q-learning by least squares: plug-in, percentile bootstrap, and the adaptive m-out-of-n one."""
    o1, a1, o2, a2, y = (frame[c].to_numpy(float) for c in ("o1", "a1", "o2", "a2", "y"))
    x1 = np.c_[np.ones(UNITS), o1, a1, o1 * a1]
    blip = np.c_[np.ones(UNITS), o2, a1]
    x2 = np.c_[x1, o2, blip * a2[:, None]]
    rest = np.c_[x1, o2]

    def contrasts(counts: np.ndarray) -> np.ndarray:
        """The estimate for each row of counts."""
        b2 = _solve(counts, x2, y)
        values = b2[:, :5] @ rest.T + np.abs(b2[:, 5:] @ blip.T)
        return _solve(counts, x1, values)[:, 2]

    once = np.ones((1, UNITS))
    b2 = _solve(once, x2, y)[0]
    values = rest @ b2[:5] + np.abs(blip @ b2[5:])
    b1 = np.linalg.solve(x1.T @ x1, x1.T @ values)
    variance = ((values - x1 @ b1) ** 2).sum() / (UNITS - 4) * np.linalg.inv(x1.T @ x1)
    half = norm.ppf(0.975) * np.sqrt(variance[2, 2])
    out = {"plug-in": (b1[2] - half, b1[2] + half)}
    shares = np.full(UNITS, 1 / UNITS)
    draws = contrasts(rng.multinomial(UNITS, shares, BOOTSTRAPS))
    out["bootstrap"] = tuple(np.quantile(draws, [0.025, 0.975]))
    # Chakraborty, Laber and Zhao (2013), section 3: m falls with the share of histories at which
    # "no effect" cannot be rejected.
    cells = np.array([[1, s, t] for s in (-1, 1) for t in (-1, 1)])
    cov = ((y - x2 @ b2) ** 2).sum() / (UNITS - 8) * np.linalg.inv(x2.T @ x2)[5:, 5:]
    unsure = (cells @ b2[5:]) ** 2 / np.einsum("ci,ij,cj->c", cells, cov, cells)
    flat = unsure <= norm.ppf(1 - 0.001 / 2) ** 2
    which = ((o2 > 0).astype(int) * 2 + (a1 > 0)).astype(int)
    m = int(np.ceil(UNITS ** ((1 + XI * (1 - flat[which].mean())) / (1 + XI))))
    draws = contrasts(rng.multinomial(m, shares, BOOTSTRAPS))
    lower, upper = np.quantile(draws - b1[2], [0.025, 0.975])
    out["m-out-of-n"] = (b1[2] - upper, b1[2] - lower)
    return out


def _solve(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weighted least squares for each row of weights; y is one response or one a row."""
    p = x.shape[1]
    cross = (counts @ (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)).reshape(-1, p, p)
    right = (counts * y) @ x
    return np.linalg.solve(cross, right[..., None])[..., 0]


def clustered_coverage(name: str, seed: int) -> dict[str, list[float]]:
    """For one data set: whether each 95 % interval holds the truth, and its width."""
    rng = np.random.default_rng([seed, len(name), CLUSTERED[name][1]])
    frame, u = clustered_data(name, rng)
    trial = clustered_trial(CLUSTERED[name][2])
    fit = bdtr.fit(
        trial, frame, sampler="direct", draws=250, propagated=500, random_seed=seed, progress=False
    )
    posterior = fit.posterior(0)
    sites = np.array([int(s) for s in posterior["site"].to_numpy()])
    blips = posterior["b"].sel(term="a1[1]") + posterior["u_site"].sel(site_term="a1[1]")
    blips = blips.stack(sample=("chain", "draw")).transpose("sample", "site").to_numpy()
    b = posterior["b"].stack(sample=("chain", "draw")).transpose("sample", "term")
    # The site mean of O1 is one of the columns: the coefficient within sites is that of O1.
    truth = {"b[o1]": 0.65, "b[a1]": 0.35}
    draws = {
        "b[o1]": b.sel(term="o1").to_numpy()[:, None],
        "b[a1]": b.sel(term="a1[1]").to_numpy()[:, None],
        "site blip of a1": blips,
    }
    values = bdtr.value(fit, bdtr.static(a1=1, a2=1), by="site").draws["value"]
    found = values.stack(sample=("chain", "draw")).transpose("sample", ...).to_numpy()
    draws["site value of (1, 1)"] = found.reshape(len(blips), -1)
    order = np.array([int(s) for s in values["site"].to_numpy()])
    mean_o1 = frame.groupby("site")["o1"].mean().rename(int).sort_index().to_numpy()
    site_value = 1 + 0.65 * mean_o1 + 0.15 + 0.2 + 0.3 + u.sum(axis=1)
    truths = {k: np.array([v]) for k, v in truth.items()}
    truths["site blip of a1"] = 0.35 + u[sites, 1]
    truths["site value of (1, 1)"] = site_value[order]
    out = {}
    for key, one in draws.items():
        lower, upper = np.quantile(one, [0.025, 0.975], axis=0)
        inside = (lower <= truths[key]) & (truths[key] <= upper)
        out[key] = [float(inside.mean()), float((upper - lower).mean())]
    return out


def nine_values(name: str, seed: int) -> dict[str, list[float]]:
    """Estimate, interval and truth of the values of the recommended regime, for one data set."""
    rng = np.random.default_rng([seed, ord(name)])
    frame = nine_data(name, rng)
    fit = bdtr.fit(
        nine_trial(), frame, sampler="direct", draws=250, propagated=500, random_seed=seed,
        progress=False,
    )  # fmt: skip
    o1 = frame["o1"].to_numpy()
    # Few draws: a fit in some thousands is refused for an effective number of draws that is low by luck.
    known = bdtr.recommend(fit, frame, override="one of many simulated trials")
    rule = _rule(frame, known.actions)
    learned = nine_value(name, o1, *rule)
    crossed = bdtr.crossfit(fit, over="units")
    folds = []
    for _, own in crossed.actions.groupby("fold"):
        part = frame.iloc[own["unit"].astype(int).unique()]
        # In one fold of a hundred nobody has one of the histories; there it is given the rule of all data.
        first, second = (
            {**every, **some} for every, some in zip(rule, _rule(part, own), strict=True)
        )
        folds.append(nine_value(name, part["o1"].to_numpy(), first, second))
    found = bdtr.values.draw_wise_maximum(fit, margin=0.1).table.loc["maximum"]
    inside, outside = (crossed.table.loc[("units", w)] for w in ("in the sample", "cross-fitted"))
    columns = ["mean", "lower", "upper"]
    best = nine_best(name, o1)
    return {
        "V*": [*found[columns], best],
        "in the sample": [*inside[columns], learned],
        "cross-fitted": [*outside[columns], float(np.mean(folds))],
        "regret": [best - learned, 0.0, 0.0, 0.0],
    }


def _rule(frame: pd.DataFrame, actions: pd.DataFrame) -> tuple[dict, dict]:
    """The rule by what it recommends to units: first[o1] and second[o1, a1, o2] are actions."""
    wide = actions.assign(unit=actions["unit"].astype(int)).pivot(
        index="unit", columns="stage", values="action"
    )
    known = frame.loc[wide.index, ["o1", "a1", "o2"]].assign(
        first=wide["a1"].astype(int), second=wide["a2"].astype(int)
    )
    first = known.groupby("o1")["first"].first().to_dict()
    second = known.groupby(["o1", "a1", "o2"])["second"].first().to_dict()
    return first, second


def population_coverage(name: str, seed: int) -> dict[str, list[float]]:
    """For one data set: whether 95 % intervals of three values and two contrasts hold the truth."""
    sites, per, correlation = POPULATIONS[name]
    rng = np.random.default_rng([seed, sites, per, int(100 * correlation)])
    frame, u, share = population_data(name, rng)
    fit = bdtr.fit(
        population_trial(), frame, sampler="direct", draws=100, propagated=400, random_seed=seed,
        progress=False,
    )  # fmt: skip
    observed = frame["o"].groupby(frame["site"].astype(int)).mean().to_numpy()
    new_u, new_share = population_effects(name, 1, rng)[0], rng.beta(4, 4)
    truths = {
        "sample": population_values(observed, u).mean(axis=0),
        "units": population_values(share, u).mean(axis=0),
        "sites": population_values(np.array(0.5), np.zeros(3)),
        "new site": population_values(np.array((rng.random(per) < new_share).mean()), new_u),
    }
    regimes = [bdtr.static(a1=0, a2=0), bdtr.static(a1=1, a2=1), bdtr.rule("best", **BEST)]
    out = {}
    for population, truth in truths.items():
        values = bdtr.value(fit, regimes, population=population)
        tables = (values.table, truth), (bdtr.compare(values).table, truth[1:] - truth[0])
        for table, t in tables:
            inside = (table["lower"] <= t) & (t <= table["upper"])
            for label, hit, low, high in zip(
                table.index, inside, table["lower"], table["upper"], strict=True
            ):
                out[f"{population}: {label}"] = [float(hit), float(high - low)]
    return out


def opinion_coverage(name: str, seed: int) -> dict[str, list[float]]:
    """For one data set: whether each interval holds the truth, its width; whether opinions disagree."""
    frame, chance, truth = opinion_data(name, np.random.default_rng([seed, len(name)]))
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x * a")], outcome="y")
    fit = bdtr.fit(
        trial, frame, sampler="direct", draws=125, propagated=500, random_seed=seed, progress=False
    )
    found = bdtr.checks.second_opinion(fit, bdtr.static(a=1), probabilities={"a": chance})
    rows = found.table.loc["1"]
    out = {}
    for by in ("model", "weighted", "augmented"):
        low, high = rows.loc[by, "lower"], rows.loc[by, "upper"]
        out[by] = [float(low <= truth <= high), float(high - low)]
    low, high = rows.loc["difference", ["lower", "upper"]]
    out["they disagree"] = [float(found.followers["disagree"].iloc[0]), float(high - low)]
    return out


def _one(work, task: tuple[str, int]):
    return *task, work(*task)


def run_all(
    work, names: list[str], sets: int, minutes: float, pool: ProcessPoolExecutor, raw: Path | None
) -> dict[str, list]:
    """Results by name, of this run and of the file; fewer than ``sets`` where time is up."""
    found: dict[tuple[str, int], dict] = {}
    if raw is not None and raw.exists():
        for line in raw.read_text(encoding="utf-8").splitlines():
            name, seed, one = json.loads(line)
            found[name, seed] = one
    tasks = [(n, seed) for seed in range(sets) for n in names if (n, seed) not in found]
    end = time.time() + 60 * minutes
    with raw.open("a", encoding="utf-8") if raw is not None else nullcontext() as file:
        for name, seed, one in pool.map(partial(_one, work), tasks):
            found[name, seed] = one
            if file is not None:
                print(json.dumps([name, seed, one]), file=file, flush=True)
            if time.time() > end:
                pool.shutdown(cancel_futures=True)
                break
    known = {name for name, _ in found}
    return {
        name: [found[name, seed] for seed in range(sets) if (name, seed) in found] for name in known
    }


def table_of_nine(found: dict[str, list]) -> list[str]:
    """The table of the nine scenarios."""
    methods = list(next(iter(found.values()))[0])
    lines = [
        "| scenario | truth | " + " | ".join(methods) + " |",
        "|---" * (len(methods) + 2) + "|",
    ]
    worst = {}
    for name, results in found.items():
        truth, cells = SCENARIOS[name][2], []
        for method in methods:
            intervals = np.array([r[method] for r in results])
            inside = (intervals[:, 0] <= truth) & (truth <= intervals[:, 1])
            width = np.diff(intervals, axis=1).mean()
            cells.append(f"{100 * inside.mean():.1f} ({width:.3f})")
            if method == "recommended":
                worst[name] = inside
        lines.append(f"| {name} | {truth:g} | " + " | ".join(cells) + " |")
    lines.append("")
    for name, inside in worst.items():
        low = binomtest(int(inside.sum()), inside.size, 0.93, "less").pvalue * 9
        high = binomtest(int(inside.sum()), inside.size, 0.975, "greater").pvalue * 9
        if min(low, high) < 0.05:
            lines.append(f"recommended, scenario {name}: outside 93 to 97.5 %")
    return lines


def table_of_coverage(found: dict[str, list]) -> list[str]:
    """Coverage, its Monte-Carlo standard error and mean width: a line for each quantity."""
    names = list(found)
    lines = ["| quantity | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key in next(iter(found.values()))[0]:
        cells = []
        for results in found.values():
            cover, width = np.array([r[key] for r in results]).T
            error = 100 * cover.std(ddof=1) / np.sqrt(len(cover))
            cells.append(f"{100 * cover.mean():.1f} ± {error:.1f} ({width.mean():.3f})")
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return lines


def table_of_means(found: dict[str, list]) -> list[str]:
    """Means with their Monte-Carlo standard errors: a line for each quantity."""
    names = list(found)
    lines = ["| quantity | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key in next(iter(found.values()))[0]:
        digits, cells = 1 if key.endswith("%") else 3, []
        for results in found.values():
            values = np.array([r[key] for r in results])
            values = values[np.isfinite(values)]  # nobody may be sure
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            cells.append(f"{values.mean():.{digits}f} ± {error:.{digits}f}")
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return lines


def table_of_situations(found: dict[str, list]) -> list[str]:
    """Bias and coverage, each with its Monte-Carlo standard error, and mean width: a line for each."""
    keys = list(dict.fromkeys(key for results in found.values() for key in results[0]))
    lines = ["| quantity | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for key in keys:
        cells = []
        for results in found.values():
            if key not in results[0]:
                cells.append("")
                continue
            all_sets = np.array([r[key] for r in results])
            bias, cover, width = all_sets.mean(axis=0)
            off, error, _ = all_sets.std(axis=0, ddof=1) / np.sqrt(len(all_sets))
            share = f"{100 * cover:.1f} ± {100 * error:.1f}"
            # A share of data sets alone has no width.
            cells.append(f"{bias:+.3f} ± {off:.3f}, {share} ({width:.3f})" if width else share)
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return lines


def table_of_bins(found: dict[str, list]) -> list[str]:
    """Mean P of each tenth, the share of units for which it came true with its Monte-Carlo standard error
    over data sets, and how many standard errors they are apart."""
    (results,) = found.values()
    lines = ["| stage, P | mean P | came true | z | units |", "|---|---|---|---|---|"]
    for key in results[0]:
        count, p, true = np.array([one[key] for one in results]).T
        if not count.sum():
            continue
        mean, share = p.sum() / count.sum(), true.sum() / count.sum()
        apart = (true - p) - count * (share - mean)
        error = np.sqrt((apart**2).sum()) / count.sum()
        lines.append(
            f"| {key} | {mean:.3f} | {share:.3f} ± {error:.3f} | {(share - mean) / error:+.1f} | "
            f"{count.sum():,.0f} |"
        )
    return lines


def table_of_values(found: dict[str, list]) -> list[str]:
    """Bias with its Monte-Carlo standard error, and coverage; mean regret of the learned rule."""
    keys = [k for k in next(iter(found.values()))[0] if k != "regret"]
    lines = [
        "| scenario | " + " | ".join(f"{k}: bias, coverage" for k in keys) + " | regret |",
        "|---" * (len(keys) + 2) + "|",
    ]
    for name, results in found.items():
        cells = []
        for key in keys:
            mean, lower, upper, truth = np.array([r[key] for r in results]).T
            bias, cover = mean - truth, ((lower <= truth) & (truth <= upper)).mean()
            error = bias.std(ddof=1) / np.sqrt(len(bias))
            cells.append(f"{bias.mean():+.3f} ± {error:.3f}, {100 * cover:.1f}")
        regret = np.mean([r["regret"][0] for r in results])
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {regret:.3f} |")
    return lines


TABLES = {
    "nine": (nine_intervals, SCENARIOS, table_of_nine),
    "clustered": (clustered_coverage, CLUSTERED, table_of_coverage),
    "values": (nine_values, SCENARIOS, table_of_values),
    "populations": (population_coverage, POPULATIONS, table_of_coverage),
    "opinion": (opinion_coverage, OPINION, table_of_coverage),
    "places": (situations.places, situations.PLACES, table_of_situations),
    "arms": (situations.arms, situations.ARMS, table_of_situations),
    "responders": (situations.responders, situations.RESPONDERS, table_of_situations),
    "site_level": (situations.site_level, situations.SITE_LEVEL, table_of_situations),
    "crossfit": (situations.crossfit, situations.CROSSFIT, table_of_situations),
    "remission": (situations.remission, situations.REMISSION, table_of_situations),
    "optimal": (situations.optimal, situations.OPTIMAL, table_of_bins),
    "counts": (situations.counts, situations.COUNTS, table_of_situations),
    "missing": (incomplete.missing, incomplete.MISSING, table_of_situations),
    "smooth": (bending.bending, bending.BENDING, table_of_means),
    "computed": (computed.computed, computed.COMPUTED, table_of_means),
    "folded": (computed.folded_at, computed.FOLDED, table_of_situations),
}

TITLES = {
    table_of_means: "means over data sets of figures over units, with Monte-Carlo errors",
    table_of_bins: "P(optimal) in tenths, and how often it came true",
    table_of_coverage: "coverage in per cent of 95 % intervals (mean width)",
    table_of_situations: "bias, coverage in per cent of 95 % intervals (mean width)",
}


def main() -> None:
    """Run one table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many")
    parser.add_argument("--only", nargs="+", help="designs to work on (all)")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--raw", type=Path, help="results so far, to go on from")
    parser.add_argument("--keep", action="store_true", help="write the table beside this file")
    chosen = parser.parse_args()
    work, names, table = TABLES[chosen.table]
    only = chosen.only or list(names)
    with ProcessPoolExecutor(chosen.workers) as pool:
        done = run_all(work, only, chosen.sets, chosen.minutes, pool, chosen.raw)
    found = {name: done[name] for name in names if name in done}
    lines = table(found)
    counts = {name: len(results) for name, results in found.items()}
    same = len(set(counts.values())) == 1
    sets = (
        next(iter(counts.values())) if same else ", ".join(f"{c} ({n})" for n, c in counts.items())
    )
    packages = ", ".join(f"{p} {version(p)}" for p in ("bdtr", "numpy", "numba"))
    head = (
        f"{date.today()}, Python {platform.python_version()}, {packages}; {sets} data sets{' each' * same}; "
        f"{TITLES.get(table, TITLES[table_of_coverage])}"
    )
    text = "\n".join([f"# Calibration: {chosen.table}", "", head, "", *lines, ""])
    print(text)
    if chosen.keep:
        (HERE / f"calibration_{chosen.table}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
