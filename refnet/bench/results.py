"""The state of a table on disk: which machine and settings it is of, and every row that is done, as JSON.

The file is written whole after each row. A rerun reads it and goes on; a later run is compared with it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from refnet.bench.machine import Machine
from refnet.bench.race import SETTLE, WARMUP, Pair, Side
from refnet.bench.table import Key, Result
from refnet.core.errors import InputError
from refnet.formats.json_file import Checked, parse, read_bytes
from refnet.formats.write import whole_file

FORMAT, VERSION = "refnet bench table", 1
LARGEST = 64 << 20
Facts = Mapping[str, Any]
"""What all rows of a file have in common: `facts`."""


@dataclass(frozen=True)
class State:
    """A file's content. peaks, bandwidths: as `Machine` has them, the largest of all runs that wrote it."""

    facts: Facts
    peaks: Mapping[int, float]
    bandwidths: Mapping[int, float]
    rows: Mapping[Key, Result]


def facts(
    here: Machine, kernels: str, arithmetic: str, image: tuple[int, int] | None, runs: int
) -> dict[str, Any]:
    """What the rows of one file must share. kernels: the key of the compiled kernels' sources.

    image: (h, w), None for each network's own. runs: timed pairs of a row.
    """
    return {
        "processor": here.processor,
        "processors": here.processors,
        "vector_bits": here.vector_bits,
        "versions": dict(here.versions),
        "kernels": kernels,
        "arithmetic": arithmetic,
        "image": None if image is None else list(image),
        "weights": "seed:0",
        "runs": runs,
        "method": {"warmup": WARMUP, "settle_seconds": SETTLE},
    }


KEYS = {"format", "version", "facts", "peaks", "bandwidths", "rows"}
COMPARABLE = ("processor", "processors", "vector_bits", "arithmetic", "image", "weights", "method")
"""The facts that a baseline must share; refnet, its versions and its runs may be others."""
MEANING = {
    "processor": "another machine",
    "processors": "another machine",
    "vector_bits": "other vector instructions",
    "versions": "other versions",
    "kernels": "other kernels of refnet",
    "arithmetic": "another arithmetic",
    "image": "other image sizes",
    "weights": "other weights",
    "runs": "another number of runs",
    "method": "another way to measure",
}


def refuse_other(path: str | os.PathLike[str], then: Facts, now: Facts, baseline: bool = False) -> None:
    """Raise InputError if a file is of another machine or other settings than this run.

    baseline: the two runs are compared, so what belongs to refnet itself may differ.
    """
    for name in COMPARABLE if baseline else MEANING:
        if then[name] != now[name]:
            was, is_ = _difference(then[name], now[name])
            todo = "nothing can be compared with it" if baseline else "name another file, or remove this one"
            raise InputError(f"{path} is of {MEANING[name]}: its {name} {was}, here {is_}: {todo}")


def refuse_other_frameworks(
    path: str | os.PathLike[str], rows: Mapping[Key, Result], versions: Mapping[str, str]
) -> None:
    """Raise InputError if a row was raced against another version of a framework. versions: those of now."""
    for key, row in rows.items():
        then, now = row.pair.theirs.version, versions.get(key.against)
        if now is not None and then != now:
            raise InputError(
                f"{path} was measured against {key.against} {then}, here it is {now}: name another file"
            )


def _difference(then: Any, now: Any) -> tuple[str, str]:
    """What a message says of two values that differ; of two objects, of the first key that does."""
    if isinstance(then, dict) and isinstance(now, dict):
        nothing = object()
        keys = [*now, *then]
        name = next(key for key in keys if then.get(key, nothing) != now.get(key, nothing))
        return f"say {name[:80]} {then.get(name)!s:.80}", f"{name[:80]} is {now.get(name)!s:.80}"
    return f"is {then!s:.80}", f"it is {now!s:.80}"


def write_state(path: str | os.PathLike[str], state: State) -> None:
    """Write the file whole."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "facts": dict(state.facts),
        "peaks": {str(threads): peak for threads, peak in state.peaks.items()},
        "bandwidths": {str(threads): speed for threads, speed in state.bandwidths.items()},
        "rows": [asdict(row) for row in state.rows.values()],
    }
    with whole_file(path) as stream:
        stream.write((json.dumps(record, indent=1, allow_nan=False) + "\n").encode())


def read_state(path: str | os.PathLike[str]) -> State:
    """Read what `write_state` wrote. Raises InputError if it cannot be read, FormatError if it is damaged."""
    name = os.fspath(path)
    checked = Checked(name)
    found = parse(read_bytes(path, LARGEST, "a table of refnet bench"), name)
    checked.keys(found, "the file", KEYS, KEYS)
    if (found["format"], found["version"]) != (FORMAT, VERSION):
        raise checked.wrong("format", (found["format"], found["version"]), f"{FORMAT}, {VERSION}")
    checked.keys(found["facts"], "facts", set(MEANING), set(MEANING))
    if not isinstance(found["rows"], list):
        raise checked.wrong("rows", found["rows"], "a list")
    rows: dict[Key, Result] = {}
    for i, one in enumerate(found["rows"]):
        row = _row(one, f"rows[{i}]", checked)
        if row.key in rows:
            raise checked.wrong(f"rows[{i}]", row.key, "each row once")
        rows[row.key] = row
    speeds = {place: _speeds(found[place], place, checked) for place in ("peaks", "bandwidths")}
    for key in rows:
        for place, known in speeds.items():
            if key.threads not in known:
                raise checked.wrong(place, sorted(known), f"an entry for {key.threads} threads")
    return State(found["facts"], speeds["peaks"], speeds["bandwidths"], rows)


def merged(then: Mapping[int, float], now: Mapping[int, float]) -> dict[int, float]:
    """Per number of threads the larger speed: both are the most that was measured.

    >>> merged({1: 100.0, 2: 150.0}, {2: 190.0})
    {1: 100.0, 2: 190.0}
    """
    return {t: max(then.get(t, 0.0), now.get(t, 0.0)) for t in dict.fromkeys([*then, *now])}


def existing(path: Path) -> State | None:
    """The state of a run that is to go on; None if the file is not there yet."""
    return read_state(path) if os.path.lexists(path) else None


def _speeds(found: Any, where: str, checked: Checked) -> dict[int, float]:
    sound = isinstance(found, dict) and all(
        text.isascii() and text.isdecimal() and len(text) < 6 and _positive(speed)
        for text, speed in found.items()
    )
    if not sound:
        raise checked.wrong(where, found, "positive numbers by the number of threads")
    return {int(text): float(speed) for text, speed in found.items()}


def _row(one: Any, where: str, checked: Checked) -> Result:
    keys = {"pair", "moved", "load", "date"}
    checked.keys(one, where, keys, keys)
    pair = one["pair"]
    fields = {"model", "threads", "macs", "agree", "ours", "theirs"}
    checked.keys(pair, f"{where}.pair", fields, fields)
    sides = [_side(pair[name], f"{where}.pair.{name}", checked) for name in ("ours", "theirs")]
    sound = (
        isinstance(pair["model"], str)
        and isinstance(one["date"], str)
        and isinstance(pair["agree"], bool)
        and all(type(n) is int and 0 < n < 1 << 60 for n in (pair["threads"], pair["macs"], one["moved"]))
        and (one["load"] is None or _positive(one["load"], zero=True))
        and len(sides[0].seconds) == len(sides[1].seconds)
    )
    if not sound:
        raise checked.wrong(where, one, "the row of a table")
    made = Pair(pair["model"], pair["threads"], pair["macs"], pair["agree"], *sides)
    return Result(made, one["moved"], one["load"], one["date"])


def _side(found: Any, where: str, checked: Checked) -> Side:
    fields = {"name", "version", "batch", "seconds", "memory"}
    checked.keys(found, where, fields, fields)
    seconds, memory = found["seconds"], found["memory"]
    sound = (
        isinstance(found["name"], str)
        and isinstance(found["version"], str)
        and type(found["batch"]) is int
        and 0 < found["batch"] < 1 << 20
        and isinstance(seconds, list)
        and 0 < len(seconds) < 1 << 20
        and all(_positive(one) for one in seconds)
        and (memory is None or (type(memory) is int and 0 <= memory < 1 << 60))
    )
    if not sound:
        raise checked.wrong(where, found, "a program's seconds")
    return Side(found["name"], found["version"], found["batch"], tuple(map(float, seconds)), memory)


def _positive(found: Any, zero: bool = False) -> bool:
    """Whether it is a finite number above 0, or with `zero` from 0 on, that ratios can be made of."""
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return False
    return (zero and found == 0) or 1e-12 < found < 1e12
