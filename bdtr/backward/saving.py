"""A fit as one netCDF file: draws as ArviZ expects them, the rest as JSON text; no code.

What is in the file is data. Formulas, conditions and priors are read by their grammars, as those of a user;
nothing is evaluated. A digest of all text, arrays and attributes (SHA-256) tells a file that was changed
or damaged. It is no signature: who changes a file can make a new one. So the state is not believed either,
but computed again from the draws.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.stacking import stacked
from bdtr.data.margins import Measure
from bdtr.data.modelmatrix import Columns
from bdtr.data.smooths import SmoothDesign
from bdtr.data.stagecolumns import StageDesign
from bdtr.data.trialdata import TrialData
from bdtr.results.arguments import truth
from bdtr.results.errors import BdtrError
from bdtr.results.files import OutputError, check_output, write_whole

__all__ = ["FORMAT", "StorageError", "digest_of", "save"]

FORMAT = 9
# Endings of files that hold something else.
_OTHERS = (
    ".csv", ".tsv", ".gz", ".dta", ".sav", ".rds", ".mat", ".xls", ".xlsx", ".parquet", ".feather", ".json",
    ".toml", ".html", ".htm", ".pdf", ".ipynb", ".py", ".md", ".txt", ".pkl",
)  # fmt: skip
_POINTWISE = ("prior_predictive", "posterior_predictive", "log_likelihood", "observed_data")


class StorageError(BdtrError, ValueError):
    """A file that is no saved fit, one of another format, or one that was changed."""


def save(fit: FitRecord, path: str | os.PathLike, data: bool = True) -> None:
    """See :meth:`bdtr.Fit.save`. Made in memory first: HDF5 ends the process where a disk is full."""
    truth("data", data)
    if fit.settings.part is not None:
        raise StorageError(
            "The fit to one completed data set is saved with the whole fit, by its save()."
        )
    target = _place(path)
    header = {
        "format": FORMAT,
        "trial": fit.trial.to_dict(),
        "settings": asdict(fit.settings),
        "designs": [_design_state(d) for d in fit.designs],
        "states": {name: _state_header(one) for name, one in fit.states.items()},
        "coded_states": {name: asdict(one) for name, one in fit.coded_states.items()},
        "site_tables": [[d.sites.table for d in part.designs] for part in fit.parts],
        "coding": asdict(fit.designs[0].coding),
        "flow": fit.flow.to_json(orient="table", index=False),
        "notes": list(fit.notes),
        "state": asdict(fit.state),
        "data_hash": fit.data_hash,
        "versions": dict(fit.versions),
        "priors": fit.prior_table.to_json(orient="table", index=False),
    }
    tree = fit.tree.copy()
    for i, one in enumerate(fit.states.values()):
        tree[f"states/{i}"] = one.tree.copy()
    if not data:  # pointwise groups hold the data, or labels of units
        for stage in (child for name, child in tree.children.items() if name.startswith("stage_")):
            for name in _POINTWISE:
                if name in stage.children:
                    del stage[name]
    if data and fit.data is not None:
        tree["data"] = xr.DataTree(_data_group(fit.data))
    if fit.parts:
        each = [part.tree.copy() for part in fit.parts]
        for own, part in zip(each, fit.parts, strict=True):
            if data and part.data is not None:
                own["data"] = xr.DataTree(_data_group(part.data))
        tree["parts"] = stacked(each)
    text = json.dumps(_jsonable(header))
    tree.attrs = {"bdtr": text, "digest": digest_of(tree, text)}
    try:
        content = bytes(tree.to_netcdf(engine="h5netcdf"))
    except ValueError as error:  # half a character, or an end of text within one
        raise StorageError(
            f"{path}: the fit has text that no netCDF file holds. {error}. Correct the label in the data."
        ) from None
    write_whole({target: content})


def _state_header(fit: FitRecord) -> dict[str, Any]:
    """What the fit of the model of a state has beside its draws; its data follow from those of the trial."""
    return {
        "trial": fit.trial.to_dict(),
        "settings": asdict(fit.settings),
        "designs": [_design_state(d) for d in fit.designs],
        "coding": asdict(fit.designs[0].coding),
        "flow": fit.flow.to_json(orient="table", index=False),
        "notes": list(fit.notes),
        "state": asdict(fit.state),
        "priors": fit.prior_table.to_json(orient="table", index=False),
    }


def _place(path: str | os.PathLike) -> Path:
    """Where a fit may be written: not over something else."""
    place = check_output(path, "path")
    for one in (place, Path(os.path.realpath(place))):
        if one.suffix.lower() in _OTHERS:
            raise OutputError(f"path {path}: a fit is a netCDF file; call it {one.stem}.nc.")
    if place.exists() and place.stat().st_size and not _holds_a_fit(place):
        raise OutputError(
            f"path {path}: is there already and holds something else. Choose another name."
        )
    return place


def _holds_a_fit(path: Path) -> bool:
    try:
        with h5py.File(path) as held:
            return "bdtr" in held.attrs
    except OSError:
        return False


def digest_of(tree: xr.DataTree, header: str) -> str:
    """SHA-256 of the header and all groups, variables and attributes, whatever types a file makes of them."""
    digest = hashlib.sha256()

    def add(*parts: str | bytes) -> None:
        for part in parts:
            raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)

    add(header)
    for node in sorted(tree.subtree, key=lambda n: n.path):
        held = node.to_dataset(inherit=False)
        own = {} if node is tree else held.attrs
        add(node.path, _attributes(own))
        for name in sorted(held.variables, key=str):
            variable = held.variables[name]
            values = variable.to_numpy()
            kind = "coordinate" if name in held.coords else "variable"
            add(str(name), kind, json.dumps([list(map(str, variable.dims)), values.shape]))
            add(_attributes(variable.attrs), *_raw(values))
    return digest.hexdigest()


def _attributes(attrs: Mapping[Any, Any]) -> str:
    def plain(value: Any) -> Any:
        found = np.asarray(value).tolist()
        if isinstance(found, bool):
            return int(found)
        return found[0] if isinstance(found, list) and len(found) == 1 else found

    return json.dumps({str(k): plain(v) for k, v in attrs.items()}, sort_keys=True, default=str)


def _raw(values: np.ndarray) -> tuple[str | bytes, ...]:
    """The kind of an array and its contents."""
    if values.dtype.kind in "biu":
        return "whole", np.ascontiguousarray(values, dtype="<i8").tobytes()
    if values.dtype.kind == "f":
        return "number", np.ascontiguousarray(values, dtype="<f8").tobytes()
    return "text", json.dumps([str(v) for v in values.ravel().tolist()])


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
        "smooths": [_smooth_state(s) for s in design.smooths],
        "notes": list(design.notes),
        "added": list(design.added),
        "site": design.site,
        "site_levels": list(design.site_levels),
        "has_intercept": design.has_intercept,
    }


def _measure_state(measure: Measure) -> dict[str, Any]:
    return {"turn": measure.turn, "back": measure.back, "scale": measure.scale}


def _smooth_state(smooth: SmoothDesign) -> dict[str, Any]:
    return {
        "variables": list(smooth.term.variables),
        "by": smooth.term.by,
        "k": smooth.term.basis,
        "columns": None if smooth.by is None else _columns_state(smooth.by),
        "basis": asdict(smooth.basis),
    }


def _columns_state(columns: Columns) -> dict[str, Any]:
    return {"text": columns.text, "state": columns.state, "example": columns.example}


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
