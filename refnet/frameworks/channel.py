"""The worker's end of the protocol: runs in the framework's interpreter, needs NumPy and Python >= 3.10.

    python channel.py WORKER_FILE FOLDER

WORKER_FILE defines `COMMANDS`: name -> function(request, arrays, emit) that returns (fields, arrays).
`emit(name, array)` sends one value on the way and returns once the other side has read it, so only one
value exists at a time. Lines are JSON; arrays lie as .npy files in FOLDER and are named in the lines:

    ->  {"id": 1, "command": "run", "request": {...}, "arrays": {"data": "in-0.npy"}}
    <-  {"id": 1, "value": "conv1", "array": "out-0.npy"}        once per value, then waits for
    ->  {"id": 1, "next": true}                                  (or false: no further values wanted)
    <-  {"id": 1, "fields": {...}, "arrays": {"y": "out-1.npy"}}   or {"id": 1, "error": "..."}

The real standard output is kept for answers; whatever the framework prints goes to standard error. A thread
reads the requests, so the process ends as soon as the other side is gone, whatever it is computing. What is
no request ends it, too, with the reason on standard error.
"""

from __future__ import annotations

import json
import os
import queue
import runpy
import sys
import threading
from typing import Any, TextIO


class Channel:
    """Reads requests, calls commands, writes answers. One request at a time."""

    def __init__(self, requests: TextIO, answers: TextIO, folder: str) -> None:
        self.requests, self.answers, self.folder = requests, answers, folder
        self.lines: queue.Queue[str] = queue.Queue()
        self.count = 0
        self.id = 0
        self.wanted = True

    def receive(self, *keys: str) -> dict[str, Any]:
        """The next message, which has these keys; ends the process for anything else."""
        line = self.lines.get()
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or any(key not in message for key in keys):
            sys.exit(f"refnet's worker: {line[:200]!r} is no message with {', '.join(keys)}")
        return message

    def listen(self) -> None:
        """Read the requests. At their end, which the system makes however the other side ends, so do we."""
        try:
            for line in self.requests:
                self.lines.put(line)
        finally:
            os._exit(0)

    def send(self, message: dict[str, Any]) -> None:
        """Write one line."""
        text = json.dumps(message, allow_nan=False) + "\n"
        try:
            self.answers.write(text)
            self.answers.flush()
        except OSError:  # the other side is gone
            os._exit(0)

    def store(self, array: Any) -> str:
        """Write an array to the folder; returns its file name."""
        import numpy as np

        name = f"out-{self.count}.npy"
        self.count += 1
        with open(os.path.join(self.folder, name), "xb") as file:
            np.save(file, np.asarray(array, order="C"), allow_pickle=False)
        return name

    def emit(self, name: str, array: Any) -> None:
        """Send one value and wait until it is read."""
        if self.wanted:
            self.send({"id": self.id, "value": name, "array": self.store(array)})
            self.wanted = bool(self.receive("id", "next")["next"])

    def serve(self, commands: dict[str, Any]) -> None:
        """Answer requests until the other side closes."""
        import numpy as np

        threading.Thread(target=self.listen, daemon=True).start()
        self.send({"id": 0, "fields": {"commands": sorted(commands)}, "arrays": {}})
        while True:
            message = self.receive("id", "command", "request", "arrays")
            self.id, self.wanted = message["id"], True
            try:
                arrays = {
                    name: np.load(os.path.join(self.folder, file), allow_pickle=False)
                    for name, file in message["arrays"].items()
                }
                fields, results = commands[message["command"]](message["request"], arrays, self.emit)
                stored = {name: self.store(array) for name, array in results.items()}
                answer = {"id": self.id, "fields": fields, "arrays": stored}
            except Exception as error:
                answer = {"id": self.id, "error": f"{type(error).__name__}: {error}"[:4000]}
            self.send(answer)


def main() -> None:
    """Serve the worker file named on the command line."""
    if len(sys.argv) != 3:
        sys.exit("refnet's worker: refnet starts this file itself: channel.py WORKER_FILE FOLDER")
    worker, folder = sys.argv[1:]
    sys.path[:] = [p for p in sys.path if os.path.abspath(p) != os.path.dirname(os.path.abspath(__file__))]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    silence = os.open(os.devnull, os.O_RDONLY)
    os.dup2(silence, 0)
    os.close(silence)
    commands = runpy.run_path(worker).get("COMMANDS")
    if not isinstance(commands, dict):
        sys.exit(f"refnet's worker: {worker} defines no COMMANDS")
    Channel(requests, answers, folder).serve(commands)


if __name__ == "__main__":
    main()
