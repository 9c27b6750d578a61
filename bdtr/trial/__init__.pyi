from .condition import ConditionError as ConditionError
from .formula import FormulaError as FormulaError
from .priors import (
    LKJ as LKJ,
    Exponential as Exponential,
    Gamma as Gamma,
    HalfNormal as HalfNormal,
    HalfStudentT as HalfStudentT,
    Normal as Normal,
    PriorError as PriorError,
)
from .protocol import (
    Protocol as Protocol,
    ProtocolError as ProtocolError,
    protocol_from_text as protocol_from_text,
    protocol_to_text as protocol_to_text,
    read as read,
    write as write,
)
from .rules import RuleError as RuleError
from .states import StateError as StateError, StateModel as StateModel
from .trial import Stage as Stage, Trial as Trial, TrialError as TrialError
