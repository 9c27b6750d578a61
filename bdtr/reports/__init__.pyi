from .document import report as report, report_files as report_files
from .notebooks import run_notebook as run_notebook
from .starter import starter_file as starter_file, starter_notebook as starter_notebook
