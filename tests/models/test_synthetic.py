"""Synthetic weights: the generator against published vectors, the same bits always, values in range."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest

from refnet.arithmetic.plain import Plain
from refnet.arithmetic.run import steps
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32
from refnet.models import synthetic
from refnet.models.catalog import build, entry
from refnet.models.synthetic import normal, philox4x32, statistics, weights
from refnet.ops import BatchNorm, Conv, RadixSoftmax, Softmax, TensorType

# Random123 1.14 (D. E. Shaw Research), tests/kat_vectors, lines "philox4x32 10": counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

RECORDED = {
    "octave-se-resnet-digits": "4010423fc9dbde7d789d95ef6c761b8083fb0e70bb583d8e9c5339bf2b59ad48",
    "resnest-digits": "f0b51ed657bf04ce8d7db68b0875056e46b5b01de62c6ccc85ecbfdb8f2576b2",
}
"""sha256 of the weights of seed 0 (Graph.weights_hash). They never change: other files refer to them."""


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_the_published_vectors(counter: str, key: str, result: str) -> None:
    c0, c1, c2, c3 = (np.array([word], np.uint64) for word in words(counter))
    key0, key1 = words(key)
    assert [int(word[0]) for word in philox4x32((c0, c1, c2, c3), (key0, key1))] == words(result)


def exactly_normal(seed: int, name: str, count: int, deviation: float, center: float) -> list[float]:
    """`normal` in Python's integers, one element at a time; floats only where the docstring has them."""
    digest = hashlib.sha256(f"refnet synthetic weights 1\0{seed}\0{name}".encode()).digest()
    start = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    out = []
    for element in range(count):
        block, j = divmod(element, 2)
        c, key = [block % 2**32, block // 2**32, start[2], start[3]], start[:2]
        for _ in range(10):
            p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
            c = [(p1 >> 32) ^ c[1] ^ key[0], p1 % 2**32, (p0 >> 32) ^ c[3] ^ key[1], p0 % 2**32]
            key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
        total = sum(word % 65536 + word // 65536 for word in c[2 * j : 2 * j + 2])
        out.append(center + (total - 131070) * (deviation / math.sqrt((65536**2 - 1) / 3)))
    return out


@pytest.mark.parametrize(
    ("shape", "deviation", "center"), [((3, 5), 1.0, 0.0), ((40,), 0.125, 1.0), ((), 2.0, 0.0)]
)
def test_normal_is_what_its_docstring_says(
    shape: tuple[int, ...], deviation: float, center: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = math.prod(shape)
    expected = np.array(exactly_normal(3, "layer.weight", count, deviation, center)).astype(np.float32)
    for chunk in (1 << 14, 3):  # the chunk is no part of the result
        monkeypatch.setattr(synthetic, "CHUNK", chunk)
        found = normal(3, "layer.weight", shape, deviation, center)
        assert found.dtype == np.float32
        assert found.shape == shape
        assert np.array_equal(found.ravel().view(np.uint32), expected.view(np.uint32))


def test_normal_depends_on_seed_and_name_only() -> None:
    first = normal(0, "a", (64,))
    assert np.array_equal(first, normal(0, "a", (8, 16)).ravel()[:64])
    assert not np.isin(first, normal(1, "a", (64,))).all()
    assert not np.isin(first, normal(0, "b", (64,))).all()


def test_normal_has_mean_0_and_deviation_1() -> None:
    """Within six standard errors, which n independent numbers leave once in 5e8 cases; here never again."""
    x = normal(0, "x", (100_000,)).astype(np.float64)
    kurtosis = 3 - 6 / (5 * 4) * (65536**2 + 1) / (65536**2 - 1)  # of a sum of four uniform integers
    assert abs(x.mean()) < 6 / math.sqrt(len(x))
    assert abs((x * x).mean() - 1) < 6 * math.sqrt((kurtosis - 1) / len(x))
    assert np.abs(x).max() <= np.float32(131070 / synthetic.DEVIATION)


@pytest.mark.parametrize("name", RECORDED)
def test_weights_have_the_recorded_bits(name: str) -> None:
    graph = build(entry(name))
    assert graph.with_weights(weights(graph, 0)).weights_hash() == RECORDED[name]


def test_weights_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build(entry("octave-se-resnet-digits"))
    hashes = set()
    for threads in (1, 2):
        monkeypatch.setattr("refnet.kernels.resources.processors", lambda threads=threads: threads)
        hashes.add(graph.with_weights(weights(graph, 5)).weights_hash())
    assert len(hashes) == 1


def test_weights_follow_their_roles() -> None:
    graph = build(entry("resnest-digits"))
    made = weights(graph, 0)
    assert list(made) == list(graph.weight_types)
    assert {n: (a.shape, a.dtype.name) for n, a in made.items()} == {
        n: (t.shape, t.dtype) for n, t in graph.weight_types.items()
    }
    conv = made["layer3.0.conv3.weight"]  # (128, 32, 1, 1): fan-in 32
    assert np.array_equal(conv, normal(0, "layer3.0.conv3.weight", conv.shape, math.sqrt(2 / 32)))
    assert np.array_equal(made["bn1.weight"], normal(0, "bn1.weight", (16,), synthetic.SPREAD, 1.0))
    assert np.array_equal(made["fc.bias"], normal(0, "fc.bias", (10,), synthetic.SPREAD))


def test_a_fixed_gamma_is_one() -> None:
    node = Node("n", BatchNorm(1e-3, fix_gamma=True), ("data", "g", "b", "m", "v"))
    graph = Graph("g", {"data": TensorType((1, 2, 4, 4))}, (node,), {"n": "n"})
    assert weights(graph, 0)["g"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        weights(build(entry("resnest-digits")), seed)


# Running statistics.


def chained(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def test_statistics_are_chains_first_to_last() -> None:
    """In Python's floats, one by one; the channels differ in size so that order shows in the bits."""
    x = normal(0, "x", (2, 5, 9, 11)) * (np.float32(10.0) ** np.arange(5).reshape(5, 1, 1)).astype(np.float32)
    mean, var = statistics(x)
    for c in range(3, 5):  # below, the floor rules
        values = [float(v) for image in x for v in image[c].ravel()]
        middle = chained(values) / len(values)
        square = chained([(v - middle) * (v - middle) for v in values]) / len(values)
        assert mean[c] == np.float32(middle)
        assert var[c] == np.float32(square)
    exact = sum(map(Fraction, map(float, x[:, 4].ravel()))) / x[:, 4].size
    assert mean[4] == np.float32(float(exact))


def test_sums_are_in_order_to_the_last_bit() -> None:
    """Long rows of all magnitudes, in float64, where any other order of the additions would show."""
    rows = normal(0, "rows", (3, 1000)).astype(np.float64) * 2.0 ** (np.arange(1000) * 7 % 61)
    expected = np.array([chained(row.tolist()) for row in rows])
    assert np.array_equal(synthetic._chain(rows).view(np.uint64), expected.view(np.uint64))
    assert all(chained(row[::-1].tolist()) != total for row, total in zip(rows, expected, strict=True))


def test_statistics_have_a_floor() -> None:
    """A channel that never varies is not amplified: 1/64 of the layer's variance."""
    x = np.float32([[[0, 0, 0, 0], [1, 3, 1, 3]]])
    mean, var = statistics(x)
    whole = (0 + 1) / 2 + 1.0  # within channels, and between the means 0 and 2
    assert mean.tolist() == [0.0, 2.0]
    assert var.tolist() == [whole / 64, 1.0]


def test_statistics_of_single_elements_are_the_layers() -> None:
    mean, var = statistics(np.float32([[[[1]], [[3]], [[5]], [[7]]]]))
    assert mean.tolist() == [4.0] * 4
    assert var.tolist() == [5.0] * 4


def test_statistics_of_a_constant_layer_are_harmless() -> None:
    mean, var = statistics(np.full((1, 3, 2, 2), 7, np.float32))
    assert mean.tolist() == [7.0] * 3
    assert var.tolist() == [1.0] * 3


def test_a_batch_norm_takes_the_statistics_of_its_own_input() -> None:
    graph = build(entry("octave-se-resnet-digits"))
    ready = graph.with_weights(weights(graph, 0))
    kind = graph.inputs["data"]
    values: dict[str, F32] = {"data": normal(0, "data", kind.shape)}
    values |= {node.name: value for node, value in steps(ready, values, Plain(1))}
    norms = [node for node in graph.nodes if isinstance(node.op, BatchNorm)]
    for node in norms:
        expected = statistics(values[node.data[0]])
        for name, array in zip(node.weights[2:], expected, strict=True):
            assert np.array_equal(ready.weights[name].view(np.uint32), array.view(np.uint32))
    assert len(norms) == 30


NETWORKS = [
    "octave-se-resnet-digits",
    "resnest-digits",
    "octave-se-resnet-50-0.125",
    "octave-resnext-50-0.25",
    "resnet-26-baseline",
    "resnest-50-pytorch",
    "resnest-50-fast-1s4x24d-pytorch",
]
LEAST, MOST = 1e-3, 1e3


@pytest.mark.parametrize("name", NETWORKS)
def test_activations_stay_in_range(name: str) -> None:
    """On an image that the statistics were not taken from. Probabilities sum to 1 and are small by nature;
    the deviation of fewer than 16 numbers (a narrow squeeze layer) may be 0 by chance."""
    graph = build(entry(name))
    ready = graph.with_weights(weights(graph, 0))
    for node, value in steps(ready, {"data": normal(1, "data", graph.inputs["data"].shape)}):
        assert np.isfinite(value).all(), node.name
        deviation = float(value.std(dtype=np.float64))
        assert deviation < MOST, node.name
        if not isinstance(node.op, Softmax | RadixSoftmax) and value.size >= 16:
            assert deviation > LEAST, node.name


def test_convolutions_keep_the_variance() -> None:
    """He scaling by fan-in, groups included: sqrt(2 / fan-in) per weight."""
    for groups in (1, 4):
        op = Conv(8, (3, 3), groups=groups)
        node = Node("c", op, ("data", "w"))
        graph = Graph("g", {"data": TensorType((1, 8, 3, 3))}, (node,), {"c": "c"})
        fan_in = 9 * 8 // groups
        made = weights(graph, 0)["w"]
        assert made.shape == (8, 8 // groups, 3, 3)
        assert np.array_equal(made, normal(0, "w", made.shape, math.sqrt(2 / fan_in)))
