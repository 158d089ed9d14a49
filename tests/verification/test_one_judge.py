"""`refnet verify`, the pytest plugin and the cross-checks decide by one judge: the cases they once parted on.

Each case is one node, its inputs, and a value that a framework might have computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from refnet import ops
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node, TensorType
from refnet.formats.golden_file import Sources, write
from refnet.kernels.engine import Fast
from refnet.models.export import export
from refnet.models.inputs import prepare
from refnet.verification.explain import explain_element
from refnet.verification.golden import record
from refnet.verification.golden_check import Checker, GoldenSource
from refnet.verification.judge import judge
from refnet.verification.propagate import known, propagate
from refnet.verification.verify import Values, verify_values
from tests.crosscheck.judge import Disagreement, Tally, check
from tests.helpers.bits import floats
from tests.helpers.engines import FAST

F = np.float32
HUGE = F([3e38, 3e38, -3e38]).reshape(1, 3, 1, 1)
"""Their sum is 3e38; in plain's order it overflows, so no finite bound holds for every order."""


@dataclass(frozen=True)
class Case:
    """A network of one node, what goes in, what came out, and the verdict on it."""

    op: ops.Op
    x: np.ndarray
    weights: dict[str, np.ndarray]
    found: np.ndarray
    verdict: str

    @property
    def graph(self) -> Graph:
        node = Node("y", self.op, ("x", *self.weights))
        return Graph("one", {"x": TensorType(self.x.shape)}, (node,), {"out": "y"}, self.weights)

    def arguments(self) -> list[np.ndarray]:
        return [self.x, *self.weights.values()]


def pool_of_zeros() -> Case:
    """Which zero is the larger one, frameworks disagree on: 0 and -0 are both right."""
    x = F([0.0, -0.0, -1.0, -2.0]).reshape(1, 1, 2, 2)
    op = ops.MaxPool((2, 2), (2, 2))
    return Case(op, x, {}, -op.run(x, engine=FAST), "equal")


def summed(found: float, verdict: str) -> Case:
    """A convolution over three channels whose sum overflows on the way."""
    w = np.ones((1, 3, 1, 1), F)
    return Case(ops.Conv(1, (1, 1)), HUGE, {"w": w}, np.full((1, 1, 1, 1), found, F), verdict)


def moved(op: ops.Op, x: np.ndarray, weights: dict[str, np.ndarray], verdict: str) -> Case:
    """refnet's own value, one element moved by one float32."""
    found = op.run(x, *weights.values(), engine=FAST)
    found.flat[-1] = np.nextafter(found.flat[-1], F(9))
    return Case(op, x, weights, found, verdict)


CASES = {
    "a max pool with the other zero": pool_of_zeros(),
    "a convolution with an infinite radius, found 7": summed(7.0, "unjudged"),
    "plain's own bits where a sum overflows": summed(np.inf, "replayed"),
    "one float32 beside a relu": moved(ops.Relu(), floats((1, 2, 3, 3), "x"), {}, "defect"),
    "one float32 beside a convolution": moved(
        ops.Conv(1, (3, 3)), floats((1, 2, 3, 3), "x"), {"w": floats((1, 2, 3, 3), "w")}, "rounding"
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def test_the_judge(case: Case) -> None:
    (node,) = case.graph.nodes
    assert judge(node, case.found, case.arguments()).verdict == case.verdict


def test_verify(case: Case) -> None:
    found = verify_values(case.graph, Values({"y": case.found}, {"x": case.x}))
    assert [one.verdict for one in found.nodes] == [case.verdict]


def test_the_plugin(case: Case, tmp_path: Path) -> None:
    """A golden file of the network, as a port's tests have it."""
    export(case.graph, tmp_path / "net", "onnx")
    np.save(tmp_path / "x.npy", case.x)
    sources = Sources(str(tmp_path / "net.onnx"), None, str(tmp_path / "x.npy"))
    write(tmp_path / "golden.json", record(*prepare(sources), sources))
    checker = Checker(GoldenSource(tmp_path / "golden.json"))
    if case.verdict == "unjudged":
        with pytest.raises(InputError, match=r"y cannot be judged, .*1 of 1 elements have no bound"):
            checker.check("y", case.found, within="bound")
    elif case.verdict == "defect":
        with pytest.raises(AssertionError, match="y is no rounding of its formula"):
            checker.check("y", case.found, within="bound")
    else:
        checker.check("y", case.found, within="bound")


def test_the_golden_bits_pass_where_nothing_can_be_judged(tmp_path: Path) -> None:
    """What `check` accepts without a bound, it accepts with one."""
    case = summed(3e38, "unjudged")
    test_the_judge(case)
    export(case.graph, tmp_path / "net", "onnx")
    np.save(tmp_path / "x.npy", case.x)
    sources = Sources(str(tmp_path / "net.onnx"), None, str(tmp_path / "x.npy"))
    write(tmp_path / "golden.json", record(*prepare(sources), sources))
    checker = Checker(GoldenSource(tmp_path / "golden.json"))
    checker.check("y", case.found)
    checker.check("y", case.found, within="bound")


def test_the_cross_checks(case: Case) -> None:
    (node,) = case.graph.nodes
    tally = Tally()
    if case.verdict in ("unjudged", "defect"):
        with pytest.raises(Disagreement, match=f"{case.verdict}: "):
            check(node, case.found, case.arguments(), tally, finite=False)
        assert not tally.compared
    else:
        check(node, case.found, case.arguments(), tally, finite=False)
        assert sum(tally.bits.values()) == (case.verdict == "equal")
        assert sum(tally.bounds.values()) == (case.verdict != "equal")


def test_the_cross_checks_demand_finite_values_and_bounds() -> None:
    for found, why in ((np.inf, "not finite"), (7.0, "unjudged"), (3.4e38, "unjudged")):
        case = summed(found, "")
        with pytest.raises(Disagreement, match=why):
            check(case.graph.nodes[0], case.found, case.arguments(), Tally())


def test_an_op_alone_is_not_excused_by_a_formula_of_joined_nodes():
    """x * (x > 0) makes NaN of -infinity, as oneDNN's relu does inside a convolution: alone it is wrong."""
    x = F([[1, -np.inf, -2, 3]])
    with np.errstate(invalid="ignore"):
        port = x * (x > 0)
    node = Node("relu", ops.Relu(), ("x",))
    assert judge(node, port, [x]).verdict == "defect"
    assert judge(node, F([[1, 0, -0.0, 3]]), [x]).verdict == "equal"
    pool, low = Node("pool", ops.MaxPool((1, 2), (1, 2)), ("x",)), F([-np.inf, -np.inf, 1, 2])
    lowest = F([np.finfo(F).min, 2]).reshape(1, 1, 1, 2)
    found = judge(pool, lowest, [low.reshape(1, 1, 1, 4)])
    assert (found.verdict, "'running'" in (found.reason or "")) == ("replayed", True)


@pytest.mark.parametrize("threads", [1, 3, None])
def test_everything_is_computed_with_the_threads_that_were_asked_for(threads, monkeypatch):
    used = []
    fast = Fast

    def noted(limit=None):
        used.append(limit)
        return fast(limit)

    for place in ("compute", "judge"):
        monkeypatch.setattr(f"refnet.verification.{place}.Fast", noted)
    case = moved(ops.Conv(2, (1, 1)), floats((1, 3, 2, 2), "x"), {"w": floats((2, 3, 1, 1), "w")}, "rounding")
    (node,) = case.graph.nodes
    assert judge(node, case.found, case.arguments(), threads=threads).verdict == "rounding"
    propagate(node, [known(array) for array in case.arguments()], threads)
    explain_element(node, case.arguments(), (0, 0, 0, 0), threads=threads)
    pool = pool_of_zeros()
    (node,) = pool.graph.nodes
    assert judge(node, pool.found + F(1), pool.arguments(), threads=threads).verdict == "defect"
    assert len(used) > 8
    assert set(used) == {threads}
