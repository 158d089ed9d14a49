"""Computes refnet/learn/facts.json: every number that the learners' page prints, by refnet itself.

python -m tests.learn.facts writes the file. tests/learn/test_learn.py computes the facts again and compares.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

import refnet
from refnet import ops
from refnet.core.graph import Graph
from refnet.core.op import F32, Interval
from refnet.formats import book as book_file
from refnet.learn.networks import SHIPPED
from refnet.loops.fma import exact_fma
from refnet.models.catalog import build, entry
from refnet.models.cost import summary
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from tests.helpers.engines import FAST

ROOT = Path(__file__).parents[2]
FILE = ROOT / "refnet" / "learn" / "facts.json"
DIGIT = "1770-label-3.png"
ELEMENT = ("resnest-digits", "layer2.0.conv2.conv", (0, 1, 5, 5))
"""The number that chapter 2 begins with."""
SHOWN = {
    "octave-se-resnet-digits": ("conv1_relu", "L2_B01_conv2_conv-h", "L2_B01_conv2_conv-l"),
    "resnest-digits": ("conv1.2", "layer1.0.conv2.relu", "layer1.0.conv2.add_3"),
}
"""The values whose maps a reader without JavaScript sees."""


def facts() -> dict[str, Any]:
    """All of them."""
    x = pipeline("digits").apply(shipped_folder() / "digits" / DIGIT)
    graphs = {one.name: refnet.load(one.name) for one in SHIPPED}
    values = {name: computed(graph, x) for name, graph in graphs.items()}
    pixels = pipeline("digits").pixels(shipped_folder() / "digits" / DIGIT)[::4, ::4, 0]
    return {
        "right": {name: right(name) for name in graphs},
        "networks": {name: size(graph) for name, graph in graphs.items()},
        "digit": {
            "steps": (pixels // 15).tolist(),
            "probabilities": {
                name: [float(p) for p in found[graphs[name].outputs["prob"]].ravel()]
                for name, found in values.items()
            },
            "maps": {
                name: [picture(found[value], value) for value in SHOWN[name]]
                for name, found in values.items()
            },
        },
        "number": number(graphs, values),
        "rounding": rounding(),
        "octave": octave(values["octave-se-resnet-digits"]),
        "attention": attention(graphs["resnest-digits"], values["resnest-digits"]),
    }


def computed(graph: Graph, x: F32) -> dict[str, F32]:
    """Every value, and the input."""
    return {"data": x} | {node.name: value for node, value in refnet.steps(graph, {"data": x})}


def right(name: str) -> int:
    """How many of the 360 test images it reads correctly; tests/models/test_digits.py checks the table."""
    said = shipped_folder() / "training" / "README.md"
    (row,) = [
        line
        for line in said.read_text().splitlines()
        if line.startswith(f"| `{name}` |") and "of 360" in line
    ]
    return int(row.split(" of 360")[0].rpartition("|")[2])


def size(graph: Graph) -> dict[str, int]:
    cost = summary(graph)
    return {"values": len(graph.nodes), "macs": cost.macs, "parameters": cost.parameters}


def picture(value: F32, name: str) -> dict[str, Any]:
    """The first eight channels, each element in 17 steps from -8 to 8 of the largest of the value."""
    largest = float(np.abs(value).max())
    steps = np.rint(value[0, :8] / (largest or 1.0) * 8).astype(int)
    return {"name": name, "largest": largest, "steps": steps.tolist()}


def float_fact(x: np.float32) -> dict[str, str]:
    return {"text": str(x), "hex": f"{int(x.view(np.uint32)):08x}", "bits": f"{int(x.view(np.uint32)):032b}"}


def number(graphs: dict[str, Graph], values: dict[str, dict[str, F32]]) -> dict[str, Any]:
    """One element in three arithmetics, and its bound."""
    name, value, at = ELEMENT
    graph = graphs[name]
    node = graph.by_name[value]
    inputs = [values[name][one] for one in node.data] + [graph.weights[one] for one in node.weights]
    book = book_file.read(shipped_folder() / "books" / f"{name}.json")
    interval = node.op.bound(*(Interval.exactly(one) for one in inputs), engine=FAST)
    found = {
        "plain": values[name][value][at],
        "book": refnet.Replay(book).evaluate(node, *inputs)[at],
        "exact": node.op.golden(*inputs, exact=refnet.Golden().exact)[at],
    }
    ulp = float(np.spacing(np.abs(found["exact"])))
    return {
        "network": name,
        "node": value,
        "at": list(at),
        "index": int(np.ravel_multi_index(at, values[name][value].shape)),
        "terms": int(np.prod(inputs[1].shape[1:])),
        "near": 1.5 * max(1.0, *(abs(float(v) - float(interval.center[at])) / ulp for v in found.values())),
        "radius": float(interval.radius[at]),
        "radius_ulps": float(interval.radius[at]) / ulp,
        "offsets": {k: (float(v) - float(interval.center[at])) / ulp for k, v in found.items()},
        **{k: float_fact(v) for k, v in found.items()},
    }


SUMMANDS = (16777216.0, 1.0, 1.0, -16777216.0, 0.5, 3.0, -0.25, 0.1)
SEED = 2026


def rounding() -> dict[str, Any]:
    """Sums in several orders, a fused multiply-add, a cast of float64, and what was proved of exp."""
    f = np.float32
    summands = np.array(SUMMANDS, f)
    golden = refnet.Golden().exact
    orders = {
        "as given": summands,
        "smallest first": np.array(sorted(summands, key=abs)),
        "largest first": np.array(sorted(summands, key=abs, reverse=True)),
    }
    x = np.array([[2.0**24, 1, 2.0**-40]], f)
    ones = np.ones((1, 3), f)
    a, c = f(1 + 2.0**-12), f(-1 - 2.0**-11)
    proved = json.loads((ROOT / "refnet" / "prove" / "proved.json").read_text())
    return {
        "summands": [float(v) for v in summands],
        "sums": {name: float_fact(added(numbers)) for name, numbers in orders.items()},
        "exact": float_fact(
            ops.Dense(1, bias=False).golden(summands[None], np.ones((1, 8), f), exact=golden)[0, 0]
        ),
        "cast": str(int(f((x.astype(np.float64) * ones).sum()))),
        "golden": str(int(ops.Dense(1, bias=False).golden(x, ones, exact=golden)[0, 0])),
        "fused": power_of_two(float(exact_fma(a, a, c))),
        "separate": str(float(f(a * a) + c)),
        "proved": {k: {"inputs": one["inputs"], "different": one["different"]} for k, one in proved.items()},
        "seed": SEED,
        "orders": many_orders(SEED),
    }


def power_of_two(x: float) -> str:
    """2 with a raised exponent; only of powers of two."""
    mantissa, exponent = math.frexp(x)
    assert mantissa == 0.5
    return "2" + str(exponent - 1).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def added(numbers: F32) -> np.float32:
    """From left to right, each sum rounded."""
    total = np.float32(0)
    for x in numbers:
        total = total + x
    return total


def many_orders(seed: int) -> dict[str, Any]:
    """What js/rounding.js computes of the same seed."""

    def draw() -> int:
        nonlocal seed
        seed = (seed * 1664525 + 1013904223) % 2**32
        return seed

    numbers = np.array([(draw() >> 8) * 2.0**-24 - 0.5 for _ in range(1000)], np.float32)
    exact = float(numbers.astype(np.float64).sum())  # multiples of 2**-24, below 2**10
    ulp = float(np.spacing(np.abs(np.float32(exact))))
    offsets = []
    for _ in range(200):
        for i in range(999, 0, -1):
            j = draw() * (i + 1) >> 32
            numbers[[i, j]] = numbers[[j, i]]
        offsets.append((float(added(numbers)) - exact) / ulp)
    ones = np.ones((1, 1000), np.float32)
    exactly = Interval.exactly
    bound = ops.Dense(1, bias=False).bound(exactly(numbers[None]), exactly(ones), engine=FAST)
    farthest = max(map(abs, offsets))
    most = math.ceil(farthest)
    counts = [0] * (2 * most + 1)
    for offset in offsets:
        counts[math.floor(offset + 0.5) + most] += 1  # as Math.round
    return {
        "counts": counts,
        "different": len(set(offsets)),
        "farthest": farthest,
        "radius": float(bound.radius[0, 0]) / ulp,
        "offsets": offsets,
    }


OCTAVE = "L2_B01_conv2_conv"
"""The octave convolution whose paths a reader without JavaScript sees."""
PATHS = ("h2h", "h2l", "l2h", "l2l", "h", "l")
ALPHAS = {
    0.0: "se-resnet-50-baseline",
    **{alpha: f"octave-se-resnet-50-{alpha}" for alpha in (0.125, 0.25, 0.5, 0.75)},
}
"""The catalogue's networks of 50 layers with squeeze and excitation, by alpha."""


def octave(values: dict[str, F32]) -> dict[str, Any]:
    """Four paths of an octave convolution, the cost at each alpha, and the outputs' low frequencies."""
    counted = {alpha: summary(build(entry(name))).macs for alpha, name in ALPHAS.items()}
    high, low = (values[f"{OCTAVE}-{one}"][0].astype(np.float64) for one in "hl")
    small = high.reshape(len(high), high.shape[1] // 2, 2, high.shape[2] // 2, 2).mean((2, 4))
    spot = np.zeros((1, *low.shape[1:]))
    spot[0, 0, 0] = 1.0  # has the spectrum of white noise
    shares = [["high", low_share(high), low_share(high)]]
    for label, maps in (("low", low), ("high, averaged", small), ("noise", spot)):
        shares.append([label, low_share(maps.repeat(2, 1).repeat(2, 2)), low_share(maps)])
    return {
        "name": OCTAVE,
        "paths": [picture(values[f"{OCTAVE}-{path}"], f"{OCTAVE}-{path}") for path in PATHS],
        "macs": [[alpha, macs] for alpha, macs in counted.items()],
        "formula": through(counted),
        "shares": [[label, *(round(share, 9) for share in found)] for label, *found in shares],
    }


def through(counted: dict[float, int]) -> list[int]:
    """a, b, c of a + b alpha + c alpha², by the counts at 0, 0.25 and 0.5."""
    start, quarter, half = counted[0.0], counted[0.25], counted[0.5]
    return [start, 8 * quarter - 6 * start - 2 * half, 8 * (start + half - 2 * quarter)]


def low_share(maps: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Of (maps, n, n): the share of frequencies up to a quarter cycle per pixel; without the means."""
    power = (np.abs(np.fft.fft2(maps)) ** 2).sum(0)
    power[0, 0] = 0.0
    slow = np.abs(np.fft.fftfreq(maps.shape[1])) <= 0.25
    return float(power[np.ix_(slow, slow)].sum() / power.sum())


def attention(graph: Graph, values: dict[str, F32]) -> dict[str, Any]:
    """What the ResNeSt answers when one part of one split attention is switched off."""
    blocks = [node for node in graph.nodes if node.name.endswith(".rsoftmax")]
    first = blocks[0]
    channels = values[first.name].shape[1] // 2
    return {
        "name": first.name.removesuffix(".rsoftmax"),
        "shares": [float(a) for a in values[first.name][0, :channels]],
        "answer": answer(values[graph.outputs["prob"]]),
        "blocks": [
            {
                "name": node.name.removesuffix(".rsoftmax"),
                "without": [answer(switched_off(graph, values, node.name, part)) for part in (0, 1)],
            }
            for node in blocks
        ],
    }


def answer(prob: F32) -> dict[str, Any]:
    digit = int(prob[0].argmax())
    return {"digit": digit, "probability": float(prob[0, digit])}


def switched_off(graph: Graph, values: dict[str, F32], name: str, part: int) -> F32:
    """The probabilities with the attention of one part set to 0."""
    changed = values[name].copy()
    size = changed.shape[1] // 2
    changed[:, part * size : (part + 1) * size] = 0
    table = values | {name: changed}
    after = [node.name for node in graph.nodes].index(name) + 1
    for node in graph.nodes[after:]:
        given = [table[one] for one in node.data] + [graph.weights[one] for one in node.weights]
        table[node.name] = node.op.run(*given, engine=FAST)
    return table[graph.outputs["prob"]]


def text() -> str:
    """The file's content."""
    lines = [
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in facts().items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text())
