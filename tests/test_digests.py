"""The same bits before and after the moves of the house; kept while the moves are made.

``python tests/test_digests.py`` writes the file anew. Bits hold on one kind of machine only.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "benchmarks")]
import designs  # noqa: E402
from simulate import TwoStage, clinic_study, clinic_trial  # noqa: E402

import bdtr  # noqa: E402

FILE = Path(__file__).parent / "digests.json"
ASKED = {"random_seed": 11, "progress": False, "chains": 4, "draws": 250}
EASY = TwoStage(20, 20)
TRIALS = {
    "star": lambda: (bdtr.datasets.star_trial(), bdtr.datasets.star(), "direct"),
    "activity": lambda: (bdtr.datasets.activity_trial(), bdtr.datasets.activity(), "direct"),
    "clinics": lambda: (clinic_trial(), clinic_study(), "direct"),
    "clinics, pymc": lambda: (clinic_trial(), clinic_study(), "pymc"),
    "two stages": lambda: (EASY.trial(), EASY.draw(1), "direct"),
    "nine": lambda: (
        designs.nine_trial(),
        designs.nine_data("A", np.random.default_rng(1)),
        "direct",
    ),
}


def _digest(*arrays) -> str:
    found = hashlib.sha256()
    for one in arrays:
        one = np.asarray(one)
        if one.dtype.kind in "OUST":
            found.update(json.dumps([str(x) for x in one.ravel()]).encode())
        else:
            found.update(np.ascontiguousarray(one, dtype=float).tobytes())
    return found.hexdigest()[:16]


def _of_tree(tree) -> str:
    parts = []
    for node in sorted(tree.subtree, key=lambda n: n.path):
        held = node.to_dataset(inherit=False)
        if "sample_stats" not in node.path:  # times
            parts += [held[name].to_numpy() for name in sorted(held.data_vars)]
    return _digest(*parts)


def _of_table(table) -> str:
    return _digest(*(table[c].astype(object).to_numpy() if table[c].dtype.kind not in "fiub" else table[c]
                     for c in table.columns))  # fmt: skip


def digests(name: str) -> dict[str, str]:
    trial, frame, sampler = TRIALS[name]()
    asked = (
        ASKED
        | ({"tune": 100} if sampler == "pymc" else {})
        | {"sampler": sampler, "missing": "exclude"}
    )
    fit = bdtr.fit(trial, frame, off_protocol="exclude", **asked)
    out = {
        "state": str(fit.state),
        "tree": _of_tree(fit.tree),
        "summary": _of_table(fit.summary().table),
    }
    values = bdtr.value(fit)
    out["values"] = _digest(values.draws["value"])
    out["values, table"] = _of_table(values.table)
    out["further"] = _of_tree(fit.tree)
    out["new site"] = (
        _digest(bdtr.value(fit, bdtr.recommended(), population="new site").draws["value"])
        if trial.site
        else ""
    )
    recommended = bdtr.recommend(fit, frame, sites="observed", override="digest")
    out["recommend"] = _of_table(recommended.table)
    out["plan"] = _of_table(bdtr.plan(fit, trial.stages[0].action).table)
    if name in ("activity", "nine"):
        out["crossfit"] = _digest(bdtr.crossfit(fit, folds=3, progress=False).draws["value"])
    return out


@pytest.mark.parametrize("name", TRIALS)
@pytest.mark.filterwarnings("ignore")
def test_the_moves_change_no_bit(name):
    assert digests(name) == json.loads(FILE.read_text())[name]


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: digests(name) for name in TRIALS}, indent=1) + "\n")
