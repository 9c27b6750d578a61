"""Speed of the exact multilevel engine against what one would use without it, side by side in one run.

    python benchmarks/engine.py              # everything, some 25 minutes on two cores
    python benchmarks/engine.py star scaling # some of: samplers, star, propagation, scaling, backward
    python benchmarks/engine.py --quick      # small sizes, no NUTS: whether it runs, in ten seconds

Compilation is not counted on either side; it is stated apart.
"""

from __future__ import annotations

import argparse
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib.metadata import version

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

import bdtr
from bdtr.backward.induction import together
from bdtr.backward.passes import backward_pass, run_passes
from bdtr.backward.propagation import accumulate
from bdtr.data.check import check
from bdtr.data.stagecolumns import stage_design
from bdtr.engine.crossproducts import Rows, cross_products, response_products
from bdtr.engine.direct import draw_posterior
from bdtr.engine.layout import Factor, layout
from bdtr.stages.coded_priors import parameters
from bdtr.stages.outcome import OutcomeModel, outcome_model, stage_rows
from bdtr.stages.posterior import group_covariances, labelled
from bdtr.stages.sampling import compiled_marginal, compiled_plain
from bdtr.stages.settings import Settings
from bdtr.trial.priors import LKJ, GroupPrior, HalfNormal, HalfStudentT, Normal, StagePriors

SITES, COMMON = 60, 8
MOST_TIMES = 5  # runs that are timed
FEW = Settings(0, 1, 2, 2)  # to compile by


def line(*cells: object) -> None:
    """One row of the table."""
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def fastest(work: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of several runs, the first (which may compile) not counted."""
    work()
    found = []
    for _ in range(min(times, MOST_TIMES)):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def smallest_ess(posterior: xr.Dataset) -> float:
    """Smallest bulk ESS of the SDs, correlations and coefficients."""
    names = [n for n in posterior.data_vars if not str(n).startswith("u_")]
    ess = az.ess(posterior[names], method="bulk")
    values = np.concatenate([ess[n].to_numpy().ravel() for n in names])
    spread = np.concatenate([posterior[n].std(("chain", "draw")).to_numpy().ravel() for n in names])
    return float(values[spread > 1e-9].min())


def one_stage(n: int, seed: int = 1) -> tuple[OutcomeModel, np.ndarray]:
    """A stage model of 8 common columns and 3 correlated coefficients in 60 sites."""
    rng = np.random.default_rng(seed)
    site = rng.integers(0, SITES, n)
    x = rng.normal(size=(n, COMMON - 2))
    a = rng.integers(0, 2, n)
    u = rng.normal(size=(SITES, 3)) * 0.3
    y = x @ rng.normal(size=COMMON - 2) * 0.2 + 0.3 * a
    y += u[site, 0] + u[site, 1] * a + u[site, 2] * x[:, 0] + rng.normal(size=n)
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(COMMON - 2)])
    frame = frame.assign(a=a, y=y, site=site.astype(str))
    terms = " + ".join(f"x{i}" for i in range(COMMON - 2))
    stage = bdtr.Stage(
        "a", actions=[0, 1], formula=f"{terms} + a + (1 + a + x0 | site)", site_means=False
    )
    return last_stage(bdtr.Trial([stage], outcome="y", site="site"), frame)


def last_stage(trial: bdtr.Trial, frame: pd.DataFrame) -> tuple[OutcomeModel, np.ndarray]:
    """Model and response of the last stage."""
    data = check(trial, frame)
    k = len(trial.stages) - 1
    design = stage_design(data, k)
    rows, response = stage_rows(data, design), data.payoff
    spread = float(np.std(response, ddof=1))
    model = outcome_model(data, design, data.trial.payoff, rows, float(response.mean()), spread)
    return model, response


def direct(model: OutcomeModel, response: np.ndarray, chains: int = 4, draws: int = 1000):
    """Cross-products and draws of the direct sampler, without labels."""
    where = layout(model.factors, model.rows.codes)
    products = cross_products(model.rows, where)
    scaled = (response - model.location) / model.spread
    responses = response_products(model.rows, where, scaled[:, None])
    seed = np.random.SeedSequence(2)
    return draw_posterior(products, responses, model.parameters, chains, draws, seed)


def direct_row(model: OutcomeModel, response: np.ndarray) -> tuple[float, float]:
    """Seconds and smallest ESS."""
    seconds = fastest(lambda: direct(model, response))
    drawn = direct(model, response)
    b, u = model.coefficients(drawn.coefficients), model.effects(drawn.effects)
    covariances = group_covariances(model, drawn.phi)
    return seconds, smallest_ess(labelled(model, drawn.phi, b, u, covariances, 4))


def samplers(quick: bool = False) -> None:
    """Seconds and ESS per second of plain NUTS, marginal NUTS and the direct sampler."""
    line("rows", "sampler", "compile, s", "4 x 1000 draws, s", "smallest ESS", "ESS/s", "ratio")
    line(*["---"] * 7)
    nuts = (("plain NUTS", compiled_plain), ("marginal NUTS", compiled_marginal))
    for n in (600,) if quick else (6_000, 60_000):
        model, response = one_stage(n)
        rates = {"plain NUTS": np.nan}
        for name, make in () if quick else nuts:
            began = time.perf_counter()
            compiled = make(model)
            compiled.fit(response, np.random.SeedSequence(1), FEW, False)
            compile_s = time.perf_counter() - began
            began = time.perf_counter()
            found = compiled.fit(response, np.random.SeedSequence(1), Settings(1), False)
            seconds = time.perf_counter() - began
            ess = smallest_ess(found.posterior)
            rates[name] = ess / seconds
            ratio = rates[name] / rates["plain NUTS"]
            line(f"{n:,}", name, f"{compile_s:.0f}", f"{seconds:.2f}", f"{ess:.0f}",
                 f"{ess / seconds:.1f}", f"{ratio:.0f}")  # fmt: skip
        seconds, ess = direct_row(model, response)
        ratio = ess / seconds / rates["plain NUTS"]
        line(f"{n:,}", "direct", "", f"{seconds:.3f}", f"{ess:.0f}", f"{ess / seconds:.0f}",
             f"{ratio:.0f}")  # fmt: skip


def star(quick: bool = False) -> None:
    """STAR kindergarten scores, type + (1 + type | school), by the direct sampler."""
    rows = bdtr.datasets.star().dropna(subset=["y_k", "a1"])
    stage = bdtr.Stage(
        "a1", actions=["regular", "small", "aide"], formula="a1 + (1 + a1 | school)",
        site_means=False,
    )  # fmt: skip
    model, response = last_stage(bdtr.Trial([stage], outcome="y_k", site="school"), rows)
    seconds, ess = direct_row(model, response)
    print(f"\nSTAR kindergarten, y_k ~ a1 + (1 + a1 | school), {len(response):,} pupils, "
          f"cross-products included: {seconds:.3f} s for 4 x 1000 draws, smallest ESS {ess:.0f} "
          "(aim: more than 3,000 in less than 0.3 s)")  # fmt: skip


def two_stage(n: int = 6_000) -> bdtr.Fit:
    """A two-stage trial in 60 sites, its last stage fitted by the direct sampler."""
    rng = np.random.default_rng(3)
    site = rng.integers(0, SITES, n)
    u = rng.normal(size=(SITES, 3)) * (0.3, 0.2, 0.2)
    o1, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    m = 0.5 * o1 + 0.3 * a1 + rng.normal(size=n)
    y = 0.4 * o1 + 0.5 * m + (0.2 + u[site, 1]) * a1 + (0.3 + 0.2 * m + u[site, 2]) * a2
    y += u[site, 0] + rng.normal(size=n)
    frame = pd.DataFrame({"site": site.astype(str), "o1": o1, "a1": a1, "m": m, "a2": a2, "y": y})
    first = bdtr.Stage("a1", actions=[0, 1], formula="o1 * a1 + (1 + a1 | site)")
    second = bdtr.Stage("a2", actions=[0, 1], formula="o1 + a1 + m * a2 + (1 + a1 + a2 | site)")
    trial = bdtr.Trial([first, second], outcome="y", site="site")
    return bdtr.fit(trial, frame, sampler="direct", random_seed=1, progress=False)


def propagation(quick: bool = False) -> None:
    """1,000 draws through a two-stage trial, against NUTS refits of the compiled model."""
    fit = two_stage(600 if quick else 6_000)
    seconds = fastest(lambda: run_passes(fit, [], "", False), 3)
    counts = fit.tree["stage_1/engine"].to_dataset().attrs
    if quick:
        print(f"\nPropagation of 1,000 draws, 600 units, one pass: {seconds:.2f} s")
        return
    model = fit.model(0)
    plain = replace(model, rows=Rows(model.rows.x, model.rows.z, model.rows.codes))
    units = np.flatnonzero(fit.data.stages[0].fitted)
    y = np.concatenate([v for _, v in backward_pass(fit).responses(0, units)])
    compiled = compiled_plain(plain)
    compiled.fit(y[:, 0], np.random.SeedSequence(0), FEW, False)
    began = time.perf_counter()
    for s in range(10):  # one chain, long enough for one draw
        compiled.fit(y[:, s], np.random.SeedSequence(s), Settings(0, 1, 100, 400), False)
    refits = (time.perf_counter() - began) * 100
    print(f"\nPropagation of 1,000 draws, 6,000 units, 60 sites, one pass: {seconds:.2f} s "
          f"({counts['independence']} independence chains, {counts['slices']} slice chains); "
          f"1,000 NUTS refits (10 timed, one chain of 400 + 100): {refits:.0f} s; "
          f"ratio {refits / seconds:.0f} (aim: under 2 s, 500)")  # fmt: skip


def _products(n: int):
    rng = np.random.default_rng(5)
    site = rng.integers(0, SITES, n)
    x = np.c_[np.ones(n), rng.normal(size=(n, COMMON - 1))]
    z = np.ascontiguousarray(x[:, :3])
    y = rng.normal(size=(n, 1)) + rng.normal(size=SITES)[site, None]
    factors = [Factor("site", SITES, 3, True)]
    groups = {"site": GroupPrior((HalfNormal(1.0),) * 3, LKJ(1.0))}
    priors = StagePriors((Normal(0, 2.5),) * COMMON, groups, HalfStudentT(3, 1.0), {})
    return Rows(x, (z,), (site,)), factors, y, parameters(factors, priors)


def numpy_products(rows: Rows, y: np.ndarray) -> list[np.ndarray]:
    """The same products with numpy: rows gathered site by site, one matrix product each."""
    order = np.argsort(rows.codes[0], kind="stable")
    ends = np.searchsorted(rows.codes[0][order], np.arange(1, SITES))
    joined = np.hstack([rows.z[0], rows.x, y])[order]
    return [part[:, :3].T @ part for part in np.split(joined, ends)] + [rows.x.T @ rows.x]


def scaling(quick: bool = False) -> None:
    """Time of the pass over the data and of the sampling as the rows grow."""
    print()
    line("rows", "cross-products, s", "numpy per site, s", "ratio", "4 x 1000 draws, s")
    line(*["---"] * 5)
    for n in (6_000,) if quick else (6_000, 60_000, 600_000, 2_000_000):
        rows, factors, y, params = _products(n)
        where = layout(factors, rows.codes)
        times = 3 if n > 100_000 else 5

        def passed(rows=rows, factors=factors, y=y):
            where = layout(factors, rows.codes)
            return cross_products(rows, where), response_products(rows, where, y)

        ours = fastest(passed, times)
        bare = fastest(lambda rows=rows, y=y: numpy_products(rows, y), times)
        products, responses = cross_products(rows, where), response_products(rows, where, y)

        def sampled(p=products, r=responses, q=params):
            return draw_posterior(p, r, q, 4, 1000, np.random.SeedSequence(1))

        sampling = fastest(sampled, 3)
        line(f"{n:,}", f"{ours:.4f}", f"{bare:.4f}", f"{ours / bare:.2f}", f"{sampling:.3f}")


def backward(quick: bool = False) -> None:
    """Q-values, stage values and cross-products against the bare matrix products among them."""
    fit = two_stage(600 if quick else 6_000)
    data, model = fit.data, fit.model(0)
    units = np.flatnonzero(data.stages[0].fitted)
    done = backward_pass(fit)
    ours = fastest(
        lambda: accumulate(model.rows, model.factors, together([done.responses(0, units)]))
    )
    later, own = fit.model(1), fit.q_function(1).draws
    x, z, samples = later.rows.x, later.rows.z[0], own.samples
    effects = own.effects["site"][0]  # one site's: a product of the same size
    weights = np.ascontiguousarray(np.hstack([model.rows.x, model.rows.z[0]]))
    values, part = np.empty((len(x), samples)), np.empty((len(x), samples))

    def bare():
        for _ in range(2):  # actions
            np.dot(x, own.coefficients, out=values)
            np.dot(z, effects, out=part)
        return weights.T @ values

    alone = fastest(bare)
    print(f"\nBackward pass (Q-values of two actions, stage values, cross-products), {len(units):,} units, "
          f"{samples} draws: {ours:.3f} s; its bare matrix products: {alone:.3f} s; ratio "
          f"{ours / alone:.2f} (aim: 2.5)")  # fmt: skip


def memory(quick: bool = False) -> None:
    """Peak memory of a propagation, in a process of its own."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import engine;"
        "engine.two_stage(600);"  # everything loaded
        "before = engine.resident('VmRSS'); open('/proc/self/clear_refs', 'w').write('5');"
        "engine.two_stage({n}); print(before, engine.resident('VmHWM'))"
    )
    print()
    line("rows", "peak memory of a fit beyond that before it, MB", "rows x 1,000 draws, MB")
    line(*["---"] * 3)
    for n in (600,) if quick else (6_000, 60_000):
        command = [sys.executable, "-c", code.format(n=n)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        line(f"{n:,}", f"{float(out[1]) - float(out[0]):.0f}", f"{n * 8 / 1000:.0f}")


def resident(what: str) -> float:
    """Resident memory of this process (VmRSS) or its peak (VmHWM), MB; Linux."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(row.split()[1]) / 1024 for row in status if row.startswith(what))


PARTS = {
    "samplers": samplers,
    "star": star,
    "propagation": propagation,
    "scaling": scaling,
    "backward": backward,
    "memory": memory,
}


def main() -> None:
    """Print the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--quick", action="store_true", help="small sizes, no NUTS")
    given = parser.parse_args()
    if given.quick:
        global MOST_TIMES
        MOST_TIMES = 1
    chosen = given.parts or (["samplers", "scaling", "backward"] if given.quick else list(PARTS))
    packages = ", ".join(f"{p} {version(p)}" for p in ("bdtr", "numpy", "numba", "pymc", "nutpie"))
    print(f"{date.today()}, Python {platform.python_version()}, {packages}\n")
    for name in chosen:
        PARTS[name](given.quick)
    print(
        f"\npeak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB"
    )


if __name__ == "__main__":
    main()
