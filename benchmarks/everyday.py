"""Everyday calls, against lme4's point estimate of the same model where there is one, in one run.

    python benchmarks/everyday.py           # some five minutes on two cores
    python benchmarks/everyday.py --quick   # small sizes, no report: whether it runs, in ten seconds

The first row is of the first fit in a process; all others are medians of calls after it. lme4 (Debian:
r-cran-lme4) is timed within R, its start and the reading of the data not counted; without R its column is
empty.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from designs import clustered_data, clustered_trial

import bdtr

TIMES = 7
REGIMES = [bdtr.static(a1=a, a2=b) for a in (0, 1) for b in (0, 1)]
LME4 = """
suppressMessages(library(lme4))
d <- read.csv("{path}")
d$a1 <- factor(d$a1, levels = c("regular", "small", "aide"))
f <- function() lmer(y_k ~ female + black + age + a1 * lunch + (1 + a1 | school) + (1 | classroom_k), d)
invisible(suppressMessages(suppressWarnings(f())))
times <- sapply(1:{times}, function(i) system.time(suppressMessages(suppressWarnings(f())))[["elapsed"]])
cat(median(times))
"""


def kindergarten() -> bdtr.Trial:
    """The first stage of Project STAR by itself: schools with slopes, classes within them."""
    stage = bdtr.Stage(
        "a1",
        actions=["regular", "small", "aide"],
        formula="female + black + age + a1 * lunch + (1 + a1 | school)",
        delivered_in="classroom_k",
        site_means=False,
    )
    return bdtr.Trial([stage], outcome="y_k", unit="id", site="school")


def fitted(trial: bdtr.Trial, frame, draws: int, propagated: int | None = None) -> bdtr.Fit:
    """A direct fit, gate included."""
    return bdtr.fit(
        trial, frame, missing="exclude", sampler="direct", draws=draws, propagated=propagated,
        random_seed=1, progress=False,
    )  # fmt: skip


def seconds(work: Callable[[], object], times: int) -> float:
    """Median time of some calls."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def by_lme4(frame, times: int) -> float:
    """Seconds of lme4's point estimate of the kindergarten model; not a number without R."""
    if shutil.which("Rscript") is None:
        return float("nan")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "star.csv"
        frame.to_csv(path, index=False)
        code = LME4.format(path=path, times=times)
        done = subprocess.run(["Rscript", "-e", code], capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def line(*cells: object) -> None:
    """One row of the table."""
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


def row(what: str, found: float, other: float = float("nan"), name: str = "") -> None:
    """A call, its seconds, and the ratio to another's."""
    ratio = "" if np.isnan(other) else f"{found / other:.2f}"
    line(what, f"{found:.2f}", "" if np.isnan(other) else f"{name} {other:.2f}", ratio)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    times, draws = (1, 250) if quick else (TIMES, 1000)
    star = bdtr.datasets.star()
    frame = star.dropna(subset=["y_k", "female", "black", "age", "lunch", "classroom_k"])
    study, _ = clustered_data("40 sites of 25", np.random.default_rng(1))
    print(f"{platform.machine()}, Python {platform.python_version()}; medians of {times} calls\n")
    line("call", "seconds", "against", "ratio")
    line("---", "---", "---", "---")
    first = seconds(lambda: fitted(kindergarten(), frame, draws), 1)
    row("first fit in a process, kernels on disk", first)
    lme4 = float("nan") if quick else by_lme4(frame, times)
    again = seconds(lambda: fitted(kindergarten(), frame, draws), times)
    row(
        f"fit of STAR kindergarten with classes, 4 x {draws} draws, gate included",
        again,
        lme4,
        "lme4",
    )

    def whole() -> None:
        fit = fitted(clustered_trial(False), study, 125, 500)
        bdtr.value(fit, bdtr.recommended(), *REGIMES)

    whole()
    row("two stages of 40 x 25, 500 draws, values of five regimes", seconds(whole, times))
    fit = fitted(clustered_trial(False), study, 125, 500)
    began = time.perf_counter()
    bdtr.value(fit, bdtr.recommended(), *REGIMES)
    row("of this the values", time.perf_counter() - began)
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            bdtr_command = str(Path(sys.executable).with_name("bdtr"))
            command = [bdtr_command, "report", "star", "-o", f"{folder}/star.html"]
            row("bdtr report star", seconds(lambda: subprocess.run(command, check=True), 1))


if __name__ == "__main__":
    main()
