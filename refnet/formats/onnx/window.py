"""The ONNX operators with windows: convolution, pools, nearest resizing, every form of padding and scale."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from refnet.formats.assembly import LARGEST_NUMBER, Made
from refnet.formats.onnx.use import Use
from refnet.ops import (
    AvgPool,
    Conv,
    GlobalAvgPool,
    MaxPool,
    Op,
    ReduceMean,
    ResizeNearest,
    UpsampleNearest,
)
from refnet.ops.places import Scale

Pair = tuple[int, int]


def conv(u: Use) -> list[Made]:
    """Conv: the kernel's size comes from the weight where the attribute is absent."""
    maps(u)
    name, weight = u.weight(1, "weight")
    if len(weight.shape) != 4:
        raise u.node.wrong(f"{weight!r} as weight", "4 dimensions")
    kernel = (weight.shape[2], weight.shape[3])
    if u["kernel_shape"] not in (None, list(kernel)):
        raise u.node.wrong(f"kernel_shape {u['kernel_shape']}", f"{list(kernel)}, its weight's")
    stride, pad, pad_end, dilation = window(u, kernel)
    bias = u.has(2)
    op = Conv(
        weight.shape[0], kernel, stride, pad, dilation, u["group"], bias, None if pad == pad_end else pad_end
    )
    return u.one(op, name, *([u.weight(2, "bias")[0]] if bias else ()))


def maps(u: Use) -> None:
    """Refuse what is no batch of images."""
    if u.rank() != 4:
        raise u.node.unsupported(f"its input is {u.type()!r}; refnet has windows on (n, c, h, w) only")


def max_pool(u: Use) -> list[Made]:
    """MaxPool."""
    return u.one(pool(u, MaxPool, ()))


def average_pool(u: Use) -> list[Made]:
    """AveragePool: padding is not counted where the attribute is absent."""
    return u.one(pool(u, AvgPool, (bool(u["count_include_pad"]),)))


def pool(u: Use, make: Any, counted: tuple[bool, ...]) -> Op:
    """A pool of either kind."""
    maps(u)
    kernel = pair(u, "kernel_shape", None)
    stride, pad, pad_end, dilation = window(u, kernel)
    convention = "ceil" if u["ceil_mode"] and u["auto_pad"] in ("NOTSET", "VALID") else "valid"
    end = None if pad == pad_end else pad_end
    op: Op = make(kernel, stride, pad, convention, *counted, pad_end=end, dilation=dilation)
    return op


def pair(u: Use, name: str, default: int | None) -> Pair:
    """Two numbers from 1 on."""
    value: list[Any] = u[name] if u[name] is not None else [default, default]
    if len(value) != 2 or not all(isinstance(n, int) and 1 <= n <= LARGEST_NUMBER for n in value):
        raise u.node.wrong(f"{name} {value[:8]}", "two numbers from 1 on")
    return int(value[0]), int(value[1])


def window(u: Use, kernel: Pair) -> tuple[Pair, Pair, Pair, Pair]:
    """Stride, padding before and behind the image, dilation."""
    stride, dilation = pair(u, "strides", 1), pair(u, "dilations", 1)
    pads = [0] * 4 if u["pads"] is None else u["pads"]
    if len(pads) != 4 or not all(0 <= n <= LARGEST_NUMBER for n in pads):
        raise u.node.wrong(f"pads {pads[:8]}", "four numbers from 0 on")
    how = u["auto_pad"]
    if how not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise u.node.wrong(f"auto_pad {how[:60]!r}", "NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    if how != "NOTSET" and any(pads):
        raise u.node.wrong(f"pads {pads} next to auto_pad {how}", "one of both")
    if how.startswith("SAME"):
        before, behind = [], []
        for size, k, s, d in zip(u.type().shape[2:], kernel, stride, dilation, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            half = total // 2 if how == "SAME_UPPER" else total - total // 2
            before.append(half)
            behind.append(total - half)
        pads = [*before, *behind]
    return stride, (pads[0], pads[1]), (pads[2], pads[3]), dilation


def global_average(u: Use) -> list[Made]:
    """GlobalAveragePool over any number of axes."""
    rank = u.rank()
    if rank < 3:
        raise u.node.wrong(f"{u.type()!r}", "3 dimensions or more")
    return u.one(GlobalAvgPool() if rank == 4 else ReduceMean(tuple(range(2, rank))))


def global_max(u: Use) -> list[Made]:
    """GlobalMaxPool: one window."""
    maps(u)
    _, _, h, w = u.type().shape
    return u.one(MaxPool((h, w)))


def resize(u: Use) -> list[Made]:
    """Resize and Upsample in mode nearest: by scales or by sizes, of all axes or some."""
    mode = u["mode"]
    if mode != "nearest":
        raise u.node.unsupported(f"mode {mode[:60]!r}; refnet has nearest")
    shape = u.type().shape
    old = u.node.op == "Upsample" or u.opset < 11
    axes = u.axes(u["axes"], len(shape)) if u["axes"] else tuple(range(len(shape)))
    given, sizes = ([*map(float32, u["scales"])], None) if u["scales"] else factors(u, 1 if old else 2, 3)
    if (given is None) == (sizes is None):
        raise u.node.wrong("scales and sizes", "one of both")
    if (count := len(given or sizes or ())) != len(axes):
        raise u.node.wrong(f"{count} scales or sizes", f"{len(axes)}")
    lengths = [shape[i] for i in axes]
    if sizes is not None:
        sizes, scales = by_policy(u, sizes, lengths)
    else:
        sizes, scales = by_scales(u, given or [], lengths, old)
    coordinates = "asymmetric" if old else u["coordinate_transformation_mode"]
    regions: list[tuple[float, float]] = []
    if coordinates == "tf_crop_and_resize":
        regions = rois(u, len(axes))
    changed = [n != m or scale != 1 for n, m, scale in zip(sizes, lengths, scales, strict=True)]
    kept = [k for k, moves in enumerate(changed) if moves or (regions and regions[k] != (0.0, 1.0))]
    if min(sizes) < 1:
        raise u.node.unsupported(f"sizes {sizes}: an empty value")
    op = ResizeNearest(
        tuple(axes[k] for k in kept),
        tuple(sizes[k] for k in kept),
        tuple(scales[k] for k in kept),
        coordinates,
        "floor" if old else u["nearest_mode"],
        tuple(regions[k] for k in kept if regions),
        float(u["extrapolation_value"] or 0.0) if regions else 0.0,
    )
    return u.one(upsampled(op, u))


def upsampled(op: ResizeNearest, u: Use) -> Op:
    """UpsampleNearest where that is the same, by every formula too."""
    shape = u.type().shape
    if op.axes != (2, 3) or len(shape) != 4 or op.roi:
        return op
    scale, rest = divmod(op.sizes[0], shape[2])
    if rest or op.sizes[1] != shape[3] * scale or max(op.sizes) > 1 << 20:
        return op
    wanted = [np.arange(n) // scale for n in op.sizes]
    same = all(
        np.array_equal(op.places(k, shape, formula), wanted[k]) for k in range(2) for formula in op.formulas
    )
    return UpsampleNearest(scale) if same else op


def by_scales(u: Use, given: list[float], lengths: list[int], old: bool) -> tuple[list[int], list[Scale]]:
    """The sizes that scales make, as ONNX Runtime and onnx's shape inference multiply: in float32."""
    if not all(0 < s <= LARGEST_NUMBER for s in given):
        raise u.node.wrong(f"scales {given[:8]}", "numbers above 0")
    if old and min(given) < 1:
        raise u.node.unsupported(f"scales {given[:8]}: below 1 it does not say which neighbour")
    sizes = [int(np.floor(np.float32(n) * np.float32(s))) for n, s in zip(lengths, given, strict=True)]
    return sizes, [*given]


def factors(u: Use, scales_at: int, sizes_at: int) -> tuple[list[float] | None, list[int] | None]:
    """The inputs scales (float32, as they are) and sizes; an empty one counts as absent."""
    scales = u.constant(scales_at, "scales") if u.has(scales_at) else np.zeros(0)
    sizes = u.constant(sizes_at, "sizes") if u.has(sizes_at) else np.zeros(0)
    return (
        [float32(s) for s in scales.reshape(-1)[:64]] if scales.size else None,
        [int(n) for n in sizes.reshape(-1)[:64]] if sizes.size else None,
    )


def by_policy(u: Use, sizes: list[int], lengths: list[int]) -> tuple[list[int], list[Scale]]:
    """Sizes and the exact scales they make; one scale for all axes where the aspect ratio is kept."""
    if not all(1 <= n <= LARGEST_NUMBER for n in sizes):
        raise u.node.wrong(f"sizes {sizes[:8]}", "numbers from 1 on")
    policy = u["keep_aspect_ratio_policy"] or "stretch"
    ratios = [Fraction(n, m) for n, m in zip(sizes, lengths, strict=True)]
    if policy == "stretch":
        return sizes, [shortest(ratio) for ratio in ratios]
    if policy not in ("not_larger", "not_smaller"):
        raise u.node.wrong(f"keep_aspect_ratio_policy {policy[:60]!r}", "stretch, not_larger or not_smaller")
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [int(scale * m + Fraction(1, 2)) for m in lengths], [shortest(scale)] * len(sizes)


def float32(number: float) -> float:
    """The number as a float32."""
    return float(np.float32(number))


def shortest(ratio: Fraction) -> Scale:
    """A ratio as a float where a float32 has that value, else as numerator and denominator."""
    as_float = float32(float(ratio))
    return as_float if as_float == ratio else (ratio.numerator, ratio.denominator)


def rois(u: Use, count: int) -> list[tuple[float, float]]:
    """(start, end) of each axis."""
    region = u.constant(1, "roi").reshape(-1)[:64].tolist() if u.has(1) else []
    if len(region) != 2 * count or not all(np.isfinite(region)):
        raise u.node.wrong(f"roi {region[:8]}", f"{2 * count} numbers")
    return [(float(a), float(b)) for a, b in zip(region[:count], region[count:], strict=True)]
