"""Writes fits, reports and notebooks in child processes that are killed, or that have a small disk.

Run by test_files.py, in a process of its own: ``python interrupted.py KIND FOLDER``.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd

import bdtr
from bdtr.reports import document as reporting, notebooks, starter
from bdtr.results.files import OutputError
from bdtr.trial.protocol import Protocol

KILLS = 20
WORDS = ("old", "new")


def fitted():
    rng = np.random.default_rng(1)
    x, a = rng.normal(size=200), rng.integers(0, 2, 200)
    frame = pd.DataFrame({"x": x, "a": a, "y": x + a * (0.3 + x) + rng.normal(size=200)})
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x * a")], outcome="y")
    return bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)


class Save:
    def __init__(self, folder: Path):
        self.path = folder / "fit.nc"
        self.fits = {word: replace(fit, notes=(word,)) for word in WORDS for fit in [fitted()]}

    def write(self, word: str) -> None:
        self.fits[word].save(self.path)

    def read(self) -> str:
        return bdtr.load(self.path).notes[0]


class Report:
    def __init__(self, folder: Path):
        self.path = folder / "page.html"
        self.fit = fitted()
        bdtr.report(self.fit, self.path, thorough=False, title="old")
        made = json.loads(self.path.with_suffix(".json").read_text())
        # What is written, over and over, without the work that comes before.
        reporting.Case = lambda fit, choices: SimpleNamespace(
            choices=choices, regimes=(), figures={}
        )
        plain = [
            {**p, "blocks": [b for b in p["blocks"] if b["kind"] != "figure"]}
            for p in made["parts"]
        ]
        reporting._contents = lambda case: {**made, "title": case.choices.title, "parts": plain}

    def write(self, word: str) -> None:
        bdtr.report(self.fit, self.path, thorough=False, title=word)

    def read(self) -> str:
        page, numbers = (
            self.path.read_text(),
            json.loads(self.path.with_suffix(".json").read_text()),
        )
        assert page.rstrip().endswith("</html>")
        assert f"<title>{numbers['title']}" in page
        return numbers["title"]


class Notebook:
    def __init__(self, folder: Path):
        self.source = folder / "story.py"
        self.source.write_text("# %% [markdown]\n# # old\n# %%\n1 + 1\n")
        self.page = folder / "page.html"
        _, executed = notebooks.run_notebook(self.source, self.page)
        self.done = nbformat.read(executed, 4)
        notebooks._executed = lambda *_: self.done
        self.begin = folder / "begin.ipynb"

    def write(self, word: str) -> None:
        self.done.cells[0].source = f"# {word}"
        notebooks.run_notebook(self.source, self.page)
        self.begin.unlink(missing_ok=True)
        trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y")
        starter.starter_notebook(self.begin, Protocol(trial), "None")

    def read(self) -> str:
        if self.begin.exists():
            nbformat.read(self.begin, 4)
        page, done = self.page.read_text(), nbformat.read(self.page.with_suffix(".ipynb"), 4)
        word = done.cells[0].source.removeprefix("# ")
        assert page.rstrip().endswith("</html>") and f"<title>{word}</title>" in page
        return word


def killed(task, folder: Path) -> None:
    """Old or new after each of the kills, and the next run works."""
    rng = np.random.default_rng(os.getpid())
    began = time.perf_counter()
    task.write("old")
    lasts = time.perf_counter() - began
    seen = []
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            while True:
                for word in WORDS:
                    task.write(word)
        time.sleep(rng.uniform(0.2, 2.0) * lasts)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.append(task.read())
    task.write("new")
    assert task.read() == "new"
    print(f"{KILLS} kills, old {seen.count('old')}, new {seen.count('new')}")


def full(task, folder: Path) -> None:
    """An error of bdtr's own, everything as it was, and the process lives."""
    task.write("old")
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "begin.ipynb"}
    size = min(len(b) for n, b in before.items() if not n.endswith(".py")) // 2
    for limit in (size, 0):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            task.write("new")
        except OutputError as error:
            print(error)
        else:
            raise AssertionError("written")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert {
            p.name: p.read_bytes() for p in folder.iterdir() if p.name != "begin.ipynb"
        } == before
    task.write("new")
    assert task.read() == "new"


if __name__ == "__main__":
    kind, place = sys.argv[1], Path(sys.argv[2])
    task = {"save": Save, "report": Report, "notebook": Notebook}[kind](place)
    full(task, place)
    killed(task, place)
