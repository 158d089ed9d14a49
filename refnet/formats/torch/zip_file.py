"""The zip archives that torch writes: where each stored member's bytes lie. Nothing is extracted.

Only what torch writes is read: members stored without compression, each in its own bytes (no two
entries may share any: so the members together are never larger than the file), one disk. Compressed members,
which TorchScript has, are listed, and refused when they are to be read.
Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14
to 4.3.16 (end records, zip64), 4.5.3 (zip64 extra field).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from refnet.core.errors import FormatError, UnsupportedError
from refnet.formats.bounded import Bounded

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_TRAILER = 22 + 65535
"""The end record's bytes and the longest comment."""


@dataclass(frozen=True)
class Member:
    """A member: its bytes are [offset, offset + size) of the file; crc is their CRC-32.

    refusal: why it cannot be read (compressed, encrypted), or nothing.
    """

    name: str
    offset: int
    size: int
    crc: int
    refusal: str = ""


def zip_members(data: Bounded) -> dict[str, Member]:
    """Name -> Member, of a zip file.

    Raises FormatError for a damaged archive, overlapping members and duplicate names.

    >>> import io, zipfile
    >>> zipfile.ZipFile(stream := io.BytesIO(), "w").close()
    >>> zip_members(Bounded(stream, "a.pth", 22))
    {}
    """
    count, size, offset = _directory(data)
    directory = Bounded(data.stream, data.file, size, offset)
    found: dict[str, Member] = {}
    for _ in range(count):
        member = _member(directory, data)
        if member.name in found:
            raise directory.wrong(f"a second member {member.name[:200]!r}", "each name once")
        found[member.name] = member
    directory.end("the central directory's last entry")
    place = 0
    for member in sorted(found.values(), key=lambda m: (m.offset, m.size)):
        if member.offset < place:
            raise FormatError(
                data.file, member.offset, f"{member.name[:200]!r} inside of another member", "own bytes"
            )
        place = member.offset + member.size
    if place > offset:
        raise FormatError(data.file, offset, "a member that reaches into the central directory", "own bytes")
    return found


def refuse_packed(member: Member) -> None:
    """UnsupportedError for a member that is compressed or encrypted."""
    if member.refusal:
        raise UnsupportedError(member.refusal)


def check_crc(member: Member, data: bytes | memoryview, file: str) -> None:
    """FormatError unless the member's bytes have its checksum."""
    if (crc := zlib.crc32(data)) != member.crc:
        raise FormatError(
            file, member.offset, f"{member.name[:200]!r} with CRC-32 {crc:08x}", f"{member.crc:08x}"
        )


def _directory(data: Bounded) -> tuple[int, int, int]:
    """(entries, bytes, offset) of the central directory."""
    length = min(data.size, _TRAILER)
    base = data.size - length
    tail = Bounded(data.stream, data.file, length, base).bytes(length, "the zip's end")
    place = tail.rfind(_END)
    if place < 0 or len(tail) - place < 22:
        raise FormatError(
            data.file,
            data.size,
            "no end record: a zip that is cut short",
            "PK 05 06, the end of a zip (download or copy the file again)",
        )
    end = base + place
    disk, first, here, count, size, offset, comment = struct.unpack("<4H2IH", tail[place + 4 : place + 22])
    if len(tail) - place - 22 != comment:
        raise FormatError(
            data.file, end, f"{len(tail) - place - 22} bytes behind the end record", f"{comment}"
        )
    limit = end
    if place >= 20 and tail[place - 20 : place - 16] == _LOCATOR64:
        (limit,) = struct.unpack("<Q", tail[place - 12 : place - 4])
        if limit + 56 > end - 20:
            raise FormatError(
                data.file, end - 20, f"a zip64 end record at byte {limit}", f"before {end - 76}"
            )
        record = Bounded(data.stream, data.file, 56, limit).bytes(56, "the zip64 end record")
        if record[:4] != _END64:
            raise FormatError(data.file, limit, record[:4].hex(" "), "a zip64 end record (50 4b 06 06)")
        disk, first, here, count, size, offset = struct.unpack("<2I4Q", record[16:])
    if disk or first or here != count:
        raise FormatError(data.file, end, f"disk {disk}, {here} of {count} entries", "an archive on one disk")
    if offset + size > limit or count > size // 46:
        found = f"a directory of {count} entries in {size} bytes at byte {offset}"
        raise FormatError(data.file, end, found, f"one that fits before byte {limit}")
    return count, size, offset


def _member(directory: Bounded, data: Bounded) -> Member:
    """The next entry of the central directory, agreed with its local header."""
    at = directory.offset
    fixed = directory.bytes(46, "a directory entry")
    if fixed[:4] != _CENTRAL:
        raise FormatError(data.file, at, fixed[:4].hex(" "), "a directory entry (50 4b 01 02)")
    flags, method = struct.unpack("<2H", fixed[8:12])
    crc, packed, size, name_size, extra_size, comment_size = struct.unpack("<3I3H", fixed[16:34])
    (offset,) = struct.unpack("<I", fixed[42:])
    raw = directory.bytes(name_size, "a member's name")
    extra = directory.bytes(extra_size, "an extra field")
    directory.skip(comment_size, "a comment")
    name = raw.decode("utf-8", "backslashreplace")
    size, packed, offset = _zip64(extra, size, packed, offset)
    refusal = ""
    if flags & 1 or method != 0 or size != packed:
        how = "encrypted" if flags & 1 else f"compressed (method {method}, {packed} of {size} bytes)"
        refusal = f"{data.file}: at byte {at}: member {name[:200]!r} is {how}; torch stores its members"
    local = Bounded(data.stream, data.file, data.size, 0, 0)
    local.skip(offset, f"the local header of {name[:200]!r}")
    header = local.bytes(30, f"the local header of {name[:200]!r}")
    name_size, extra_size = struct.unpack("<2H", header[26:30])
    if header[:4] != _LOCAL or local.bytes(name_size, "a member's name") != raw:
        raise FormatError(data.file, offset, header[:4].hex(" "), f"the local header of {name[:200]!r}")
    if struct.unpack("<H", header[8:10])[0] != method:
        raise FormatError(data.file, offset, f"another method in the header of {name[:200]!r}", str(method))
    local.skip(extra_size, "an extra field")
    begin = local.offset
    local.skip(packed, f"member {name[:200]!r}")
    return Member(name, begin, packed, crc, refusal)


def _zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The numbers, those of 32 ones replaced by the zip64 extra field's."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack("<2H", extra[place : place + 4])
        body = extra[place + 4 : place + 4 + length]
        if kind == 1:
            wide = [int.from_bytes(body[i : i + 8], "little") for i in range(0, len(body) - 7, 8)]
            numbers = [size, packed, offset]
            for i, number in enumerate(numbers):
                if number == 0xFFFFFFFF and wide:
                    numbers[i] = wide.pop(0)
            return numbers[0], numbers[1], numbers[2]
        place += 4 + length
    return size, packed, offset
