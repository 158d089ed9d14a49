"""Exit code 1 is a verdict: nothing that goes wrong inside, and no output that fails, ever ends with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import COMMANDS, LIMITED, main
from refnet.cli.common import escaped, memory
from refnet.cli.exit_codes import worst
from refnet.models.weights import shipped_captures

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
VERDICTS = ["verify", "diff", "golden", "prove", "reveal", "capture"]
"""Commands whose exit code 1 means something."""


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A capture of one node whose value is wrong: a defect."""
    folder = tmp_path_factory.mktemp("capture")
    graph, x = refnet.load("resnest-digits"), np.zeros((1, 1, 32, 32), np.float32)
    values = {node.name: value for node, value in refnet.steps(graph, {"data": x}, until=["conv1.2"])}
    name = next(iter(values))
    np.save(folder / "data.npy", x)
    np.save(folder / f"{name}.npy", values[name] + 1)
    return folder, ["verify", str(folder), "resnest-digits", "--only", name]


def ended(argv, *, code=None, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, *(["-m", "refnet"] if code is None else ["-c", code]), *argv]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, check=False, **options)


def test_a_defect_ends_with_1(capture, capsys):
    assert main(capture[1]) == 1
    assert main([*capture[1], "--json"]) == 1


@FULL
def test_a_defect_that_cannot_be_said_ends_with_2(capture):
    with open("/dev/full", "w") as full:
        done = ended([*capture[1], "--json"], stdout=full)
        assert done.returncode == 2
        assert done.stderr.endswith(b"refnet: standard output cannot be written: No space left on device\n")


@FULL
def test_a_report_that_cannot_be_written_ends_with_2(capture, capsys):
    assert main([*capture[1], "--html", "/dev/full"]) == 2
    assert "cannot write /dev/full: it is there already, and no file" in capsys.readouterr().err
    assert Path("/dev/full").is_char_device()  # and was not replaced


@FULL
@pytest.mark.parametrize("argv", [["nothing"], ["diff", "/no", "/no", "--json"]])
def test_an_error_that_cannot_be_said_ends_with_2(argv):
    with open("/dev/full", "w") as full:
        assert ended(argv, stderr=full, stdout=full).returncode == 2
    script = f"exec {sys.executable} -m refnet {' '.join(argv)} 2>&-"
    closed = subprocess.run(["sh", "-c", script], check=False, stdout=subprocess.PIPE)
    assert closed.returncode == 2
    if "--json" in argv:
        assert json.loads(closed.stdout)["error"]["kind"] == "InputError"


RAISING = """
import sys
from refnet import cli
def fails(_):
    raise {error}
for command in cli.COMMANDS:
    command.run = fails
sys.exit(cli.main(sys.argv[1:]))
"""
ARGUMENTS = {
    "verify": ["x"],
    "diff": ["x", "y"],
    "golden": ["x"],
    "prove": ["exp"],
    "reveal": ["torch", "x", "-o", "y"],
    "capture": ["torch", "x", "-o", "y"],
}
ERRORS = ["ZeroDivisionError", "RecursionError", "MemoryError('1 GiB')", "OSError(28, 'full')", "SystemError"]
ERRORS += ["UnicodeEncodeError('utf-8', '\\ud800', 0, 1, 'surrogates')", "ImportError('numba')"]


@pytest.mark.parametrize("command", VERDICTS)
def test_no_internal_failure_ends_with_1(command, monkeypatch, capsys):
    for error in ERRORS:

        def fails(_, error=error):
            raise eval(error)

        with monkeypatch.context() as patch:
            for module in COMMANDS:
                patch.setattr(module, "run", fails)
            assert main([command, *ARGUMENTS[command]]) == 2
        assert capsys.readouterr().out == ""


@FULL
def test_nor_one_that_cannot_be_said():
    with open("/dev/full", "w") as full:
        for error in ERRORS[:1]:
            done = ended(["verify", "x"], code=RAISING.format(error=error), stderr=full)
            assert done.returncode == 2


SURROGATE = '{"__metadata__": {}, "w": {"dtype": "\\ud800", "shape": [1], "data_offsets": [0, 4]}}'


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_half_a_surrogate_pair_in_a_file_is_escaped(tmp_path, encoding):
    """In text and in JSON, whatever the encoding of standard output."""
    weights = tmp_path / "bad.safetensors"
    header = SURROGATE.encode()
    weights.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    symbol = tmp_path / "bad-symbol.json"
    node = {"op": "null", "name": "a\ud800\u00e9", "inputs": []}
    symbol.write_text(json.dumps({"nodes": [node], "arg_nodes": [0], "heads": [[0, 0, 0]]}))
    capture, _ = shipped_captures()[-1]
    for argv in (
        ["verify", str(capture), "--weights", str(weights), "--json"],
        ["summary", str(symbol)],
        ["diff", str(tmp_path / "\udcff\u00e9"), "x", "--json"],
    ):
        done = ended(argv, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(b"refnet: ")
        assert b"Traceback" not in done.stderr
        if "--json" in argv:
            assert json.loads(done.stdout.decode(encoding))["error"]["message"]


def test_the_html_report_escapes_what_is_no_text(tmp_path):
    from refnet.report.html import write
    from tests.helpers.made_verification import verification

    write(tmp_path / "r.html", verification(refnet.load("resnest-digits")), capture="a\ud800<b>")
    assert "a\\ud800&lt;b&gt;" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_defect_in_one_of_several_captures_is_a_defect():
    assert worst([2, 1, 0]) == 1


def test_texts_of_options():
    assert escaped("a\u202eb") == "a\\u202eb"
    assert memory("2T") == 2**41
    assert {module.__name__.rpartition(".")[2] for module in COMMANDS} >= LIMITED


OPTIONS = ["--limit-operations=0", "--limit-memory=x", "--limit-memory=inf", "--limit-operations=nan"]


@pytest.mark.parametrize("option", OPTIONS)
def test_a_limit_that_is_none(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["run", option])
    assert "is not a positive number such as 5e12" in capsys.readouterr().err


def test_a_limit_is_said_and_can_be_raised(tmp_path, capsys):
    argv = ["run", "resnest-digits", "--json"]
    assert main([*argv, "--limit-operations", "1e3"]) == 2
    assert "more than the limit of 1e+03" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main([*argv, "--limit-memory", "1K"]) == 2
    assert "GiB" in capsys.readouterr().err
    assert main([*argv, "--limit-operations", "1e9", "--limit-memory", "1G"]) == 0
