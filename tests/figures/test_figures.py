"""The committed figures are those that the code draws today, and can be read by everybody."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from refnet.bench.table import geometric_mean, networks, planned
from refnet.cli import _parsers
from refnet.report.bench_table import COLUMNS, read_rows
from tests.figures import FIGURES, bench, kernels, numbers, packages, races

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
PAGES = [*(FOLDER.parents[1]).glob("*.md"), *FOLDER.parent.rglob("*.md")]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_refnet_computes_today(name):
    """python -m tests.figures draws them anew."""
    assert FIGURES[name]() == (FOLDER / name).read_text(encoding="utf-8")


def test_every_figure_is_drawn_by_code_and_shown_on_a_page():
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"figures/([\w.-]+\.svg)", page.read_text(encoding="utf-8"))
    }
    assert {path.name for path in FOLDER.iterdir()} == set(FIGURES) == shown


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_shows_and_loads_nothing(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    for tag in ("title", "desc"):
        said = root.find(f"{SVG}{tag}")
        assert said is not None
        assert said.text
        assert said.get("id") in root.get("aria-labelledby", "").split()
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"href|url\(|@import|<script|<image", text)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_lies_beyond_a_figure(name):
    """Words are at most 7.6 wide per letter of 14 high, semibold and monospace included."""
    root = ElementTree.fromstring((FOLDER / name).read_text(encoding="utf-8"))
    *_, width, height = map(float, root.get("viewBox", "").split())
    for one in root.iter(f"{SVG}text"):
        words, x, y = one.text or "", float(one.get("x", "")), float(one.get("y", ""))
        wide = len(words) * (8.5 if "mono" in one.get("class", "") else 7.6)
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[one.get("text-anchor", "start")]
        assert 0 <= left < left + wide <= width, words
        assert 12 <= y <= height - 4, words
    for one in root.iter(f"{SVG}rect"):
        x, y = float(one.get("x", 0)), float(one.get("y", 0))
        assert 0 <= x <= width - float(one.get("width", "")), ElementTree.tostring(one)
        assert 0 <= y <= height - float(one.get("height", "")), ElementTree.tostring(one)


def test_the_element_has_three_different_values():
    """Else the figures would show nothing."""
    one = numbers.element()
    assert len({numbers.bits(x) for x in (one.captured, one.plain, one.golden)}) == 3
    assert max(abs(one.place(x)) for x in (one.captured, one.plain, one.golden)) < 1


def test_an_arrow_left_out_follows_from_others():
    """cli imports core in its code, but every way from cli leads there."""
    arrows = packages.needs()
    assert "core" not in arrows["cli"]
    assert arrows["ops"] == {"core"}
    for package, others in arrows.items():
        assert all(packages.PLACES[other][0] > packages.PLACES[package][0] for other in others)


def test_an_addition_rounds_if_its_result_is_not_exact():
    chains, last, total = numbers.rounded([[0, 1], [2]], np.float32([1, 2**-30, 3]))
    assert (chains, last, total) == ([[True], []], [False], 4)


def test_the_tables_of_the_performance_page_are_those_of_the_csv():
    """python -m tests.figures writes them anew."""
    page = bench.PAGE.read_text(encoding="utf-8")
    assert page == races.written(bench.written(page))
    one, *more = bench.rows()
    assert bench.block([one, *more]) in page
    assert bench.block([{**one, "median_of_ratios": "0.123"}, *more]) not in page


def test_the_account_of_the_performance_page_is_made_of_the_csv():
    """python -m tests.figures writes it anew; one layer of other speed would be seen."""
    page = bench.PAGE.read_text(encoding="utf-8")
    assert page == kernels.written(page)
    one, *more = kernels.rows()
    assert kernels.block(page, [one, *more], bench.rows()) in page
    slower = {**one, "lowest_us": str(1e5 + float(one["lowest_us"]))}
    assert kernels.block(page, [slower, *more], bench.rows()) not in page


def test_the_account_is_of_the_networks_above_the_aim_and_the_two_large_ones():
    raced = [r for r in bench.rows() if r["against"] == "mxnet" and r["threads"] == "1"]
    above = {r["network"] for r in raced if float(r["median_of_ratios"]) > 0.70 and "octave" in r["network"]}
    assert {row["network"] for row in kernels.rows()} >= above | set(races.LARGE.split("|"))


def call(network, kind, macs, nbytes, median, lowest, floor, nodes="a b", data="1x64x9x9"):
    row = {"network": network, "kind": kind, "op": kind, "kernel": "m.k", "data": data, "value": "1x8x9x9"}
    row |= {"nodes": nodes, "macs": macs, "bytes": nbytes}
    row |= {"median_us": median, "lowest_us": lowest, "floor_us": floor}
    run = {"threads": 1, "batch": 1, "runs": 5, "run_median_ms": 7.5, "run_lowest_ms": 7, "run_rest_ms": 0.5}
    run |= {"peak_gflop_per_s": 100, "memory_gb_per_s": 10, "load_average": 0.5}
    run |= {"date": "d", "processor": "p"}
    return {name: str(value) for name, value in (row | run).items()}


def test_a_networks_aim_is_the_one_that_is_missed_most():
    """0.70 of MXNet's time; for the large networks also ONNX Runtime's and OpenVINO's, or an output's."""
    name = "octave-se-resnet-50-0.125"
    raced = [("mxnet", "0.68"), ("onnxruntime", "0.94"), ("openvino", "1.04")]
    table = [
        {"network": network, "against": against, "threads": "1", "median_of_ratios": ratio}
        for network in (name, "octave-b")
        for against, ratio in raced
    ]
    row = "resnest-50-pytorch  1  1  {} 1  {}  0.9  1.2  5"
    shown = [row.format(*one) for one in (("torch", "1.9"), ("onnxruntime", "1.02"), ("openvino", "1.08"))]
    page = output("refnet bench resnest-50-pytorch", *shown)
    rows = [{"network": one} for one in (name, "octave-b", "resnest-50-pytorch")]
    found = [(one.ratio, one.most, one.against) for one in kernels.found(page, rows, table)]
    assert found == [(1.04, 1.00, "openvino"), (0.68, 0.70, "mxnet"), (1.08, 1.00, "openvino")]


def test_calls_that_do_the_same_are_one_row_and_needed_shares_follow():
    """5.7 ms of convolutions, 0.4 GFLOP, and 0.9 ms of the rest; the aim is 6.6 ms * 0.70 / 0.75."""
    calls = [
        call("octave-a", "Conv 3x3", 10**8, 10**6, 3000, 2900, 2000),
        call("octave-a", "Conv 3x3", 10**8, 10**6, 3000, 2800, 2000, nodes="c"),
        call("octave-a", "upsampling", 0, 2 * 10**6, 500, 400, 200),
    ]
    text = "\n".join([",".join(calls[0]), *(",".join(one.values()) for one in calls)])
    rows = read_rows(kernels.condensed(text))
    assert [(r["kind"], r["calls"], r["first_nodes"]) for r in rows] == [
        ("Conv 3x3", "2", "a b"),
        ("upsampling", "1", "a b"),
    ]
    assert (rows[0]["macs"], rows[0]["lowest_us"]) == ("200000000", "5700.00")
    aim = {"network": "octave-a", "against": "mxnet", "threads": "1", "median_of_ratios": "0.75"}
    (one,) = kernels.found("", rows, [aim])
    assert (one.ratio, one.most, one.against) == (0.75, 0.70, "mxnet")
    assert one.aim == pytest.approx(6.16)
    assert one.others == pytest.approx(0.9)  # 0.4 ms of upsampling, 0.5 ms outside kernels
    assert one.share(one.others) == pytest.approx(400 / (6.16 - 0.9) / 100)
    assert one.share(0) == pytest.approx(400 / 6.16 / 100)
    assert one.now == pytest.approx(400 / 5.7 / 100)
    lines = kernels.block("", rows, [aim]).splitlines()
    assert "| octave-a |  | 5.70 (70) |  |  |  |  |  | 0.40 (5) |  |  | 6.1 |" in lines
    needed = "| octave-a | 0.75 mxnet, 0.70 | 6.1 | 0.50 | 4.2 | 6.2 | 70.2% | 76.0% | 64.9% |"
    assert needed in lines


HEAD = "network threads batch against paired lowest highest refnet-ms".replace(" ", "  ").replace("-", " ")


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """The folder of the CSVs: that of the model table, and two that somebody is about to measure."""
    monkeypatch.setattr(bench, "DOCS", tmp_path)
    bench.rows.cache_clear()
    path = FOLDER.parent / bench.MODELS.file
    (tmp_path / path.name).write_bytes(path.read_bytes())
    yield tmp_path
    bench.rows.cache_clear()


def write(folder, source, ratio, **more):
    """Every row of a source, with that ratio times the number of threads."""
    first, *_ = read_rows((folder / bench.MODELS.file).read_text(encoding="utf-8"))
    keys = planned(networks(source.chosen), bench.THREADS, [1], source.against)
    base = {**first, "arithmetic": source.arithmetic, "load_average": "0.10", **more}
    found = [
        {**base, **key._asdict(), "median_of_ratios": ratio * key.threads, "lowest_ratio": 0.01}
        for key in keys
    ]
    with (folder / source.file).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(found)


@pytest.mark.parametrize("source", bench.SOURCES, ids=[source.file for source in bench.SOURCES])
def test_the_page_shows_the_command_that_writes_a_csv(source):
    assert f"$ {source.command}\n" in bench.PAGE.read_text(encoding="utf-8")
    arguments = shlex.split(source.command)[1:]
    assert _parsers()[0].parse_args(arguments).table == source.chosen


def test_the_golden_rows_are_of_every_family():
    chosen = " ".join(networks(bench.GOLDEN.chosen))
    for kind in (" resnet-", "se-resnet", "resnext", "densenet", "mobilenet-v1", "mobilenet-v2", "resnest"):
        assert kind in f" {chosen}"


def test_a_csv_that_is_not_there_is_said_to_be_missing_and_then_its_tables_are_shown(measured):
    page = bench.PAGE.read_text(encoding="utf-8")
    before = bench.written(page)
    assert "Not measured yet: the command writes bench-resnest.csv" in before
    assert "resnest.svg" not in before
    write(measured, bench.RESNEST, 0.5)
    after = bench.written(before)
    assert "Not measured yet: the command writes bench-resnest.csv" not in after
    assert "\n66 rows of [bench-resnest.csv](bench-resnest.csv) of 11 networks, 7 pairs each, 2026-" in after
    name = "resnest-50-pytorch"
    assert f"| torch 1.9.1 | 2 | 11 | 1.000 | 1.00 ({name}) | 1.00 ({name}) |\n" in after
    assert "(figures/resnest.svg)" in after
    assert "0.500: reached | 1.000: reached |\n| the same with the rows of bench-table.csv | 1.00 | " in after
    rows = [r for r in bench.rows() if r["against"] == "onnxruntime" and r["threads"] == "1"]
    one = [*(float(r["median_of_ratios"]) for r in rows), *[0.5] * 11]
    assert f"| 1.00 | {geometric_mean(one):.3f}: reached" in after
    assert bench.written(after) == after
    assert ElementTree.fromstring(bench.figure(bench.RESNEST)).get("role") == "img"


def test_goldens_aim_is_one_fiftieth_of_onnx_reference_for_every_row(measured):
    page = bench.PAGE.read_text(encoding="utf-8")
    write(measured, bench.GOLDEN, 0.02, highest_ratio="0.1")
    text = bench.written(page)
    assert "| resnet-26-baseline | onnx-reference 1.9.1 | 77, 1/50 (1/100 to 1/10) | 77, 1/25 (1/" in text
    count = len(networks(bench.GOLDEN.chosen))
    said = f"{count} of {count}, highest 1/50: reached | 0 of {count}, highest 1/25: not reached |"
    assert f"| golden, every row, onnx.reference | 1/50 | {said}" in text
    assert "rows are missing" not in bench.block(bench.rows(bench.GOLDEN), bench.GOLDEN)


def test_a_csv_of_another_arithmetic_is_refused(measured):
    write(measured, bench.GOLDEN, 0.02, arithmetic="plain")
    with pytest.raises(AssertionError, match=r"bench-golden\.csv"):
        bench.written(bench.PAGE.read_text(encoding="utf-8"))


def output(command, *rows):
    return f"```console\n$ {command}\nAMD\n\n{HEAD}\n──────\n" + "\n".join(rows) + "\n```\n"


def test_the_table_of_races_is_made_of_the_outputs_that_the_page_shows():
    page = "\n".join(
        [
            "```console\n$ refnet bench --startup\nseconds\n───\nhelp  0.1\n```\n",
            output("refnet bench a", "resnest-50-pytorch  1  1  openvino 1  1.010  0.990  1.020  5"),
            output(
                "refnet bench b --arithmetic golden \\\n    --threads 1,2",
                "resnest-50-pytorch  1  1  torch 2  1.300  1.200  1.400  5",
                "resnest-50-pytorch  2  1  torch 2  1.500  1.200  1.600  5",
                "resnest-50-pytorch  2  8  torch 2  9.000  9.000  9.000  5",
            ),
            output("refnet bench c", "resnest-50-pytorch  2  1  onnx-reference 1  0.010  0.010  0.011  5"),
        ]
    )
    assert races.block(page).splitlines()[2:] == [
        "| plain | resnest-50-pytorch | openvino 1 | 1.01 (0.99 to 1.02): not reached |  | 1.00 |",
        "| golden | resnest-50-pytorch | torch 2 | 1.30 (1.20 to 1.40): not reached | 1.50 (1.20 to 1.60) | "
        "1.20 and 1.50 |",
        "| plain | resnest-50-pytorch | onnx-reference 1 |  | 1/100 (1/100 to 1/91) |  |",
    ]


def test_what_the_networks_above_their_aim_would_need():
    base = {**bench.rows()[0], "threads": "1", "against": "mxnet", "refnet_gflop_per_s": "80"}
    rows = [{**base, "network": f"octave-{r}", "median_of_ratios": str(r)} for r in (0.70, 0.77, 0.84)]
    said = bench.block(rows).splitlines()[-1]
    assert said.startswith("The 2 octave networks above 0.70 of MXNet's time")
    assert said.endswith("run at 80 to 80 GFLOP/s, and would have to run at 88 to 96.")
    assert bench.block(rows[:1]).splitlines()[-1] == "No octave network is above its aim on one thread."


def test_an_aim_is_reached_by_every_row_or_by_the_mean():
    base = {**bench.rows()[0], "threads": "1", "load_average": "0.10", "same_classes": "yes"}

    def row(network, against, ratio):
        return {**base, "network": network, "against": against, "median_of_ratios": str(ratio)}

    found = [
        row("octave-densenet-a", "mxnet", 0.2),
        row("octave-resnet-b", "mxnet", 0.8),
        row("densenet-c", "mxnet", 5.0),  # no octave network
        row("octave-densenet-a", "onnxruntime", 1.15),
        row("octave-resnet-b", "onnxruntime", 1.0),
    ]
    lines = bench.block(found).splitlines()
    assert [line.split(" | ")[-1] for line in lines[-6:-2]] == [
        "1 of 2, highest 0.80: not reached |",
        "0.400: reached |",
        "1 of 1, highest 1.15: reached |",
        "1.072: not reached |",
    ]
    assert not any("not worth keeping" in line for line in lines)
    assert "not worth keeping" not in bench.block([{**one, "load_average": "1.30"} for one in found])
    busy = bench.block([{**one, "load_average": "1.31"} for one in found])
    assert "not worth keeping" in busy
    assert "0.400: reached, while busy |" in busy
    two = bench.block([{**one, "load_average": "2.31", "threads": "2"} for one in found])
    assert "0.400: not judged |" in two
    both = [*({**one, "load_average": "1.31"} for one in found), {**found[0], "threads": "2"}]
    assert "busy" not in bench.block(both)  # the row before may have had two threads
    assert "229 rows are missing" in two  # 39 x 3 x 2 less these 5
