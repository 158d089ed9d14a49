"""Names that match no value: which value of the graph each may be, and captures under other names.

    covered(name, allow)                       allowed by its name or a pattern
    propose(strays, lacking, bits) ── by name, by bits, by order, by shape ── captured name -> Likely
    read_names(map.json) ── renamed(capture)   the map that accepts such a proposal, or states another

A proposal is never taken by itself: whoever handed the values over accepts it, with a map of names.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote

from refnet.core.errors import FormatError, InputError
from refnet.core.graph import Graph
from refnet.core.op import F32, TensorType
from refnet.formats.golden_file import digest
from refnet.formats.json_file import Checked, parse, read_bytes, writable
from refnet.formats.write import whole_file
from refnet.verification.capture import Capture, CapturedValues, Values

LARGEST = 64 << 20
"""Bytes of a map of names."""
SHOWN = 20
"""How many unmatched names a message lists."""

Names = str | os.PathLike[str] | Mapping[str, str]
"""captured name -> name of a value, or the JSON file of such an object."""


@dataclass(frozen=True)
class Likely:
    """A value of the graph that a captured array may be, and by what it was found."""

    name: str
    why: str


@dataclass(frozen=True)
class Unmatched:
    """A captured value that is in no place of the graph, and what it may be; None if nothing is likely.

    >>> print(Unmatched("003_relu", Likely("relu", "by its name")))
    003_relu -> relu (by its name)
    """

    name: str
    likely: Likely | None = None

    def __str__(self) -> str:
        return self.name if self.likely is None else f"{self.name} -> {self.likely.name} ({self.likely.why})"


def covered(name: str, allow: Collection[str]) -> bool:
    """Whether a name is allowed: named itself, or by a pattern with * and ?. Brackets stand for themselves.

    >>> covered("layer1.mul", ["layer*.mul"]), covered("block[0]", ["block[0]"]), covered("a", ["b"])
    (True, True, False)
    >>> covered("block0", ["block[0]"]), covered("block[0]", ["block[*]"])
    (False, True)
    """
    return any(name == one or fnmatchcase(name, one.replace("[", "[[]")) for one in allow)


def propose(
    strays: Mapping[str, int | None], lacking: Mapping[str, int], bits: Mapping[str, str] | None = None
) -> dict[str, Likely]:
    """The likely matches. strays: captured name -> its number of elements, None if that is not known.

    lacking: values of the graph that the capture lacks -> their number of elements. bits: captured name ->
    the value of refnet's own run that has the same bits. What fits several ways equally well is left out.

    >>> propose({"_conv1_out": 8, "7_relu": 4}, {"/conv1/out": 8, "relu": 4, "relu2": 4})["7_relu"]
    Likely(name='relu', why='by its name')
    """
    found: dict[str, Likely] = {}

    def take(why: str, candidates: Callable[[str], list[str]]) -> None:
        """One step: what has exactly one candidate that nobody else has."""
        taken = {one.name for one in found.values()}
        left = {name: [c for c in candidates(name) if c not in taken] for name in strays if name not in found}
        single = {name: some[0] for name, some in left.items() if len(some) == 1}
        wanted = Counter(single.values())
        found.update({name: Likely(one, why) for name, one in single.items() if wanted[one] == 1})

    by_size: dict[int, list[str]] = {}
    for name, size in lacking.items():
        by_size.setdefault(size, []).append(name)
    forms = {name: bare_name(name) for name in (*lacking, *strays)}

    def fits(name: str) -> list[str]:
        return by_size.get(strays[name] or 0, [])

    def ends(name: str) -> list[str]:
        return _longest([one for one in fits(name) if _ends(forms[name], forms[one])])

    same = bits or {}
    plain, bare = _grouped(lacking, _separated), _grouped(lacking, bare_name)
    take("by its name", lambda name: plain.get(_separated(name), []))
    take("by its name", lambda name: bare.get(bare_name(name), []))
    take("by its bits", lambda name: [same[name]] if same.get(name) in lacking else [])
    take("by the end of its name", ends)
    found |= _in_order(
        {name: size for name, size in strays.items() if name not in found},
        {name: size for name, size in lacking.items() if name not in {one.name for one in found.values()}},
    )
    take("by its shape", fits)
    return found


def _grouped(names: Collection[str], form: Callable[[str], str]) -> dict[str, list[str]]:
    made: dict[str, list[str]] = {}
    for name in names:
        made.setdefault(form(name), []).append(name)
    return made


def _separated(name: str) -> str:
    """The name with one kind of separator: what file names and frameworks write in different ways."""
    return re.sub("[^0-9a-z]+", "_", unquote(name).lower()).strip("_")


def bare_name(name: str) -> str:
    """The same without a running number before it, and without what some frameworks put behind."""
    text = re.sub("_output(_0)?$", "", _separated(name))
    return re.sub("^[0-9]+_(?=.*[a-z])", "", text)


def _ends(a: str, b: str) -> bool:
    """Whether one of the bare names is the other with something before it ("model_layer1_conv")."""
    return bool(a and b) and (a.endswith("_" + b) or b.endswith("_" + a))


def _longest(names: list[str]) -> list[str]:
    """Those that agree in most characters."""
    most = max(map(len, names), default=0)
    return [name for name in names if len(name) == most]


def _in_order(strays: Mapping[str, int | None], lacking: Mapping[str, int]) -> dict[str, Likely]:
    """Files that are numbered and nothing else: if there is one per value, of its size, in order."""
    numbered = sorted((int(text), name) for name in strays if (text := _number(name)) is not None)
    if len(numbered) != len(strays) or [strays[name] for _, name in numbered] != list(lacking.values()):
        return {}
    pairs = zip((name for _, name in numbered), lacking, strict=True)
    return {name: Likely(value, "by its number") for name, value in pairs}


def _number(name: str) -> str | None:
    found = re.fullmatch("[^0-9]*([0-9]{1,9})[^0-9]*", name)
    return None if found is None else found[1]


# Maps of names.


def read_names(names: Names) -> dict[str, str]:
    """A map of names, {captured name: name of a value}, or the one in a JSON file.

    Raises InputError for two names of one value, FormatError for a file that holds anything else.
    """
    if isinstance(names, Mapping):
        found, where = dict(names), "names"
    else:
        where = os.fspath(names)
        parsed = parse(read_bytes(names, LARGEST, "a map of names"), where)
        check = Checked(where)
        if not isinstance(parsed, dict):
            raise FormatError(where, 0, type(parsed).__name__, "an object {captured name: name of a value}")
        found = {name: check.text(value, name[:200]) or "" for name, value in parsed.items()}
    twice = [value for value, count in Counter(found.values()).items() if count > 1]
    if twice:
        both = [name for name, value in found.items() if value == twice[0]]
        raise InputError(f"{where}: {both[0]!r} and {both[1]!r} are both named {twice[0]!r}")
    return found


def write_names(path: str | os.PathLike[str], names: Mapping[str, str]) -> None:
    """Write a map of names, whole or not at all. Raises InputError if that is not possible."""
    with whole_file(path) as stream:
        stream.write(writable(json.dumps(dict(names), indent=1, ensure_ascii=False) + "\n").encode())


def renamed(capture: CapturedValues, names: Mapping[str, str]) -> CapturedValues:
    """The capture with values and inputs under the names of the map.

    Raises InputError for a name that the capture has not, and one that another of its values has already.
    """
    if not names:
        return capture
    inputs = () if capture.manifest is None else tuple(capture.manifest.inputs)
    there = {*capture.names, *inputs, *(capture.inputs if isinstance(capture, Values) else ())}
    for name, value in names.items():
        if name not in there:
            raise InputError(f"names: the capture has no value {name!r}")
        if value in there and value not in names:
            raise InputError(f"names: {name!r} is to be {value!r}, but the capture has a value of that name")

    def new(name: str) -> str:
        return names.get(name, name)

    manifest = capture.manifest
    if manifest is not None:
        manifest = replace(
            manifest,
            values={new(name): one for name, one in manifest.values.items()},
            inputs={new(name): one for name, one in manifest.inputs.items()},
            outputs={name: new(value) for name, value in manifest.outputs.items()},
            beyond={new(name): why for name, why in manifest.beyond.items() if name not in names},
        )
    if isinstance(capture, Capture):
        files: dict[str, Path] = {new(name): path for name, path in capture.files.items()}
        return replace(capture, manifest=manifest, files=files)
    if isinstance(capture, Values):
        values: dict[str, F32] = {new(name): array for name, array in capture.values.items()}
        given = {new(name): array for name, array in capture.inputs.items()}
        return replace(capture, values=values, inputs=given, manifest=manifest)
    raise InputError(
        f"names: only values of a folder or a mapping can be renamed, not a {type(capture).__name__}"
    )


def check_names(graph: Graph, names: Mapping[str, str]) -> None:
    """Raises InputError for a name of a map that is no value and no input of the graph."""
    for name, value in names.items():
        if value not in graph.by_name and value not in graph.inputs:
            raise InputError(f"names: {name!r} is to be {value!r}, but {graph.name} has no such value")


# What matches nothing.


def stray_names(graph: Graph, capture: CapturedValues) -> tuple[str, ...]:
    """Captured values that are no value of the graph, but for those that the manifest marks as such."""
    marked = {} if capture.manifest is None else capture.manifest.beyond
    known = graph.by_name.keys() | graph.inputs.keys() | marked.keys()
    return tuple(name for name in capture.names if name not in known)


def sizes_of(capture: CapturedValues, names: Collection[str]) -> dict[str, int | None]:
    """How many elements each has; None for a file that is no array."""
    return {name: _size(capture, name) for name in names}


def _size(capture: CapturedValues, name: str) -> int | None:
    try:
        return capture.size(name) if isinstance(capture, Capture) else int(capture.value(name).size)
    except (InputError, FormatError):
        return None


class Strays:
    """The captured values that match nothing and are not allowed to, while a graph's own run goes by."""

    def __init__(
        self,
        graph: Graph,
        capture: CapturedValues,
        allow: Collection[str],
        types: Mapping[str, TensorType],
        inputs: Mapping[str, F32 | None],
        whole: Graph | None = None,
    ) -> None:
        """types: of every value, at the capture's batch. inputs: the network's; None: not known. whole: the
        graph that this one is a part of; no name of it is a stray."""
        self.capture = capture
        names = [name for name in stray_names(whole or graph, capture) if not covered(name, allow)]
        self.sizes = sizes_of(capture, names)
        known = {*capture.names, *(name for name, array in inputs.items() if array is not None)}
        absent = [name for name in (*graph.inputs, *graph.by_name) if name not in known]
        self.lacking = {name: types[name].size for name in absent} if names else {}
        self.bits: dict[str, str] = {}
        self.digests: dict[str, str] = {}

    def seen(self, name: str, value: F32 | None) -> None:
        """One value of refnet's own run, which a stray may have the bits of."""
        size = self.lacking.get(name)
        if value is None or size is None or value.size != size:
            return
        same = [stray for stray, count in self.sizes.items() if count == size]
        if same:
            own = digest(value).sha256
            for stray in same:
                if self._digest(stray) == own:
                    self.bits[stray] = name

    def _digest(self, name: str) -> str:
        if name not in self.digests:
            stored = None if self.capture.manifest is None else self.capture.manifest.values.get(name)
            self.digests[name] = (
                digest(self.capture.value(name)).sha256 if stored is None else stored.digest.sha256
            )
        return self.digests[name]

    def unmatched(self) -> tuple[Unmatched, ...]:
        """Each with what it may be."""
        likely = propose(self.sizes, self.lacking, self.bits)
        return tuple(Unmatched(name, likely.get(name)) for name in self.sizes)


def listed(unmatched: Collection[Unmatched]) -> list[str]:
    """Lines about them, each with its likely match, the first SHOWN."""
    lines = [f"  {one}" for one in list(unmatched)[:SHOWN]]
    return lines + ([f"  and {len(unmatched) - SHOWN} more"] if len(unmatched) > SHOWN else [])
