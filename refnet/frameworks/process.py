"""One process per framework: start it, ask it, read its values one at a time, and never wait for ever.

    Worker ── starts ── python channel.py torch_worker.py FOLDER
      ask(command, ...)     -> Answer                     one request, one answer
      stream(command, ...)  -> (name, array), ...         a request that makes many values

refnet imports no framework into itself. The interpreter may be another one with another NumPy; requests
and answers are JSON lines (channel.py has the protocol), arrays are .npy files in a temporary folder,
never pickles. A worker that dies, hangs or answers nonsense ends in a FrameworkError with its last words.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FrameworkError, InputError
from refnet.core.words import quoted
from refnet.formats.write import fresh_file

Array = npt.NDArray[Any]
T = TypeVar("T")

LINE = 1 << 24
"""Longest answer line that is read, in bytes."""
WORDS = 20
"""How many of a worker's last lines on standard error an error message quotes."""


@dataclass(frozen=True)
class Answer:
    """What a worker answered: JSON fields, and arrays by name. worker: its name, for errors."""

    fields: Mapping[str, Any]
    arrays: Mapping[str, Array]
    worker: str = "the worker"

    def field(self, name: str, kind: type[T]) -> T:
        """A field that must be there, of this type. Raises FrameworkError for any other answer."""
        found = self.fields.get(name)
        if not isinstance(found, kind):
            said = "nothing" if found is None else quoted(repr(found))
            raise FrameworkError(f"{self.worker}: answered {said} as {name!r}, expected a {kind.__name__}")
        return found

    def array(self, name: str) -> Array:
        """An array that must be there. Raises FrameworkError if it is not."""
        if name not in self.arrays:
            raise FrameworkError(f"{self.worker}: answered without the array {name!r}")
        return self.arrays[name]


class Serves(Protocol):
    """What answers requests as a Worker does."""

    def ask(
        self,
        command: str,
        request: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> Answer:
        """One request, one answer."""

    def stream(
        self,
        command: str,
        request: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> Generator[tuple[str, Array], None, Answer | None]:
        """A request that makes many values."""


class Worker:
    """A running interpreter that serves the commands of one worker file.

    worker: "torch", "mxnet", or the path of a file that defines COMMANDS (see channel.py).
    python: path of the interpreter that has the framework. threads: how many the framework may use
    (sets OMP_NUM_THREADS, MKL_NUM_THREADS and OPENBLAS_NUM_THREADS). environment: further variables,
    for example {"MXNET_SUBGRAPH_BACKEND": "NONE"}; PYTHONPATH and PYTHONHOME are not inherited.
    timeout: seconds that any answer, or any single value of a stream, may take.

    Use it in a `with`, or call close(); it is killed when refnet exits in any case.
    Raises InputError for an unusable argument and FrameworkError if the worker does not come up.

    >>> import sys
    >>> with Worker("torch", sys.executable, threads=1) as worker:
    ...     worker.commands
    ('alone', 'build', 'export', 'info', 'load', 'op', 'probe', 'run', 'run_exported', 'save', 'time')
    """

    def __init__(
        self,
        worker: str | os.PathLike[str],
        python: str | os.PathLike[str],
        *,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
        timeout: float = 600.0,
    ) -> None:
        here = Path(__file__).parent
        file = here / f"{worker}_worker.py" if worker in ("torch", "mxnet") else Path(worker)
        if not file.is_file():
            raise InputError(f"worker must be 'torch', 'mxnet' or a file, got {os.fspath(worker)!r}")
        if threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}")
        self.name, self.timeout = os.fspath(worker), timeout
        self._id = self._count = 0
        self._busy = False
        self._folder = Path(tempfile.mkdtemp(prefix="refnet-"))
        # The path as given: a virtual environment's python is a link that must not be resolved.
        command = [os.path.abspath(python), str(here / "channel.py"), str(file.resolve()), str(self._folder)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(threads, environment or {}),
                cwd=self._folder,
                start_new_session=True,  # so that it can be killed together with what it starts
            )
        except (OSError, ValueError) as error:  # ValueError: a null byte in a path or a variable
            shutil.rmtree(self._folder, ignore_errors=True)
            raise FrameworkError(f"{self.name}: cannot start {os.fspath(python)!r}: {error}") from None
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._words: deque[str] = deque(maxlen=WORDS)
        assert self._process.stdout
        assert self._process.stderr
        out = threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True)
        err = threading.Thread(target=_listen, args=(self._process.stderr, self._words), daemon=True)
        out.start()
        err.start()
        self._end = weakref.finalize(self, _end, self._process, self._folder, (out, err))
        self.commands = self._greeting(time.monotonic() + timeout)

    def ask(
        self,
        command: str,
        request: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> Answer:
        """Send one request and wait for its answer; values that it makes on the way are dropped.

        request: anything JSON can say. arrays: name -> array, handed over as .npy files.
        Raises FrameworkError with the framework's message if the command fails (the worker lives on),
        or with its last words if it died, hung or answered nonsense (it is closed then).
        """
        deadline = self._send(command, request or {}, arrays or {})
        while "value" in (message := self._receive(deadline)):
            self._array(message.get("array"))
            self._write({"id": self._id, "next": False})
        return self._answer(message)

    def stream(
        self,
        command: str,
        request: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> Generator[tuple[str, Array], None, Answer | None]:
        """Send one request and yield (name, array) for each value it makes, in the order of execution.

        The generator's own value (`answer = yield from worker.stream(...)`) is the answer at the end.

        Only one value exists at a time: the worker waits until it is taken. Leaving the loop early
        tells the worker to send no more. Raises as `ask` does, at the value where it happens.
        """
        deadline = self._send(command, request or {}, arrays or {})
        wanted = True
        try:
            while "value" in (message := self._receive(deadline)):
                name, array = message["value"], self._array(message.get("array"))
                if not isinstance(name, str):
                    raise self._nonsense(f"a value named {quoted(name)}")
                if wanted:
                    try:
                        yield name, array
                    except GeneratorExit:
                        wanted = False
                del array
                self._write({"id": self._id, "next": wanted})
                deadline = time.monotonic() + self.timeout
            return self._answer(message)
        except FrameworkError:
            if wanted:
                raise
            return None

    def close(self) -> None:
        """Kill the worker and remove its folder. May be called again."""
        self._end()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The protocol.

    def _greeting(self, deadline: float) -> tuple[str, ...]:
        """The names of its commands, which a worker says first."""
        ready = self._receive(deadline)
        fields = ready.get("fields")
        names = fields.get("commands") if isinstance(fields, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._nonsense(f"{quoted(json.dumps(ready))}, expected the names of its commands")
        return tuple(names)

    def _send(self, command: str, request: Mapping[str, Any], arrays: Mapping[str, Array]) -> float:
        if not self._end.alive:
            raise FrameworkError(f"{self.name}: the worker is closed")
        if self._busy:
            raise FrameworkError(f"{self.name}: a stream is still being read")
        if command not in self.commands:
            raise InputError(f"{self.name} has no command {command!r}; it has {', '.join(self.commands)}")
        files = {}
        for name, array in arrays.items():
            if array.dtype.hasobject:
                raise InputError(f"{self.name}: array {name!r} holds objects")
            files[name] = f"in-{self._count}.npy"
            self._count += 1
            with fresh_file(self._folder / files[name]) as stream:
                np.save(stream, array, allow_pickle=False)
        self._id += 1
        self._sent = tuple(files.values())
        self._busy = True
        self._write({"id": self._id, "command": command, "request": dict(request), "arrays": files})
        return time.monotonic() + self.timeout

    def _write(self, message: Mapping[str, Any]) -> None:
        try:
            line = json.dumps(message, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            self._busy = False
            raise InputError(f"{self.name}: the request is not JSON: {error}") from None
        assert self._process.stdin
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError):  # ValueError: closed meanwhile
            raise self._died() from None

    def _receive(self, deadline: float) -> dict[str, Any]:
        try:
            left = max(0.0, deadline - time.monotonic())
            line = self._lines.get(timeout=min(left, threading.TIMEOUT_MAX))
        except queue.Empty:
            raise self._fail(f"did not answer within {self.timeout:g} s") from None
        if not line:
            raise self._died()
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or message.get("id") != self._id:
            raise self._nonsense(repr(line[:200]))
        return message

    def _answer(self, message: Mapping[str, Any]) -> Answer:
        self._busy = False
        for name in self._sent:
            (self._folder / name).unlink(missing_ok=True)
        if "error" in message:
            raise FrameworkError(f"{self.name}: {str(message['error'])[:4000]}")
        fields, files = message.get("fields"), message.get("arrays")
        if not isinstance(fields, dict) or not isinstance(files, dict):
            raise self._nonsense(f"an answer with {sorted(message)}")
        return Answer(fields, {name: self._array(file) for name, file in files.items()}, self.name)

    def _array(self, file: object) -> Array:
        """Read an array that the worker wrote, and delete its file."""
        if not isinstance(file, str) or not re.fullmatch(r"out-\d+\.npy", file):
            raise self._nonsense(f"the array file {quoted(file)}")
        path = self._folder / file
        try:
            array = _load(path)
            path.unlink()
        except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
            raise self._nonsense(f"an unreadable array: {error}") from None
        return array

    def _died(self) -> FrameworkError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.poll()
        how = "closed its output" if code is None else f"ended with exit status {code}"
        return self._fail(how)

    def _nonsense(self, what: str) -> FrameworkError:
        return self._fail(f"answered nonsense: {what}")

    def _fail(self, what: str) -> FrameworkError:
        """Close the worker; the error quotes the last lines it wrote on standard error."""
        self.close()
        words = "".join(f"\n  {line}" for line in self._words)
        return FrameworkError(
            f"{self.name}: the worker {what}" + (f"; its last words:{words}" if words else "")
        )


def _load(path: Path) -> Array:
    """Read a .npy file of numbers, whose size is compared with its header before memory is taken."""
    with open(path, "rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("the .npy format is not version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        size = os.fstat(file.fileno()).st_size - file.tell()
        if dtype.hasobject or dtype.itemsize == 0:
            raise ValueError(f"elements of type {dtype}")
        if min(shape, default=0) < 0 or size != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{size} bytes for {dtype} {shape}")
        flat: Array = np.fromfile(file, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _environment(threads: int, more: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return {**kept, **counts, **more}


def _read(pipe: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Queue the lines of a pipe, then b""; stops where nobody can want so many."""
    with contextlib.suppress(OSError, ValueError):
        while lines.qsize() < 100 and (line := pipe.readline(LINE)):
            lines.put(line)
    lines.put(b"")


def _listen(pipe: IO[bytes], words: deque[str]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while line := pipe.readline(1000):
            words.append(line.decode(errors="replace").rstrip())


def _end(process: subprocess.Popen[bytes], folder: Path, readers: tuple[threading.Thread, ...]) -> None:
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    if process.stdin:
        with contextlib.suppress(OSError):
            process.stdin.close()
    for reader, pipe in zip(readers, (process.stdout, process.stderr), strict=True):
        reader.join(1)
        if pipe and not reader.is_alive():  # closing a pipe that is being read would wait for its reader
            pipe.close()
    shutil.rmtree(folder, ignore_errors=True)
