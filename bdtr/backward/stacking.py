"""Fits to completed data sets as one tree of a file, arrays side by side: it is variables that cost time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["one_of_stack", "stacked"]

_DIM, _ATTRS = "imputation", "attributes"


def stacked(trees: Sequence[xr.DataTree]) -> xr.DataTree:
    """Trees as one, dim ``imputation`` first: the groups that all have, with the same variables and shapes.

    Parameters
    ----------
    trees
        One for each completed data set.
    """
    nodes = [{n.relative_to(tree): n for n in tree.subtree} for tree in trees]
    found = {}
    for path in (p for p in nodes[0] if all(p in other for other in nodes)):
        each = [one[path].to_dataset(inherit=False) for one in nodes]
        found["/" if path == "." else path] = _together(each)
    return xr.DataTree.from_dict(found)


def one_of_stack(tree: xr.DataTree, d: int) -> xr.DataTree:
    """The tree of data set d out of :func:`stacked`."""
    found = {}
    for node in tree.subtree:
        path = node.relative_to(tree)
        whole = node.to_dataset(inherit=False)
        own = whole.isel({_DIM: d}) if _DIM in whole.dims else whole.copy()
        own.attrs = json.loads(whole.attrs[_ATTRS])[d]
        for name in own.data_vars:
            own[name].attrs = json.loads(whole[name].attrs[_ATTRS])[d]
        found["/" if path == "." else path] = own
    return xr.DataTree.from_dict(found)


def _together(each: Sequence[xr.Dataset]) -> xr.Dataset:
    first, made = each[0], {}
    for name, values in first.data_vars.items():
        arrays = np.stack([one[name].to_numpy() for one in each])
        attrs = {_ATTRS: _text([one[name].attrs for one in each])}
        made[name] = ((_DIM, *values.dims), arrays, attrs)
    return xr.Dataset(made, first.coords, {_ATTRS: _text([one.attrs for one in each])})


def _text(attrs: Sequence[Mapping[Any, Any]]) -> str:
    def plain(value: Any) -> Any:
        found = np.asarray(value).tolist()
        return found if not isinstance(found, bytes) else str(value)

    return json.dumps([{str(k): plain(v) for k, v in one.items()} for one in attrs])
