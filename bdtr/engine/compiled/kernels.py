"""Large kernels compiled once and called by name.

Numba takes the machine code of every compiled function into each of its callers and optimises it there
anew. For kernels that are called from many others, and from every PyMC model, that cost minutes of
compilation. The kernels exported here are compiled once, to an address that the linker knows by a name;
callers hold the name alone. Arguments travel as the address of one tuple.

Names mean something in a process only after :func:`link`; :func:`bdtr.engine.system.system`, from
which every kernel gets its arguments, calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from llvmlite import binding, ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

__all__ = ["caller", "exported", "kernel", "link", "loader", "sources"]

# No fast maths, not even "contract": of two products in a sum the compiler may fuse either, and another one
# when it compiles the same text again, so that kernels from disk would not have the bits of those just
# compiled. Where fusing pays, bdtr.engine.compiled.lanes says which product goes with which sum.
_COMPILED: dict[str, Any] = {"cache": True, "error_model": "numpy"}
_ENGINE = Path(__file__).parents[1]
_SOURCES = sha256(b"".join(path.read_bytes() for path in sorted(_ENGINE.rglob("*.py")))).hexdigest()
_registered: dict[str, Callable] = {}
_linked: dict[str, Any] = {}


def sources() -> str:
    """Changes with the text of any kernel."""
    return _SOURCES


def kernel(function: Callable) -> Any:
    """Compile a kernel, with its machine code kept on disk until any kernel's text changes.

    Numba looks at the file of the function alone, not at those of the functions it calls or of the
    layouts of its arguments: the name under which it keeps the code therefore holds a hash of them all.
    """
    function.__qualname__ += f"_{_SOURCES[:12]}"
    return njit(nogil=True, **_COMPILED)(function)


def exported(name: str) -> Callable[[Callable], Callable]:
    """Register a function of one address, which returns a float, under a name."""

    def register(function: Callable) -> Callable:
        function.__qualname__ += f"_{_SOURCES[:12]}"
        _registered[name] = function
        return function

    return register


def link(prefix: str) -> None:
    """Compile, or load from disk, what is registered under names that begin so, and tell the linker."""
    signature = types.float64(types.voidptr)
    for name, function in _registered.items():  # callees are registered before their callers
        if name not in _linked and name.startswith(prefix):
            _linked[name] = compiled = cfunc(signature, **_COMPILED)(function)
            binding.add_symbol(name, compiled.address)


def caller(name: str, arguments: types.Type) -> Any:
    """Call of an exported kernel, inside other kernels, with a tuple of this type."""

    @intrinsic
    def call(typingctx, given):
        if _writable(given) != arguments:
            raise TypeError(f"{name} takes {arguments}, not {given}")

        def generate(context, builder, signature, values):
            slot = cgutils.alloca_once_value(builder, values[0])
            kind = ir.FunctionType(ir.DoubleType(), [cgutils.voidptr_t])
            known = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.call(known, [builder.bitcast(slot, cgutils.voidptr_t)])

        return types.float64(given), generate

    return call


def _writable(kind: Any) -> Any:
    """The type with arrays that may be written to: they look the same in memory."""
    if isinstance(kind, types.Array):
        return kind.copy(readonly=False)
    if isinstance(kind, types.NamedTuple):
        return types.NamedTuple([_writable(t) for t in kind.types], kind.instance_class)
    return kind


def loader(arguments: types.Type) -> Any:
    """Read of the tuple at an address, inside an exported kernel."""

    @intrinsic
    def load(typingctx, address):
        def generate(context, builder, signature, values):
            kind = context.get_value_type(arguments).as_pointer()
            value = builder.load(builder.bitcast(values[0], kind))
            return impl_ret_borrowed(context, builder, arguments, value)

        return arguments(types.voidptr), generate

    return load
