"""One stage: its model, its draws, its Q-function.

StageModel     a PyMC model of your own in place of the one that a formula makes
ModelError     what is wrong with a model of your own
Settings       how was a trial fitted?
FitError       what a fit cannot do, and what to do instead
SamplingError  why sampling failed
GroupError     why a group cannot be added for ArviZ
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
