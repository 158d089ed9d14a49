"""What a label means: the class of a synset, or of a number whose numbering was stated. Nothing is guessed.

ILSVRC numbers its 1000 synsets from 1 in an order of its own; networks number them from 0, sorted. Both look
alike, and three of four files with numbers do not say which they have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from refnet.core.errors import FormatError, InputError
from refnet.formats.json_file import read_bytes
from refnet.models.catalog import Entry
from refnet.models.labels import labels

LARGEST = 64 << 20
"""Bytes of a file of labels; ImageNet's 1,281,167 training images need about 50 MB."""
OUTPUTS = "outputs"
"""--mapping outputs: the numbers are those of the network's outputs, from 0."""
MATLAB = (
    "write it as text first: python -c \"from scipy.io import loadmat; [print(s['ILSVRC2012_ID'].item(), "
    "s['WNID'].item()) for s in loadmat('meta.mat')['synsets'].ravel()[:1000]]\" > meta.txt"
)


@dataclass(frozen=True)
class Numbering:
    """What numbers mean. synsets: number -> class name, or None: the outputs themselves. words: for people.

    stated: the file gives each number, so that it may be read for a file of bare numbers, too.
    """

    words: str
    synsets: Mapping[int, str] | None = None
    stated: bool = True


@dataclass(frozen=True)
class Classes:
    """The classes of a network. names: synset (or digit) -> output, empty if unknown. count: how many."""

    names: Mapping[str, int]
    count: int
    numbering: Numbering | None = None

    def label(self, text: str, where: str) -> int:
        """The output of a label. where: file and line, for the InputError that says why it has none."""
        if text in self.names:
            return self.names[text]
        if re.fullmatch(r"n\d{8}", text):
            reason = "is the synset of no class of the network"
            if not self.names:
                reason = "is a synset, and the network's classes are unknown: name the network with --model"
            raise InputError(f"{where}: {text} {reason}")
        if not re.fullmatch(r"\d{1,9}", text):
            raise InputError(
                f"{where}: {text[:80]!r} is not a label: expected a synset such as n01440764, or a number"
            )
        return self._numbered(int(text), where)

    def _numbered(self, number: int, where: str) -> int:
        if self.numbering is None:
            raise InputError(
                f"{where}: {number} is a number, and numbers mean different classes in different files: say "
                f"which, with --mapping FILE (lines NUMBER SYNSET, or synsets in order from 0) or --mapping "
                f"{OUTPUTS} (the network's outputs, from 0)"
            )
        if self.numbering.synsets is None:
            if number >= self.count:
                raise InputError(f"{where}: {number} is no output: the network has {self.count}, from 0")
            return number
        name = self.numbering.synsets.get(number)
        if name is None:
            raise InputError(f"{where}: {number} is not a number of {self.numbering.words}")
        if name not in self.names:
            raise InputError(f"{where}: {number} is {name}, which is no class of the network")
        return self.names[name]


def classes(entry: Entry | None, count: int, mapping: str | None) -> Classes:
    """The classes of a network with `count` outputs. entry: of the catalog, if it is known.

    mapping: "outputs", or a file: lines `NUMBER SYNSET ...`, or lines `SYNSET ...`, which count from 0.
    """
    known = labels(entry.dataset) if entry is not None else ()
    names = {label.synset or label.name: label.index for label in known} if len(known) == count else {}
    return Classes(names, count, None if mapping is None else read_numbering(mapping))


def read_numbering(mapping: str) -> Numbering:
    """The numbering that --mapping names.

    >>> read_numbering("outputs").words
    "the network's outputs, from 0"
    """
    if mapping == OUTPUTS:
        return Numbering("the network's outputs, from 0")
    if mapping.endswith(".mat"):
        raise InputError(f"--mapping {mapping}: MATLAB files are not read; {MATLAB}")
    lines = read_lines(mapping, "a mapping of numbers to synsets")
    numbered = [re.match(r"(\d{1,9})[\s,;]+(n\d{8})\b", line) for _, line in lines]
    ordered = [re.match(r"(n\d{8})\b", line) for _, line in lines]
    if lines and all(numbered):
        pairs = [(int(found[1]), found[2]) for found in numbered if found]
        words = f"{mapping} (NUMBER SYNSET)"
    elif lines and all(ordered):
        pairs = [(i, found[1]) for i, found in enumerate(ordered) if found]
        words = f"{mapping} (synsets in order, from 0)"
    else:
        kind = numbered if lines and numbered[0] else ordered
        at = next((i for i, match in enumerate(kind) if match is None), 0)
        found = f"line {lines[at][0]}: {lines[at][1][:80]!r}" if lines else "an empty file"
        raise FormatError(mapping, None, found, "lines NUMBER SYNSET, or lines that begin with a synset")
    for i in (0, 1):
        values = [pair[i] for pair in pairs]
        if len(set(values)) != len(values):
            twice = next(value for k, value in enumerate(values) if value in values[:k])
            raise FormatError(mapping, None, f"{twice} twice", "each number and each synset once")
    return Numbering(words, dict(pairs), bool(lines and all(numbered)))


def read_lines(path: str | Path, what: str) -> list[tuple[int, str]]:
    """(number from 1, stripped text) of the lines that are not empty and do not begin with #."""
    raw = read_bytes(path, LARGEST, what)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(path, error.start, "bytes that are not UTF-8", what) from None
    numbered = enumerate((line.strip() for line in text.split("\n")), 1)
    return [(i, line) for i, line in numbered if line and not line.startswith("#")]
