"""The posterior report of a fit: one self-contained HTML file."""

from bdtr.reports.report import report, report_files

__all__ = ["report", "report_files"]
