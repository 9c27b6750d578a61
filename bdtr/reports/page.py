"""A report's contents as one HTML page: figures embedded, nothing fetched, labels escaped."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bdtr.reports.blocks import number
from bdtr.results.files import GENERATOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page", "shown", "svg"]


def page(contents: Mapping[str, Any], figures: Mapping[str, Figure]) -> str:
    """The page.

    Parameters
    ----------
    contents
        What ``report.json`` holds.
    figures
        Figures by the names that its blocks use.

    Returns
    -------
    str
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    # jinja2 escapes nothing unless told to, and labels come from the user's data.
    environment = Environment(
        loader=PackageLoader("bdtr.reports", ""),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    embedded = {name: _embedded(figure) for name, figure in figures.items()}
    template = environment.get_template("page.html")
    return template.render(**contents, figures=embedded, generator=GENERATOR).lstrip()


def shown(value: float, digits: int) -> str:
    """A number of a table: whole ones with separators, others with so many decimals."""
    return f"{value:,}" if isinstance(value, int) else number(value, digits)


def svg(figure: Figure) -> bytes:
    """A figure as SVG, sharp at any size, the same bytes every day."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a font without a glyph of the user's label
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _embedded(figure: Figure) -> str:
    """A figure inside the page: nothing to fetch."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg(figure)).decode()
