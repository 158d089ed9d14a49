"""Damaged and hostile files: every one ends in a RefnetError that names the file, or in a sound read.

A changed byte may leave a sound file: a weight's digit, a letter of a name. Then the result must be as
small as its file, and of the right types; whether names and shapes fit is for the graph to say
(`with_weights`). A zip's members carry checksums, so there a result has the very bits of the sound file.
"""

from __future__ import annotations

import os
import struct
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refnet.core.errors import FormatError, RefnetError, UnsupportedError
from refnet.core.graph import Graph
from refnet.formats.mxnet import reader as mxnet
from refnet.formats.torch import reader as torch_reader
from refnet.formats.torch import safetensors
from tests.helpers import attacks
from tests.helpers.bits import same_bits

READERS: dict[str, Callable[[Path], Any]] = {
    "symbol": mxnet.read_symbol,
    "params V1": mxnet.read_params,
    "params V2": mxnet.read_params,
    "params V3": mxnet.read_params,
    "params legacy": mxnet.read_params,
    "tar": mxnet.read_tar,
    "pth zip": torch_reader.read_state_dict,
    "pth legacy": torch_reader.read_state_dict,
    "safetensors": safetensors.read,
}
MOST_MEMORY = 60
"""Bytes of memory per byte of the file, while reading; Python's objects for a symbol's JSON take the most."""
FIXED_MEMORY = 1 << 19
"""Bytes besides: regular expressions, messages, modules."""


@pytest.mark.parametrize("kind", attacks.SAMPLES)
def test_the_sample_is_sound(kind, tmp_path):
    name, data = attacks.SAMPLES[kind]
    result = read(kind, data, tmp_path / name)
    arrays = result.weights if isinstance(result, Graph) else result
    if kind.startswith("params") or kind == "tar":
        wanted = {n[4:]: a for n, a in attacks.small_weights().items()}
    elif kind == "symbol":
        wanted = {}
        assert result.by_name["softmax"].inputs == ("fc",)
    else:
        wanted = attacks.torch_weights()
    assert arrays.keys() == wanted.keys()
    assert all(same_bits(arrays[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("kind", attacks.SAMPLES)
def test_truncation_is_refused(kind, tmp_path):
    name, data = attacks.SAMPLES[kind]
    path = tmp_path / name
    for cut in attacks.truncations(data):
        if kind == "tar" and not data[len(cut) :].strip(b"\0"):
            continue  # only the zeros behind the last member are cut: nothing is lost
        path.write_bytes(cut)
        with pytest.raises(FormatError, match=name) as caught:
            READERS[kind](path)
        assert caught.value.offset is not None or kind == "tar"


@pytest.mark.parametrize("kind", attacks.SAMPLES)
def test_corruption_is_refused_or_harmless(kind, tmp_path):
    name, data = attacks.SAMPLES[kind]
    sound = read(kind, data, tmp_path / name)
    refused = 0
    tracemalloc.start()
    try:
        for damaged in attacks.corruptions(data, 500, kind):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            message = ""
            try:
                check_result(kind, sound, read(kind, damaged, tmp_path / name), len(damaged))
            except RefnetError as error:
                message = str(error)
                refused += 1
            assert not message or (name in message and len(message) < 5000)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < FIXED_MEMORY + MOST_MEMORY * len(damaged)
    finally:
        tracemalloc.stop()
    assert refused >= 100


def read(kind: str, data: bytes, path: Path) -> Any:
    path.write_bytes(data)
    return READERS[kind](path)


def check_result(kind: str, sound: Any, result: Any, size: int) -> None:
    """A read of a damaged file that was not refused."""
    if kind == "symbol":
        assert isinstance(result, Graph)
        assert result.types()
        return
    arrays = result.weights if isinstance(result, Graph) else result
    originals = sound.weights if isinstance(sound, Graph) else sound
    assert all(type(a) is np.ndarray and str(a.dtype) in ("float32", "int64") for a in arrays.values())
    assert sum(a.nbytes for a in arrays.values()) <= 8 * size
    if kind == "pth zip":
        assert arrays.keys() == originals.keys()
        assert all(same_bits(arrays[n], originals[n]) for n in arrays)
    elif kind == "tar":
        assert {n: a.shape for n, a in arrays.items()} == {n: a.shape for n, a in originals.items()}
    elif kind.startswith("params"):
        assert [a.shape for a in arrays.values()] == [a.shape for a in originals.values()]


# Pickles that want to do something

CANARY = "refnet_canary"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return attacks.named(module, name) + attacks.several(*arguments) + b"R"


def hostile() -> dict[str, tuple[bytes, str]]:
    """What a hostile pickle does -> (its bytes, what the message says)."""
    text, named = attacks.text, attacks.named
    touch = text(f"touch {CANARY}")
    good = attacks.tensor("FloatStorage", "0", 4, (4,))
    laughs = b"]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(200)
    )
    tuples = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(200))
    new = {
        "os.system": (call("os", "system", touch), "os.system"),
        "posix.system": (call("posix", "system", touch), "posix.system"),
        "eval": (call("builtins", "eval", text(f"open({CANARY!r}, 'w')")), "builtins.eval"),
        "exec of Python 2": (call("__builtin__", "exec", touch), "__builtin__.exec"),
        "getattr": (call("builtins", "getattr", named("torch", "FloatStorage"), touch), "builtins.getattr"),
        "subprocess": (call("subprocess", "Popen", touch), "subprocess.Popen"),
        "a dotted global": (b"\x8c\x05torch\x8c\x15FloatStorage.__init__\x93", "torch.FloatStorage"),
        "stack global": (b"\x8c\x02os\x8c\x06system\x93" + attacks.several(touch) + b"R", "os.system"),
        "torch.load": (call("torch", "load", touch), "torch.load"),
        "a module of torch": (call("torch.nn.modules.linear", "Linear"), "torch.nn.modules.linear.Linear"),
        "numpy": (call("numpy.core.multiarray", "_reconstruct"), "numpy.core.multiarray._reconstruct"),
        "INST": (b"(" + touch + b"ios\nsystem\n", "os.system"),
        "OBJ": (b"(" + named("torch", "Size") + b"o", "of torch.Size"),
        "NEWOBJ": (named("torch", "FloatStorage") + b")\x81", "of torch.FloatStorage"),
        "NEWOBJ_EX": (named("torch", "FloatStorage") + b")}\x92", "of torch.FloatStorage"),
        "EXT1": (b"\x82\x01", "EXT1"),
        "call of a storage class": (named("torch", "FloatStorage") + b")R", "of torch.FloatStorage"),
        "call of a string": (touch + b")R", "call of str"),
        "call with a list": (named("torch", "Size") + b"]R", "call with list"),
        "BUILD on a tensor": (good + b"}b", "Tensor"),
        "BUILD on a dict": (b"}}b", "dict"),
        "BUILD on a global": (named("torch", "Size") + b"}b", "torch.Size"),
        "__setstate__": (text("__setstate__") + named("os", "system") + b"b", "state set in str"),
        "BUILD with a list": (attacks.ORDERED + b"]b", "state"),
        "a text persistent id": (b"Pabc\n", "PERSID"),
        "a string as persistent id": (text("storage") + b"Q", "persistent id"),
        "a module as persistent id": (
            attacks.several(text("module"), touch, touch, touch) + b"Q",
            "persistent id",
        ),
        "a list as persistent id": (b"]Q", "persistent id"),
        "a callable as storage class": (
            attacks.several(text("storage"), named("torch", "device"), text("0"), text("cpu"), b"K\x04")
            + b"Q",
            "of torch.device",
        ),
        "a negative count": (attacks.storage("FloatStorage", "0", -1), "persistent id"),
        "a count that is a bool": (
            attacks.several(text("storage"), named("torch", "FloatStorage"), text("0"), text("cpu"), b"\x88")
            + b"Q",
            "persistent id",
        ),
        "billion laughs": (laughs, "list"),
        "billion laughs as a key": (b"}" + tuples + b"Ns", "tuple as a key"),
        "a list as a key": (b"}]Ns", "list as a key"),
        "a deep nest": (b"(" * 100_000 + b"t" * 100_000, "tuple"),
        "a dict that holds itself": (b"}q\x00" + text("a") + b"h\x00s", "is dict"),
        "a list that holds itself": (b"]q\x00h\x00a", "list"),
        "a string of 4 GB": (b"X\xff\xff\xff\xffabc", "bytes left"),
        "a string of 2^63 bytes": (b"\x8d" + struct.pack("<Q", 1 << 63), "bytes left"),
        "a long of 2 GB": (b"\x8b\xff\xff\xff\x7f", "integer of"),
        "a long of negative length": (b"\x8b\xff\xff\xff\xff", "integer of"),
        "a frame of 2^63 bytes": (b"\x95" + struct.pack("<Q", 1 << 63), "frame"),
        "an unknown memo": (b"h\x05", "memo 5"),
        "an empty stack": (b"a", "empty stack"),
        "a mark in the way": (b"](a", "empty stack"),
        "no mark": (b"t", "no mark"),
        "an odd number of items": (b"}(Nu", "key without a value"),
        "an unknown opcode": (b"\xff", "0xff"),
        "protocol 9": (b"\x80\x09", "protocol 9"),
        "no end": (b"N", "bytes left"),
        "negative size": (attacks.tensor("FloatStorage", "0", 4, (-1, -4), (1, 1)), "_rebuild_tensor"),
        "negative stride": (attacks.tensor("FloatStorage", "0", 4, (2,), (-1,), 3), "_rebuild_tensor"),
        "size and stride of two lengths": (
            attacks.tensor("FloatStorage", "0", 4, (4,), (1, 1)),
            "_rebuild_tensor",
        ),
    }
    return {
        name: (b"\x80\x02" + (body if name == "no end" else body + b"."), message)
        for name, (body, message) in new.items()
    }


@pytest.mark.parametrize("kind", ["pth zip", "pth legacy"])
@pytest.mark.parametrize("attack", hostile())
def test_hostile_pickles_do_nothing(attack, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled, message = hostile()[attack]
    raw = bytes(16)
    if attack == "no end" and kind == "pth legacy":
        pickled, message = pickled + b"}" * 3, "opcode"
    data = attacks.pth_zip(pickled, [raw]) if kind == "pth zip" else attacks.pth_legacy(pickled, [(4, raw)])
    modules = set(sys.modules)
    with pytest.raises(RefnetError, match="hostile") as caught:
        read(kind, data, tmp_path / "hostile.pth")
    assert message in str(caught.value) or (attack == "no end" and kind == "pth legacy")
    assert len(str(caught.value)) < 2000
    assert not os.path.exists(CANARY)
    assert set(sys.modules) == modules


def test_a_refused_global_is_unsupported_not_damaged(tmp_path):
    with pytest.raises(
        UnsupportedError, match=r"an object of os\.system \(at byte \d+\), which is neither made nor called"
    ):
        read("pth zip", attacks.pth_zip(hostile()["os.system"][0], []), tmp_path / "a.pth")


def test_every_refused_opcode_is_really_refused(tmp_path):
    """Of all 256 opcodes only those on the list are carried out."""
    from refnet.formats.torch.pickle_file import _STEPS, load

    for code in set(range(256)) - {ord(".")}:
        if bytes([code]) not in _STEPS:
            with pytest.raises(FormatError, match="opcode"):
                load(bytes([code]) + b".", "a.pth")


# Storages and tensors that claim too much

CLAIMS = {
    "more elements than stored": (attacks.tensor("FloatStorage", "0", 1 << 40, (4,)), "16 bytes|elements"),
    "fewer elements than stored": (attacks.tensor("FloatStorage", "0", 3, (3,)), "16 bytes|elements"),
    "a tensor behind its storage": (
        attacks.tensor("FloatStorage", "0", 4, (2,), (1,), 3),
        "within 4 elements",
    ),
    "a stride behind its storage": (attacks.tensor("FloatStorage", "0", 4, (2,), (4,)), "within 4 elements"),
    "a huge offset": (attacks.tensor("FloatStorage", "0", 4, (1,), (1,), 1 << 62), "within 4 elements"),
    "a huge stride": (attacks.tensor("FloatStorage", "0", 4, (2,), (1 << 62,)), "within 4 elements"),
    "an expanded tensor": (attacks.tensor("FloatStorage", "0", 4, (1 << 40,), (0,)), "repeats"),
    "an expanded dimension": (attacks.tensor("FloatStorage", "0", 4, (1 << 20, 4), (0, 1)), "repeats"),
    "overlapping windows": (attacks.tensor("FloatStorage", "0", 4, (3, 2), (1, 1)), "repeats"),
    "an empty tensor of endless shape": (
        attacks.tensor("FloatStorage", "0", 4, (0, 1 << 40, 1 << 40), (1, 1, 1)),
        "product",
    ),
    "33 dimensions": (attacks.tensor("FloatStorage", "0", 4, (1,) * 33), "_rebuild_tensor"),
    "another class for one storage": (
        attacks.tensor("FloatStorage", "0", 4, (4,))
        + attacks.text("b")
        + attacks.tensor("LongStorage", "0", 4, (4,)),
        "two ways",
    ),
    "a storage that is not there": (attacks.tensor("FloatStorage", "9", 4, (4,)), "no member|no tensor uses"),
    "a complex storage": (attacks.tensor("ComplexFloatStorage", "0", 2, (2,)), "ComplexFloatStorage"),
}


@pytest.mark.parametrize("kind", ["pth zip", "pth legacy"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_false_claims_of_tensors_are_refused(claim, kind, tmp_path):
    entry, message = CLAIMS[claim]
    pickled, raw = attacks.state_dict({"a": entry}), bytes(16)
    data = attacks.pth_zip(pickled, [raw]) if kind == "pth zip" else attacks.pth_legacy(pickled, [(4, raw)])
    with pytest.raises(RefnetError, match=message) as caught:
        read(kind, data, tmp_path / "claim.pth")
    assert "claim.pth" in str(caught.value)


def test_a_storage_as_long_as_claimed_twice(tmp_path):
    """The pickle and the storage's own count agree on 4 PB: nothing of that size is allocated."""
    entry = attacks.tensor("FloatStorage", "0", 1 << 50, (4,))
    with pytest.raises(FormatError, match=f"16 bytes left, expected {1 << 52}"):
        read(
            "pth legacy",
            attacks.pth_legacy(attacks.state_dict({"a": entry}), [(1 << 50, bytes(16))]),
            tmp_path / "a",
        )


def test_harmless_odd_tensors_are_read(tmp_path):
    """A stride that no element uses may be anything."""
    entry = attacks.tensor("FloatStorage", "0", 4, (1, 4), (1 << 62, 1))
    arrays = read(
        "pth zip", attacks.pth_zip(attacks.state_dict({"a": entry}), [bytes(16)]), tmp_path / "a.pth"
    )
    assert arrays["a"].shape == (1, 4)


def test_many_copies_of_one_storage_are_refused(tmp_path):
    entries = {f"t{i}": attacks.tensor("FloatStorage", "0", 1024, (32, 32), (1, 32)) for i in range(100)}
    with pytest.raises(UnsupportedError, match="share"):
        read("pth zip", attacks.pth_zip(attacks.state_dict(entries), [bytes(4096)]), tmp_path / "a.pth")


# Zips


def test_zip_bombs_and_compressed_members_are_refused(tmp_path):
    bomb = attacks.zip_file({"a/data.pkl": bytes(50 << 20)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedError, match="compressed"):
            read("pth zip", bomb, tmp_path / "bomb.pth")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_members_that_share_bytes_are_refused(tmp_path):
    """Two directory entries for one member: many of them would be a bomb without compression."""
    data = attacks.zip_file({"a/data.pkl": b"N.", "a/data/0": bytes(64), "a/data/1": bytes(64)})
    first, second = data.index(b"PK\3\4", 2), data.index(b"PK\3\4", data.index(b"PK\3\4", 2) + 1)
    place = data.rindex(b"PK\1\2")
    shared = data[: place + 42] + struct.pack("<I", first) + data[place + 46 :]
    shared = shared[:second] + shared[second:].replace(b"a/data/1", b"a/data/0")
    with pytest.raises(FormatError, match="second member"):
        read("pth zip", shared, tmp_path / "a.pth")
    nested = bytearray(attacks.zip_file({"a/data.pkl": b"N.", "a/x": b"0" * 500}))
    inner = attacks.zip_file({"a/y": b"1" * 100})[: 30 + 3 + 100]
    start = nested.index(b"0" * 500) + 50
    nested[start : start + len(inner)] = inner
    entry = bytearray(attacks.zip_file({"a/y": b"1" * 100}))
    entry = entry[entry.index(b"PK\1\2") : entry.index(b"PK\5\6")]
    entry[42:46] = struct.pack("<I", start)
    end = nested.index(b"PK\5\6")
    nested[end:end] = entry
    end += len(entry)
    nested[end + 8 : end + 16] = struct.pack(
        "<2HI", 3, 3, struct.unpack("<I", nested[end + 12 : end + 16])[0] + len(entry)
    )
    with pytest.raises(FormatError, match="inside of another"):
        read("pth zip", bytes(nested), tmp_path / "a.pth")


def test_names_of_members_are_never_paths(tmp_path):
    arrays = attacks.torch_weights()
    raw = [a.tobytes() for a in arrays.values()]
    for prefix in ("../../../tmp/x", "/etc", "C:\\x", "\\..\\x"):
        data = attacks.pth_zip(attacks.of_arrays(arrays), raw, prefix)
        assert read("pth zip", data, tmp_path / "a.pth").keys() == arrays.keys()
    members = {
        "/m/c-symbol.json": attacks.symbol(attacks.small_network()),
        "../../c-0000.params": attacks.params_file(attacks.small_weights()),
    }
    assert read("tar", attacks.tar_file(members), tmp_path / "a.tar").weights
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "a.tar"]


def test_a_wrong_checksum_is_refused(tmp_path):
    name, data = attacks.SAMPLES["pth zip"]
    place = data.index(attacks.torch_weights()["fc.weight"].tobytes())
    damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    with pytest.raises(FormatError, match="CRC-32"):
        read("pth zip", damaged, tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"archive/byteorder": b"big"}, "byte order"),
        ({"other/data.pkl": b"N."}, "2 members"),
    ],
)
def test_odd_archives_are_refused(change, message, tmp_path):
    arrays = attacks.torch_weights()
    members = {"archive/data.pkl": attacks.of_arrays(arrays), "archive/byteorder": b"little"}
    members |= {f"archive/data/{k}": a.tobytes() for k, a in enumerate(arrays.values())}
    with pytest.raises(RefnetError, match=message):
        read("pth zip", attacks.zip_file(members | change), tmp_path / "a.pth")


def test_zip64_is_read(tmp_path, monkeypatch):
    """The same archive with its numbers in zip64 records, as files over 4 GB have them."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    name, _ = attacks.SAMPLES["pth zip"]
    data = attacks.torch_files(attacks.torch_weights())["pth zip"]
    assert b"PK\6\6" in data
    assert read("pth zip", data, tmp_path / name).keys() == attacks.torch_weights().keys()


# Tars


def tar_with(info: tarfile.TarInfo, members: dict[str, bytes]) -> bytes:
    import io

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(info)
        for name, data in members.items():
            plain = tarfile.TarInfo(name)
            plain.size = len(data)
            archive.addfile(plain, io.BytesIO(data))
    return stream.getvalue()


def good_members() -> dict[str, bytes]:
    return {
        "m/c-symbol.json": attacks.symbol(attacks.small_network()),
        "m/c-0000.params": attacks.params_file(attacks.small_weights()),
    }


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_and_devices_are_passed_over(kind, tmp_path):
    info = tarfile.TarInfo("m/d-symbol.json")
    info.type, info.linkname = kind, "/etc/passwd"
    assert read("tar", tar_with(info, good_members()), tmp_path / "a.tar").weights


def test_sparse_members_are_refused(tmp_path):
    info = tarfile.TarInfo("m/sparse")
    info.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(UnsupportedError, match="sparse"):
        read("tar", tar_with(info, good_members()), tmp_path / "a.tar")
    info = tarfile.TarInfo("m/GNUSparseFile.0/x")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": "99999999999",
    }
    with pytest.raises(UnsupportedError, match="sparse"):
        read("tar", tar_with(info, good_members()), tmp_path / "a.tar")


def test_members_larger_than_the_archive_are_refused(tmp_path):
    for size in (10**9, 8**11 + 5, 2**70):
        info = tarfile.TarInfo("m/huge.params")
        data = bytearray(tar_with(info, good_members()))
        field = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
        data[124:136] = field
        data[148:156] = b"        "
        data[148:156] = b"%06o\0 " % sum(data[:512])
        with pytest.raises(FormatError, match="bytes left"):
            read("tar", bytes(data), tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"b/d-symbol.json": b"{}"}, "2 members"),
        ({"b/d-0001.params": b""}, "2 members"),
        ({"m/c-symbol.json.bak": b""}, None),
        ({"m/._c-symbol.json": b"not the symbol"}, None),
    ],
)
def test_ambiguous_archives_are_refused(members, message, tmp_path):
    data = attacks.tar_file(good_members() | members)
    if message is None:
        assert read("tar", data, tmp_path / "a.tar").weights
        return
    with pytest.raises(FormatError, match=message):
        read("tar", data, tmp_path / "a.tar")


def test_a_damaged_header_is_refused(tmp_path):
    """A changed letter of a name is only seen in the header's checksum."""
    data = attacks.tar_file(good_members()).replace(b"m/c-0000.params", b"m/d-0000.params", 1)
    with pytest.raises(FormatError, match="checksum"):
        read("tar", data, tmp_path / "a.tar")


def test_a_compressed_archive_says_so(tmp_path):
    import gzip

    with pytest.raises(UnsupportedError, match="compressed"):
        read("tar", gzip.compress(attacks.tar_file(good_members())), tmp_path / "a.tar.gz")


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_dialect(kind, tmp_path):
    folder = "/".join(["folder" * 5] * 5)
    members = {f"{folder}/{n.split('/')[1]}": data for n, data in good_members().items()}
    assert read("tar", attacks.tar_file(members, kind), tmp_path / "a.tar").weights


# Claims in .params, symbol.json and safetensors


def params_claims() -> dict[str, tuple[bytes, str]]:
    good = attacks.params_array(np.zeros((2, 3), np.float32))

    def body(head: bytes, flag: int = 0, data: bytes = b"") -> bytes:
        return attacks.params_parts([head + struct.pack("<iii", 1, 0, flag) + data], ["arg:w"])

    def v2(*shape: int) -> bytes:
        return struct.pack(f"<Iii{len(shape)}q", attacks.V2, 0, len(shape), *shape)

    return {
        "2^62 elements": (body(v2(1 << 31, 1 << 31)), "bytes left"),
        "an empty array of endless shape": (body(v2(0, 1 << 40, 1 << 40)), "product"),
        "a long skip": (body(v2(1 << 50), 6), "bytes left"),
        "a product beyond 64 bits": (body(v2(1 << 40, 1 << 40, 1 << 40)), "bytes left"),
        "a negative dimension": (body(v2(-1, 4)), "dimension -1"),
        "a rank of 2^31 - 1": (
            attacks.params_parts([struct.pack("<Iii", attacks.V2, 0, 2**31 - 1)], ["w"]),
            "rank",
        ),
        "a legacy rank of 1000": (attacks.params_parts([struct.pack("<I", 1000)], ["w"]), "rank 1000"),
        "an unknown dtype": (body(v2(2), 99), "dtype 99"),
        "an unknown device": (
            attacks.params_parts([v2(1) + struct.pack("<iii", 77, 0, 0) + bytes(4)], ["w"]),
            "device type 77",
        ),
        "an unknown storage": (
            attacks.params_parts([struct.pack("<Iii", attacks.V2, 9, 1)], ["w"]),
            "storage type 9",
        ),
        "V3 of unknown shape": (
            attacks.params_parts([struct.pack("<Iii", attacks.V3, 0, -1)], ["w"]),
            "unknown shape",
        ),
        "2^60 arrays": (struct.pack("<QQQ", 0x112, 0, 1 << 60), "count"),
        "a name of 2^60 bytes": (
            attacks.params_parts([good], [])[:-8] + struct.pack("<QQ", 1, 1 << 60),
            "length of 1152921504606846976",
        ),
        "no names": (attacks.params_parts([good], []), "0 names"),
        "one name too many": (attacks.params_parts([good], ["a", "b"]), "2 names"),
        "two arrays of one name": (attacks.params_parts([good, good], ["arg:a", "arg:a"]), "second array"),
        "one name for arg and aux": (attacks.params_parts([good, good], ["arg:a", "aux:a"]), "second array"),
        "a name that is no text": (attacks.params_parts([good], ["aa"]).replace(b"aa", b"\xff\xfe"), "UTF-8"),
        "trailing bytes": (attacks.params_parts([good], ["a"]) + b"\0", "1 more bytes"),
        "another magic": (b"\x13" + attacks.params_parts([good], ["a"])[1:], "magic 0x113"),
        "a reserved word": (
            struct.pack("<QQ", 0x112, 5) + attacks.params_parts([good], ["a"])[16:],
            "reserved word",
        ),
    }


@pytest.mark.parametrize("claim", params_claims())
def test_false_claims_of_params_are_refused(claim, tmp_path):
    data, message = params_claims()[claim]
    tracemalloc.start()
    try:
        with pytest.raises(RefnetError, match=message) as caught:
            read("params V2", data, tmp_path / "claim.params")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert "claim.params" in str(caught.value)


def test_json_bombs_are_refused(tmp_path):
    for data in (
        b"[" * 1_000_000,
        b'{"nodes": ' + b"9" * 100_000 + b"}",
        b'{"a":' * 200_000,
        b"\xff\xfe",
        b"[]",
        b"",
    ):
        with pytest.raises(FormatError, match=r"j-symbol\.json"):
            read("symbol", data, tmp_path / "j-symbol.json")


def safetensors_claims() -> dict[str, tuple[bytes, str]]:
    make = attacks.safetensors_file

    def entry(
        dtype: object = "F32", shape: object = (2,), places: object = (0, 8), **more: object
    ) -> dict[str, object]:
        return {"w": {"dtype": dtype, "shape": shape, "data_offsets": places, **more}}

    data = bytes(8)
    return {
        "a header of 2^63 bytes": (struct.pack("<Q", 1 << 63) + data, "header of"),
        "a header that is no JSON": (make(b"{]", data), "malformed JSON"),
        "a header that is a list": (make(b"[]", b""), "list"),
        "a deep header": (make(b"[" * 100_000, b""), "cannot be read"),
        "endless numbers": (make(b'{"w": ' + b"9" * 10_000 + b"}", b""), "cannot be read"),
        "a header that is no text": (make(b"\xff\xff", b""), "UTF-8"),
        "a name twice": (make(b'{"a": {}, "a": {}}', b""), "twice"),
        "a hole": (make(entry(places=(4, 12)), bytes(12)), "at 0"),
        "an overlap": (
            make({**entry(), "v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)),
            "at 8",
        ),
        "offsets backwards": (make(entry(places=(8, 0)), data), "bytes of 'w'"),
        "too few bytes": (make(entry(shape=(3,)), data), "12 for F32"),
        "bytes left over": (make(entry(), bytes(9)), "9 bytes of data"),
        "a negative dimension": (make(entry(shape=(-2,)), data), "whole numbers"),
        "a dimension of 2^80": (make(entry(shape=(0, 1 << 80), places=(0, 0)), b""), "whole numbers"),
        "an empty tensor of endless shape": (
            make(entry(shape=(0, 1 << 50, 1 << 50), places=(0, 0)), b""),
            "product",
        ),
        "a shape of words": (make(entry(shape=("a",)), data), "whole numbers"),
        "an unknown dtype": (make(entry("F8_E4M3", (8,)), data), "F8_E4M3"),
        "an entry that is a number": (make({"w": 5}, b""), "entry 'w'"),
    }


@pytest.mark.parametrize("claim", safetensors_claims())
def test_false_claims_of_safetensors_are_refused(claim, tmp_path):
    data, message = safetensors_claims()[claim]
    with pytest.raises(RefnetError, match=message) as caught:
        read("safetensors", data, tmp_path / "claim.safetensors")
    assert "claim.safetensors" in str(caught.value)


@pytest.mark.parametrize("kind", attacks.SAMPLES)
def test_folders_and_missing_files_are_refused(kind, tmp_path):
    for path in (tmp_path, tmp_path / "missing", tmp_path / "a\0b"):
        with pytest.raises(RefnetError):
            READERS[kind](path)
