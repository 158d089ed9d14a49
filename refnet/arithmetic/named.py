"""The arithmetic that a user names: plain, golden or replay:BOOK."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from refnet.arithmetic.engines import default_kernels
from refnet.core.errors import InputError
from refnet.core.words import did_you_mean

if TYPE_CHECKING:
    from refnet.core.interpreter import Arithmetic

REPLAY = "replay:"


def arithmetic(text: str, threads: int | None = None, kernels: str | None = None) -> Arithmetic:
    """The arithmetic of that name. threads: how many compute; no bit depends on it.

    kernels: "fast" or "reference", with the same bits; None: `default_kernels()`. Golden has only fast ones.
    Raises InputError for another name or a book that cannot be read, FormatError if the file is not a book.

    >>> arithmetic("golden").name
    'golden'
    >>> arithmetic("exact")
    Traceback (most recent call last):
    refnet.core.errors.InputError: arithmetic must be plain, golden or replay:BOOK, got 'exact'
    """
    kernels = default_kernels() if kernels is None else kernels
    if text == "plain":
        from refnet.arithmetic.plain import Plain

        return Plain(threads, kernels)
    if text == "golden":
        from refnet.arithmetic.golden import Golden

        if kernels != "fast":
            raise InputError("golden is computed with the fast kernels only")
        return Golden(threads)
    if text.startswith(REPLAY) and len(text) > len(REPLAY):
        from refnet.arithmetic.replay import Replay
        from refnet.formats.book import read

        return Replay(read(text.removeprefix(REPLAY)), threads, kernels)
    hint = did_you_mean(text, ("plain", "golden", "replay"))
    raise InputError(f"arithmetic must be plain, golden or replay:BOOK, got {text!r}{hint}")


def holds_books(text: str) -> bool:
    """Whether a name means a folder with a book for each network."""
    return text.startswith(REPLAY) and os.path.isdir(text.removeprefix(REPLAY))


def of_network(text: str, network: str) -> str:
    """The name for one network: of replay:FOLDER its book in the folder, NETWORK.json; others as they are.

    Raises InputError if the folder has no such book.

    >>> of_network("golden", "resnest-digits")
    'golden'
    >>> of_network("replay:weights/books", "resnest-digits")
    'replay:weights/books/resnest-digits.json'
    """
    if not holds_books(text):
        return text
    book = f"{text}/{os.path.basename(network)}.json"
    if not os.path.isfile(book.removeprefix(REPLAY)):
        raise InputError(f"--arithmetic {text}: the folder has no book {os.path.basename(book)}")
    return book


def absolute(text: str) -> str:
    """The same name for a process in another folder: the book's path is absolute.

    >>> absolute("plain")
    'plain'
    """
    return REPLAY + os.path.abspath(text.removeprefix(REPLAY)) if text.startswith(REPLAY) else text
