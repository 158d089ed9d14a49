"""Any contiguous array as a flat one, so that kernels are compiled once, whatever the number of axes.

Numba compiles a kernel for each number of axes, and once more for arrays that may not be written. A kernel
that computes indices itself needs neither.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array


def _flat(typingctx: Any, array: Any) -> Any:
    """The typing and code of `flat`."""
    if not isinstance(array, types.Array) or array.layout != "C":
        return None
    made = types.Array(array.dtype, 1, "C", readonly=not array.mutable)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        of = context.make_array(array)(context, builder, args[0])
        view = context.make_array(made)(context, builder)
        size, item = of.nitems, of.itemsize
        populate_array(view, of.data, [size], [item], item, None)
        return view._getvalue()

    return made(array), codegen


flat: Any = intrinsic(_flat)
"""flat(array): a contiguous array's elements in row order, without a copy. It does not keep
the array alive: something else must, as a kernel's caller does for its arguments."""
