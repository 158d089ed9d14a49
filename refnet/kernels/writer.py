"""Emits LLVM code for intrinsics over vectors, where Numba's own loops are slow.

Sums that stay in registers (`accumulate`) are the inner loops of convolutions and dense layers. In rows the
last vector is masked (`row`): rows have 7 to 56 elements, and Numba's loops would compute the last ones as
scalars when fewer than four vectors are left.

The width of a vector changes the speed but never a bit: every lane is an output of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba.core import cgutils

SIZE, WORD, BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)


def _vector_bytes() -> tuple[int, int]:
    """(bytes of a vector, rows of a block) that suit the processor for which code is compiled."""
    if numba.config.CPU_NAME:
        return 16, 6
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 8  # 16 of 32 registers accumulate
    return (32, 6) if features.get("avx") else (16, 6)  # 12 of 16 registers accumulate


VECTOR, ROWS = _vector_bytes()


class Writer:
    """Writes the code of an intrinsic, over vectors of one dtype: that of its first array, or `element`."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any, element: Any = None) -> None:
        element = element or signature.args[0].dtype
        self.context, self.builder, self.types, self.args = context, builder, signature.args, args
        self.align, self.scalar = element.bitwidth // 8, context.get_value_type(element)
        self.lanes = VECTOR // self.align
        self.zero = self.constant(0.0)
        self.least = 2.0**-149 if self.align == 4 else 2.0**-1074  # the smallest number above 0

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

    def absolute(self, value: Any) -> Any:
        """|value|, lane by lane."""
        kind = ir.FunctionType(value.type, [value.type])
        name = f"llvm.fabs.v{value.type.count}f{8 * self.align}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [value])

    def like(self, scalar: Any) -> Any:
        """The type of vectors of this scalar type, with as many lanes."""
        return ir.VectorType(scalar, self.lanes)

    def store_bytes(self, flags: Any, base: Any, at: Any, some: Any = None) -> None:
        """Write a vector of truth values to the bytes at base[at]; if `some` is given only so many."""
        kind = ir.VectorType(BYTE, flags.type.count)
        where = self.builder.bitcast(self.builder.gep(base, [at]), kind.as_pointer())
        value = self.builder.zext(flags, kind)
        if some is None:
            self.builder.store(value, where, align=1)
            return
        name = f"llvm.masked.store.v{kind.count}i8.p0"
        mask = self._below(some, kind.count)
        typed = ir.FunctionType(ir.VoidType(), [kind, where.type, WORD, mask.type])
        call = cgutils.get_or_insert_function(self.builder.module, typed, name)
        self.builder.call(call, [value, where, WORD(1), mask])

    def any(self, flags: Any, some: Any = None) -> Any:
        """Whether one of the truth values is true; if `some` is given, one of so many."""
        if some is not None:
            flags = self.builder.and_(flags, self._below(some, flags.type.count))
        mask = self.builder.bitcast(flags, ir.IntType(flags.type.count))
        return self.builder.icmp_unsigned("!=", mask, mask.type(0))

    def mark(self, flags: Any, base: Any, at: Any, some: Any = None) -> None:
        """Set the bytes at base[at] where a flag is true; if `some` is given only so many."""
        if some is not None:
            flags = self.builder.and_(flags, self._below(some, flags.type.count))
        places = self.builder.bitcast(self.builder.gep(base, [at]), BYTE.as_pointer())
        for lane in range(flags.type.count):
            with self.builder.if_then(self.builder.extract_element(flags, WORD(lane))):
                self.builder.store(BYTE(1), self.builder.gep(places, [SIZE(lane)]))

    def _below(self, some: Any, count: int) -> Any:
        numbers = ir.Constant(ir.VectorType(WORD, count), list(range(count)))
        return self.builder.icmp_signed("<", numbers, self.wide(self.builder.trunc(some, WORD), count))

    def _masked(self, name: str, result: Any, kind: Any, arguments: list[Any]) -> Any:
        name = f"llvm.masked.{name}.v{kind.count}f{8 * self.align}.p0"
        typed = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, typed, name), arguments)

    def prefetch(self, address: Any, level: int) -> None:
        """Prefetch the address into a cache (3 is the first level, 2 the second)."""
        kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), WORD, WORD, WORD])
        call = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0i8")
        place = self.builder.bitcast(address, BYTE.as_pointer())
        self.builder.call(call, [place, WORD(0), WORD(level), WORD(1)])

    def chains(
        self,
        sums: Any,
        places: Sequence[Any],
        count: Any,
        start: Any,
        term: Callable[[Any, list[Any]], Sequence[Any]],
    ) -> None:
        """A chain of `count` terms for the vector at each place of the sums, as `accumulate`.

        start: 0, it begins at +0 and is written to the sums; 1, it begins at the sums and is written there;
        2, it begins at +0 and is added to the sums.
        """
        builder = self.builder
        goes_on = builder.icmp_signed("==", start, SIZE(1))
        begin = [builder.select(goes_on, self.load(sums, place), self.zero) for place in places]
        results = self.accumulate(count, begin, term)
        with builder.if_else(builder.icmp_signed("==", start, SIZE(2))) as (adds, overwrites):
            with adds:
                for place, result in zip(places, results, strict=True):
                    self.store(builder.fadd(self.load(sums, place), result), sums, place)
            with overwrites:
                for place, result in zip(places, results, strict=True):
                    self.store(result, sums, place)

    def accumulate(
        self, count: Any, start: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]
    ) -> list[Any]:
        """values = start, then values = body(i, values) for i in range(count), count >= 1; the values.

        They stay in registers, if there are enough.
        """
        before = self.builder.block
        loop, after = self.builder.append_basic_block("terms"), self.builder.append_basic_block("done")
        self.builder.branch(loop)
        self.builder.position_at_end(loop)
        i = self.builder.phi(SIZE)
        i.add_incoming(SIZE(0), before)
        values = []
        for value in start:
            phi = self.builder.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        results = list(body(i, values))
        following = self.builder.add(i, SIZE(1))
        i.add_incoming(following, self.builder.block)
        for phi, result in zip(values, results, strict=True):
            phi.add_incoming(result, self.builder.block)
        self.builder.cbranch(self.builder.icmp_signed("<", following, count), loop, after)
        self.builder.position_at_end(after)
        return results

    def transpose(self, rows: Sequence[Any]) -> list[Any]:
        """The vectors, each square of len(rows) x len(rows) lanes transposed; len(rows) a power of two."""
        rows, step = list(rows), 1
        while step < len(rows):  # exchange the off-diagonal squares of step x step
            low = [j if not j & step else self.lanes + j - step for j in range(self.lanes)]
            high = [j + step if not j & step else self.lanes + j for j in range(self.lanes)]
            for r in range(len(rows)):
                if not r & step:
                    a, b = rows[r], rows[r + step]
                    rows[r], rows[r + step] = self.pick(a, b, low), self.pick(a, b, high)
            step *= 2
        return rows

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
