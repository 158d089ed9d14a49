"""JSON files that are checked key by key: golden files, captures and books share these rules.

    path ── read_bytes ── parse ── Checked.keys, .text, .hash, .shape ...

Nothing is executed, a file's size is checked before it is read, no key stands twice, and every message
says where in the file something is wrong.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from refnet.core.errors import FormatError, InputError
from refnet.core.words import unencodable


def read_bytes(path: str | os.PathLike[str], largest: int, what: str) -> bytes:
    """All of a file; InputError if it cannot be read, FormatError if it has more than `largest` bytes."""
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise InputError(f"{path}: is not a regular file")
        if Path(path).stat().st_size > largest:
            raise FormatError(path, None, f"more than {largest} bytes", what)
        with open(path, "rb") as stream:
            raw = stream.read(largest + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > largest:
        raise FormatError(path, None, f"more than {largest} bytes", what)
    return raw


def parse(raw: bytes, path: str) -> Any:
    """The JSON value in these bytes (UTF-8); path is its name for messages.

    Raises FormatError if the text is not JSON, has a duplicate key, NaN or Infinity, or is nested too deeply.

    >>> parse(b'{"a": 1, "a": 2}', "x.json")
    Traceback (most recent call last):
    refnet.core.errors.FormatError: x.json: found no JSON (the key 'a' is duplicated)
    """
    try:
        return json.loads(raw.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, getattr(error, "pos", None), f"no JSON ({error})") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, refused if it has a key twice: which of the two counts would be anybody's guess."""
    made = dict(pairs)
    for key in made:
        key.encode()  # half a surrogate pair, which JSON's escapes can make, is no text
    if len(made) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0]!r} is duplicated")
    return made


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def writable(text: str) -> str:
    """JSON that is to be written; InputError if UTF-8 cannot say it: Linux allows any bytes in a file's name.

    >>> writable('{"input": "digit.png"}')
    '{"input": "digit.png"}'
    >>> writable('{"input": "\\udcff.png"}')
    Traceback (most recent call last):
    refnet.core.errors.InputError: the name '\\udcff.png' is not UTF-8, so refnet can write it into no file
    """
    if unencodable([text]) is not None:
        name = unencodable(re.findall(r'"([^"]*)"', text)) or text
        raise InputError(f"the name {name!a} is not UTF-8, so refnet can write it into no file")
    return text


@dataclass(frozen=True)
class Checked:
    """Checks of parsed JSON. path: the file's name for messages; `where` is the place in it."""

    path: str

    def wrong(self, where: str, found: object, expected: str) -> FormatError:
        """A FormatError: what is found there, and what is expected."""
        return FormatError(self.path, None, f"{where}: {str(found)[:80]!r}", expected)

    def keys(self, found: Any, where: str, known: set[str], needed: set[str]) -> None:
        """Refuse what is no object, has other keys than `known`, or lacks one of `needed`."""
        if not isinstance(found, dict):
            raise self.wrong(where, found, "an object")
        for key in found:
            if key not in known:
                raise self.wrong(where, key, f"only the keys {', '.join(sorted(known))}")
        for key in sorted(needed - found.keys()):
            raise self.wrong(where, ", ".join(found), f"the key {key} too")

    def text(self, found: Any, where: str, *, optional: bool = False) -> str | None:
        """A text."""
        if found is None and optional:
            return None
        if not isinstance(found, str) or found != found.encode(errors="replace").decode():
            raise self.wrong(where, found, "a text")
        return found

    def hash(self, found: Any, where: str, *, optional: bool = False) -> str | None:
        """A sha256 in hexadecimal."""
        if found is None and optional:
            return None
        if not isinstance(found, str) or not re.fullmatch("[0-9a-f]{64}", found):
            raise self.wrong(where, found, "64 digits 0-9 a-f")
        return found

    def shape(self, found: Any, where: str, rank: int | None = None) -> tuple[int, ...]:
        """A shape; rank: how many numbers it must have."""
        sound = isinstance(found, list) and len(found) in (range(33) if rank is None else (rank,))
        if not sound or not all(type(n) is int and 0 < n < 1 << 40 for n in found):
            raise self.wrong(where, found, "a list of whole numbers from 1 on")
        return tuple(found)
