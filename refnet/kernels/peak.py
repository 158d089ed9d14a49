"""How fast this processor's FMA units are: independent chains in registers, nothing loaded or stored.

It is what `refnet bench` measures speed against; no network is computed with it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnet.kernels.simd import VECTOR
from refnet.kernels.team import next_share, share
from refnet.loops.jit import njit

CHAINS = 12
"""More than the latency (4 cycles) times the units (2), and with two factors fewer than 16 registers."""
LANES = VECTOR // 4


def _burn(typingctx: Any, rounds: Any, w: Any, x: Any) -> Any:
    """The typing and code of `burn`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar, size = ir.FloatType(), ir.IntType(64)
        vector = ir.VectorType(scalar, LANES)
        name = f"llvm.fma.v{LANES}f32"
        fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)

        def wide(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

        a, b = wide(args[1]), wide(args[2])
        before = builder.block
        loop, after = builder.append_basic_block("rounds"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(size)
        i.add_incoming(size(0), before)
        chains = []
        for chain in range(CHAINS):  # each starts elsewhere, or all would be one
            phi = builder.phi(vector)
            phi.add_incoming(ir.Constant(vector, [float(chain)] * LANES), before)
            chains.append(phi)
        results = [builder.call(fused, [a, b, phi]) for phi in chains]
        following = builder.add(i, size(1))
        i.add_incoming(following, loop)
        for phi, value in zip(chains, results, strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, args[0]), loop, after)
        builder.position_at_end(after)
        total = results[0]
        for value in results[1:]:
            total = builder.fadd(total, value)
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(types.int64, types.float32, types.float32), codegen


burn: Any = intrinsic(_burn)
"""burn(rounds, w, x): CHAINS vectors of LANES chains, each acc = fma(w, x, acc) `rounds` times."""


@njit
def chains(work: Any, rounds: int, out: Any) -> None:
    """`rounds` FMAs in each of CHAINS * LANES chains per item; the sums of the first lanes go to out."""
    begin, end = share(work)
    while begin < end:
        for item in range(begin, end):
            out[item] = burn(rounds, out[item], out[item])
        begin, end = next_share(work)


def operations(rounds: int) -> int:
    """Float operations of one item, an FMA as two."""
    return 2 * CHAINS * LANES * rounds
