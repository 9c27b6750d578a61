"""The posterior report of a fit: one self-contained HTML file."""

from bdtr.reports.report import check_choices, report, report_files

__all__ = ["check_choices", "report", "report_files"]
