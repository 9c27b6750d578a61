from .document import report as report
from .notebooks import NotebookError as NotebookError, run_notebook as run_notebook
from .starter import starter_notebook as starter_notebook
