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
from refnet.kernels.peak import CHAINS
from refnet.models.catalog import build, entry
from refnet.models.cost import summary
from refnet.models.loading import structure
from refnet.report.bench import BUSY

PAGE = (Path(__file__).parents[1] / "docs" / "performance.md").read_text(encoding="utf-8")
OCTAVE, RESNEST = "octave-se-resnet-50-0.125", "resnest-50-pytorch"
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
        *("What is compared", "How", "The first command compiles", "The model table", "Results"),
        *("Golden's convolutions, 2026-11-30", "Replay, 2026-11-30", "Small networks: where their time goes"),
    }
    assert len(MEASURED) == 10
    assert len(CONSOLES) == 13  # and the commands without an output


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
    assert re.search(r"^the machine was busy: load average [\d.]+ before", block, re.MULTILINE)


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
        macs = summary(build(entry(row["network"]))).macs
        ours, speed = float(row["refnet ms"]), float(row["GFLOP/s"])
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
    whole = [one for name in SCALED for one in times[name][:-1]]
    assert f"of the whole table {max(whole) / min(whole):.2f}" in block
    said = re.search(r"takes ([\d.]+) ns there, and ([\d.]+) ns at 224", PAGE)
    fifty = times["resnet-50-baseline"]
    assert said.groups() == (f"{fifty[SIZES.index(64)]:.3f}", f"{fifty[SIZES.index(224)]:.3f}")


def row_of(run: str) -> str:
    (found,) = re.findall(rf"^\| {re.escape(run)} \|.*\| (.*) \|$", SECTIONS["Results"], re.MULTILINE)
    return found


def test_the_last_figure_of_a_summary_is_the_printed_one():
    """Where the summary gives one figure, or several of which the last is printed below, it is that."""
    bench = f"refnet bench {RESNEST} --against"
    torch1, onnx1, torch2, onnx2 = table(f"{bench} torch,onnxruntime --threads 1,2")
    assert near(row_of(f"{RESNEST} `plain`, 1 thread").split(", ")[-1], float(torch1["paired"]), 0.001)
    both = re.findall(r"^\| the same, 2 threads \| PyTorch \|.*\| (.*) \|$", PAGE, re.MULTILINE)
    assert near(both[0].split(", ")[-1], float(torch2["paired"]), 0.001)
    assert (
        row_of("the same, 1 and 2 threads") == f"{float(onnx1['paired']):.2f} to {float(onnx2['paired']):.2f}"
    )
    golden = [float(row["paired"]) for row in table(f"{bench} torch --arithmetic golden --threads 1,2")]
    earlier = "([before it became faster](#goldens-convolutions-2026-11-30))"
    assert re.findall(r"and ([\d.]+)", row_of(f"{RESNEST} `golden`, 1 and 2 threads {earlier}")) == [
        f"{one:.2f}" for one in golden
    ]
    replay = [
        float(table(f"{bench} torch --threads {n} --arithmetic replay:torch-{n}x1.book.json")[0]["paired"])
        for n in (1, 2)
    ]
    assert row_of(f"{RESNEST} `replay`, 1 and 2 threads") == " and ".join(f"{one:.2f}" for one in replay)
    (slow,) = table(f"{bench} onnx-reference --threads 2")
    times = float(slow["other ms"]) / float(slow["refnet ms"])
    assert row_of(f"{RESNEST} `plain`, 2 threads") == f"1/{times:.0f}"
    eight = [
        table(f"refnet bench {name} --against {who} --threads 2 --batch 1,8 --runs 7")[-1]
        for name, who in ((RESNEST, "torch"), (OCTAVE, "mxnet"))
    ]
    said = re.findall(r"[\d.]+(?= \()", row_of("batch 8, per image, 2 threads"))
    assert all(near(text, float(row["paired"]), 0.001) for text, row in zip(said, eight, strict=True))
    one, two = table(f"refnet bench {OCTAVE} --against mxnet --threads 1,2")
    for found, said in ((one, row_of(f"{OCTAVE} `plain`, 1 thread")), (two, "0.69 to 0.73; 0.85 to 0.91")):
        low, high = re.match(r"([\d.]+) to ([\d.]+)", said).groups()
        assert float(low) <= float(found["paired"]) <= float(high)
    memory = [int(row["refnet MiB"]) / int(row["other MiB"]) for row in (torch1, one, onnx1)]
    pytorch, mxnet, onnx = (f"{one:.2f}" for one in memory)
    assert (pytorch, mxnet, f"{float(onnx):.1f}") == ("0.86", "0.86", "1.1")
    assert row_of("largest memory") == "0.86 (PyTorch and MXNet); 1.1 of ONNX Runtime's"
    start = dict(
        re.findall(r"^(\S.*?) {2,}([\d.]+)$", dict(MEASURED)["refnet bench --startup"], re.MULTILINE)
    )
    named = start["python -c 'import refnet'"], start["refnet --help"]
    assert row_of("`import refnet`, `refnet --help`") == "{:.2f} and {:.2f} s".format(*map(float, named))
    assert row_of("first process, every kernel compiled").startswith(
        f"{float(start['first process, nothing compiled: whole process']):.0f} "
    )
    loading, all_but = (float(start[f"second process: {what}"]) for what in ("loading", "all but running"))
    said = f"{loading:.2f} s ({all_but:.2f} s with the interpreter's start and end)"
    assert row_of("second process, loading") == said


def test_what_the_results_text_says_of_the_tables():
    text = " ".join(SECTIONS["Results"].split())
    rows = table(f"refnet bench {RESNEST} --against torch,onnxruntime --threads 1,2")
    shares = sorted(round(float(row["of peak"][:-1])) for row in rows if row["threads"] == "1")
    one, two = table(f"refnet bench {OCTAVE} --against mxnet --threads 1,2")
    share = round(float(one["of peak"][:-1]))
    assert (
        f"ResNeSt-50 runs at {shares[0]} to {shares[1]} % of the peak, the octave network at {share} %"
        in text
    )
    slow = table(f"refnet bench {OCTAVE} --against mxnet --threads 2 --batch 1,8 --runs 7")[0]
    ours, theirs = ([round(float(row[of])) for row in (slow, two)] for of in ("refnet ms", "other ms"))
    assert (
        f"{ours[0]} ms for the octave network in the run with `--batch 1,8` instead of {ours[1]} in" in text
    )
    assert f"loses less: {theirs[0]} ms instead of {theirs[1]}." in text
    other, flops = float(one["other ms"]), 2e-9 * summary(build(entry(OCTAVE))).macs
    aim, alone = round(0.6 * other), round(1000 * flops / 117)
    assert (
        "measured peak of float32 FMA in registers: 117 GFLOP/s on 1 thread"
        in dict(MEASURED)[f"refnet bench {OCTAVE} --against mxnet --threads 1,2"]
    )
    assert f"0.60 of MXNet's {other:.0f} ms for the octave network on one thread is {aim} ms." in text
    assert (
        f"The network's {flops:.1f} GFLOP alone take {alone} ms at the measured peak of 117 GFLOP/s." in text
    )
    assert f"That leaves {aim - alone} ms for everything else" in text


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
    assert f"A run is {calls} calls of kernels from Python." in text


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
