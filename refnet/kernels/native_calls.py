"""Kernels one after another without Python in between: how compiled code calls what Numba has compiled.

    LaunchList ── native ── NativeCalls: per kernel the address of its code, and its arguments in words
                                └── call_native: one of them, from compiled code (thread_pool.py)

A call from Python costs some microseconds: Numba looks at the types of a dozen arrays and numbers, and takes
them apart. Of two threads only one at a time can do that, as both need Python's lock (GIL), and whoever waits
for it sleeps. Here the next kernel begins in less than a microsecond.

Numba passes an array as seven or more words, and a tuple as what is in it (numba.core.datamodel). `_words`
makes these words once; a few instructions per kind of kernel (`_bridge`) pass them. They are compared with
what Numba says that the kernel takes. Where they do not fit, or a kernel is not compiled, there are no native
calls, and Python calls the kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from refnet.kernels.chunks import NO_WAIT

Words = npt.NDArray[np.uint64]

DATA = 4
"""Which of an array's words is the address of its data."""
CODE, ARGUMENTS, WORK_ROW = range(3)
"""Columns of a table of calls: the addresses of a bridge and of the words it is given; the first element of
the kernel's `work` among those of all kernels."""


class NativeCalls:
    """Kernels with their arguments, ready to be called. table (calls, 3), int64: CODE, ARGUMENTS, WORK_ROW.

    What it refers to lives as long as it does.
    """

    def __init__(self, table: npt.NDArray[np.int64], alive: Sequence[Any]) -> None:
        self.table, self.alive = table, alive

    def of(self, chosen: Sequence[bool]) -> NativeCalls:
        """Those of the calls that are chosen."""
        return NativeCalls(self.table[np.array(chosen, np.bool_)], self.alive)


def native(calls: Sequence[tuple[Any, tuple[Any, ...], int]]) -> NativeCalls | None:
    """The calls: a kernel, its arguments behind `work`, and the first element of its work. None if they are
    Python's to make.
    """
    table, alive = np.zeros((len(calls), 3), np.int64), []
    for row, (kernel, arguments, at) in zip(table, calls, strict=True):
        words = _prepared(kernel, arguments)
        if words is None:
            return None
        row[:] = words[0], words.ctypes.data, at
        alive.append((kernel, arguments, words))
    return NativeCalls(table, alive)


class _Bridge(NamedTuple):
    """address: of code (words, work) that calls a kernel. kept: what holds it."""

    address: int
    kept: Any


_bridges: dict[tuple[str, ...], _Bridge] = {}
"""By the types of machine code that a kernel takes."""
_addresses: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
"""Of kernels, by what holds them."""


def _prepared(kernel: Any, arguments: tuple[Any, ...]) -> Words | None:
    """The bridge's address, the kernel's, and the words it takes behind `work`."""
    if not hasattr(kernel, "overloads"):
        return None
    kinds = (types.Array(types.int64, 1, "C"), *map(kernel.typeof_pyval, arguments))
    if kinds not in kernel.overloads:  # this waits for who compiles, also in a child without them
        kernel.compile(kinds)
    made = kernel.overloads[kinds]
    context, name = made.target_context, made.fndesc
    expected = context.call_conv.get_function_type(name.restype, kinds)
    words = list(_words(kinds[0], np.zeros(NO_WAIT, np.int64)))
    for kind, argument in zip(kinds[1:], arguments, strict=True):
        words += _words(kind, argument)
    taken = expected.args[2:]
    if name.restype != types.none or [word.kind for word in words] != [_kind(one) for one in taken]:
        return None
    key = tuple(map(str, expected.args))
    bridge = _bridges.get(key) or _bridge(context, expected, key)
    address = _addresses.get(made.library)
    if address is None:
        address = _addresses[made.library] = made.library.get_pointer_to_function(name.llvm_func_name)
    if not address:
        return None
    return np.array([bridge.address, address, *(word.bits for word in words)], np.uint64)


class _Word(NamedTuple):
    """One number as a kernel takes it: its bits, and whether it is an integer, an address or a float."""

    kind: str
    bits: int


def _words(kind: Any, value: Any) -> Iterable[_Word]:
    """What Numba passes for a value of this type; a word of no kind if it is not known here."""
    if isinstance(kind, types.Array):
        pitch, address = value.strides, value.__array_interface__["data"][0]
        yield from (_Word("*", 0), _Word("*", 0))  # nobody counts who uses the array
        yield from (_Word("i64", value.size), _Word("i64", value.itemsize), _Word("*", address))
        yield from (_Word("i64", _unsigned(number)) for number in (*value.shape, *pitch))
    elif isinstance(kind, types.BaseTuple):
        for one, part in zip(kind, value, strict=True):
            yield from _words(one, part)
    elif kind == types.boolean:
        yield _Word("i8", int(value))
    elif kind == types.int64:
        yield _Word("i64", _unsigned(int(value)))
    elif kind == types.float64:
        yield _Word("double", int(np.float64(value).view(np.uint64)))
    elif kind == types.float32:
        yield _Word("float", int(np.float32(value).view(np.uint32)))
    else:
        yield _Word("", 0)


def _unsigned(number: int) -> int:
    return number % (1 << 64)


def _kind(taken: Any) -> str:
    """A type of LLVM as in `_Word`."""
    return "*" if isinstance(taken, ir.PointerType) else str(taken)


@global_compiler_lock  # type: ignore[untyped-decorator]  # numba is not typed
def _bridge(context: Any, expected: Any, key: tuple[str, ...]) -> _Bridge:
    """Code that calls a kernel of this type: (words, work) -> its status, 0 if it did what it should.

    words: the bridge's own address, the kernel's, its arguments. work: the address of `work`'s data.
    """
    library = context.codegen().create_library("refnet bridge")
    module = library.create_ir_module("refnet bridge")
    word, status = ir.IntType(64), ir.IntType(32)
    name = f"refnet_bridge_{len(_bridges)}"
    bridge = ir.Function(module, ir.FunctionType(status, [word.as_pointer(), word]), name)
    builder = ir.IRBuilder(bridge.append_basic_block())
    words, work = bridge.args

    def slot(at: int) -> Any:
        return builder.gep(words, [word(at)])

    results = []
    for kind in expected.args[:2]:  # where the kernel writes what it returns, and what it raises
        place = builder.alloca(kind.pointee)
        builder.store(kind.pointee(None), place)
        results.append(place)
    arguments = []
    for at, kind in enumerate(expected.args[2:]):
        if at == DATA:
            arguments.append(builder.inttoptr(work, kind))
        else:
            arguments.append(builder.load(builder.bitcast(slot(2 + at), kind.as_pointer())))
    kernel = builder.inttoptr(builder.load(slot(1)), expected.as_pointer())
    builder.ret(builder.call(kernel, results + arguments))
    library.add_ir_module(module)
    library.finalize()
    return _bridges.setdefault(key, _Bridge(library.get_pointer_to_function(name), library))


def _call_native(typingctx: Any, code: Any, words: Any, work: Any) -> Any:
    """The typing and code of `call_native`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [word.as_pointer(), word])
        bridge = builder.inttoptr(args[0], kind.as_pointer())
        return builder.sext(
            builder.call(bridge, [builder.inttoptr(args[1], word.as_pointer()), args[2]]), word
        )

    return types.int64(types.int64, types.int64, types.int64), codegen


call_native: Any = intrinsic(_call_native)
"""call_native(code, words, work): the status of the kernel that the bridge at the address `code` calls."""
