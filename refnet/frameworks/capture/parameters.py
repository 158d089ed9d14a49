"""The weights that a framework ran with, against those that a capture's manifest is going to name.

    a module's real parameters ── compared ── nothing: they are the graph's
                                     └─────── WeightsError: how many differ, which, and what to do

A name decides first: two layers with each other's weights do not run with the weights that are named.
Parameters of other names count too, if each weight of the graph is among them, bit for bit: a callable may
call its layers as it likes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import WeightsError
from refnet.core.op import F32

Array = npt.NDArray[Any]

SHOWN = 5
"""How many weights a message names."""


def parameters_hash(found: Mapping[str, Array]) -> str:
    """sha256 over every parameter's name, dtype, shape and bytes, in order of name.

    >>> parameters_hash({"w": np.float32([1, 2])})[:12]
    '6993ac6f3cad'
    """
    text = hashlib.sha256()
    for name in sorted(found):
        array = found[name]
        text.update(f"{name}{array.dtype.str}{list(array.shape)}".encode())
        text.update(np.ascontiguousarray(array).tobytes())
    return text.hexdigest()


def compared(weights: Mapping[str, F32], found: Mapping[str, Array], said: str, who: str) -> None:
    """Refuse weights that are not the ones that ran.

    weights: a graph's. found: the parameters and buffers of what ran. said: what names the weights, as
    "--weights seed:0". who: what ran. Raises WeightsError, which says what differs.

    >>> compared({"w": np.float32([1])}, {"layer.w": np.float32([1])}, "--weights a.pth", "mynets:make")
    >>> compared({"w": np.float32([1])}, {"w": np.float32([2])}, "--weights a.pth", "mynets:make")
    Traceback (most recent call last):
    refnet.core.errors.WeightsError: mynets:make does not run with --weights a.pth:
      other bits: w float32[1]
    """
    absent = [name for name in weights if name not in found]
    other = [name for name, array in weights.items() if name in found and not _same(array, found[name])]
    if not absent and not other:
        return
    if not other and not Counter(map(_bits, weights.values())) - Counter(map(_bits, found.values())):
        return  # under other names
    lines = [f"other bits: {_few(other, weights)}"] if other else []
    lines += [f"absent: {_few(absent, weights)}"] if absent else []
    surplus = [name for name in found if name not in weights and found[name].dtype == np.float32]
    lines += [f"its own: {_few(surplus, found)}"] if absent and surplus else []
    raise WeightsError(f"{who} does not run with {said}:" + "".join(f"\n  {line}" for line in lines))


def _same(a: Array, b: Array) -> bool:
    return _bits(a) == _bits(b)


def _bits(array: Array) -> tuple[str, tuple[int, ...], bytes]:
    """What makes an array this one and no other; a digest, for there may be hundreds."""
    content = np.ascontiguousarray(array).tobytes()
    return array.dtype.str, array.shape, hashlib.sha256(content).digest()


def _few(names: list[str], arrays: Mapping[str, Array]) -> str:
    """The first names with their types, and how many more there are."""
    shown = [f"{name} {arrays[name].dtype}{list(arrays[name].shape)}" for name in names[:SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
