"""`refnet bench --kernels`: each kernel of a run in its place, its nodes, its work, and what is printed."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.arithmetic.golden import Golden
from refnet.arithmetic.plain import Plain
from refnet.arithmetic.timed_run import TimedRun, members
from refnet.bench.kernels import KernelCall, KernelTimes, kernel_times
from refnet.bench.machine import Machine
from refnet.cli import main
from refnet.core.errors import FrameworkError, InputError
from refnet.frameworks.launch import multiply_adds, prepare
from refnet.kernels.peak import chains
from refnet.kernels.thread_pool import Call, LaunchList, launch
from refnet.kernels.timed_launch import TimedLaunch, calls_of
from refnet.models.synthetic import normal
from refnet.report.bench_kernels import COLUMNS, kernels_csv, kernels_table
from refnet.report.table import Table
from tests.helpers.bits import same_bits

DIGITS, OCTAVE = "resnest-digits", "octave-se-resnet-digits"
HERE = Machine("Processor", 2, 256, 1.5, "2026-01-02", {}, {1: 100.0}, {1: 10.0})


def data(graph: refnet.Graph, batch: int = 1):
    return {name: normal(1, name, (batch, *kind.shape[1:])) for name, kind in graph.inputs.items()}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", [DIGITS, OCTAVE])
def test_a_timed_run_makes_the_same_values_and_each_call_has_a_time(name: str, threads: int) -> None:
    graph = refnet.load(name)
    x = data(graph, 2)
    run = TimedRun(graph, x, Plain(threads=threads))
    for _ in range(3):
        whole, seconds = run.each()
        assert seconds.shape == (len(run.calls),)
        assert (seconds > 0).all()
        assert seconds.sum() < whole
    assert run.whole() > 0
    for step in run.steps:
        assert isinstance(step, TimedLaunch)
        assert step.threads == threads
    expected = refnet.run(graph, x, Plain(threads=threads))
    assert set(run.values) == set(graph.outputs.values())
    assert all(same_bits(run.values[name], expected[key]) for key, name in graph.outputs.items())


def test_the_calls_are_those_of_the_run_and_their_nodes_are_all_of_the_graph() -> None:
    """But for reshapes and what is only flattened, which have no kernel."""
    graph = refnet.load(OCTAVE)
    run = TimedRun(graph, data(graph), Plain(threads=1))
    made = {name for call in run.calls for name in call.nodes}
    assert {node.name for node in graph.nodes if not node.op.reshapes} == made
    assert made <= set(graph.by_name)
    assert sum(call.macs for call in run.calls) == multiply_adds(graph)
    last = run.calls[-1]
    assert last.nodes == (graph.nodes[-1].name,)
    kinds = Counter(call.kind for call in run.calls)
    assert {"stem", "Conv 1x1", "Conv 3x3", "padding copies", "upsampling", "dense"} <= set(kinds)
    assert kinds["stem"] == 1
    for call in run.calls:
        assert (call.macs > 0) == call.kind.startswith(("stem", "Conv", "dense")), call
        read, written = (4 * int(np.prod(shape)) for shape in call.shapes)
        if call.kernel == "resample.upsample":
            assert call.nbytes == read + written
        if call.kind.startswith("Conv"):
            weights = sum(4 * graph.weight_types[w].size for w in graph.by_name[call.nodes[0]].weights)
            assert call.nbytes >= weights + written


def test_the_nodes_of_a_pass() -> None:
    graph = refnet.load(OCTAVE)
    plan = Plain(threads=1).plan(graph, frozenset(graph.outputs.values()))
    for node, *_ in plan.schedule:
        ops = getattr(node.op, "ops", (node.op,))
        assert tuple(graph.by_name[name].op for name in members(node, graph)) == tuple(ops)


def test_the_work_grows_with_the_batch() -> None:
    graph = refnet.load(DIGITS)
    run = TimedRun(graph, data(graph, 3), Plain(threads=1))
    assert sum(call.macs for call in run.calls) == 3 * multiply_adds(graph)
    assert {call.shapes[0][0] for call in run.calls} == {3}


def test_a_replayed_run_has_its_kernels_too() -> None:
    graph = refnet.load(OCTAVE)
    from refnet.arithmetic.named import arithmetic
    from refnet.models.weights import shipped_folder

    book = next(iter((shipped_folder() / "books").glob(f"*{OCTAVE}*")))
    run = TimedRun(graph, data(graph), arithmetic(f"replay:{book}", 1))
    whole, seconds = run.each()
    assert seconds.sum() < whole
    assert sum(call.macs for call in run.calls) == multiply_adds(graph)


@pytest.mark.parametrize("name", [OCTAVE, DIGITS])
def test_a_golden_run_has_its_kernels_too(name: str) -> None:
    """Norms and what is open have kinds of their own; multiply-adds are counted once."""
    graph = refnet.load(name)
    run = TimedRun(graph, data(graph), Golden(threads=1))
    whole, seconds = run.each()
    assert seconds.sum() < whole
    assert sum(call.macs for call in run.calls) == multiply_adds(graph)
    assert {"norms of windows", "open elements", "pools and averages"} <= {call.kind for call in run.calls}


def test_what_has_no_recorded_run_is_refused() -> None:
    graph = refnet.load(DIGITS)
    with pytest.raises(InputError, match="runs in plain are not"):
        TimedRun(graph, data(graph), Plain(threads=1, kernels="reference"))


def test_a_launch_list_is_made_of_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = refnet.load(DIGITS)
    for step in TimedRun(graph, data(graph), Plain(threads=2)).steps:
        assert isinstance(step, LaunchList)
        again = LaunchList(calls_of(step), 2)
        assert (again.rows == step.rows).all()
        assert again.steps == step.steps
    monkeypatch.setattr("refnet.kernels.thread_pool.native", lambda calls: None)
    with pytest.raises(InputError, match="not called from compiled code"):
        TimedLaunch(step)


@pytest.mark.parametrize("threads", [1, 2])
def test_each_kernel_has_its_own_time(threads: int) -> None:
    """Kernels that do as little but for one, which does 300 times as much: each place is tried."""
    out = np.full(2, 0.5, np.float32)
    for place in range(3):
        rounds = [300_000 if i == place else 1_000 for i in range(3)]
        step = TimedLaunch(LaunchList([Call(chains, 2, threads, (n, out)) for n in rounds], threads))
        each = []
        for _ in range(9):
            launch(step)
            each.append(np.diff(step.times))
        assert int(np.argmax(np.min(each, 0))) == place
        assert np.min(each, 0).max() > 20 * np.median(np.min(each, 0))


def call(kind: str, macs: int, nbytes: int, median: float, lowest: float) -> KernelCall:
    return KernelCall(
        (f"a-{kind}", "b"), kind, "Op", "m.k", ((1, 2), (1, 3)), 1, macs, nbytes, median, lowest
    )


FOUND = KernelTimes(
    "net",
    1,
    1,
    (
        call("Conv 1x1", 10**9, 10**6, 0.030, 0.025),
        call("upsampling", 0, 2 * 10**7, 0.003, 0.002),
        call("upsampling", 0, 10**7, 0.005, 0.002),
        call("Conv 1x1", 10**8, 10**8, 0.020, 0.015),
    ),
    (0.070, 0.060, 0.050),
    (0.071, 0.061, 0.051),
    (0.003, 0.001, 0.002),
)


def cells(shown: Table) -> dict[str, dict[str, str]]:
    return {row[0]: dict(zip(shown.titles, row, strict=True)) for row in shown.rows}


def test_the_table_of_kernels() -> None:
    """The 1x1 convolutions: 20 ms of products and 10 ms of bytes; upsamplings: 2 ms (memory: 2), 2 (1)."""
    found = cells(kernels_table(FOUND, HERE))
    assert list(found) == ["Conv 1x1", "upsampling", "all"]
    conv, ups, whole = found.values()
    assert (conv["calls"], conv["ms"], conv["share"]) == ("2", "40.00", "90.9%")
    assert (conv["GFLOP/s"], conv["of peak"], conv["floor ms"]) == ("55.0", "55.0%", "30.00")
    assert (ups["ms"], ups["GFLOP/s"], ups["GB/s"], ups["floor ms"]) == ("4.00", "", "7.5", "3.00")
    assert (whole["calls"], whole["ms"], whole["median ms"], whole["floor ms"]) == (
        "4",
        "44.00",
        "58.00",
        "33.00",
    )
    assert FOUND.rest == 0.002


def test_the_csv_has_every_call() -> None:
    rows = list(csv.DictReader(kernels_csv(HERE, [FOUND, replace(FOUND, model="other")]).splitlines()))
    assert len(rows) == 8
    assert tuple(rows[0]) == COLUMNS
    last = rows[3]
    assert (last["network"], last["call"], last["nodes"]) == ("net", "4", "a-Conv 1x1 b")
    assert (last["data"], last["value"], last["macs"], last["bytes"]) == (
        "1x2",
        "1x3",
        "100000000",
        "100000000",
    )
    assert (last["median_us"], last["lowest_us"], last["floor_us"]) == ("20000.00", "15000.00", "10000.00")
    assert (last["run_median_ms"], last["run_lowest_ms"], last["run_rest_ms"]) == (
        "60.000",
        "50.000",
        "2.000",
    )
    assert (last["runs"], last["load_average"], last["processor"]) == ("3", "1.50", "Processor")


def test_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refnet.bench.machine.with_speeds", lambda here, threads, memory: HERE)
    file = tmp_path / "calls.csv"
    argv = ["bench", f"{DIGITS},{OCTAVE}", "--against", "none", "--threads", "1", "--kernels", "--runs", "2"]
    assert main([*argv, "--csv", str(file), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert [one["model"] for one in read["kernels"]] == [DIGITS, OCTAVE]
    rows = list(csv.DictReader(file.read_text().splitlines()))
    for one in read["kernels"]:
        assert len(one["whole"]) == len(one["timed"]) == len(one["rests"]) == 2
        own = [row for row in rows if row["network"] == one["model"]]
        assert [" ".join(call["nodes"]) for call in one["calls"]] == [row["nodes"] for row in own]
        assert sum(kind["calls"] for kind in one["kinds"]) == len(own)
        assert all(0 < call["lowest"] <= call["median"] for call in one["calls"])
        assert all(0 <= call["floor"] <= call["lowest"] for call in one["calls"])


def test_a_wrong_name_is_an_error_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[object] = []
    monkeypatch.setattr("refnet.bench.machine.with_speeds", lambda *given, **named: measured.append(given))
    for argv in ([f"{DIGITS},nonet"], [DIGITS, "--arithmetic", "exact"]):
        assert main(["bench", *argv, "--against", "none", "--kernels", "--threads", "1"]) == 2
        assert ("nonet" in capsys.readouterr().err) == ("nonet" in argv[0])
    assert measured == []


def test_what_is_finished_is_written_if_a_network_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refnet.bench.machine.with_speeds", lambda here, threads, memory: HERE)

    def failing(ready: Any, *given: Any) -> Any:
        if ready.graph.name == OCTAVE:
            raise FrameworkError("its process ended")
        return kernel_times(ready, *given)

    monkeypatch.setattr("refnet.bench.kernels.kernel_times", failing)
    file = tmp_path / "calls.csv"
    argv = ["bench", f"{DIGITS},{OCTAVE}", "--kernels", "--threads", "1", "--runs", "1", "--csv", str(file)]
    assert main(argv) == 2
    assert {row["network"] for row in csv.DictReader(file.read_text().splitlines())} == {DIGITS}


def test_golden_is_timed_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = kernel_times(prepare(DIGITS, tmp_path, arithmetic="golden"), 1, 1, 1)
    assert sum(call.macs for call in found.calls) == multiply_adds(refnet.load(DIGITS))


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--against", "torch"], "--against torch: --kernels times refnet alone"),
        (["--table"], "--table : --kernels times refnet alone"),
        (["--startup"], "--startup: --kernels times refnet alone"),
        (["--profile"], "--profile: --kernels times refnet alone"),
        (["--python", "x"], "--python x: --kernels times refnet alone"),
        (["--state", "x"], "--state x: --kernels times refnet alone"),
        (["--csv", "no-such-folder/x.csv"], "there is no such folder"),
    ],
)
def test_unusable_arguments(argv: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", DIGITS, "--kernels", *argv]) == 2
    assert why in capsys.readouterr().err


def test_an_op_without_kernels_has_a_time_of_its_own() -> None:
    x = refnet.TensorType((1, 4, 8, 8))
    nodes = (
        refnet.Node("c", ops.Conv(4, (1, 1)), ("x", "w")),
        refnet.Node("l", ops.LeakyRelu(0.125), ("c",)),
        refnet.Node("y", ops.Conv(4, (1, 1)), ("l", "w")),
    )
    graph = refnet.Graph("net", {"x": x}, nodes, {"out": "y"})
    graph = graph.with_weights({"w": normal(1, "w", (4, 4, 1, 1))})
    run = TimedRun(graph, data(graph), Plain(threads=1))
    assert [(one.nodes, one.kernel == "") for one in run.calls] == [
        (("c",), False),
        (("l",), True),
        (("y",), False),
    ]
    assert (run.calls[1].kind, run.calls[1].nbytes) == ("LeakyRelu", 2 * 4 * x.size)
    for _ in range(2):
        whole, seconds = run.each()
        assert (seconds > 0).all()
        assert seconds.sum() < whole
