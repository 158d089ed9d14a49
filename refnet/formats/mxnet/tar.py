"""Official .tar archives: a folder with a *-symbol.json and its *.params, read where they lie.

Nothing is extracted. Members are found by walking the 512-byte headers here, not by the tarfile module:
only plain files count (links and devices are passed over), no name ever becomes a path on disk, and a
member's size is checked against the archive's before it is used.
Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import PurePosixPath

from refnet.core.errors import FormatError, UnsupportedError, WeightsError
from refnet.core.graph import Graph
from refnet.formats.bounded import Bounded, open_file, text
from refnet.formats.mxnet.names import is_structural, rename_structural
from refnet.formats.mxnet.params import parse_params
from refnet.formats.mxnet.symbol import LARGEST_FILE, Image, parse_symbol

BLOCK = 512
LONGEST_EXTENSION = 2**20
"""Bytes of an extended header or long name: real ones take a few hundred."""


def read_tar(path: str | os.PathLike[str], image: Image = (3, 224, 224)) -> Graph:
    """The graph of an archive's symbol file with the weights of its .params file.

    image: (channels, height, width) of the input. The archive must hold exactly one `*-symbol.json` and one
    `*.params`. Raises FormatError, UnsupportedError (also for GNU sparse members and compressed
    archives), GraphError, WeightsError; messages name the archive and the member.

    >>> read_tar("missing.tar")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: missing.tar: found no such file
    """
    stream, size = open_file(path)
    file = os.fspath(path)
    with stream:
        members = tar_members(Bounded(stream, file, size))
        symbol, params = _only(members, "-symbol.json", file), _only(members, ".params", file)
        start, length = members[symbol]
        if length > LARGEST_FILE:
            raise FormatError(file, start, f"{length} bytes of {symbol}", f"at most {LARGEST_FILE}")
        raw = Bounded(stream, file, length, start).bytes(length, symbol)
        name = PurePosixPath(symbol).name.removesuffix("-symbol.json")
        graph = parse_symbol(raw, f"{file}:{symbol}", name, image)
        start, length = members[params]
        arrays = parse_params(stream, length, f"{file}:{params}", start)
    try:
        if is_structural(arrays, graph):
            arrays = rename_structural(arrays, graph)
        return replace(graph, name=_graph_name(file, graph)).with_weights(arrays, own=True)
    except WeightsError as error:
        raise WeightsError(f"{file}:{params}: {error}") from None


def _graph_name(file: str, graph: Graph) -> str:
    """The archive's name tells the network; the members are called checkpoint in all of them."""
    return text(os.path.basename(file).removesuffix(".tar")) or graph.name


def _only(members: dict[str, tuple[int, int]], ending: str, file: str) -> str:
    files = {name: PurePosixPath(name).name for name in members}
    found = [name for name, base in files.items() if base.endswith(ending) and not base.startswith(".")]
    if len(found) != 1:
        shown = ", ".join(found[:4]) or f"none among {len(members)} files"
        raise FormatError(file, None, f"{len(found)} members *{ending} ({shown})", "exactly one")
    return found[0]


def tar_members(data: Bounded) -> dict[str, tuple[int, int]]:
    """Name -> (offset, size) of the plain files in an archive.

    >>> import io
    >>> tar_members(Bounded(io.BytesIO(bytes(1024)), "a.tar", 1024))
    {}
    """
    found: dict[str, tuple[int, int]] = {}
    extended: dict[str, str] = {}
    long_name = ""
    while data.left:
        at = data.offset
        header = data.bytes(BLOCK, "a tar header")
        if not header.strip(b"\0"):
            break  # the end: two blocks of zeros, of which some writers leave out the second
        kind, size = _header(header, data, at)
        if kind in "xgLK":
            if size > LONGEST_EXTENSION:
                raise FormatError(data.file, at, f"an extended header of {size} bytes", "a short one")
            body = data.bytes(size, "an extended header")
            if kind == "L":
                long_name = body.rstrip(b"\0").decode("utf-8", "replace")
            elif kind != "K":  # the long name of a link
                extended.update(_records(body, data, at + BLOCK))
        else:
            name = extended.get("path") or long_name or _name(header)
            size = _size(extended, size, data, at)
            if kind == "S" or any(key.startswith("GNU.sparse") for key in extended):
                raise UnsupportedError(f"{data.file}: {name[:200]!r} at byte {at} is a sparse member")
            if kind in "\x000":
                if name in found:
                    raise FormatError(data.file, at, f"a second member {name[:200]!r}", "each name once")
                found[name] = (data.offset, size)
            # links, devices, folders: their size says nothing (folders and links have no body)
            data.skip(size if kind not in "123456" else 0, f"member {name[:200]!r}")
            extended, long_name = {}, ""
        data.skip(min(-size % BLOCK, data.left), "padding")
    return found


def _header(header: bytes, data: Bounded, at: int) -> tuple[str, int]:
    """(type flag, size) of a header whose checksum is right."""
    if at == 0 and header[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"PK"):
        raise UnsupportedError(f"{data.file}: a compressed archive; refnet reads plain .tar files")
    stored = _octal(header[148:156], data, at + 148, "the header's checksum")
    total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    if stored != total:
        raise FormatError(data.file, at + 148, f"header checksum {stored}", f"{total} (no or damaged tar)")
    return chr(header[156]), _octal(header[124:136], data, at + 124, "a member's size")


def _octal(field: bytes, data: Bounded, at: int, what: str) -> int:
    if field[:1] == b"\x80":  # base 256, for sizes of 8 GiB and more
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise FormatError(data.file, at, f"{field!r}", f"octal digits for {what}")
    return int(digits or b"0", 8)


def _name(header: bytes) -> str:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    ustar = header[257:263] == b"ustar\0"
    whole = prefix + b"/" + name if ustar and prefix else name
    return whole.decode("utf-8", "replace")


def _size(extended: dict[str, str], size: int, data: Bounded, at: int) -> int:
    if "size" not in extended:
        return size
    text = extended["size"]
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise FormatError(data.file, at, f"size {text[:40]!r} in the extended header", "a number")
    return int(text)


def _records(body: bytes, data: Bounded, at: int) -> dict[str, str]:
    """The records '<length> <key>=<value>\\n' of a pax header."""
    found: dict[str, str] = {}
    place = 0
    while place < len(body):
        digits, space, _ = body[place : place + 12].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = body[place : place + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if length <= len(digits) + 2 or len(record) < length or record[-1:] != b"\n" or not equals:
            raise FormatError(
                data.file, at + place, f"record {body[place : place + 20]!r}", "length key=value"
            )
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        place += length
    return found
