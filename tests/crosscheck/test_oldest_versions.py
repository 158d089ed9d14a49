"""The oldest NumPy and Numba that pyproject.toml declares give the same bits as those of this environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib

import numba
import numpy as np
import pytest

import refnet
from refnet.arithmetic.plain import Plain
from refnet.formats.golden_file import read
from refnet.loops.jit import KNOWN
from refnet.models.inputs import prepare
from refnet.models.weights import shipped_folder
from refnet.verification.golden import hashes
from tests.crosscheck.conftest import ROOT, interpreter
from tests.kernels.test_kernels import LOADS

pytestmark = pytest.mark.crosscheck

GOLDEN = sorted((shipped_folder() / "golden").glob("*.json"))

PLAIN = """
import json, sys
from refnet.arithmetic.plain import Plain
from refnet.models.inputs import prepare
from refnet.verification.golden import hashes
from refnet.formats.golden_file import read

found = {}
for path in sys.argv[1:]:
    each = hashes(*prepare(read(path).sources), Plain(2))
    found[path] = {name: one.sha256 for name, one in each.items()}
print(json.dumps(found))
"""


def oldest(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run that environment's Python on this checkout, which is not installed there."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REFNET_QUIET": "1", "PYTHONWARNINGS": "error"}
    command = [str(interpreter("oldest")), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env=environment, cwd=ROOT
    )


def numbers(version: str) -> tuple[int, ...]:
    """1.8.1 as (1, 8, 1), and 2.0 as (2, 0, 0)."""
    found = [int(n) for n in version.split(".")]
    return tuple(found + [0] * (3 - len(found)))


def test_the_environment_has_exactly_the_declared_minimum_of_everything():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    least = dict(re.fullmatch(r"(\w+)>=([0-9.]+)", one).groups() for one in declared)
    script = "import json, sys; from importlib.metadata import version as v; "
    script += "print(json.dumps({name: v(name) for name in sys.argv[1:]}))"
    found = json.loads(oldest("-c", script, *least).stdout)
    assert {name: numbers(one) for name, one in found.items()} == {n: numbers(v) for n, v in least.items()}
    assert numbers(found["numpy"]) < numbers(np.__version__)
    assert numbers(found["numba"]) < numbers(numba.__version__)


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_golden_values(path):
    done = oldest("-m", "refnet", "golden", "--check", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{path}: equal, {len(read(path).values)} values\n"


def test_plain_values(report):
    """Every value in plain arithmetic; the weights of the two full networks are made there too."""
    done = oldest("-c", PLAIN, *map(str, GOLDEN))
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    assert len(theirs) == 4
    for path in GOLDEN:
        graph, inputs = prepare(read(path).sources)
        ours = {name: one.sha256 for name, one in hashes(graph, inputs, Plain(1)).items()}
        assert theirs[str(path)] == ours
        assert len(ours) == len(graph.nodes)
        report.append(f"  {graph.name}: {len(ours)} plain values, the same bits in the oldest versions")


def test_loading_a_kernel_imports_no_compiler(tmp_path, monkeypatch):
    """Loading uses what is no public part of Numba: the oldest version must have it, too."""
    monkeypatch.setenv("REFNET_CACHE", str(tmp_path))
    first, second = (oldest("-c", LOADS.format(known=KNOWN)) for _ in range(2))
    assert (first.returncode, second.returncode, second.stderr) == (0, 0, "")
    compiled, loaded = ([line.split() for line in done.stdout.splitlines()] for done in (first, second))
    assert [line[1] for line in compiled] == ["True", "True"]
    assert [line[1] for line in loaded] == ["False", "False"]
    assert [line[0] for line in loaded] == [line[0] for line in compiled]


def test_the_command_line_prints_the_same():
    """Images, tables and JSON, with the oldest Pillow and rich."""
    for argv in (["run"], ["run", "resnest-digits", "--json"], ["models"], ["summary", "resnest-digits"]):
        theirs = oldest("-m", "refnet", *argv)
        environment = {**os.environ, "REFNET_QUIET": "1"}
        command = [sys.executable, "-m", "refnet", *argv]
        ours = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
        assert (theirs.returncode, theirs.stderr) == (0, "")
        assert theirs.stdout == ours.stdout
    assert refnet.__version__ in oldest("-m", "refnet", "--version").stdout


PAGE = """
import re, refnet
from refnet.report.html import page
from tests.helpers.made_verification import verification

graph = refnet.load("resnest-digits")
made = verification(graph, verdicts={graph.nodes[20].name: "defect", graph.nodes[21].name: "missing"})
print(re.sub("base64,[A-Za-z0-9+/=]+", "base64,", page(made, capture="a capture <b>")))
"""
"""The HTML report without the bytes of its pictures, which Pillow compresses better or worse."""


def test_the_html_report_is_the_same():
    """The templates, with the oldest jinja2 and the MarkupSafe that comes with it."""
    theirs = oldest("-c", PAGE)
    assert (theirs.returncode, theirs.stderr) == (0, "")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REFNET_QUIET": "1"}
    command = [sys.executable, "-c", PAGE]
    ours = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    assert theirs.stdout.startswith("<!doctype html>")
    assert theirs.stdout == ours.stdout
