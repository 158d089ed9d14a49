"""refnet fetch: download a network's official file and check it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


TEXT = "download a network's official file and check it"

EXAMPLES = """\
examples:
  refnet fetch octave-se-resnet-50-0.125           into the folder that REFNET_WEIGHTS names
  refnet fetch resnest-50-pytorch --folder .

Run again, an interrupted download continues where it stopped. The file gets its final name only after its
checksum was verified. Where the source publishes only the first 8 digits of the sha256, only these are
checked, and fetch says so.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="name, see `refnet models`")
    text = "the folder to download into (default: REFNET_WEIGHTS)"
    parser.add_argument("--folder", type=Path, metavar="DIR", help=text)
    parser.add_argument("--unpack", action="store_true", help="also unpack the archive, next to it")


def run(a: argparse.Namespace) -> None:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.models.catalog import entry
    from refnet.models.fetch import fetch
    from refnet.models.unpack import unpack
    from refnet.report.terminal import clean, show

    one = entry(a.model)
    with _downloading() as progress:
        path = fetch(one, a.folder, progress)
    show(clean(path))
    for file in one.files:
        if note := file.partly_checked:
            print(f"refnet: {file.name}: {note}", file=sys.stderr)
    if a.unpack:
        for member in unpack(path, path.with_suffix("")):
            show(clean(member))


@contextmanager
def _downloading() -> Iterator[Callable[[str, int, int | None], object] | None]:
    """A progress bar of bytes per file on standard error if it is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def update(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield update
