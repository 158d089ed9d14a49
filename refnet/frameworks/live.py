"""A framework's functions against the formulas that claim their bits, on every float32.

    sweep ── pick ── Worker (the framework, running) ── y of a sample of the inputs
      │       └───── the ops' formulas ──────────────── those that give these bits: the candidates
      └─ chunks ──── both, on 2**24 inputs at a time ── how many bits differ, per candidate

The inputs are all bit patterns 0 to 2**32 - 1, in 256 chunks as in prove.py. A function of one float32 is
asked for element by element; softmax as rows of two numbers, (x, 0): e**-|x|, an addition, a division.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.bits import equal_bits
from refnet.core.errors import FrameworkError, InputError
from refnet.core.op import F32, Op
from refnet.core.words import did_you_mean
from refnet.formats.mxnet.functions import SELU
from refnet.frameworks import launch
from refnet.frameworks.process import Worker
from refnet.ops.activations import Elu, Gelu, Mish, Silu, Softplus
from refnet.ops.functions import Erf, Exp, Log, Sqrt, Tanh
from refnet.ops.sigmoid import Sigmoid
from refnet.ops.softmax import Softmax

CHUNKS = 256
BLOCK = 1 << 22
"""Inputs per question, a multiple of every vector: what a vector leaves over is evaluated by other code."""
SAMPLE = 1 << 12
"""Every so manieth float32 is asked for first, to see which formulas are worth a sweep."""


@dataclass(frozen=True)
class Question:
    """What the worker is asked, and how x (n,) becomes its input: alone, or in rows (x, 0) along an axis.

    opset: the first of ONNX's that has the function; None: the worker's own choice.
    """

    function: str
    arguments: Mapping[str, Any]
    axis: int | None = None
    opset: int | None = None


OPS: Mapping[str, Op] = {
    "exp": Exp(),
    "log": Log(),
    "tanh": Tanh(),
    "erf": Erf(),
    "sqrt": Sqrt(),
    "softplus": Softplus(),
    "mish": Mish(),
    "silu": Silu(),
    "gelu": Gelu(),
    "gelu-tanh": Gelu(True),
    "elu": Elu(),
    "selu": SELU,
    "sigmoid": Sigmoid(),
    "nd-sigmoid": Sigmoid(),
    "softmax": Softmax(1),
    "softmax-first": Softmax(1),
}
"""Function -> the op whose menu it is compared with."""

QUESTIONS: Mapping[str, Mapping[str, Question]] = {
    "torch": {
        **{name: Question(name, {}) for name in ("exp", "log", "tanh", "erf", "sqrt", "softplus", "mish")},
        **{name: Question(name, {}) for name in ("silu", "gelu", "elu", "selu", "sigmoid")},
        "gelu-tanh": Question("gelu", {"approximate": "tanh"}),
        "softmax": Question("softmax", {"dim": 1}, 1),
        "softmax-first": Question("softmax", {"dim": 0}, 0),
    },
    "mxnet": {
        "sigmoid": Question("Activation", {"act_type": "sigmoid"}),
        "nd-sigmoid": Question("sigmoid", {}),
        "exp": Question("exp", {}),
        "softmax": Question("softmax", {"axis": 1}, 1),
        "softmax-first": Question("softmax", {"axis": 0}, 0),
    },
    "onnx": {
        **{
            name.lower(): Question(name, {})
            for name in ("Exp", "Log", "Tanh", "Erf", "Sqrt", "Softplus", "Elu", "Selu", "Sigmoid")
        },
        "mish": Question("Mish", {}, opset=18),
        "gelu": Question("Gelu", {}, opset=20),
        "gelu-tanh": Question("Gelu", {"approximate": "tanh"}, opset=20),
        "softmax": Question("Softmax", {"axis": 1}, 1),
    },
    "openvino": {
        "sigmoid": Question("sigmoid", {}),
        "exp": Question("exp", {}),
        "softmax": Question("softmax", {"axis": 1}, 1),
        "softmax-first": Question("softmax", {"axis": 0}, 0),
    },
}
"""framework -> function -> how it is asked for. softmax: along the last axis, softmax-first: the first."""


@dataclass(frozen=True)
class Found:
    """How a formula did: results that differ of those compared, and the bits of the first such input."""

    formula: str
    compared: int
    different: int
    first: int | None


@dataclass(frozen=True)
class Sweep:
    """What was found for one function of one framework. reference: what the worker says of itself."""

    framework: str
    function: str
    reference: Mapping[str, Any]
    inputs: int
    found: tuple[Found, ...]

    @property
    def identical(self) -> tuple[str, ...]:
        """The formulas that gave the framework's bits on all inputs of the sweep."""
        return tuple(one.formula for one in self.found if one.compared == self.inputs and not one.different)


def worker(framework: str, python: str, environment: Mapping[str, str]) -> Worker:
    """The framework, on one thread. python: its interpreter. environment: variables for its process."""
    return launch.start(framework, python, environment=environment)


def formulas(function: str) -> tuple[str, ...]:
    """The menu that a function's results are compared with.

    >>> formulas("exp")
    ('sleef', 'glibc', 'glibc-unfused', 'mlas')
    """
    return OPS[function].menu


def evaluate(function: str, formula: str, x: F32, threads: int) -> F32:
    """The results of a formula for x (n,): (n,), or for softmax the rows (n, 2).

    >>> evaluate("softmax", "sleef-divide", np.float32([0]), 1)
    array([[0.5, 0.5]], dtype=float32)
    """
    from refnet.kernels.engine import Fast  # loads the compiler

    data = _rows(x) if function.startswith("softmax") else x
    return OPS[function].replay(formula, data, engine=Fast(threads))


def ask(running: Worker, question: Question, x: F32) -> F32:
    """The framework's results for x (n,), in the shape of `evaluate`."""
    data = x
    if question.axis is not None:
        data = _rows(x) if question.axis else np.ascontiguousarray(_rows(x).T)
    request = {"function": question.function, "arguments": question.arguments, "threads": 1}
    if question.opset is not None:
        request["opset"] = question.opset
    y = running.ask("op", request, {"x": data}).array("y")
    if y.shape != data.shape or y.dtype != np.float32:
        raise FrameworkError(
            f"{running.name}: answered {y.dtype}{list(y.shape)} for float32{list(data.shape)}"
        )
    return np.ascontiguousarray(y.T) if question.axis == 0 else y


def sweep(
    running: Worker,
    framework: str,
    function: str,
    chunks: Iterable[int] = range(CHUNKS),
    formula: str | None = None,
    threads: int = 1,
    advance: Callable[[int], object] = lambda done: None,
) -> Sweep:
    """Compare a framework's function with the formulas on these chunks of inputs.

    running: a worker of that framework. function: a name of QUESTIONS[framework]. chunks: indices 0 to 255,
    the inputs' upper byte. formula: the only one to compare (default: all that agree on a sample of 2**20
    inputs; if none does, the sample is what is reported). threads: for the formulas. advance: called with how
    many more chunks are done. Every NaN counts as the same. Raises InputError for an unknown name or chunk.
    """
    question, known = questions(framework, function), formulas(function)
    if formula is not None and formula not in known:
        hint = did_you_mean(formula, known)
        raise InputError(f"formula must be one of {', '.join(known)}, got {formula!r}{hint}")
    wanted = sorted(set(chunks))
    if not wanted or not all(0 <= index < CHUNKS for index in wanted):
        raise InputError(f"chunks must be 0 to {CHUNKS - 1}, got {wanted}")
    reference = running.ask("info", {"threads": 1}).fields
    if formula is None:
        x = np.arange(0, 1 << 32, SAMPLE, dtype=np.uint64).astype(np.uint32).view(np.float32)
        theirs = ask(running, question, x)
        sample = tuple(_unequal(theirs, evaluate(function, one, x, threads), x, one) for one in known)
        candidates = [one.formula for one in sample if not one.different]
        if not candidates:
            return Sweep(framework, function, reference, x.size, sample)
    else:
        candidates = [formula]
    found = {one: Found(one, 0, 0, None) for one in candidates}
    for index in wanted:
        for start in range(index << 24, (index + 1) << 24, BLOCK):
            x = np.arange(start, start + BLOCK, dtype=np.uint64).astype(np.uint32).view(np.float32)
            theirs = ask(running, question, x)
            for name, before in found.items():
                found[name] = _joined(before, _unequal(theirs, evaluate(function, name, x, threads), x, name))
        advance(1)
    return Sweep(framework, function, reference, len(wanted) << 24, tuple(found.values()))


def questions(framework: str, function: str) -> Question:
    """How the framework is asked for that function. Raises InputError for an unknown name."""
    if framework not in QUESTIONS:
        hint = did_you_mean(framework, QUESTIONS)
        raise InputError(f"framework must be one of {', '.join(QUESTIONS)}, got {framework!r}{hint}")
    if function not in QUESTIONS[framework]:
        raise InputError(f"of {framework}: {', '.join(QUESTIONS[framework])}; got {function!r}")
    return QUESTIONS[framework][function]


def _unequal(theirs: F32, own: F32, x: F32, formula: str) -> Found:
    """Compare the bits; a row of a softmax is one result."""
    rows = ~equal_bits(theirs, own).reshape(x.size, -1).all(1)
    first = int(x.view(np.uint32)[np.argmax(rows)]) if rows.any() else None
    return Found(formula, x.size, int(rows.sum()), first)


def _joined(a: Found, b: Found) -> Found:
    first = b.first if a.first is None else a.first
    return Found(a.formula, a.compared + b.compared, a.different + b.different, first)


def _rows(x: F32) -> F32:
    """(n, 2): x and 0."""
    return np.stack([x, np.zeros_like(x)], 1)
