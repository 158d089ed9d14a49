"""`refnet prove`: its second evaluation, its exact arithmetic, its record, and a slice of the proof."""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from refnet import cli
from refnet.core.errors import FormatError, InputError
from refnet.exact.engine import DecideOrRefine
from refnet.ops.function import Function
from refnet.prove import double_double, kernels, prove
from refnet.prove.prove import FUNCTIONS, by_enclosure, golden_exp, recorded, second
from tests.helpers.bits import AWKWARD, floats, same_bits
from tests.helpers.definition import round_float32
from tests.helpers.engines import EXACT, FAST
from tests.helpers.exact_functions import FUNCTIONS as EXACTLY
from tests.helpers.exact_functions import Exactly, elu

SLICE = (0x00, 0x33, 0x36, 0x3F, 0x42, 0x7F, 0x80, 0xC2)
"""Subnormals; 2**-25 to 2**-23, where exp rounds to its first two results above 1; near-ties of the sigmoid;
1/2 to 2; 32 to 128 with the overflow; infinity and NaN; the same from -0 and from -32 to -128."""

BOTH = pytest.mark.parametrize("function", ["exp", "sigmoid"])
OTHERS = pytest.mark.parametrize("function", sorted({*FUNCTIONS} - {"exp", "sigmoid"}))
RECORDED = pytest.mark.parametrize("function", [name for name in FUNCTIONS if recorded(name)])


def spread(count: int) -> np.ndarray:
    """float32 of all sizes that matter, both signs, from hashes."""
    exponents = np.abs(floats((count,), "exponents").astype(np.float64)) * -160
    x = floats((count,), "mantissas").astype(np.float64) * 128 * 2.0**exponents
    few = floats((count,), "large") * np.float32(104.5)
    return np.concatenate([x.astype(np.float32), few, AWKWARD[np.abs(AWKWARD) < 100]])


def true(function: str, x: float) -> Fraction:
    """To 60 digits."""
    with localcontext() as context:
        context.prec = 60
        e = Decimal(x).exp() if function == "exp" else 1 / (1 + (-Decimal(x)).exp())
    return Fraction(e)


@BOTH
def test_the_double_double_keeps_its_proven_error(function):
    evaluate = {"exp": kernels._exp, "sigmoid": kernels._sigmoid}[function]
    worst = Fraction(0)
    for x in map(float, spread(1500)):
        h, low = evaluate(x)
        exact = true(function, x)
        worst = max(worst, abs(Fraction(h) + Fraction(low) - exact) / exact)
    assert worst < Fraction(1, 2**84)
    assert worst > Fraction(1, 2**100)  # it is not the oracle itself


def test_rounding_of_double_doubles():
    """Next to, on and far from the middle between two float32, normal and subnormal, by integers."""
    for h in (
        1.0,
        1 + 2.0**-24,
        1 + 3 * 2.0**-24,
        2.0**-150,
        3 * 2.0**-150,
        1.7e38,
        2.0**128 - 2.0**103,
        0.1,
    ):
        for low in (0.0, 2.0**-60, -(2.0**-60), 2.0**-105, -(2.0**-105), 2.0**-53 / 3, -(2.0**-54)):
            found = kernels._rounded(h, h * low)
            assert same_bits(np.float32(found), round_float32(Fraction(h) + Fraction(h * low))), (h, low)


@BOTH
def test_what_is_open_is_settled_by_decimals(function):
    """With a uselessly wide enclosure nearly everything is open, and the results are the same."""
    x = spread(150)
    narrow, none = second(function, x)
    wide, opened = second(function, x, 2.0**-20)
    assert none == 0
    assert opened > 100
    assert same_bits(narrow, wide)
    assert same_bits(narrow, np.array([round_float32(true(function, float(v))) for v in x], np.float32))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Fraction(1), 1.0),
        (1 + Fraction(1, 2**24), 1.0),
        (1 + Fraction(3, 2**24), 1 + 2.0**-22),
        (2 - Fraction(1, 2**30), 2.0),
        (Fraction(1, 2**150), 0.0),
        (Fraction(3, 2**151), 2.0**-149),
        (Fraction(2) ** 128 - Fraction(2) ** 103, np.inf),
        (Fraction(2) ** 128 - Fraction(2) ** 103 - 1, 2.0**128 - 2.0**104),
    ],
)
def test_rounding_of_rationals(value, expected):
    assert same_bits(prove._nearest(value), np.float32(expected))
    assert same_bits(prove._nearest(value), round_float32(value))


def test_exp_where_it_is_not_ordinary():
    x = np.float32(
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 88.72283, 88.72284, -103.97207, -103.97209, -200, 200]
    )
    y = np.array([np.nan, np.inf, 0, 1, 1, 1, 3.4027985e38, np.inf, 1e-45, 0, 0, np.inf], np.float32)
    assert same_bits(golden_exp(x, EXACT), y)
    assert same_bits(second("exp", x)[0], y)
    assert same_bits(golden_exp(x.reshape(3, 4), EXACT), y.reshape(3, 4))


@RECORDED
def test_the_record_is_whole(function):
    record = recorded(function)
    hashes = [bytes.fromhex(h) for h in record["chunks"]]
    assert len(hashes) == 256
    assert hashlib.sha256(b"".join(hashes)).hexdigest() == record["sha256"]
    assert (record["function"], record["inputs"], record["different"]) == (function, 1 << 32, 0)
    if function not in ("exp", "sigmoid"):
        return
    everywhere_one = hashlib.sha256(np.float32(1).tobytes() * (1 << 24)).hexdigest()
    assert record["chunks"][0x43] == (everywhere_one if function == "sigmoid" else record["chunks"][0x44])


@BOTH
def test_a_slice_of_the_proof(function):
    proof = prove.prove(function, SLICE, threads=2)
    assert proof.inputs == len(SLICE) << 24
    assert proof.different == 0
    assert proof.unlike(recorded(function)) == []
    assert proof.sha256 is None


@pytest.mark.whole
@OTHERS
def test_a_slice_of_the_other_proofs(function):
    """1/2 to 2 and -2 to -8: what the kernels give today is what they gave when all inputs were compared."""
    proof = prove.prove(function, (0x3F, 0xC0), threads=2)
    assert (proof.inputs, proof.different) == (2 << 24, 0)
    assert proof.unlike(recorded(function)) == []


def test_the_page_has_the_record():
    page = (Path(__file__).parents[2] / "docs" / "numerics.md").read_text(encoding="utf-8")
    (rows,) = re.findall(r"<!-- from proved.json -->\n\|.*\n\|.*\n((?:\|.*\n)*)<!-- end -->", page)
    assert rows.splitlines() == [
        f"| {name} | 0 | {one['open_shipped']:,} | {one['open_second']:,} | {one['seconds']:.0f} s | "
        f"`{one['sha256']}` |"
        for name in sorted({*FUNCTIONS} - {"exp", "sigmoid"})
        if (one := recorded(name))
    ]
    said = re.search(r"^(.*) have no whole run on record yet", page, re.MULTILINE)
    missing = {name for name in FUNCTIONS if not recorded(name)}
    assert {*re.findall("`([a-z-]+)`", said[1] if said else "")} == missing


@pytest.fixture
def small(monkeypatch):
    """Chunks of 2**18 inputs."""
    monkeypatch.setattr(prove, "CHUNKS", 1 << 14)
    monkeypatch.setattr(prove, "LARGEST", 1 << 16)


NEAR_TIES = 0x368C0000 >> 18
"""2**18 inputs from 35 * 2**-23 on, where the sigmoid is a middle less 2**-59, too little for float64."""


def test_a_wrong_evaluation_is_found(small, monkeypatch):
    assert prove.chunk("sigmoid", NEAR_TIES).different == 0

    def cast(op, x, exact):
        exact.refine_count.count(op, x.size, 0)
        return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)

    monkeypatch.setattr(prove, "exact_sigmoid", cast)
    found = prove.chunk("sigmoid", NEAR_TIES)
    assert found.different > 0
    x = np.array([found.first], np.uint32).view(np.float32)
    broken = cast("sigmoid", x, DecideOrRefine(FAST, prove.RefineCount()))
    assert not same_bits(broken[0], by_enclosure("sigmoid", float(x[0])))
    proof = prove.Proof("sigmoid", (found,), 1.0)
    assert proof.record()["first_different"] == found.first


def test_it_goes_on_where_it_stopped(small, tmp_path, monkeypatch):
    state, done = tmp_path / "state", []
    whole = prove.prove("exp", range(4), state=state, advance=done.append)
    assert done == [0, 1, 1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    computed = []
    chunk = prove.chunk
    monkeypatch.setattr(prove, "chunk", lambda *a: computed.append(a[1]) or chunk(*a))
    more = prove.prove("exp", range(2, 6), threads=2, state=state)
    assert sorted(computed) == [4, 5]
    assert more.chunks[:2] == whole.chunks[2:]
    assert prove.prove("exp", range(6), state=state).chunks == whole.chunks + more.chunks[2:]
    with pytest.raises(InputError, match="function is 'exp', not 'sigmoid'"):
        prove.prove("sigmoid", [0], state=state)
    state.write_text(state.read_text().replace('"code": "', '"code": "0'))
    with pytest.raises(InputError, match="code is"):
        prove.prove("exp", [0], state=state)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"function": "exp", "code": "", "seconds": "x", "chunks": []}',
        '{"function": "exp", "code": "", "seconds": 1, "chunks": [{"index": -1}]}',
        '{"function": "exp", "code": "", "seconds": 1, "chunks": 7}',
        '{"function": "exp", "code": "", "seconds": 1, "chunks": [{"index": 0, "open_shipped": 0, '
        '"open_second": 0, "different": 0, "first": null, "sha256": "00"}]}',
        '{"function": "exp", "code": "", "seconds": 1, "chunks": [{"index": 0, "open_shipped": 0, '
        '"open_second": 0, "different": 0, "first": null, "sha256": 5}]}',
        "7" * 70_000,
    ],
)
def test_a_file_that_is_no_state(small, tmp_path, text):
    (tmp_path / "state").write_text(text)
    with pytest.raises(FormatError, match="state"):
        prove.prove("exp", [0], state=tmp_path / "state")
    assert (tmp_path / "state").read_text() == text


def test_unusable_arguments(tmp_path):
    with pytest.raises(InputError, match="function must be one of"):
        prove.prove("sinh")
    with pytest.raises(InputError, match="chunks must be 0 to 255"):
        prove.prove("exp", [256])
    with pytest.raises(InputError, match="cannot write"):
        prove.prove("exp", [0], state=tmp_path / "no" / "state")
    with pytest.raises(FormatError, match="no regular file"):
        prove.prove("exp", [0], state=tmp_path)


def test_command_line(capsys, monkeypatch):
    assert cli.main(["prove", "exp", "--slice", "256/256", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "16777216 inputs, 0 results differ" in out
    assert "every chunk's hash equals the record" in out
    known = recorded("exp")
    monkeypatch.setattr(prove, "recorded", lambda function: {**known, "chunks": known["chunks"][::-1]})
    assert cli.main(["prove", "exp", "--slice", "256/256", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["unlike_recorded"] == [255]
    assert printed["chunks"] == {"255": known["chunks"][255]}
    for wrong in ("0/4", "5/4", "1", "1/257", "a/b"):
        with pytest.raises(SystemExit):
            cli.main(["prove", "exp", "--slice", wrong])


# The functions besides exp and sigmoid.


def formula(function):
    """Its formula in decimals, which shares nothing with refnet's."""
    op = prove.OPS[function]
    (found,) = (one for one in EXACTLY if one.op == op) if function != "selu" else (SELU,)
    return found


SELU = Exactly(prove.OPS["selu"], elu(prove.OPS["selu"].alpha, prove.OPS["selu"].scale, 1))


def inputs_of(function, count=150):
    """float32 of all sizes, both signs, special ones too; positive ones only for the logarithm."""
    x = np.concatenate([spread(count), AWKWARD[np.isfinite(AWKWARD)], np.float32([-13.9, -5.1, 3.9, 88.5])])
    return np.abs(x) if function == "log" else x


@OTHERS
def test_the_other_double_doubles_keep_their_error(function):
    op = prove.OPS[function]
    kind = double_double.NAMES.index(op.loop)
    above, below = (*op.parameters, 0.0, 0.0)[:2]
    worst = Fraction(0)
    for x in map(float, inputs_of(function)):
        exact = formula(function).value(x) if x else Fraction(0)
        if Fraction(1, 2**150) < abs(exact) < 2**128 and not (function == "erf" and abs(x) > 4):
            h, low = double_double._value(kind, x, above, below)
            worst = max(worst, abs(Fraction(h) + Fraction(low) - exact) / abs(exact))
    assert worst < Fraction(double_double.ERROR)


@OTHERS
def test_both_evaluations_round_correctly(function):
    """Against decimals of 200 digits, rounded by integers."""
    x = inputs_of(function)
    x = x[x != 0]
    exact = [formula(function).value(float(v)) for v in x]
    exact = [y if abs(y) > Fraction(1, 2**500) else Fraction(0) for y in exact]  # its 200 digits cancel
    zeros = np.zeros_like(x) if function == "softplus" else np.copysign(0, x)
    expected = np.array([round_float32(y, zero) for y, zero in zip(exact, zeros, strict=True)])
    assert same_bits(second(function, x)[0], expected)
    assert same_bits(prove.OPS[function].golden(x, exact=EXACT), expected)


@OTHERS
def test_what_is_open_is_settled_by_the_ops_decimals(function):
    x = inputs_of(function, 30)
    x = x[np.abs(x) < 120]
    narrow, _ = second(function, x)
    wide, opened = second(function, x, 2.0**-20)
    assert opened > 10
    assert same_bits(narrow, wide)


LOOKS = {"subnormal": 0x00000000, "2**-12": 0x39800000, "1": 0x3F800000, "4": 0x40800000, "16": 0x41800000}
"""Where 2**12 inputs of either sign are compared."""


@OTHERS
def test_golden_and_the_second_evaluation_agree(function):
    for start in LOOKS.values():
        for sign in (0, 1 << 31):
            x = np.arange(start + sign, start + sign + 4096, dtype=np.uint32).view(np.float32)
            assert same_bits(prove.OPS[function].golden(x, exact=EXACT), second(function, x)[0]), start


@OTHERS
def test_a_wrong_loop_is_found(small, monkeypatch, function):
    """A float64 evaluation that is off by more than it says."""
    index = 0x3F000000 >> 18
    assert prove.chunk(function, index).different == 0
    values = Function.values
    monkeypatch.setattr(Function, "values", lambda op, x, engine: values(op, x, engine) * (1 + 2.0**-30))
    if function in ("elu", "selu"):  # for positive x they are a product
        index += 1 << 13
    assert prove.chunk(function, index).different > 0


def test_a_function_without_a_record(capsys, monkeypatch):
    monkeypatch.setattr(prove, "recorded", lambda function: None)
    assert cli.main(["prove", "tanh", "--slice", "256/256", "--threads", "1"]) == 0
    assert "no whole run of tanh is on record" in capsys.readouterr().out
