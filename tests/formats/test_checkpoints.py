"""Checkpoints as they are published: which weights are taken, whole modules, other files, shards."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from refnet.core.errors import FormatError, RefnetError, UnsupportedError
from refnet.formats.mxnet.reader import read_params
from refnet.formats.torch import safetensors
from refnet.formats.torch.reader import Checkpoint, read_checkpoint
from refnet.formats.torch.sharded import read_sharded
from tests.helpers import attacks
from tests.helpers.attacks import dict_of, named, number, several, tensor, text, whole_module
from tests.helpers.bits import floats, same_bits

WRITERS = {
    "zip": lambda pickled, raw: attacks.pth_zip(pickled, [data for _, data in raw]),
    "legacy": attacks.pth_legacy,
}
formats = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
A, B = floats((2, 3), "a"), floats((2, 3), "b")
RAW = [(6, A.tobytes()), (6, B.tobytes())]
FIRST, SECOND = tensor("FloatStorage", "0", 6, (2, 3)), tensor("FloatStorage", "1", 6, (2, 3))


def entry(value: bytes) -> bytes:
    """A state dict of one tensor."""
    return attacks.state_dict({"w": value})[2:-1]


def read(path: Path, data: bytes, key: str | None = None) -> Checkpoint:
    path.write_bytes(data)
    return read_checkpoint(path, key)


def holds(found: Checkpoint, array: np.ndarray) -> bool:
    return list(found.arrays) == ["w"] and same_bits(found.arrays["w"], array)


OPTIMIZER = dict_of({"state": b"}(K\0" + dict_of({"exp_avg": FIRST}) + b"u", "param_groups": b"]"})
NAMESPACE = named("argparse", "Namespace") + b")\x81" + dict_of({"lr": number(3)}) + b"b"


@formats
@pytest.mark.parametrize("ema", ["state_dict_ema", "model_ema", "ema", "params_ema"])
@pytest.mark.parametrize("plain", ["state_dict", "model", "net", "model_state_dict", "params"])
def test_weights_are_taken_before_their_average_and_said(plain, ema, write, tmp_path):
    first = {ema: entry(SECOND), plain: entry(FIRST)}
    for order in (first, dict(reversed(first.items()))):
        data = write(b"\x80\x02" + dict_of({"epoch": number(3), **order, "args": NAMESPACE}) + b".", RAW)
        found = read(tmp_path / "a.pth", data)
        assert holds(found, A)
        assert (found.path, found.others) == (plain, (ema,))
        other = read(tmp_path / "a.pth", data, ema)
        assert holds(other, B)
        assert (other.path, other.others) == (ema, (plain,))
    with pytest.raises(UnsupportedError, match=rf"no weights under the key 'best': it has under '{ema}'"):
        read(tmp_path / "a.pth", write(b"\x80\x02" + dict_of(first) + b".", RAW), "best")


@formats
def test_nested_weights_have_a_path_and_an_optimizer_is_none(write, tmp_path):
    """A legacy file has the optimizer's storages between those of the weights: they are passed over."""
    inner = dict_of(
        {"checkpoint": dict_of({"net": entry(SECOND), "step": tensor("FloatStorage", "0", 6, ())})}
    )
    data = write(b"\x80\x02" + dict_of({"optimizer": OPTIMIZER, "model": inner})[:-1] + b"u.", RAW)
    found = read(tmp_path / "a.pth", data)
    assert holds(found, B)
    assert (found.path, found.others) == ("model.checkpoint.net", ())
    assert holds(read(tmp_path / "a.pth", data, "model.checkpoint.net"), B)


@formats
def test_two_networks_are_not_chosen_between(write, tmp_path):
    data = write(b"\x80\x02" + dict_of({"generator": entry(FIRST), "critic": entry(SECOND)}) + b".", RAW)
    with pytest.raises(
        UnsupportedError, match=r"several weights, under 'generator', 'critic': key \(--key\)"
    ):
        read(tmp_path / "a.pth", data)
    assert holds(read(tmp_path / "a.pth", data, "critic"), B)


@formats
def test_unknown_globals_matter_only_where_a_tensor_depends_on_them(write, tmp_path):
    path = tmp_path / "a.pth"
    objects = {
        "a namespace": NAMESPACE,
        "a function's result": named("os", "system") + several(text("touch x")) + b"R",
        "a dict of a class": named("nets", "Config") + b")\x81(" + text("a") + number(1) + b"u",
        "a list of a class": named("nets", "List") + b")\x81]a",
        "an enum": named("nets", "Mode") + number(2) + b"\x85R",
        "a class": named("nets", "Small"),
        "a set": named("__builtin__", "set") + b"]\x85R",
        "INST": b"(ios\nsystem\n",
        "odd keys": b"}(" + number(1) + b"\x85" + number(2) + b"N" + number(3) + b"u",
    }
    for name, value in objects.items():
        body = (
            b"\x80\x02"
            + dict_of({"args": value, "state_dict": entry(FIRST), "o": b"]" + SECOND + b"a"})
            + b"."
        )
        assert holds(read(path, write(body, RAW)), A), name
    wrapped = named("nets", "Quantised") + several(FIRST) + b"R"
    for value, said in (
        (wrapped, "nets.Quantised"),
        (tensor("QInt8Storage", "0", 6, (2, 3)), "torch.QInt8Storage"),
        (
            named("torch._utils", "_rebuild_tensor_v3")
            + several(
                attacks.storage("UntypedStorage", "0", 6), number(0), b")", b")", b"\x89", attacks.ORDERED
            )[:-1]
            + named("torch", "float8_e4m3fn")
            + b"tR",
            "torch.float8_e4m3fn",
        ),
    ):
        body = b"\x80\x02" + dict_of({"state_dict": dict_of({"v": SECOND, "w": value})}) + b"."
        with pytest.raises(
            UnsupportedError, match=rf"entry 'w' at byte \d+ is of {said}, which refnet does not"
        ):
            read(path, write(body, RAW))


@formats
def test_a_module_pickled_whole_gives_its_state_dict(write, tmp_path):
    inner = whole_module(
        "Block", {"weight": SECOND, "bias": b"N"}, {"mean": FIRST, "cache": FIRST}, {}, ("cache",)
    )
    outer = whole_module("Small", {"scale": FIRST}, {}, {"conv": inner, "skip": b"N"})
    found = read(tmp_path / "a.pth", write(b"\x80\x02" + outer + b".", RAW))
    assert {n: same_bits(a, B if n == "conv.weight" else A) for n, a in found.arrays.items()} == {
        "scale": True,
        "conv.weight": True,
        "conv.mean": True,
    }
    assert list(found.arrays) == ["scale", "conv.weight", "conv.mean"]
    assert (found.path, found.whole) == ("", "nets.Small")
    both = b"\x80\x02" + dict_of({"epoch": number(3), "model": outer, "ema": inner}) + b"."
    found = read(tmp_path / "a.pth", write(both, RAW))
    assert (found.path, found.whole, found.others) == ("model", "nets.Small", ("ema",))
    assert set(read(tmp_path / "a.pth", write(both, RAW), "ema").arrays) == {"weight", "mean"}


def test_modules_that_hold_themselves_or_double_end_in_an_error(tmp_path):
    head = named("nets", "Loop") + b")\x81q\0"
    state = {"_parameters": b"}", "_buffers": b"}", "_modules": dict_of({"a": b"h\0", "b": b"h\0"})}
    loop = b"\x80\x02" + head + dict_of(state) + b"b."
    tower = whole_module("Leaf", {"w": FIRST}) + b"q\1"
    for i in range(1, 40):
        tower += b"0" + whole_module("Two", {}, {}, {"a": b"h" + bytes([i]), "b": b"h" + bytes([i])})
        tower += b"q" + bytes([i + 1])
    for pickled in (loop, b"\x80\x02" + tower + b"."):
        with pytest.raises(RefnetError, match=r"a\.pth.*(too many parts|is no module)"):
            read(tmp_path / "a.pth", WRITERS["zip"](pickled, RAW))
    source = several(text("module"), named("nets", "Small"), text("nets.py"), text("class Small: ...")) + b"Q"
    legacy = b"\x80\x02" + whole_module("Small", {"w": FIRST}).replace(named("nets", "Small"), source) + b"."
    assert holds(read(tmp_path / "a.pth", attacks.pth_legacy(legacy, RAW[:1])), A)
    text_module = whole_module("Small", {"w": text("x")})
    with pytest.raises(UnsupportedError, match="entry 'w' is str"):
        read(tmp_path / "a.pth", WRITERS["zip"](b"\x80\x02" + text_module + b".", RAW))


def test_pairs_copied_again_and_again_are_bounded(tmp_path):
    """OrderedDict([[k, v], ...]) of one long list, called for every few bytes of the file."""
    pairs = b"](" + b"".join(b"]" + b"(K\x01K\x01e" for _ in range(2000)) + b"eq\0"
    calls = (named("collections", "OrderedDict") + b"h\0\x85R0") * 2000
    with pytest.raises(FormatError, match="pairs of OrderedDict"):
        read(tmp_path / "a.pth", WRITERS["zip"](b"\x80\x02" + pairs + b"0" + calls + b"N.", []))


# Files that are something else


def torchscript() -> bytes:
    """The code is compressed, as torch writes it."""
    data = {"net/data.pkl": b"\x80\x02N.", "net/data/0": bytes(8), "net/constants.pkl": b"N."}
    stream = io.BytesIO(attacks.zip_file(data))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/code/__torch__/nets.py", b"class Small(Module):\n" * 50)
    return stream.getvalue()


SOUND = attacks.pth_zip(attacks.state_dict({"w": FIRST}), [A.tobytes()])
OTHERS = {
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "a Git LFS pointer.*git lfs pull",
    ),
    "HTML": (
        b"\n<!DOCTYPE html><html><title>Virus scan warning</title></html>",
        "an HTML page.*download the file again",
    ),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML document"),
    "gzip": (gzip.compress(SOUND), r"compressed \(gzip\): gunzip < FILE > NEW unpacks it"),
    "xz": (b"\xfd7zXZ\0" + bytes(40), r"compressed \(xz\)"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(40), r"compressed \(zstd\)"),
    "a cut zip": (SOUND[:-100], "a zip that is cut short.*again"),
    "TorchScript": (
        torchscript(),
        r"a TorchScript program: torch\.save\(torch\.jit\.load\(FILE\)\.state_dict",
    ),
    "an exported program": (
        attacks.zip_file({"net/archive_format": b"pt2", "net/models/model.json": b"{}"}),
        r"an exported program: torch\.save\(torch\.export\.load\(FILE\)\.state_dict",
    ),
    ".npz": (attacks.zip_file({"w.npy": bytes(8)}), "NumPy's .npz"),
    "safetensors": (attacks.safetensors_of({"w": A}), "safetensors: name it .safetensors"),
    ".params": (attacks.params_file({"w": A}), "MXNet's .params"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "NumPy": (b"\x93NUMPY\1\0" + bytes(40), "a NumPy array"),
    "tar": (attacks.tar_file({"a": b"b"}), "a tar archive"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_named_with_their_remedy(kind, tmp_path):
    data, message = OTHERS[kind]
    with pytest.raises(RefnetError, match=rf"net\.pth: .*{message}"):
        read(tmp_path / "net.pth", data)


@pytest.mark.parametrize("kind", ["Git LFS", "HTML", "gzip"])
def test_every_reader_names_pointers_pages_and_packed_files(kind, tmp_path):
    data, message = OTHERS[kind]
    for name, reader in (
        ("a.params", read_params),
        ("a.safetensors", safetensors.read),
        ("a.safetensors.index.json", read_sharded),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnsupportedError, match=rf"{name}: .*{message}"):
            reader(tmp_path / name)


# Shards


def shards(folder: Path, **change: object) -> Path:
    """An index of two shards."""
    (folder / "m-1-of-2.safetensors").write_bytes(attacks.safetensors_of({"b": B, "n": np.array([7])}))
    (folder / "m-2-of-2.safetensors").write_bytes(attacks.safetensors_of({"a": A}))
    names = {"a": "m-2-of-2.safetensors", "b": "m-1-of-2.safetensors", "n": "m-1-of-2.safetensors"} | change
    index = folder / "m.safetensors.index.json"
    entries = {name: shard for name, shard in names.items() if shard is not None}
    index.write_text(json.dumps({"metadata": {"total_size": 56}, "weight_map": entries}))
    return index


def test_shards_are_read_as_one_file(tmp_path):
    found = read_sharded(shards(tmp_path))
    assert list(found) == ["a", "b", "n"]
    assert same_bits(found["a"], A)
    assert same_bits(found["b"], B)
    index = tmp_path / "pytorch_model.bin.index.json"
    (tmp_path / "p-1.bin").write_bytes(SOUND)
    index.write_text(json.dumps({"weight_map": {"w": "p-1.bin"}}))
    assert same_bits(read_sharded(index)["w"], A)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": "../m-2-of-2.safetensors"}, "a .safetensors file beside it"),
        ({"a": "/etc/passwd.safetensors"}, "a .safetensors file beside it"),
        ({"a": "sub/m.safetensors"}, "a .safetensors file beside it"),
        ({"a": "C:\\m.safetensors"}, "a .safetensors file beside it"),
        ({"a": "m.pth"}, "a .safetensors file beside it"),
        ({"a": "m\0.safetensors"}, "a shard's name"),
        ({"a": "missing.safetensors"}, "no shard 'missing.safetensors'"),
        ({"a": 5}, "int as a shard of 'a'"),
        ({"c": "m-2-of-2.safetensors"}, "no 'c'"),
        ({"b": None}, "found 'b', expected only what"),
        ({"a": "link.safetensors"}, "a link out of its folder"),
        ({"a": "same.safetensors", "c": "m-2-of-2.safetensors"}, "one file as"),
    ],
)
def test_indexes_that_leave_their_folder_or_do_not_fit_are_refused(change, message, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "outside.safetensors").write_bytes(attacks.safetensors_of({"a": A}))
    (inner / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    index = shards(inner, **change)
    (inner / "same.safetensors").hardlink_to(inner / "m-2-of-2.safetensors")
    with pytest.raises(FormatError, match=message):
        read_sharded(index)


def test_a_cache_of_links_is_a_folder_too(tmp_path):
    """As downloaded models are kept: index and shards are links to files of one folder."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    shards(blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert set(read_sharded(snapshot / "m.safetensors.index.json")) == {"a", "b", "n"}


# Damage


def tried(reader: Callable[[], Mapping[str, np.ndarray]]) -> tuple[Mapping[str, np.ndarray], str]:
    """The arrays, or the message of a refusal. Any other error fails the test."""
    try:
        return reader(), ""
    except RefnetError as error:
        return {}, str(error)


def damaged_samples() -> dict[str, bytes]:
    inner = whole_module("Block", {"weight": SECOND}, {"mean": FIRST}, {}, ("cache",))
    module = whole_module("Small", {"scale": FIRST}, {}, {"conv": inner})
    mixed = dict_of(
        {"args": NAMESPACE, "model": module, "state_dict_ema": entry(SECOND), "optimizer": OPTIMIZER}
    )
    pickled = b"\x80\x02" + mixed + b"."
    return {"zip": pickled, "legacy": WRITERS["legacy"](pickled, RAW)}


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_checkpoints_end_in_an_error_or_a_small_result(kind, tmp_path, monkeypatch):
    """The zip's checksum is made right again, so that the damage reaches the pickle."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pth"
    count = int(os.environ.get("REFNET_FUZZ", "400"))
    tracemalloc.start()
    refused = 0
    try:
        for damaged in attacks.corruptions(damaged_samples()[kind], count, kind):
            data = WRITERS["zip"](damaged, RAW) if kind == "zip" else damaged
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            path.write_bytes(data)
            arrays, message = tried(lambda: read_checkpoint(path).arrays)
            refused += bool(message)
            assert not message or ("a.pth" in message and len(message) < 3000)
            assert sum(a.nbytes for a in arrays.values()) <= 8 * len(data)
            assert tracemalloc.get_traced_memory()[1] - before < (1 << 19) + 60 * len(data)
    finally:
        tracemalloc.stop()
    assert refused >= count // 4
    assert os.listdir(tmp_path) == ["a.pth"]


OPCODES = (
    b"(.0125BCGIJKLMNRSTUVXabcdeghijlopqrstu})]"
    b"\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8e\x8f\x90\x91\x92\x93\x94\x95"
)


def test_pickles_of_random_opcodes_do_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dice = random.Random(zlib.crc32(b"opcodes"))
    parts = [
        FIRST,
        entry(SECOND),
        NAMESPACE,
        named("os", "system"),
        text("w"),
        number(3),
        b"q\0",
        b"h\0",
        b")R",
        b")\x81",
    ]
    for _ in range(int(os.environ.get("REFNET_FUZZ", "400"))):
        pickled = b"\x80\x02" + b"".join(
            dice.choice(parts) if dice.random() < 0.6 else bytes([dice.choice(OPCODES)])
            for _ in range(dice.randrange(1, 40))
        )
        (tmp_path / "a.pth").write_bytes(WRITERS["zip"](pickled + b".", RAW))
        _, message = tried(lambda: read_checkpoint(tmp_path / "a.pth").arrays)
        assert not message or "a.pth" in message
    assert os.listdir(tmp_path) == ["a.pth"]


def test_damaged_indexes_end_in_an_error_or_a_sound_read(tmp_path):
    index = shards(tmp_path)
    sound = index.read_bytes()
    expected = set(os.listdir(tmp_path))
    for damaged in attacks.corruptions(sound, int(os.environ.get("REFNET_FUZZ", "400")), "index"):
        index.write_bytes(damaged)
        found, message = tried(lambda: read_sharded(index))
        assert str(tmp_path) in message if message else len(found) == 3
    assert set(os.listdir(tmp_path)) == expected
