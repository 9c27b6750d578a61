"""A report's contents as PDF, set by typst from the same numbers and figures as the page."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdtr.reports.page import shown, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["pdf", "require_typst"]


def require_typst() -> None:
    """Say how to install typst where it is missing."""
    if importlib.util.find_spec("typst") is None:
        raise ImportError(
            "pdf=True needs typst, the extra 'pdf': python -m pip install '.[pdf]' in the clone of bdtr."
        )


def pdf(contents: Mapping[str, Any], figures: Mapping[str, Figure]) -> bytes:
    """The report as PDF.

    Parameters
    ----------
    contents
        What ``report.json`` holds.
    figures
        Figures by the names that its blocks use.

    Returns
    -------
    bytes
    """
    import typst

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {}
        for i, (label, figure) in enumerate(figures.items()):
            places[label] = f"figure_{i}.svg"
            (folder / places[label]).write_bytes(svg(figure))
        parts = [
            {**part, "blocks": [_set(b, places) for b in part["blocks"]]}
            for part in contents["parts"]
        ]
        text = json.dumps({**contents, "parts": parts}, ensure_ascii=False)
        (folder / "contents.json").write_bytes(text.encode("utf-8", "backslashreplace"))
        template = files("bdtr.reports").joinpath("page.typ").read_text(encoding="utf-8")
        (folder / "page.typ").write_text(template, encoding="utf-8")
        found = typst.compile(folder / "page.typ", root=folder)
    assert isinstance(found, bytes)
    return found


def _set(block: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """A block with its numbers as they are shown, and the file of its figure."""
    out = dict(block)
    if block["kind"] == "figure":
        out["file"] = places[block["name"]]
    if block["kind"] == "folded":
        out["blocks"] = [_set(inner, places) for inner in block["blocks"]]
    if block["kind"] == "table":
        out["rows"] = [[_cell(value, block["digits"]) for value in row] for row in block["rows"]]
    return out


def _cell(value: object, digits: int) -> str:
    if value is None:
        return "–"
    return shown(value, digits) if isinstance(value, (int, float)) else str(value)
