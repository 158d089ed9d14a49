"""The second process of `second.py`: it warms up a command, and ends with the process that started it."""

from __future__ import annotations

import os
import sys
import threading

from refnet.cli import parse


def _end_with_parent() -> None:
    """Wait until the pipe from the first process closes; the system closes it however that process ends."""
    os.read(0, 1)
    os._exit(0)


def main() -> None:
    """Warm up the command that the arguments say."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    arguments = parse(sys.argv[1:])
    if arguments is not None:
        arguments.warm_up(arguments)


if __name__ == "__main__":
    main()
