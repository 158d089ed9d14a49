"""Captures that tests make: on disk as any other, by frameworks that round in ways of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from refnet import ops
from refnet.core.element import Terms
from refnet.core.graph import Graph
from refnet.core.op import Op, TensorType
from refnet.formats.golden_file import Sources, digest
from refnet.formats.manifest import Manifest, Origin, Stored, file_name, write
from tests.helpers.engines import EXACT, FAST

F = np.float32
MADE_UP = Origin("made-up", "1.0", "none", "AVX2", 2, 1, "eager")


def save(
    folder: Path,
    values: Mapping[str, np.ndarray],
    graph: Graph | None = None,
    inputs: Mapping[str, np.ndarray] | None = None,
    sources: Sources | None = None,
    hash_only: bool = False,
) -> Path:
    """A capture with its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {**(inputs or {}), **({} if hash_only else values)}
    for name, array in arrays.items():
        np.save(folder / file_name(name), array)
    stored = {n: Stored(digest(a), None if hash_only else file_name(n)) for n, a in values.items()}
    given = {n: Stored(digest(a), file_name(n)) for n, a in (inputs or {}).items()}
    hashes = (None, None) if graph is None else (graph.structure_hash(), graph.weights_hash())
    outputs = {} if graph is None else {o: v for o, v in graph.outputs.items() if v in values}
    write(folder / "manifest.json", Manifest(MADE_UP, stored, given, outputs, sources, *hashes))
    return folder


def evaluated(op: Op, inputs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The op in float32 as some framework might evaluate it: any order, any formula, without FMA or with."""
    if op.exactly_specified:
        return op.run(*inputs, engine=FAST)
    if isinstance(op, ops.BatchNorm):
        return normalised(op, inputs, rng)
    if isinstance(op, ops.Sigmoid):
        return sigmoid(inputs[0], rng)
    if isinstance(op, ops.Softmax):
        return softmax(np.moveaxis(inputs[0], op.axis, -1), rng, op.axis)
    if isinstance(op, ops.RadixSoftmax) and op.radix > 1:
        parts = np.moveaxis(op._split(inputs[0]), 1, -1)
        return np.moveaxis(softmax(parts, rng, -1), -1, 1).reshape(inputs[0].shape[:2])
    shape = op.type(*(TensorType(a.shape) for a in inputs)).shape
    found = np.empty(shape, F)
    with np.errstate(all="ignore"):
        for at in np.ndindex(*shape):
            found[at] = summed(op, inputs, at, rng)
    return found


def summed(op: Op, inputs: list[np.ndarray], at: tuple[int, ...], rng: np.random.Generator) -> np.float32:
    """A sum of products: rounded products, shuffled, added in a chain, in lanes or in a tree."""
    made = op.explain(*inputs, at=at, exact=EXACT)
    assert isinstance(made, Terms)
    values = made.values if made.factors is None else made.values * made.factors
    if made.bias is not None:
        values = np.append(values, made.bias)
    values = rng.permutation(values)
    if made.divisor != 1 and rng.integers(2):
        return tree((values / F(made.divisor)).astype(F), rng)
    total = tree(values, rng)
    return total if made.divisor == 1 else F(total / F(made.divisor))


def tree(values: np.ndarray, rng: np.random.Generator) -> np.float32:
    """The float32 sum in a random tree."""
    level = [F(v) for v in values]
    lanes = int(rng.integers(1, 5))
    while len(level) > 1:
        if lanes == 1:
            total = level[0]
            for value in level[1:]:
                total = F(total + value)
            return total
        level = [
            level[i] if i + 1 == len(level) else F(level[i] + level[i + 1]) for i in range(0, len(level), 2)
        ]
        lanes -= 1
    return level[0] if level else F(0)


def normalised(op: ops.BatchNorm, inputs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One of the three formulas of the docstring, eps in float32 or not."""
    x, *weights = inputs
    column = (slice(None), *([None] * (x.ndim - 2)))
    g, beta, mean, var = (w[column] for w in weights)
    g = np.ones_like(g) if op.fix_gamma else g
    eps = F(op.eps) if rng.integers(2) else op.eps
    root = np.sqrt((var + eps).astype(F))
    inverse = F(1) / root
    form = rng.integers(3)
    if form == 0:
        a = g * inverse
        return x * a + (beta - mean * a)
    if form == 1:
        return (x - mean) * (g / root) + beta
    return g * ((x - mean) * inverse) + beta


def sigmoid(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the three formulas, with an exp that is off by up to an ulp."""
    with np.errstate(all="ignore"):
        if rng.integers(2):
            return F(1) / (F(1) + power(-x, rng))
        q = power(-np.abs(x), rng)
        q = q / (F(1) + q)
        return np.where(x > 0, F(1) - q, q)


def softmax(rows: np.ndarray, rng: np.random.Generator, axis: int) -> np.ndarray:
    """Shifted; divided, or multiplied by a rounded 1 / sum."""
    e = power(rows - rows.max(-1, keepdims=True), rng)
    total = e.sum(-1, keepdims=True, dtype=F)
    y = e / total if rng.integers(2) else e * (F(1) / total)
    return np.ascontiguousarray(np.moveaxis(y, -1, axis))


def power(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """exp in float32, off by up to one float32 more."""
    y = np.exp(x.astype(np.float64)).astype(F)
    return np.where(rng.integers(2, size=y.shape) == 1, np.nextafter(y, F(2) * y), y).astype(F)


def framework(graph: Graph, inputs: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Every value of a graph, each node on the values before it, evaluated in its own way."""
    rng = np.random.default_rng(seed)
    table = dict(inputs)
    for node in graph.nodes:
        arguments = [table[n] for n in node.data] + [graph.weights[n] for n in node.weights]
        table[node.name] = evaluated(node.op, arguments, rng)
    return {node.name: table[node.name] for node in graph.nodes}
