"""Pages, notebooks, and a notebook to begin with.

report            the posterior report of a fit, as one page
run_notebook      a notebook, run with parameters, as a page
starter_notebook  a notebook with a trial spelled out, ready to edit
NotebookError     why a notebook did not run or may not be written
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
