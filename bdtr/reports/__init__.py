"""The posterior report of a fit: one self-contained HTML file."""

from bdtr.reports.report import report

__all__ = ["report"]
