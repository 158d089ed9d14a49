"""Synthetic weights `seed:N`: one set of bits for each graph and seed, the same on every machine.

    sha256(seed, weight name) ── key ── Philox4x32-10 ── sums of four 16-bit integers ── scale ── float32
    one synthetic image through the network in plain arithmetic ── mean and variance of each batch norm

Nothing here depends on a machine or a library version: the generator is integer arithmetic, and the
only floating-point operations are float64 additions in a stated order, multiplications, divisions and
square roots, each of which IEEE 754 rounds correctly, so that there is only one result. NumPy's
distributions, np.sum (whose order depends on the machine) and transcendental functions do not occur.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.arithmetic.plain import Plain
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.interpreter import Plan, make_plan, steps
from refnet.core.op import F32, F64, TensorType
from refnet.models.input_kinds import InputKind, kinds_of

U64 = npt.NDArray[np.uint64]

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
"""Philox's multipliers."""
W0, W1 = 0x9E3779B9, 0xBB67AE85
"""What its key grows by each round."""
MASK, HALF = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF)
CHUNK = 1 << 14
"""Blocks made at a time, so that they stay in the cache; no bit depends on it."""

DEVIATION = math.sqrt((65536.0**2 - 1) / 3)
"""Standard deviation of the sum of four uniform integers 0 to 65535: 4 (2**32 - 1) / 12 is its variance."""
SPREAD = 0.125
"""Standard deviation of gammas (around 1), betas and biases (around 0)."""
FLOOR = 1 / 64
"""A channel's variance is at least this share of its layer's, so that no channel is amplified much."""


def weights(graph: Graph, seed: int) -> dict[str, F32]:
    """Weights for a graph: {name: float32 array}, in order of first use.

    seed: 0 to 2**64 - 1. Convolution and dense weights have the standard deviation sqrt(2 / fan-in)
    (He et al., arXiv 1502.01852), gammas are 1 + SPREAD n, betas and biases SPREAD n, with n of
    `normal`. Batch norms get the mean and variance of their own input, see `statistics`, when the
    image `normal(seed, input name)` of the graph's own input size runs through. `refnet.load` takes the
    model's own size here, whatever image size is asked for: so the weights depend on model and seed alone.
    Raises InputError for a seed out of range.

    >>> from refnet.models.catalog import build, entry
    >>> made = weights(build(entry("resnest-digits")), 0)
    >>> float(made["fc.bias"][0]).hex()
    '0x1.8b9c7a0000000p-5'
    """
    if not 0 <= seed < 1 << 64:
        raise InputError(f"seed must be 0 to 2**64 - 1, got {seed}")
    made: dict[str, F32] = {}
    for node in graph.nodes:
        for role, name in zip(node.op.weight_roles(), node.weights, strict=True):
            if name not in made:
                made[name] = _weight(node, role, graph.weight_types[name], seed, name)
    kinds = kinds_of(graph)
    inputs = {name: of_kind(seed, name, kind.shape, kind) for name, kind in kinds.items()}
    calibrate = Calibrate()
    for _ in steps(graph.with_weights(made), inputs, calibrate):
        pass
    return made | calibrate.statistics


def _weight(node: Node, role: str, kind: TensorType, seed: int, name: str) -> F32:
    """One weight by its role; running statistics are 0 and 1 until the image has run."""
    if role == "mean":
        return np.zeros(kind.shape, np.float32)
    if role == "var" or (role == "gamma" and role in node.op.unused_roles):
        return np.ones(kind.shape, np.float32)
    if role == "weight":
        return normal(seed, name, kind.shape, math.sqrt(2.0 / TensorType(kind.shape[1:]).size))
    return normal(seed, name, kind.shape, SPREAD, 1.0 if role == "gamma" else 0.0)


def normal(seed: int, name: str, shape: tuple[int, ...], deviation: float = 1.0, center: float = 0.0) -> F32:
    """Nearly normal numbers of mean `center` for a seed and a name: float32 of `shape`, in row order.

    Element 2 i + j, j = 0 or 1: the four 16-bit halves of words 2 j and 2 j + 1 of Philox block i are
    added, s = 0 to 262140; the value is float32(center + (s - 131070) * (deviation / DEVIATION)), the
    product and sum in float64. So it lies within 3.47 deviations of the center.

    Key and counter: with d = sha256("refnet synthetic weights 1\\0{seed}\\0{name}"), the key is bytes 0
    to 7 of d as two little-endian words; the counter is i (64 bits) and bytes 8 to 15 of d.

    >>> normal(0, "w", (2, 2)).shape
    (2, 2)
    """
    count = TensorType(shape).size
    out = np.empty(count + count % 2, np.float32)
    scale = deviation / DEVIATION
    for begin in range(0, len(out) // 2, CHUNK):
        index = np.arange(begin, min(begin + CHUNK, len(out) // 2), dtype=np.uint64)
        words = _words(seed, name, index)
        for j in range(2):
            a, b = words[2 * j : 2 * j + 2]
            total = (a & HALF) + (a >> np.uint64(16)) + (b & HALF) + (b >> np.uint64(16))
            centered = total.astype(np.int64) - 131070
            out[2 * begin + j : 2 * (begin + len(index)) : 2] = center + centered * scale
    return out[:count].reshape(shape)


def whole(seed: int, name: str, shape: tuple[int, ...], below: int) -> npt.NDArray[np.int64]:
    """Integers from 0 to below - 1 for a seed and a name: int64 of `shape`, in row order.

    Element i is (w * below) >> 32, with w the first word of the generator's block i, as in `normal`.

    >>> whole(0, "ids", (2, 3), 10).shape
    (2, 3)
    """
    index = np.arange(TensorType(shape).size, dtype=np.uint64)
    found = np.empty(len(index), np.int64)
    for begin in range(0, len(index), CHUNK):
        words = _words(seed, name, index[begin : begin + CHUNK])
        found[begin : begin + CHUNK] = (words[0] * np.uint64(below)) >> np.uint64(32)
    return found.reshape(shape)


def of_kind(seed: int, name: str, shape: tuple[int, ...], kind: InputKind) -> npt.NDArray[Any]:
    """What a seed makes of an input of this shape."""
    if kind.dtype == "float32":
        return normal(seed, name, shape)
    below = 2 if kind.dtype == "bool" else min(kind.below, np.iinfo(kind.dtype).max)
    return whole(seed, name, shape, below).astype(kind.dtype)


def _words(seed: int, name: str, index: U64) -> tuple[U64, U64, U64, U64]:
    """The generator's blocks of these numbers, for a seed and a name."""
    digest = hashlib.sha256(f"refnet synthetic weights 1\0{seed}\0{name}".encode()).digest()
    key0, key1, high0, high1 = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4, 8, 12))
    low = (index & MASK, index >> np.uint64(32))
    return philox4x32((*low, np.full_like(index, high0), np.full_like(index, high1)), (key0, key1))


def philox4x32(counter: tuple[U64, U64, U64, U64], key: tuple[int, int]) -> tuple[U64, U64, U64, U64]:
    """Philox4x32 with 10 rounds: four 32-bit words for each counter, held in uint64 arrays.

    Source: J. Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011, section 4.2.

    >>> zero = np.zeros(1, np.uint64)
    >>> [hex(int(word[0])) for word in philox4x32((zero, zero, zero, zero), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    key0, key1 = key
    for _ in range(10):
        p0, p1 = c0 * M0, c2 * M1  # 32 by 32 bits: no overflow of 64
        c0 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(key0)
        c1 = p1 & MASK
        c2 = (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(key1)
        c3 = p0 & MASK
        key0, key1 = (key0 + W0) & 0xFFFFFFFF, (key1 + W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Calibrate:
    """Plain arithmetic in which each batch norm first takes its running statistics from its input.

    statistics: name -> float32 array, filled while the graph runs.
    """

    plain: Plain = field(default_factory=Plain)
    statistics: dict[str, F32] = field(default_factory=dict)
    name = "calibrate"

    def evaluate(self, node: Node, *inputs: F32) -> F32:
        """The node's value, with the statistics of this input."""
        if node.op.statistics:
            mean, var = statistics(inputs[0])
            self.statistics.update(zip(node.weights[2:], (mean, var), strict=True))
            inputs = (*inputs[:3], mean, var)
        return self.plain.evaluate(node, *inputs)

    def fused_graph(self, graph: Graph) -> Graph:
        """The graph as it is."""
        return graph

    def plan(self, graph: Graph, wanted: frozenset[str]) -> Plan:
        """The plan without fusing: each batch norm must see its own input."""
        return make_plan(graph, wanted)

    def captured(self, graph: Graph, inputs: Mapping[str, F32], plan: Plan) -> None:
        """Nothing: every run is executed."""


def statistics(x: F32) -> tuple[F32, F32]:
    """Mean and variance (c,) of each channel of x (n, c, ...), float64 sums rounded once to float32.

    Order of the sums: one chain per channel over image, row, column, each over the rounded previous
    sum; a layer's figures are a chain over its channels. The variance is the mean of (x - mean)**2 and
    at least FLOOR of the layer's own variance. Where a channel has one element only, each channel gets
    the layer's mean and variance. A layer without any variance gets 1.

    >>> statistics(np.float32([[[1, 3], [5, 9]]]))
    (array([2., 7.], dtype=float32), array([1., 4.], dtype=float32))
    """
    rows = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).astype(np.float64)
    mean, var = _moments(rows)
    middle, whole = _moments(mean[np.newaxis])
    whole = whole + _chain(var[np.newaxis]) / len(var)  # between channels, and within them
    if rows.shape[1] == 1:
        mean, var = np.broadcast_to(middle, mean.shape), np.broadcast_to(whole, var.shape)
    var = np.maximum(var, FLOOR * whole)
    return mean.astype(np.float32), np.where(whole > 0, var, 1.0).astype(np.float32)


def _moments(rows: F64) -> tuple[F64, F64]:
    """Mean and variance of each row."""
    mean = _chain(rows) / rows.shape[1]
    return mean, _chain(np.square(rows - mean[:, np.newaxis])) / rows.shape[1]


def _chain(rows: F64) -> F64:
    """The sum of each row, first to last. accumulate gives every partial sum, so it has no other order."""
    total: F64 = np.add.accumulate(rows, axis=1)[:, -1]
    return total
