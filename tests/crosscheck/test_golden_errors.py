"""How far plain, MXNet and PyTorch are from golden: the table of docs/numerics.md, op kind by op kind.

    .venv/bin/python -m pytest -m crosscheck tests/crosscheck/test_golden_errors.py -q

Every value of both full networks is judged on the framework's own inputs to its node, so no error is
inherited. One ulp is the distance of two neighbouring float32; the share is the largest
|value - center| / radius of the op's bound.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.core.op import Interval
from refnet.frameworks.process import Worker
from refnet.kernels.engine import Fast
from refnet.models import synthetic
from refnet.models.export import export
from refnet.models.loading import structure
from tests.crosscheck import judge
from tests.crosscheck.test_mxnet_values import judged
from tests.crosscheck.test_torch_values import ABSENT, NETWORKS, SURPLUS, written
from tests.helpers.engines import FAST, exact_on

pytestmark = pytest.mark.crosscheck

CUT = 1 << 16
"""Distances from here on are counted together; the largest is kept besides."""


@dataclass
class Errors:
    """The distances of one evaluation from golden, of all values of one kind of op."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(CUT + 1, np.int64))
    largest: int = 0
    share: float = 0.0

    def add(self, found: np.ndarray, golden: np.ndarray, interval: Interval) -> None:
        distance = ulps(found, golden)
        self.counts += np.bincount(np.minimum(distance, CUT).ravel(), minlength=CUT + 1)
        self.largest = max(self.largest, int(distance.max()))
        self.share = max(self.share, judge.within_bound(found, interval))

    @property
    def cells(self) -> str:
        total = int(self.counts.sum())
        median = int(np.searchsorted(np.cumsum(self.counts), (total + 1) // 2))
        return f"{100 * self.counts[0] / total:.1f} % | {median} | {self.largest} | {100 * self.share:.2f} %"


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many float32 lie between each pair, and one; 0 for equal values (+0 and -0 too)."""
    wide = [np.ascontiguousarray(v).view(np.int32).astype(np.int64) for v in (a, b)]
    first, second = (np.where(v < 0, -(v & 0x7FFFFFFF), v) for v in wide)
    return np.abs(first - second)


@dataclass
class Table:
    """Per kind of op: the framework's errors and plain's."""

    theirs: dict[str, Errors] = field(default_factory=lambda: defaultdict(Errors))
    plain: dict[str, Errors] = field(default_factory=lambda: defaultdict(Errors))

    def check(self, node, found, inputs, tally) -> None:
        """judge.check of what has one right result; of all others the errors, inside of the bound.

        Their verdicts: test_mxnet_values.py, test_torch_values.py.
        """
        arguments = list(inputs)
        if node.op.exactly_specified:
            CHECK(node, found, arguments, tally)
            return
        kind = type(node.op).__name__
        tally.bounds[kind] += 1
        golden = node.op.golden(*arguments, exact=exact_on(2))
        interval = node.op.bound(*map(Interval.exactly, arguments), engine=FAST)
        judge.within_bound(golden, interval)
        self.theirs[kind].add(found, golden, interval)
        self.plain[kind].add(node.op.run(*arguments, engine=Fast(2)), golden, interval)

    def lines(self, framework: str) -> list[str]:
        """The table in Markdown."""
        head = "equal | median ulp | max ulp | share"
        rows = [f"| op | elements | {framework}: {head} | plain: {head} |", "|---|" + "---:|" * 9]
        for kind in sorted(self.theirs):
            theirs, plain = self.theirs[kind], self.plain[kind]
            rows.append(f"| {kind} | {theirs.counts.sum():,} | {theirs.cells} | {plain.cells} |")
        return rows


CHECK = judge.check


def test_mxnet(mxnet: Worker, tmp_path: Path, report: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    monkeypatch.setattr(judge, "check", table.check)
    graph = refnet.load("octave-se-resnet-50-0.125", weights="seed:0")
    symbol, params = export(graph, tmp_path / "net")
    judged(mxnet, graph, symbol, params, "monitor")
    report.extend(table.lines("MXNet 1.9.1"))
    assert {"Conv", "Dense", "BatchNorm", "Sigmoid", "Softmax"} <= set(table.theirs)


def test_torch(torch: Worker, tmp_path: Path, report: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    monkeypatch.setattr(judge, "check", table.check)
    name = "resnest-50-pytorch"
    graph, path = written(torch, structure(name), tmp_path)
    data = {"data": synthetic.normal(1, "data", graph.inputs["data"].shape)}
    request = {"model": f"resnest.torch:{NETWORKS[name]}", "weights": str(path), "threads": 1}
    values = torch.stream("run", request, data)
    judge.walk(graph, data, values, surplus=SURPLUS, absent=ABSENT, reshaped=("RadixSoftmax",))
    report.extend(table.lines("PyTorch 2.13.0"))
    assert {"Conv", "Dense", "BatchNorm", "RadixSoftmax", "WeightedSum"} <= set(table.theirs)


def test_ulps() -> None:
    one = np.float32([1, 1, -1, 0, 2.0**-149, 1])
    other = np.array([1, 1 + 2.0**-23, -1 - 2.0**-22, -0.0, -(2.0**-149), 2], np.float32)
    assert ulps(one, other).tolist() == [0, 1, 2, 0, 2, 1 << 23]
