"""The command line: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import refnet
from refnet.cli import main
from refnet.core.errors import FetchError
from refnet.models.labels import labels
from refnet.models.predict import top
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from tests.helpers import onnx_build

DIGITS = sorted((shipped_folder() / "digits").glob("*.png"))
TWO = [str(DIGITS[0]), str(DIGITS[1])]
OCTAVE, RESNEST = "octave-se-resnet-digits", "resnest-digits"


def printed(capsys, *argv: str) -> str:
    """Standard output of a command that succeeds and says nothing else."""
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == "" or err.startswith("refnet: compiling kernels")
    return out


def refused(capsys, *argv: str) -> str:
    """Standard error of a command that fails."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("refnet: ")
    return err


def subprocess_run(*argv: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "refnet", *argv], capture_output=True, text=True, check=False, **options
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""The environment in which Python writes standard output late: once more at its end if that failed."""

# Help.


def test_no_argument_prints_the_help(capsys):
    out = printed(capsys)
    assert out.split("start here:")[1].split()[:2] == ["refnet", "verify"]
    assert "net.onnx" in out.split("a MODEL is")[1].split("exit codes:")[0]


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["--version"]])
def test_help_and_version_exit_with_zero(capsys, argv):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 0
    assert capsys.readouterr().out


def test_every_command_has_examples_that_parse(capsys):
    from refnet.cli import _parsers, parse

    for name, parser in _parsers()[1].items():
        text = re.sub(r" *\\\n +", " ", parser.epilog)  # a shell's way to go on with a line
        lines = [line.split("  ")[1] for line in text.splitlines() if line.startswith("  refnet ")]
        assert lines, name
        for line in lines:
            words = shlex.split(line)
            assert words[1] == name
            assert parse(words[1:]) is not None


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_help_is_laid_out_for_the_terminal_and_no_wider_than_80(monkeypatch, columns):
    from refnet.cli import COMMANDS, _parsers

    monkeypatch.setenv("COLUMNS", str(columns))
    parser, commands = _parsers()
    assert len(commands) == len(COMMANDS)
    for text in (parser.format_help(), *(one.format_help() for one in commands.values())):
        assert [line for line in text.splitlines() if len(line) > max(60, min(columns, 80))] == []


def test_the_rest_of_a_meaning_is_filled_with_it():
    from refnet.cli.layout import laid_out

    text = "codes:\n  1    one two three four\n       five six seven\n"
    text += "  refnet run   x\n               y\n  2    end\n"
    assert laid_out(text, 26).splitlines() == [
        "codes:",
        "  1    one two three four",
        "       five six seven",
        "  refnet run   x",
        "               y",
        "  2    end",
    ]
    assert laid_out(text, 22).splitlines()[1:4] == [
        "  1    one two three",
        "       four five six",
        "       seven",
    ]


@pytest.mark.parametrize("argv", [["nonsense"], ["run", "--batch", "0"], ["export", "x"], ["summary"]])
def test_wrong_usage_exits_with_two(capsys, argv):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage: refnet" in capsys.readouterr().err


def test_help_imports_neither_numpy_nor_numba_nor_rich():
    code = (
        "import sys; from refnet.cli import main\n"
        "try: main(['run', '--help'])\n"
        "except SystemExit: print([m for m in ('numpy', 'numba', 'rich', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


# models


def test_models_lists_the_catalog_and_shortens_checksums(capsys):
    rows = {line.split()[0]: line for line in printed(capsys, "models").splitlines()}
    octave = rows["octave-se-resnet-50-0.125"]
    for fact in (
        "mxnet",
        "1,3,224,224",
        "prob 1,1000",
        "7.246",
        "28.082",
        "78.706",
        "94.09",
        "MIT",
        "a080ed21c747",
    ):
        assert fact in octave
    assert "a080ed21c747b" not in octave
    for fact in ("pytorch", "10.8148", "27.4493", "81.11", "95.36", "Apache-2.0", "resnest50-528c19ca.pth"):
        assert fact in rows["resnest-50-pytorch"]
    assert {OCTAVE, RESNEST} <= set(rows)


def test_models_in_a_pipe_are_plain_and_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = printed(capsys, "models")
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2 + len(json.loads(printed(capsys, "models", "--json")))


def test_models_json_has_whole_checksums(capsys):
    entries = {e["name"]: e for e in json.loads(printed(capsys, "models", "--json"))}
    (file,) = entries["octave-se-resnet-50-0.125"]["files"]
    assert file["sha256"] == "a080ed21c747b877697ca8a91843d2d83b15d1ad4702a09cd74126a3fcdffc52"
    assert entries["resnest-50-pytorch"]["output"] == {"name": "prob", "shape": [1, 1000]}
    assert len(entries[RESNEST]["shipped_sha256"]) == 64


def test_models_of_one_network_prints_all_of_it(capsys):
    out = printed(capsys, "models", "resnest-50-pytorch")
    for fact in ("110273258", "c08c80b6c826ea76eda8f638b1c06535aed947cf8ccc26c027dbda917fb1afad", "resnest("):
        assert fact in out
    assert json.loads(printed(capsys, "models", "resnest-50-pytorch", "--json"))["top1"] == 81.11


def test_models_are_filtered_by_name_framework_and_file(capsys):
    rows = printed(capsys, "models", "se-resnet-50").splitlines()[2:]
    assert [row.split()[0] for row in rows] == [
        "octave-se-resnet-50-0.125",
        "octave-se-resnet-50-0.25",
        "octave-se-resnet-50-0.5",
        "octave-se-resnet-50-0.75",
        "se-resnet-50-baseline",
    ]
    assert "78.4" in rows[1]
    assert "94" in rows[1]
    names = [found["name"] for found in json.loads(printed(capsys, "models", "A07_RESNEXT", "--json"))]
    assert names == ["octave-resnext-101-0.25", "octave-resnext-101-0.5"]
    assert "no network is named 'zzz'" in refused(capsys, "models", "zzz")
    assert "no network is named ''" in refused(capsys, "models", "")


def test_models_prints_the_authors_table_and_what_is_not_published(capsys):
    out = printed(capsys, "models", "octave-se-resnet-152-v1e-0.125")
    for fact in ("81.6 %", "95.7 %", "66.8 M", "10.9 G multiply-adds", "its checksum is not published"):
        assert fact in out
    assert "refnet fetch" not in out


def test_models_says_where_a_fetched_file_lies(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("REFNET_WEIGHTS", str(tmp_path))
    assert "refnet fetch resnest-50-pytorch" in printed(capsys, "models", "resnest-50-pytorch")
    with open(tmp_path / "resnest50-528c19ca.pth", "wb") as file:
        file.truncate(110273258)
    assert str(tmp_path / "resnest50-528c19ca.pth") in printed(capsys, "models", "resnest-50-pytorch")


def test_an_unknown_name_is_answered_with_close_ones(capsys):
    assert "resnest-50-pytorch" in refused(capsys, "models", "resnet-50-pytorch")


# run


def test_run_alone_recognises_every_sample_digit(capsys):
    out = printed(capsys, "run", "--top", "1")
    assert f"{OCTAVE}: pipeline digits, plain arithmetic" in out
    assert "no model named" in out
    results = json.loads(printed(capsys, "run", "--json"))["results"]
    assert len(results) == len(DIGITS) > 1
    for result in results:
        assert result["top"][0]["label"] == result["input"][-5], result["input"]


@pytest.mark.parametrize("name", [OCTAVE, RESNEST])
def test_run_prints_exactly_the_bits_that_python_gets(capsys, name):
    found = json.loads(printed(capsys, "run", name, *TWO, "--json", "--top", "10"))
    graph = refnet.load(name)
    for path, result in zip(TWO, found["results"], strict=True):
        prob = refnet.run(graph, {"data": pipeline("digits").apply(path)})["prob"][0]
        assert result["input"] == path
        assert [t["rank"] for t in result["top"]] == list(range(1, 11))
        for t in result["top"]:
            bits = prob[t["class"]].view(np.uint32)
            assert np.float32(t["probability"]).view(np.uint32) == bits
            assert int(t["bits"], 16) == bits
        values = [t["probability"] for t in result["top"]]
        assert values == sorted(values, reverse=True)


def test_options_and_images_in_any_order(capsys):
    a = printed(capsys, "run", RESNEST, *TWO, "--top", "2")
    assert printed(capsys, "run", RESNEST, TWO[0], "--top", "2", TWO[1]) == a
    assert printed(capsys, "run", "--top=2", RESNEST, *TWO) == a
    assert a.index(TWO[0]) < a.index(TWO[1])
    assert printed(capsys, "run", RESNEST, TWO[1], TWO[0]).index(TWO[1]) < a.index(TWO[1])


def test_batches_and_threads_change_no_bit(capsys, tmp_path):
    files = []
    for i, options in enumerate((["--batch", "1"], ["--batch", "3", "--threads", "1"], ["--threads", "2"])):
        files.append(tmp_path / f"{i}.npy")
        printed(capsys, "run", OCTAVE, *map(str, DIGITS), "--output", str(files[-1]), *options)
    assert len({file.read_bytes() for file in files}) == 1
    assert np.load(files[0]).shape == (len(DIGITS), 10)


def test_input_tensor_instead_of_images(capsys, tmp_path):
    x = np.concatenate([pipeline("digits").apply(path) for path in TWO])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "one.npy", x[0])
    whole = json.loads(printed(capsys, "run", RESNEST, *TWO, "--json"))["results"]
    found = json.loads(printed(capsys, "run", RESNEST, "--input", str(tmp_path / "x.npy"), "--json"))
    assert found["pipeline"] is None
    assert [r["top"] for r in found["results"]] == [r["top"] for r in whole]
    assert found["results"][1]["input"] == f"{tmp_path / 'x.npy'}[1]"
    (one,) = json.loads(printed(capsys, "run", RESNEST, "--input", str(tmp_path / "one.npy"), "--json"))[
        "results"
    ]
    assert one["top"] == whole[0]["top"]


def test_value_saves_any_value_and_any_output(capsys, tmp_path):
    graph = refnet.load(RESNEST)
    node = graph.nodes[2].name
    for value in (node, "logits"):
        out = printed(capsys, "run", RESNEST, TWO[0], "--value", value, "--output", str(tmp_path / "v.npy"))
        assert out.endswith(f"{value} is in {tmp_path / 'v.npy'}\n")
        name = graph.outputs.get(value, value)
        expected = refnet.run(graph, {"data": pipeline("digits").apply(TWO[0])}, values=[name])[name]
        saved = np.load(tmp_path / "v.npy")
        assert saved.dtype == np.float32
        assert saved.shape == expected.shape
        assert saved.tobytes() == expected.tobytes()


def test_a_nan_is_null_in_json_with_its_bits(capsys, tmp_path):
    np.save(tmp_path / "nan.npy", np.full((1, 32, 32), np.nan, np.float32))
    (one,) = json.loads(printed(capsys, "run", OCTAVE, "--input", str(tmp_path / "nan.npy"), "--json"))[
        "results"
    ]
    assert one["top"][0]["probability"] is None
    assert np.isnan(np.uint32(int(one["top"][0]["bits"], 16)).view(np.float32))


def test_top_orders_ties_by_class_and_nan_last():
    row = np.float32([0.25, np.nan, 0.5, 0.25, 0])
    assert [p.index for p in top(row, 9)] == [2, 0, 3, 4, 1]
    assert [p.label for p in top(row[2:4], 2, labels("digits"))] == ["", ""]
    assert top(np.arange(10, dtype=np.float32), 1, labels("digits"))[0].label == "9"


def test_seeded_weights_are_other_weights(capsys):
    seeded = json.loads(printed(capsys, "run", OCTAVE, TWO[0], "--weights", "seed:0", "--json"))
    again = json.loads(printed(capsys, "run", OCTAVE, TWO[0], "--weights", "seed:0", "--json"))
    trained = json.loads(printed(capsys, "run", OCTAVE, TWO[0], "--json"))
    assert seeded == again
    assert seeded["results"] != trained["results"]


def test_a_symbol_file_and_a_state_dict_are_models_too(capsys):
    by_name = {n: json.loads(printed(capsys, "run", n, *TWO, "--json"))["results"] for n in (OCTAVE, RESNEST)}
    symbol, state = shipped_folder() / f"{OCTAVE}-symbol.json", shipped_folder() / f"{RESNEST}.pth"
    for argv in ([str(symbol)], [str(symbol), "--model", OCTAVE]):
        assert json.loads(printed(capsys, "run", *argv, *TWO, "--json"))["results"] == by_name[OCTAVE]
    found = json.loads(printed(capsys, "run", str(state), *TWO, "--model", RESNEST, "--json"))["results"]
    assert found == by_name[RESNEST]


def test_a_model_that_is_none_is_told_in_the_words_of_the_command_line(capsys):
    assert f"refnet run {OCTAVE} {TWO[0]}" in refused(capsys, "run", *TWO)
    state = str(shipped_folder() / f"{RESNEST}.pth")
    for argv in (["run", state, TWO[0]], ["summary", state], ["export", state, "--to", "mxnet", "-o", "net"]):
        assert "--model NAME" in refused(capsys, *argv)


def test_an_error_within_a_run_names_the_node(capsys, tmp_path):
    nodes = [onnx_build.node("Gather", "table x", "rows"), onnx_build.node("ReduceMax", "rows", keepdims=0)]
    nodes[1].input.append("axis")
    constants = [
        onnx_build.tensor("table", np.ones((3, 2), np.float32)),
        onnx_build.tensor("axis", np.array([1])),
    ]
    ids = onnx_build.value("x", ["n", 4], onnx.TensorProto.INT64)
    onnx.save(onnx_build.model(nodes, constants, inputs=[ids]), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.full((1, 4), 7))
    said = refused(capsys, "run", str(tmp_path / "m.onnx"), "--input", str(tmp_path / "x.npy"))
    assert "the index 7 at [0, 0] is outside of -3 to 2, while executing rows = Take(" in said


def test_a_file_of_another_name_needs_a_pipeline(capsys, tmp_path):
    printed(capsys, "export", OCTAVE, "--to", "mxnet", "-o", str(tmp_path / "net"))
    model = str(tmp_path / "net-symbol.json")
    assert "--pipeline" in refused(capsys, "run", model, TWO[0])
    assert "no image" in refused(capsys, "run", model)
    options = ["--pipeline", "digits", "--image", "32,32"]
    (found,) = json.loads(printed(capsys, "run", model, TWO[0], *options, "--json"))["results"]
    (named,) = json.loads(printed(capsys, "run", OCTAVE, TWO[0], "--json"))["results"]
    assert [t["bits"] for t in found["top"]] == [t["bits"] for t in named["top"]]
    assert found["top"][0]["label"] == ""


def test_an_unreadable_image_ends_the_run_before_it_begins(capsys, tmp_path, monkeypatch):
    bad = tmp_path / "bad.png"
    bad.write_bytes(DIGITS[0].read_bytes()[:60])
    monkeypatch.setattr("refnet.models.predict.run", lambda *_: pytest.fail("a batch was run"))
    for where in ([bad, *DIGITS], [*DIGITS, bad]):
        argv = ["run", OCTAVE, *map(str, where), "--batch", "2", "--output", str(tmp_path / "y.npy")]
        assert str(bad) in refused(capsys, *argv)
    assert os.listdir(tmp_path) == ["bad.png"]


def tensor_file(folder: Path, array: np.ndarray) -> str:
    np.save(folder / "x.npy", array)
    return str(folder / "x.npy")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((1, 1, 32, 32)), "must be float32"),
        (np.zeros((1, 1, 32, 32), ">f4"), "must be float32"),
        (np.zeros((1, 32, 31), np.float32), "must have the shape [1, 32, 32] or [n, 1, 32, 32]"),
        (np.zeros((0, 1, 32, 32), np.float32), "shape (0, 1, 32, 32)"),
        (np.zeros((), np.float32), "found []"),
        (np.zeros((2, 1, 32, 32), np.float32, "F"), "column by column"),
        (np.array([None]), "must be float32"),
        (np.zeros(4, [("a", "<f4")]), "must be float32"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(capsys, tmp_path, array, reason):
    file = tensor_file(tmp_path, array)
    told = refused(capsys, "run", OCTAVE, "--input", file)
    assert file in told
    assert reason in told


def test_damaged_tensor_files_are_refused_with_their_offset(capsys, tmp_path):
    whole = Path(tensor_file(tmp_path, np.zeros((1, 32, 32), np.float32))).read_bytes()
    bad = tmp_path / "bad.npy"
    for data in (
        b"",
        whole[:9],
        whole[:40],
        whole[:-1],
        whole + b"\0",
        b"PK\3\4" + whole[4:],
        whole[:6] + b"\7" + whole[7:],
    ):
        bad.write_bytes(data)
        assert f"{bad}: at byte" in refused(capsys, "run", OCTAVE, "--input", str(bad))
    huge = whole.replace(b"(1, 32, 32), }  ", b"(99999999, 32), ")[: len(whole)]
    for header in (huge, whole.replace(b"32, 32", b"32,-32"), whole.replace(b"'<f4'", b"print")):
        bad.write_bytes(header)
        assert f"{bad}: at byte" in refused(capsys, "run", OCTAVE, "--input", str(bad))


def test_inputs_that_contradict_each_other(capsys, tmp_path):
    file = tensor_file(tmp_path, np.zeros((1, 32, 32), np.float32))
    assert "--input" in refused(capsys, "run", OCTAVE, TWO[0], "--input", file)
    assert "no value 'nonsense'" in refused(
        capsys, "run", OCTAVE, TWO[0], "--value", "nonsense", "--output", "y.npy"
    )
    assert "--output" in refused(capsys, "run", OCTAVE, TWO[0], "--value", "softmax")
    assert "octave-scorer" in refused(capsys, "run", OCTAVE, TWO[0], "--pipeline", "nonsense")
    assert "must be [batch, 1, 32, 32]" in refused(capsys, "run", OCTAVE, TWO[0], "--pipeline", "resnest")
    assert "missing.png" in refused(capsys, "run", OCTAVE, str(tmp_path / "missing.png"))
    assert "missing.npy" in refused(capsys, "run", OCTAVE, "--input", str(tmp_path / "missing.npy"))
    assert not Path("y.npy").exists()


def test_output_appears_whole_or_not_at_all(capsys, tmp_path):
    kept = tmp_path / "kept.npy"
    kept.write_bytes(b"as it was")
    refused(capsys, "run", OCTAVE, str(tmp_path), "--output", str(kept))
    assert kept.read_bytes() == b"as it was"
    assert "no/y.npy" in refused(capsys, "run", OCTAVE, TWO[0], "--output", str(tmp_path / "no" / "y.npy"))
    assert str(tmp_path) in refused(capsys, "run", OCTAVE, TWO[0], "--output", str(tmp_path))
    assert os.listdir(tmp_path) == ["kept.npy"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_under_standard_output_is_said(options):
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-m", "refnet", "models", RESNEST, *options]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED)
    assert done.returncode == 2
    assert done.stderr == "refnet: standard output cannot be written: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("argv", [[], ["--help"], ["run", "--help"], ["--version"]])
@pytest.mark.parametrize("unbuffered", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_full_disk_under_the_help_is_said(argv, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "refnet", *argv],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED | unbuffered,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "refnet: standard output cannot be written: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes standard output")
@pytest.mark.parametrize("argv", ["run", "models", "--help"])
def test_a_closed_standard_output_is_said(argv):
    script = f"{shlex.quote(sys.executable)} -m refnet {argv} >&-"
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "refnet: standard output is closed\n")


def test_empty_names_are_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no network is named ''" in refused(capsys, "run", "", TWO[0])
    assert "got ''" in refused(capsys, "export", OCTAVE, "--to", "mxnet", "-o", "")
    assert os.listdir(tmp_path) == []


# summary


def test_summary_counts_the_two_cards(capsys):
    out = printed(capsys, "summary", "octave-se-resnet-50-0.125", "--totals")
    assert "28.0842 M" in out
    assert "3.5677 G" in out
    assert out.count("28.082 M") == out.count("7.246 G") == 1
    found = json.loads(printed(capsys, "summary", "resnest-50-pytorch", "--totals", "--json"))
    assert set(found) == {"network", "totals", "card", "table"}
    assert found["table"] == {"parameters": None, "macs": None}
    assert found["card"] == {"gflops": 10.8148, "mparams": 27.4493}
    assert round(found["totals"]["macs"] / 1e5) == 53712


def test_summary_of_every_node(capsys):
    found = json.loads(printed(capsys, "summary", RESNEST, "--json"))
    graph = refnet.load(RESNEST)
    assert [row["name"] for row in found["nodes"]] == [node.name for node in graph.nodes]
    learned = sum(a.size for name, a in graph.weights.items() if name not in graph.statistics())
    assert found["totals"]["parameters"] == learned == sum(row["parameters"] for row in found["nodes"])
    lines = printed(capsys, "summary", RESNEST, "--nodes").splitlines()
    assert len(lines) == 2 + len(graph.nodes)
    assert lines[2].split()[:3] == [graph.nodes[0].name, "Conv", "1,8,16,16"]
    assert printed(capsys, "summary", RESNEST).splitlines()[: len(lines)] == lines


def test_summary_of_a_symbol_file_and_of_another_size(capsys):
    symbol = str(shipped_folder() / f"{OCTAVE}-symbol.json")
    by_name = json.loads(printed(capsys, "summary", OCTAVE, "--json"))
    assert json.loads(printed(capsys, "summary", symbol, "--json"))["totals"] == by_name["totals"]
    larger = json.loads(printed(capsys, "summary", OCTAVE, "--image", "64,64", "--json"))
    assert larger["totals"]["macs"] > 3 * by_name["totals"]["macs"]
    assert larger["totals"]["parameters"] == by_name["totals"]["parameters"]


def test_a_symbol_file_is_compared_with_the_network_that_it_is_said_to_be(capsys):
    symbol = str(shipped_folder() / f"{OCTAVE}-symbol.json")
    options = ["--model", "resnest-50-pytorch", "--image", "32,32"]
    for argv in (["summary", symbol, *options], ["run", symbol, TWO[0], *options]):
        assert "is not the symbol file of resnest-50-pytorch" in refused(capsys, *argv)


# fetch and export


PARTLY = "only the first 8 digits of its sha256 are published: 22405ba7 is what is checked"


def test_a_checksum_that_is_known_in_part_is_said(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("refnet.models.fetch.fetch", lambda entry, *_: tmp_path / entry.files[0].name)
    assert main(["fetch", "resnest-101-pytorch"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'resnest101-22405ba7.pth'}\n"
    assert err == f"refnet: resnest101-22405ba7.pth: {PARTLY}\n"
    assert PARTLY in printed(capsys, "models", "resnest-101-pytorch")
    assert "published" not in printed(capsys, "models", "resnest-50-pytorch")


def test_fetch_says_where_the_file_is(capsys, monkeypatch, tmp_path):
    asked = []

    def fetch(entry, folder=None, progress=None):
        asked.append((entry.name, folder))
        return tmp_path / entry.files[0].name

    monkeypatch.setattr("refnet.models.fetch.fetch", fetch)
    out = printed(capsys, "fetch", "resnest-50-pytorch", "--folder", str(tmp_path))
    assert out == f"{tmp_path / 'resnest50-528c19ca.pth'}\n"
    assert asked == [("resnest-50-pytorch", tmp_path)]


def test_fetch_passes_errors_on(capsys, monkeypatch):
    def fetch(entry, folder=None, progress=None):
        raise FetchError("wrong checksum\nof two lines \x1b[31m")

    monkeypatch.setattr("refnet.models.fetch.fetch", fetch)
    assert (
        refused(capsys, "fetch", "resnest-50-pytorch") == "refnet: wrong checksum\nof two lines \\x1b[31m\n"
    )
    monkeypatch.undo()
    assert "comes with refnet" in refused(capsys, "fetch", RESNEST)


def test_fetch_shows_progress_on_a_terminal_and_unpacks(capsys, monkeypatch, tmp_path):
    archive = tmp_path / "net.tar"

    def fetch(entry, folder=None, progress=None):
        with tarfile.open(archive, "w") as tar:
            tar.add(DIGITS[0], "net/a.png")
        for done in (0, 500, 1000):
            progress(archive.name, done, 1000)
        return archive

    monkeypatch.setattr("refnet.models.fetch.fetch", fetch)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", bar := Terminal())
    assert main(["fetch", "octave-se-resnet-50-0.125", "--unpack"]) == 0
    assert "net.tar" in bar.getvalue()
    assert "1.0/1.0 kB" in bar.getvalue()
    assert capsys.readouterr().out.splitlines() == [str(archive), str(tmp_path / "net" / "net" / "a.png")]
    assert (tmp_path / "net" / "net" / "a.png").read_bytes() == DIGITS[0].read_bytes()


def test_export_writes_what_load_reads(capsys, tmp_path):
    out = printed(
        capsys, "export", OCTAVE, "--to", "mxnet", "-o", str(tmp_path / "net"), "--weights", "seed:3"
    )
    assert out.splitlines() == [str(tmp_path / "net-symbol.json"), str(tmp_path / "net-0000.params")]
    first = refnet.load(OCTAVE, weights="seed:3")
    assert refnet.load(tmp_path / "net-symbol.json", network=OCTAVE).weights_hash() == first.weights_hash()


# Failing, and being interrupted.


def test_errors_with_json_are_json_too(capsys):
    assert main(["run", "nonsense", "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["kind"] == "InputError"
    assert err == f"refnet: {error['message']}\n"


def test_ctrl_c_exits_with_130(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("refnet.models.catalog.entries", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "refnet: interrupted\n"


def test_a_bug_shows_its_traceback(monkeypatch, capsys):
    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr("refnet.models.catalog.entries", broken)
    assert main(["models"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error():
    readonly, writing = os.pipe()
    os.close(readonly)
    argv = [sys.executable, "-m", "refnet", "models", RESNEST]
    done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_without_unicode_gets_escapes(tmp_path):
    image = tmp_path / "sieben-ü.png"
    image.write_bytes(DIGITS[0].read_bytes())
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess_run("run", RESNEST, str(image), "--top", "1", env=env)
    assert done.returncode == 0, done.stderr
    assert "sieben-\\xfc.png" in done.stdout
    assert done.stdout.isascii()


def test_file_names_cannot_command_the_terminal(capsys, tmp_path):
    image = tmp_path / "a\x1b[31m\n[red].png"
    image.write_bytes(DIGITS[0].read_bytes())
    out = printed(capsys, "run", RESNEST, str(image))
    assert "a\\x1b[31m\\n[red].png" in out
    assert "\x1b" not in out


def test_several_images_have_a_progress_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", bar := Terminal())
    assert main(["run", OCTAVE, *TWO, "--batch", "1"]) == 0
    assert "2/2" in bar.getvalue()
    assert "2/2" not in capsys.readouterr().out
    monkeypatch.setattr(sys, "stderr", bar := Terminal())
    assert main(["run", OCTAVE, TWO[0]]) == 0
    assert bar.getvalue() == ""


def test_a_narrow_terminal_gets_fewer_columns(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for columns, whole in (("80", False), ("300", True)):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(sys, "stdout", shown := Terminal())
        assert main(["models"]) == 0
        assert ("a05_se-resnet-50" in shown.getvalue()) is whole
        assert ("(columns left out: " in shown.getvalue()) is not whole
