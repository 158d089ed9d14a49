"""Two captures value by value, whatever made them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from refnet.cli import main
from refnet.core.errors import InputError
from refnet.formats.manifest import file_name
from refnet.verification.capture import open_capture
from refnet.verification.diff import diff
from refnet.verification.verify import Values
from tests.helpers.bits import floats
from tests.helpers.verifying import save

F = np.float32


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    return {name: floats((2, 3, 4), name) for name in ("z", "a", "m/1")}


def compared(a: dict, b: dict) -> list[tuple]:
    return [(p.name, p.result, p.differ, p.ulps) for p in diff(Values(a), Values(b)).pairs]


def test_bits_are_compared_as_bits(values):
    other = {name: value.copy() for name, value in values.items()}
    assert compared(values, other) == [(name, "equal", 0, 0) for name in values]
    other["a"].view(np.uint32)[1, 2, 3] += 7
    other["a"].view(np.uint32)[0, 0, 0] += 1
    assert compared(values, other)[1] == ("a", "different", 2, 7)
    found = diff(Values(values), Values(other))
    assert found.exit_code == 1
    assert found.pairs[1].largest == np.abs(values["a"].astype(float) - other["a"]).max()


def test_zeros_nans_and_infinities(values):
    a = {"x": F([0.0, np.nan, np.inf, 1])}
    assert compared(a, {"x": F([-0.0, np.nan, np.inf, 1])}) == [("x", "different", 1, 0)]
    assert compared(a, {"x": -a["x"]})[0][2] == 3
    assert compared(a, {"x": F([0.0, 1, np.inf, 1])}) == [("x", "different", 1, -1)]
    assert diff(Values(a), Values({"x": F([0, np.nan, 5, 1])})).pairs[0].largest == 0.0


def test_shapes(values):
    flat = {**values, "a": values["a"].reshape(2, 12), "z": values["z"][:, :2]}
    assert compared(values, flat) == [
        ("z", "shape", None, None),
        ("a", "equal", 0, 0),
        ("m/1", "equal", 0, 0),
    ]


def test_values_that_only_one_has(values):
    found = diff(Values(values), Values({"a": values["a"], "new": values["z"]}))
    assert (found.only_a, found.only_b, found.exit_code) == (("z", "m/1"), ("new",), 1)
    with pytest.raises(InputError, match="no value in common"):
        diff(Values(values), Values({"new": values["z"]}))


def test_hashes_are_compared_where_there_is_no_more(values, tmp_path):
    full = save(tmp_path / "full", values)
    hashed = save(tmp_path / "hashed", {**values, "a": values["a"] + F(1)}, hash_only=True)
    for one, two in ((full, hashed), (hashed, full)):
        found = diff(open_capture(one), open_capture(two))
        assert [(p.name, p.result) for p in found.pairs] == [("z", "equal"), ("a", "hash"), ("m/1", "equal")]
        assert found.pairs[1].differ is None
    assert diff(open_capture(hashed), open_capture(hashed)).exit_code == 0


def test_the_command(values, tmp_path, capsys):
    a = save(tmp_path / "a", values)
    b = tmp_path / "b"
    b.mkdir()
    for name, value in values.items():
        np.save(b / file_name(name), value)
    assert main(["diff", str(a), str(b)]) == 0
    assert "3 values in both, none different" in capsys.readouterr().out
    np.save(b / "a.npy", values["a"] + F(1))
    assert main(["diff", str(a), str(b), "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert (record["first"], record["different"], record["values"]) == ("a", 1, 3)
    assert main(["diff", str(a), str(b)]) == 1
    assert "24 of 24" in capsys.readouterr().out
    assert main(["diff", str(a), str(tmp_path / "c")]) == 2
    (b / "a.npy").write_bytes(b"nonsense")
    assert main(["diff", str(a), str(b)]) == 2
