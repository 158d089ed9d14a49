"""One element as arithmetic: the terms are the formula's, the exact value is right, the chain is plain's."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.cli import main
from refnet.core.element import Terms
from refnet.core.errors import InputError
from refnet.core.graph import Node
from refnet.models.synthetic import normal
from refnet.ops.layout import Move
from refnet.verification.capture import open_capture
from refnet.verification.explain import chain, explain_element, fma, own_inputs, text
from refnet.verification.modules import members, module_names
from refnet.verification.trace import element, exact_sum, rounded
from refnet.verification.verify import verify_values
from tests.helpers.bits import awkward, floats
from tests.helpers.engines import EXACT, FAST
from tests.helpers.exact_functions import DIGITS, FUNCTIONS
from tests.helpers.verifying import save
from tests.ops.test_ops_rules import EXAMPLES, Example, arguments

F = np.float32
EVERY = pytest.mark.parametrize("example", EXAMPLES, ids=[repr(e.op) for e in EXAMPLES])

DECIMAL = {one.op for one in FUNCTIONS}
"""Ops whose oracle is a decimal of DIGITS digits. The worst is x^p as e^(p log x). |p log x| is below 311, as
p is at most 3; the roundings of log and of the product move it by half of that in units of the last digit,
each. The power's own and the others' few roundings are far below the rest of 500."""


def places(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All places, or about forty of them."""
    every = list(np.ndindex(*shape))
    return every[:: max(1, len(every) // 40)]


def node_of(example: Example, count: int) -> Node:
    return Node("y", example.op, tuple(f"i{k}" for k in range(count)))


@EVERY
def test_every_op_is_explained(example):
    for scale in (1.0, 1e-39):
        explained(example, scale)


def explained(example: Example, scale: float) -> None:
    """The exact value is the oracle's, golden is the op's golden, the chain ends with plain."""
    values = arguments(example, scale)
    node = node_of(example, len(values))
    golden, plain = example.op.golden(*values, exact=EXACT), example.op.run(*values, engine=FAST)
    for at in places(golden.shape):
        one = explain_element(node, values, at)
        true = example.exact(example.op, at, *values)
        if one.element.exact is None:  # no breakdown; a ConvAdd is in no file that could be explained
            unexplained = isinstance(example.op, ops.MatMul | ops.ConvAdd)
            assert unexplained or (example.op in DECIMAL and not np.isfinite(golden[at]))
            assert one.golden == golden[at]
            continue
        exact = Fraction(one.element.exact)
        if isinstance(one.element.exact, Decimal):
            assert abs(exact - true) <= abs(true) * Fraction(1, 10**36) + Fraction(1, 10**200)
        elif example.op in DECIMAL:
            assert abs(exact - true) <= abs(true) * Fraction(500, 10 ** (DIGITS - 1))
        else:
            assert exact == true
        assert one.golden == golden[at]
        assert one.plain == plain[at]
        assert bool(one.chain) != bool(one.element.steps)
        last = one.chain[-1] if one.chain else one.element.steps[-1].plain
        assert last == plain[at]
        json.dumps(one.record(), allow_nan=False)


@EVERY
def test_awkward_numbers_are_explained_too(example):
    values = [awkward(v.shape, i, 0.3) for i, v in enumerate(arguments(example))]
    with np.errstate(all="ignore"):
        golden = example.op.golden(*values, exact=EXACT)
    for at in places(golden.shape)[:20]:
        one = explain_element(node_of(example, len(values)), values, at)
        assert one.golden == golden[at] or (np.isnan(one.golden) and np.isnan(golden[at]))
        json.dumps(one.record(), allow_nan=False)


@EVERY
def test_the_terms_are_those_that_matter(example):
    """Changing an input element changes the element if, and only if, it is listed (sums only)."""
    op, values = example.op, arguments(example)
    golden = op.golden(*values, exact=EXACT)
    at = places(golden.shape)[len(places(golden.shape)) // 2]
    made = op.explain(*values, at=at, exact=EXACT)
    if not isinstance(made, Terms) or made.how == "max":
        return
    which = 1 if isinstance(op, ops.WeightedSum) else 0
    if (len(example.data) > 1 and which == 0) or isinstance(op, ops.Add | ops.Sub | ops.Pad | ops.Constant):
        return  # one term of each input, or none
    listed = {tuple(map(int, place)) for place in made.places}
    for place in np.ndindex(*values[which].shape):
        moved = [v.copy() for v in values]
        moved[which][place] = 1e6
        assert (op.golden(*moved, exact=EXACT)[at] != golden[at]) == (place in listed), place


def test_the_fused_multiply_add_is_rounded_once():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        a, b = (F(v) for v in rng.normal(size=2) * 2.0 ** rng.integers(-60, 60, 2))
        c = F(-a * b * F(1 + 2.0**-20 * rng.integers(-4, 5))) if rng.integers(2) else F(rng.normal())
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        assert fma(a, b, c) == rounded(exact)
    half = F(2.0**-24)  # 1 + half is a tie: what lies beneath decides, even far below float64's last bit
    assert fma(half, F(1 + 2.0**-23), F(1)) == np.nextafter(F(1), F(2))
    tiny = F(2.0**-100)
    assert fma(tiny, tiny, F(2.0**-24)) == F(2.0**-24)


def test_exact_sums():
    values = np.float64([1e300, 2.0**-298, -1e300, 3.0])
    assert exact_sum(values) == 3 + Fraction(1, 2**298)
    assert exact_sum(np.zeros(0)) == 0


def test_numbers_as_text():
    assert text(Fraction(-1, 8)) == "-0.125"
    assert text(Decimal("1.5e-50")) == "1.5e-50"
    assert text(Fraction(0)) == "0"
    assert text(Fraction(10**6)) in ("1e+6", "1000000")


def test_padding_is_absent_not_zero():
    op = ops.Conv(1, (3, 3), pad=(1, 1))
    x, w = floats((1, 2, 4, 4), "x"), floats((1, 2, 3, 3), "w")
    corner = op.explain(x, w, at=(0, 0, 0, 0), exact=EXACT)
    assert corner.values.size == 2 * 4
    assert (-1, -1) in corner.absent
    assert len(corner.absent) == 5
    assert op.explain(x, w, at=(0, 0, 1, 1), exact=EXACT).absent == ()


def test_bias_and_divisor_are_steps_of_the_chain():
    x, w, b = floats((1, 5), "x"), floats((2, 5), "w"), floats((2,), "b")
    made = ops.Dense(2).explain(x, w, b, at=(0, 1), exact=EXACT)
    assert len(chain(made)) == 6
    assert made.bias == b[1]
    pool = ops.AvgPool((2, 2)).explain(floats((1, 1, 3, 3), "x"), at=(0, 0, 0, 0), exact=EXACT)
    assert len(chain(pool)) == 5


def test_no_such_element():
    node = Node("y", ops.Flatten(), ("x",))
    for at in ((0, 8), (0,), (0, 0, 0), (-1, 0)):
        with pytest.raises(InputError, match="no element"):
            element(node, [floats((1, 8), "x")], at)


def test_what_is_copied_is_named():
    a, b = floats((1, 2, 3), "a"), floats((1, 3, 3), "b")
    made = ops.Concat(1).explain(a, b, at=(0, 3, 2), exact=EXACT)
    assert made.values[0] == b[0, 1, 2]
    assert tuple(made.places[0]) == (0, 1, 2)
    assert made.role == "data 1"
    assert isinstance(ops.Concat(1), Move)


def test_the_command(tmp_path, capsys):
    graph = refnet.load("resnest-digits")
    name = "layer1.0.conv1"
    command = ["explain", "resnest-digits", name, "--at", "0,1,2,3", "--input", "seed:0"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "golden" in shown
    assert "exact product" in shown
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    x = normal(0, "data", graph.inputs["data"].shape)
    own = explain_element(
        graph.by_name[name], own_inputs(graph, {"data": x}, graph.by_name[name]), (0, 1, 2, 3)
    )
    assert record == own.record()
    assert len(record["terms"]) == own.element.terms.values.size
    assert main([*command[:-2]]) == 2
    assert main(["explain", "resnest-digits", "layer1.0.conv9", "--at", "0", "--input", "seed:0"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main([*command[:4], "9,9,9,9", "--input", "seed:0"]) == 2
    assert "no element [9, 9, 9, 9]" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command[:4], "a,b", "--input", "seed:0"])


def test_the_command_on_a_capture(tmp_path, capsys):
    graph = refnet.load("resnest-digits")
    data = {"data": floats((1, 1, 32, 32), "digit")}
    values = {node.name: value for node, value in refnet.steps(graph, data)}
    name = "layer1.0.conv1"
    values[name] = values[name] + F(1)
    folder = save(tmp_path / "c", values, graph, data)
    found = verify_values(graph, open_capture(folder))
    assert found.first_defect == name
    worst = next(one.worst for one in found.nodes if one.name == name)
    at = ",".join(map(str, worst.at))
    assert main(["explain", "resnest-digits", name, "--at", at, "--capture", str(folder), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    for key, value in (("found", worst.found), ("plain", worst.plain), ("golden", worst.golden)):
        assert F(record[key]["value"]) == value
    assert record["share"]["found"] == worst.share
    (folder / "manifest.json").unlink()
    before = graph.by_name[name].data[0]
    (folder / f"{before}.npy").unlink()
    assert main(["explain", "resnest-digits", name, "--at", at, "--capture", str(folder)]) == 0
    assert (
        "refnet's own values stand in" not in capsys.readouterr().out
    )  # one right result: its bits are known


@pytest.mark.parametrize(
    "name", ["layer1.0.bn1", "layer1.0.conv2.rsoftmax", "prob", "maxpool", "avgpool", "fc"]
)
def test_every_kind_is_printed(name, capsys):
    graph = refnet.load("resnest-digits")
    node = graph.by_name.get(name)
    if node is None:
        kind = {"maxpool": ops.MaxPool, "avgpool": ops.GlobalAvgPool}[name]
        node = next(node for node in graph.nodes if isinstance(node.op, kind))
    at = ",".join("0" for _ in graph.types()[node.name].shape)
    assert main(["explain", "resnest-digits", node.name, "--at", at, "--input", "seed:0", "--all"]) == 0
    shown = capsys.readouterr().out
    assert node.name in shown
    assert "exact" in shown


def test_the_command_lists_a_modules_values(capsys):
    assert main(["explain", "resnest-digits", "layer1.0.conv2"]) == 0
    shown = capsys.readouterr().out
    graph = refnet.load("resnest-digits")
    inside = [node for node in graph.nodes if node.name.startswith("layer1.0.conv2.")]
    assert all(f"{node.name} " in shown and repr(node.op) in shown for node in inside)
    assert "11 values" in shown
    assert main(["explain", "resnest-digits", "layer1.0.conv2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["values"]
    assert [row["name"] for row in rows] == [node.name for node in inside]
    assert [row["shape"] for row in rows] == [list(graph.types()[node.name].shape) for node in inside]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["layer1.0", "--at", "0,1", "--input", "seed:0"],
            "a module of that name with 21 values: layer1.0.conv1 to",
        ),
        (["fc"], "which element of fc, [1, 10]? such as --at 0,5"),
        (["layer1.9"], "did you mean layer1.0"),
        (["layer1.9", "--at", "0", "--input", "seed:0"], "did you mean layer1.0"),
        (["layer1.0", "--input", "seed:0"], "--input seed:0: also name an element, --at"),
        (["layer1.0", "--html"], "--html: also name an element, --at"),
        (["layer1.0", "--all"], "--all: also name an element, --at"),
    ],
)
def test_a_module_is_no_value_and_a_value_no_module(arguments, said, capsys):
    assert main(["explain", "resnest-digits", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_module_is_a_whole_part_of_a_name():
    graph = refnet.load("octave-se-resnet-digits")
    found = members(graph, "L2_B01_conv2")
    assert found
    assert all(node.name.startswith(("L2_B01_conv2_", "L2_B01_conv2-")) for node in found)
    assert members(graph, "L2_B01_conv") == ()
    assert members(graph, "") == ()
    assert members(graph, "pool1") == (graph.by_name["pool1"],)
    assert module_names(["a/b/c", "a/d", ".e"]) == ["a", "a/b"]
