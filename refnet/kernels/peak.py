"""How fast this processor's FMA units are: independent chains in registers, nothing loaded or stored.

`refnet bench` compares speeds with it; no network is computed with it.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.writer import VECTOR, WORD, Writer
from refnet.loops.jit import njit

CHAINS = 12
"""More than the latency (4 cycles) times the units (2), and with two factors fewer than 16 registers."""
LANES = VECTOR // 4


def _burn(typingctx: Any, rounds: Any, w: Any, x: Any) -> Any:
    """The typing and code of `burn`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = Writer(context, builder, signature, args, types.float32)
        a, b = of.wide(args[1], LANES), of.wide(args[2], LANES)
        start = [of.constant(float(chain)) for chain in range(CHAINS)]  # all different, or all would be one
        results = of.accumulate(args[0], start, lambda _, chains: [of.fma(a, b, chain) for chain in chains])
        total = results[0]
        for value in results[1:]:
            total = builder.fadd(total, value)
        return builder.extract_element(total, WORD(0))

    return types.float32(types.int64, types.float32, types.float32), codegen


burn: Any = intrinsic(_burn)
"""burn(rounds, w, x): CHAINS vectors of LANES chains, each acc = fma(w, x, acc) `rounds` times."""


@njit
def chains(work: Any, rounds: int, out: Any) -> None:
    """`rounds` FMAs in each of CHAINS * LANES chains per item; the sums of the first lanes go to out."""
    begin, end = chunk(work)
    while begin < end:
        for item in range(begin, end):
            out[item] = burn(rounds, out[item], out[item])
        begin, end = next_chunk(work)


def operations(rounds: int) -> int:
    """Float operations of one item, an FMA as two."""
    return 2 * CHAINS * LANES * rounds
