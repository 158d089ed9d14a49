"""`refnet capture`: refnet's own values and folders of arrays; what cannot be asked, said in its words."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import refnet
from refnet.arithmetic.golden import Golden
from refnet.cli import main
from refnet.core.errors import InputError
from refnet.formats.golden_file import Sources, digest
from refnet.frameworks.capture.request import Request
from refnet.frameworks.capture.sources import planned
from refnet.frameworks.capture.writer import write
from refnet.models.inputs import prepare
from refnet.models.synthetic import normal
from refnet.verification.capture import open_capture
from tests.helpers.bits import floats, same_bits

NET = "resnest-digits"


def captured(tmp_path, *arguments, name="c"):
    assert main(["capture", *map(str, arguments), "-o", str(tmp_path / name)]) == 0
    return open_capture(tmp_path / name)


@pytest.mark.parametrize("arithmetic", ["plain", "golden"])
def test_refnets_own_values(tmp_path, arithmetic):
    graph = refnet.load(NET)
    inputs = {"data": normal(3, "data", (2, 1, 32, 32))}
    chosen = ["--arithmetic", arithmetic, "--input", "seed:3", "--batch", 2, "--threads", 2]
    capture = captured(tmp_path, "refnet", NET, *chosen)
    expected = refnet.steps(graph, inputs, Golden() if arithmetic == "golden" else None)
    for (node, value), name in zip(expected, capture.names, strict=True):
        assert name == node.name
        assert same_bits(capture.value(name), value), name
    manifest = capture.manifest
    assert manifest.graph == graph.structure_hash()
    assert manifest.weights == graph.weights_hash()
    assert manifest.outputs == graph.outputs
    assert (manifest.reference.mode, manifest.reference.threads, manifest.reference.batch) == (
        arithmetic,
        2,
        2,
    )
    assert manifest.sources == Sources(NET, None, "seed:3")


def test_a_seeds_input_is_made_anew_if_only_hashes_are_kept(tmp_path):
    capture = captured(tmp_path, "refnet", NET, "--input", "seed:3", "--hash-only")
    assert os.listdir(tmp_path / "c") == ["manifest.json"]
    assert same_bits(capture.input("data"), normal(3, "data", (1, 1, 32, 32)))
    path = tmp_path / "c" / "manifest.json"
    path.write_text(path.read_text().replace('"seed:3"', '"seed:4"'))
    with pytest.raises(refnet.core.errors.FormatError, match="for seed:4"):
        open_capture(tmp_path / "c").input("data")


@pytest.mark.parametrize("more", [[], ["--hash-only"]])
def test_images_and_samples(tmp_path, more):
    sample = Sources(NET, None, "sample:1700-label-5.png", "digits")
    one = captured(tmp_path, "refnet", NET, "--input", sample.input, *more)
    data = prepare(one.manifest.sources)[1]["data"]
    assert same_bits(data, prepare(sample)[1]["data"])
    assert one.digest("data") == digest(data)
    assert one.manifest.sources == sample
    names = ["1700-label-5.png", "1735-label-4.png"]
    inputs = [part for name in names for part in ("--input", f"sample:{name}")]
    two = captured(tmp_path, "refnet", NET, *inputs, *more, name="two")
    assert two.manifest.reference.batch == 2
    assert two.manifest.sources.input == "data.npy"
    assert same_bits(two.input("data")[:1], data)
    if not more:
        assert same_bits(one.input("data"), data)
        assert same_bits(two.value("prob")[:1], one.value("prob"))


def test_a_golden_capture_is_what_the_golden_file_says(tmp_path):
    from refnet.formats.golden_file import read
    from refnet.models.weights import shipped_folder

    file = read(shipped_folder() / "golden" / "resnest-digits.json")
    source = file.sources.input
    capture = captured(tmp_path, "refnet", NET, "--arithmetic", "golden", "--input", source, "--hash-only")
    assert {name: capture.digest(name) for name in capture.names} == file.values


def test_a_folder_of_arrays_in_the_graphs_order(tmp_path, capsys):
    graph = refnet.load(NET)
    inputs = {"data": floats((1, 1, 32, 32), "folder")}
    dump = tmp_path / "dump"
    dump.mkdir()
    values = {node.name: value for node, value in refnet.steps(graph, inputs)}
    kept = ["prob", "conv1.0", "layer1.0.conv2.rsoftmax"]
    for name in kept:
        np.save(dump / f"{name}.npy", values[name])
    np.save(dump / "a%2Fb.npy", np.ones((1, 2), np.float32))
    np.save(tmp_path / "x.npy", inputs["data"])
    said = ["--reference", "framework=NPU X", "--reference", "version=1.2", "--reference", "threads=8"]
    capture = captured(
        tmp_path,
        "folder",
        dump,
        "--model",
        NET,
        "--input",
        tmp_path / "x.npy",
        *said,
        "--json",
        "--allow",
        "a/*",
    )
    assert capture.names == ("conv1.0", "layer1.0.conv2.rsoftmax", "prob", "a/b")
    assert same_bits(capture.value("prob"), values["prob"])
    assert same_bits(capture.input("data"), inputs["data"])
    record = json.loads(capsys.readouterr().out)
    assert record["values"] == 4
    assert record["reference"]["framework"] == "NPU X"
    assert record["reference"]["threads"] == 8
    assert capture.manifest.graph == graph.structure_hash()
    np.save(dump / "data.npy", inputs["data"])
    allowed = ["--allow", "a/b"]
    assert captured(tmp_path, "folder", dump, "--model", NET, *allowed, name="2").names == capture.names
    alone = captured(tmp_path, "folder", dump, name="3")
    assert alone.manifest.graph is None
    assert alone.manifest.sources is None
    assert set(alone.names) == {*capture.names, "data"}
    assert digest(alone.value("data")) == digest(inputs["data"])


def test_it_goes_on_and_says_so(tmp_path, capsys):
    request = Request("refnet", NET)
    with planned(request) as plan, pytest.raises(KeyboardInterrupt):
        write(tmp_path / "c", plan, advance=lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["capture", "refnet", NET, "--threads", "2", "-o", str(tmp_path / "c")]) == 2
    assert "unfinished capture of something else (other threads)" in capsys.readouterr().err
    assert len(captured(tmp_path, "refnet", NET).names) == 97
    assert "97 values of refnet" in (out := capsys.readouterr().out)
    assert "1 of them from before an interruption" in out


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    from refnet.frameworks.capture import writer

    monkeypatch.setattr(writer._Folder, "note", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["capture", "refnet", NET, "-o", str(tmp_path / "c")]) == 130
    assert "is unfinished; the same command completes it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["refnet", NET, "--mode", "fast"], "mode must be plain or golden, got 'fast'"),
        (["torch", NET, "--arithmetic", "golden"], "--arithmetic is for FRAMEWORK refnet"),
        (["torch", "resnet-50-baseline", "--weights", "seed:0"], "torch cannot run resnet-50-baseline"),
        (["mxnet", NET], "mxnet cannot run resnest-digits: it is not defined in MXNet"),
        (["torch", "resnest-50-pytorch", "--state", "x.pth"], "--state x.pth belongs to a torch model"),
        (["mxnet", NET, "--subgraph", "default", "--mode", "internals"], "cannot fuse nodes"),
        (["refnet", NET, "--subgraph", "default"], "a thing of mxnet's"),
        (["refnet", NET, "--reference", "framework=x"], "says itself what it is"),
        (["torch", "a.b:c", "--python", "/no/python"], "--python torch=/no/python: no such file"),
        (["torch", "a.b:c", "--model", "resnest-50-pytorch"], "needs its weights: --state FILE"),
        (["torch", "a.b:c", "--option", "[1]"], "must be a JSON object"),
        (["torch", "a.b:c", "--argument", "{"], "is not JSON"),
        (["refnet", NET, "--environment", "A"], "'A': is not NAME=VALUE"),
        (["refnet", NET, "--input", "seed:x"], "seed:N with N from 0"),
        (["refnet", NET, "--input", "nowhere.npy"], "nowhere.npy"),
        (["refnet", NET, "--input", "data=x.npy", "--input", "b=x.npy"], "the network has data"),
        (["refnet", NET, "--input", "seed:1", "--input", "seed:2"], "several inputs must be images"),
        (["refnet", NET, "--input", "sample:1700-label-5.png", "--batch", "2"], "batch is 2, but"),
        (["refnet", NET, "--input", "sample:nothing.png"], "is not a sample image"),
        (["folder", "nowhere"], "'nowhere' is not a folder"),
        (["folder", ".", "--reference", "colour=red"], "a reference has no 'colour'"),
        (["folder", ".", "--reference", "threads=many"], "threads must be a whole number"),
        (["onnxruntime", "no.onnx", "--python", "/bin/true"], "no.onnx"),
    ],
)  # fmt: skip
def test_what_cannot_be_captured_is_said(tmp_path, capsys, arguments, said):
    assert main(["capture", *arguments, "-o", str(tmp_path / "c")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_a_request_is_checked():
    with pytest.raises(InputError, match="framework must be one of"):
        Request("caffe", NET)
