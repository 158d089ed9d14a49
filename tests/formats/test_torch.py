"""State dicts: .pth in both formats, checkpoints and prefixes, dtypes and strides; safetensors."""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.torch import safetensors
from refnet.formats.torch.pickle_calls import ALLOWED
from refnet.formats.torch.pickle_file import load
from refnet.formats.torch.reader import read_state_dict
from refnet.formats.torch.stand_ins import Ordered, Pickled
from tests.helpers import attacks
from tests.helpers.attacks import ORDERED, named, number, several, state_dict, tensor, text
from tests.helpers.bits import floats, same_bits

Writer = Callable[[bytes, list[tuple[int, bytes]]], bytes]
WRITERS: dict[str, Writer] = {
    "zip": lambda pickled, storages: attacks.pth_zip(pickled, [raw for _, raw in storages]),
    "legacy": attacks.pth_legacy,
}
formats = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def saved(path: Path, data: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(data)
    return read_state_dict(path)


def test_the_samples_are_pickles_that_python_knows():
    """The hand-made opcodes mean to pickletools what they mean to the reader."""
    pickled = attacks.of_arrays(attacks.torch_weights())
    pickletools.dis(pickled, out=io.StringIO())
    names = [argument for op, argument, _ in pickletools.genops(pickled) if op.name == "GLOBAL"]
    assert {name.replace(" ", ".") for name in names} <= set(ALLOWED)


@formats
def test_names_order_shapes_and_bits(write, tmp_path):
    arrays = attacks.torch_weights()
    raw = [(a.size, a.tobytes()) for a in arrays.values()]
    found = saved(tmp_path / "a.pth", write(attacks.of_arrays(arrays), raw))
    assert list(found) == list(arrays)
    assert all(same_bits(found[n], a) for n, a in arrays.items())
    assert found["bn1.num_batches_tracked"].dtype == np.int64


@formats
@pytest.mark.parametrize(
    ("kind", "stored", "expected"),
    [
        ("FloatStorage", np.array([1.5, -0.0], np.float32), np.array([1.5, -0.0], np.float32)),
        (
            "HalfStorage",
            np.array([0.1, np.inf], np.float16),
            np.array([0.1, np.inf], np.float16).astype(np.float32),
        ),
        ("BFloat16Storage", np.array([0x3FC0, 0x8000], np.uint16), np.array([1.5, -0.0], np.float32)),
        ("DoubleStorage", np.array([1 + 2.0**-24, 1e300]), np.array([1.0, np.inf], np.float32)),
        ("LongStorage", np.array([-1, 2**62]), np.array([-1, 2**62])),
        ("IntStorage", np.array([-1, 5], np.int32), np.array([-1, 5])),
        ("ShortStorage", np.array([-1, 5], np.int16), np.array([-1, 5])),
        ("CharStorage", np.array([-1, 5], np.int8), np.array([-1, 5])),
        ("ByteStorage", np.array([255, 5], np.uint8), np.array([255, 5])),
        ("BoolStorage", np.array([True, False]), np.array([1, 0])),
    ],
)
def test_dtypes(kind, stored, expected, write, tmp_path):
    pickled = state_dict({"a": tensor(kind, "0", 2, (2,))})
    found = saved(tmp_path / "a.pth", write(pickled, [(2, stored.tobytes())]))["a"]
    assert same_bits(found, expected)


@formats
def test_strides_offsets_and_shared_storages(write, tmp_path):
    data = np.arange(12, dtype=np.float32)
    entries = {
        "whole": tensor("FloatStorage", "0", 12, (3, 4)),
        "transposed": tensor("FloatStorage", "0", 12, (4, 3), (1, 4)),
        "part": tensor("FloatStorage", "0", 12, (2, 2), (4, 1), 5),
        "steps": tensor("FloatStorage", "0", 12, (4,), (3,), 2),
        "scalar": tensor("FloatStorage", "0", 12, (), (), 7),
        "empty": tensor("FloatStorage", "0", 12, (0, 3), (3, 1)),
        "last": tensor("FloatStorage", "0", 12, (1,), (1,), 11),
    }
    found = saved(tmp_path / "a.pth", write(state_dict(entries), [(12, data.tobytes())]))
    whole = data.reshape(3, 4)
    expected = {
        "whole": whole,
        "transposed": whole.T,
        "part": whole[1:, 1:3],
        "steps": data[2::3],
        "scalar": data[7],
        "empty": np.zeros((0, 3), np.float32),
        "last": data[11:],
    }
    assert all(same_bits(found[n], np.asarray(a)) for n, a in expected.items())


@formats
@pytest.mark.parametrize("name", ["w\0", "a\nb", "\x1b[31m", "\x85"])
def test_names_that_are_no_text_are_refused(write, name, tmp_path):
    pickled = state_dict(
        {"a": tensor("FloatStorage", "0", 1, (1,)), name: tensor("FloatStorage", "0", 1, (1,))}
    )
    with pytest.raises(FormatError, match="as a tensor's name, expected no control character"):
        saved(tmp_path / "a.pth", write(pickled, [(1, bytes(4))]))
    (tmp_path / "a.safetensors").write_bytes(attacks.safetensors_of({name: floats((1,), 0)}))
    with pytest.raises(FormatError, match="as a tensor's name, expected no control character"):
        safetensors.read(tmp_path / "a.safetensors")


def test_half_a_surrogate_pair_in_a_header_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(attacks.safetensors_of({"\ud800w": floats((1,), 0)}))
    with pytest.raises(FormatError, match="as a tensor's name, expected no control character"):
        safetensors.read(tmp_path / "a.safetensors")


@formats
def test_parameters_checkpoints_and_prefixes(write, tmp_path):
    values = floats((2, 3), 0)
    plain = tensor("FloatStorage", "0", 6, (2, 3))
    parameter = named("torch._utils", "_rebuild_parameter") + several(plain, b"\x88", ORDERED) + b"R"
    inner = {
        "w": state_dict({"w": parameter})[2:-1],
        "v": b"}" + text("v") + plain + b"s",
        "module.w": state_dict({"module.w": plain})[2:-1],  # who knows the graph takes a prefix off
    }
    for name, body in inner.items():
        for key in ("state_dict", "model"):
            extra = text("epoch") + number(3) + text("best") + b"G" + bytes(8) + text("opt") + b"](K\x01Ne"
            outer = b"\x80\x02}(" + extra + text(key) + body + b"u."
            for pickled in (outer, b"\x80\x02" + body + b"."):
                found = saved(tmp_path / "a.pth", write(pickled, [(6, values.tobytes())]))
                assert list(found) == [name]
                assert same_bits(found[name], values)
    mixed = state_dict({"module.w": plain, "v": tensor("FloatStorage", "0", 6, (6,))})
    assert list(saved(tmp_path / "a.pth", write(mixed, [(6, values.tobytes())]))) == ["module.w", "v"]


@formats
@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (state_dict({"w": number(5)}), "entry 'w' is int"),
        (state_dict({"w": b"}"}), "entry 'w' is dict"),
        (b"\x80\x02}K\x05Ns.", "entry '5' is NoneType"),
        (b"\x80\x02" + tensor("FloatStorage", "0", 1, (1,)) + b".", "holds Tensor"),
        (b"\x80\x02N.", "holds NoneType"),
        (
            b"\x80\x02}" + text("state_dict") + b"}" + text("state_dict") + b"}ss.",
            "entry 'state_dict' is dict",
        ),
    ],
)
def test_other_things_than_state_dicts_are_refused(pickled, message, write, tmp_path):
    with pytest.raises(UnsupportedError, match=message):
        saved(tmp_path / "a.pth", write(pickled, []))


def test_views_of_legacy_storages(tmp_path):
    """Files of 2017 to 2020 may describe a storage as a part of another."""
    data = np.arange(10, dtype=np.float32)
    view = several(text("9"), number(4), number(3))
    arguments = several(
        attacks.storage("FloatStorage", "0", 10, view),
        number(1),
        several(number(2)),
        several(number(1)),
        b"\x89",
        ORDERED,
    )
    entry = named("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"
    found = saved(tmp_path / "a.pth", attacks.pth_legacy(state_dict({"a": entry}), [(10, data.tobytes())]))
    assert same_bits(found["a"], data[5:7])
    for begin, count in ((4, 7), (11, 0), (0, 11)):
        wrong = several(text("9"), number(begin), number(count))
        entry = named("torch._utils", "_rebuild_tensor_v2") + several(
            attacks.storage("FloatStorage", "0", 10, wrong), number(0), b")", b")", b"\x89", ORDERED
        )
        with pytest.raises(FormatError, match="view"):
            saved(
                tmp_path / "a.pth",
                attacks.pth_legacy(state_dict({"a": entry + b"R"}), [(10, data.tobytes())]),
            )


def test_dicts_of_python_2_and_newer_protocols():
    pairs = b"](]" + b"(X\x01\x00\x00\x00aK\x01ee"
    ordered = b"\x80\x02" + named("collections", "OrderedDict") + pairs + b"\x85R."
    assert load(ordered, "a").value == Ordered({"a": 1})
    framed = b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x05s."
    assert load(framed, "a") == Pickled({"a": 5}, len(framed), {})
    stack = b"\x80\x04\x8c\x05torch\x94\x8c\x04Size\x94\x93\x94K\x02K\x03\x86\x94\x85\x94R\x94."
    assert load(stack, "a").value == (2, 3)
    device = b"\x80\x02" + named("torch", "device") + text("cpu") + b"\x85R."
    assert load(device, "a").value == "cpu"
    assert load(b"\x80\x02U\x03abc.", "a").value == "abc"
    assert load(b"\x80\x03C\x03abc.", "a").value == b"abc"
    assert load(b"\x80\x02\x8a\x02\x00\x80.", "a").value == -32768


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "nothing"),
        (b"hello", "68 65 6c 6c"),
        (b"\x80\x02K\x05.", "another magic"),
        (b"\x80\x02N.", "another magic"),
    ],
)
def test_files_that_are_something_else(head, message, tmp_path):
    with pytest.raises(FormatError, match=message):
        saved(tmp_path / "a.pth", head)


def test_legacy_files_of_other_machines_and_with_odd_keys(tmp_path):
    pickled = state_dict({"a": tensor("FloatStorage", "0", 2, (2,))})
    with pytest.raises(UnsupportedError, match="little-endian"):
        saved(tmp_path / "a.pth", attacks.pth_legacy(pickled, [(2, bytes(8))], little=False))
    with pytest.raises(FormatError, match="no storage '0'"):
        saved(tmp_path / "a.pth", attacks.pth_legacy(pickled, []))
    with pytest.raises(FormatError, match="'1', which no tensor uses"):
        saved(tmp_path / "a.pth", attacks.pth_legacy(pickled, [(2, bytes(8)), (1, bytes(4))]))
    with pytest.raises(FormatError, match="3 elements in storage '0', expected 2"):
        saved(tmp_path / "a.pth", attacks.pth_legacy(pickled, [(3, bytes(12))]))
    with pytest.raises(FormatError, match="4 more bytes"):
        saved(tmp_path / "a.pth", attacks.pth_legacy(pickled, [(2, bytes(12))]))


# safetensors


def test_safetensors_of_every_dtype(tmp_path):
    path = tmp_path / "a.safetensors"
    values = {
        "F32": (np.array([1.5, -0.0], np.float32), np.array([1.5, -0.0], np.float32)),
        "F16": (np.array([0.1, -2], np.float16), np.array([0.1, -2], np.float16).astype(np.float32)),
        "BF16": (np.array([0x3FC0, 0x8000], np.uint16), np.array([1.5, -0.0], np.float32)),
        "F64": (np.array([1 + 2.0**-24, -1e300]), np.array([1.0, -np.inf], np.float32)),
        "I64": (np.array([-1, 2**62]), np.array([-1, 2**62])),
        "I32": (np.array([-1, 5], np.int32), np.array([-1, 5])),
        "I16": (np.array([-1, 5], np.int16), np.array([-1, 5])),
        "I8": (np.array([-1, 5], np.int8), np.array([-1, 5])),
        "U8": (np.array([255, 5], np.uint8), np.array([255, 5])),
        "BOOL": (np.array([True, False]), np.array([1, 0])),
    }
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for dtype in sorted(values, key=lambda d: -values[d][0].itemsize):
        raw = values[dtype][0].tobytes()
        header[dtype] = {"dtype": dtype, "shape": [2, 1], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    path.write_bytes(attacks.safetensors_file(header, data))
    found = safetensors.read(path)
    assert found.keys() == values.keys()
    assert all(same_bits(found[n], expected.reshape(2, 1)) for n, (_, expected) in values.items())
    assert all(a.flags.writeable for a in found.values())


def test_safetensors_written_by_the_package(tmp_path):
    from safetensors.numpy import save_file

    arrays = attacks.torch_weights() | {
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_file(arrays, tmp_path / "a.safetensors", {"format": "np"})
    found = safetensors.read(tmp_path / "a.safetensors")
    assert list(found) == sorted(arrays)
    assert all(same_bits(found[n], a) for n, a in arrays.items())
