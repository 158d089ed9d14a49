"""Every convolution, dense and pooling shape of the networks: the kernels equal the scalar loops to the bit.

The networks are ResNeSt-50, the octave networks that refnet builds, and the official symbol files
where they are present. All outputs are compared, with two images where the definition is cheap.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from refnet.core.graph import Graph
from refnet.core.op import Op, TensorType
from refnet.formats.mxnet.reader import read_symbol
from refnet.kernels.engine import Fast
from refnet.models.loading import structure
from refnet.ops import AvgPool, Conv, Dense, GlobalAvgPool, MaxPool
from tests.helpers.bits import awkward, floats, same_bits
from tests.helpers.definition import conv_everywhere, conv_plane, dense_at, pool_plane
from tests.helpers.official import SYMBOLS

BUILT = (
    "resnest-50-pytorch",
    "octave-se-resnet-50-0.125",
    "octave-resnet-26-0.25",
    "octave-resnext-50-0.25",
    "resnet-50-baseline",
)

Shape = tuple[int, ...]


def networks() -> Iterator[Graph]:
    for name in BUILT:
        yield structure(name)
    for path in sorted(SYMBOLS.glob("*-symbol.json")):
        yield read_symbol(path)


@pytest.fixture(scope="module")
def shapes() -> dict[type[Op], list[tuple[Op, tuple[Shape, ...]]]]:
    """Distinct (op, input shapes) of all networks, by kind of op."""
    found: dict[tuple[Op, tuple[Shape, ...]], None] = {}
    for graph in networks():
        types = graph.types()
        for node in graph.nodes:
            if isinstance(node.op, Conv | Dense | MaxPool | AvgPool | GlobalAvgPool):
                found[node.op, tuple(types[name].shape for name in node.inputs)] = None
    kinds: dict[type[Op], list[tuple[Op, tuple[Shape, ...]]]] = {}
    for op, inputs in found:
        kinds.setdefault(type(op), []).append((op, inputs))
    return kinds


def test_the_shapes_are_many(shapes):
    assert len(shapes[Conv]) > 100
    assert len(shapes[Dense]) > 10
    assert shapes[MaxPool]
    assert shapes[AvgPool]
    assert shapes[GlobalAvgPool]


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("pad", [(0, 0), (1, 2)])
def test_a_plane_is_element_by_element(stride, dilation, pad):
    op = Conv(4, (3, 2), stride, pad, dilation, groups=2)
    x, w = awkward((2, 6, 7, 8), "x", 0.2), awkward((4, 3, 3, 2), "w", 0.2)
    shape = op.type(TensorType(x.shape), TensorType(w.shape)).shape
    place = np.array([*stride, *pad, *dilation])
    planes = np.empty(shape, np.float32)
    for n, o in np.ndindex(shape[:2]):
        conv_plane(x, w, place, 2, n, o, planes[n, o])
    assert same_bits(planes, conv_everywhere(x, w, place, 2, shape))


def test_every_convolution(shapes):
    with ThreadPoolExecutor(2) as pool:
        for op, inputs in shapes[Conv]:
            arrays = [floats(shape, ("conv", i)) for i, shape in enumerate(inputs)]
            y = op.run(*arrays, engine=Fast(2))
            place = np.array([*op.stride, *op.pad, *op.dilation])
            expected = np.empty_like(y)
            jobs = [
                pool.submit(conv_plane, arrays[0], arrays[1], place, op.groups, 0, o, expected[0, o])
                for o in range(op.channels)
            ]
            for job in jobs:
                job.result()
            if op.bias:
                expected += arrays[2][:, None, None]
            assert same_bits(y, expected), (op, inputs)


def test_every_dense_layer(shapes):
    for op, inputs in shapes[Dense]:
        arrays = [floats(shape, ("dense", i)) for i, shape in enumerate(inputs)]
        rows = arrays[0].reshape(len(arrays[0]), -1)
        y = op.run(*arrays, engine=Fast(2))
        expected = np.array([[dense_at(rows, arrays[1], 0, o) for o in range(op.units)]], np.float32)
        if op.bias:
            expected += arrays[2]
        assert same_bits(y, expected), (op, inputs)


@pytest.mark.parametrize("kind", [MaxPool, AvgPool, GlobalAvgPool])
def test_every_pooling(shapes, kind):
    for op, (shape,) in shapes[kind]:
        x = floats((2, *shape[1:]), "pool")
        y = op.run(x, engine=Fast(2))
        if isinstance(op, GlobalAvgPool):
            place, include = (*shape[2:], 1, 1, 0, 0), True
        else:
            place, include = (*op.kernel, *op.stride, *op.pad), getattr(op, "count_include_pad", True)
        expected = np.empty_like(y)
        for n, c in np.ndindex(y.shape[:2]):
            pool_plane(x[n, c], np.array(place), include, kind is MaxPool, expected[n, c])
        assert same_bits(y, expected), (op, shape)
