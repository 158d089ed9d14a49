"""refnet learn: write and open the learners' page."""

from __future__ import annotations

import argparse
import os
import webbrowser
from pathlib import Path

TEXT = "open a page that runs both digits networks in the browser, bit by bit"

EXAMPLES = """\
examples:
  refnet learn                               writes refnet-learn.html here and opens it
  refnet learn --output page.html --no-open  only writes it

The page is one file. It loads nothing and sends nothing, so it can be read offline and served by any static
host. It computes every value of both shipped networks with refnet's bits.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        *("-o", "--output"),
        metavar="FILE",
        default="refnet-learn.html",
        help="the file (default: refnet-learn.html)",
    )
    parser.add_argument("--no-open", action="store_true", help="do not open it in the browser")


def run(a: argparse.Namespace) -> int | None:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.learn.page import write
    from refnet.report.terminal import clean, show

    write(a.output)
    path = Path(os.path.abspath(a.output))
    opened = not a.no_open and webbrowser.open(path.as_uri())
    show(clean(f"wrote {a.output}" + ("" if opened or a.no_open else "; no browser could be opened")))
    return None
