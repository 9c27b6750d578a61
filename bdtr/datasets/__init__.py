"""Small data sets to try it on.

star            a bundled extract of Project STAR: class types in kindergarten and grade 1
star_trial      its trial
activity        a simulated trial of ways to have people walk more, whose truth is known
activity_trial  its trial
adhd            a simulated trial of children with ADHD: monthly ratings, values missing, truth known
adhd_trial      its trial
adhd_truth      the true values of its regimes
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
