"""The core of the pytest fixture `golden`: a port's arrays against a golden file or a folder of arrays.

Checker.check ── GoldenSource.digest                 equal hashes: done, and no kernel is loaded
          ├───── judge (judge.py)                    with within="bound": the verdict on the node
          └───── GoldenSource.value, describe        on failure: the element, and its share of the bound
                        └── Recomputed               refnet's own golden run, kept on disk

What computes is imported inside functions: a test that passes by equal bits must not wait for a compiler.
"""

from __future__ import annotations

import datetime
import os
import shutil
import warnings
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from refnet.core.errors import FormatError, InputError, RefnetError
from refnet.core.words import did_you_mean
from refnet.formats.golden_file import Change, Digest, File, digest, read, write
from refnet.formats.manifest import NAME, file_name
from refnet.formats.npy import open_npy, writing
from refnet.verification.axes import readings
from refnet.verification.capture import PROGRESS, Capture, open_capture

if TYPE_CHECKING:
    from refnet.core.graph import Graph, Node
    from refnet.core.op import F32

MANIFEST = "golden.json"
"""The golden file of a folder, if it has one."""


class Recomputed:
    """refnet's golden run of the network that a golden file names, node by node as needed, kept on disk."""

    def __init__(self, file: File, graph: Graph, inputs: Mapping[str, F32], who: str) -> None:
        """inputs: of the graph. who: what the file is, for messages. Raises InputError if the graph or the
        inputs are not the file's.
        """
        from refnet.verification.golden import foundations

        self.graph, self.inputs = graph, inputs
        if wrong := foundations(file, self.graph, self.inputs):
            what = ", ".join(f"{one.what} ({one.name})" for one in wrong)
            raise InputError(f"{who} was made of other sources than refnet finds here: {what}")
        self._folder = mkdtemp(prefix="refnet-golden-")
        self.close = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._files: dict[str, Path] = {}
        self._steps = self._run()

    def _run(self) -> Iterator[str]:
        from refnet.arithmetic.golden import Golden
        from refnet.core.interpreter import steps

        for node, value in steps(self.graph, self.inputs, Golden()):
            path = Path(self._folder, f"{len(self._files)}.npy")
            with writing(path, value.shape) as append:
                append(value)
            self._files[node.name] = path
            yield node.name

    def value(self, name: str) -> F32:
        """The golden value of a node, or an input."""
        if name in self.inputs:
            return self.inputs[name]
        if name not in self.graph.by_name:
            hint = did_you_mean(name, self.graph.by_name)
            raise InputError(f"{self.graph.name} has no value {name!r}{hint}")
        while name not in self._files:
            next(self._steps)
        return open_npy(self._files[name]).read()


class GoldenSource:
    """Where golden values come from: a golden file, a capture, or a folder of .npy files named by value.

    Raises InputError or FormatError if the file or folder is missing or damaged, or the capture unfinished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_folder = os.path.isdir(path)
        self.manifest = path / MANIFEST if self.is_folder else path
        self.capture: Capture | None = None
        self.arrays: dict[str, Path] = {}
        if self.is_folder and any((path / name).exists() for name in (NAME, PROGRESS)):
            self.capture = open_capture(path)
            self.manifest = path / NAME
            self.file: File | None = _as_golden(self.capture)
            self.arrays = {name: path / file_name(name) for name in self.known if self.capture.has(name)}
        else:
            self.file = read(self.manifest) if not self.is_folder or self.manifest.exists() else None
            if self.is_folder:
                self.arrays = {unquote(found.stem): found for found in sorted(path.glob("*.npy"))}
                if not self.arrays:
                    raise InputError(f"{path}: a folder without any .npy file")
        self._recomputed: Recomputed | RefnetError | None = None

    @property
    def known(self) -> Mapping[str, Digest]:
        """What the golden file lists: values and inputs."""
        return {} if self.file is None else {**self.file.inputs, **self.file.values}

    def digest(self, name: str) -> Digest | None:
        """The Digest that the value must have; None if there is no such value."""
        if name not in self.arrays:
            return None if self.is_folder and self.capture is None else self.known.get(name)
        found = digest(open_npy(self.arrays[name]).read())
        if self.known.get(name, found) != found:
            raise FormatError(
                self.arrays[name], None, f"{found}", f"{self.known[name]} ({self.manifest.name} beside it)"
            )
        return found

    def names(self) -> list[str]:
        """All names that can be checked."""
        return list(self.arrays if self.is_folder and self.capture is None else self.known)

    def recomputed(self) -> Recomputed:
        """refnet's golden run. Raises a RefnetError that says why there cannot be one."""
        if self._recomputed is None:
            try:
                if self.file is None:
                    raise InputError(f"{self.path} has no {MANIFEST} that names the network")
                who = "the golden file" if self.capture is None else "the capture"
                self._recomputed = Recomputed(self.file, *self._foundations(self.file), who)
            except RefnetError as error:
                self._recomputed = error
        if isinstance(self._recomputed, RefnetError):
            raise self._recomputed
        return self._recomputed

    def _foundations(self, file: File) -> tuple[Graph, dict[str, F32]]:
        """Network and inputs that the golden file names; a capture's as `refnet verify` finds them."""
        from refnet.models.inputs import located, prepare
        from refnet.verification.sources import network_and_inputs

        if self.capture is None:
            return prepare(located(file.sources, self.manifest.parent))
        graph, found = network_and_inputs(self.capture, None)
        return graph, {**found, **self._inputs()}

    def _inputs(self) -> dict[str, F32]:
        """A capture's inputs, those whose data it has."""
        if self.capture is None or self.capture.manifest is None:
            return {}
        kept = [name for name, one in self.capture.manifest.inputs.items() if one.file is not None]
        return {name: self.capture.input(name) for name in kept}

    def value(self, name: str) -> F32:
        """The array itself: the folder's, or recomputed."""
        if name in self.arrays:
            return open_npy(self.arrays[name]).read()
        return self.recomputed().value(name)

    def close(self) -> None:
        """Remove what lies on disk."""
        if isinstance(self._recomputed, Recomputed):
            self._recomputed.close()
        self._recomputed = None


@dataclass
class Updates:
    """What --golden-update is to write.

    pending: reference -> value -> (its Digest before, the array, the difference as text).
    """

    pending: dict[Path, dict[str, tuple[Digest | None, F32, str]]] = field(default_factory=dict)
    seen: dict[tuple[Path, str], Digest] = field(default_factory=dict)

    def meet(self, path: Path, name: str, found: Digest) -> None:
        """Raises AssertionError if this run had other bits for the same value before."""
        if self.seen.setdefault((path, name), found) != found:
            raise AssertionError(f"{name}: this run had other bits for it before; not accepted")


class Checker:
    """The fixture `golden`: check(name, array) compares an array of a port with its golden value."""

    def __init__(self, reference: GoldenSource, updates: Updates | None = None) -> None:
        self.reference = reference
        self._updates = updates
        self._checked: dict[str, F32] = {}

    def check(self, name: str, array: Any, *, within: str | None = None, inputs: str = "golden") -> None:
        """Pass if the array has the golden value's bits; otherwise raise AssertionError with the difference.

        name: a value, or an input of the network. array: float32, of the value's shape; anything that
        NumPy can read. Every NaN is the same NaN.
        within: "bound" accepts what `refnet verify` calls equal, replayed or rounding (judge.py): a value
        that any order of the node's sum may give. Ops that have one right result (relu, max, concat, one
        add) must have its bits even so, up to the sign of a zero where frameworks vary. An array of another
        shape is read as `refnet verify` reads it, by the one order of axes in which it is accepted; a warning
        says which. Without `within` the shape must be the value's; the failure names the order that is right.
        inputs: what the bound is computed from. "golden": the golden values of the node's inputs (of a
        capture: the captured ones), so the port's node must have been fed with these. "checked": the arrays
        that were passed to `check` before in the same test (a network's input that was not: the reference's).

        Raises InputError for what cannot be compared: no such value, or with within="bound" no finite bound
        where the bits are neither the golden value's nor those of refnet's plain order.
        """
        __tracebackhide__ = True
        if not isinstance(name, str):
            raise InputError(f"name must be a value's name, got {name!r}")
        if within not in (None, "bound") or inputs not in ("golden", "checked"):
            raise InputError(
                f'within must be None or "bound", inputs "golden" or "checked": {within}, {inputs}'
            )
        if within is None and inputs == "checked":
            raise InputError('inputs="checked" says what a bound is computed from: it needs within="bound"')
        found = _array(name, array)
        if within is None:
            self._equal(name, found)
        else:
            found = self._within(name, found, inputs)
        self._checked[name] = found.copy()

    def _equal(self, name: str, found: F32) -> None:
        __tracebackhide__ = True
        expected, own = self.reference.digest(name), digest(found)
        if self._updates is not None:
            self._updates.meet(self.reference.path, name, own)
        elif expected is None:
            raise self._unknown(name)
        if own == expected:
            return
        text = f"{name} is not what {self.reference.path} has\n" + self._difference(name, found, expected)
        if self._updates is None:
            raise AssertionError(text)
        self._updates.pending.setdefault(self.reference.path, {})[name] = (expected, found.copy(), text)

    def _within(self, name: str, found: F32, inputs: str) -> F32:
        """The array in the node's shape; raise unless the one judge accepts it, the node run on `inputs`."""
        from refnet.core.op import Interval
        from refnet.verification import compute
        from refnet.verification.describe import describe
        from refnet.verification.difference import differs
        from refnet.verification.judge import arranged, judge
        from refnet.verification.judgement import DEFECT, UNJUDGED

        __tracebackhide__ = True
        run = self.reference.recomputed()
        node = run.graph.by_name.get(name)
        if node is None:
            raise (
                InputError(f"{name!r} is an input, without bound")
                if name in run.inputs
                else self._unknown(name)
            )
        arguments = self._arguments(run.graph, node, inputs)
        recorded = inputs == "golden" and self.reference.capture is None
        golden = run.value(name) if recorded else compute.golden(node.op, arguments)
        judgement = judge(node, found, arguments)
        array = arranged(found, judgement)
        if array is None:
            shapes = f"the shape is {list(found.shape)}, must be {list(golden.shape)}"
            raise AssertionError(f"{name}: {shapes}: {judgement.reason}")
        if judgement.reading is not None:
            warnings.warn(f"{name}: {judgement.reason}", stacklevel=3)
        found = array
        own = "golden inputs" if self.reference.capture is None else "the capture's values"
        fed = own if inputs == "golden" else "the inputs checked before"
        if judgement.verdict == UNJUDGED and differs(found, golden).any():
            raise InputError(f"{name} cannot be judged, {node}, on {fed}: {judgement.reason}")
        if judgement.verdict != DEFECT:
            return found
        word = "lie outside the bound"
        if node.op.exactly_specified:
            word = f"differ, and {judgement.kind} has only one right result"
        bound = compute.bound(node.op, list(map(Interval.exactly, arguments)))
        assert judgement.wrong is not None
        text = describe(found, golden, bound, judgement.wrong, word)
        raise AssertionError(f"{name} is no rounding of its formula, {node}, on {fed}\n{text}")

    def _arguments(self, graph: Graph, node: Node, inputs: str) -> list[F32]:
        data = []
        read = self._read(graph, node) if inputs == "golden" else {}
        for name in node.data:
            if name in read:
                data.append(read[name])
            elif inputs == "golden" or (name in graph.inputs and name not in self._checked):
                data.append(self.reference.recomputed().value(name))
            elif name in self._checked:
                data.append(self._checked[name])
            else:
                raise InputError(
                    f'inputs="checked": {node.name} reads {name!r}, which was not checked before'
                )
        return data + [graph.weights[name] for name in node.weights]

    def _read(self, graph: Graph, node: Node) -> dict[str, F32]:
        """What a capture tells of a node's data, read as `refnet verify` reads it; {} of a golden file.

        Raises InputError for an array of another shape that cannot be read: golden values are none of its.
        """
        from refnet.verification.verifier import data_of

        capture = self.reference.capture
        if capture is None:
            return {}
        found = data_of(graph, capture, node, self.reference.recomputed().inputs)
        unread = [name for name in node.data if name not in found and capture.has(name)]
        if unread:
            raise InputError(f"the capture does not tell what {node.name} reads: {', '.join(unread)}")
        return found

    def _difference(self, name: str, found: F32, expected: Digest | None) -> str:
        """What differs, as far as it can be shown."""
        from refnet.core.op import Interval
        from refnet.verification import compute
        from refnet.verification.describe import describe
        from refnet.verification.difference import differs

        if expected is None:
            return f"it has no such value; found {digest(found)}"
        if found.shape != expected.shape:
            said = f"the shape is {list(found.shape)}, must be {list(expected.shape)}"
            fitting = readings(found.shape, expected.shape)
            right = next((one for one in fitting if digest(one.of(found)) == expected), None)
            return said if right is None else f"{said}; read {right}, it has the bits"
        lines, bound = [], None
        try:
            golden = self.reference.value(name)
            if digest(golden) != expected:
                lines.append(
                    "refnet's own golden value here has another hash than the file too; it is what is shown"
                )
        except RefnetError as error:
            return f"found {digest(found)}\nmust be {expected}\nthe element cannot be shown: {error}"
        try:
            run = self.reference.recomputed()
            if name in run.graph.by_name:
                node = run.graph.by_name[name]
                arguments = self._arguments(run.graph, node, "golden")
                bound = compute.bound(node.op, list(map(Interval.exactly, arguments)))
        except RefnetError as error:
            lines.append(f"no bound is known: {error}")
        wrong = differs(found, golden)
        if not wrong.any():
            return "\n".join([*lines, "found has exactly the bits of refnet's own golden value"])
        return "\n".join([*lines, describe(found, golden, bound, wrong)])

    def _unknown(self, name: str) -> InputError:
        known = self.reference.names()
        hint = did_you_mean(name, known, f" among its {len(known)}")
        return InputError(f"{self.reference.path} has no value {name!r}{hint}")


def _array(name: str, array: Any) -> F32:
    """The array as NumPy's, never converted: a conversion would round in nobody's name."""
    __tracebackhide__ = True
    if np.ma.is_masked(array):
        raise AssertionError(f"{name}: the array has masked elements, which have no value")
    try:
        found = np.asarray(array)
    except Exception as error:  # other libraries' arrays refuse in their own ways
        raise InputError(f"{name}: a {type(array).__name__} is no array for NumPy: {error}") from None
    if found.dtype.kind != "f" or found.dtype.itemsize != 4:
        raise AssertionError(f"{name}: the dtype is {found.dtype}, a golden value's is float32")
    return np.ascontiguousarray(found, np.float32).reshape(found.shape)


def _as_golden(capture: Capture) -> File:
    """A capture's manifest as a golden file."""
    said = capture.manifest
    assert said is not None
    return File(
        {name: one.digest for name, one in said.values.items()},
        said.sources,
        said.graph,
        said.weights,
        {name: one.digest for name, one in said.inputs.items()},
        written_by=said.written_by,
    )


def accept(path: Path, pending: Mapping[str, tuple[Digest | None, F32, str]], reason: str) -> Path:
    """Write accepted values into a reference, with date (UTC) and reason; the golden file that was written.

    A folder's arrays are written first, then its golden.json, which is made if there is none.
    """
    reference = GoldenSource(path)
    if reference.capture is not None:
        raise InputError(f"{path} is a capture: it has what was computed, and is not updated")
    new = {name: digest(array) for name, (_, array, _) in pending.items()}
    changed = {
        name: (None if old is None else old.sha256, new[name].sha256) for name, (old, _, _) in pending.items()
    }
    if reference.is_folder:
        for name, (_, array, _) in pending.items():
            with writing(path / file_name(name), array.shape) as append:
                append(array)
    file = File({}) if reference.file is None else reference.file
    change = Change(datetime.datetime.now(datetime.UTC).date().isoformat(), reason, changed)
    into_inputs = {name: one for name, one in new.items() if name in file.inputs}
    into_values = {name: one for name, one in new.items() if name not in file.inputs}
    write(
        reference.manifest,
        replace(
            file,
            values={**file.values, **into_values},
            inputs={**file.inputs, **into_inputs},
            history=(*file.history, change),
        ),
    )
    return reference.manifest
