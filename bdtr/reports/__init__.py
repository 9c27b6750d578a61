"""The posterior report of a fit: one self-contained HTML file."""

from bdtr.reports.choices import check_against, check_choices, compared
from bdtr.reports.document import report, report_files

__all__ = ["check_against", "check_choices", "compared", "report", "report_files"]
