"""All stages: a fit, its backward passes, and the regimes they follow.

fit              what do the data say of every stage?
Fit              draws, summary, priors and state of a fitted trial
load             a fit that was saved
backward_pass    the decision problem under one policy: Q-values and stage values, draw by draw
backward_passes  the same under several policies, drawn together
Regime           a rule for each stage
static           the same actions for everyone
rule             actions by conditions on history
embedded         the regimes that a trial was built to compare
recommended      the regime that the fit recommends
RegimeError      why a regime cannot be followed
StorageError     why a file is not opened
BackwardPass     Q-values and stage values under a policy
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
