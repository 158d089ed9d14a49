"""Tables on terminals of any width: whole digits, whole columns, and no line wider than the terminal."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.bench.kernels import KernelCall, KernelTimes
from refnet.bench.machine import Machine
from refnet.bench.profile import OpTime, Profile
from refnet.bench.race import Pair, Side
from refnet.bench.scaling import SIZES, Scale
from refnet.bench.startup import Process, Start
from refnet.cli import main
from refnet.report import bench, golden, terminal
from refnet.report.bench_kernels import show_kernels
from refnet.report.table import Table, body, fitted, heading, length, records, rule
from refnet.report.verify import show_shipped, show_verification
from refnet.verification.verify import Verification

WIDTHS = (40, 60, 72, 80, 100, 120, 200)
RESNEST = "resnest-digits"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(table: Table, width: int) -> tuple[Table, list[str]]:
    """The columns that are kept, and the lines."""
    fit = fitted(table, width)
    if fit.widths is None:
        return fit.table, list(records(fit.table, width))
    return fit.table, [*heading(fit), *rule(fit), *body(fit)]


def places(line: str) -> list[str]:
    """A character per place of the line; a wide one has nothing behind it."""
    return [part for one in line for part in (one, *[""] * (length(one) - 1))]


def check(table: Table, width: int) -> None:
    """What holds of every table at every width."""
    kept, lines = printed(table, width)
    assert max(map(length, lines), default=0) <= width, lines
    gone = set(table.titles) - set(kept.titles)
    full = {n for i, n in enumerate(table.titles) if any(row[i] for row in table.rows)}
    assert gone & full <= set(table.drop)
    if gone & full:  # in the stated order, and only after those without content
        order = [name for name in table.drop if name in full]
        assert set(order[: len(gone & full)]) == gone & full
        assert set(kept.titles) - {""} <= full
    assert kept.rows == tuple(
        tuple(cell for cell, name in zip(row, table.titles, strict=True) if name not in gone)
        for row in table.rows
    )
    fit = fitted(table, width)
    if fit.widths is None:
        text = "".join(line for line in lines)
        for row in kept.rows:
            for cell in row:
                assert cell.replace(" ", "") in text.replace(" ", "")
        return
    for row in kept.rows:
        (first, *others) = body(replace(fit, table=replace(kept, rows=(row,))))
        at = 0
        for name, cell, wide in zip(kept.names, row, fit.widths, strict=True):
            shown = ["".join(places(line)[at : at + wide]).strip() for line in (first, *others)]
            if name.startswith((">", "<")):
                assert shown == [cell, *[""] * len(others)], "a number stands in one line, whole"
            else:
                assert "".join(shown).replace(" ", "") == cell.replace(" ", "")
            at += wide + fit.gap


# Any table.


@pytest.mark.parametrize("seed", range(40))
def test_any_table_at_any_width(seed):
    random = np.random.default_rng(seed)
    words = [
        "layer1.0.conv1",
        "a b c",
        "résumé",
        "",
        "x" * 50,
        "512 of 512 elements",
        "卷积",
        "1 234 567",
        "-",
    ]
    count = int(random.integers(1, 9))
    names = [f"{'<>'[i % 2] if i % 3 else ''}{'column'[: 2 + i % 4]} {i}" for i in range(count)]
    bare = [name.lstrip("<>") for name in names]
    drop = tuple(str(n) for n in random.permutation(bare)[: int(random.integers(0, count + 1))])
    fold = tuple(str(n) for n in random.permutation(bare)[: int(random.integers(0, count + 1))])
    rows = tuple(
        tuple(str(c) for c in random.choice(words, count)) for _ in range(int(random.integers(0, 6)))
    )
    for width in (20, *WIDTHS):
        check(Table(tuple(names), rows, drop, fold), width)


@pytest.mark.parametrize("number", ["0.8190141916275024", "-0.011489156633615494", "1.2345678901234567e-38"])
def test_a_number_in_a_text_stays_whole(number):
    """explain's texts have numbers: `var + eps = 0.8190141916275024`."""
    for text in (f"beta - mean * s, beta = {number}", f"{number}, of all", f"from {number} on"):
        table = Table(("step", "what", ">exact"), (("t", text, "1.5"),), fold=("what",))
        for width in range(len(number) + 14, 60):
            assert any(number in line for line in body(fitted(table, width))), width


def test_columns_go_in_the_stated_order_and_never_a_digit():
    names = ("op", ">values", ">equal", ">defect", ">largest share")
    one = Table(names, (("Relu", "67", "67", "", "0.492"),), drop=("largest share", "values"))
    assert printed(one, 80)[1][2].split() == ["Relu", "67", "67", "0.492"]
    assert printed(one, 30)[0].titles == ("op", "values", "equal", "largest share")  # the empty one first
    assert printed(one, 27)[0].titles == ("op", "values", "equal")
    assert printed(one, 18)[0].titles == ("op", "equal")
    assert printed(one, 10)[1] == ["op: Relu", "values: 67", "equal: 67", "largest", "share:", "0.492"]


# Every table of every command.


@pytest.fixture(scope="module")
def verification() -> Verification:
    """One defect, one value of another shape, many equal and replayed."""
    graph = refnet.load(RESNEST)
    x = {"data": np.full((1, 1, 32, 32), 0.25, np.float32)}
    values = {node.name: value.copy() for node, value in refnet.steps(graph, x)}
    values["layer1.0.bn1"] *= np.float32(1.5)
    values["fc"] = np.nextafter(values["fc"], np.float32(9))
    values["layer1.0.conv1"] = values["layer1.0.conv1"][:, :1]
    return refnet.verify(values, graph, inputs=x)


def races() -> None:
    here = Machine("Processor", 64, 256, 0.1, "2026-01-02", {"refnet": "0.1.0"}, {1: 100.0, 64: 1900.0})
    sides = (
        Side("refnet", "0.1.0", 1, (20.125, 21.5), 300 << 20),
        Side("torch", "2.13.0+cpu", 1, (40.25, 41.5), 9000 << 20),
    )
    bench.show_pairs([Pair("octave-se-resnet-50-0.125", 64, 10**12, False, *sides)], here)
    kinds = (OpTime("GlobalAveragePool 7x7", 104, 12.5, 10**9), OpTime("Relu", 2, 0.010, 0))
    bench.show_profile(Profile(RESNEST, 64, 1, kinds, 12.5), here)
    calls = [
        KernelCall(("a",), kind, "Conv 1x1", "m.k", ((1, 2), (1, 2)), 64, macs, 10**9, 12.5, 12.25)
        for kind, macs in (("Conv 3x3 /2 depthwise", 10**12), ("batch norm, sum, relu", 0))
    ]
    kernels = KernelTimes(RESNEST, 64, 1, tuple(calls), (25.5,), (26.0,), (1.0,))
    show_kernels(kernels, replace(here, bandwidths={64: 300.0}))
    bench.show_scaling([Scale("resnest-50-pytorch", size, 10**9, 0.02) for size in SIZES], 1)
    process = Process(20.0, 0.3, 0.5, 18.0, (0.1, 0.2))
    bench.show_startup(Start(RESNEST, 1, 0.01, 0.02, 0.05, process, process))


def recorded(run: Callable[[], object], monkeypatch) -> list[Table]:
    """The tables that something prints."""
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(terminal, "fitted", lambda whole, width: found.append(whole) or fitted(whole, width))
        run()
    return found


def commands(folder: Path) -> dict[str, list[str]]:
    for name, value in (("a", [1, 2]), ("b", [1, -2])):
        (folder / name).mkdir()
        np.save(folder / name / "layer1.0.value.npy", np.float32(value))
    at = ["--input", "seed:0", "--at"]
    return {
        "models": ["models"],
        "one model": ["models", "octave-se-resnet-50-0.125"],
        "summary": ["summary", "octave-se-resnet-50-0.125"],
        "run": ["run", RESNEST],
        "run golden": ["run", RESNEST, "--arithmetic", "golden", "--profile"],
        "diff": ["diff", str(folder / "a"), str(folder / "b")],
        "explain conv": ["explain", RESNEST, "layer1.0.conv1", *at, "0,3,5,5"],
        "explain relu": ["explain", RESNEST, "relu", *at, "0,3,5,5"],
        "explain prob": ["explain", RESNEST, "prob", *at, "0,3", "--all"],
        "explain bn": ["explain", RESNEST, "layer1.0.bn1", *at, "0,3,5,5"],
        "explain pool": ["explain", RESNEST, "avgpool", *at, "0,3"],
    }


def test_every_table_of_every_command(tmp_path, monkeypatch, verification, capsys):
    found = {
        name: recorded(lambda w=words: main(w), monkeypatch) for name, words in commands(tmp_path).items()
    }
    found["verify"] = recorded(lambda: show_verification(verification, True), monkeypatch)
    found["shipped"] = recorded(lambda: show_shipped([verification, verification], True), monkeypatch)
    found["bench"] = recorded(races, monkeypatch)
    by_op = {"GlobalAveragePool": {"elements": 123456789, "refined": 12345}}
    found["refined"] = recorded(lambda: golden.show_refined(by_op), monkeypatch)
    assert all(found.values()), "a command printed no table"
    for tables in found.values():
        for table in tables:
            for width in WIDTHS:
                check(table, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_verdicts_of_each_op_stay(width, verification, monkeypatch):
    (kinds, values) = recorded(lambda: show_verification(verification, True), monkeypatch)
    fit = fitted(kinds, width)
    kept = fit.table
    row = dict(zip(kept.titles, next(row for row in kept.rows if row[0] == "Relu"), strict=True))
    for verdict in {"equal", "replayed", "defect", "unjudged"} & set(row):
        count = sum(one.kind == "Relu" and one.verdict == verdict for one in verification.nodes)
        assert row[verdict] == (str(count) if count else "")
    if width >= 60:
        assert {"op", "equal", "replayed", "rounding", "defect", "unjudged"} <= set(kept.titles)
        assert fit.widths is not None
    if width >= 72:
        assert {"op", "verdict", "why"} <= set(fitted(values, width).table.titles)
        assert "values" in kept.titles
    if width >= 120:
        assert kept.titles == kinds.titles


@pytest.mark.parametrize("width", WIDTHS)
def test_on_a_terminal_no_line_of_a_table_is_cut(width, verification, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stdout", shown := Terminal())
    races()
    show_shipped([verification], True)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in shown.getvalue().splitlines()]
    assert max(len(line) for line in lines if "─" in line or "octave" in line) <= width
    whole = " ".join(lines)
    for figure in ("12500.00", "20.000", "DIFFERENT", "92"):
        assert figure in whole
    if width >= 60:
        assert ("columns left out: " in whole) == (width < 200)
