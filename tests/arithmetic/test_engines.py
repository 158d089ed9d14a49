"""The engine is a value that the arithmetic holds, chosen by a word; each works without the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.arithmetic.engines import MOST_THREADS, default_kernels, engine
from refnet.arithmetic.golden import Golden
from refnet.arithmetic.named import arithmetic
from refnet.arithmetic.plain import Plain
from refnet.cli import main
from refnet.core.errors import InputError
from tests.helpers.bits import floats, same_bits
from tests.helpers.readable import NETWORKS, WITHOUT_KERNELS, python, values_by_kernels, values_by_loops

BOOKS = Path(__file__).parents[2] / "weights" / "books"


def test_kernels_are_chosen_by_a_word():
    plain = Plain(2)
    assert (plain.kernels, plain.engine.name, plain.engine.threads) == ("fast", "fast", 2)
    assert Plain(2, "fast") == plain
    assert arithmetic("plain", 1, "fast").engine.name == "fast"
    for wrong in ("", "slow", None):
        with pytest.raises(InputError, match="kernels must be one of fast, reference"):
            Plain(kernels=wrong)
    with pytest.raises(InputError, match="golden is computed with the fast kernels only"):
        arithmetic("golden", kernels="reference")
    assert Golden(3).exact.engine.threads == Golden(3).engine.threads == 3


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "fast"), ("", "fast"), ("0", "fast"), ("1", "reference")]
)
def test_without_a_compiler_the_reference_computes(monkeypatch, value, expected):
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    if value is not None:
        monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    assert default_kernels() == expected


def test_without_a_compiler_what_needs_it_says_so(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    graph, x = refnet.load("resnest-digits"), {"data": floats((1, 1, 32, 32), "x")}
    for call in (
        lambda: Plain(kernels="fast"),
        Golden,
        lambda: refnet.verify({}, graph, inputs=x),
        lambda: refnet.explain(graph, "fc", (0, 1), inputs=x),
    ):
        with pytest.raises(InputError, match="needs the fast ones"):
            call()
    assert Plain().kernels == "reference"


def test_more_processors_than_threads_may_be_named(monkeypatch):
    """Nobody names a number of threads here: what the machine has is not checked like an argument."""
    monkeypatch.setattr("refnet.kernels.resources.processors", lambda: MOST_THREADS + 44)
    assert refnet.explain("resnest-digits", "fc", (0, 1), inputs="seed:0").element.terms is not None


def test_what_a_learner_reads_needs_no_kernels():
    modules = "core.interpreter", "core.exact", "core.orders", "ops"
    modules += tuple(f"arithmetic.{name}" for name in ("plain", "replay", "run", "named", "fused"))
    script = "\n".join(f"import refnet.{name}" for name in modules)
    assert python(f"{WITHOUT_KERNELS}{script}\nprint('numba' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_readable_part_runs_both_architectures_alone(name, tmp_path):
    """In plain and by their books, every value with the bits of the kernels, which are absent there."""
    assert values_by_loops(name, tmp_path, ("plain", "replay")) == values_by_kernels(
        name, ("plain", "replay")
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_compiler_every_value_has_the_same_bits(name, tmp_path):
    """Pure Python and NumPy, where a debugger can step into every loop."""
    words = ("plain", "replay")
    found = values_by_loops(name, tmp_path, words, NUMBA_DISABLE_JIT="1")
    assert found == values_by_kernels(name, words)


def test_the_reference_gives_the_same_bits_beside_the_fast_engine():
    for name in NETWORKS:
        graph = refnet.load(name)
        x = {"data": floats((1, *graph.inputs["data"].shape[1:]), "x")}
        slow, fast = Plain(kernels="reference"), Plain(1)
        assert engine("reference").name == slow.engine.name == "reference"
        values = {node.name: value.copy() for node, value in refnet.steps(graph, x, slow)}
        for node, value in refnet.steps(graph, x, fast):
            assert same_bits(values[node.name], value), node
        for _ in range(3):  # whatever the one keeps, the other does not see
            found = [refnet.run(graph, x, one)["prob"] for one in (slow, fast)]
            assert all(same_bits(value, values[graph.outputs["prob"]]) for value in found)


def test_the_command_line_has_both(tmp_path, capsys):
    np.save(tmp_path / "x.npy", floats((1, 1, 32, 32), "x"))
    made = {}
    for kernels in ("fast", "reference"):
        out = tmp_path / f"{kernels}.npy"
        command = ["run", "resnest-digits", "--input", str(tmp_path / "x.npy"), "--output", str(out)]
        assert main([*command, "--kernels", kernels]) == 0
        made[kernels] = np.load(out)
    capsys.readouterr()
    assert same_bits(made["fast"], made["reference"])
