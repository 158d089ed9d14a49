"""Files made byte by byte, sound and hostile: what the readers' tests read. No framework is needed.

`SAMPLES` holds one small sound file per format. The crosschecks read the sound ones with the frameworks too.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from tests.helpers.bits import floats

# MXNet

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
LEGACY = 0
FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


def params_array(array: np.ndarray, version: int = V2) -> bytes:
    """One array as MXNet stores it."""
    n = array.ndim
    if version == LEGACY:
        head = struct.pack(f"<I{n}I", n, *array.shape)
    elif version == V1:
        head = struct.pack(f"<II{n}q", V1, n, *array.shape)
    else:
        head = struct.pack(f"<Iii{n}q", version, 0, n, *array.shape)
    return head + struct.pack("<iii", 1, 0, FLAGS[str(array.dtype)]) + array.tobytes()


def params_file(arrays: Mapping[str, np.ndarray], version: int = V2) -> bytes:
    """A .params file."""
    return params_parts([params_array(a, version) for a in arrays.values()], list(arrays))


def params_parts(arrays: list[bytes], names: list[str]) -> bytes:
    """A .params file from its arrays' bytes."""
    raw = [name.encode() for name in names]
    body = struct.pack("<QQQ", 0x112, 0, len(arrays)) + b"".join(arrays) + struct.pack("<Q", len(raw))
    return body + b"".join(struct.pack("<Q", len(name)) + name for name in raw)


def variable(name: str) -> dict[str, object]:
    """A variable of a symbol."""
    return {"op": "null", "name": name, "inputs": []}


def node(op: str, name: str, inputs: list[int], **attributes: object) -> dict[str, object]:
    """A node of a symbol."""
    entry: dict[str, object] = {"op": op, "name": name, "inputs": [[i, 0, 0] for i in inputs]}
    if attributes:
        entry["attrs"] = {key: str(value) for key, value in attributes.items()}
    return entry


def symbol(nodes: list[dict[str, object]], heads: list[int] | None = None, **more: object) -> bytes:
    """A symbol.json; the last node is the head unless others are named."""
    heads = [len(nodes) - 1] if heads is None else heads
    document = {
        "nodes": nodes,
        "arg_nodes": [i for i, n in enumerate(nodes) if n["op"] == "null"],
        "heads": [[i, 0, 0] for i in heads],
        "attrs": {"mxnet_version": ["int", 10901]},
        **more,
    }
    return json.dumps(document, indent=1).encode()


def small_network(blocks: int = 3) -> list[dict[str, object]]:
    """data -> (convolution, batch norm, relu) x blocks -> global pool -> dense -> softmax."""
    nodes = [variable("data")]
    head = 0
    for b in range(blocks):
        at = len(nodes)
        nodes.append(variable(f"conv{b}_weight"))
        attributes = {"kernel": (3, 3), "pad": (1, 1), "num_filter": 4, "no_bias": True}
        nodes.append(node("Convolution", f"conv{b}", [head, at], **attributes))
        nodes += [variable(f"bn{b}_{role}") for role in ("gamma", "beta", "moving_mean", "moving_var")]
        norm = node(
            "BatchNorm", f"bn{b}", [at + 1, at + 2, at + 3, at + 4, at + 5], eps=1e-4, fix_gamma=False
        )
        nodes += [norm, node("Activation", f"relu{b}", [at + 6], act_type="relu")]
        head = at + 7
    at = len(nodes)
    nodes.append(node("Pooling", "pool", [head], pool_type="avg", global_pool=True, kernel=(1, 1)))
    nodes += [variable("fc_weight"), variable("fc_bias"), variable("softmax_label")]
    nodes.append(node("FullyConnected", "fc", [at, at + 1, at + 2], num_hidden=10))
    return [*nodes, node("SoftmaxOutput", "softmax", [at + 4, at + 3])]


def small_weights(blocks: int = 3, channels: int = 3) -> dict[str, np.ndarray]:
    """Weights of `small_network`, with the prefixes arg: and aux:."""
    found = {}
    for b in range(blocks):
        found[f"arg:conv{b}_weight"] = floats((4, channels if b == 0 else 4, 3, 3), b)
        for role in ("gamma", "beta"):
            found[f"arg:bn{b}_{role}"] = floats((4,), (b, role))
        for role in ("moving_mean", "moving_var"):
            found[f"aux:bn{b}_{role}"] = np.abs(floats((4,), (b, role)))
    return found | {"arg:fc_weight": floats((10, 4), "fc"), "arg:fc_bias": floats((10,), "bias")}


def tar_file(members: Mapping[str, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A .tar of plain files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


# PyTorch

STORAGE = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}


def text(value: str) -> bytes:
    """BINUNICODE"""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """BININT1, BININT2, BININT or LONG1, as Python's pickler chooses"""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if 0 <= value < 65536:
        return b"M" + struct.pack("<H", value)
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def several(*parts: bytes) -> bytes:
    """MARK ... TUPLE"""
    return b"(" + b"".join(parts) + b"t"


def named(module: str, name: str) -> bytes:
    """GLOBAL"""
    return f"c{module}\n{name}\n".encode()


ORDERED = named("collections", "OrderedDict") + b")R"


def storage(kind: str, key: str, count: int, view: bytes = b"") -> bytes:
    """The persistent id of a storage."""
    parts = (text("storage"), named("torch", kind), text(key), text("cpu"), number(count))
    return several(*parts, view) + b"Q"


def tensor(
    kind: str,
    key: str,
    count: int,
    size: tuple[int, ...],
    stride: tuple[int, ...] | None = None,
    offset: int = 0,
    view: bytes = b"",
) -> bytes:
    """torch._utils._rebuild_tensor_v2(...). view: the sixth entry of legacy files' storages, NONE mostly."""
    if stride is None:
        stride = tuple(int(np.prod(size[i + 1 :], dtype=int)) for i in range(len(size)))
    shape = (several(*map(number, size)), several(*map(number, stride)))
    arguments = several(storage(kind, key, count, view), number(offset), *shape, b"\x89", ORDERED)
    return named("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def state_dict(entries: Mapping[str, bytes], metadata: bool = True) -> bytes:
    """The pickle of an OrderedDict of tensors."""
    items = b"".join(text(name) + value for name, value in entries.items())
    state = b"}" + text("_metadata") + ORDERED + b"sb" if metadata else b""
    return b"\x80\x02" + ORDERED + b"(" + items + b"u" + state + b"."


def of_arrays(arrays: Mapping[str, np.ndarray], view: bytes = b"") -> bytes:
    """The pickle of these arrays, storage k for the k-th."""
    entries = {
        name: tensor(STORAGE[str(a.dtype)], str(k), a.size, a.shape, view=view)
        for k, (name, a) in enumerate(arrays.items())
    }
    return state_dict(entries)


def dict_of(items: Mapping[str, bytes]) -> bytes:
    """A dict whose values are pickled already."""
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def whole_module(
    name: str,
    parameters: Mapping[str, bytes],
    buffers: Mapping[str, bytes] | None = None,
    modules: Mapping[str, bytes] | None = None,
    hidden: tuple[str, ...] = (),
) -> bytes:
    """A torch.nn.Module of a class nets.NAME, as torch.save(module) pickles it. hidden: not persistent."""
    names = several(b"](" + b"".join(map(text, hidden)) + b"e")
    state = {
        "training": b"\x89",
        "_parameters": dict_of(parameters),
        "_buffers": dict_of(buffers or {}),
        "_non_persistent_buffers_set": named("__builtin__", "set") + names + b"R",
        "_forward_hooks": ORDERED,
        "_modules": dict_of(modules or {}),
        "scale": b"G" + struct.pack(">d", 0.5),
    }
    return named("nets", name) + b")\x81" + dict_of(state) + b"b"


def zip_file(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def pth_zip(pickled: bytes, storages: list[bytes], prefix: str = "archive", **more: bytes) -> bytes:
    """A .pth as torch writes it since 1.6."""
    members = {f"{prefix}/data.pkl": pickled, f"{prefix}/byteorder": b"little"}
    members |= {f"{prefix}/data/{k}": data for k, data in enumerate(storages)}
    return zip_file(members | {f"{prefix}/version": b"3\n"} | more)


def pth_legacy(pickled: bytes, storages: list[tuple[int, bytes]], little: bool = True) -> bytes:
    """A .pth as torch wrote it before 1.6: five pickles, then the storages' counts and bytes."""
    magic = b"\x80\x02" + number(0x1950A86A20F9469CFC6C) + b"."
    protocol = b"\x80\x02" + number(1001) + b"."
    system = b"\x80\x02}(" + text("protocol_version") + number(1001) + text("little_endian")
    system += (b"\x88" if little else b"\x89") + text("type_sizes") + b"}u."
    keys = b"\x80\x02](" + b"".join(text(str(k)) for k in range(len(storages))) + b"e."
    data = b"".join(struct.pack("<q", count) + raw for count, raw in storages)
    return magic + protocol + system + pickled + keys + data


def torch_weights() -> dict[str, np.ndarray]:
    """A few named arrays, with a counter."""
    return {
        "conv1.weight": floats((8, 3, 3, 3), "w"),
        "bn1.weight": floats((8,), "g"),
        "bn1.running_mean": floats((8,), "m"),
        "bn1.num_batches_tracked": np.array(7, np.int64),
        "layer1.0.conv2.weight": floats((16, 8, 3, 3), "w2"),
        "fc.weight": floats((40, 16), "f"),
        "fc.bias": floats((40,), "b"),
    }


def torch_files(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The arrays in both torch formats."""
    raw = [(a.size, a.tobytes()) for a in arrays.values()]
    return {
        "pth zip": pth_zip(of_arrays(arrays), [data for _, data in raw]),
        "pth legacy": pth_legacy(of_arrays(arrays, b"N"), raw),
    }


# safetensors


def safetensors_file(header: Mapping[str, object] | bytes, data: bytes) -> bytes:
    """A safetensors file from its header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def safetensors_of(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file of float32 and int64 arrays."""
    header, data = {}, b""
    for name, array in arrays.items():
        places = [len(data), len(data) + array.nbytes]
        dtype = {"float32": "F32", "int64": "I64", "float16": "F16", "float64": "F64"}[str(array.dtype)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": places}
        data += array.tobytes()
    return safetensors_file(header, data)


# Damage

SAMPLES: dict[str, tuple[str, bytes]] = {
    "symbol": ("small-symbol.json", symbol(small_network(5))),
    "params V1": ("v1.params", params_file(small_weights(), V1)),
    "params V2": ("v2.params", params_file(small_weights(), V2)),
    "params V3": ("v3.params", params_file(small_weights(), V3)),
    "params legacy": ("legacy.params", params_file(small_weights(), LEGACY)),
    "tar": (
        "small.tar",
        tar_file(
            {"m/c-symbol.json": symbol(small_network()), "m/c-0000.params": params_file(small_weights())}
        ),
    ),
    **{kind: (kind.replace(" ", "-") + ".pth", data) for kind, data in torch_files(torch_weights()).items()},
    "safetensors": ("small.safetensors", safetensors_of(torch_weights())),
}
"""Format -> (file name, sound bytes)."""


def truncations(data: bytes) -> Iterator[bytes]:
    """Cut at every 1000th byte, and one byte short."""
    for length in range(0, len(data), 1000):
        yield data[:length]
    yield data[:-1]


def corruptions(data: bytes, count: int, seed: str) -> Iterator[bytes]:
    """Deterministic damage: changed bytes, changed words, bytes taken out, put in or repeated.

    Half of it hits the first or the last 512 bytes, where the structure is.
    """
    dice = random.Random(zlib.crc32(seed.encode()))
    for _ in range(count):
        place = dice.randrange(len(data))
        if dice.random() < 0.5:
            place = dice.choice((dice.randrange(512), len(data) - 1 - dice.randrange(512))) % len(data)
        kind = dice.randrange(6)
        length = dice.choice((1, 2, 4, 8))
        if kind == 0:
            new = bytes([data[place] ^ 1 << dice.randrange(8)])
            yield data[:place] + new + data[place + 1 :]
        elif kind == 1:
            yield data[:place] + dice.choice((b"\0", b"\x7f", b"\xff")) * length + data[place + length :]
        elif kind == 2:
            yield data[:place] + dice.randbytes(length) + data[place + length :]
        elif kind == 3:
            yield data[:place] + data[place + length :]
        elif kind == 4:
            yield data[:place] + dice.randbytes(length) + data[place:]
        else:
            other = dice.randrange(len(data))
            yield data[:place] + data[other : other + 16] + data[place + 16 :]
