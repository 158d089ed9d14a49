"""`refnet bench --table`: rows, resuming, the state file, regressions, CSV and SVG. The races are faked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from refnet.bench import table as bench_table
from refnet.bench.machine import Machine, measured_bandwidth
from refnet.bench.race import Pair, Side
from refnet.bench.results import MEANING, State, facts, read_state, write_state
from refnet.bench.table import (
    Key,
    Result,
    change,
    compared,
    count_pairs,
    geometric_mean,
    means,
    networks,
    planned,
)
from refnet.cli import main
from refnet.core.errors import FormatError, FrameworkError, InputError, UnsupportedError
from refnet.frameworks import launch
from refnet.frameworks.launch import Prepared, Racer
from refnet.kernels.stream import BLOCK, sums
from refnet.kernels.thread_pool import parallel_for
from refnet.models.catalog import build, entry
from refnet.models.cost import bytes_once, summary
from refnet.report.bench_svg import axis, draw
from refnet.report.bench_table import COLUMNS, csv_text, read_rows

HERE = Machine(
    "Processor", 2, 512, 0.1, "2026-01-02", {"refnet": "0.1.0"}, {1: 100.0, 2: 190.0}, {1: 20.0, 2: 30.0}
)
SMALL, OTHER = "octave-mobilenet-v1-0.75-0.375", "octave-mobilenet-v1-1.0-0.5"
VERSIONS = {"mxnet": "1.9.1", "torch": "2.13.0", "onnxruntime": "1.31.1", "openvino": "2026.4.1"}


def pair(
    ours: Sequence[float] = (0.5, 0.6, 0.7),
    network: str = SMALL,
    threads: int = 1,
    against: str = "mxnet",
    version: str = "1.9.1",
    batch: int = 1,
) -> Pair:
    """A race in which the framework always takes a second, so that the ratios are refnet's seconds."""
    left = Side("refnet", "0.1.0", batch, tuple(ours), 100 << 20)
    right = Side(against, version, batch, (1.0,) * len(ours), None)
    return Pair(network, threads, 10**9, True, left, right)


def result(*args: Any, **kwargs: Any) -> Result:
    return Result(pair(*args, **kwargs), 80_000_000, 0.25, "2026-01-02")


# Which rows.


def test_the_table_is_every_network_of_imagenet_or_those_that_are_chosen() -> None:
    whole = networks("")
    assert len(whole) == 50
    assert "octave-se-resnet-digits" not in whole
    assert len(networks("mxnet")) == 39  # the rows of OctConv's two tables
    assert list(networks("resnest-50-pytorch")) == ["resnest-50-pytorch"]  # a whole name is no part of others
    assert list(networks("RESNET-26-BASE, densenet-121-b")) == ["densenet-121-baseline", "resnet-26-baseline"]
    with pytest.raises(InputError, match=r"--table octav3: no network of ImageNet has that"):
        networks("octave,octav3")
    with pytest.raises(InputError, match="--table digits: no network"):
        networks("digits")


def test_a_network_is_raced_against_the_frameworks_that_have_it() -> None:
    chosen = networks(f"{SMALL},resnest-50-pytorch")
    keys = planned(chosen, [1, 2], [1], ["mxnet", "torch", "onnxruntime"])
    assert [(key.network[:7], key.threads, key.against) for key in keys] == [
        ("resnest", 1, "torch"),
        ("resnest", 1, "onnxruntime"),
        ("resnest", 2, "torch"),
        ("resnest", 2, "onnxruntime"),
        ("octave-", 1, "mxnet"),
        ("octave-", 1, "onnxruntime"),
        ("octave-", 2, "mxnet"),
        ("octave-", 2, "onnxruntime"),
    ]
    with pytest.raises(InputError, match="--against mxnet: none of them has resnest-50-pytorch; add torch"):
        planned(chosen, [1], [1], ["mxnet"])
    with pytest.raises(InputError, match=r"against must be among .*'caffe'"):
        planned(chosen, [1], [1], ["caffe"])


def test_runs_are_counted_for_the_progress_bar() -> None:
    keys = [Key(SMALL, 1, 1, name) for name in ("mxnet", "onnx-reference")]
    assert count_pairs(keys, 7) == (1 + 7) + (1 + 2)  # warm-up, and the slow one runs twice


# Racing and resuming, with a race that is none.


class Races:
    """In the place of `race`: counts what is raced, says `seconds`, and stops before the row `stop`. Those
    that are broken cannot be raced (frameworks), or not be made (network and framework). measured: how often
    the machine's speeds were.
    """

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.seconds: Callable[[Key], tuple[float, ...]] = lambda key: (0.5, 0.6, 0.7)
        self.stop: int | None = None
        self.error: BaseException = KeyboardInterrupt()
        self.broken: set[str] = set()
        self.measured = 0

    def race(
        self,
        prepared: Prepared,
        ours: tuple[Racer, int],
        theirs: tuple[Racer, int],
        threads: int,
        runs: int,
        advance: Callable[[int], object],
    ) -> Pair:
        key = Key(prepared.graph.name, threads, theirs[1], theirs[0].name)
        if len(self.keys) == self.stop:
            raise self.error
        if key.against in self.broken:
            raise FrameworkError("it died")
        self.keys.append(key)
        assert ours[0].name == "refnet"
        assert ours[1] == key.batch
        return pair(self.seconds(key), key.network, threads, key.against, theirs[0].version, theirs[1])

    def prepare(
        self, model: str, folder: Path, *, against: Sequence[str], image: tuple[int, int], **rest: Any
    ) -> Prepared:
        assert not any(folder.iterdir())
        (folder / "file").touch()
        for name in against:
            if f"{model} {name}" in self.broken:
                raise UnsupportedError(f"{name} has no such layer")
        return prepared(model, against, image)

    def with_speeds(self, here: Machine, threads: Sequence[int], memory: bool = False) -> Machine:
        assert memory
        self.measured += 1
        return HERE


def prepared(model: str, against: Sequence[str], image: tuple[int, int]) -> Prepared:
    racers = {n: Racer(n, VERSIONS.get(n, "0.1.0"), "file", "python", {}) for n in ("refnet", *against)}
    return Prepared(build(entry(model), image), racers)


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> Races:
    made = Races()
    monkeypatch.setattr(bench_table, "race", made.race)
    monkeypatch.setattr(launch, "prepare", made.prepare)
    monkeypatch.setattr(launch, "python", lambda name, given=None: given or f"python-of-{name}")
    monkeypatch.setattr(launch, "framework_version", lambda name, path: VERSIONS[name])
    here = replace(HERE, peaks={}, bandwidths={})
    monkeypatch.setattr("refnet.bench.machine.machine", lambda: here)
    monkeypatch.setattr("refnet.bench.machine.with_speeds", made.with_speeds)
    return made


TABLE = (
    "bench",
    "--table",
    "mobilenet-v1",
    "--against",
    "mxnet,onnxruntime",
    "--runs",
    "3",
    "--image",
    "32,32",
)


def test_a_run_that_is_stopped_goes_on_where_it_was(
    races: Races, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, table = tmp_path / "state.json", tmp_path / "t.csv"
    argv = [*TABLE, "--state", str(state), "--csv", str(table)]
    races.stop = 3
    assert main(argv) == 130
    assert list(read_state(state).rows) == races.keys  # all three that were done, and nothing of the fourth
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "refnet: 3 of 8 rows are finished; the same command goes on from there",
        "refnet: interrupted",
    ]
    assert "5 rows were not reached: " in said.out
    assert "geometric mean" in said.out
    assert len(read_rows(table.read_text())) == 3
    races.stop, first = None, list(races.keys)
    assert main(argv) == 0
    wanted = planned(networks("mobilenet-v1"), [1, 2], [1], ["mxnet", "onnxruntime"])
    assert races.keys == wanted  # each row was raced once
    assert first == wanted[:3]
    kept = state.read_bytes()
    out = capsys.readouterr().out
    assert "geometric mean" in out
    assert "20.0 GB/s on 1 thread, 30.0 GB/s on 2 threads" in out
    assert len(read_rows(table.read_text())) == 8
    assert races.measured == 2
    assert main(argv) == 0
    assert races.keys == wanted  # nothing was left to do
    assert state.read_bytes() == kept
    assert races.measured == 2
    assert capsys.readouterr().out == out  # with the speeds of the file
    assert main([*argv, "--threads", "1", "--batch", "2"]) == 0  # other rows join them
    assert len(races.keys) == len(read_state(state).rows) == len(wanted) + 4


def test_a_row_is_kept_though_the_file_was_being_written_when_it_was_stopped(
    races: Races, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from refnet.bench import results

    written: list[State] = []

    def write(path: Path, state: State) -> None:
        written.append(state)
        if len(written) == 2:
            raise KeyboardInterrupt
        write_state(path, state)

    monkeypatch.setattr(results, "write_state", write)
    assert main([*TABLE, "--state", str(tmp_path / "s.json")]) == 130
    assert list(read_state(tmp_path / "s.json").rows) == races.keys
    assert len(races.keys) == 2


def test_a_row_that_fails_is_named_and_the_others_go_on(
    races: Races, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, table = tmp_path / "s.json", tmp_path / "t.csv"
    races.broken = {"onnxruntime"}
    argv = [*TABLE, "--threads", "1", "--state", str(state), "--csv", str(table)]
    assert main(argv) == 2
    said = capsys.readouterr()
    wanted = planned(networks("mobilenet-v1"), [1], [1], ["mxnet", "onnxruntime"])
    for key in wanted:
        words = f"{key}: it died"
        assert (words in said.err) == (f"failed: {words}" in said.out) == (key.against == "onnxruntime")
    assert races.keys == [*read_state(state).rows] == [key for key in wanted if key.against == "mxnet"]
    assert len(read_rows(table.read_text())) == 2
    races.broken = set()
    assert main([*argv, "--json"]) == 0  # what failed is tried again
    assert sorted(races.keys) == sorted(wanted)
    assert json.loads(capsys.readouterr().out)["failed"] == []


def test_a_network_that_cannot_be_made_for_one_framework_is_raced_against_the_others(
    races: Races, capsys: pytest.CaptureFixture[str]
) -> None:
    races.broken = {f"{SMALL} onnxruntime"}
    assert main([*TABLE, "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert {(one["network"], one["against"], one["why"]) for one in said["failed"]} == {
        (SMALL, "onnxruntime", "onnxruntime has no such layer")
    }
    wanted = planned(networks("mobilenet-v1"), [1, 2], [1], ["mxnet", "onnxruntime"])
    assert races.keys == [key for key in wanted if (key.network, key.against) != (SMALL, "onnxruntime")]


def test_a_table_of_which_every_row_fails_writes_nothing(
    races: Races, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    races.broken = {"onnxruntime", "mxnet"}
    assert main([*TABLE, "--state", str(tmp_path / "s"), "--csv", str(tmp_path / "t")]) == 2
    assert capsys.readouterr().out.count("failed: ") == 8
    assert not any(tmp_path.iterdir())


def test_what_has_become_slower_decides_the_exit_code_although_a_row_failed(
    races: Races, tmp_path: Path
) -> None:
    assert main([*TABLE, "--state", str(tmp_path / "s")]) == 0
    races.broken, races.seconds = {"onnxruntime"}, lambda key: (5.0, 5.0, 5.0)
    assert main([*TABLE, "--baseline", str(tmp_path / "s")]) == 1


def test_networks_that_a_framework_lacks_are_named(races: Races, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["bench", "--table", "resnest-50-p,mobilenet", "--threads", "1", "--image", "32,32"]
    assert main([*argv, "--against", "torch,mxnet"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"no row against torch of {SMALL}, {OTHER}, octave-mobilenet-v2-1.0-0.375, and 1 more: the" in out
    assert "no row against mxnet of resnest-50-pytorch: it is not defined in MXNet" in out
    assert main([*argv, "--against", "torch,mxnet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["without"]
    assert [(one["against"], len(one["networks"])) for one in found] == [("torch", 4), ("mxnet", 1)]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("processor", "Another", "another machine: its processor is Another, here it is Processor"),
        (
            "versions",
            {"refnet": "0.0.9"},
            "other versions: its versions say refnet 0.0.9, here refnet is 0.1.0",
        ),
        ("versions", {"refnet": "0.1.0", "more": None}, "its versions say more None, here more is None"),
        ("kernels", "0" * 16, "other kernels of refnet"),
        ("kernels", "0" * 1000, "its kernels is 0{80}, here"),
        ("image", None, r"other image sizes: its image is None, here it is \[32, 32\]"),
        ("runs", 5, "another number of runs"),
    ],
)
def test_a_state_of_another_run_is_refused(
    name: str, value: object, why: str, races: Races, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state.json"
    assert main([*TABLE, "--state", str(state)]) == 0
    count = len(races.keys)
    record = json.loads(state.read_text())
    record["facts"][name] = value
    state.write_text(json.dumps(record))
    before, races.measured = state.read_bytes(), 0
    capsys.readouterr()
    assert main([*TABLE, "--state", str(state)]) == 2
    assert not races.measured
    assert re.search(why, " ".join(capsys.readouterr().err.split()))
    assert len(races.keys) == count
    assert state.read_bytes() == before
    usable = name in ("versions", "kernels", "runs")  # what refnet may differ in, to be compared
    assert main([*TABLE, "--baseline", str(state)]) == (0 if usable else 2)


def test_rows_against_another_version_of_a_framework_are_refused(
    races: Races, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.json"
    assert main([*TABLE, "--state", str(state)]) == 0
    monkeypatch.setitem(VERSIONS, "mxnet", "2.0")
    races.measured = 0
    for option in ("--state", "--baseline"):
        assert main([*TABLE, option, str(state)]) == 2
        assert "measured against mxnet 1.9.1, here it is 2.0" in capsys.readouterr().err
    assert not races.measured


# The state file.

FACTS = facts(HERE, "0123456789abcdef", "plain", None, 3)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [result(), result(threads=2), replace(result((1e-9, 2, 3), OTHER), load=None)]
    state = State(FACTS, HERE.peaks, HERE.bandwidths, {row.key: row for row in rows})
    write_state(tmp_path / "s", state)
    assert read_state(tmp_path / "s") == state
    assert set(FACTS) == set(MEANING)


DAMAGES: list[tuple[str, Callable[[Any], object]]] = [
    ("format", lambda s: s.update(version=2)),
    ("only the keys", lambda s: s.update(more=1)),
    ("the key rows", lambda s: s.pop("rows")),
    ("the key runs", lambda s: s["facts"].pop("runs")),
    ("an object", lambda s: s.update(facts=[])),
    ("a list", lambda s: s.update(rows={})),
    ("each row once", lambda s: s["rows"].append(s["rows"][0])),
    ("the key pair", lambda s: s["rows"][0].pop("pair")),
    ("peaks: .*1 threads", lambda s: s["peaks"].pop("1")),
    ("positive numbers", lambda s: s["peaks"].update({"1": 0})),
    ("positive numbers", lambda s: s["bandwidths"].update({"-1": 2.0})),
    ("positive numbers", lambda s: s.update(peaks=[1.0])),
    ("a program's seconds", lambda s: s["rows"][0]["pair"]["ours"].update(seconds=[])),
    ("a program's seconds", lambda s: s["rows"][0]["pair"]["ours"].update(seconds=[True] * 3)),
    ("a program's seconds", lambda s: s["rows"][0]["pair"]["ours"].update(seconds=[0.0, 1.0, 1.0])),
    ("a program's seconds", lambda s: s["rows"][0]["pair"]["theirs"].update(seconds=[1e300] * 3)),
    ("a program's seconds", lambda s: s["rows"][0]["pair"]["ours"].update(batch=0)),
    ("the row of a table", lambda s: s["rows"][0]["pair"]["ours"].update(seconds=[1.0])),
    ("the row of a table", lambda s: s["rows"][0]["pair"].update(threads=True)),
    ("the row of a table", lambda s: s["rows"][0]["pair"].update(agree="yes")),
    ("the row of a table", lambda s: s["rows"][0].update(moved=0)),
    ("the row of a table", lambda s: s["rows"][0].update(load=-1.0)),
]


@pytest.mark.parametrize(("why", "damage"), DAMAGES)
def test_a_damaged_state_is_refused(why: str, damage: Callable[[Any], object], tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_state(path, State(FACTS, HERE.peaks, HERE.bandwidths, {result().key: result()}))
    record = json.loads(path.read_text())
    damage(record)
    path.write_text(json.dumps(record))
    with pytest.raises(FormatError, match=why):
        read_state(path)


def test_a_state_that_is_no_json_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_text('{"format": NaN}')
    with pytest.raises(FormatError, match="no JSON"):
        read_state(tmp_path / "s")
    with pytest.raises(InputError, match="No such file"):
        read_state(tmp_path / "none")


# Regressions.


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        ((0.5, 0.6, 0.7), (0.71, 0.8, 0.9), "slower"),
        ((0.5, 0.6, 0.7), (0.70, 0.8, 0.9), ""),  # one pair of now is explained by one of then
        ((0.5, 0.6, 5.0), (0.8, 0.9, 1.0), ""),  # the spread of then explains it
        ((0.5, 0.6, 0.7), (0.4, 0.3, 0.49), "faster"),
        ((0.5, 0.6, 0.7), (0.5, 0.6, 0.7), ""),
    ],
)
def test_a_row_is_slower_if_no_spread_explains_it(
    then: tuple[float, ...], now: tuple[float, ...], verdict: str
) -> None:
    assert change(result().key, pair(then), pair(now)).verdict == verdict


def test_the_chance_of_a_false_alarm_is_that_of_one_order_among_all() -> None:
    """Ranks of n + m values that are drawn alike: counted, not assumed."""
    from itertools import combinations

    n, m = 3, 4
    orders = list(combinations(range(n + m), n))  # which ranks the ratios of now have
    slower = sum(min(ranks) > max(set(range(n + m)) - set(ranks)) for ranks in orders)
    found = change(result().key, pair((0.5,) * m), pair((0.5,) * n))
    assert (slower, 1 / len(orders)) == (1, found.chance)
    assert compared({result().key: result()}, {result().key: result()}).expected == 1 / 20


def test_regressions_are_named_and_decide_the_exit_code(
    races: Races, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, argv = tmp_path / "then.json", [*TABLE, "--threads", "1"]
    assert main([*argv, "--threads", "1,2", "--state", str(state)]) == 0
    races.seconds = lambda key: (0.8, 0.9, 1.0) if key == Key(OTHER, 1, 1, "mxnet") else (0.4, 0.6, 0.7)
    capsys.readouterr()
    assert main([*argv, "--baseline", str(state)]) == 1
    lines = capsys.readouterr().out.splitlines()
    (found,) = [line.split() for line in lines if line.startswith("slower")]
    assert found == ["slower", OTHER, "1", "1", "mxnet", "0.500", "0.700", "0.800", "1.000"]
    (said,) = [line for line in lines if "rows compared" in line]
    assert said.startswith(f"4 rows compared with {state}: 1 slower, 0 faster.")
    assert any(line.startswith("4 rows are only in the baseline") for line in lines)
    races.seconds = lambda key: (0.4, 0.6, 0.7)
    assert main([*argv, "--baseline", str(state), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert [one["verdict"] for one in read["comparison"]["changes"]] == [""] * 4
    assert read["comparison"]["expected_slower_by_chance"] == 4 / 20
    assert len(read["pairs"]) == len(read["rows"]) == 4
    assert read["means"][-1]["rows"] == 4


# Means, CSV and SVG.


def test_means_are_geometric_of_each_column_and_of_all() -> None:
    rows = [
        result((0.5,) * 3),
        result((2.0,) * 3, OTHER),
        result((4.0,) * 3, against="onnxruntime"),
        result((0.25,) * 3, threads=2),
    ]
    found = {mean[:3]: (mean.rows, round(mean.ratio, 9)) for mean in means(rows)}
    assert found == {
        ("mxnet", 1, 1): (2, 1.0),
        ("onnxruntime", 1, 1): (1, 4.0),
        ("mxnet", 2, 1): (1, 0.25),
        ("mxnet", None, None): (3, round(0.25 ** (1 / 3), 9)),
        ("onnxruntime", None, None): (1, 4.0),
        (None, None, None): (4, 1.0),
    }
    assert geometric_mean([3.0]) == pytest.approx(3.0, rel=1e-15)
    first = means(rows)[0]
    assert (first.best.key.network, first.worst.key.network) == (SMALL, OTHER)


def uneven() -> Result:
    """A row whose ratio of medians is 3 (6 to 2 seconds), and whose pairs' ratios are 1, 3 and 1."""
    left = Side("refnet", "0.1.0", 1, (1.0, 6.0, 8.0), None)
    right = Side("mxnet", "1.9.1", 1, (1.0, 2.0, 8.0), None)
    return Result(Pair(SMALL, 1, 10**9, True, left, right), 80_000_000, 0.25, "2026-01-02")


def test_a_row_counts_with_the_median_of_its_pairs_ratios_in_means_and_drawing() -> None:
    """As in the columns `paired` and `lowest` to `highest`, and as a regression is found."""
    row = uneven()
    assert (row.pair.ratio, row.pair.paired) == (3.0, 1.0)
    rows = [row, result((2.0,) * 3, OTHER), result((0.5,) * 3, "resnet-26-baseline")]
    (mean,) = means(rows)
    assert (round(mean.ratio, 9), mean.best.key.network, mean.worst.key.network) == (
        1.0,
        "resnet-26-baseline",
        OTHER,
    )
    found = read_rows(csv_text(rows, HERE))
    assert draw(found) == draw([{**one, "ratio_of_medians": "0.1"} for one in found])
    assert draw(found) != draw([{**one, "median_of_ratios": "0.1"} for one in found])


def test_the_csv_has_a_row_per_race_with_units() -> None:
    (found,) = read_rows(csv_text([result((0.5, 0.7, 0.6), threads=2)], HERE))
    assert tuple(found) == COLUMNS
    expected = {
        **{"network": SMALL, "threads": "2", "batch": "1", "arithmetic": "plain"},
        **{"against": "mxnet", "version": "1.9.1"},
        **{"pairs": "3", "refnet_ms_per_image": "600.000", "other_ms_per_image": "1000.000"},
        **{"ratio_of_medians": "0.6000", "median_of_ratios": "0.6000"},
        **{"lowest_ratio": "0.5000", "highest_ratio": "0.7000"},
        **{"gflop_per_image": "2.0000", "refnet_gflop_per_s": "3.33", "peak_gflop_per_s": "190.00"},
        **{"mb_once": "80.000", "flop_per_byte": "25.000", "memory_gb_per_s": "30.00"},
        **{"roof_gflop_per_s": "190.00", "refnet_mib": "100", "other_mib": "", "same_classes": "yes"},
        **{"load_average": "0.25", "date": "2026-01-02", "processor": "Processor"},
    }
    assert found == expected
    (golden,) = read_rows(csv_text([result()], HERE, "golden"))
    (replay,) = read_rows(csv_text([result()], HERE, "replay:a/folder"))
    assert (golden["arithmetic"], replay["arithmetic"]) == ("golden", "replay")
    assert "time in golden / the framework" in draw([golden])
    slow = replace(HERE, bandwidths={2: 5.0})
    assert read_rows(csv_text([result(threads=2)], slow))[0]["roof_gflop_per_s"] == "125.00"


def some_rows() -> list[Result]:
    return [
        result((0.1 * (i + 1) * t,) * 3, network, t, against)
        for i, network in enumerate((SMALL, OTHER, "resnest-50-fast-1s1x64d-pytorch"))
        for t in (1, 2)
        for against in ("mxnet", "torch", "onnxruntime", "openvino", "onnx-reference")
    ]


def test_a_csv_has_one_drawing_and_every_ratio_is_in_it() -> None:
    text = csv_text(some_rows(), HERE)
    drawn = draw(read_rows(text))
    assert drawn == draw(read_rows(text))
    root = ElementTree.fromstring(drawn)
    marks = [one for one in root.iter() if one.get("fill-rule") == "evenodd"]
    assert len(marks) == 30 + 10 + 5 + 6 + 2  # rows, means, the legend, points below two roofs, their legend
    assert len(drawn.encode()) < 100_000
    words = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {SMALL, OTHER, "geometric mean", "filled: 1 thread; open: 2"} <= set(words)
    assert "1 thread: the roof is 100 GFLOP/s and 20.0 GB/s" in words
    other = draw(read_rows(csv_text([result((0.11,) * 3), *some_rows()[1:]], HERE)))
    assert other != drawn
    with pytest.raises(InputError, match="without a row"):
        draw([])


def test_a_mark_lies_where_its_ratio_is() -> None:
    x = axis([0.25, 4.0], 100, 500, 10)
    assert (x.low, x.high) == (0.2, 5.0)
    assert x(1.0) == pytest.approx(300, abs=1e-9)
    assert x(0.2) == 100
    drawn = draw(read_rows(csv_text([result((0.5,) * 3), result((2.0,) * 3, OTHER)], HERE)))
    places = [
        float(x)
        for x in re.findall(r'class="minus" fill-rule="evenodd" transform="translate\(([\d.]+) ', drawn)
    ]
    legend, half, double, mean, *_ = places
    (one,) = [float(x) for x in re.findall(r'<path class="way" d="M([\d.]+) 92V', drawn)]
    assert one - half == pytest.approx(double - one, abs=0.11)  # one decimal is written
    assert mean == pytest.approx(one, abs=0.11)
    assert legend < half < one < double


def test_files_are_written_from_the_command_line(races: Races, tmp_path: Path) -> None:
    table, drawing = tmp_path / "t.csv", tmp_path / "t.svg"
    assert main([*TABLE, "--csv", str(table), "--svg", str(drawing)]) == 0
    rows = read_rows(table.read_text())
    assert len(rows) == 8
    assert drawing.read_text() == draw(rows)
    graph = build(entry(SMALL), (32, 32))
    assert float(rows[0]["mb_once"]) == pytest.approx(1e-6 * bytes_once(graph), abs=5e-4)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["bench", SMALL, "--table"], f"{SMALL}: --table has its own networks"),
        (["bench", "--table", "--weights", "seed:1"], "--weights seed:1: --table has its own networks"),
        (["bench", "--table", "--profile"], "--profile: --table has its own networks"),
        (["bench", "--table", "--arithmetic", "replay:b.json"], "a book is of one network"),
        (["bench", "--table", SMALL, "--arithmetic", "replay:tests"], f"the folder has no book {SMALL}.json"),
        (["bench", "--table", "--against", "none"], "--table races refnet against frameworks"),
        (["bench", "--table", "--state", "a", "--baseline", "./a"], "it is the --state of this run, too"),
        (["bench", "--table", "--state", "a", "--csv", "./a"], "--csv a: it is the --state of this run, too"),
        (["bench", "--table", "--csv", "no/such/t.csv"], "--csv no/such/t.csv: there is no such folder"),
        (["bench", "--table", "--svg", "tests"], "--svg tests: it is there already, and not a file"),
        (["bench", "--table", "--arithmetic", "gold"], "arithmetic must be plain, golden or replay:BOOK"),
        (["bench", "--table", "--image", "1,1"], "the kernel does not fit into"),
        (["bench", "--table", "--state", "README.md"], "README.md: "),
        (["bench", "--table", "--python", "torhc=x"], "did you mean torch?"),
        (["bench", "--state", "a"], "--state a: it belongs to --table"),
        (["bench", "--scaling", "--svg", "a"], "--svg a: it belongs to --table"),
        (["bench", "--table", "--baseline", "absent.json"], "absent.json: cannot be read"),
        (["bench", "--table", "nothing"], "--table nothing: no network"),
    ],
)
def test_what_does_not_fit_the_table_is_refused_before_anything_runs(
    argv: list[str], why: str, races: Races, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert why in capsys.readouterr().err
    assert (races.keys, races.measured) == ([], 0)


# The roofline's figures.


def test_the_stream_kernel_reads_every_number() -> None:
    data = np.arange(3 * BLOCK, dtype=np.int64).reshape(3, BLOCK)
    out = np.empty(3, np.int64)
    parallel_for(sums, 3, 2, data, out)
    assert out.tolist() == data.sum(1).tolist()


def test_the_memory_has_a_speed() -> None:
    assert 0.01 < measured_bandwidth(1, 0.01, 1 << 22) < 1e5


def test_bytes_are_weights_once_and_images_per_batch() -> None:
    graph = build(entry(SMALL), (32, 32))
    one, two = bytes_once(graph), bytes_once(graph, 2)
    cost = summary(graph)
    weights = 4 * (cost.parameters + cost.statistics)
    assert one == cost.bytes + 4 * 3 * 32 * 32
    assert two - one == one - weights
