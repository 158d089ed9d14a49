"""Everything refnet raises on purpose.

    RefnetError                  anything that a user can cause and fix
    ├── FormatError              a file is not what it should be (file, byte offset, found, expected)
    ├── UnsupportedError         a file is sound, but needs something that refnet does not have
    ├── GraphError               a graph contradicts itself (names, shapes, order)
    ├── WeightsError             weights do not fit their graph (missing, surplus, wrong shape)
    ├── InputError               an argument or an input array is not usable
    ├── FetchError               a download failed or its checksum is wrong
    └── FrameworkError           a framework's process died, hung or answered nonsense

The command line prints the message of a RefnetError and exits with 2; any other exception is a bug in refnet.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: object, known: Iterable[str], otherwise: str = "") -> str:
    """What an error adds about a name that there is not: the closest names, or `otherwise` if none is close.

    >>> did_you_mean("Layer1.conv", ["layer1.conv1", "layer3.0.conv1", "fc"])
    '; did you mean layer1.conv1 or layer3.0.conv1?'
    >>> did_you_mean("x", ["layer1.conv1"], " among its 1")
    ' among its 1'
    """
    said = str(word)[:200].casefold()
    folded = {name[:200].casefold(): name for name in known}
    near = get_close_matches(said, folded, 3, 0.6)
    if not near and len(said) > 2:
        near = [one for one in folded if said in one][:3]
    return f"; did you mean {' or '.join(folded[one] for one in near)}?" if near else otherwise


class RefnetError(Exception):
    """Base of all errors that refnet raises on purpose.

    >>> import refnet
    >>> try:
    ...     refnet.load("no-such-network")
    ... except refnet.RefnetError as error:
    ...     print(type(error).__name__)
    InputError
    """


class FormatError(RefnetError):
    """A file cannot be read: names the file, the byte offset, what was found and what was expected.

    >>> str(FormatError("a.params", 24, "array magic 0x0", "0xF993FAC9 (V2)"))
    'a.params: at byte 24: found array magic 0x0, expected 0xF993FAC9 (V2)'
    """

    def __init__(
        self, file: str | os.PathLike[str], offset: int | None, found: str, expected: str = ""
    ) -> None:
        self.file, self.offset, self.found, self.expected = os.fspath(file), offset, found, expected
        where = "" if offset is None else f" at byte {offset}:"
        super().__init__(
            f"{self.file}:{where} found {found}" + (f", expected {expected}" if expected else "")
        )


QUOTED = 200
"""Characters of a name that a message quotes: names come from files, and may be as long as these."""


def quoted(name: object) -> str:
    """A name from a file, as a message quotes it: its repr, of at most QUOTED characters.

    >>> quoted("conv1"), len(quoted("x" * 10**6))
    ("'conv1'", 226)
    """
    text = str(name)
    return repr(text) if len(text) <= QUOTED else f"{text[:QUOTED]!r}... ({len(text)} characters)"


def brief(name: object) -> str:
    """As `quoted`, without the quotation marks where the name is printable.

    >>> print(brief("conv1"), brief(chr(27)))
    conv1 '\\x1b'
    """
    text = str(name)
    return text if len(text) <= QUOTED and text.isprintable() else quoted(text)


class UnsupportedError(RefnetError):
    """A sound file needs something that refnet does not have (an op, a storage type, a dtype).

    >>> str(UnsupportedError("net.onnx: no operator LSTM"))
    'net.onnx: no operator LSTM'
    """


class GraphError(RefnetError):
    """A graph contradicts itself.

    >>> import refnet
    >>> from refnet.ops import Relu
    >>> node = refnet.Node("r", Relu(), ("nowhere",))
    >>> refnet.Graph("g", {"data": refnet.TensorType((1, 2))}, (node,), {"out": "r"})
    Traceback (most recent call last):
    refnet.core.errors.GraphError: g: r reads 'nowhere', which nothing makes before it
    """


class WeightsError(RefnetError):
    """Weights do not fit the graph.

    >>> import refnet
    >>> refnet.load("resnest-digits").with_weights({})
    Traceback (most recent call last):
    refnet.core.errors.WeightsError: ...
    """


class InputError(RefnetError):
    """An argument or an input array is not usable.

    >>> import refnet
    >>> refnet.Plain(threads=0)
    Traceback (most recent call last):
    refnet.core.errors.InputError: threads must be a whole number from 1 to 256, got 0
    """


class FetchError(RefnetError):
    """A download failed, was cut off, or has a wrong checksum.

    >>> issubclass(FetchError, RefnetError)
    True
    """


class FrameworkError(RefnetError):
    """A framework's process died, hung or answered nonsense.

    >>> issubclass(FrameworkError, RefnetError)
    True
    """
