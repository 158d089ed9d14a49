"""What a user sees and waits for while kernels are compiled: what is said, and the second process."""

from __future__ import annotations

import ast
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from numba.core import event
from rich.progress import Progress

import refnet
from refnet.cli import second
from refnet.cli.common import counting
from refnet.cli.second import second_compiler
from refnet.models.weights import shipped_captures

SAID = "refnet: compiling kernels"
LINUX = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")

COUNT = """
import sys
from refnet.loops.jit import watching
from refnet.cli import main
counts = [0]
with watching(lambda begun, done: counts.__setitem__(0, begun)):
    code = main(sys.argv[1:])
print("compiled", counts[0], "exit", code)
"""


def verify(cache: Path, *argv: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "REFNET_CACHE": str(cache)}
    environment.pop("REFNET_QUIET", None)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", COUNT, *argv], env=environment, **pipes)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(one) for one in found.read_text().split()] if found.exists() else []


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(condition, seconds: float = 120.0):
    """What the condition says as soon as it is true of something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come about")


def small() -> list[str]:
    """A command that compiles a dozen kernels: one node of a shipped capture."""
    folder, _ = shipped_captures(full=False)[-1]
    graph = refnet.load("resnest-digits")
    pool = next(node.name for node in graph.nodes if type(node.op).__name__ == "GlobalAvgPool")
    return ["verify", str(folder), "--only", pool]


def test_two_processes_with_one_empty_cache_and_then_a_warm_one(tmp_path):
    """Both are right; together they compile what one would, but for what both begin in the same instant; both
    say so. What comes after them compiles nothing, and says nothing."""
    both = [verify(tmp_path, *small()) for _ in range(2)]
    ends = [process.communicate(timeout=600) for process in both]
    counts = [re.search(r"compiled (\d+) exit (\d+)", out) for out, _ in ends]
    assert all(count and count[2] == "0" for count in counts), ends
    assert sum(int(count[1]) for count in counts) > 0
    for (_, err), count in zip(ends, counts, strict=True):
        assert (SAID in err) == (int(count[1]) > 0)
        assert err.count(SAID) <= 1
    out, err = verify(tmp_path, *small()).communicate(timeout=600)
    assert "compiled 0 exit 0" in out
    assert err == ""


@LINUX
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_second_process_ends_with_the_first(tmp_path, how):
    """However the first one ends; here the second one is in the middle of compiling."""
    folder, book = shipped_captures(full=False)[-1]
    first = verify(tmp_path, "verify", str(folder), "--book", str(book))
    helper = eventually(lambda: children(first.pid))[0]
    words = Path(f"/proc/{helper}/cmdline")
    eventually(lambda: b"refnet.cli.second_process" in words.read_bytes())  # it has become another program
    first.send_signal(how)
    first.communicate(timeout=120)
    eventually(lambda: not alive(helper), 30)


class Kernels:
    """Compilations that are only said to happen."""

    def __init__(self, monkeypatch, processors: int) -> None:
        self.called, self.started = None, []
        monkeypatch.setattr("refnet.kernels.resources.processors", lambda: processors)
        monkeypatch.setattr(second, "_start", self._start)

    def _start(self, argv):
        self.started.append(argv)
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def compile(self, count: int) -> None:
        for _ in range(count):
            with event.trigger_event("numba:compile"):
                pass


@pytest.mark.parametrize(
    ("processors", "count", "started"),
    [(2, 0, 0), (2, second.FROM - 1, 0), (2, second.FROM + 9, 1), (1, 9, 0)],
)
def test_the_second_process_is_started_when_it_pays(monkeypatch, processors, count, started):
    monkeypatch.setenv("REFNET_QUIET", "1")
    kernels = Kernels(monkeypatch, processors)
    with second_compiler(["verify"]):
        kernels.compile(count)
    assert len(kernels.started) == started
    kernels.compile(9)  # outside of it
    assert len(kernels.started) == started


def test_a_second_process_that_cannot_be_started_is_done_without(monkeypatch):
    monkeypatch.setenv("REFNET_QUIET", "1")
    kernels = Kernels(monkeypatch, 2)

    def fails(argv):
        raise OSError("no more processes")

    monkeypatch.setattr(second, "_start", fails)
    with second_compiler(["verify"]):
        kernels.compile(9)


def test_the_second_process_imports_nothing_of_the_current_folder(tmp_path, monkeypatch):
    """Neither a clone of refnet, whose kernels nobody could share, nor whatever else has a module's name."""
    for name in ("refnet/__init__.py", "numpy.py", "argparse.py", "numba.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})")
    monkeypatch.chdir(tmp_path)
    process = second._start(["--version"])
    assert process.wait(120) == 0
    process.communicate()
    assert not (tmp_path / "imported").exists()


def test_an_error_in_the_second_process_is_ignored(tmp_path):
    """Its arguments are no command's: it ends, says nothing to the user, and nobody waits for it."""
    process = second._start(["verify", str(tmp_path)])
    assert process.wait(120) != 0
    assert process.communicate() == (None, None)


WARM = """
import sys
import refnet
from refnet.loops.parts import Kernel
from refnet.arithmetic.replay import Replay
from refnet.formats.book import read
from refnet.models.weights import shipped_captures
from refnet.verification.capture import open_capture
from refnet.verification.verify import verify_values
from refnet.verification.warm_up import warm_up

def versions():
    modules = [module for name, module in sys.modules.items() if name.startswith("refnet.")]
    kernels = {f for module in modules for f in vars(module).values() if isinstance(f, Kernel)}
    return {(f.__name__, str(types)) for f in kernels for types in f.signatures}

folder, book = next(one for one in shipped_captures() if sys.argv[1] in one[0].name)
graph, replay = refnet.load(sys.argv[1]), Replay(read(book), 1)
warm_up(graph, replay)
warm = versions()
assert verify_values(graph, open_capture(folder), replay=replay).exit_code == 0
print(len(warm) > 20, sorted({name for name, _ in versions() - warm}))
"""

GOLDEN = {"_decide", "_decide_affine", "_open", "_exponential", "exp"}
"""What finds the values of which a capture has only the hash. It compiles in a second."""


@pytest.mark.parametrize("model", ["octave-se-resnet-digits", "resnest-digits"])
def test_warming_up_calls_the_kernels_that_verify_calls(model):
    """With the same types: the work on zeros leaves `verify` nothing to compile but golden's."""
    done = subprocess.run([sys.executable, "-c", WARM, model], capture_output=True, text=True, check=True)
    much, left = done.stdout.strip().split(" ", 1)
    assert much == "True"
    assert set(ast.literal_eval(left)) <= GOLDEN


def test_the_bar_counts_kernels_and_knows_no_time_left(monkeypatch):
    """Before anything is compiled it has a time that is left, from then on the time that has passed."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("REFNET_QUIET", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = []
    update = Progress.update

    def noted(self, task, **fields):
        update(self, task, **fields)
        shown.append(([type(column).__name__ for column in self.columns], self.tasks[0].description))

    monkeypatch.setattr(Progress, "update", noted)
    kernels = Kernels(monkeypatch, 1)
    with counting("nodes", 3, compiling=True) as advance:
        advance(1)
        kernels.compile(2)
        advance(1)
    columns, texts = zip(*shown, strict=True)
    assert texts[0] == "nodes"
    assert texts[1:-1] == tuple(f"nodes (compiling kernels: {done} done)" for done in (0, 1, 1, 2))
    assert texts[-1] == "nodes"
    assert "TimeRemainingColumn" in columns[0]
    assert all("TimeRemainingColumn" not in some and "TimeElapsedColumn" in some for some in columns[1:])
