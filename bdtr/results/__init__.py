"""How results look, and what they say of themselves.

State          can results be relied on, and why not?
BdtrError      any error of bdtr
ArgumentError  what is wrong with an argument
OutputError    why a file cannot be written there
Captioned      a table that says what its numbers are
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
