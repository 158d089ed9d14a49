"""The layers of an IR with windows: convolutions, pools, nearest resizing."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from refnet.core.errors import GraphError, RefnetError
from refnet.formats.assembly import LARGEST_NUMBER, Made
from refnet.formats.openvino.use import Use
from refnet.ops import AvgPool, Conv, MaxPool, Op, ResizeNearest, UpsampleNearest
from refnet.ops.places import Scale

Pair = tuple[int, int]

AUTO_PADS = ("explicit", "valid", "same_upper", "same_lower")
CONVENTIONS = {"floor": "valid", "ceil": "full", "ceil_torch": "ceil"}
"""An IR's rounding_type -> refnet's convention."""
COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "tf_half_pixel_for_nn", "align_corners")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")


def conv(u: Use) -> list[Made]:
    """Convolution: weight (channels, inputs, h, w)."""
    maps(u)
    name = u.weight(1, "weight")
    weight = u.type(1)
    if len(weight.shape) != 4:
        raise u.layer.wrong(f"{weight!r} as weight", "4 dimensions")
    return u.one(convolution(u, weight.shape[0], 1, weight.shape[2:]), name)


def group_conv(u: Use) -> list[Made]:
    """GroupConvolution: weight (groups, channels of each, inputs of each, h, w); `joined` has them as one."""
    maps(u)
    name = u.weight(1, "weight")
    weight = u.type(1)
    if len(weight.shape) != 5:
        raise u.layer.wrong(f"{weight!r} as weight", "5 dimensions")
    groups, channels = weight.shape[:2]
    return u.one(convolution(u, groups * channels, groups, weight.shape[3:]), joined(name))


def joined(weight: str) -> str:
    """The name of a group convolution's weight in four dimensions."""
    return f"{weight}/joined"


def convolution(u: Use, channels: int, groups: int, kernel: tuple[int, ...]) -> Conv:
    """The op of either kind."""
    size = (kernel[0], kernel[1])
    stride, pad, pad_end, dilation = window(u, size)
    return Conv(channels, size, stride, pad, dilation, groups, False, None if pad == pad_end else pad_end)


def maps(u: Use) -> None:
    """Refuse what is no batch of images."""
    if u.rank() != 4:
        raise u.layer.unsupported(f"its input is {u.type()!r}; refnet has windows on (n, c, h, w) only")


def max_pool(u: Use) -> list[Made]:
    """MaxPool; from opset 8 on with the places of the maxima as a second output."""
    return u.one(pool(u, MaxPool, ()))


def average_pool(u: Use) -> list[Made]:
    """AvgPool."""
    return u.one(pool(u, AvgPool, (not u.flag("exclude-pad", None),)))


def pool(u: Use, make: Any, counted: tuple[bool, ...]) -> Op:
    """A pool of either kind."""
    maps(u)
    kernel = pair(u, "kernel", None, 1)
    stride, pad, pad_end, dilation = window(u, kernel)
    convention = CONVENTIONS[u.text("rounding_type", "floor", tuple(CONVENTIONS))]
    if u.text("auto_pad", "explicit").startswith("same"):
        convention = "valid"
    if convention != "valid" and counted == (True,) and any((*pad, *pad_end)):
        _refuse_cut_windows(u, kernel, stride, pad, pad_end)
    end = None if pad == pad_end else pad_end
    op: Op = make(kernel, stride, pad, convention, *counted, pad_end=end, dilation=dilation)
    try:
        op.type(u.type())
    except GraphError as error:  # such as a window of padding alone, in which OpenVINO has its lowest number
        axes = zip(u.type().shape[2:], pad, pad_end, kernel, dilation, strict=True)
        if all(size + p + e > d * (k - 1) for size, p, e, k, d in axes):
            raise u.layer.unsupported(str(error)) from None
        raise
    return op


def _refuse_cut_windows(u: Use, kernel: Pair, stride: Pair, pad: Pair, pad_end: Pair) -> None:
    """Refuse a mean that counts its padding where a window reaches beyond it.

    The opsets do not say by what such a window's sum is divided, and OpenVINO divides by another number than
    ONNX and PyTorch do (measured in 2026.4).
    """
    for size, k, s, p, e in zip(u.type().shape[2:], kernel, stride, pad, pad_end, strict=True):
        if (size + p + e - k) % s:
            raise u.layer.unsupported(
                "exclude-pad=false with a rounding_type that lets a window reach beyond the padding"
            )


def pair(u: Use, name: str, default: Pair | None, least: int) -> Pair:
    """Two numbers from `least` on."""
    found = u.numbers(name, 2, default)
    if min(found) < least:
        raise u.layer.wrong(f"{name}={list(found)}", f"two numbers from {least} on")
    return found[0], found[1]


def window(u: Use, kernel: Pair) -> tuple[Pair, Pair, Pair, Pair]:
    """Stride, padding before and behind the image, dilation."""
    stride, dilation = pair(u, "strides", (1, 1), 1), pair(u, "dilations", (1, 1), 1)
    how = u.text("auto_pad", "explicit", AUTO_PADS)
    if how == "valid":
        return stride, (0, 0), (0, 0), dilation
    if how == "explicit":
        return stride, pair(u, "pads_begin", (0, 0), 0), pair(u, "pads_end", (0, 0), 0), dilation
    before, behind = [], []
    for size, k, s, d in zip(u.type().shape[2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        half = total // 2 if how == "same_upper" else total - total // 2
        before.append(half)
        behind.append(total - half)
    return stride, (before[0], before[1]), (behind[0], behind[1]), dilation


def interpolate(u: Use) -> list[Made]:
    """Interpolate from opset 4 on, mode nearest: by scales or by sizes, of all axes or some."""
    mode = u.text("mode", None)
    if mode != "nearest":
        raise u.layer.unsupported(f"mode {mode[:60]!r}; refnet has nearest")
    shape = u.type().shape
    for name in ("pads_begin", "pads_end"):
        if u.layer.attributes.get(name, "").strip(" 0,"):
            raise u.layer.unsupported(f"{name}={u.layer.attributes[name][:60]!r}: padding while resizing")
    by_scales = u.text("shape_calculation_mode", None, ("scales", "sizes")) == "scales"
    old = u.layer.opset < 11  # inputs: data, sizes, scales, axes; later: data, sizes or scales, axes
    at_axes = 3 if old else 2
    axes = (
        u.axes(u.whole_numbers(at_axes, "axes"), len(shape)) if u.has(at_axes) else tuple(range(len(shape)))
    )
    lengths = [shape[i] for i in axes]
    sizes, scales = _by_scales(u, 2 if old else 1, lengths) if by_scales else _by_sizes(u, lengths)
    coordinates = u.text("coordinate_transformation_mode", "half_pixel", COORDINATES)
    rounding = u.text("nearest_mode", "round_prefer_floor", ROUNDINGS)
    changed = [k for k, (n, m) in enumerate(zip(sizes, lengths, strict=True)) if n != m or scales[k] != 1]
    if rounding == "simple":
        down = {n < m for n, m in zip(sizes, lengths, strict=True) if n != m}
        if len(down) > 1:
            raise u.layer.unsupported("nearest_mode 'simple' with one axis shrunk and another stretched")
        rounding = "ceil" if True in down else "floor"
    op = ResizeNearest(
        tuple(axes[k] for k in changed),
        tuple(sizes[k] for k in changed),
        tuple(scales[k] for k in changed),
        coordinates,
        rounding,
    )
    return u.one(_upsampled(op, u))


def _upsampled(op: ResizeNearest, u: Use) -> Op:
    """UpsampleNearest where that is the same, by every formula too."""
    shape = u.type().shape
    if op.axes != (2, 3) or len(shape) != 4:
        return op
    scale, rest = divmod(op.sizes[0], shape[2])
    if rest or op.sizes[1] != shape[3] * scale or max(op.sizes) > 1 << 20:
        return op
    wanted = [np.arange(n) // scale for n in op.sizes]
    try:
        same = all(
            np.array_equal(op.places(k, shape, formula), wanted[k])
            for k in range(2)
            for formula in op.formulas
        )
    except RefnetError:
        return op
    return UpsampleNearest(scale) if same else op


def _by_scales(u: Use, at: int, lengths: list[int]) -> tuple[list[int], list[Scale]]:
    """The sizes that scales make, and the scales as float32."""
    given = u.constant(at, "scales").reshape(-1)
    if given.dtype.kind != "f" or len(given) != len(lengths):
        raise u.layer.wrong(f"{given.dtype} {list(given.shape)} as scales", f"{len(lengths)} numbers")
    scales = [float(np.float32(s)) for s in given]
    if not all(0 < s <= LARGEST_NUMBER for s in scales):
        raise u.layer.wrong(f"scales {scales[:8]}", "numbers above 0")
    sizes = [int(np.floor(np.float32(n) * np.float32(s))) for n, s in zip(lengths, scales, strict=True)]
    if min(sizes) < 1:
        raise u.layer.unsupported(f"sizes {sizes}: an empty value")
    return sizes, [*scales]


def _by_sizes(u: Use, lengths: list[int]) -> tuple[list[int], list[Scale]]:
    """Sizes, and the exact scales that they make."""
    sizes = u.whole_numbers(1, "sizes")
    if len(sizes) != len(lengths) or not all(1 <= n <= LARGEST_NUMBER for n in sizes):
        raise u.layer.wrong(f"sizes {sizes[:8]}", f"{len(lengths)} numbers from 1 on")
    scales: list[Scale] = []
    for n, m in zip(sizes, lengths, strict=True):
        ratio = Fraction(n, m)
        near = float(np.float32(float(ratio)))
        scales.append(near if near == ratio else (ratio.numerator, ratio.denominator))
    return sizes, scales
