"""The posterior report of a fit: one self-contained HTML file."""

from bdtr.reports.page import report

__all__ = ["report"]
