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

from refnet.core.words import shortened


class RefnetError(Exception):
    """Base of all errors that refnet raises on purpose.

    >>> import refnet
    >>> try:
    ...     refnet.load("no-such-network")
    ... except refnet.RefnetError as error:
    ...     print(type(error).__name__)
    InputError
    """

    def __str__(self) -> str:
        return shortened(super().__str__())


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
    refnet.core.errors.GraphError: g: r reads 'nowhere', made by nothing before it
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
