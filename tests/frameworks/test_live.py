"""The sweep over a framework's function, asked of a worker that answers with refnet's own formulas."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from refnet import cli, ops
from refnet.core.errors import InputError
from refnet.frameworks import live
from refnet.frameworks.process import Worker

ROOT = Path(__file__).parents[2]
STUB = """
import sys
sys.path.insert(0, {root!r})
import numpy as np
from refnet.kernels.engine import Fast
from refnet.ops import Sigmoid

def op(request, arrays, emit):
    x = arrays["x"]
    y = Sigmoid().replay({formula!r}, x, engine=Fast())
    y[x.view(np.uint32) == 0x42220001] -= np.float32(2**-24)
    return {{}}, {{"y": y}}

def info(request, arrays, emit):
    return {{"version": "0.0"}}, {{}}

COMMANDS = {{"op": op, "info": info}}
"""


def stub(folder: Path, formula: str) -> Worker:
    path = folder / "stub_worker.py"
    path.write_text(STUB.format(root=str(ROOT), formula=formula))
    return Worker(path, sys.executable)


def test_a_sweep_finds_one_wrong_bit_in_a_chunk(tmp_path):
    with stub(tmp_path, "onednn") as worker:
        right = live.sweep(worker, "mxnet", "sigmoid", [0x3F])
        assert right.identical == ("onednn",)
        assert right.inputs == 1 << 24
        (found,) = live.sweep(worker, "mxnet", "sigmoid", [0x42], "onednn").found
        assert found == live.Found("onednn", 1 << 24, 1, 0x42220001)


def test_a_sweep_of_a_function_that_no_formula_has(tmp_path):
    path = tmp_path / "odd_worker.py"
    path.write_text(
        STUB.format(root=str(ROOT), formula="sleef").replace("2**-24", "-1").replace("== 0x", "> 0x")
    )
    with Worker(path, sys.executable) as worker:
        nothing = live.sweep(worker, "torch", "sigmoid", [0])
    assert nothing.identical == ()
    assert {one.formula for one in nothing.found} == set(ops.Sigmoid.formulas)
    assert all(one.different for one in nothing.found)


def test_what_a_sweep_refuses(tmp_path):
    with stub(tmp_path, "sleef") as worker:
        for arguments, words in (
            (("jax", "sigmoid"), "framework must be one of torch, mxnet, onnx"),
            (("torch", "nd-sigmoid"), "of torch: exp, log, tanh"),
            (("torch", "sigmoid", [256]), "chunks must be 0 to 255"),
            (("torch", "sigmoid", []), "chunks must be 0 to 255"),
            (("torch", "sigmoid", [0], "fast"), "formula must be one of sleef"),
        ):
            with pytest.raises(InputError, match=words):
                live.sweep(worker, *arguments)


@pytest.mark.parametrize(("formula", "part", "code"), [("mlas", "64/256", 0), ("mlas", "67/256", 1)])
def test_the_command_says_whether_all_are_equal(tmp_path, monkeypatch, capsys, formula, part, code):
    monkeypatch.setattr(live, "worker", lambda *_: stub(tmp_path, formula))
    asked = ["prove", "sigmoid", "--framework", "onnxruntime", "--python", sys.executable, "--slice", part]
    assert cli.main([*asked, "--environment", "A=B"]) == code
    said = capsys.readouterr().out
    assert ("1 result differs" if code else "0 results differ") in said
    assert ("identical: mlas" in said) == (code == 0)


def test_the_command_refuses_what_does_not_belong_together(capsys):
    for arguments, words in (
        (["softmax"], "softmax: needs --framework"),
        (["sigmoid", "--formula", "sleef"], "sigmoid: needs --framework"),
        (["nd-sigmoid", "--framework", "torch"], "of torch: exp, log, tanh"),
        (["sigmoid", "--framework", "torch", "--state", "s"], "--state is for golden proofs"),
        (["sigmoid", "--framework", "torch", "--python", "/no/such"], "no such file"),
    ):
        assert cli.main(["prove", *arguments]) == 2
        assert words in capsys.readouterr().err
