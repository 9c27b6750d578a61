from .condition import ConditionError as ConditionError
from .formula import FormulaError as FormulaError
from .priors import (
    LKJ as LKJ,
    Exponential as Exponential,
    HalfNormal as HalfNormal,
    HalfStudentT as HalfStudentT,
    Normal as Normal,
    PriorError as PriorError,
)
from .protocol import (
    Protocol as Protocol,
    ProtocolError as ProtocolError,
    read as read,
    read_text as read_text,
    write as write,
    write_text as write_text,
)
from .rules import RuleError as RuleError
from .trial import Stage as Stage, Trial as Trial, TrialError as TrialError
