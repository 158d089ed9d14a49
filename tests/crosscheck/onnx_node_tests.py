"""onnx's own tests, run through refnet: what is right, what is refused and why, what is wrong.

    python -m tests.crosscheck.onnx_node_tests [--kind node|packaged|light] [--op NAME] [--reasons | --page]

Three kinds come with the package onnx: the tests of single nodes and of their expanded functions (`node`),
small models with stored results (`packaged`), and nine networks whose weights are ConstantOfShape (`light`).
A test counts as

    right      every float32 output is the only right result, or lies within its op's bound
    constants  the same, once all inputs but the first are constants of the file
    refused    refnet says what it cannot do; a graph with a node that refnet cannot compute is refused, too
    unjudged   computed, but no finite bound says anything
    wrong      outside the bound, other bits, another shape or type
    traceback  anything but an error of refnet's own
    left out   no float32 output, inputs that are no tensors of numbers, or stored values that are not what
               ONNX's text says
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

import refnet
from refnet.core.errors import RefnetError
from refnet.core.graph import Graph
from refnet.core.op import Interval
from refnet.models.loading import load
from refnet.models.select import needed
from refnet.verification.judge import judge
from refnet.verification.judgement import DEFECT, UNJUDGED
from tests.helpers.engines import FAST
from tests.helpers.onnx_build import one_process
from tests.helpers.onnx_cases import node_cases

Array = npt.NDArray[Any]

RIGHT, CONSTANTS, REFUSED, UNDECIDED, WRONG, TRACEBACK, LEFT_OUT = OUTCOMES = (
    "right", "constants", "refused", "unjudged", "wrong", "traceback", "left out",
)  # fmt: skip
MEANING = {
    RIGHT: "every float32 output is the only right result, or lies within its bound",
    CONSTANTS: "the same, once all inputs but the first are constants of the file",
    REFUSED: "refnet says what it cannot do",
    UNDECIDED: "no finite bound says anything",
    WRONG: "another result",
    TRACEBACK: "anything but an error of refnet's own",
    LEFT_OUT: "no float32 output, another type of input, or stored values that are not what ONNX's text says",
}
DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
PACKAGED = ("simple", "pytorch-converted", "pytorch-operator")
DECIMALS = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 4}
"""Tests whose stored input and output are rounded, to that many decimals. An average of inputs that are off
by half a unit is off by half a unit, and so is the output: they may be one unit apart."""

OTHER_PLACES = {
    "test_nllloss_NCd1d2d3_none_no_weight_negative_ii_expanded": "0 is stored, the function's nodes give -0",
    "test_resize_downsample_scales_linear_align_corners": "its places count 2.4 elements where there are 2",
    "test_resize_downsample_scales_cubic_align_corners": "its places count 3.2 elements where there are 3",
}
"""Tests whose stored values are not what ONNX's text says of the resized tensor's length."""


OTHER_ZEROS = {
    "test_nllloss_NCd1d2d3_none_no_weight_negative_ii": "an ignored element is +0, where ONNX's definition "
    "(0, negated, times the weight) says -0",
}
"""Tests whose stored values have another sign of a zero than ONNX's own definition of the operator."""

OTHER_OUTPUTS = {"LayerNormalization": {2: "InvStdDev, which only training reads"}}
"""Operator -> outputs that are not compared, by number, and why."""


@dataclass(frozen=True)
class Test:
    """A model with its inputs and outputs, in the model's order."""

    __test__ = False

    name: str
    op: str
    model: onnx.ModelProto
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a test. why: the reason; "" if it is right."""

    test: str
    op: str
    outcome: str
    why: str = ""


def node_tests() -> Iterator[Test]:
    """The tests of single nodes; those of expanded functions under the node's operator with a star."""
    ops: dict[str, str] = {}
    for case in node_cases():
        base = re.sub(r"_expanded\w*$", "", case.name)
        expanded = base != case.name
        first = case.model.graph.node[0].op_type
        if not expanded:
            ops[case.name] = first
        op = ops.get(base, first) + "*" * expanded
        yield Test(case.name, op, case.model, case.inputs, case.outputs)


def packaged_tests() -> Iterator[Test]:
    """The small models with stored data; several operators are joined with +."""
    for kind in PACKAGED:
        for folder in sorted((DATA / kind).iterdir()):
            model = onnx.load(folder / "model.onnx")
            ops = dict.fromkeys(node.op_type for node in model.graph.node if node.op_type != "Constant")
            for data in sorted(folder.glob("test_data_set_*")):
                yield Test(
                    f"{kind}/{folder.name}",
                    "+".join(ops),
                    model,
                    tuple(_stored(data, "input", model.graph.input)),
                    tuple(_stored(data, "output", model.graph.output)),
                )


def _stored(folder: Path, what: str, infos: Any) -> Iterator[Any]:
    for i in range(len([*folder.glob(f"{what}_*.pb")])):
        data = (folder / f"{what}_{i}.pb").read_bytes()
        if infos[i].type.WhichOneof("value") == "tensor_type":
            yield numpy_helper.to_array(onnx.TensorProto.FromString(data))
        else:
            yield None


def light_tests() -> Iterator[Test]:
    """The nine networks, with the input that onnx's own runner makes and the output stored beside them."""
    from onnx.backend.test.runner import Runner

    for path in sorted((DATA / "light").glob("*.onnx")):
        model = onnx.load(path)
        held = {one.name for one in model.graph.initializer}
        given = [
            Runner.generate_dummy_data(one, seed=0, name=path.stem, random=False)
            for one in model.graph.input
            if one.name not in held
        ]
        output = onnx.TensorProto.FromString((DATA / "light" / f"{path.stem}_output_0.pb").read_bytes())
        expected = numpy_helper.to_array(output)
        yield Test(path.stem, path.stem.removeprefix("light_"), model, (*given,), (expected,))


KINDS = {"node": node_tests, "packaged": packaged_tests, "light": light_tests}


def outcome(test: Test, folder: Path) -> Outcome:
    """Run a test as it is, and, if it is refused, with all inputs but the first as constants."""
    if why := _out_of_scope(test):
        return Outcome(test.name, test.op, LEFT_OUT, why)
    first = _tried(test, test.model, folder)
    if first.outcome != REFUSED or len(test.inputs) < 2:
        return first
    again = _tried(test, _with_constants(test), folder)
    if again.outcome == RIGHT:
        return Outcome(test.name, test.op, CONSTANTS, first.why)
    return first if again.outcome == REFUSED else again


def _out_of_scope(test: Test) -> str:
    for name, why in (OTHER_PLACES | OTHER_ZEROS).items():
        if test.name in (name, f"{name}_expanded"):
            return why
    for what, arrays in (("input", test.inputs), ("output", test.outputs)):
        for array in arrays:
            if not isinstance(array, np.ndarray | np.generic):
                return f"an {what} that is no tensor"
            kind = np.asarray(array).dtype
            if what == "input" and kind.kind not in "iub" and kind != np.float32:
                return f"an input of {kind}"
    if not any(np.asarray(array).dtype == np.float32 for array in test.outputs):
        return "no float32 output"
    return ""


def _with_constants(test: Test) -> onnx.ModelProto:
    """The model with the stored arrays as initializers, but for the first input's."""
    made = onnx.ModelProto()
    made.CopyFrom(test.model)
    held = {one.name for one in made.graph.initializer}
    free = [one.name for one in made.graph.input if one.name not in held]
    for name, array in [*zip(free, test.inputs, strict=False)][1:]:
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return made


def _tried(test: Test, model: onnx.ModelProto, folder: Path) -> Outcome:
    path = folder / "test.onnx"
    path.write_bytes(model.SerializeToString())
    held = {one.name for one in model.graph.initializer}
    names = [one.name for one in model.graph.input if one.name not in held]
    data = dict(zip(names, test.inputs, strict=False))
    try:
        graph = load(path)
        given = {name: np.array(data[name], order="C") for name in graph.inputs}
        graph.check_inputs(given)
        unread = OTHER_OUTPUTS.get(test.op, {})
        read = [one.name for i, one in enumerate(model.graph.output) if i not in unread]
        opaque = [node for node in needed(graph, read) if node.op.opaque]
        if opaque:
            return Outcome(test.name, test.op, REFUSED, _short(opaque[0].op.opaque))
        compared = [
            _compared(test, graph, given, one.name, np.asarray(array))
            for one, array in zip(model.graph.output, test.outputs, strict=True)
            if np.asarray(array).dtype == np.float32 and one.name in read
        ]
    except RefnetError as error:
        return Outcome(test.name, test.op, REFUSED, _short(str(error)))
    except Exception as error:
        return Outcome(test.name, test.op, TRACEBACK, f"{type(error).__name__}: {error}"[:200])
    worst = max(compared, key=lambda one: OUTCOMES.index(one[0]))
    return Outcome(test.name, test.op, *worst)


def _short(why: str) -> str:
    """A reason without the file, the node's name and its numbers."""
    why = re.sub(r"^\S*test\.onnx: ", "", why.splitlines()[0])
    why = re.sub(r" \(node \d+, opset \d+\)", "", why)
    why = re.sub(r"\[[-\d, ]+\]", "[...]", why)
    return re.sub(r"'[^']*'", "...", why)[:150]


def _compared(test: Test, graph: Graph, data: dict[str, Array], name: str, found: Array) -> tuple[str, str]:
    """The verdict on an output: each node's value, or where it may lie, from the inputs on."""
    if name not in graph.by_name:
        return REFUSED, "the output is no value of the graph"
    exact: dict[str, Array | None] = dict(data)
    ranges = {key: Interval.exactly(array) for key, array in data.items() if array.dtype == np.float32}
    node = graph.by_name[name]
    for one in graph.nodes:
        values = [exact[key] for key in one.data]
        weights = [graph.weights[key] for key in one.weights]
        known = [array for array in values if array is not None]
        if len(known) == len(values):
            own = one.op.run(*known, *weights, engine=FAST)
            if one is node:
                return _judged(test, one, found, [*known, *weights], own)
            exact[one.name] = own if one.op.exactly_specified else None
            if one.op.exactly_specified:
                ranges[one.name] = Interval.exactly(own)
                continue
        exact[one.name] = None
        intervals = [ranges[key] for key in one.data] + [Interval.exactly(array) for array in weights]
        ranges[one.name] = one.op.bound(*intervals, engine=FAST)
        if one is node:
            return _inside(found, ranges[one.name])
    raise AssertionError(name)


def _judged(test: Test, node: Any, found: Array, inputs: list[Array], own: Array) -> tuple[str, str]:
    if found.shape != own.shape:
        return WRONG, f"shape {own.shape}, expected {found.shape}"
    if decimals := DECIMALS.get(test.name):
        fits = (np.abs(own - found) <= 10.0**-decimals).all()
        return (RIGHT, "") if fits else (WRONG, f"not its value to {decimals} decimals")
    said = judge(node, found, inputs, plain=own, threads=1)
    verdict = {DEFECT: WRONG, UNJUDGED: UNDECIDED}.get(said.verdict, RIGHT)
    return verdict, "" if verdict == RIGHT else f"{said.reason}"


def _inside(found: Array, bound: Interval) -> tuple[str, str]:
    if found.shape != bound.center.shape:
        return WRONG, f"shape {bound.center.shape}, expected {found.shape}"
    finite = ~np.isnan(bound.center) & np.isfinite(bound.radius)
    with np.errstate(invalid="ignore"):
        inside = np.abs(found.astype(np.float64) - bound.center) <= bound.radius
        outside = finite & ~(inside | (found == bound.center))
    if outside.any():
        return WRONG, f"{outside.sum()} of {outside.size} elements outside of the bound"
    return (RIGHT, "") if finite.all() else (UNDECIDED, "no finite bound of some elements")


def outcomes(kind: str, op: str | None = None) -> Iterator[Outcome]:
    """The outcomes of all tests of a kind, or those of an operator."""
    with tempfile.TemporaryDirectory() as folder, one_process():
        for test in KINDS[kind]():
            if op is None or op in test.op.rstrip("*").split("+"):
                yield outcome(test, Path(folder))


def table(found: list[Outcome], reasons: bool) -> str:
    """A row per operator; with reasons, below it, how often each was given."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    why: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        rows[one.op][one.outcome] += 1
        if one.why:
            why[one.op][f"{one.outcome}: {one.why}"] += 1
    total = sum(rows.values(), Counter())
    width = max(map(len, [*rows, "operator"]))
    lines = [f"{'operator':{width}}" + "".join(f"{name:>11}" for name in OUTCOMES)]
    for op, counts in [*sorted(rows.items()), ("all", total)]:
        lines.append(f"{op:{width}}" + "".join(f"{counts[name] or '':>11}" for name in OUTCOMES))
        if reasons:
            lines += [f"    {count:4}  {text}" for text, count in why[op].most_common()]
    return "\n".join(lines)


FAMILIES = (
    (r"refnet's values are float32$", "an input of the network that is no float32"),
    (r"a single number, without a batch", "an input of the network that is a single number"),
    (r"subgraphs", "subgraphs (If, Loop, Scan)"),
    (r"[Ee]mpty|without elements", "a value without elements"),
    (r"refnet has no such operator", "an operator that refnet does not have"),
    (r"refnet's values are|this needs float32", "arithmetic in another type than float32"),
    (
        r"is computed from the input|is an input of the graph",
        "numbers that the data gives (a shape, an axis)",
    ),
)
"""Pattern of a refusal's reason -> what it is called on the page; the rest keep their own words."""


def page(found: list[Outcome]) -> str:
    """docs/onnx-tests.md: the counts, what is refused by reason, and every operator."""
    counts = Counter(one.outcome for one in found)
    lines = [
        "# onnx's own node tests",
        "",
        f"Those of onnx {onnx.__version__}: of single nodes, and of the functions that they expand to.",
        "This page is what the command prints; `tests/crosscheck/test_onnx_packaged.py` compares the two.",
        "",
        "```sh",
        ".venv/bin/python -m tests.crosscheck.onnx_node_tests --kind node --page > docs/onnx-tests.md",
        "```",
        "",
        "| outcome | tests | |",
        "|---|--:|---|",
        *(f"| {name} | {counts[name]} | {text} |" for name, text in MEANING.items()),
        "",
        "## What is refused, by reason",
        "",
        "| reason | tests | operators |",
        "|---|--:|---|",
    ]
    why: dict[str, list[Outcome]] = defaultdict(list)
    for one in found:
        if one.outcome == REFUSED:
            why[_family(one.why)].append(one)
    for text, tests in sorted(why.items(), key=lambda item: (-len(item[1]), item[0])):
        ops = Counter(one.op.rstrip("*") for one in tests)
        named = ", ".join(f"{op} {count}" for op, count in sorted(ops.items()))
        lines.append(f"| {text} | {len(tests)} | {named} |")
    lines += [
        "",
        "## By operator",
        "",
        f"| operator | {' | '.join(OUTCOMES)} |",
        "|---|" + "--:|" * len(OUTCOMES),
    ]
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        rows[one.op][one.outcome] += 1
    for op, row in sorted(rows.items()):
        name = op.rstrip("*") + ", expanded" * op.endswith("*")
        lines.append(f"| {' | '.join([name, *(str(row[one] or '') for one in OUTCOMES)])} |")
    return "\n".join(lines)


def _family(why: str) -> str:
    why = re.sub(r"^\w+(, \w+)*: ", "", why)
    return next((name for pattern, name in FAMILIES if re.search(pattern, why)), why.replace("|", "/"))


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if anything is wrong or ended in a traceback."""
    parser = argparse.ArgumentParser(description="onnx's own tests, run through refnet")
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: node and packaged")
    parser.add_argument("--op", help="only this operator")
    parser.add_argument("--reasons", action="store_true", help="why each was not right")
    parser.add_argument("--page", action="store_true", help="docs/onnx-tests.md")
    given = parser.parse_args(arguments)
    import logging

    logging.getLogger("refnet").setLevel(logging.ERROR)
    bad = 0
    for kind in given.kind or ("node", "packaged"):
        found = [*outcomes(kind, given.op)]
        bad += sum(one.outcome in (WRONG, TRACEBACK) for one in found)
        if given.page:
            print(page(found))
            continue
        print(f"{kind} tests of onnx {onnx.__version__}, refnet {refnet.__version__}")
        print(table(found, given.reasons))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
