"""torch in this process, for a module object that exists nowhere else: a Worker's commands without a process.

    Here(module) ── ask, stream ── the functions of torch_worker.py, on the module itself

refnet imports no torch: whoever has a module has it imported, and torch_worker.py uses it. What a worker does
not return from, this process does not, either.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FrameworkError
from refnet.frameworks import torch_worker
from refnet.frameworks.process import Answer

Array = npt.NDArray[Any]
NAME = "torch"


class Here:
    """A module's own process, as a Worker (process.py) answers for one.

    While it is entered, the module is in evaluation mode. Afterwards each of its parts is in its own mode
    again, and torch has its number of threads.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.modes = [(part, part.training) for part in module.modules()]
        self.threads = self.ask("info").field("threads", int)

    def __enter__(self) -> Here:
        self.module.eval()
        torch_worker.KEPT["module"] = self.module
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch_worker.KEPT.clear()
        self.ask("info", {"threads": self.threads})
        for part, mode in self.modes:
            part.training = mode

    def ask(
        self,
        command: str,
        request: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> Answer:
        """One request, one answer; values that it makes on the way are dropped."""
        return self._answer(command, request or {}, arrays or {}, lambda name, array: None)

    def stream(
        self,
        command: str,
        request: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> Generator[tuple[str, Array], None, Answer | None]:
        """A request that makes many values: torch waits in a thread of its own until each is taken."""
        made: queue.Queue[tuple[str, Array] | Answer | BaseException] = queue.Queue()
        taken = threading.Semaphore(0)
        wanted = True

        def emit(name: str, array: Array) -> None:
            if wanted:
                made.put((name, array))
                taken.acquire()

        def work() -> None:
            try:
                made.put(self._answer(command, request or {}, arrays or {}, emit))
            except BaseException as error:  # it is raised where the values are read
                made.put(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while isinstance(found := made.get(), tuple):
                yield found
                taken.release()
        finally:
            wanted = False
            taken.release()
            thread.join()
        if isinstance(found, BaseException):
            raise found
        return found

    def _answer(
        self, command: str, request: Mapping[str, Any], arrays: Mapping[str, Array], emit: Any
    ) -> Answer:
        """What the command returns. Raises FrameworkError with torch's message if it fails."""
        try:
            owned = {name: np.array(array) for name, array in arrays.items()}
            fields, results = torch_worker.COMMANDS[command](request, owned, emit)
        except Exception as error:
            raise FrameworkError(f"{NAME}: {type(error).__name__}: {error}"[:4000]) from error
        return Answer(fields, {name: np.array(array) for name, array in results.items()}, NAME)
