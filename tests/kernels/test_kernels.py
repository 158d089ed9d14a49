"""The compiled loops equal the scalar definition to the last bit, whatever the shape, thread or data."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refnet
from refnet import ops
from refnet.core.engine import NOTHING, PoolGeometry
from refnet.core.op import Interval
from refnet.kernels.channels import _channels, channel_layout
from refnet.kernels.epilogue import apply
from refnet.kernels.panel import convolve
from refnet.kernels.pool import avg_pool, max_pool
from refnet.kernels.segments import _tiles, convolve_in_segments
from refnet.loops import jit
from refnet.loops.functions import exp
from tests.helpers.bits import AWKWARD, floats, same_bits
from tests.helpers.definition import exact_fma, llvm_fma, round_float32
from tests.helpers.engines import EXACT, FAST
from tests.helpers.sources import walked

KERNELS = Path(refnet.__file__).parent / "kernels"
QUIET = settings(deadline=None, database=None, derandomize=True)

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(QUIET, max_examples=2000)
@given(float32s, float32s, float32s)
def test_fma_rounds_once(a, b, c):
    a, b, c = np.float32(a), np.float32(b), np.float32(c)
    assert same_bits(llvm_fma(a, b, c), exact_fma(a, b, c))


def test_fma_is_not_multiply_then_add():
    a, c = np.float32(1 + 2.0**-12), np.float32(-(1 + 2.0**-11))
    assert llvm_fma(a, a, c) == np.float32(2.0**-24)
    assert a * a + c == 0


def test_rounding_of_the_definition():
    from fractions import Fraction

    halfway = Fraction(2**24 + 1)
    assert round_float32(halfway) == 2**24  # tie to even
    assert round_float32(halfway + Fraction(1, 10**30)) == 2**24 + 2
    assert round_float32(Fraction(1, 2**150)) == 0.0
    assert round_float32(Fraction(3, 2**151)) == np.float32(1e-45)
    assert round_float32(Fraction(2**128 - 2**103)) == np.inf


GUARDED = """
import ctypes, mmap
import numpy as np
from refnet.kernels import panel
from tests.helpers.bits import floats, same_bits

def guarded(values):  # the same array, ending where memory ends that may be read
    size = -(-values.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    area = mmap.mmap(-1, size + mmap.PAGESIZE)
    behind = ctypes.addressof(ctypes.c_char.from_buffer(area)) + size
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(behind), mmap.PAGESIZE, 0) == 0
    array = np.frombuffer(area, values.dtype, values.size, size - values.nbytes).reshape(values.shape)
    array[...] = values
    return array

kinds = (1, 1, 0, 1), (1, 2, 0, 1), (3, 1, 1, 1), (3, 2, 1, 2), (3, 1, 0, 6), (1, 1, 1, 1)
for panel.channel_layout in (panel.channel_layout, lambda *_: None):
    for kernel, stride, pad, groups in kinds:
        for size in ((1, 1), (3, 5), (5, 7), (1, 33), (16, 17)):
            if min(size) + 2 * pad >= kernel:
                x, w = floats((2, 6, *size), "x"), floats((12, 6 // groups, kernel, kernel), "w")
                place = ((stride, stride), (pad, pad), (1, 1), groups, 2)
                assert same_bits(panel.convolve(guarded(x), w, *place), panel.convolve(x, w, *place))
print("whole")
"""


def test_nothing_behind_the_data_is_read():
    assert _output_of(GUARDED) == "whole\n"


def test_padding_is_left_out_not_multiplied_by_zero():
    """The one case in which adding w * 0 shows in finite data: a partial sum that underflowed to -0."""
    x = np.full((1, 1, 1, 2), -1e-30, np.float32)
    w = np.full((4, 1, 1, 2), 1e-30, np.float32)  # each product rounds to -0
    y = convolve(x, w, (1, 1), (0, 1), (1, 1), 1, 1)
    assert np.signbit(y).all()
    w[:, :, :, 0] = np.inf
    y = convolve(np.abs(x), w, (1, 1), (0, 1), (1, 1), 1, 1)
    assert same_bits(y[0, 0, 0], np.array([0, np.inf, np.inf], np.float32))


def test_average_of_more_elements_than_float32_can_count():
    """The divisor is no float32, and not made one. (The window sees one element, and padding.)"""
    x, count = floats((1, 50, 3, 5), "many"), 4099
    geometry = PoolGeometry((count, count), (1, 1), (count - 1, count - 1), (1, 1))
    mean = avg_pool(x, geometry, True, 1)
    assert same_bits(mean, (x[:, :, :1, :1].astype(np.float64) / count**2).astype(np.float32))


@pytest.mark.parametrize("stride", [1, 2, 3, 2**24])
def test_a_window_much_larger_than_the_image(stride):
    """What it has beyond the image takes no memory, and little time."""
    x, wide = floats((1, 2, 3, 5), "small"), 2**24
    output = (3, min(wide // stride + 1, 7))
    geometry = PoolGeometry((1, wide), (1, stride), (0, wide - 1), output)
    best = max_pool(x, geometry, 1)
    mean = avg_pool(x, geometry, False, 1)
    for j in range(output[1]):
        total, largest = np.zeros((1, 2, 3), np.float32), np.full((1, 2, 3), -np.inf, np.float32)
        seen = range(max(j * stride - wide + 1, 0), min(j * stride + 1, 5))
        for column in seen:
            total, largest = total + x[..., column], np.maximum(largest, x[..., column])
        assert same_bits(best[..., j], largest)
        assert same_bits(mean[..., j], total / np.float32(len(seen)))


def test_exp_against_decimal():
    """The float64 exp lies within 2**-50 of the true value, relative."""
    from decimal import Decimal, getcontext

    getcontext().prec = 60
    xs = np.concatenate(
        [floats((2000,), "exp") * 100, np.linspace(-0.4, 0.4, 500), [0.0, -0.0, 127.9, -127.9]]
    )
    for x in map(float, xs):
        true = Decimal(x).exp()
        assert abs(Decimal(float(exp(x))) - true) < true / 2**50, x
    assert exp(np.inf) == np.inf
    assert exp(-np.inf) == 0
    assert np.isnan(exp(np.nan))


SCRIPT = """
import hashlib, sys
import numpy as np
from refnet.kernels import writer
from refnet.core.engine import NOTHING
from refnet.kernels.panel import convolve, dense
from refnet.kernels.pointwise import scale_shift, sigmoid, softmax_parts
from tests.helpers.bits import awkward, floats
digest = hashlib.sha256()
x, w = floats((2, 6, 9, 11), "x"), floats((20, 3, 3, 3), "w")
digest.update(convolve(x, w, (2, 1), (1, 2), (1, 1), 2, 2, NOTHING.bias(floats((20,), "b"))))
digest.update(np.nan_to_num(convolve(awkward(x.shape, "y", 0.3), w, (1, 1), (1, 1), (1, 1), 2, 1)))
digest.update(convolve(x, floats((6, 1, 3, 3), "d"), (1, 1), (1, 1), (1, 1), 6, 1))
digest.update(dense(floats((3, 700), "p"), floats((90, 700), "q"), None, 2))
digest.update(sigmoid(x * 20, 1)); digest.update(softmax_parts(x * 20, 1))
digest.update(scale_shift(x, w[:6, 0, 0, 0].copy(), w[:6, 0, 0, 1].copy(), 1))
print(writer.VECTOR, digest.hexdigest())
"""


def _output_of(script: str, **environment: str) -> str:
    """What a process of its own prints."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
    )
    return done.stdout


def _bits_of_a_process(**environment: str) -> list[str]:
    return _output_of(SCRIPT, **environment).split()


@pytest.mark.other_processor
def test_the_same_bits_without_fma_and_avx():
    """A generic x86-64 processor has neither: FMA then comes from the C library."""
    native = _bits_of_a_process()
    generic = _bits_of_a_process(NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="+sse2")
    assert generic[0] == "16"
    assert generic[1] == native[1]


def test_cache_is_named_after_the_sources(tmp_path, monkeypatch):
    """Editing any kernel file gives another cache folder, so that no stale kernel is ever loaded."""
    before = jit.cache_key()
    files = [path for name in jit.COMPILED for path in (jit.SOURCES / name).rglob("*.py")]
    for path in [*files, *(jit.SOURCES / name for name in jit.SHARED)]:
        target = tmp_path / path.relative_to(jit.SOURCES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    monkeypatch.setattr(jit, "SOURCES", tmp_path)
    assert jit.cache_key() == before
    for path in (
        "kernels/panel.py",
        "loops/functions.py",
        "loops/libm/glibc.py",
        "prove/kernels.py",
        *jit.SHARED,
    ):
        with (tmp_path / path).open("a") as file:
            file.write("# edited\n")
        after = jit.cache_key()
        assert after != before
        before = after


def test_an_edited_helper_shows_at_once(tmp_path):
    """The whole story in processes of their own: compile, edit a helper in another file, run again."""
    script = (
        "import numpy as np; from refnet.loops.pointwise import sigmoid;"
        "print(sigmoid(np.ones(1, np.float32))[0])"
    )
    package = tmp_path / "refnet"
    for path in KERNELS.parent.rglob("*.py"):
        target = package / path.relative_to(KERNELS.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())

    def result() -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "REFNET_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", script]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
        ).stdout

    first = result()
    helper = package / "loops" / "functions.py"
    text = helper.read_text()
    assert text.count("y = y * power_of_two(shifted)") == 1
    helper.write_text(text.replace("y = y * power_of_two(shifted)", "y = 2.0 * y * power_of_two(shifted)"))
    second = result()
    assert first != second


LOADS = """
import sys
import numpy as np
from refnet.loops import jit
jit.KNOWN = {known}
from refnet.kernels.pointwise import sigmoid, softmax_parts
x = np.linspace(-9, 9, 64, dtype=np.float32).reshape(4, 16)
def compiler(): return "numba.np.arraymath" in sys.modules
print(sigmoid(x, 1).tobytes().hex(), compiler())
print(softmax_parts(x.reshape(4, 1, 16, 1), 1).tobytes().hex(), compiler())
"""
"""Two kernels, and whether what only compiling needs has been imported after each."""


def loads(cache: Path, known: object, what: str = LOADS) -> list[list[str]]:
    environment = {**os.environ, "REFNET_QUIET": "1", "REFNET_CACHE": str(cache)}
    command = [sys.executable, "-c", what.format(known=known)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [line.split() for line in done.stdout.splitlines()]


def test_loading_a_kernel_imports_no_compiler_and_compiling_after_it_does(tmp_path):
    """In processes of their own; an unknown version of Numba takes the slower way to the same bits."""
    assert jit.known(numba.__version__)
    (first,) = loads(tmp_path, jit.KNOWN, LOADS[: LOADS.rindex("print")])
    mixed, both = loads(tmp_path, jit.KNOWN), loads(tmp_path, jit.KNOWN)
    slowly = loads(tmp_path, ((0, 0), (0, 0)))
    assert first[1] == "True"
    assert [line[1] for line in mixed] == ["False", "True"]  # softmax had to be compiled
    assert [line[1] for line in both] == ["False", "False"]
    assert [line[1] for line in slowly] == ["True", "True"]
    assert [line[0] for line in mixed] == [line[0] for line in both] == [line[0] for line in slowly]
    assert mixed[0][0] == first[0]


@pytest.mark.parametrize("kernel", [_tiles, _channels])
def test_the_largest_kernels_are_one_for_arrays_that_may_be_written_and_others(kernel):
    """Each version takes seconds to compile. Read-only or not, padded or not, added to or not: one."""
    sizes = ((1, 2), (10, 10), (14, 14), (20, 20), (28, 28))
    compute = convolve_in_segments if kernel is _tiles else convolve
    seen = set()
    for size, kernel_size, stride in product(sizes, (1, 3), (1, 2, 3)):
        x, w = floats((1, 3, *size), "x"), floats((32, 3, kernel_size, kernel_size), "w")
        place = ((stride, stride), (kernel_size // 2, kernel_size // 2), (1, 1), 1)
        if channel_layout(x.shape, w.shape, *place) is None:
            continue
        seen.add((kernel_size, stride))
        fixed = x.copy()
        fixed.flags.writeable = False
        for data in (x, fixed):
            sums = compute(data, w, *place, 1, NOTHING)
            frozen = sums.copy()
            frozen.flags.writeable = False
            for y in (sums, frozen):
                assert same_bits(compute(data, w, *place, 1, NOTHING.add(y)), sums + sums)
        assert x.flags.writeable
        assert sums.flags.writeable
    assert {size for size, _ in seen} == {1, 3}
    assert len(seen) > 2
    assert len([one for one in kernel.signatures if "float32" in str(one)]) == 1


def test_a_convolution_that_sees_only_padding():
    """Stride 3 and padding 1 leave one output of a 1 x 1 image, whose one term lies in the padding."""
    x, w = floats((2, 5, 1, 1), "x"), floats((7, 5, 1, 1), "w")
    for stride, pad in (((3, 3), (1, 1)), ((5, 3), (2, 1)), ((3, 1), (1, 0)), ((3, 2), (1, 0))):
        op = ops.Conv(7, (1, 1), stride, pad)
        zeros = np.zeros((2, 7, 1, 1), np.float32)
        assert same_bits(op.run(x, w, engine=FAST), zeros)
        assert same_bits(op.golden(x, w, exact=EXACT), zeros)
        interval = op.bound(Interval.exactly(x), Interval.exactly(w), engine=FAST)
        assert not interval.center.any()


def test_arrays_to_add_in_any_memory_order():
    x = floats((1, 4, 5, 1), "x")  # whose rows are a view in either order
    others = [np.asfortranarray(floats(x.shape, key)) for key in ("a", "b")]
    chain = NOTHING.add(others[0]).add(others[1])
    assert same_bits(apply(x, chain, 1), (x + others[0]) + others[1])
    with pytest.raises(ValueError, match="reshape"):
        apply(x, NOTHING.add(others[0][:, :2]), 1)


def test_a_chain_serves_both_precisions():
    chain = NOTHING.bias(np.float32([0.1, 0.2]))
    x = floats((1, 2, 3, 3), "x")
    wide = x.astype(np.float64)
    column = np.float32([0.1, 0.2]).reshape(2, 1, 1)
    for _ in range(2):
        assert same_bits(apply(x, chain, 1), x + column)
        assert (apply(wide, chain, 1) == wide + column.astype(np.float64)).all()


def test_what_numba_does_not_compile_stays_python():
    """With NUMBA_DISABLE_JIT the function itself runs, and like machine code it warns of nothing."""
    script = (
        "import numpy as np; from refnet.loops.jit import njit; f = lambda x, y: x + y;"
        "assert njit(f).__wrapped__ is f; assert njit(f)('a', 'b') == 'ab';"
        "assert njit(f)(np.int32(2**31 - 1), np.int32(1)) == -(2**31)"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    subprocess.run(command, check=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})


COMPILERS = {"njit", "jit", "vectorize", "cfunc"}


def test_every_compiled_function_is_in_the_cache_key():
    """Kernels compile with `njit` of jit.py only, in the packages whose files name the cache folder."""
    for path in KERNELS.parent.rglob("*.py"):
        nodes = walked(path)
        sources = {(n.module or "", a.name) for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
        imports = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        if "numba" in imports or any(module.split(".")[0] == "numba" for module, _ in sources):
            assert path.relative_to(jit.SOURCES).parts[0] in jit.COMPILED, path
        called = [n.func for n in nodes if isinstance(n, ast.Call)]
        called += [d for n in nodes if isinstance(n, ast.FunctionDef) for d in n.decorator_list]
        last = (getattr(one, "attr", getattr(one, "id", "")) for one in called)
        compiles = {ast.unparse(one) for one, name in zip(called, last, strict=True) if name in COMPILERS}
        if path.name != "jit.py" and compiles:
            assert path.relative_to(jit.SOURCES).parts[0] in jit.COMPILED, path
            assert compiles == {"njit"}, path
            assert ("refnet.loops.jit", "njit") in sources, path


def test_awkward_numbers_are_what_they_should_be():
    assert len(AWKWARD) == 12
    assert np.signbit(AWKWARD[1])
    assert 0 < AWKWARD[5] < np.finfo(np.float32).tiny
