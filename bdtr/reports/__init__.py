"""The posterior report of a fit: one self-contained HTML file."""

from bdtr.reports.choices import check_against, check_choices
from bdtr.reports.report import report, report_files

__all__ = ["check_against", "check_choices", "report", "report_files"]
