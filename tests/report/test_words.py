"""The words of the terminal's reports: singulars, distances across zero, shares, one line per reference."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.report.verify import show_shipped, show_verification
from tests.helpers.verifying import save

RESNEST = "resnest-digits"


@pytest.fixture(scope="module")
def graph() -> refnet.Graph:
    return refnet.load(RESNEST)


@pytest.fixture(scope="module")
def values(graph) -> dict[str, np.ndarray]:
    x = {"data": np.full((1, 1, 32, 32), 0.25, np.float32)}
    return {node.name: value.copy() for node, value in refnet.steps(graph, x)} | x


def judged(graph, values, only=("fc",), **changed) -> refnet.Verification:
    """What is said of some values, of which some are changed."""
    x = {"data": values["data"]}
    return refnet.verify(values | changed, graph, inputs=x, only=only)


def test_no_number_of_ulps_across_zero(graph, values, capsys):
    show_verification(judged(graph, values, fc=-values["fc"]), True)
    out = capsys.readouterr().out
    assert "captured and plain: opposite signs" in out
    assert "ulp" not in out
    show_verification(judged(graph, values, fc=values["fc"] * np.float32(1.001)), True)
    assert re.search(r"captured and plain: \d{4,6} ulps apart", capsys.readouterr().out)
    show_verification(judged(graph, values, fc=values["fc"] * np.float32(np.nan)), True)
    assert "captured and plain: one is NaN" in capsys.readouterr().out


def test_diff_counts_no_ulps_across_zero(tmp_path, capsys):
    for name, value in (("a", [1, 2]), ("b", [-1, -2]), ("c", [-1, np.float32(2) + np.float32(2**-22)])):
        save(tmp_path / name, {"y": np.float32(value)})
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert capsys.readouterr().out.splitlines()[2].split() == ["y", "different", "[2]", "2", "of", "2", "4"]
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "c")]) == 1
    assert capsys.readouterr().out.splitlines()[2].split() == [
        "y",
        "different",
        "[2]",
        "2",
        "of",
        "2",
        "1",
        "2",
    ]


def test_one_is_one(graph, values, tmp_path, capsys):
    one = judged(graph, values)
    assert one.line.startswith("1 value: 1 ")
    show_shipped([one], True)
    assert "all 1 captured value is equal or replayed" in capsys.readouterr().out
    save(tmp_path / "a", {"y": np.float32([1])})
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out == "1 value in both, none different\n"


def test_a_share_is_said_only_where_something_differs(graph, values, capsys):
    for factor, said in ((1, False), (1 + 2**-22, True)):
        found = judged(graph, values, fc=values["fc"] * np.float32(factor))
        (one,) = found.nodes
        assert one.share is not None
        show_verification(found, True)
        assert (f"{one.share.largest:.3g}" in capsys.readouterr().out) is said


def test_a_reference_is_one_line_and_the_rest_behind_verbose(graph, values, tmp_path, capsys):
    x = {"data": values["data"]}
    made = save(tmp_path / "c", {"fc": values["fc"], "avgpool": values["avgpool"]}, graph, x)
    file = made / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["reference"]["build"] = "PyTorch built with " + "-DFLAG=1 " * 200
    file.write_text(json.dumps(manifest))
    argv = ["verify", str(made), RESNEST, "--only", "fc"]
    assert main(argv) == 0
    plain = capsys.readouterr().out
    assert plain.splitlines()[0] == f"{RESNEST} by made-up 1.0, AVX2, 2 threads, batch 1, eager"
    assert "FLAG" not in plain
    assert main([*argv, "--verbose"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  build: PyTorch built with -DFLAG=1") for line in lines)


def test_explain_names_the_node_before_it_asks_for_an_input(capsys):
    assert main(["explain", RESNEST, "layer1.0.con1", "--at", "0,0"]) == 2
    assert "did you mean layer1.0.conv1" in capsys.readouterr().err
    assert main(["explain", RESNEST, "fc", "--at", "0,0"]) == 2
    assert "--input X, or --capture DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["verfy"], "there is no command 'verfy'; did you mean verify?"),
        (["--hlp"], "there is no option '--hlp' without a command; did you mean --help?"),
        (["--json", "run"], "there is no option '--json' without a command"),
        (["run", "--threds", "2"], "did you mean --threads?"),
        (["run", "--kernels", "fats"], "'fats' is not one of fast, reference; did you mean fast?"),
        (["export", RESNEST, "--to", "onx", "-o", "x"], "did you mean onnx?"),
        (["capture", "pytorch", RESNEST, "-o", "x"], "did you mean torch?"),
        (["prove", "sigmod"], "did you mean sigmoid or nd-sigmoid?"),
        (["capture", "mxnet", RESNEST, "-o", "x", "--subgraph", "defalt"], "did you mean default?"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(argv, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["summary", "resnest-digit"], "did you mean resnest-digits"),
        (["summary", "."], "no network is named '.'; `refnet models` lists them all (and it is no file)"),
        (["run", RESNEST, "--arithmetic", "goldn"], "did you mean golden?"),
        (["run", RESNEST, "--pipeline", "digit"], "did you mean digits?"),
        (["run", RESNEST, "--value", "layer1.0.relu1", "--output", "x.npy"], "did you mean layer1.0.relu"),
        (["capture", "refnet", RESNEST, "-o", "x", "--mode", "gold"], "did you mean golden?"),
        (["reveal", "mxet", RESNEST, "-o", "x"], "did you mean mxnet?"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert said in capsys.readouterr().err
