"""The shapes of a file's inputs: its own, and for what it leaves open those that are given."""

from __future__ import annotations

from collections.abc import Mapping

from refnet.core.errors import FormatError, InputError, UnsupportedError
from refnet.core.words import did_you_mean
from refnet.formats.assembly import LARGEST_NUMBER, LARGEST_VALUE
from refnet.ops import TensorType

Declared = tuple[int | str | None, ...]
"""The dimensions of an input as the file has them: numbers, names, None."""
Shapes = Mapping[str, tuple[int, ...]]


class OpenSizesError(InputError):
    """Sizes that a file leaves open and that nobody said."""


def stated(
    file: str, inputs: Mapping[str, Declared], image: tuple[int, int] | None, shapes: Shapes | None
) -> dict[str, Declared]:
    """The inputs with what is given filled in: all but the batch, the first dimension, is a number.

    image: (h, w) of the one input (n, c, h, w), instead of the file's. shapes: all dimensions of inputs,
    which must be the file's where it has numbers. Raises OpenSizesError for all that is missing, InputError
    for what does not fit, UnsupportedError for a single number, FormatError for too many elements.
    """
    found = dict(inputs)
    for name, shape in (shapes or {}).items():
        if name not in inputs:
            known = f"; its inputs are {', '.join(one[:60] for one in [*inputs][:8])}"
            raise InputError(f"{file} has no input {name[:100]!r}{did_you_mean(name, inputs, known)}")
        own = inputs[name]
        fits = len(own) == len(shape) and all(
            (1 <= n <= LARGEST_NUMBER and m in (n, None)) or isinstance(m, str)
            for n, m in zip(shape, own, strict=True)
        )
        if not fits:
            raise InputError(
                f"{file}: input {name[:100]!r} is {_shown(own)}, which {_shown(shape)} does not fit"
            )
        found[name] = tuple(shape)
    if image is not None:
        maps = [name for name, one in inputs.items() if len(one) == 4]
        if len(maps) != 1:
            raise InputError(
                f"{file}: image takes the size of one input (n, c, h, w); the file has {len(maps)}: "
                "give shapes (--shape NAME=N,C,H,W)"
            )
        if maps[0] in (shapes or {}):
            raise InputError(f"{file}: image and shapes both say the size of {maps[0][:100]!r}: give one")
        found[maps[0]] = (*inputs[maps[0]][:2], *image)
    for name, one in found.items():
        if not one:
            raise UnsupportedError(f"{file}: input {name[:100]!r} is a single number, without a batch")
    if free := {name: one for name, one in found.items() if any(not isinstance(n, int) for n in one[1:])}:
        raise OpenSizesError(f"{file}: {_missing(free)}")
    for name, one in found.items():
        rest = tuple(n for n in one[1:] if isinstance(n, int))
        if TensorType(rest).size > LARGEST_VALUE:
            raise FormatError(
                file, None, f"input {name[:100]!r} of {list(rest)}", f"at most {LARGEST_VALUE} elements"
            )
    return found


def _missing(free: Mapping[str, Declared]) -> str:
    """Which sizes the file leaves open, and how to give them."""
    some = [*free.items()][:8]
    lines = [f"input {name[:100]!r} is {_shown(one)}" for name, one in some]
    more = f" and {len(free) - 8} more" if len(free) > 8 else ""
    example = " ".join(f"--shape {name[:100]}={_example(one)}" for name, one in some)
    (first, *others) = free.values()
    image = not others and len(first) == 4 and isinstance(first[1], int)
    either = "image (--image H,W), or shapes" if image else "shapes"
    return f"{', '.join(lines)}{more}: of what size? {either} ({example}) gives it"


def _example(shape: Declared) -> str:
    """A batch of 1, the numbers that are known, and what the file calls the others."""
    rest = [str(n) if isinstance(n, int) else str(n or "N")[:40].upper() for n in shape[1:]]
    return ",".join([str(shape[0]) if isinstance(shape[0], int) else "1", *rest])


def _shown(shape: Declared) -> str:
    return f"[{', '.join(str(n)[:40] for n in shape)}]"
