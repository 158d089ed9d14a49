"""Proof by exhaustion that golden functions are correctly rounded: all 2**32 float32 inputs.

    prove ── chunk ──┬── shipped: golden, the op's own or exact_sigmoid (float64, decide, decimals)
                     ├── second:  kernels.py, double_double.py (enclosing), decimals where that is open
                     └── equal? ── sha256 of the results

The inputs are the bit patterns 0 to 2**32 - 1 in order, in 256 chunks. A chunk's hash is the sha256 of its
results as little-endian uint32, every NaN as 0x7fc00000; the hash of all is the sha256 of the chunks'
256 hashes in order, 32 bytes each. proved.json has the results of the whole runs.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.errors import FormatError, InputError
from refnet.core.exact import Exact
from refnet.core.op import F32
from refnet.exact.correct_rounding import RefineCount
from refnet.exact.engine import DecideOrRefine
from refnet.formats.bounded import open_file
from refnet.formats.write import whole_file
from refnet.kernels.engine import Fast
from refnet.ops.activations import Elu, Gelu, Mish, Silu, Softplus
from refnet.ops.function import Function, more_digits
from refnet.ops.functions import Erf, Exp, Log, Tanh
from refnet.ops.sigmoid import exact_sigmoid
from refnet.ops.trigonometry import Cos, Sin
from refnet.workers.held import parcel
from refnet.workers.workers import Workers, results

OPS: dict[str, Function] = {
    "exp": Exp(),
    "log": Log(),
    "tanh": Tanh(),
    "erf": Erf(),
    "softplus": Softplus(),
    "mish": Mish(),
    "silu": Silu(),
    "gelu": Gelu(),
    "gelu-tanh": Gelu(tanh=True),
    "elu": Elu(),
    "selu": Elu(float(np.float32(1.6732632423543772)), float(np.float32(1.0507009873554805))),
    "sin": Sin(),
    "cos": Cos(),
}
"""Function -> the op, with its default parameters."""
FUNCTIONS = (*OPS, "sigmoid")
CHUNKS = 256
BLOCK = 1 << 18
"""Elements at a time, so that they stay in the cache."""
QUIET_NAN = 0x7FC00000
RECORD = Path(__file__).with_name("proved.json")
LARGEST = 1 << 20
"""Bytes of a state file; one of 256 chunks has about 40,000."""

Bits = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Chunk:
    """What was found for 2**24 inputs, whose upper byte is `index`.

    open_shipped, open_second: elements that needed exact arithmetic in either evaluation. different: how
    many results differ; first: the bits of the first such input.
    """

    index: int
    sha256: str
    open_shipped: int
    open_second: int
    different: int = 0
    first: int | None = None


@dataclass(frozen=True)
class Proof:
    """The chunks of a function that have been computed, in order, and the seconds that they took."""

    function: str
    chunks: tuple[Chunk, ...]
    seconds: float

    @property
    def inputs(self) -> int:
        """How many inputs were compared."""
        return len(self.chunks) * (1 << 32) // CHUNKS

    @property
    def different(self) -> int:
        """How many results differ."""
        return sum(chunk.different for chunk in self.chunks)

    @property
    def sha256(self) -> str | None:
        """The hash of all results; None while chunks are missing."""
        if len(self.chunks) < CHUNKS:
            return None
        return hashlib.sha256(b"".join(bytes.fromhex(chunk.sha256) for chunk in self.chunks)).hexdigest()

    def unlike(self, recorded: Mapping[str, Any]) -> list[int]:
        """The chunks whose hash is not the recorded one."""
        return [c.index for c in self.chunks if c.sha256 != recorded["chunks"][c.index]]

    def record(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "function": self.function,
            "inputs": self.inputs,
            "different": self.different,
            "first_different": next((c.first for c in self.chunks if c.different), None),
            "open_shipped": sum(c.open_shipped for c in self.chunks),
            "open_second": sum(c.open_second for c in self.chunks),
            "sha256": self.sha256,
            "seconds": round(self.seconds, 1),
            "chunks": {c.index: c.sha256 for c in self.chunks},
        }


def recorded(function: str) -> dict[str, Any] | None:
    """What a whole run of `refnet prove FUNCTION` found, and when and where; None if none is on record.

    chunks: the 256 hashes by index.

    >>> recorded("exp")["different"], recorded("sigmoid")["inputs"] == 2**32
    (0, True)
    """
    found: dict[str, Any] | None = json.loads(RECORD.read_text(encoding="utf-8")).get(_known(function))
    return found


def golden_exp(x: F32, exact: Exact) -> F32:
    """The correctly rounded e ** x of a float32 array of any shape.

    NaN gives NaN, -inf +0, +inf and overflow +inf.

    >>> exact = DecideOrRefine(Fast())
    >>> golden_exp(np.float32([0.0, 1.0, -103.9, -104.0, 89.0, np.inf]), exact).tolist()
    [1.0, 2.7182817459106445, 1.401298464324817e-45, 0.0, inf, inf]
    """
    return OPS["exp"].golden(x, exact=exact)


def second(function: str, x: F32, wide: float | None = None) -> tuple[F32, int]:
    """(y, open): the correctly rounded values a second way, and how many needed decimals.

    x: flat. wide: the relative half width of the enclosure, at least the proven error, which is the default.

    >>> second("sigmoid", np.float32([0.0, 1e-30]))[0].tolist()
    [0.5, 0.5]
    """
    from refnet.prove import double_double, kernels

    low, high = np.empty_like(x), np.empty_like(x)
    if _known(function) in ("exp", "sigmoid"):
        enclose = kernels.exp_between if function == "exp" else kernels.sigmoid_between
        enclose(0, x.size, x, max(wide or 0.0, kernels.ERROR), low, high)
    else:
        op = OPS[function]
        above, below = (*op.parameters, 0.0, 0.0)[:2]
        kind = double_double.NAMES.index(op.loop)
        width = max(wide or 0.0, double_double.ERROR)
        double_double.between(0, x.size, kind, x, above, below, width, low, high)
    at = np.flatnonzero((low != high) & ~np.isnan(low))
    for k in at:
        low[k] = by_enclosure(function, float(x[k]))
    return low, at.size


def by_enclosure(function: str, x: float) -> np.float32:
    """The correctly rounded value of one finite float32: decimals enclose it, and both ends must round alike.

    Python's decimal rounds exp correctly; 1 + e and the quotient add two roundings: 10**(2 - digits). Other
    functions by their op's decimals, or its fraction where the value is one.

    >>> by_enclosure("sigmoid", 0.0), by_enclosure("exp", -103.9)
    (np.float32(0.5), np.float32(1e-45))
    """
    if function in OPS and (rational := OPS[function].rational(Fraction(x))) is not None:
        return _nearest(rational)
    digits = 40
    while True:
        with localcontext() as context:
            context.prec = digits
            if function not in ("exp", "sigmoid"):
                with more_digits():
                    value = Fraction(OPS[function].real(Decimal(x)))
                slack = abs(value) / 10 ** (digits - 2)
                low, high = _nearest(value - slack), _nearest(value + slack)
                if low == high:
                    return low
                digits *= 2
                continue
            power = (Decimal(x) if function == "exp" else -Decimal(x)).exp()
            value = Fraction(power if function == "exp" else 1 / (1 + power))
        slack = value / 10 ** (digits - 2)
        low, high = _nearest(value - slack), _nearest(value + slack)
        if low == high:
            return low
        digits *= 2


def _nearest(value: Fraction) -> np.float32:
    """The float32 nearest to a rational that is not 0, ties to even, by integer division alone."""
    if value < 0:
        return -_nearest(-value)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()  # or one less
    for first in (exponent - 1, exponent):
        last = max(first - 23, -149)  # the exponent of the result's last bit
        count, rest = divmod(value / Fraction(2) ** last, 1)
        if count < 1 << 24:
            break
    count += 2 * rest > 1 or (2 * rest == 1 and count % 2 == 1)
    return np.float32(np.inf) if count << (last + 149) >= 1 << 277 else np.float32(math.ldexp(count, last))


def chunk(function: str, index: int) -> Chunk:
    """Compute all results of one chunk both ways and compare them."""
    begin, size = index * ((1 << 32) // CHUNKS), (1 << 32) // CHUNKS
    digest, refine_count = hashlib.sha256(), RefineCount()
    exact = DecideOrRefine(Fast(1), refine_count)
    opened = different = 0
    first = None
    for start in range(begin, begin + size, BLOCK):
        x = np.arange(start, start + BLOCK, dtype=np.uint32).view(np.float32)
        if function == "sigmoid":
            shipped = _canonical(exact_sigmoid("sigmoid", x, exact))
        else:
            shipped = _canonical(OPS[function].golden(x, exact=exact))
        other, count = second(function, x)
        opened += count
        if (unequal := shipped != _canonical(other)).any():
            first = start + int(np.argmax(unequal)) if first is None else first
            different += int(unequal.sum())
        digest.update(shipped.astype("<u4", copy=False).data)
    shipped_open = sum(found for _, found in refine_count.by_op.values())
    return Chunk(index, digest.hexdigest(), shipped_open, opened, different, first)


def _canonical(y: F32) -> Bits:
    """The bits of y, which is used up; one NaN for all."""
    y[np.isnan(y)] = np.nan
    bits = y.view(np.uint32)
    bits[np.isnan(y)] = QUIET_NAN
    return bits


@dataclass
class _State:
    """What is done already: in memory, and in a file if there is one."""

    function: str
    path: Path | None
    chunks: dict[int, Chunk] = field(default_factory=dict)
    seconds: float = 0.0

    def save(self) -> None:
        if self.path is None:
            return
        state = {"function": self.function, "code": _code(), "seconds": self.seconds}
        text = json.dumps({**state, "chunks": [asdict(c) for _, c in sorted(self.chunks.items())]}, indent=1)
        with whole_file(self.path) as stream:
            stream.write(text.encode())

    def load(self) -> None:
        if self.path is None or not os.path.exists(self.path):
            return
        stream, size = open_file(self.path)
        with stream:
            if size > LARGEST:
                raise FormatError(self.path, None, f"{size} bytes", f"at most {LARGEST} of a state file")
            text = stream.read(size)
        try:
            state = json.loads(text)
            code, function = state["code"], state["function"]
            self.chunks = {c.index: c for c in (_chunk(entry) for entry in state["chunks"])}
            self.seconds = float(state["seconds"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError(self.path, None, repr(error)[:200], "a state of `refnet prove`") from None
        for what, expected, found in (("function", self.function, function), ("code", _code(), code)):
            if found != expected:
                raise InputError(f"{self.path}: {what} is {found!r:.40}, not {expected!r}: name another file")


def _code() -> str:
    """Names the code that makes the results: changes with the kernels and with the Python around them."""
    from refnet.exact import correct_rounding, engine
    from refnet.loops.jit import cache_key
    from refnet.ops import activations, function, functions, sigmoid, trigonometry

    digest = hashlib.sha256(cache_key().encode() + Path(__file__).read_bytes())
    for module in (correct_rounding, engine, sigmoid, function, functions, activations, trigonometry):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def _chunk(entry: Any) -> Chunk:
    """A chunk of a state file; ValueError, TypeError or KeyError for anything else."""
    counts = [entry[name] for name in ("index", "open_shipped", "open_second", "different")]
    first = entry["first"]
    if not all(type(n) is int and n >= 0 for n in counts) or not 0 <= counts[0] < CHUNKS:
        raise ValueError(f"chunk {counts}")
    if len(bytes.fromhex(entry["sha256"])) != 32 or not (first is None or type(first) is int):
        raise ValueError(f"chunk {counts[0]}: sha256 {entry['sha256']!r}, first {first!r}")
    index, shipped, second, different = counts
    return Chunk(index, entry["sha256"], shipped, second, different, first)


def prove(
    function: str,
    chunks: Iterable[int] = range(CHUNKS),
    threads: int = 1,
    state: str | os.PathLike[str] | None = None,
    advance: Callable[[int], object] = lambda done: None,
    workers: Workers | None = None,
) -> Proof:
    """Compare both evaluations of a function on these chunks of inputs.

    function: one of FUNCTIONS. chunks: indices 0 to 255, the inputs' upper byte. state: a file that keeps
    what is done, replaced after each chunk; if it is there, its chunks are not computed again. It belongs
    to one function and one version of the code. advance: called with how many more chunks are done. workers:
    who computes, a chunk at a time each (None: `threads` threads of this process). Raises InputError for an
    unknown function or a state of other code, FormatError if it is no state.

    >>> prove("exp", [0x7F]).different
    0
    """
    kept = _State(_known(function), None if state is None else Path(state))
    kept.load()
    wanted = sorted(set(chunks))
    if not all(0 <= index < CHUNKS for index in wanted):
        raise InputError(f"chunks must be 0 to {CHUNKS - 1}, got {wanted}")
    missing = [index for index in wanted if index not in kept.chunks]
    advance(len(wanted) - len(missing))
    kept.save()  # an unusable file is found now
    before, begin = kept.seconds, time.perf_counter()
    with ExitStack() as stack:
        if workers is None:
            workers = Workers(executor=stack.enter_context(ThreadPoolExecutor(threads, "refnet-prove")))
        code = _code()
        sent = parcel(f"prove {function} {code}", _chunk_of_same_code, (function, code))
        for _, found in results(workers, sent, missing):
            kept.chunks[found.index] = found
            kept.seconds = before + time.perf_counter() - begin
            kept.save()
            advance(1)
    return Proof(function, tuple(kept.chunks[index] for index in wanted), kept.seconds)


def _chunk_of_same_code(proven: tuple[str, str], index: int) -> Chunk:
    """A chunk in a worker. proven: the function, and the code that is to be proved."""
    function, code = proven
    if _code() != code:
        raise InputError(f"this worker's refnet or processor is another one: code {_code()}, not {code}")
    return chunk(function, index)


def _known(function: str) -> str:
    if function not in FUNCTIONS:
        raise InputError(f"function must be one of {FUNCTIONS}, got {function!r}")
    return function
