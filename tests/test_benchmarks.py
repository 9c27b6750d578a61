"""Every benchmark runs: a form of ten seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command):
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_engine():
    assert "Backward pass" in run("benchmarks/engine.py", "--quick")


def test_everyday_calls():
    assert "values of five regimes" in run("benchmarks/everyday.py", "--quick")


def test_ranks():
    found = run("benchmarks/ranks.py", "--sims", "2", "--workers", "1", "--only", "ordinal")
    assert "## ordinal" in found and "log likelihood" in found


@pytest.mark.parametrize(
    ("table", "design"),
    [
        ("nine", "1"),
        ("clustered", "30 sites of 10"),
        ("values", "1"),
        ("populations", None),
        ("opinion", None),
        ("places", "two stages"),
        ("arms", None),
        ("responders", None),
        ("site_level", "size"),
        ("crossfit", "20 sites of 24"),
        ("remission", "rate near a half"),
        ("counts", "60 clinics in 8 systems"),
        ("missing", "150 people, by x and a1"),
        ("smooth", "abs(m), n = 200"),
        ("computed", "abs(m), n = 200"),
        ("folded", "n = 200"),
    ],
)
def test_calibration(table, design):
    only = ["--only", design] if design else []
    found = run("benchmarks/calibration.py", table, "--sets", "2", "--workers", "1", *only)
    assert f"# Calibration: {table}" in found and "2 data sets" in found
