"""A data frame held against a trial.

read_data        a file with the columns of a trial, labels as text
widen            one row per unit of data that have one for each time of a unit
serial_measures  mean, slope, last value and area of repeated measures
DataError        what in the data does not fit the trial, in which rows
DesignWarning    what the data say of the design that the trial does not
DesignError      why a stage's columns cannot be told apart or made
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
