"""What porting bugs do to one node: each makes a wrong value of a node's inputs, as a buggy port would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from refnet import ops
from refnet.core.op import Op
from tests.helpers.engines import FAST

F = np.float32
Array = np.ndarray


@dataclass(frozen=True)
class Seen:
    """What a node has when it is computed: op, inputs (data, then weights), all values and weights."""

    op: Op
    inputs: tuple[Array, ...]
    values: Mapping[str, Array]
    weights: Mapping[str, Array]

    @property
    def x(self) -> Array:
        """The first input."""
        return self.inputs[0]

    @property
    def right(self) -> Array:
        """The node's value without a bug; a copy of its own."""
        return self.op.run(*self.inputs, engine=FAST).copy()

    def having(self, place: int, array: Array) -> Array:
        """The op's value with another input at that place."""
        inputs = list(self.inputs)
        inputs[place] = np.ascontiguousarray(array, F)
        return self.op.run(*inputs, engine=FAST)


Change = Callable[[Seen], Array]
WEIGHT, BIAS = 1, 2
GAMMA, BETA, MEAN, VAR = 1, 2, 3, 4


# Ways to be wrong in general.


def attributes(**fields: object) -> Change:
    """The op with other attributes."""
    return lambda s: replace(s.op, **fields).run(*s.inputs, engine=FAST)


def given(place: int, change: Callable[[Array], Array]) -> Change:
    """The op with one input changed: weights converted, permuted, dropped."""
    return lambda s: s.having(place, change(s.inputs[place]))


def result(change: Callable[[Array], Array]) -> Change:
    """The op's value changed after it was computed."""
    return lambda s: np.ascontiguousarray(change(s.right), F)


def value(name: str, place: int = 0) -> Change:
    """Another value of the network in an input's place."""
    return lambda s: s.having(place, s.values[name])


def weight(name: str, place: int = 1) -> Change:
    """Another weight of the network in a weight's place."""
    return lambda s: s.having(place, s.weights[name])


# Batch norm.


def formula(change: Callable[..., Array]) -> Change:
    """A batch norm by another formula of (x, gamma, beta, mean, var, eps), in float32."""

    def run(s: Seen) -> Array:
        column = (slice(None), *([None] * (s.x.ndim - 2)))
        return change(s.x, *(w[column] for w in s.inputs[1:]), F(s.op.eps)).astype(F)

    return run


def exchanged(first: int, second: int) -> Change:
    """Two inputs of the same shape in each other's place."""

    def run(s: Seen) -> Array:
        inputs = list(s.inputs)
        inputs[first], inputs[second] = inputs[second], inputs[first]
        return s.op.run(*inputs, engine=FAST)

    return run


def statistics_of(name: str) -> Change:
    """The running statistics of PyTorch's batch norm of that name."""
    names = [f"{name}.running_{kind}" for kind in ("mean", "var")]
    return lambda s: s.op.run(*s.inputs[:3], *(s.weights[one] for one in names), engine=FAST)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and variance of a batch, as training computes them."""
    axes = (0, *range(2, x.ndim))
    return x.mean(axes, dtype=F), x.var(axes, dtype=F)


def batch_statistics(share: float) -> Change:
    """Running statistics mixed with the batch's: 1 is training mode, 0.1 one more step of momentum."""

    def run(s: Seen) -> Array:
        mixed = [
            F(1 - share) * own + F(share) * new for own, new in zip(s.inputs[3:], moments(s.x), strict=True)
        ]
        return s.op.run(*s.inputs[:3], *mixed, engine=FAST)

    return run


# Sums of products.


def accumulated(rounded: Callable[[Array], Array]) -> Change:
    """An ungrouped convolution as one chain, every partial sum rounded by a function of float64."""

    def run(s: Seen) -> Array:
        op, (x, w) = s.op, s.inputs[:2]
        (ph, pw), (sh, sw) = op.pad, op.stride
        padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, op.kernel, (2, 3))[:, :, ::sh, ::sw]
        total = np.zeros((len(x), len(w), *windows.shape[2:4]))
        for c, p, q in np.ndindex(*w.shape[1:]):
            product = windows[:, None, c, :, :, p, q].astype(np.float64) * w[:, c, p, q, None, None]
            total = rounded(total + product).astype(np.float64)
        return total.astype(F)

    return run


def winograd(s: Seen) -> Array:
    """A 3 x 3 convolution of stride 1 and pad 1 by F(4 x 4, 3 x 3), in float32.

    Source: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2015, section 4.3.
    """
    bt = F([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])  # fmt: skip
    g = F([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
           [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]])  # fmt: skip
    at = F([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
    x, w = s.inputs[:2]
    n, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    tiles = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), (2, 3))[:, :, ::4, ::4]
    moved = np.einsum("pa,ncijab,qb->ncijpq", bt, tiles, bt).astype(F)
    kernels = np.einsum("pa,ocab,qb->ocpq", g, w, g).astype(F)
    sums = np.einsum("ncijpq,ocpq->noijpq", moved, kernels).astype(F)
    tiled = np.einsum("ap,noijpq,bq->noiajb", at, sums, at).astype(F)
    return np.ascontiguousarray(tiled.reshape(n, len(w), height, width))


def first_group_only(s: Seen) -> Array:
    """A grouped convolution that reads the first group's channels for every output."""
    return replace(s.op, groups=1).run(s.x[:, : s.inputs[1].shape[1]].copy(), *s.inputs[1:], engine=FAST)


def shuffled(groups: int) -> Callable[[Array], Array]:
    """Channel c of group g where channel g of group c belongs: ShuffleNet's shuffle."""

    def change(x: Array) -> Array:
        n, c, *rest = x.shape
        return x.reshape(n, groups, c // groups, *rest).swapaxes(1, 2).reshape(x.shape)

    return change


def padded_behind(s: Seen) -> Array:
    """Padding below and to the right only, as TensorFlow's SAME with stride 2 has it."""
    ph, pw = s.op.pad
    fill = -np.inf if isinstance(s.op, ops.MaxPool) else 0
    x = np.pad(s.x, ((0, 0), (0, 0), (0, 2 * ph), (0, 2 * pw)), constant_values=fill).astype(F)
    return replace(s.op, pad=(0, 0)).run(x, *s.inputs[1:], engine=FAST)


def padded_with_zeros(s: Seen) -> Array:
    """A max pool that takes its padding for zeros."""
    ph, pw = s.op.pad
    x = np.pad(s.x, ((0, 0), (0, 0), (ph, ph), (pw, pw))).astype(F)
    return replace(s.op, pad=(0, 0)).run(x, engine=FAST)


def last_channel_stale(s: Seen) -> Array:
    """The last channel is what the buffer held before: here a channel of the input."""
    y = s.right
    y[:, -1] = s.x[:, -1]
    return y


# Formats of numbers.


def float16(x: Array) -> Array:
    return x.astype(np.float16).astype(F)


def kept_bits(count: int) -> Callable[[Array], Array]:
    """Mantissas of so many stored bits, rounded to nearest even: 7 is bfloat16, 10 TF32."""
    drop = 23 - count

    def change(x: Array) -> Array:
        bits = np.ascontiguousarray(x, F).view(np.uint32).astype(np.uint64)
        bits += (
            (np.uint64(1) << np.uint64(drop - 1)) - np.uint64(1) + ((bits >> np.uint64(drop)) & np.uint64(1))
        )
        bits &= ~np.uint64((1 << drop) - 1)
        return bits.astype(np.uint32).view(F).reshape(x.shape)

    return change


bfloat16, tf32 = kept_bits(7), kept_bits(10)


def tf32_operands(s: Seen) -> Array:
    """Both factors of every product with TF32's 10 bits, summed in float32."""
    return s.op.run(tf32(s.x), tf32(s.inputs[1]), *s.inputs[2:], engine=FAST)


def int8(x: Array) -> Array:
    """One scale for the whole array."""
    scale = np.abs(x).max() / F(127)
    return np.rint(x / scale) * scale


def to_float16(x: Array) -> Array:
    """A float64 sum rounded to float16."""
    return x.astype(np.float16)


def to_bfloat16(x: Array) -> Array:
    """A float64 sum rounded to bfloat16 (by way of float32)."""
    return bfloat16(x.astype(F))


def truncated(x: Array) -> Array:
    """A float64 sum cut to float32 instead of rounded to nearest."""
    near = x.astype(F)
    return np.where(np.abs(near.astype(np.float64)) > np.abs(x), np.nextafter(near, F(0)), near)


def flushed(x: Array) -> Array:
    """Subnormal numbers as zeros."""
    return np.where(np.abs(x) < F(2.0**-126), F(0), x)


def flipped(bit: int) -> Callable[[Array], Array]:
    """One bit of the largest element."""

    def change(x: Array) -> Array:
        flat = x.copy().reshape(-1)
        at = int(np.argmax(np.abs(flat)))
        flat[at : at + 1].view(np.uint32)[:] ^= np.uint32(1 << bit)
        return flat.reshape(x.shape)

    return change


# Pointwise, resampling, attention.


def bilinear(x: Array) -> Array:
    """Upsampled by 2, corners not aligned."""
    for axis in (2, 3):
        before = np.concatenate([x.take([0], axis), x.take(range(x.shape[axis] - 1), axis)], axis)
        after = np.concatenate([x.take(range(1, x.shape[axis]), axis), x.take([-1], axis)], axis)
        pair = np.stack([F(0.25) * before + F(0.75) * x, F(0.75) * x + F(0.25) * after], axis + 1)
        x = pair.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return x


def shifted(x: Array) -> Array:
    """Upsampled by 2, each pixel one place too early."""
    rows, columns = ((np.arange(2 * n) + 1) // 2 for n in x.shape[2:])
    rows, columns = rows.clip(max=x.shape[2] - 1), columns.clip(max=x.shape[3] - 1)
    return x[:, :, rows][:, :, :, columns]


def cubic_exp(x: Array) -> Array:
    """exp by powers of 2 and a cubic polynomial: right to about 1e-4."""
    y = x.astype(F) * F(1.4426950408889634)
    whole = np.floor(y)
    f = y - whole
    p = F(0.99992522) + f * (F(0.69583356) + f * (F(0.22606716) + f * F(0.078024523)))
    return np.ldexp(p, whole.astype(np.int32)).astype(F)


def softmax_with(exp: Callable[[Array], Array], axis: int) -> Callable[[Seen], Array]:
    """A softmax along an axis of its input by another exp."""

    def run(s: Seen) -> Array:
        e = exp(s.x - s.x.max(axis, keepdims=True))
        return (e / e.sum(axis, keepdims=True, dtype=F)).astype(F)

    return run


def radix_view(s: Seen) -> Array:
    """Radix and cardinality taken in the other order: (n, radix, cardinality, m) read as it lies."""
    op, x = s.op, s.x
    parts = x.reshape(len(x), op.radix, op.cardinality, -1)
    e = np.exp(parts - parts.max(1, keepdims=True))
    return (e / e.sum(1, keepdims=True)).astype(F).reshape(len(x), -1)


def radix_over_channels(s: Seen) -> Array:
    """The split attention's softmax along the channels instead of the radix."""
    rows = s.x.reshape(len(s.x), s.op.radix, -1)
    e = np.exp(rows - rows.max(2, keepdims=True))
    return (e / e.sum(2, keepdims=True)).astype(F).reshape(len(s.x), -1)


def radix_sigmoid(s: Seen) -> Array:
    """A sigmoid where a softmax over the radix belongs."""
    return ops.Sigmoid().run(np.ascontiguousarray(s.x.reshape(len(s.x), -1)), engine=FAST)


def parts_interleaved(s: Seen) -> Array:
    """Part r of a radix sum taken as every R-th channel."""
    radix = s.op.radix
    return sum((s.x[:, r::radix] for r in range(1, radix)), s.x[:, 0::radix]).astype(F)


def attention_swapped(s: Seen) -> Array:
    """Each part weighted with the other part's attention."""
    halves = np.split(s.inputs[0], s.op.radix, 1)
    return s.op.run(np.ascontiguousarray(np.concatenate(halves[::-1], 1)), s.inputs[1], engine=FAST)


def hard_sigmoid(s: Seen) -> Array:
    """relu6(x + 3) / 6, as in MobileNetV3."""
    return (np.clip(s.x + F(3), 0, 6) / F(6)).astype(F)


def tile(y: Array) -> Array:
    """A constant added to one tile of one channel, as memory that was not cleared adds."""
    y[:, 1, 4:8, 4:8] += F(0.01)
    return y


def ragged_divisors() -> Array:
    """(3, 3): what averages of 5 x 5 in windows of 2 x 2 become if the windows' parts outside count."""
    inside = F([1, 1, 0.5])
    return np.outer(inside, inside)
