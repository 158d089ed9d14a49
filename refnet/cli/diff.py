"""refnet diff: two captures, value by value."""

from __future__ import annotations

import argparse
from pathlib import Path

import refnet
from refnet.cli.common import FAILED, json_argument, print_json, progress_bar
from refnet.core.errors import RefnetError

TEXT = "compare two captures bit by bit"

EXAMPLES = """\
examples:
  refnet diff torch-1-thread torch-2-threads
  refnet diff DIR hardware-dump --json

A and B are captures, or folders of .npy files named after the values, from any source. No network is needed.
Bits are compared; nothing is judged. Exit code 0: equal; 1: different, or values that only one of them has;
2: they could not be compared. `refnet verify` says what a difference means.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("a", type=Path, metavar="A", help="a folder with values")
    parser.add_argument("b", type=Path, metavar="B", help="another one")
    parser.add_argument("--all", action="store_true", help="list equal values too")
    json_argument(parser)


def run(a: argparse.Namespace) -> int:
    """Do what the arguments say; the exit code."""
    from refnet.report.verify import show_diff

    try:
        with progress_bar("values") as progress:
            found = refnet.diff(a.a, a.b, progress)
    except (RefnetError, BrokenPipeError):
        raise
    except Exception:  # a bug must not end with 1, which says that values differ
        import traceback

        traceback.print_exc()
        return FAILED
    if a.json:
        print_json(found.record())
    else:
        show_diff(found, str(a.a), str(a.b), a.all)
    return found.exit_code
