"""Golden files: what is hashed, what a check says, what a broken file does, and `run --arithmetic golden`."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import ops
from refnet.arithmetic.golden import Golden
from refnet.cli import main
from refnet.core.errors import FormatError, InputError, RefnetError, UnsupportedError
from refnet.core.graph import Node
from refnet.exact.correct_rounding import RefineCount
from refnet.formats.golden_file import (
    PART,
    Change,
    Digest,
    File,
    Sources,
    canonical,
    digest,
    dumps,
    loads,
    read,
    write,
)
from refnet.models.inputs import located, prepare
from refnet.models.weights import shipped_folder
from refnet.verification.golden import hashes, record
from tests.helpers.bits import AWKWARD, awkward, floats

GOLDEN = shipped_folder() / "golden"
DIGITS = ["octave-se-resnet-digits", "resnest-digits"]
FULL = ["octave-se-resnet-50-0.125-seed-0", "resnest-50-pytorch-seed-0"]
SMALL = GOLDEN / "resnest-digits.json"


def said(capsys, *argv: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error without the note on compiling."""
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, "".join(x for x in err.splitlines(True) if not x.startswith("refnet: compiling"))


def changed(path: Path, **fields: object) -> Path:
    """A copy of the small golden file with other fields."""
    write(path, replace(read(SMALL), **fields))
    return path


# What ships.


@pytest.mark.parametrize("name", [*DIGITS, *FULL])
def test_what_ships_is_what_is_computed(capsys, name):
    """The two full networks with seed:0 weights take about two seconds each."""
    code, out, err = said(capsys, "golden", "--check", GOLDEN / f"{name}.json")
    assert (code, err) == (0, "")
    assert out == f"{GOLDEN / name}.json: equal, {len(read(GOLDEN / f'{name}.json').values)} values\n"


def test_the_shipped_files_cover_every_node_and_say_everything():
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted([*DIGITS, *FULL])
    for path in GOLDEN.iterdir():
        file = read(path)
        graph, inputs = prepare(located(file.sources, Path("/nowhere")))
        assert list(file.values) == [node.name for node in graph.nodes]
        assert file.graph == graph.structure_hash()
        assert file.weights == graph.weights_hash()
        assert list(file.inputs) == list(inputs)
        assert path.read_text() == dumps(file)


def test_a_hash_is_what_the_page_says():
    """Computed here by struct and hashlib alone, from the values."""
    file = read(SMALL)
    graph, inputs = prepare(file.sources)
    count = 0
    for node, value in refnet.steps(graph, inputs, Golden(1)):
        raw = b"".join(struct.pack("<f", float(x)) for x in value.ravel())
        expected = Digest(hashlib.sha256(raw).hexdigest(), tuple(value.shape), "float32")
        assert file.values[node.name] == expected, node.name
        count += 1
    assert count == len(file.values) == 97
    whole = hashlib.sha256()
    for name, array in graph.weights.items():
        whole.update(name.encode() + str(list(array.shape)).encode())
        whole.update(b"".join(struct.pack("<f", float(x)) for x in array.ravel()))
    assert file.weights == whole.hexdigest()
    assert file.graph == hashlib.sha256(str(graph).encode()).hexdigest()


# Hashes.


def test_the_bytes_that_are_hashed():
    nan = np.array([0x7F800001, 0xFFC00000, 0x7FC00000, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert canonical(nan) == bytes.fromhex("0000c07f") * 4
    array = np.concatenate([AWKWARD, nan])
    words = [0x7FC00000 if np.isnan(x) else int(x.view(np.uint32)) for x in array]
    assert canonical(array) == struct.pack(f"<{len(words)}I", *words)
    assert canonical(array.astype(">f4")) == canonical(array)
    square = floats((3, 4), "square")
    assert canonical(square.T) == canonical(square.T.copy()) != canonical(square)
    assert nan.view(np.uint32).tolist() == [0x7F800001, 0xFFC00000, 0x7FC00000, 0xFFFFFFFF]
    assert digest(np.float32([0.0])) != digest(np.float32([-0.0]))
    assert digest(np.zeros((2, 3), np.float32)) != digest(np.zeros((3, 2), np.float32))
    for kind in (np.float64, np.float16, np.complex64):
        with pytest.raises(InputError, match="only float32, integers and booleans have a golden hash"):
            digest(np.zeros(3, kind))


def test_hashing_a_large_array_needs_no_second_one():
    array = np.zeros((2, 4 * PART + 3), np.float32)
    array[:, ::PART] = -np.nan
    tracemalloc.start()
    try:
        found = digest(array)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    words = np.where(np.isnan(array), np.uint32(0x7FC00000), array.view(np.uint32))
    assert found.sha256 == hashlib.sha256(words.astype("<u4").tobytes()).hexdigest()
    assert digest(array[:, :0]).sha256 == hashlib.sha256().hexdigest()
    assert peak < array.nbytes / 2


@pytest.mark.parametrize("name", DIGITS)
def test_threads_and_batch_change_no_hash(name):
    graph = refnet.load(name)
    x = {"data": floats((4, 1, 32, 32), name)}
    whole = hashes(graph, x, Golden(1), batch=4)
    for threads, batch in ((2, 4), (1, 1), (2, 1), (2, 3)):
        assert hashes(graph, x, Golden(threads), batch) == whole, (threads, batch)
    values = {node.name: value.copy() for node, value in refnet.steps(graph, x, Golden(2))}
    assert {name: digest(value) for name, value in values.items()} == whole
    for i in range(4):
        alone = hashes(graph, {"data": x["data"][i : i + 1]}, Golden(1 + i % 2))
        assert alone == {name: digest(value[i : i + 1]) for name, value in values.items()}, i
    assert whole["prob" if "prob" in whole else "softmax"].shape == (4, 10)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ((Node("y", ops.Softmax(0), ("data",)),), {}),
        ((Node("y", ops.Transpose((1, 0)), ("data",)),), {}),
        ((Node("y", ops.ReduceSum((0,)), ("data",)),), {}),
        (
            (
                Node("c", ops.Constant((1, 4)), ("c/value",)),
                Node("y", ops.Add(2, broadcast=True), ("data", "c")),
            ),
            {"c/value": np.ones((1, 4), np.float32)},
        ),
    ],
    ids=["softmax", "transpose", "sum", "constant"],
)
def test_a_graph_that_mixes_images_is_hashed_whole(nodes, weights):
    graph = refnet.Graph("mixing", {"data": ops.TensorType((1, 4))}, nodes, {"y": "y"}).with_weights(weights)
    x = floats((4, 4), "x")
    whole = {node.name: value.copy() for node, value in refnet.steps(graph, {"data": x}, Golden())}
    for batch in (1, 3, 4):
        assert hashes(graph, {"data": x}, batch=batch) == {n: digest(v) for n, v in whole.items()}


def test_nan_and_infinity_have_one_hash_for_threads_and_batch():
    graph = refnet.load(DIGITS[1])
    x = {"data": awkward((3, 1, 32, 32), "awkward", 0.02)}
    with np.errstate(all="ignore"):
        assert hashes(graph, x, Golden(1), 3) == hashes(graph, x, Golden(2), 1)


@pytest.mark.other_processor
def test_a_processor_without_vectors_and_fma_gives_the_same_hashes(tmp_path):
    files = [str(GOLDEN / f"{name}.json") for name in DIGITS]
    script = (
        "import sys; from refnet.cli import main;"
        "print([main(['golden', '--check', file, '--threads', '2']) for file in sys.argv[1:]]);"
        "import numba; print(numba.config.CPU_NAME, numba.config.CPU_FEATURES)"
    )
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "+sse2",
        "REFNET_CACHE": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *files], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-2:] == ["[0, 0]", "x86-64 +sse2"]
    assert "compiling" in done.stderr  # for that processor, not from the cache of this one


# Recording.


def test_record_then_check_with_a_tensor_an_image_and_a_seed(capsys, tmp_path):
    np.save(tmp_path / "x.npy", floats((3, 1, 32, 32), "x"))
    sample = shipped_folder() / "digits" / "1735-label-4.png"
    (tmp_path / "own.png").write_bytes(sample.read_bytes())
    stated = {
        tmp_path / "x.npy": ("x.npy", None),
        tmp_path / "own.png": ("own.png", "digits"),
        sample: ("sample:1735-label-4.png", "digits"),
        "sample:1735-label-4.png": ("sample:1735-label-4.png", "digits"),
        "seed:7": ("seed:7", None),
    }
    for i, (source, expected) in enumerate(stated.items()):
        path = tmp_path / f"{i}.json"
        code, out, err = said(capsys, "golden", DIGITS[1], "--input", source, "-o", path, "--batch", 2)
        assert (code, out, err) == (0, f"{path}: 97 values\n", "")
        file = read(path)
        assert (file.sources.input, file.sources.pipeline) == expected
        assert str(tmp_path) not in path.read_text()
        assert said(capsys, "golden", "--check", path)[0] == 0
    assert read(tmp_path / "0.json").values["fc"].shape == (3, 10)
    image, sampled = read(tmp_path / "1.json"), read(tmp_path / "2.json")
    assert image.values == sampled.values
    assert image.inputs == sampled.inputs
    assert read(tmp_path / "4.json").values != sampled.values


def test_files_of_a_golden_file_are_looked_for_beside_it_only(capsys, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    assert main(["export", DIGITS[0], "--to", "mxnet", "-o", str(folder / "net")]) == 0
    np.save(folder / "x.npy", floats((1, 1, 32, 32), "x"))
    capsys.readouterr()
    symbol, path = folder / "net-symbol.json", folder / "g.json"
    code, _, err = said(
        capsys, "golden", symbol, "--model", DIGITS[0], "--input", folder / "x.npy", "-o", path
    )
    assert (code, err) == (0, "")
    assert read(path).sources == Sources("net-symbol.json", None, "x.npy", None, DIGITS[0])
    assert said(capsys, "golden", "--check", path)[0] == 0
    moved = tmp_path / "moved.json"
    moved.write_bytes(path.read_bytes())
    code, out, err = said(capsys, "golden", "--check", moved)
    assert (code, out) == (2, "")
    assert err == "refnet: the golden file's model, 'net-symbol.json', is not beside it: say where it is\n"
    given = (symbol, "--model", DIGITS[0], "--input", folder / "x.npy")
    assert said(capsys, "golden", "--check", moved, *given)[0] == 0
    for escape in ("../net/x.npy", str(folder / "x.npy"), "..", "net/x.npy"):
        sneaky = changed(
            tmp_path / "sneaky.json", sources=Sources(DIGITS[1], input=escape, pipeline="digits")
        )
        code, _, err = said(capsys, "golden", "--check", sneaky)
        assert code == 2, escape
        assert "is not beside it" in err


def test_what_cannot_be_recorded_leaves_no_file(capsys, tmp_path):
    out = tmp_path / "g.json"
    for argv, why in (
        (["golden"], "give a MODEL, an --input"),
        (["golden", DIGITS[1], "--input", "seed:0"], "to write a golden file"),
        (["golden", DIGITS[1], "--input", "seed:x", "-o", out], "seed:N with N from 0"),
        (["golden", DIGITS[1], "--input", "seed:99999999999999999999", "-o", out], "seed:N with N from 0"),
        (["golden", DIGITS[1], "--input", "sample:../x", "-o", out], "is not a sample image; there are 1700"),
        (["golden", DIGITS[1], "--input", tmp_path / "no.png", "-o", out], "cannot be read"),
        (["golden", DIGITS[1], "--input", tmp_path / "no.npy", "-o", out], "cannot be read"),
        (["golden", "no-such-net", "--input", "seed:0", "-o", out], "no-such-net"),
        (["golden", DIGITS[1], "--input", "seed:0", "-o", tmp_path / "no" / "g.json"], "cannot write"),
        (["golden", DIGITS[1], "--input", "seed:0", "-o", out, "--check", SMALL], "give one or the other"),
        (["golden", "--check", tmp_path / "none.json"], "cannot be read"),
    ):
        code, printed, err = said(capsys, *argv)
        assert (code, printed) == (2, ""), argv
        assert why in err, argv
    assert list(tmp_path.iterdir()) == []


# Checking.


def test_the_first_node_that_differs_is_named(capsys, tmp_path):
    file = read(SMALL)
    names = list(file.values)
    for name in (names[0], names[40], names[-1]):
        for other in (
            replace(file.values[name], sha256="0" * 64),
            replace(file.values[name], shape=(*file.values[name].shape, 1)),
        ):
            path = changed(tmp_path / "g.json", values={**file.values, name: other})
            code, out, _ = said(capsys, "golden", "--check", path)
            assert code == 1
            assert out.splitlines() == [
                f"{path}: different",
                f"first node: {name}",
                f"  in the file  float32{list(other.shape)} {other.sha256}",
                f"  here         float32{list(file.values[name].shape)} {file.values[name].sha256}",
                "1 of 97 values differ",
            ]


def test_the_first_is_first_in_the_graph_not_in_the_file(capsys, tmp_path):
    values = dict(reversed(read(SMALL).values.items()))
    names = list(values)
    for name in (names[3], names[90]):
        values[name] = replace(values[name], sha256="1" * 64)
    code, out, _ = said(capsys, "golden", "--check", changed(tmp_path / "g.json", values=values), "--json")
    found = json.loads(out)
    assert (code, found["equal"], found["first_value"]) == (1, False, names[90])
    assert [one["name"] for one in found["differences"]] == [names[90], names[3]]
    assert found["differences"][0]["expected"]["sha256"] == "1" * 64


def test_a_missing_and_a_surplus_value_are_differences(capsys, tmp_path):
    values = dict(read(SMALL).values)
    gone = list(values)[5]
    values["nowhere"] = values.pop(gone)
    code, out, _ = said(capsys, "golden", "--check", changed(tmp_path / "g.json", values=values), "--json")
    found = {one["name"]: one for one in json.loads(out)["differences"]}
    assert code == 1
    assert list(found) == [gone, "nowhere"]
    assert found[gone]["expected"] is None
    assert found["nowhere"]["found"] is None


def test_another_graph_weights_or_input_is_said_first(capsys, tmp_path):
    file = read(SMALL)
    assert said(capsys, "golden", "--check", SMALL, "--input", "seed:0")[0] == 1
    code, out, _ = said(capsys, "golden", "--check", SMALL, "--weights", "seed:0", "--input", "seed:0")
    lines = out.splitlines()
    assert code == 1
    assert lines[0] == f"{SMALL}: different"
    assert lines[1] == "the weights differ: resnest-digits"
    assert lines[2] == f"  in the file  {file.weights}"
    assert lines[4] == "the input differs: data"
    assert lines[7] == "first node: conv1.0"
    other = changed(tmp_path / "g.json", graph="0" * 64)
    code, out, _ = said(capsys, "golden", "--check", other)
    assert code == 1
    assert out.splitlines()[1] == "the graph differs: resnest-digits"
    assert out.splitlines()[-1] == "0 of 97 values differ"


def test_one_bit_of_one_weight_is_seen(capsys, tmp_path):
    graph = refnet.load(DIGITS[0])
    arrays = {name: array.copy() for name, array in graph.weights.items()}
    some = "conv1_conv_weight"
    arrays[some].view(np.uint32).flat[0] ^= 0x80000000
    from refnet.formats.mxnet.reader import write_params

    write_params(tmp_path / "w.params", arrays, graph.statistics())
    path = GOLDEN / f"{DIGITS[0]}.json"
    code, out, _ = said(capsys, "golden", "--check", path, "--weights", tmp_path / "w.params", "--json")
    found = json.loads(out)
    assert code == 1
    assert [one["what"] for one in found["differences"]][:2] == ["weights", "value"]
    reader = next(node.name for node in graph.nodes if some in node.weights)
    assert found["first_value"] == reader


def test_what_a_file_does_not_say_is_not_compared_and_that_is_said(capsys, tmp_path):
    bare = changed(tmp_path / "g.json", graph=None, weights=None, inputs={}, sources=None)
    given = (DIGITS[1], "--input", "sample:1700-label-5.png")
    code, out, _ = said(capsys, "golden", "--check", bare, *given)
    assert code == 0
    assert out.startswith("not in the file, so not compared: graph, weights, input\n")
    for some, lacking in (((), "model"), ((DIGITS[1],), "input")):
        code, _, err = said(capsys, "golden", "--check", bare, *some)
        assert code == 2
        assert f"does not say its {lacking}" in err
    assert said(capsys, "golden", "--check", bare, DIGITS[1], "--input", "seed:1")[0] == 1


def test_an_accepted_change_is_told(capsys, tmp_path):
    file = read(SMALL)
    zeros = "0" * 64
    change = Change("2026-11-21", "the new pooling", {"fc": (file.values["fc"].sha256, zeros)})
    values = {**file.values, "fc": replace(file.values["fc"], sha256=zeros)}
    path = changed(tmp_path / "g.json", values=values, history=(change,))
    assert read(path).history == (change,)
    code, out, _ = said(capsys, "golden", "--check", path)
    assert code == 1
    assert "  the file's value was accepted on 2026-11-21: the new pooling\n" in out


def test_a_bug_while_checking_does_not_look_like_a_difference(capsys, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("refnet.verification.golden.hashes", broken)
    code, out, err = said(capsys, "golden", "--check", SMALL)
    assert (code, out) == (2, "")
    assert "ZeroDivisionError: a bug" in err


# The file.


def test_a_file_reads_back():
    odd = Digest("ab" * 32, (2, 3))
    file = File(
        {'a b/ä\n"': odd, "": odd},
        Sources("m", "seed:1", "x.npy", None, "n", (3, 4)),
        None,
        "0" * 64,
        {"data": odd},
        (Change("2026-01-01", "why\u2028", {"a": (None, "1" * 64)}),),
        "someone",
    )
    assert loads(dumps(file).encode(), "f") == file
    assert loads(dumps(File({"v": odd})).encode(), "f") == File({"v": odd})
    least = {"format": "refnet golden", "version": 1, "values": {"v": vars(odd)}}
    assert loads(json.dumps(least).encode(), "f").values == {"v": odd}


def spoiled(**fields: object) -> bytes:
    return json.dumps({**json.loads(SMALL.read_text()), **fields}).encode()


V = {"sha256": "0" * 64, "shape": [1], "dtype": "float32"}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"{" + b'"a":{' * 50_000, "no JSON"),
        (b"9" * 10_000, "no JSON"),
        (b"[]", "format"),
        (b"{}", "format"),
        (SMALL.read_bytes()[:-3], "no JSON"),
        (SMALL.read_bytes().replace(b'"fc"', b'"prob"'), "'prob' is duplicated"),
        (spoiled(format="golden"), "format"),
        (spoiled(extra=1), "values, version, weights"),
        (spoiled(values={}), "at least one value"),
        (spoiled(values=[]), "values: '[]'"),
        (spoiled(values={"v": []}), "values.v"),
        (spoiled(values={"v": {**V, "sha256": "0" * 63}}), "values.v.sha256"),
        (spoiled(values={"v": {**V, "sha256": "A" * 64}}), "values.v.sha256"),
        (spoiled(values={"v": {**V, "sha256": "0" * 64 + "\n"}}), "values.v.sha256"),
        (spoiled(values={"v": {**V, "shape": [0]}}), "values.v.shape"),
        (spoiled(values={"v": {**V, "shape": [True]}}), "values.v.shape"),
        (spoiled(values={"v": {**V, "shape": [1.0]}}), "values.v.shape"),
        (spoiled(values={"v": {**V, "shape": [1] * 33}}), "values.v.shape"),
        (spoiled(values={"v": {**V, "dtype": "float64"}}), "values.v.dtype"),
        (spoiled(values={"v": {"sha256": "0" * 64, "shape": [1]}}), "the key dtype too"),
        (spoiled(values={"v": {**V, "more": 1}}), "values.v"),
        (spoiled(graph="x"), "graph"),
        (spoiled(weights=1), "weights"),
        (spoiled(inputs=[1]), "inputs"),
        (spoiled(written_by=None), "written_by"),
        (spoiled(sources={"model": "m"}), "the key input too"),
        (spoiled(sources={"model": "m", "input": 3}), "sources.input"),
        (spoiled(sources={"model": "m", "input": "i", "image": [1]}), "sources.image"),
        (spoiled(sources={"model": "m", "input": "i", "path": "p"}), "sources"),
        (spoiled(history={}), "history"),
        (spoiled(history=[{"date": "d", "reason": "r"}]), "history[0]"),
        (spoiled(history=[{"date": "d", "reason": "r", "changed": {"a": ["0"]}}]), "history[0].changed.a"),
        (SMALL.read_bytes().replace(b'"fc"', b'"\\ud800"'), "no JSON"),
        (spoiled(history=[{"date": "d", "reason": "\ud800", "changed": {}}]), "history[0].reason"),
        (spoiled().replace(b"[1, 10]", b"[1, NaN]"), "NaN"),
    ],
)
def test_a_file_that_is_none(capsys, tmp_path, raw, why):
    path = tmp_path / "g.json"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=r"g\.json:") as error:
        read(path)
    assert why in str(error.value)
    assert said(capsys, "golden", "--check", path)[0] == 2


@pytest.mark.parametrize("version", [0, 2, True, 1.0, "1", None])
def test_another_version_is_not_guessed_at(version):
    with pytest.raises(UnsupportedError, match="only version 1"):
        loads(spoiled(version=version), "g.json")


def test_any_damage_ends_in_an_error_of_refnet_or_in_a_file():
    """Cut and changed bytes, at places spread over the whole file."""
    raw = bytearray(SMALL.read_bytes())
    refused = 0
    for i in range(0, len(raw), 97):
        for damaged in (bytes(raw[:i]), bytes(raw[:i]) + bytes([raw[i] ^ 0x15]) + bytes(raw[i + 1 :])):
            try:
                loads(damaged, "g.json")
            except RefnetError:
                refused += 1
    assert refused > len(raw) // 97


def test_a_golden_file_is_no_folder_and_not_endless(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="regular file"):
        read(tmp_path)
    monkeypatch.setattr("refnet.formats.golden_file.LARGEST", 1000)
    with pytest.raises(FormatError, match="more than 1000 bytes"):
        read(SMALL)
    if Path("/dev/zero").exists():
        with pytest.raises(InputError, match="regular file"):
            read("/dev/zero")


# refnet run --arithmetic golden.


def test_run_in_golden_arithmetic(capsys, tmp_path):
    np.save(tmp_path / "x.npy", floats((3, 1, 32, 32), "x"))
    common = ["run", DIGITS[0], "--input", str(tmp_path / "x.npy"), "--output"]
    code, out, err = said(capsys, *common, tmp_path / "g.npy", "--arithmetic", "golden", "--batch", 2)
    assert (code, err) == (0, "")
    assert "golden arithmetic" in out.splitlines()[0]
    assert said(capsys, *common, tmp_path / "p.npy", "--arithmetic", "plain")[0] == 0
    graph = refnet.load(DIGITS[0])
    golden = refnet.run(graph, {"data": np.load(tmp_path / "x.npy")}, Golden(2))["prob"]
    found = np.load(tmp_path / "g.npy")
    assert found.tobytes() == golden.tobytes()
    assert found.tobytes() != np.load(tmp_path / "p.npy").tobytes()


def test_profile_prints_the_share_that_was_refined(capsys, tmp_path):
    x = floats((2, 1, 32, 32), "x")
    np.save(tmp_path / "x.npy", x)
    refine_count = RefineCount()
    refnet.run(refnet.load(DIGITS[1]), {"data": x}, Golden(1, refine_count))
    argv = ["run", DIGITS[1], "--input", tmp_path / "x.npy", "--arithmetic", "golden", "--profile"]
    code, out, _ = said(capsys, *argv, "--json")
    assert code == 0
    found = json.loads(out)["refined"]
    assert found == {op: {"elements": n, "refined": k} for op, (n, k) in refine_count.by_op.items()}
    code, out, _ = said(capsys, *argv)
    rows = [line.split() for line in out[out.index("exact refinement") :].splitlines()]
    total, refined = (sum(pair[i] for pair in refine_count.by_op.values()) for i in (0, 1))
    assert [
        "Conv",
        *map(str, refine_count.by_op["Conv"]),
        f"{refine_count.by_op['Conv'][1] / refine_count.by_op['Conv'][0]:.2e}",
    ] in rows
    assert ["all", str(total), str(refined), f"{refined / total:.2e}"] in rows
    code, _, err = said(capsys, "run", DIGITS[1], "--profile")
    assert code == 2
    assert "needs --arithmetic golden" in err


def test_inputs_must_have_one_batch():
    graph, inputs = prepare(Sources(DIGITS[1]))
    with pytest.raises(InputError, match="must be"):
        hashes(graph, {"data": inputs["data"][:, :, :16]})
    assert record(graph, inputs).sources is None


def test_the_page_hashes_as_refnet_does(capsys):
    """The last python block of docs/golden.md, which needs NumPy alone, prints what the page says."""
    page = (Path(__file__).parents[2] / "docs" / "golden.md").read_text(encoding="utf-8")
    code, printed = page.rsplit("```python\n", 1)[1].split("```\n\n```text\n")
    printed = printed.split("```")[0]
    namespace: dict[str, Callable[[np.ndarray], str]] = {}
    exec(compile(code, "golden.md", "exec"), namespace)
    assert capsys.readouterr().out == printed
    for array in (AWKWARD, awkward((3, 5, 7), "page", 0.3), floats((4, 6), "page").T):
        assert namespace["golden_hash"](array) == digest(array).sha256
