from .condition import ConditionError as ConditionError
from .formula import FormulaError as FormulaError
from .priors import (
    LKJ as LKJ,
)
from .priors import (
    Exponential as Exponential,
)
from .priors import (
    HalfNormal as HalfNormal,
)
from .priors import (
    HalfStudentT as HalfStudentT,
)
from .priors import (
    Normal as Normal,
)
from .priors import (
    PriorError as PriorError,
)
from .protocol import (
    Protocol as Protocol,
)
from .protocol import (
    ProtocolError as ProtocolError,
)
from .protocol import (
    read as read,
)
from .protocol import (
    read_text as read_text,
)
from .protocol import (
    write as write,
)
from .rules import RuleError as RuleError
from .trial import Stage as Stage
from .trial import Trial as Trial
from .trial import TrialError as TrialError
