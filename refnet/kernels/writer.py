"""Writing the code of intrinsics over vectors: what Numba's own loops do not do well.

Where less than four vectors are left of a row, Numba's loops go on with scalars, and rows have 7 to 56
elements. Here the last lanes of a row's last vector are switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from refnet.kernels.simd import VECTOR

SIZE, WORD = ir.IntType(64), ir.IntType(32)


class Writer:
    """Writes the code of an intrinsic, over vectors of one dtype."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        element = signature.args[0].dtype
        self.context, self.builder, self.types, self.args = context, builder, signature.args, args
        self.align, self.scalar = element.bitwidth // 8, context.get_value_type(element)
        self.lanes = VECTOR // self.align
        self.zero = self.constant(0.0)

    def constant(self, value: float) -> Any:
        """A vector of one number."""
        return ir.Constant(ir.VectorType(self.scalar, self.lanes), [value] * self.lanes)

    def pointer(self, array: int, offset: Any) -> Any:
        """The place at that offset in the array that is the argument of that number."""
        made = self.context.make_array(self.types[array])(self.context, self.builder, self.args[array])
        return self.builder.gep(made.data, [offset])

    def wide(self, value: Any, count: int) -> Any:
        """The value in every lane."""
        empty = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
        return self.pick(self.builder.insert_element(empty, value, WORD(0)), empty, [0] * count)

    def pick(self, a: Any, b: Any, order: list[int]) -> Any:
        """The lanes of those numbers out of a and, behind them, b."""
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(WORD, len(order)), order))

    def load(self, base: Any, at: Any, some: Any = None, other: Any = None, count: int = 0) -> Any:
        """The vector at base[at]; if `some` is given only so many lanes of it, the others are other's."""
        kind = ir.VectorType(self.scalar, count or self.lanes)
        where = self.builder.bitcast(self.builder.gep(base, [at]), kind.as_pointer())
        if some is None:
            return self.builder.load(where, align=self.align)
        return self._masked(
            "load", kind, kind, [where, WORD(self.align), self._below(some, kind.count), other]
        )

    def store(self, value: Any, base: Any, at: Any, some: Any = None) -> None:
        """Write the vector to base[at]; if `some` is given only so many lanes."""
        where = self.builder.bitcast(self.builder.gep(base, [at]), value.type.as_pointer())
        if some is None:
            self.builder.store(value, where, align=self.align)
        else:
            there = self._below(some, value.type.count)
            self._masked("store", ir.VoidType(), value.type, [value, where, WORD(self.align), there])

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c with one rounding, lane by lane."""
        kind = ir.FunctionType(a.type, [a.type] * 3)
        name = f"llvm.fma.v{a.type.count}f{8 * self.align}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])

    def _below(self, some: Any, count: int) -> Any:
        numbers = ir.Constant(ir.VectorType(WORD, count), list(range(count)))
        return self.builder.icmp_signed("<", numbers, self.wide(self.builder.trunc(some, WORD), count))

    def _masked(self, name: str, result: Any, kind: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{name}.v{kind.count}f{8 * self.align}.p0"
        typed = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, typed, name), arguments)

    @contextmanager
    def loop(self, count: Any, step: int = 1) -> Iterator[Any]:
        """For 0, step, 2 step ... below count."""
        with cgutils.for_range_slice(self.builder, SIZE(0), count, SIZE(step), SIZE) as (at, _):
            yield at

    def row(self, count: Any, step: int, body: Callable[[Any, Any], None]) -> None:
        """body(at, None) for each `step` elements of a row, then body(at, how many) if some are left."""
        whole = self.builder.and_(count, SIZE(-step))
        with self.loop(whole, step) as at:
            body(at, None)
        rest = self.builder.sub(count, whole)
        with self.builder.if_then(self.builder.icmp_signed("!=", rest, SIZE(0))):
            body(whole, rest)

    def pairs(self, base: Any, at: Any, some: Any, other: Any) -> tuple[Any, Any]:
        """The even and the odd ones of two vectors at base[at]; `some`: as for load."""
        after = None if some is None else self.builder.sub(some, SIZE(self.lanes))
        a = self.load(base, at, some, other)
        b = self.load(base, self.builder.add(at, SIZE(self.lanes)), after, other)
        even = list(range(0, 2 * self.lanes, 2))
        return self.pick(a, b, even), self.pick(a, b, [k + 1 for k in even])
