"""A saved fit opened again: held against its digest, its state computed anew; nothing in it is run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from typing import Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.gate import gate
from bdtr.backward.saving import FORMAT, StorageError, digest_of
from bdtr.backward.stacking import one_of_stack
from bdtr.data.check import check_again
from bdtr.data.coding import Coding
from bdtr.data.completed import recorded, with_rewards
from bdtr.data.flow import FLOW
from bdtr.data.groupcolumns import GroupDesign
from bdtr.data.margins import Measure
from bdtr.data.modelmatrix import Columns
from bdtr.data.sitelevel import SiteLevel
from bdtr.data.smooths import Basis, SmoothDesign
from bdtr.data.stagecolumns import StageDesign
from bdtr.data.statedata import Coded, state_data
from bdtr.data.trialdata import TrialData
from bdtr.results.arguments import mapping, truth, whole
from bdtr.results.diagnostics import State, worst
from bdtr.results.errors import BdtrError
from bdtr.stages.settings import Settings, make_settings
from bdtr.trial.formula import Formula, SmoothTerm
from bdtr.trial.priors import PRIOR_COLUMNS
from bdtr.trial.states import states_of
from bdtr.trial.trial import Trial, TrialError

__all__ = ["load"]


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
    if found != FORMAT:
        raise StorageError(
            f"{path}: has format {found!r}; this bdtr reads {FORMAT}. Fit again, or read it with "
            "the bdtr that wrote it."
        )
    if tree.attrs.get("digest") != digest_of(tree, text):
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

    settings = _settings(trial, header["settings"])
    _texts(header["notes"], header["versions"], header["versions"].values())
    coding = _coding(header["coding"])
    designs = tuple(_design(state, coding) for state in header["designs"])
    for design, stage in zip(designs, trial.stages, strict=True):
        same = design.action == stage.action and design.site == trial.site
        if not same or (stage.actions is not None and design.actions != tuple(stage.actions)):
            raise StorageError("Its designs are those of another trial.")
    parts = _parts(trial, settings, designs, header, tree)
    states = _states(trial, header, tree)
    data = None
    if "data" in tree:
        data = _data(trial, settings, _frame(tree["data"].to_dataset()), parts)
        data = replace(data, index=None)
        del tree["data"]
        if data.hash() != header["data_hash"]:
            raise StorageError("Its data are not those that were fitted.")
    state = _state(header["state"])
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
        parts=parts,
        states=states,
        coded_states={name: _coded(one) for name, one in header["coded_states"].items()},
    )
    if data is not None:
        for k in range(fitted.stages):
            for name in states_of(fitted.trial, k):
                states[name].data = state_data(data, k, name)
    fitted.state = gate(fitted) if data is not None else worst([state, gate(fitted)])
    for part in parts:
        part.state, part.prior_table = fitted.state, fitted.prior_table
    return fitted


def _states(trial: Trial, header: Mapping[str, Any], tree: xr.DataTree) -> dict[str, Fit]:
    """The fits of the models of states, taken out of the tree; without their data."""
    kept, out = header["states"], {}
    if list(kept) != [n for k in range(len(trial.stages)) for n in states_of(trial, k)]:
        raise StorageError("Its states are not those of the trial.")
    for i, (name, one) in enumerate(kept.items()):
        own = Trial.from_dict(one["trial"])
        coding = _coding(one["coding"])
        designs = tuple(_design(state, coding) for state in one["designs"])
        _texts(one["notes"])
        node = tree[f"states/{i}"]
        assert isinstance(node, xr.DataTree)
        out[name] = Fit(
            own, _settings(own, one["settings"]), designs, node.copy(), _table(one["flow"], FLOW),
            tuple(one["notes"]), _state(one["state"]), "", {}, _table(one["priors"], PRIOR_COLUMNS),
        )  # fmt: skip
    if "states" in tree.children:
        del tree["states"]
    return out


def _coded(kept: Mapping[str, Any]) -> Coded:
    """How a state stands in the data."""
    labels, outside = kept["labels"], kept["outside"]
    _texts(labels or ())
    return Coded(
        None if labels is None else tuple(labels), None if outside is None else float(outside)
    )


def _coding(raw: Mapping[str, Any]) -> Coding:
    levels = {name: tuple(values) for name, values in raw["levels"].items()}
    return Coding(levels, tuple(raw["numbers"]), tuple(raw["labels"]))


def _state(kept: Mapping[str, Any]) -> State:
    _texts(kept["sampling_reasons"], kept["model_reasons"], [kept["missing"]])
    return State(
        kept["sampling"],
        tuple(kept["sampling_reasons"]),
        kept["model"],
        tuple(kept["model_reasons"]),
        kept["missing"],
    )


def _parts(
    trial: Trial,
    settings: Settings,
    designs: tuple[StageDesign, ...],
    header: Mapping[str, Any],
    tree: xr.DataTree,
) -> tuple[Fit, ...]:
    """The fits to completed data sets, taken out of the tree."""
    out = []
    whole = tree.children.get("parts")
    for d, tables in enumerate(header["site_tables"]):
        if whole is None:
            break
        own, each = one_of_stack(whole, d), []
        for design, table in zip(designs, tables, strict=True):
            values = np.array(table, dtype=float).reshape(design.sites.table.shape)
            each.append(replace(design, sites=replace(design.sites, table=values)))
        data = None
        if "data" in own:
            frame = _frame(own["data"].to_dataset())
            data = check_again(trial, frame, "exclude", settings.off_protocol, whole=True)
            data = replace(data, index=None)
            if "imputation" in tree and "reward" in tree["imputation"].data_vars:
                more = tree["imputation"].to_dataset()["reward"].to_numpy()
                data = with_rewards(data, more)
            del own["data"]
        of_part, none = settings.of_part(d), pd.DataFrame()
        out.append(Fit(trial, of_part, tuple(each), own, none, (), State(), "", {}, none, data))
    if whole is not None:
        del tree["parts"]
    if len(out) != settings.imputations:
        raise StorageError("Its completed data sets are not all there.")
    return tuple(out)


def _data(trial: Trial, settings: Settings, frame: pd.DataFrame, parts: Sequence[Fit]) -> TrialData:
    """The data as they were recorded, checked again."""
    each = [part.data for part in parts if part.data is not None]
    if not parts:
        return check_again(trial, frame, settings.missing, settings.off_protocol, whole=True)
    if len(each) < len(parts):
        raise StorageError("Its completed data sets have lost their data.")
    gaps = frame.isna().reset_index(drop=True)
    known = {c: gaps[c] & each[0].frame[c].notna() for c in gaps.columns if c in each[0].frame}
    return recorded(each, pd.DataFrame(known))


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
    whole("imputations", kept["imputations"], 0)
    made = make_settings(trial, *(kept[n] for n in names), imputations=kept["imputations"])
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


def _from_jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _from_jsonable(v) for k, v in value["pairs"]}
    if isinstance(value, list):
        return [_from_jsonable(v) for v in value]
    return value


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


def _columns(state: Mapping[str, Any], coding: Coding) -> Columns:
    example = {
        name: pd.Categorical([coding.levels[name][0]], categories=list(coding.levels[name]))
        if name in coding.levels
        else [value]
        for name, value in state["example"].items()
    }
    frame = pd.DataFrame(example, index=pd.RangeIndex(1))
    return Columns(state["text"], state["state"], frame)


def _smooth(state: Mapping[str, Any], coding: Coding) -> SmoothDesign:
    kept = state["basis"]
    count = len(state["variables"])
    one = {
        name: np.array(kept[name], dtype=float).reshape(count)
        for name in ("centre", "scale", "low", "high")
    }
    knots = np.array(kept["knots"], dtype=float).reshape(-1, count)
    turn = np.array(kept["turn"], dtype=float).reshape(len(knots) + 1 + count, -1)
    term = SmoothTerm(tuple(state["variables"]), state["by"], state["k"])
    by = None if state["columns"] is None else _columns(state["columns"], coding)
    return SmoothDesign(term, Basis(knots=knots, turn=turn, **one), by)


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
        tuple(_smooth(s, coding) for s in state["smooths"]),
        tuple(state["notes"]),
        tuple(state["added"]),
        state["site"],
        sites,
        state["has_intercept"],
    )


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
