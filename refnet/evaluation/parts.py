"""Results on disk: a file per part, written whole, that says of which run it is; rows.csv of them all.

DIR/part-00000.json ...   what is done; a rerun computes the others, and those with an unreadable image
DIR/rows.csv              one row per image, when all is done
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from refnet.core.errors import InputError
from refnet.evaluation.part import BEST, Part, Row
from refnet.formats.json_file import Checked, parse, read_bytes
from refnet.formats.write import whole_file

FORMAT, VERSION = "refnet evaluation part", 1
LARGEST = 64 << 20
ROWS = "rows.csv"
COLUMNS = (
    "id",
    "label",
    *(f"class_{i}" for i in range(1, BEST + 1)),
    *(f"bits_{i}" for i in range(1, BEST + 1)),
    "error",
)


@dataclass(frozen=True)
class Folder:
    """Where the parts of one run are kept. identity: what a part must say of its run."""

    path: Path
    identity: Mapping[str, str | int]

    def make(self) -> None:
        """Make the folder if it is not there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {self.path}: {error.strerror or error}") from None

    def file(self, part: Part) -> Path:
        """The part's file."""
        return self.path / f"part-{part.index:05d}.json"

    def read(self, part: Part) -> tuple[Row, ...] | None:
        """The part's rows; None if it is to be computed: not there, a file changed, or one was unreadable.

        Raises InputError if it belongs to another run, FormatError if it is damaged.
        """
        path = self.file(part)
        if not os.path.lexists(path):
            return None
        checked = Checked(str(path))
        found = parse(read_bytes(path, LARGEST, "a part of an evaluation"), str(path))
        checked.keys(found, "the file", KEYS, KEYS)
        if found["format"] != FORMAT or found["version"] != VERSION:
            raise checked.wrong("format", (found["format"], found["version"]), f"{FORMAT}, {VERSION}")
        for key, wanted in {**self.identity, "part": part.index}.items():
            said = found["run"].get(key) if isinstance(found["run"], dict) else None
            if key == "part":
                said = found["part"]
            if said != wanted:
                raise InputError(
                    f"{path} is of another run: its {key} is {said!r:.80}, here it is {wanted!r:.80}: "
                    f"name another folder, or remove this one"
                )
        rows = _rows(found["rows"], checked)
        if [(row.id, row.label) for row in rows] != [(image.id, image.label) for image in part.images]:
            raise checked.wrong("rows", len(rows), f"the {len(part.images)} images of {part!r}")
        same = found["files"] == states(part)
        return rows if same and not any(row.error for row in rows) else None

    def write(self, part: Part, rows: Sequence[Row], files: Sequence[Sequence[int] | None]) -> None:
        """Keep the part's rows. files: `states` of it, from before its images were read."""
        record = {
            "format": FORMAT,
            "version": VERSION,
            "run": dict(self.identity),
            "part": part.index,
            "files": list(files),
            "rows": [asdict(row) for row in rows],
        }
        with whole_file(self.file(part)) as stream:
            stream.write((json.dumps(record, ensure_ascii=True, indent=1) + "\n").encode())

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Write rows.csv."""
        with whole_file(self.path / ROWS) as stream:
            stream.write(table(rows).encode("utf-8", "surrogateescape"))


KEYS = {"format", "version", "run", "part", "files", "rows"}


def table(rows: Sequence[Row]) -> str:
    """The rows as CSV (RFC 4180, lines end with a line feed).

    >>> print(table([Row("a.png", 3, (3, 8), ("0x3f000000", "0x3e000000"))]), end="")
    id,label,class_1,class_2,class_3,class_4,class_5,bits_1,bits_2,bits_3,bits_4,bits_5,error
    a.png,3,3,8,,,,0x3f000000,0x3e000000,,,,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        blank = [""] * (BEST - len(row.classes))
        writer.writerow([row.id, row.label, *row.classes, *blank, *row.bits, *blank, row.error])
    return text.getvalue()


def states(part: Part) -> list[list[int] | None]:
    """Size and time of each image's file: whether a part is still of the same files."""
    return [_state(image.source) for image in part.images]


def _state(source: str | bytes) -> list[int] | None:
    try:
        found = os.stat(source) if isinstance(source, str) else None
    except (OSError, ValueError):
        return None
    return None if found is None else [found.st_size, found.st_mtime_ns]


def _rows(found: Any, checked: Checked) -> tuple[Row, ...]:
    if not isinstance(found, list):
        raise checked.wrong("rows", found, "a list")
    return tuple(_row(one, f"rows[{i}]", checked) for i, one in enumerate(found))


def _row(one: Any, where: str, checked: Checked) -> Row:
    keys = {"id", "label", "classes", "bits", "error"}
    checked.keys(one, where, keys, keys)
    classes, bits = one["classes"], one["bits"]
    sound = (
        isinstance(one["id"], str)
        and isinstance(one["error"], str)
        and type(one["label"]) is int
        and isinstance(classes, list)
        and isinstance(bits, list)
        and len(classes) == len(bits) <= BEST
        and bool(classes) != bool(one["error"])
        and all(type(n) is int and n >= 0 for n in classes)
        and all(_is_bits(text) for text in bits)
    )
    if not sound:
        raise checked.wrong(where, one, "the row of an image")
    return Row(one["id"], one["label"], tuple(classes), tuple(bits), one["error"])


def _is_bits(text: object) -> bool:
    if not isinstance(text, str) or len(text) != 10 or not text.startswith("0x"):
        return False
    return all(c in "0123456789abcdef" for c in text[2:])


def divided(images: Sequence[Any], size: int) -> Iterator[Part]:
    """The parts of `size` images, the last one shorter."""
    for index, start in enumerate(range(0, len(images), size)):
        yield Part(index, tuple(images[start : start + size]))
