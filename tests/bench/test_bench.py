"""`refnet bench`: runs in strict turns, statistics, what each program is given, tables, and errors."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import refnet
from refnet.arithmetic.run import run
from refnet.bench.machine import Machine, machine, measured_peak, with_speeds
from refnet.bench.profile import OpTime, Profile, profile
from refnet.bench.race import WARMUP, Pair, Side, compare, count_runs, race
from refnet.bench.scaling import Scale, scaling
from refnet.bench.startup import Process, Start
from refnet.cli import main
from refnet.cli.common import interpreters
from refnet.core.errors import FrameworkError, InputError
from refnet.formats.onnx.export import write_onnx
from refnet.frameworks.launch import (
    MODELS,
    Prepared,
    Racer,
    default_against,
    prepare,
    python,
    torch_callable,
    unfit,
)
from refnet.frameworks.process import Worker
from refnet.models.catalog import entries
from refnet.models.export import export
from refnet.models.loading import structure
from refnet.report import bench as report
from tests.helpers.bits import same_bits

DIGITS = "resnest-digits"

FAKE = """
import os
import numpy as np

def timed(request, arrays, emit):
    def log(what):
        with open(request["log"], "a") as file:
            file.write(request["name"] + what + " ")
    log("load")
    emit("pid", np.array(os.getpid()))
    for i in range(request["runs"]):
        log(str(i))
        emit("seconds", np.array(request["seconds"][i]))
    count = len(next(iter(arrays.values())))
    emit("output", np.eye(10, dtype=np.float32)[[request["answer"]] * count])
    return {}, {}


COMMANDS = {"time": timed}
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "fake.py").write_text(FAKE)
    return tmp_path / "log"


def fake(log: Path, name: str, seconds: list[float], answer: int = 3, slow: bool = False) -> Racer:
    request = {"log": str(log), "name": name, "seconds": seconds, "answer": answer}
    return Racer(name, "1", str(log.parent / "fake.py"), sys.executable, request, slow)


def ready(*racers: Racer) -> Prepared:
    return Prepared(structure(DIGITS), {racer.name: racer for racer in racers})


# Races.


def test_two_programs_run_in_strict_turns_and_warm_up_does_not_count(log: Path) -> None:
    warm = [100.0] * WARMUP
    a, b = fake(log, "a", [*warm, 1.0, 2.0, 9.0]), fake(log, "b", [*warm, 2.0, 8.0, 6.0])
    done: list[int] = []
    pair = race(ready(a, b), (a, 1), (b, 1), 1, 3, done.append)
    turns = [f"{name}{i}" for i in range(WARMUP + 3) for name in "ab"]
    assert log.read_text().split() == ["aload", "bload", *turns]
    assert (pair.ours.seconds, pair.theirs.seconds) == ((1.0, 2.0, 9.0), (2.0, 8.0, 6.0))
    assert (pair.ratio, pair.paired, min(pair.ratios), max(pair.ratios)) == (2 / 6, 0.5, 0.25, 1.5)
    assert pair.agree
    assert sum(done) == WARMUP + 3 == count_runs(ready(a, b), [1], [1], 3)


def test_a_slow_program_runs_less_often(log: Path) -> None:
    a, b = fake(log, "a", [5.0, 1.0, 2.0]), fake(log, "b", [5.0, 3.0, 4.0], slow=True)
    pair = race(ready(a, b), (a, 1), (b, 1), 1, 15)
    assert (pair.ours.seconds, pair.theirs.seconds) == ((1.0, 2.0), (3.0, 4.0))
    assert count_runs(ready(a, b), [1, 2], [1], 15) == 6


def test_other_answers_are_seen_whatever_the_batches(log: Path) -> None:
    times = [1.0] * 9
    a, b, c = fake(log, "a", times), fake(log, "b", times, answer=4), fake(log, "c", times)
    assert not race(ready(a, b), (a, 1), (b, 1), 1, 1).agree
    assert race(ready(a, c), (a, 3), (c, 1), 1, 1).agree


def test_batches_are_compared_per_image_with_the_smallest(log: Path) -> None:
    a, b = fake(log, "refnet", [8.0] * 9), fake(log, "b", [4.0] * 9)
    pairs = compare(ready(a, b), [1], [4, 1], 2)
    found = [(p.ours.batch, p.theirs.name, p.theirs.batch, p.ratio, p.paired) for p in pairs]
    assert found == [(4, "b", 4, 2.0, 2.0), (1, "b", 1, 2.0, 2.0), (4, "refnet", 1, 0.25, 0.25)]
    assert pairs[0].gflops == 2e-9 * ready(a).macs / 2.0


def test_a_worker_that_sends_something_else_is_an_error(log: Path) -> None:
    (log.parent / "fake.py").write_text(FAKE.replace('"seconds", np', '"hours", np'))
    a = fake(log, "a", [1.0] * 9)
    with pytest.raises(FrameworkError, match="sent 'hours' where 'seconds' must come"):
        race(ready(a), (a, 1), (a, 1), 1, 1)


def test_memory_is_that_of_the_worker_itself(log: Path) -> None:
    """Not that of the process which started it: getrusage would report at least the parent's."""
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells the memory of another process")
    held = bytearray(200 << 20)
    held[::4096] = b"x" * len(held[::4096])
    a = fake(log, "a", [1.0] * 9)
    pair = race(ready(a), (a, 1), (a, 1), 1, 1)
    del held
    assert pair.ours.memory is not None
    assert 5 << 20 < pair.ours.memory < 200 << 20


# What each program is given.


def output(prepared: Prepared, batch: int):
    racer = prepared.racers["refnet"]
    with Worker(racer.file, racer.python) as worker:
        request = {**racer.request, "threads": 1, "runs": 1, "settle": 0.0}
        return dict(worker.stream("time", request, prepared.data(batch)))["output"]


def test_refnets_own_worker_runs_the_same_network(tmp_path: Path) -> None:
    prepared = prepare(DIGITS, tmp_path)
    expected = run(prepared.graph, prepared.data(2))["prob"]
    assert same_bits(output(prepared, 2), expected)
    assert not same_bits(expected, run(refnet.load(DIGITS), prepared.data(2))["prob"])  # seed:0, not shipped


def test_a_symbol_file_keeps_its_own_weights_if_they_are_named(tmp_path: Path) -> None:
    graph = refnet.load("octave-se-resnet-digits")
    symbol, params = export(graph, tmp_path / "net")
    network = "octave-se-resnet-digits"
    trained = prepare(symbol, tmp_path, weights=params, network=network)
    assert same_bits(output(trained, 1), run(graph, trained.data(1))["prob"])
    synthetic = prepare(symbol, tmp_path, network=network)
    expected = run(refnet.load(network, weights="seed:0"), synthetic.data(1))["prob"]
    assert same_bits(output(synthetic, 1), expected)


@pytest.mark.parametrize("name", ["net.ckpt", "net.bin", "net.pth.tar", "net.pth"])
def test_any_file_of_weights_keeps_its_own(name: str, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "weights/resnest-digits.pth"
    (tmp_path / name).write_bytes(shipped.read_bytes())
    prepared = prepare(tmp_path / name, tmp_path, network=DIGITS)
    assert prepared.graph.weights_hash() == refnet.load(DIGITS).weights_hash()


def test_what_a_framework_cannot_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"against must be among torch, mxnet, .*, got 'caffe'"):
        prepare(DIGITS, tmp_path, against=["caffe"])
    with pytest.raises(InputError, match=r"torch cannot run resnest-digits: .*ImageNet only"):
        prepare(DIGITS, tmp_path, against=["torch"])
    with pytest.raises(InputError, match="mxnet cannot run resnest-50-pytorch: it is not defined in MXNet"):
        prepare("resnest-50-pytorch", tmp_path, against=["mxnet"])


def test_an_onnx_file_is_timed_with_its_own_weights(tmp_path: Path) -> None:
    graph = refnet.load(DIGITS)
    path = tmp_path / "net.onnx"
    write_onnx(path, graph)
    own = prepare(path, tmp_path)
    assert own.graph.weights_hash() == graph.weights_hash()
    asked = own.racers["refnet"].request
    assert (asked["model"], asked["weights"]) == (str(path), None)
    other = prepare(path, tmp_path, weights="seed:1")
    assert other.graph.weights_hash() != graph.weights_hash()


def test_each_network_has_a_framework_of_its_own_and_torch_has_every_resnest() -> None:
    assert default_against("octave-se-resnet-50-0.125", None) == ("mxnet",)
    assert default_against("net-symbol.json", "resnest-50-pytorch") == ("torch",)
    assert default_against("net-symbol.json", None) == ("mxnet",)
    assert default_against(DIGITS, None) == ()
    names = {torch_callable(name) for name, entry in entries().items() if unfit("torch", entry) is None}
    assert {"resnest.torch:resnest269", "resnest.torch:resnest50_fast_2s2x40d"} < names
    assert len(names) == 11


def stand_in(folder: Path, modules: str) -> Path:
    """A Python that has these modules and no other; it notes that it was asked."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python3"
    path.write_text(f"""#!{sys.executable}
import sys
open({str(folder / "asked")!r}, "a").write(sys.argv[2] + "\\n")
sys.exit(not any(name in sys.argv[2] for name in {modules.split()!r}))
""")
    path.chmod(0o755)
    return path


def test_an_interpreter_is_named_or_found_and_nothing_of_the_current_folder_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH", "MXNET", "ONNXRUNTIME", "ONNX_REFERENCE"):
        monkeypatch.delenv(f"REFNET_PYTHON_{name}", raising=False)
    (tmp_path / "torch").mkdir()  # a folder that would be a module torch
    trap = stand_in(tmp_path / ".venv-torch/bin", "torch mxnet onnxruntime 'onnx'")
    monkeypatch.chdir(tmp_path)
    own, other = stand_in(tmp_path / "own", "torch"), stand_in(tmp_path / "path", "mxnet torch")
    monkeypatch.setattr(sys, "executable", str(own))
    monkeypatch.setenv("PATH", str(other.parent))
    assert python("torch") == str(own)
    assert python("mxnet") == str(other)
    with pytest.raises(
        InputError, match=r"no Python has onnxruntime.*--python PATH, or in REFNET_PYTHON_ONNX"
    ):
        python("onnxruntime")
    with pytest.raises(InputError, match=r"REFNET_PYTHON_ONNX_REFERENCE; in refnet's .*sh onnx`"):
        python("onnx-reference")
    monkeypatch.setenv("REFNET_PYTHON_TORCH", str(other))
    assert python("torch") == str(other)
    assert python("torch", str(trap)) == str(trap)
    monkeypatch.setenv("REFNET_PYTHON_TORCH", "nowhere")
    with pytest.raises(InputError, match="REFNET_PYTHON_TORCH=nowhere: no such file"):
        python("torch")
    with pytest.raises(InputError, match="--python torch=elsewhere: no such file"):
        python("torch", "elsewhere")
    assert not (trap.parent / "asked").exists()


@pytest.mark.parametrize("path", [".", "", "bin", f".{os.pathsep}bin{os.pathsep}"])
def test_a_path_that_has_the_current_folder_runs_nothing_of_it(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traps = [stand_in(tmp_path, "torch"), stand_in(tmp_path / "bin", "torch")]
    other = stand_in(tmp_path / "else", "torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFNET_PYTHON_TORCH", raising=False)
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setenv("PATH", path)
    with pytest.raises(InputError, match="no Python has torch"):
        python("torch")
    monkeypatch.setenv("PATH", os.pathsep.join([path, str(other.parent)]))
    assert python("torch") == str(other)
    assert not any((trap.parent / "asked").exists() for trap in traps)


def test_a_python_with_only_a_folder_of_that_name_beside_it_has_no_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet/__init__.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("REFNET_PYTHON_MXNET", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="no Python has mxnet"):
        python("mxnet")


def test_interpreters_of_the_command_line() -> None:
    assert interpreters([], ["torch"]) == {}
    assert interpreters(["/p=q/python"], ["torch", "mxnet"]) == dict.fromkeys(
        ["torch", "mxnet"], "/p=q/python"
    )
    assert interpreters(["mxnet=x", "y"], ["torch", "mxnet"]) == {"mxnet": "x", "torch": "y"}
    for texts, why in (
        (["x", "y"], "write NAME=y"),
        (["torch=x", "torch=y"], "is duplicated"),
        (["torch="], "names no file"),
        (["torch=x", "y"], "no framework is left"),
        (["troch=x"], "did you mean torch?"),
    ):
        with pytest.raises(InputError, match=why):
            interpreters(texts, ["torch"])


# Peak, profile, scaling.


def test_the_machine_has_a_positive_peak_and_says_what_it_is() -> None:
    assert not machine().peaks  # it takes no time
    here = with_speeds(machine(), [1])
    assert here.peaks[1] > 0.1
    assert not here.bandwidths
    assert here.processor
    assert here.versions["refnet"] == refnet.__version__
    assert measured_peak(2, 0.05) > 0.1


def test_a_profile_counts_every_node_once(tmp_path: Path) -> None:
    prepared = prepare(DIGITS, tmp_path)
    found = profile(prepared, 1, 2, 2)
    assert sum(kind.nodes for kind in found.kinds) == len(prepared.graph.nodes)
    assert sum(kind.macs for kind in found.kinds) == 2 * prepared.macs
    assert all(kind.seconds > 0 for kind in found.kinds)
    assert found.whole > 0
    assert {"Conv 1x1", "Conv 3x3 groups", "BatchNorm"} <= {kind.name for kind in found.kinds}


def test_scaling_counts_multiply_adds_of_each_size() -> None:
    done: list[int] = []
    found = scaling(1, 1, ["octave-se-resnet-digits"], [32, 64], [7], done.append)
    assert [(scale.what, scale.size) for scale in found] == [
        ("octave-se-resnet-digits", 32),
        ("octave-se-resnet-digits", 64),
        ("one 3x3 layer", 7),
        ("one 1x1 layer", 7),
    ]
    assert 3.9 < found[1].macs / found[0].macs < 4.0  # dense layers do not grow
    assert (found[2].macs, found[3].macs) == (128 * 128 * 9 * 49, 128 * 128 * 49)
    assert all(scale.nanoseconds > 0 for scale in found)
    assert sum(done) == 4


# What is printed.

HERE = Machine("Processor", 2, 256, 1.5, "2026-01-02", {"refnet": "0.1.0"}, {1: 100.0, 2: 190.0})
PAIR = Pair(
    "net",
    2,
    10**9,
    True,
    Side("refnet", "0.1.0", 1, (0.020, 0.021, 0.040), 300 << 20),
    Side("torch", "2.13.0", 1, (0.040, 0.030, 0.050), None),
)


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """First word of each line -> the line's words."""
    return {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}


def test_the_table_of_races(capsys: pytest.CaptureFixture[str]) -> None:
    report.show_machine(HERE)
    report.show_pairs([PAIR, replace(PAIR, agree=False, model="other")], HERE)
    lines = printed(capsys)
    expected = "net 2 1 torch 2.13.0 21.00 40.00 0.525 0.700 0.500 0.800 95.2 50.1% 300 same"
    assert lines["net"] == expected.split()
    assert lines["other"][-1] == "DIFFERENT"
    assert "busy:" in lines["the"]
    assert " ".join(lines["measured"]).endswith(": 100 GFLOP/s on 1 thread, 190 GFLOP/s on 2 threads")
    report.show_machine(replace(HERE, load=0.1))
    assert "busy" not in capsys.readouterr().out


def test_the_tables_of_profile_scaling_and_startup(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = (OpTime("Conv3x3", 4, 0.030, 10**9), OpTime("Relu", 2, 0.010, 0))
    report.show_profile(Profile("net", 1, 1, kinds, 0.035), HERE)
    lines = printed(capsys)
    assert lines["Conv3x3"] == ["Conv3x3", "4", "30.00", "75.0%", "66.7", "66.7%"]
    assert lines["Relu"] == ["Relu", "2", "10.00", "25.0%"]
    assert lines["sum"][1] == "40.00"
    assert "35.00" in lines["sum"]
    report.show_scaling([Scale("deep", 64, 10**9, 0.02), Scale("deep", 96, 10**9, 0.03)], 1)
    lines = printed(capsys)
    assert lines["deep"] == ["deep", "0.02000", "0.03000", "1.50"]
    assert lines["64x64"] == ["64x64", "96x96", "factor"]
    first = Process(whole=20.0, importing=0.3, reading=0.5, first=18.0, later=(0.1, 0.2, 0.1))
    second = Process(whole=1.5, importing=0.25, reading=0.125, first=0.5, later=(0.125, 0.25))
    report.show_startup(Start("net", 1, 0.01, 0.02, 0.05, first, second))
    found = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[-14:])
    assert found["first process, nothing compiled: all but running"] == "19.500"
    assert found["second process: a later run"] == "0.188"
    assert found["second process: the interpreter's start and end"] == "0.250"
    assert found["second process: loading"] == "0.688"  # 0.25 + 0.125 + 0.5 - 0.1875
    assert found["second process: all but running"] == "0.938"  # 1.5 - 0.125 - 0.25, and 0.1875 of the first


def test_the_record_is_json_with_every_run() -> None:
    process = Process(9.0, 1.0, 1.0, 3.0, (1.0, 1.0))
    start = Start("net", 1, 0.01, 0.02, 0.05, process, process)
    kinds = (OpTime("Relu", 2, 0.010, 0),)
    whole = report.record(HERE, [PAIR], [Profile("net", 1, 1, kinds, 0.1)], [Scale("x", 7, 10, 1.0)], start)
    read = json.loads(json.dumps(whole, allow_nan=False))
    assert read["pairs"][0]["ours"]["seconds"] == [0.020, 0.021, 0.040]
    assert read["pairs"][0]["ratio"] == PAIR.ratio
    assert read["pairs"][0]["share_of_peak"] == PAIR.gflops / 190
    assert read["scaling"][0]["nanoseconds_per_multiply_add"] == 1e8
    assert read["startup"]["first"]["whole"] == 9.0
    assert read["startup"]["second"]["later"] == [1.0, 1.0]


# The command line.


def test_the_command_line_races_refnet_with_itself(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["bench", DIGITS, "--threads", "1", "--batch", "1,2", "--runs", "2", "--json"]
    assert main(argv) == 0
    read = json.loads(capsys.readouterr().out)
    (pair,) = read["pairs"]
    assert (pair["ours"]["batch"], pair["theirs"]["batch"], pair["agree"]) == (2, 1, True)
    assert len(pair["ratios"]) == 2


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--threads", "1,0"], "'0' is not a positive whole number"),
        (["--run", "3"], "did you mean --runs"),
        (["--startup", "--scaling"], "not allowed with argument"),
    ],
)
def test_wrong_usage(argv: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["bench", *argv])
    assert stop.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([DIGITS, "--against", "caffe"], "against must be among torch"),
        ([DIGITS, "--against", "onnxruntime", "--python", "nowhere"], "onnxruntime=nowhere: no such file"),
        ([DIGITS, "--against", "onnxruntime", "--python", "onnx=x"], "did you mean onnxruntime?"),
        (
            [DIGITS, "--against", "onnxruntime", "--python", "mxnet=x"],
            "no 'mxnet' runs here, but onnx",
        ),
        ([DIGITS, "--against", "none", "--profile", "--python", "x"], "no framework is left for it to run"),
        ([DIGITS, "--against", "none"], "nothing is raced"),
        ([DIGITS, "--against", "onnxruntim"], "did you mean onnxruntime?"),
        ([DIGITS, "--scaling"], "--scaling has its own networks"),
        (["cat.png"], "is an image, but a MODEL is expected here"),
        (["resnest-digit"], "no network is named 'resnest-digit'; did you mean resnest-digits"),
        (["net.onnx"], "net.onnx: found no such file"),
        (["net.onnx", "--module", "nets:make"], "only PyTorch runs it, so --against must name torch"),
        ([DIGITS, "--against", "torch", "--module", "nets:make"], "MODEL must be its export, an .onnx file"),
        (
            ["net.onnx", "--against", "torch", "--module", "nets:make", "--weights", "seed:1"],
            "--weights seed:1: --module nets:make has the weights that it is made with",
        ),
        ([DIGITS, "--path", "src"], "--path src: they say how --module is made, which is not given"),
        (["--scaling", "--module", "nets:make"], "--scaling times refnet alone"),
        (["--startup", "cat.png"], "is an image, but a MODEL is expected here"),
        (["--startup", "resnest-digit"], "no network is named 'resnest-digit'"),
        ([DIGITS, "--arithmetic", "replay:absent.json"], "absent.json: "),
        ([DIGITS, "--arithmetic", "replay:tests"], "the folder has no book resnest-digits.json"),
        ([DIGITS, "--arithmetic", "gold"], "did you mean golden?"),
        ([DIGITS, "--weights", "absent.params"], "absent.params"),
        ([DIGITS, "--image", "2,2"], "the kernel does not fit into"),
        (["--against", "torch,mxnet"], "mxnet cannot run resnest-50-pytorch"),
    ],
)
def test_unusable_arguments(
    argv: list[str], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused before the peak is measured, which takes seconds."""
    measured: list[object] = []
    monkeypatch.setattr("refnet.bench.machine.with_speeds", lambda *args, **named: measured.append(args))
    assert main(["bench", "--threads", "1", *argv]) == 2
    assert why in capsys.readouterr().err
    assert not measured


def test_a_second_network_is_checked_before_the_first_is_raced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a MODEL there are two, each against its own framework."""
    asked: list[str] = []

    def prepared(model: str, folder: Path, **named: object) -> Prepared:
        asked.append(model)
        return ready()

    monkeypatch.setattr("refnet.frameworks.launch.prepare", prepared)
    monkeypatch.setattr("refnet.bench.machine.with_speeds", lambda here, threads: 1 / 0)
    assert main(["bench"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert asked == [*MODELS]
