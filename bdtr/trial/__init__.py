"""What is declared: a trial, its stages, priors, and the file that holds them.

Trial               which decisions, on which history, for which payoff?
Stage               which actions are there, for whom, and what does the payoff depend on?
StateModel          what does a variable that an action can change depend on?
StateError          what is wrong with such a model
TrialError          what in a trial contradicts itself, and how it is mended
Normal              prior of a coefficient
HalfNormal          prior of an SD
HalfStudentT        prior of an SD, with a heavier tail
Exponential         prior of an SD, with its mode at 0
Gamma               prior of the degrees of freedom of a t distribution
LKJ                 prior of correlations
PriorError          what is wrong with a prior
Protocol            a trial with its fit, regimes, report and texts, as its file holds them
read                which trial does a TOML file describe?
protocol_from_text  the trial of such a file's text
write               a trial, or a protocol, as a TOML file
ProtocolError       what is wrong with a trial's file
ConditionError      what is wrong with a condition
FormulaError        what is wrong with a formula
RuleError           what is wrong with a rule
protocol_to_text    the text of such a file
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
