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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.gate import gate
from bdtr.data.check import TrialData, check_again
from bdtr.data.coding import Coding
from bdtr.data.columns import StageDesign
from bdtr.data.flow import FLOW
from bdtr.data.groupcolumns import GroupDesign
from bdtr.data.margins import Measure
from bdtr.data.modelmatrix import Columns
from bdtr.data.sitelevel import SiteLevel
from bdtr.results.arguments import mapping, truth
from bdtr.results.diagnostics import State, worst
from bdtr.results.errors import BdtrError
from bdtr.results.files import OutputError, check_output, write_whole
from bdtr.results.settings import Settings, make_settings
from bdtr.trial.formula import Formula
from bdtr.trial.priors import PRIOR_COLUMNS
from bdtr.trial.trial import Trial, TrialError

if TYPE_CHECKING:
    from bdtr.backward.fitted import Fit

__all__ = ["StorageError", "load", "save"]

_FORMAT = 5
# Endings of files that hold something else.
_OTHERS = (
    ".csv", ".tsv", ".gz", ".dta", ".sav", ".rds", ".mat", ".xls", ".xlsx", ".parquet", ".feather", ".json",
    ".toml", ".html", ".htm", ".pdf", ".ipynb", ".py", ".md", ".txt", ".pkl",
)  # fmt: skip
_POINTWISE = ("prior_predictive", "posterior_predictive", "log_likelihood", "observed_data")


class StorageError(BdtrError, ValueError):
    """A file that is no saved fit, one of another format, or one that was changed."""


def save(fit: Fit, path: str | os.PathLike, data: bool = True) -> None:
    """See :meth:`bdtr.Fit.save`. Made in memory first: HDF5 ends the process where a disk is full."""
    truth("data", data)
    target = _place(path)
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
            for name in _POINTWISE:
                if name in stage.children:
                    del stage[name]
    if data and fit.data is not None:
        tree["data"] = xr.DataTree(_data_group(fit.data))
    text = json.dumps(_jsonable(header))
    tree.attrs = {"bdtr": text, "digest": _digest(tree, text)}
    try:
        content = bytes(tree.to_netcdf(engine="h5netcdf"))
    except ValueError as error:  # half a character, or an end of text within one
        raise StorageError(
            f"{path}: the fit has text that no netCDF file holds. {error}. Correct the label in the data."
        ) from None
    write_whole({target: content})


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


def load(path: str | os.PathLike, models: Mapping[str, Any] | None = None) -> Fit:
    """Read a fit that :meth:`bdtr.Fit.save` wrote; nothing in the file is run.

    The state is computed again from the draws. Where the data were not saved, only what the draws of the
    parameters show can be, and the worse of that and of the state in the file holds.

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
        If the file is no saved fit, or was changed after it was saved.
    TrialError
        If a stage model of your own is not given.
    """
    if models is not None:
        mapping("models", models, "stages to models of your own")
    tree, text = _opened(path)
    try:
        header = _from_jsonable(json.loads(text))
        found = header["format"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise StorageError(f"{path}: is no fit saved by bdtr, or a broken one.") from None
    if found != _FORMAT:
        raise StorageError(
            f"{path}: has format {found!r}; this bdtr reads {_FORMAT}. Fit again, or read it with "
            "the bdtr that wrote it."
        )
    if tree.attrs.get("digest") != _digest(tree, text):
        raise StorageError(
            f"{path}: was changed or damaged after bdtr saved it (its digest does not fit its contents) "
            "and is not read. Take another copy, or fit again."
        )
    tree.attrs = {}
    trial = _trial(path, header, models or {})
    try:
        return _fit(trial, header, tree)
    except Exception as error:  # whatever a file that somebody made up leads to
        reason = f"{error}" if isinstance(error, BdtrError) else f"{type(error).__name__}: {error}"
        raise StorageError(f"{path}: is no complete fit. {reason}") from None


def _opened(path: str | os.PathLike) -> tuple[xr.DataTree, str]:
    """The tree of a file, and its header."""
    if not isinstance(path, (str, os.PathLike)):
        raise StorageError(f"path={path!r}: must name a file.")
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "there is no such file"
        raise StorageError(f"{path}: {what}.")
    try:
        with h5py.File(path) as held:
            _tree_alone(held)
        with xr.open_datatree(path, engine="h5netcdf", decode_times=False) as opened:
            tree = opened.load().copy()
            text = tree.attrs.get("bdtr")
    except Exception as error:  # of the libraries that read it
        reason = " ".join(str(error).split())[:200]
        raise StorageError(f"{path}: cannot be read as a netCDF file. {reason}") from None
    if not isinstance(text, str):
        raise StorageError(f"{path}: is no fit saved by bdtr.")
    return tree, text


def _tree_alone(held: h5py.File) -> None:
    """Raise where groups are linked in a circle, or links lead out of the file."""
    from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]  # compiled, no stubs

    seen, waiting = set(), list[Any]([held["/"]])
    while waiting:
        group = waiting.pop()
        place = h5o.get_info(group.id).addr
        if place in seen:
            raise ValueError("its groups are linked in a circle")
        seen.add(place)
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError("it has links to elsewhere")
            if isinstance(group[name], h5py.Group):
                waiting.append(group[name])


def _trial(path: str | os.PathLike, header: Mapping[str, Any], models: Mapping[str, Any]) -> Trial:
    try:
        return Trial.from_dict(header["trial"], models)
    except TrialError as error:
        stages = header["trial"].get("stages") if isinstance(header["trial"], Mapping) else None
        if models or any(s.get("model") for s in stages or ()):
            raise  # a model of the user's that was not given, or another one
        raise StorageError(f"{path}: the trial in it is none. {error}") from None
    except Exception as error:
        raise StorageError(f"{path}: the trial in it is none. {error}") from None


def _fit(trial: Trial, header: Mapping[str, Any], tree: xr.DataTree) -> Fit:
    from bdtr.backward.fitted import Fit

    settings = _settings(trial, header["settings"])
    _texts(header["notes"], header["versions"], header["versions"].values())
    raw = header["coding"]
    levels = {name: tuple(values) for name, values in raw["levels"].items()}
    coding = Coding(levels, tuple(raw["numbers"]), tuple(raw["labels"]))
    designs = tuple(_design(state, coding) for state in header["designs"])
    for design, stage in zip(designs, trial.stages, strict=True):
        same = design.action == stage.action and design.site == trial.site
        if not same or (stage.actions is not None and design.actions != tuple(stage.actions)):
            raise StorageError("Its designs are those of another trial.")
    data = None
    if "data" in tree:
        frame = _frame(tree["data"].to_dataset())
        data = check_again(trial, frame, settings.missing, settings.off_protocol, whole=True)
        data = replace(data, index=None)
        del tree["data"]
        if data.hash() != header["data_hash"]:
            raise StorageError("Its data are not those that were fitted.")
    kept = header["state"]
    _texts(kept["sampling_reasons"], kept["model_reasons"])
    state = State(
        kept["sampling"],
        tuple(kept["sampling_reasons"]),
        kept["model"],
        tuple(kept["model_reasons"]),
    )
    fitted = Fit(
        trial,
        settings,
        designs,
        tree,
        _table(header["flow"], FLOW),
        tuple(header["notes"]),
        state,
        header["data_hash"],
        header["versions"],
        _table(header["priors"], PRIOR_COLUMNS),
        data,
    )
    fitted.state = gate(fitted) if data is not None else worst([state, gate(fitted)])
    return fitted


def _digest(tree: xr.DataTree, header: str) -> str:
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


def _settings(trial: Trial, kept: Mapping[str, Any]) -> Settings:
    """Settings that hold what settings can."""
    names = (
        "missing",
        "off_protocol",
        "sampler",
        "chains",
        "draws",
        "tune",
        "propagated",
        "random_seed",
    )
    made = make_settings(trial, *(kept[name] for name in names))
    truth("quick", kept["quick"])
    width = float(kept["prior_width"])
    return replace(made, quick=kept["quick"], common=kept["common"], prior_width=width)


def _texts(*several: Iterable[Any]) -> None:
    if not all(isinstance(text, str) for texts in several for text in texts):
        raise StorageError("Its notes, states or versions are no text.")


def _table(text: str, columns: Sequence[str]) -> pd.DataFrame:
    found = pd.read_json(StringIO(text), orient="table")
    if list(found.columns) != list(columns):
        raise StorageError(f"A table in it has no columns {', '.join(columns)}.")
    return found


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
