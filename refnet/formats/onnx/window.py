"""The ONNX operators with windows: convolutions, pools, resizing, every form of padding and scale."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from refnet.formats.assembly import LARGEST_NUMBER, Made
from refnet.formats.onnx.use import Use
from refnet.ops import (
    AvgPool,
    AvgPoolNd,
    Conv,
    ConvNd,
    ConvTranspose,
    GlobalAvgPool,
    Identity,
    LpPool,
    MaxPool,
    MaxPoolNd,
    Op,
    ReduceMean,
    ResizeCubic,
    ResizeLinear,
    ResizeNearest,
    UpsampleNearest,
)
from refnet.ops.places import Scale

Sizes = tuple[int, ...]
MOST_TAPS = 1 << 18
"""Weights of an axis that is resized with antialiasing: each is a rational number."""


def conv(u: Use) -> list[Made]:
    """Conv: the kernel's size comes from the weight where the attribute is absent."""
    kernel = kernel_of(u)
    name, weight = u.weight(1, "weight")
    stride, pad, pad_end, dilation = window(u, kernel)
    bias, end = u.has(2), None if pad == pad_end else pad_end
    make: Any = Conv if len(kernel) == 2 else ConvNd
    op: Op = make(weight.shape[0], kernel, stride, pad, dilation, u["group"], bias, end)
    return u.one(op, name, *([u.weight(2, "bias")[0]] if bias else ()))


def kernel_of(u: Use) -> Sizes:
    """The kernel of a convolution: its weight's last dimensions."""
    rank = spatial(u)
    _, weight = u.weight(1, "weight")
    if len(weight.shape) != 2 + rank:
        raise u.node.wrong(f"{weight!r} as weight", f"{2 + rank} dimensions")
    kernel = weight.shape[2:]
    if u["kernel_shape"] not in (None, list(kernel)):
        raise u.node.wrong(f"kernel_shape {u['kernel_shape']}", f"{list(kernel)}, its weight's")
    return kernel


def transposed(u: Use) -> list[Made]:
    """ConvTranspose: where output_shape or auto_pad SAME give the result's size, the padding follows."""
    kernel, shape = kernel_of(u), u.type().shape[2:]
    name, weight = u.weight(1, "weight")
    how, rank = u["auto_pad"], len(kernel)
    stride, dilation = sizes_of(u, "strides", rank, 1), sizes_of(u, "dilations", rank, 1)
    more = sizes_of(u, "output_padding", rank, 0, 0)
    wanted = u["output_shape"]
    if wanted is not None:
        wanted = sizes_of(u, "output_shape", rank, None)
    elif how.startswith("SAME"):
        wanted = tuple(n * s for n, s in zip(shape, stride, strict=True))
    before, behind = padding(u, rank)
    if wanted is not None:
        room = zip(shape, kernel, stride, dilation, more, wanted, strict=True)
        spare = [(n - 1) * s + d * (k - 1) + 1 + m - w for n, k, s, d, m, w in room]
        low, high = tuple(max(n, 0) // 2 for n in spare), tuple(max(n, 0) - max(n, 0) // 2 for n in spare)
        before, behind = (low, high) if how == "SAME_UPPER" else (high, low)
        more = tuple(m + max(-n, 0) for m, n in zip(more, spare, strict=True))
    bias = u.has(2)
    op = ConvTranspose(
        weight.shape[1] * u["group"],
        kernel,
        stride,
        before,
        dilation,
        u["group"],
        bias,
        None if before == behind else behind,
        more if any(more) else (),
    )
    return u.one(op, name, *([u.weight(2, "bias")[0]] if bias else ()))


def spatial(u: Use) -> int:
    """The number of axes that windows have: all but batch and channels."""
    rank = u.rank() - 2
    if rank < 1:
        raise u.node.wrong(f"{u.type()!r}", "3 dimensions or more")
    return rank


def max_pool(u: Use) -> list[Made]:
    """MaxPool."""
    return u.one(pool(u, MaxPool, MaxPoolNd, {}))


def average_pool(u: Use) -> list[Made]:
    """AveragePool: padding is not counted where the attribute is absent."""
    counted = {"count_include_pad": bool(u["count_include_pad"])}
    return u.one(pool(u, AvgPool, AvgPoolNd, counted))


def lp_pool(u: Use) -> list[Made]:
    """LpPool: the root of the sum of powers of |x|."""
    return u.one(pool(u, LpPool, LpPool, {"p": u["p"]}))


def pool(u: Use, make: Any, make_nd: Any, counted: dict[str, Any]) -> Op:
    """A pool of either kind."""
    kernel = sizes_of(u, "kernel_shape", spatial(u), None)
    stride, pad, pad_end, dilation = window(u, kernel)
    convention = "ceil" if u["ceil_mode"] and u["auto_pad"] in ("NOTSET", "VALID") else "valid"
    end = None if pad == pad_end else pad_end
    kind = make if len(kernel) == 2 else make_nd
    op: Op = kind(kernel, stride, pad, convention, **counted, pad_end=end, dilation=dilation)
    return op


def sizes_of(u: Use, name: str, rank: int, default: int | None, least: int = 1) -> Sizes:
    """A number for each axis."""
    value: list[Any] = u[name] if u[name] is not None else [default] * rank
    if len(value) != rank or not all(isinstance(n, int) and least <= n <= LARGEST_NUMBER for n in value):
        raise u.node.wrong(f"{name} {value[:8]}", f"{rank} numbers from {least} on")
    return tuple(int(n) for n in value)


def padding(u: Use, rank: int) -> tuple[Sizes, Sizes]:
    """The attribute pads, before and behind the image; 0 next to auto_pad."""
    pads = [0] * 2 * rank if u["pads"] is None else u["pads"]
    if len(pads) != 2 * rank or not all(0 <= n <= LARGEST_NUMBER for n in pads):
        raise u.node.wrong(f"pads {pads[:8]}", f"{2 * rank} numbers from 0 on")
    how = u["auto_pad"]
    if how not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise u.node.wrong(f"auto_pad {how[:60]!r}", "NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    if how != "NOTSET" and any(pads):
        raise u.node.wrong(f"pads {pads} next to auto_pad {how}", "one of both")
    return tuple(pads[:rank]), tuple(pads[rank:])


def window(u: Use, kernel: Sizes) -> tuple[Sizes, Sizes, Sizes, Sizes]:
    """Stride, padding before and behind the image, dilation."""
    rank, how = len(kernel), u["auto_pad"]
    stride, dilation = sizes_of(u, "strides", rank, 1), sizes_of(u, "dilations", rank, 1)
    before, behind = padding(u, rank)
    if how.startswith("SAME"):
        axes = zip(u.type().shape[2:], kernel, stride, dilation, strict=True)
        total = [max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0) for size, k, s, d in axes]
        low, high = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
        before, behind = (low, high) if how == "SAME_UPPER" else (high, low)
    return stride, before, behind, dilation


def global_average(u: Use) -> list[Made]:
    """GlobalAveragePool over any number of axes."""
    rank = 2 + spatial(u)
    return u.one(GlobalAvgPool() if rank == 4 else ReduceMean(tuple(range(2, rank))))


def global_max(u: Use) -> list[Made]:
    """GlobalMaxPool over any number of axes: one window."""
    sizes = u.type().shape[2:]
    if spatial(u) == 2:
        return u.one(MaxPool((sizes[0], sizes[1])))
    return u.one(MaxPoolNd(sizes))


def global_lp(u: Use) -> list[Made]:
    """GlobalLpPool over any number of axes: one window."""
    spatial(u)
    return u.one(LpPool(u.type().shape[2:], p=u["p"]))


def resize(u: Use) -> list[Made]:
    """Resize and Upsample: by scales or by sizes, of all axes or some."""
    mode = u["mode"]
    if mode not in ("nearest", "linear", "cubic"):
        raise u.node.wrong(f"mode {mode[:60]!r}", "nearest, linear or cubic")
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
        sizes, scales = by_scales(u, given or [], lengths, old and mode == "nearest")
    coordinates = "asymmetric" if old else u["coordinate_transformation_mode"]
    regions: list[tuple[float, float]] = []
    if coordinates == "tf_crop_and_resize":
        regions = rois(u, len(axes))
    changed = [n != m or scale != 1 for n, m, scale in zip(sizes, lengths, scales, strict=True)]
    kept = [k for k, moves in enumerate(changed) if moves or (regions and regions[k] != (0.0, 1.0))]
    if min(sizes) < 1:
        raise u.node.unsupported(f"sizes {sizes}: an empty value")
    where = (
        tuple(axes[k] for k in kept),
        tuple(sizes[k] for k in kept),
        tuple(scales[k] for k in kept),
        coordinates,
    )
    crop = (
        tuple(regions[k] for k in kept if regions),
        float(u["extrapolation_value"] or 0.0) if regions else 0.0,
    )
    if mode == "nearest":
        return u.one(upsampled(ResizeNearest(*where, "floor" if old else u["nearest_mode"], *crop), u))
    if not kept:
        return u.one(Identity())
    antialias = bool(u["antialias"]) and smoothed(u, where[1], where[2])
    if mode == "linear":
        excluded = antialias and bool(
            u["exclude_outside"]
        )  # else the only one outside is the one at the edge
        return u.one(ResizeLinear(*where, *crop, exclude_outside=excluded, antialias=antialias))
    a = -0.75 if u["cubic_coeff_a"] is None else float32(u["cubic_coeff_a"])
    op = ResizeCubic(*where, *crop, bool(u["exclude_outside"]), antialias, coefficient=a)
    return u.one(op)


def smoothed(u: Use, sizes: tuple[int, ...], scales: tuple[Scale, ...]) -> bool:
    """Whether antialiasing changes anything: an axis shrinks. Its filter reaches 1 / scale or 2 / scale."""
    ratios = [Fraction(*one) if isinstance(one, tuple) else Fraction(one) for one in scales]
    for size, ratio in zip(sizes, ratios, strict=True):
        if ratio < 1 and size * 4 / ratio > MOST_TAPS:
            raise u.node.unsupported(
                f"antialiasing to {size} elements by a scale of {float(ratio)}: more than {MOST_TAPS} weights"
            )
    return min(ratios) < 1


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
