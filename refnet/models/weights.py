"""Where weights, captures and books lie: what comes with refnet, and the files that were fetched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from refnet.core.errors import InputError

if TYPE_CHECKING:
    from refnet.models.catalog import Entry

SMALL = ("octave-se-resnet-digits", "resnest-digits")
"""Networks whose shipped captures have every value; of the others there are hashes."""


def weights_folder() -> Path:
    """Where fetched files are kept: REFNET_WEIGHTS, or `refnet/weights` in the user's cache folder.

    Raises InputError where there is no home folder, and REFNET_WEIGHTS names none or begins with ~.
    """
    if chosen := os.environ.get("REFNET_WEIGHTS"):
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise InputError(f"REFNET_WEIGHTS is {chosen!r}: {error}") from None
    import platformdirs

    folder = platformdirs.user_cache_path("refnet") / "weights"
    if not folder.is_absolute():  # ./~/.cache
        raise InputError("there is no home folder for fetched files: name one with REFNET_WEIGHTS")
    return folder


def shipped_folder() -> Path:
    """The folder of the weights that come with refnet: in the installed package, else in the repository.

    Raises InputError if neither is there.
    """
    package = Path(__file__).parents[1]
    candidates = (package / "_weights", package.parent / "weights")
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise InputError(
        f"the weights that come with refnet are missing: looked in {', '.join(map(str, candidates))}"
    )


def shipped_captures(full: bool = False) -> list[tuple[Path, Path]]:
    """(capture's folder, its book) of each capture that comes with refnet; full: of the large networks, too.

    Raises InputError if they are missing.
    """
    folder = shipped_folder()
    found = sorted((folder / "captures").glob("*/manifest.json"))
    chosen = [path.parent for path in found if full or path.parent.name in SMALL]
    if not chosen:
        raise InputError(f"the captures that come with refnet are missing: looked in {folder / 'captures'}")
    return [(path, folder / "books" / f"{path.name}.json") for path in chosen]


def located(entry: Entry, folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Path of the entry's (first) official file if all its files are there with their sizes, else None.

    folder: where to look, default `weights_folder()`. Checksums are compared by `fetch`, not here.
    """
    target = weights_folder() if folder is None else Path(folder)
    paths = [target / file.name for file in entry.files]
    for path, file in zip(paths, entry.files, strict=True):
        if not os.path.isfile(path) or (file.bytes is not None and os.path.getsize(path) != file.bytes):
            return None
    return paths[0] if paths else None
