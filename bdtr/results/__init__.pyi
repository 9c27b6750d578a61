from .diagnostics import State as State
from .errors import ArgumentError as ArgumentError, BdtrError as BdtrError
from .files import OutputError as OutputError
from .shown import Captioned as Captioned
