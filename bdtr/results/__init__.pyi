from .captions import Captioned as Captioned
from .diagnostics import State as State
from .errors import ArgumentError as ArgumentError, BdtrError as BdtrError
from .files import OutputError as OutputError
