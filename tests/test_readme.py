"""The code of the README: the trial is the bundled study's, the model of your own is one."""

from __future__ import annotations

import ast
import re
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import bdtr
from bdtr.stages.stagemodel import StageModel

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_trial_is_that_of_the_bundled_study():
    study = BLOCKS[0]
    names: dict = {}
    exec(study[: study.index("fit = ")], names)
    assert names["trial"] == bdtr.datasets.star_trial()
    compile(study, "README", "exec")


def test_every_name_of_the_examples_exists():
    pages = [p.read_text(encoding="utf-8") for p in (ROOT / "docs").glob("*.md")]
    others = [b for page in pages for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
    for block in [*BLOCKS, *others]:
        for node in ast.walk(ast.parse(block)):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if re.fullmatch(r"bdtr(\.\w+)+", name):
                attrgetter(name.removeprefix("bdtr."))(bdtr)


def test_the_model_of_your_own_builds_and_predicts():
    names: dict = {}
    exec(next(block for block in BLOCKS if "class Robust" in block), names)
    model = names["stage"].model
    assert isinstance(model, StageModel)
    history = pd.DataFrame({"y_k": [0.0, 1.0, 2.0]})
    history["a2"] = pd.Categorical(["regular", "aide", "aide"], categories=["regular", "aide"])
    built = model.build(history, np.zeros(3))
    assert {v.name for v in built.free_RVs} == {"b", "sigma"}
    draws = xr.Dataset({"b": (("i", "sample"), [[1.0, 0], [0.5, 0], [0.25, 0], [0.1, 0]])})
    assert model.q(draws, history)[:, 0].tolist() == [1.0, 1.85, 2.45]
