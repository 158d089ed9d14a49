"""docs/performance.md: each timing says when, where and by which command; the rest is computed again."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from refnet.arithmetic.captured_run import CapturedRun
from refnet.arithmetic.engines import engine
from refnet.arithmetic.plain import Plain
from refnet.bench.race import SETTLE
from refnet.bench.scaling import CHANNELS, LAYERS, SCALED, SIZES
from refnet.bench.table import geometric_mean
from refnet.kernels.peak import CHAINS
from refnet.models.catalog import build, entry
from refnet.models.cost import summary
from refnet.models.loading import structure
from refnet.report.bench import BUSY
from tests.figures import bench

PAGE = (Path(__file__).parents[1] / "docs" / "performance.md").read_text(encoding="utf-8")
OCTAVE, RESNEST = "octave-se-resnet-50-0.125", "resnest-50-pytorch"
LARGE = "ResNeSt-50 and octave-SE-ResNet-50"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
CONSOLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MEASURED = [(block.split("\n")[0][2:], block) for block in CONSOLES if "\n\n" in block]
"""(command, block with its output)."""
SAYS = {
    "date": r"20\d\d-\d\d-\d\d",
    "machine": "AMD EPYC",
    "command": r"(`|\$ |`taskset -c 0 )refnet (bench|verify)",
}
TIME = re.compile(r"\d[\d.]* (?:s|ms|ns|seconds|GB/s|GFLOP/s)\b|\bMiB\b")
SETTINGS = {"What is compared": [], "How": ["50 ms", "MiB"]}
"""Sections without a measurement -> what in them looks like one: how long the untimed runs last."""


def table(command: str) -> list[dict[str, str]]:
    """The rows of the table that the page shows for that command."""
    (block,) = [block for said, block in MEASURED if said == command]
    lines = block.split("\n")
    rule = next(i for i, line in enumerate(lines) if line.startswith("──"))
    names = re.split(r" {2,}", lines[rule - 1].strip())
    rows = [re.split(r" {2,}", line.strip()) for line in lines[rule + 1 :] if line.strip()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def near(text: str, value: float, of: float) -> bool:
    """Whether `text` is a rounding of the value, which itself was printed in steps of `of`."""
    places = len(text.partition(".")[2])
    return text in {f"{value + shift:.{places}f}" for shift in (-of / 2, 0, of / 2)}


def test_the_page_is_what_this_file_reads():
    assert set(SECTIONS) == {
        *(
            "What is compared",
            "How",
            "Results",
            "The model table",
            "Kernel by kernel",
            LARGE,
            "Golden",
            "Replay",
        ),
        *("Small networks and two threads", "Networks of others", "The first command compiles"),
        "The second process",
    }
    assert len(MEASURED) == 16
    assert len(CONSOLES) == 21  # and the commands without an output


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_with_a_timing_says_date_machine_and_command(title):
    if title in SETTINGS:
        assert TIME.findall(SECTIONS[title]) == SETTINGS[title]
        return
    assert TIME.search(SECTIONS[title])
    for what, pattern in SAYS.items():
        assert re.search(pattern, SECTIONS[title]), what


@pytest.mark.parametrize(("command", "block"), MEASURED, ids=[command for command, _ in MEASURED])
def test_an_output_says_date_machine_and_versions(command, block):
    assert command.startswith("refnet bench")
    assert re.search(r"^AMD EPYC, 2 processors, vectors of 512 bits\nmeasured peak", block, re.MULTILINE)
    assert re.search(
        r"^20\d\d-\d\d-\d\d, refnet [\d.]+, python [\d.]+, numpy .*, numba .*, llvmlite ", block, re.M
    )
    busy = re.search(r"^the machine was busy: load average ([\d.]+) before", block, re.MULTILINE)
    assert float(busy[1] if busy else 0) <= 2 + BUSY  # the run before, of two threads, and no other program


def test_no_output_is_of_a_moment_at_which_the_processor_was_slower():
    """The peaks measured before each output, by number of threads."""
    peaks: dict[str, list[float]] = {}
    for _, block in MEASURED:
        for speed, threads in re.findall(r"(\d+) GFLOP/s on (\d) thread", block):
            peaks.setdefault(threads, []).append(float(speed))
    assert set(peaks) == {"1", "2"}
    for each in peaks.values():
        assert min(each) >= 0.96 * max(each)


def test_text_before_the_first_section_measures_nothing():
    assert not TIME.search(PAGE.split("\n## ", 1)[0])


RACES = [command for command, block in MEASURED if "refnet ms" in block]


@pytest.mark.parametrize("command", RACES)
def test_a_races_columns_fit_together_and_the_networks_cost(command):
    """ratio, GFLOP/s and the share of the peak follow from milliseconds, multiply-adds and the peak."""
    block = dict(MEASURED)[command]
    peaks = dict(re.findall(r"(\d+) GFLOP/s on (\d) thread", block))
    peak = {threads: float(speed) for speed, threads in peaks.items()}
    for row in table(command):
        ours, speed = float(row["refnet ms"]), float(row["GFLOP/s"])
        if ".onnx" not in command:
            macs = summary(build(entry(row["network"]))).macs
            assert abs(2e-6 * macs / ours - speed) <= 0.05 + 0.005 * speed / ours
        assert near(row["ratio"], ours / float(row["other ms"]), 0.001)
        assert abs(speed / peak[row["threads"]] * 100 - float(row["of peak"][:-1])) < 0.5
        assert float(row["lowest"]) <= float(row["paired"]) <= float(row["highest"])
        assert row["classes"] == "same"


def test_the_scalings_factors_are_those_of_its_rows():
    (block,) = [block for command, block in MEASURED if "--scaling" in command]
    rows = re.findall(r"^(resnet-\d+-baseline|one \dx\d layer) +(.*)$", block, re.MULTILINE)
    times = {name: [float(one) for one in text.split()] for name, text in rows}
    assert list(times)[: len(SCALED)] == list(SCALED)
    for name, (*each, factor) in times.items():
        assert len(each) == len(SIZES if name in SCALED else LAYERS)
        assert abs(max(each) / min(each) - factor) < 0.006
    whole = [one for name in times for one in times[name][:-1]]
    assert f"of the whole table {max(whole) / min(whole):.2f}" in block
    said = re.search(r"takes\s+([\d.]+) ns there, and ([\d.]+) ns at 224", PAGE)
    assert said is not None
    fifty = times["resnet-50-baseline"]
    assert said.groups() == (f"{fifty[SIZES.index(64)]:.3f}", f"{fifty[SIZES.index(224)]:.3f}")


def test_what_the_text_says_of_the_outputs():
    text = " ".join(SECTIONS[LARGE].split())
    shares = {}
    for name, others in ((RESNEST, "torch,onnxruntime,openvino"), (OCTAVE, "mxnet,onnxruntime,openvino")):
        rows = table(f"refnet bench {name} --against {others} --threads 1,2")
        found = sorted(round(float(row["of peak"][:-1])) for row in rows if row["threads"] == "1")
        shares[name] = f"{found[0]} to {found[-1]} %"
    assert f"ResNeSt-50 runs at {shares[RESNEST]} of the peak, the octave network at {shares[OCTAVE]}" in text
    others = " ".join(SECTIONS["Networks of others"].split())
    for name in ("convnext_tiny", "mobilenet_v3_large", "vit_b_16", "unet"):
        (command,) = [one for one, _ in MEASURED if f"{name}.onnx" in one]
        one, two = (
            next(row for row in table(command) if (row["threads"], row["against"].split()[0]) == wanted)
            for wanted in (("1", "onnxruntime"), ("2", "onnxruntime"))
        )
        said = " and ".join(f"{float(row['paired']):.1f}" for row in (one, two))
        assert f"{name} {said}" in others, (name, said)
    golden = " ".join(SECTIONS["Golden"].split())
    peak = max(float(one) for one in re.findall(r"peak .* (\d+) GFLOP/s on 1 thread", PAGE)) / 2
    for name, begin in ((RESNEST, "the {} GFLOP of ResNeSt-50"), (OCTAVE, "the octave network's {}")):
        flops = 2e-9 * summary(build(entry(name))).macs
        said = begin.format(f"{flops:.1f}")
        assert f"{said} would take {1000 * flops / peak:.0f} ms" in golden


def test_what_the_text_says_of_the_mean_against_onnx_runtime():
    """Without the rows of slow times it would be another one."""
    own = [row for row in bench.rows() if row["against"] == "onnxruntime"]
    alone = {row["network"]: float(row["refnet_ms_per_image"]) for row in own if row["threads"] == "1"}
    two = {
        row["network"]: (
            float(row["median_of_ratios"]),
            alone[row["network"]] / float(row["refnet_ms_per_image"]),
        )
        for row in own
        if row["threads"] == "2"
    }
    kept = [ratio for ratio, gain in two.values() if gain >= 1.35]
    mean, without = geometric_mean(ratio for ratio, _ in two.values()), geometric_mean(kept)
    text = " ".join(SECTIONS["The model table"].split())
    assert (
        f"The mean of {mean:.3f} against ONNX Runtime on two threads is {without:.3f} without the "
        f"{len(two) - len(kept)} rows in which refnet gains less than 1.35 by the second thread."
    ) in text


def test_the_counts_of_a_run_of_the_octave_network():
    """Its nodes as plain executes them, and its kernels."""
    graph = structure(OCTAVE)
    zeros = {name: np.zeros(kind.shape, np.float32) for name, kind in graph.weight_types.items()}
    graph = graph.with_weights(zeros, own=True)
    arithmetic = Plain(1)
    plan = arithmetic.plan(graph, frozenset(graph.outputs.values()))
    counts: Counter[str] = Counter()
    for node, *_ in plan.schedule:
        first, *more = [type(op).__name__ for op in getattr(node.op, "ops", (node.op,))]
        passes = first in {"BatchNorm", "Mul", "Add"} and (more or first == "Mul")
        counts["Pass" if passes else first] += 1
    text = " ".join(PAGE.split())
    pools = counts["AvgPool"] + counts["MaxPool"]
    assert f"{counts['GlobalAvgPool']} averages over whole planes, {pools} poolings, " in text
    assert f"{counts['UpsampleNearest']} upsamplings, {counts['Pass']} passes of batch norm, products" in text
    assert f"{counts['Dense']} dense layers, and the ends of {counts['Conv']} convolutions" in text
    x = {"data": np.zeros(graph.inputs["data"].shape, np.float32)}
    run = CapturedRun(graph, x, engine("fast", 1), plan)
    calls = sum(len(step.steps) for step in run._steps)
    assert f"A run is {calls} calls of kernels." in text


def test_how_it_is_measured_is_how_it_is_measured():
    text = " ".join(SECTIONS["How"].replace("\N{MULTIPLICATION SIGN}", "x").split())
    assert f"runs untimed for {1000 * SETTLE:.0f} ms" in text
    assert f"{CHAINS} vectors of independent FMA chains" in text
    depths = [int(name.split("-")[1]) for name in SCALED]
    least, most = (f"{size}x{size}" for size in (SIZES[0], SIZES[-1]))
    assert f"of {depths[0]} to {depths[-1]} layers on images of {least} to {most}" in text
    least, most = (f"{size}x{size}" for size in (LAYERS[0], LAYERS[-1]))
    assert f"{CHANNELS} to {CHANNELS} channels on {least} to {most}" in text
    assert f"A load average above {BUSY} is reported" in text
