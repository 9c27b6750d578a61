"""A fit as one netCDF file: draws as ArviZ expects them, the rest as JSON text; no pickled code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.coding import Coding
from bdtr.columns import Columns
from bdtr.data import TrialData, check
from bdtr.design import StageDesign
from bdtr.diagnostics import State
from bdtr.errors import BdtrError
from bdtr.formula import Formula
from bdtr.groupdesign import GroupDesign
from bdtr.margins import Measure
from bdtr.settings import Settings
from bdtr.sitelevel import SiteLevel
from bdtr.trial import Trial

if TYPE_CHECKING:
    from bdtr.fitted import Fit

__all__ = ["StorageError", "load", "save"]

_FORMAT = 3


class StorageError(BdtrError, ValueError):
    """A file that is no saved fit, or one of another format."""


def save(fit: Fit, path: str, data: bool = True) -> None:
    """See :meth:`bdtr.Fit.save`. The file is complete or absent: written aside, then renamed."""
    header = {
        "format": _FORMAT,
        "trial": fit.trial.to_dict(),
        "settings": asdict(fit.settings),
        "designs": [_design_state(d) for d in fit.designs],
        "coding": asdict(fit.designs[0].coding),
        "flow": fit.flow.to_json(orient="table", index=False),
        "notes": list(fit.notes),
        "state": asdict(fit.state),
        "data_hash": fit.data_hash,
        "versions": dict(fit.versions),
        "priors": fit.prior_table.to_json(orient="table", index=False),
    }
    tree = fit.tree.copy()
    if not data:  # pointwise groups hold the data, or labels of units
        for stage in (child for name, child in tree.children.items() if name.startswith("stage_")):
            for name in (
                "prior_predictive",
                "posterior_predictive",
                "log_likelihood",
                "observed_data",
            ):
                if name in stage.children:
                    del stage[name]
    tree.attrs = {"bdtr": json.dumps(_jsonable(header))}
    if data and fit.data is not None:
        tree["data"] = xr.DataTree(_data_group(fit.data))
    aside = f"{path}.part"
    try:
        tree.to_netcdf(aside, engine="h5netcdf")
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.remove(aside)


def load(path: str, models: Mapping[str, Any] | None = None) -> Fit:
    """Read a fit that :meth:`bdtr.Fit.save` wrote.

    Parameters
    ----------
    path
        File to read.
    models
        Stage models of your own by the action of their stage: their code is not in the file.

    Returns
    -------
    bdtr.Fit
        Ready for summaries and recommendations, and for further backward passes if the data were saved.

    Raises
    ------
    StorageError
        If the file is no saved fit.
    TrialError
        If a stage model of your own is not given.
    """
    from bdtr.fitted import Fit

    with xr.open_datatree(path, engine="h5netcdf") as opened:
        tree = opened.load().copy()
    if "bdtr" not in tree.attrs:
        raise StorageError(f"{path} is no fit saved by bdtr.")
    header = _from_jsonable(json.loads(tree.attrs["bdtr"]))
    if header["format"] != _FORMAT:
        raise StorageError(f"{path} has format {header['format']}; this bdtr reads {_FORMAT}.")
    tree.attrs = {}
    settings = Settings(**header["settings"])
    trial = Trial.from_dict(header["trial"], models)
    raw = header["coding"]
    levels = {name: tuple(values) for name, values in raw["levels"].items()}
    coding = Coding(levels, tuple(raw["numbers"]), tuple(raw["labels"]))
    designs = tuple(_design(state, coding) for state in header["designs"])
    data = None
    if "data" in tree:
        frame = _frame(tree["data"].to_dataset())
        data = check(trial, frame, settings.missing, settings.off_protocol)
        del tree["data"]
    kept = header["state"]
    state = State(
        kept["sampling"],
        tuple(kept["sampling_reasons"]),
        kept["model"],
        tuple(kept["model_reasons"]),
    )
    return Fit(
        trial,
        settings,
        designs,
        tree,
        _table(header["flow"]),
        tuple(header["notes"]),
        state,
        header["data_hash"],
        header["versions"],
        _table(header["priors"]),
        data,
    )


def _table(text: str) -> pd.DataFrame:
    return pd.read_json(StringIO(text), orient="table")


def _jsonable(value: Any) -> Any:
    """Plain lists and pairs; the state of transforms has numbers as keys, which JSON lacks."""
    if isinstance(value, Mapping):
        return {"pairs": [[_jsonable(k), _jsonable(v)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    return value


def _from_jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _from_jsonable(v) for k, v in value["pairs"]}
    if isinstance(value, list):
        return [_from_jsonable(v) for v in value]
    return value


def _design_state(design: StageDesign) -> dict[str, Any]:
    return {
        "index": design.index,
        "action": design.action,
        "actions": list(design.actions),
        "formula": design.formula.text,
        "columns": _columns_state(design.columns),
        "arms": list(design.arms),
        "keep": list(design.keep),
        "arm_of": list(design.arm_of),
        "sites": {
            "names": list(design.sites.names),
            "table": design.sites.table,
            "value": list(design.sites.value),
            "action": list(design.sites.action),
            "variables": [sorted(v) for v in design.sites.variables],
        },
        "measure": _measure_state(design.measure),
        "constant": design.constant,
        "calibrated": design.calibrated,
        "groups": [
            {
                "factor": list(g.factor),
                "columns": _columns_state(g.columns),
                "keep": list(g.keep),
                "correlated": g.correlated,
                "role": g.role,
                "levels": list(g.levels),
                "measure": _measure_state(g.measure),
            }
            for g in design.groups
        ],
        "notes": list(design.notes),
        "added": list(design.added),
        "site": design.site,
        "site_levels": list(design.site_levels),
        "has_intercept": design.has_intercept,
    }


def _measure_state(measure: Measure) -> dict[str, Any]:
    return {"turn": measure.turn, "back": measure.back, "scale": measure.scale}


def _measure(state: Mapping[str, Any]) -> Measure:
    """Arrays again; those without elements have lost their shape."""
    scale = np.array(state["scale"], dtype=float)
    shape = (len(scale), len(scale))
    turn, back = (np.array(state[name], dtype=float).reshape(shape) for name in ("turn", "back"))
    return Measure(turn, back, scale)


def _sites(state: Mapping[str, Any], sites: int) -> SiteLevel:
    table = np.array(state["table"], dtype=float).reshape(sites, -1) if sites else np.zeros((0, 0))
    return SiteLevel(
        tuple(state["names"]),
        table,
        tuple(state["value"]),
        tuple(state["action"]),
        tuple(frozenset(v) for v in state["variables"]),
    )


def _columns_state(columns: Columns) -> dict[str, Any]:
    return {"text": columns.text, "state": columns.state, "example": columns.example}


def _columns(state: Mapping[str, Any], coding: Coding) -> Columns:
    example = {
        name: pd.Categorical([coding.levels[name][0]], categories=list(coding.levels[name]))
        if name in coding.levels
        else [value]
        for name, value in state["example"].items()
    }
    frame = pd.DataFrame(example, index=pd.RangeIndex(1))
    return Columns(state["text"], state["state"], frame)


def _design(state: Mapping[str, Any], coding: Coding) -> StageDesign:
    groups = tuple(
        GroupDesign(
            tuple(g["factor"]),
            _columns(g["columns"], coding),
            tuple(g["keep"]),
            g["correlated"],
            g["role"],
            np.array(g["levels"], dtype=object),
            _measure(g["measure"]),
        )
        for g in state["groups"]
    )
    sites = np.array(state["site_levels"], dtype=object)
    return StageDesign(
        state["index"],
        state["action"],
        tuple(state["actions"]),
        tuple(state["arms"]),
        Formula.parse(state["formula"]),
        coding,
        _columns(state["columns"], coding),
        tuple(state["keep"]),
        tuple(state["arm_of"]),
        _sites(state["sites"], len(sites)),
        _measure(state["measure"]),
        np.array(state["constant"], dtype=float),
        state["calibrated"],
        groups,
        tuple(state["notes"]),
        tuple(state["added"]),
        state["site"],
        sites,
        state["has_intercept"],
    )


def _data_group(data: TrialData) -> xr.Dataset:
    """The columns the trial uses: numbers as they are, labels as codes (-1 missing) with their list."""
    found: dict[str, Any] = {}
    for i, name in enumerate(data.frame.columns):
        column = data.frame[name]
        key = f"column_{i}"  # users' names may hold what a group of a tree may not
        if name in data.coding.numbers:
            found[key] = ("unit", column.to_numpy(), {"kind": "number", "name": name})
            continue
        codes, labels = pd.factorize(column.astype(object))
        attrs = {"kind": "label", "name": name, "labels": json.dumps([str(x) for x in labels])}
        found[key] = ("unit", codes.astype(np.int32), attrs)
    units = {"unit": [str(u) for u in data.units]}
    return xr.Dataset(found, coords=units, attrs={"unit": data.trial.unit or ""})


def _frame(group: xr.Dataset) -> pd.DataFrame:
    columns = {}
    for values in group.data_vars.values():
        array = values.to_numpy()
        if values.attrs["kind"] == "label":
            labels = np.array([*json.loads(values.attrs["labels"]), None], dtype=object)
            array = pd.array(labels[array], dtype="str")
        columns[values.attrs["name"]] = array
    if group.attrs["unit"]:
        columns[group.attrs["unit"]] = pd.array(
            group["unit"].to_numpy().astype(object), dtype="str"
        )
    return pd.DataFrame(columns)
