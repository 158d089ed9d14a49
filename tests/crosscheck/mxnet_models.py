"""Run by MXNet's own interpreter: writes symbol and parameter files of networks that MXNet defines.

    python mxnet_models.py names
    python mxnet_models.py write NAME SIZE FOLDER
    python mxnet_models.py reshape CASES

NAME is a network of mxnet.gluon.model_zoo.vision, or one of OTHERS. Weights, statistics among them, are
random, from a seed; no network is pretrained.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

for _name, _kind in (("bool", bool), ("int", int), ("float", float), ("object", object)):
    if _name not in vars(np):
        setattr(np, _name, _kind)
import mxnet as mx  # noqa: E402  (its aliases of removed NumPy names must be there first)
from mxnet.gluon.model_zoo import vision  # noqa: E402

ALPHA = 0.25
Pair = tuple[Any, Any]


def zoo_names() -> list[str]:
    """Every network that the zoo has: asked for an unknown one, it lists them."""
    try:
        vision.get_model("none of them")
    except ValueError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    raise RuntimeError("the zoo has a network that is none of them")


def write(name: str, size: int, folder: Path) -> None:
    """The symbol as Gluon's export writes it, or as the builder made it, with its parameters."""
    if name in OTHERS:
        symbol = OTHERS[name](size)
    else:
        network = vision.get_model(name, pretrained=False)
        network.initialize()
        network.hybridize()
        network(mx.nd.zeros((1, 3, size, size))).wait_to_read()
        network.export(str(folder / name))
        symbol = mx.sym.load(str(folder / f"{name}-symbol.json"))
    symbol.save(str(folder / f"{name}-symbol.json"))
    mx.nd.save(str(folder / f"{name}-0000.params"), parameters(symbol, size))


def parameters(symbol: Any, size: int) -> dict[str, Any]:
    """Random values of the scale that keeps activations near 1; variances are positive."""
    random = np.random.RandomState(0)
    shapes, _, states = symbol.infer_shape(data=(1, 3, size, size))
    found = {}
    for prefix, names, kinds in (
        ("arg", symbol.list_arguments(), shapes),
        ("aux", symbol.list_auxiliary_states(), states),
    ):
        for name, shape in zip(names, kinds):  # noqa: B905  (also for older Pythons)
            if name == "data" or name.endswith("label"):
                continue
            value = random.standard_normal(shape) / max(np.prod(shape[1:]), 1) ** 0.5
            if name.endswith(("_var", "_gamma")):
                value = np.abs(value) + 0.5
            found[f"{prefix}:{name}"] = mx.nd.array(value.astype(np.float32))
    return found


# The MXNet implementation of octave ResNet-50 that OctConv's README names (terrychenism/OctaveConv), from
# the facts of its blocks: where it pools, convolves and adds, and what its nodes are called.


def _norm(data: Any, name: str) -> Any:
    return mx.sym.BatchNorm(data, fix_gamma=False, eps=1e-4, name=f"{name}__bn")


def _relu(data: Any, name: str | None = None) -> Any:
    return mx.sym.Activation(data, act_type="relu", name=f"{name}__relu")  # also of None: MXNet runs it


def _convolution(data: Any, channels: int, kernel: int, name: str, stride: int = 1) -> Any:
    return mx.sym.Convolution(
        data,
        num_filter=channels,
        kernel=(kernel, kernel),
        pad=(kernel // 2, kernel // 2),
        stride=(stride, stride),
        no_bias=True,
        name=f"{name}__conv",
    )


def _half(data: Any, name: str) -> Any:
    return mx.sym.Pooling(data, pool_type="avg", kernel=(2, 2), stride=(2, 2), name=name)


def _octave(data: Any, channels: int, kernel: int, name: str, stride: int, low: bool) -> Any:
    """(high, low) or, as the first, a value alone -> (high, low), or high alone if low is False.

    A stride of 2 is an average pool in front of every path.
    """
    high, small = data if isinstance(data, tuple) else (data, None)
    wide = int(channels * (1 - ALPHA)) if low else channels
    if stride == 2:
        high = _half(high, f"{name}_hf_down")
    to_high = _convolution(high, wide, kernel, f"{name}_hf_conv")
    to_low = None
    if low:
        pooled = _half(high, f"{name}_hf_pool")
        to_low = _convolution(pooled, channels - wide, kernel, f"{name}_hf_pool_conv")
    if small is not None:
        raised = _convolution(small, wide, kernel, f"{name}_lf_conv")
        if stride == 1:
            raised = mx.sym.UpSampling(
                raised, scale=2, sample_type="nearest", num_args=1, name=f"{name}_lf_upsample"
            )
        if low:
            small = _half(small, f"{name}_lf_down") if stride == 2 else small
            to_low = to_low + _convolution(small, channels - wide, kernel, f"{name}_lf_down_conv")
        to_high = to_high + raised
    return (to_high, to_low) if low else to_high


def _each(data: Any, act: Any, name: str) -> Any:
    """What is done to both parts, or to the one."""
    if not isinstance(data, tuple):
        return act(data, name)
    return act(data[0], f"{name}_hf"), act(data[1], f"{name}_lf")


def _block(data: Any, out: int, name: str, widen: bool, stride: int, low: bool) -> Any:
    """A bottleneck whose second convolution has the stride; `widen`: its shortcut is a convolution."""

    def conv(value: Any, channels: int, kernel: int, part: str, by: int, to_low: bool) -> Any:
        part = f"{name}_{part}"
        if not (to_low or isinstance(value, tuple)):
            return _norm(_convolution(value, channels, kernel, part, by), part)
        return _each(_octave(value, channels, kernel, part, by, to_low), _norm, part)

    split = low or isinstance(data, tuple)
    one = _each(conv(data, out // 4, 1, "conv-m1", 1, split), _relu, f"{name}_conv-m1")
    two = _each(conv(one, out // 4, 3, "conv-m2", stride, low), _relu, f"{name}_conv-m2")
    three = conv(two, out, 1, "conv-m3", 1, low)
    short = conv(data, out, 1, "conv-w1", stride, low) if widen else data
    if not low:
        total = mx.sym.ElementWiseSum(short, three, name=f"{name}_sum")
        return _relu(total, f"{name}_act" if split else None)
    sums = [
        mx.sym.ElementWiseSum(a, b, name=f"{name}_{part}_sum")
        for a, b, part in zip(short, three, ("hf", "lf"))  # noqa: B905
    ]
    return tuple(_relu(total, f"{name}_{part}_act") for total, part in zip(sums, ("hf", "lf")))  # noqa: B905


def octave_resnet(size: int, blocks: tuple[int, ...] = (3, 4, 6, 3)) -> Any:
    """The network in float32: its file casts to float16 by default."""
    data = _relu(_norm(_convolution(mx.sym.Variable("data"), 64, 7, "conv1", 2), "conv1"), "conv1")
    data = mx.sym.Pooling(data, pool_type="max", kernel=(3, 3), pad=(1, 1), stride=(2, 2), name="pool1")
    for stage, count in enumerate(blocks):
        for i in range(count):
            first = i == 0
            name = f"conv{stage + 2}_B{i + 1:02d}"
            data = _block(data, 256 << stage, name, first, 2 if first and stage else 1, stage < 3)
    end = size // 32
    data = mx.sym.Pooling(data, pool_type="avg", kernel=(end, end), stride=(1, 1), name="global-pool")
    data = mx.sym.FullyConnected(mx.sym.Flatten(data, name="flatten"), num_hidden=1000, name="classifier")
    return mx.sym.SoftmaxOutput(data, name="softmax")


# Each op that symbols beside the tables use, and some forms of it.


def every_kind(size: int) -> Any:
    """One chain through the leaky rectifiers, arithmetic and moves; names are partly the same."""
    s = mx.sym
    data = s.Convolution(s.Variable("data"), num_filter=6, kernel=(3, 3), name="conv")
    for slope in (0.25, 0.1, 1e-3, -1.5, 0.0, 0.30000001192092896):
        data = s.LeakyReLU(data, act_type="leaky", slope=slope, name="None__leaky") + 0.37
    data = s.LeakyReLU(data - 0.4, act_type="prelu", name="per_channel")
    one = s.Variable("shared_slope", shape=(1,))
    data = s.LeakyReLU(data - 0.4, one, act_type="prelu", name="shared")
    data = s.LeakyReLU(data - 0.1, act_type="rrelu", lower_bound=0.1, upper_bound=0.7, name="random")[0]
    pooled = s.mean(data, axis=(2, 3), keepdims=True, name="mean")
    data = s.broadcast_sub(data, pooled)
    data = s.broadcast_add(data, s.broadcast_mul(pooled, pooled))
    data = s.broadcast_div(data, 2 + s.maximum(pooled, 0.1))
    data = (1.7 - data) * 3.3 / 0.7 - data + data * data - data / (s.minimum(data, -0.5) * -1)
    data = 0.3 / (s.clip(data, -2, 2) + 3) + s.negative(data)
    data = s.Cast(data, dtype="float32")
    data = s.swapaxes(s.transpose(data, axes=(0, 2, 3, 1)), 1, 3)  # (n, c, w, h)
    data = s.slice(data, begin=(None, 1, 0, 2), end=(None, 5, -3, None))
    data = s.slice(data, begin=(None, None, 1), end=(None, None, 1000))
    data = s.reshape(data, shape=(0, -4, 2, -1, -2))
    data = s.reshape(data, shape=(0, 0, 0, -3))
    data = s.reshape(data, shape=(-1, 0, 0), reverse=True)  # (2 n, 2, rest)
    data = s.reshape(data, shape=(-4, -1, 2, -2))
    data = s.concat(s.sum(data, axis=3, keepdims=True), s.mean(data, axis=-1, keepdims=True), data, dim=3)
    data = s.squeeze(s.slice_axis(data, axis=1, begin=-1, end=None), axis=1)
    return s.mean(data, axis=(0, 1), exclude=True, name="last")


def reshaped(cases: list[tuple[list[int], list[int], bool]]) -> list[list[int] | None]:
    """The shapes that Reshape gives data of a shape, by its codes and `reverse`; None where it fails.

    They are inferred, and compared with the number of elements, as a run does: MXNet 1.9.1 crashes in some.
    """
    found: list[list[int] | None] = []
    for shape, codes, reverse in cases:
        symbol = mx.sym.reshape(mx.sym.Variable("data"), shape=tuple(codes), reverse=reverse)
        try:
            result = list(symbol.infer_shape(data=tuple(shape))[1][0])
        except mx.base.MXNetError:
            result = []
        found.append(result if np.prod(result) == np.prod(shape) and result else None)
    return found


OTHERS = {
    "octave-resnet-50": octave_resnet,
    "octave-resnet-26": lambda size: octave_resnet(size, (1, 1, 1, 3)),
    "every-kind": every_kind,
}

if __name__ == "__main__":
    if sys.argv[1] == "names":
        print(json.dumps(zoo_names()))
    elif sys.argv[1] == "reshape":
        print(json.dumps(reshaped(json.loads(sys.argv[2]))))
    else:
        write(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
