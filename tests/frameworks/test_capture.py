"""Captures: written value by value, stopped anywhere, gone on with or refused, never mistaken for whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.arithmetic.golden import Golden
from refnet.arithmetic.plain import Plain
from refnet.cli import main
from refnet.core.errors import FormatError, FrameworkError, InputError, RefnetError
from refnet.formats import manifest
from refnet.formats.golden_file import digest
from refnet.formats.manifest import Manifest, Stored
from refnet.frameworks.capture.writer import CapturePlan, write
from refnet.frameworks.process import Worker
from refnet.verification.capture import PROGRESS, open_capture
from tests.helpers.bits import same_bits
from tests.helpers.made_capture import INPUT, VALUES, WHO, plan

F = np.float32


def stopping(count: int, error: BaseException, values=VALUES) -> Callable[[], Iterator]:
    """Values that end in an error after `count` of them."""

    def made():
        yield from list(values.items())[:count]
        raise error

    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of a capture that nothing interrupted."""
    write(tmp_path / "whole", plan())
    return contents(tmp_path / "whole")


# Written, and read back.


def test_a_capture_comes_back_bit_for_bit(tmp_path: Path) -> None:
    done = write(tmp_path / "deep/er", plan(graph="0" * 64, weights="f" * 64))
    capture = open_capture(tmp_path / "deep/er")
    assert capture.manifest == done.manifest == manifest.read(tmp_path / "deep/er/manifest.json")
    assert capture.names == tuple(VALUES)
    assert capture.manifest.reference == WHO
    assert capture.manifest.outputs == {"y": "prob"}
    assert (capture.manifest.graph, capture.manifest.weights) == ("0" * 64, "f" * 64)
    for name, array in VALUES.items():
        assert same_bits(capture.value(name), array)
        assert capture.digest(name) == digest(array)
    assert same_bits(capture.input("data"), INPUT)
    assert not (tmp_path / "deep/er" / PROGRESS).exists()
    assert not capture.hash_only
    assert (done.found, done.left_out) == (0, {})


def test_what_has_no_place_in_a_capture_is_said(tmp_path: Path) -> None:
    odd = {"shape": np.arange(4), "half": np.zeros(2, np.float16), "none": F([])}
    scalar = {"scalar": F(1)}
    done = write(
        tmp_path / "c", plan({**odd, **VALUES, **scalar}, left_out=lambda: {"sparse": "no such array"})
    )
    assert set(done.left_out) == {*odd, "sparse"}
    assert "int64" in done.left_out["shape"]
    assert "[0]" in done.left_out["none"]
    assert open_capture(tmp_path / "c").names == (*VALUES, *scalar)


def test_only_hashes(tmp_path: Path) -> None:
    """The values' data are left out; the input's only where its sources make it anew, bit for bit."""
    for remade in (False, True):
        folder = tmp_path / str(remade)
        write(folder, plan(remade=remade), hash_only=True)
        capture = open_capture(folder)
        assert capture.hash_only
        assert {name: capture.digest(name) for name in VALUES} == {n: digest(a) for n, a in VALUES.items()}
        assert sorted(contents(folder)) == (["manifest.json"] if remade else ["data.npy", "manifest.json"])
        with pytest.raises(InputError, match="keeps only the hash of 'conv1'"):
            capture.value("conv1")
    assert same_bits(open_capture(tmp_path / "False").input("data"), INPUT)


def test_one_value_is_in_memory_at_a_time(tmp_path: Path) -> None:
    import weakref

    alive: list[weakref.ref] = []

    def made():
        for i in range(5):
            assert not any(ref() is not None for ref in alive)
            array = np.full(1000, i, F)
            alive.append(weakref.ref(array))
            yield f"v{i}", array
            del array

    write(tmp_path / "c", plan(made))
    assert len(alive) == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([("a", F([1])), ("a", F([1]))], "two values named 'a'"),
        ([("a", np.arange(3)), ("a", F([1]))], "two values named 'a'"),
        ([("data", F([1]))], "'data', like an input"),
        ([("a\nb", F([1]))], "no control character"),
        ([("a", np.arange(3))], r"no value that a capture can have \(1 left out, a: .*int64"),
        ([], "no value that a capture can have"),
    ],
)
def test_values_that_make_no_capture(tmp_path: Path, values: list, message: str) -> None:
    with pytest.raises((FrameworkError, FormatError), match=message):
        write(tmp_path / "c", CapturePlan(WHO, {"data": INPUT}, lambda: iter(values), dict))
    if (tmp_path / "c").exists():
        with pytest.raises(InputError, match="not finished"):
            open_capture(tmp_path / "c")


# Folders.


def test_a_folder_with_anything_else_is_refused_and_left_alone(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    with pytest.raises(InputError, match="has a whole capture already"):
        write(tmp_path / "whole", plan())
    assert contents(tmp_path / "whole") == whole
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("dear")
    with pytest.raises(InputError, match=r"not empty \(it has 'thesis.tex'\)"):
        write(other, plan())
    assert sorted(contents(other)) == ["thesis.tex"]
    with pytest.raises(InputError, match="cannot be a capture's folder"):
        write(other / "thesis.tex", plan())
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", plan())
    assert contents(tmp_path / "empty") == whole


def test_a_folder_is_written_by_one_process(tmp_path: Path) -> None:
    def made():
        yield "a", F([1])
        with pytest.raises(InputError, match="another process is writing this capture"):
            write(tmp_path / "c", plan())

    write(tmp_path / "c", plan(values=made))


def test_a_capture_that_came_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FrameworkError, match="no module named net"):
        write(tmp_path / "c", plan(values=stopping(0, FrameworkError("no module named net"))))
    assert not (tmp_path / "c").exists()


# Interrupted.


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FrameworkError("died"), MemoryError()])
@pytest.mark.parametrize("count", range(1, len(VALUES) + 1))
@pytest.mark.parametrize("hash_only", [False, True])
def test_an_interrupted_capture_is_refused_then_goes_on(
    tmp_path: Path, whole: dict[str, bytes], error: BaseException, count: int, hash_only: bool
) -> None:
    with pytest.raises(type(error)):
        write(tmp_path / "c", plan(values=stopping(count, error)), hash_only=hash_only)
    with pytest.raises(InputError, match="not finished"):
        open_capture(tmp_path / "c")
    done = write(tmp_path / "c", plan(), hash_only=hash_only)
    assert done.found == count
    if hash_only:
        write(tmp_path / "hashes", plan(), hash_only=True)
        whole = contents(tmp_path / "hashes")
    assert contents(tmp_path / "c") == whole


def test_progress_that_is_cut_anywhere_is_gone_on_with(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """A machine may have written less of the file than of others."""
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "stopped", plan(values=stopping(3, KeyboardInterrupt())))
    text = (tmp_path / "stopped" / PROGRESS).read_bytes()
    header = text.index(b"\n")
    for length in [*range(0, header - 1, 17), *range(header - 1, len(text) + 1)]:
        folder = tmp_path / "c"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "stopped", folder)
        (folder / PROGRESS).write_bytes(text[:length])
        with pytest.raises(InputError, match="not finished"):
            open_capture(folder)
        done = write(folder, plan())
        assert done.found == max(text[:length].count(b"\n") - 1, 0)
        assert contents(folder) == whole


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from tests.helpers.made_capture import VALUES, plan as made
    from refnet.verification.capture import open_capture
    from refnet.frameworks.capture.writer import write
    from refnet.core.errors import InputError

    def plan():
        return made(dict(list(VALUES.items())[-2:]))

    folder = Path(sys.argv[1])
    write(folder / "whole", plan())
    whole = {path.name: path.read_bytes() for path in (folder / "whole").iterdir()}
    watched = ("writer.py", "npy.py", "formats/write.py", "manifest.py")

    def child(target, line):
        count = 0
        def trace(frame, event, argument):
            nonlocal count
            if not frame.f_code.co_filename.endswith(watched):
                return None
            if event == "line":
                count += 1
                if count == line:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        sys.settrace(trace)
        write(target, plan())
        os._exit(0)

    states, line = set(), 0
    while True:
        line += 1
        target = folder / f"{line}"
        pid = os.fork()
        if pid == 0:
            child(target, line)
        _, status = os.waitpid(pid, 0)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        try:
            capture = open_capture(target)
            assert capture.manifest is not None
            for name in capture.names:
                capture.value(name)
            states.add("whole")
        except InputError as error:
            states.add("unfinished" if "not finished" in str(error) else "no capture")
            done = write(target, plan())
        found = {path.name: path.read_bytes() for path in target.iterdir()}
        assert found == whole, (line, sorted(found))
    print(line, sorted(states))
"""


def test_killed_at_any_line_it_is_refused_or_whole_and_goes_on(tmp_path: Path) -> None:
    """SIGKILL at each line of Python that writing executes; no folder in between looks like a capture."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines, states = done.stdout.split(" ", 1)
    assert int(lines) > 200
    assert states.strip() == "['no capture', 'unfinished', 'whole']"


def test_a_file_that_was_damaged_meanwhile_is_written_again(tmp_path: Path, whole: dict[str, bytes]) -> None:
    for damage in (b"", whole["conv1.npy"][:-1], whole["prob.npy"], whole["conv1.npy"][:-1] + b"\xff"):
        folder = tmp_path / "c"
        shutil.rmtree(folder, ignore_errors=True)
        with pytest.raises(KeyboardInterrupt):
            write(folder, plan(values=stopping(2, KeyboardInterrupt())))
        (folder / "conv1.npy").write_bytes(damage)
        (folder / "data.npy").unlink()
        (folder / ".refnet-123.part").write_bytes(b"half")
        write(folder, plan())
        assert contents(folder) == whole


CHANGED = {
    "reference": replace(WHO, threads=1),
    "inputs": {"data": INPUT + 1},
    "graph": "1" * 64,
    "weights": "1" * 64,
}


@pytest.mark.parametrize("key", [*CHANGED, "hash_only"])
def test_another_capture_does_not_go_on(tmp_path: Path, key: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "c", plan(values=stopping(2, KeyboardInterrupt())))
    before = contents(tmp_path / "c")
    changes = {key: CHANGED[key]} if key in CHANGED else {}
    name = "threads" if key == "reference" else key
    with pytest.raises(InputError, match=f"unfinished capture of something else .*{name}"):
        write(tmp_path / "c", plan(**changes), hash_only=key == "hash_only")
    assert contents(tmp_path / "c") == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**VALUES, "conv1": VALUES["conv1"] + F(1)}, "not deterministic: .*'conv1'"),
        (dict(reversed(VALUES.items())), "made 'conv1' where it now makes 'prob'"),
        (dict(list(VALUES.items())[:1]), "made 1 values, before the interruption it had made 3"),
    ],
)
def test_a_framework_that_gives_other_bits_is_found_out(tmp_path: Path, values, message: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "c", plan(values=stopping(3, KeyboardInterrupt())))
    with pytest.raises(FrameworkError, match=message):
        write(tmp_path / "c", plan(values))
    with pytest.raises(InputError, match="not finished"):
        open_capture(tmp_path / "c")


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[1]",
        b'"conv1"',
        b"{",
        b"\xff",
        b'{"name": 1}',
        b'{"name": "a", "sha256": "0", "shape": [1], "dtype": "float32", "file": null}',
        b'{"name": "a", "sha256": "' + b"0" * 64 + b'", "shape": [1], "dtype": "float32", "pickle": 1}',
        b"[" * 100_000,
    ],
)
def test_damaged_progress(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "c", plan(values=stopping(2, KeyboardInterrupt())))
    with open(tmp_path / "c" / PROGRESS, "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(FormatError, match=PROGRESS):
        write(tmp_path / "c", plan())


def test_somebody_elses_progress(tmp_path: Path) -> None:
    for text in (b"\n", b"{}\n", b"[1]\n", b'{"refnet capture unfinished": 3}\n', b"done: 3 of 4"):
        (tmp_path / PROGRESS).write_bytes(text)
        with pytest.raises(InputError, match=r"something else \(progress.jsonl is not refnet's\)"):
            write(tmp_path, plan())
        assert contents(tmp_path) == {PROGRESS: text}


# Damaged captures.


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-4], "bytes of elements"),
        (lambda raw: raw + b"\0", "bytes of elements"),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "float32"),
        (lambda raw: raw.replace(b"(2, 3, 4)", b"(2, 4, 3)"), r"the shape \[2, 4, 3\]"),
        (lambda raw: raw.replace(b"(2, 3, 4)", b"(9, 9, 9)"), "bytes of elements"),
        (lambda raw: raw.replace(b"<f4", b"|O8"), "must be float32"),
        (lambda raw: b"", "NUMPY"),
    ],
)
def test_a_damaged_value_is_refused(tmp_path: Path, damage, message: str) -> None:
    write(tmp_path / "c", plan())
    file = tmp_path / "c/conv1.npy"
    file.write_bytes(damage(file.read_bytes()))
    capture = open_capture(tmp_path / "c")
    with pytest.raises(RefnetError, match=message) as caught:
        capture.value("conv1")
    assert "conv1.npy" in str(caught.value)
    assert same_bits(capture.value("prob"), VALUES["prob"])


def _changed(path: str, value: object):
    """The manifest with another value at a path such as values.conv1.file."""

    def change(found: dict) -> None:
        *above, last = path.split("/")
        for key in above:
            found = found[key]
        found[last] = value

    return change


ZERO = {"sha256": "0" * 64, "shape": [1], "dtype": "float32"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_changed("version", 2), "only version 1"),
        (_changed("version", True), "only version 1"),
        (_changed("format", "refnet golden"), "refnet capture"),
        (_changed("code", "import os"), "only the keys"),
        (_changed("values/conv1/file", "../../etc/passwd"), "conv1.npy, or null"),
        (_changed("values/conv1/file", "prob.npy"), "conv1.npy, or null"),
        (_changed("values/conv1/pickle", 1), "only the keys"),
        (_changed("values/conv1/sha256", "0" * 63), "64 digits"),
        (_changed("values/conv1/shape", [-1]), "whole numbers"),
        (_changed("values/conv1/shape", [1.5]), "whole numbers"),
        (_changed("values/conv1/dtype", "object"), "float32"),
        (_changed("values", {}), "at least one value"),
        (_changed("values", []), "an object"),
        (_changed("values/data", ZERO), "names that no value has"),
        (_changed("outputs/y", "nothing"), "the name of a value"),
        (_changed("reference/threads", 0), "from 1 to"),
        (_changed("reference/threads", 10**9), "from 1 to"),
        (_changed("reference/flags", {"A": 1}), "a text"),
        (_changed("reference/framework", None), "a text"),
        (_changed("sources", {"model": "a"}), "the key input too"),
    ],
)
def test_manifests_that_are_none(tmp_path: Path, change, message: str) -> None:
    write(tmp_path / "c", plan())
    path = tmp_path / "c/manifest.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(RefnetError, match=message) as caught:
        open_capture(tmp_path / "c")
    assert "manifest.json" in str(caught.value)


def test_a_manifest_cut_anywhere_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "c", plan())
    path = tmp_path / "c/manifest.json"
    raw = path.read_bytes()
    for length in range(0, len(raw.rstrip()), 5):
        path.write_bytes(raw[:length])
        with pytest.raises(FormatError):
            open_capture(tmp_path / "c")
    with open(path, "wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(FormatError, match="more than 67108864 bytes"):
        open_capture(tmp_path / "c")


def test_a_manifest_is_the_same_after_reading_and_writing() -> None:
    stored = {name: Stored(digest(array), None) for name, array in VALUES.items()}
    made = Manifest(WHO, stored, {"data": Stored(digest(INPUT), "data.npy")}, {"y": "prob"})
    assert manifest.loads(manifest.dumps(made).encode(), "m") == made
    assert str(made.reference) == "by hand 1.2, AVX2, eager, 2 threads, batch 2"


# Written by others.


def test_a_capture_that_is_written_without_refnet(tmp_path: Path) -> None:
    """The specification's own writer, in a Python that has no refnet; then read here, whole and checked."""
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")
    code = page.split("needs NumPy and the standard library:\n\n```python\n")[1].split("```")[0]
    bare = "import sys\nsys.modules['refnet'] = None\n"
    run = [sys.executable, "-I", "-c", bare + code + "print(folder)"]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env={"TMPDIR": str(tmp_path)})
    capture = open_capture(done.stdout.split()[-1])
    assert capture.manifest is not None
    assert capture.manifest.outputs == {"y": "sum"}
    assert capture.names == ("layer1.0/relu", "sum")
    assert same_bits(capture.value("layer1.0/relu"), F([[0, 2]]))
    assert same_bits(capture.value("sum"), F([2]))
    assert same_bits(capture.input("data"), F([[-1, 2]]))


# Plain folders.


def test_a_folder_of_arrays_opens_too(tmp_path: Path) -> None:
    for name, array in VALUES.items():
        np.save(tmp_path / manifest.file_name(name), array)
    capture = open_capture(tmp_path)
    assert capture.manifest is None
    assert capture.names == tuple(sorted(VALUES))
    assert same_bits(capture.value("layer1.0/a b"), VALUES["layer1.0/a b"])
    assert capture.has("prob")
    assert not capture.has("nothing")
    with pytest.raises(InputError, match="no value 'nothing'"):
        capture.value("nothing")


def test_what_is_no_capture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        open_capture(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"neither manifest.json nor any .npy file"):
        open_capture(tmp_path)


# Frameworks that fail, in a process of their own.

FAKE = """
import os, signal, sys, time
import numpy as np

def emit_some(emit):
    for i in range(3):
        emit("v%d" % i, np.full(3, i, np.float32))

def dies(request, arrays, emit):
    emit_some(emit)
    sys.stderr.write("terminate called after throwing\\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(request, arrays, emit):
    emit_some(emit)
    sys.stderr.write("waiting for a lock\\n")
    sys.stderr.flush()
    time.sleep(600)

def fails(request, arrays, emit):
    emit_some(emit)
    raise ValueError("shape (3,) does not fit")

def truncates(request, arrays, emit):
    emit_some(emit)
    channel = emit.__self__
    path = os.path.join(channel.folder, "broken.npy")
    np.save(path, np.zeros(100, np.float32))
    os.truncate(path, 200)
    channel.send({"id": channel.id, "value": "v3", "array": "broken.npy"})
    channel.receive()

def babbles(request, arrays, emit):
    emit_some(emit)
    emit.__self__.answers.write("}{ what?\\n")
    emit.__self__.answers.flush()
    emit.__self__.receive()

def sound(request, arrays, emit):
    emit_some(emit)
    return {}, {}

COMMANDS = {f.__name__: f for f in (dies, hangs, fails, truncates, babbles, sound)}
"""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("dies", "terminate called after throwing"),
        ("hangs", "did not answer within 3 s; its last words:\n  waiting for a lock"),
        ("fails", r"ValueError: shape \(3,\) does not fit"),
        ("truncates", "nonsense: the array file 'broken.npy'"),
        ("babbles", "nonsense: .*what"),
    ],
)
def test_a_framework_that_fails_leaves_an_unfinished_capture(
    tmp_path: Path, command: str, message: str
) -> None:
    worker_file = tmp_path / "fake_worker.py"
    worker_file.write_text(FAKE)
    folder = tmp_path / "c"
    with Worker(worker_file, sys.executable, timeout=3) as worker:
        made = CapturePlan(WHO, {"data": INPUT}, lambda: worker.stream(command), dict)
        with pytest.raises(FrameworkError, match=message):
            write(folder, made)
    with pytest.raises(InputError, match="not finished"):
        open_capture(folder)
    with Worker(worker_file, sys.executable, timeout=30) as worker:
        done = write(folder, replace(made, values=lambda: worker.stream("sound")))
    assert done.found == 3
    assert open_capture(folder).names == ("v0", "v1", "v2")


# The command.

DIGITS = ["resnest-digits", "--input", "sample:1700-label-5.png"]


def test_the_command_captures_refnet_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = refnet.load("resnest-digits")
    for mode, arithmetic in (("plain", Plain()), ("golden", Golden())):
        folder = tmp_path / mode
        assert main(["capture", "refnet", *DIGITS, "--arithmetic", mode, "-o", str(folder), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["values"], said["found"], said["left_out"]) == (97, 0, {})
        assert said["reference"]["mode"] == mode
        capture = open_capture(folder)
        assert capture.manifest is not None
        assert capture.manifest.graph == graph.structure_hash()
        assert capture.manifest.weights == graph.weights_hash()
        assert capture.manifest.sources is not None
        assert capture.manifest.sources.input == "sample:1700-label-5.png"
        assert capture.manifest.outputs == graph.outputs
        own = refnet.steps(graph, {"data": capture.input("data")}, arithmetic)
        for node, value in own:
            assert same_bits(capture.value(node.name), value), node.name
        assert capture.names == tuple(node.name for node in graph.nodes)


def test_the_command_goes_on_after_ctrl_c(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from refnet.core import interpreter

    command = ["capture", "refnet", *DIGITS, "-o", str(tmp_path / "c")]
    real = interpreter.steps

    def interrupted(*arguments):
        for i, found in enumerate(real(*arguments)):
            if i == 10:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(interpreter, "steps", interrupted)
    assert main(command) == 130
    assert "is unfinished; the same command completes it" in capsys.readouterr().err
    assert main([*command, "--threads", "2"]) == 2
    assert "something else (other threads)" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(command) == 0
    assert "97 values of refnet" in (out := capsys.readouterr().out)
    assert "10 of them from before an interruption" in out
    assert main(command) == 2
    assert "has a whole capture already" in capsys.readouterr().err


def test_the_command_makes_a_capture_of_anybodys_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dump of a chip: some of a network's values, and one that refnet does not know."""
    assert main(["capture", "refnet", "resnest-digits", "--batch", "2", "-o", str(tmp_path / "own")]) == 0
    own, dump = open_capture(tmp_path / "own"), tmp_path / "dump"
    dump.mkdir()
    kept = own.names[5:60:5]
    for name in kept:
        np.save(dump / manifest.file_name(name), own.value(name))
    np.save(dump / "data.npy", own.input("data"))
    np.save(dump / "0-fused.npy", F([1]))
    said = ["--reference", "framework=NPU X", "--reference", "threads=4", "--reference", "isa=v2"]
    made = ["capture", "folder", str(dump), "--model", "resnest-digits", *said, "-o", str(tmp_path / "made")]
    assert main(made) == 2
    assert "1 of 13 files in" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()
    assert main([*made, "--allow", "?-fused"]) == 0
    capture = open_capture(tmp_path / "made")
    assert capture.manifest is not None
    assert capture.names == (*kept, "0-fused")
    assert capture.manifest.reference.framework == "NPU X"
    assert (capture.manifest.reference.threads, capture.manifest.reference.batch) == (4, 2)
    assert capture.manifest.beyond == {"0-fused": "allowed by name"}
    assert capture.manifest.reference.flags == {"stated, not checked": "reference, model, weights"}
    assert capture.manifest.graph == own.manifest.graph
    assert same_bits(capture.input("data"), own.input("data"))
    bare = ["capture", "folder", str(dump), "-o", str(tmp_path / "bare")]
    assert main(bare) == 0
    found = open_capture(tmp_path / "bare")
    assert found.manifest is not None
    assert (found.manifest.graph, found.manifest.inputs) == (None, {})
    assert found.names == tuple(sorted([*kept, "0-fused", "data"]))
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["caffe", "resnest-digits"], None),
        (["refnet", "no-such-net"], "no-such-net"),
        (["refnet", "resnest-digits", "--input", "no.npy"], "no.npy"),
        (["refnet", "resnest-digits", "--input", "seed:x"], "seed:N"),
        (["refnet", "resnest-digits", "--mode", "monitor"], "mode must be plain or golden"),
        (["refnet", "resnest-digits", "--subgraph", "default"], "mxnet's"),
        (["refnet", "resnest-digits", "--state", "a.pth"], "torch model package.module:callable"),
        (["refnet", "resnest-digits", "--reference", "framework=x"], "leave the reference out"),
        (["torch", "resnest-50-pytorch", "--arithmetic", "golden"], "for FRAMEWORK refnet"),
        (["torch", "resnest-digits", "--python", sys.executable], "torch cannot run"),
        (["torch", "a.b:c", "--python", "/no/python"], "no such file"),
        (["torch", "a.b:c", "--option", "[1]", "--python", sys.executable], "JSON object"),
        (["torch", "a.b:c", "--argument", "{", "--python", sys.executable], "not JSON"),
        (
            ["mxnet", "octave-se-resnet-digits", "--environment", "A", "--python", sys.executable],
            "NAME=VALUE",
        ),
        (["mxnet", "resnest-digits", "--python", sys.executable], "not defined in MXNet"),
        (["folder", "/no/such/folder"], "not a folder"),
    ],
)
def test_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str | None
) -> None:
    command = ["capture", *arguments, "-o", str(tmp_path / "c")]
    if message is None:
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 2
    else:
        assert main(command) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    assert os.listdir(tmp_path) == []
