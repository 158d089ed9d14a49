"""The public names: all there, documented with an example, and hidden by no module of the same name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import refnet

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
FUNCTIONS = {
    "load",
    "run",
    "steps",
    "capture",
    "open_capture",
    "verify",
    "explain",
    "diff",
    "reveal",
    "read_book",
}
FUNCTIONS |= {"write_golden", "check_golden"}
CLASSES = {"Graph", "Node", "TensorType", "Plain", "Golden", "Replay", "Book", "Capture", "CaptureResult"}
CLASSES |= {"Verification", "Judgement", "Output", "Explanation", "Diff", "ValueDiff", "Revealed"}
CLASSES |= {"GoldenFile", "GoldenDifference"}
ERRORS = {"RefnetError", "FormatError", "UnsupportedError", "GraphError", "WeightsError", "InputError"}
ERRORS |= {"FetchError", "FrameworkError"}
NAMES = sorted(FUNCTIONS | CLASSES | ERRORS)


def test_these_are_the_public_names():
    assert set(refnet.__all__) == {*NAMES, "__version__"}
    assert set(dir(refnet)) == set(refnet.__all__)
    assert list(refnet.__all__) == sorted(refnet.__all__, key=lambda name: (not name[0].isupper(), name))


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_docstring_with_an_example_and_stands_on_the_page(name):
    documented = getattr(refnet, name).__doc__
    assert ">>> " in documented, name
    assert re.search(rf"`[^`]*\b{name}\b[^`]*`", PAGE), f"docs/api.md does not name {name}"


def test_every_function_has_a_runnable_example_on_the_page():
    run = "".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    for name in FUNCTIONS - {
        "reveal"
    }:  # it needs a framework: tests/crosscheck/test_public_reveal.py runs it
        assert f"refnet.{name}(" in run, name


def test_all_errors_are_refnet_errors():
    for name in ERRORS:
        assert issubclass(getattr(refnet, name), refnet.RefnetError)


def test_no_module_hides_a_public_name():
    """Importing a module sets it as an attribute of its package: none may have a public name."""
    script = """
import importlib, pkgutil, types, refnet
for found in pkgutil.walk_packages(refnet.__path__, "refnet."):
    if not found.name.endswith(("_worker", "__main__", "channel")) and "_weights" not in found.name:
        importlib.import_module(found.name)
for name in refnet.__all__:
    value = getattr(refnet, name)
    assert not isinstance(value, types.ModuleType), name
    assert name not in vars(refnet) or name == "__version__", f"{name} is set in the package"
for name in ("verify", "run", "capture", "reveal", "diff", "explain"):
    assert isinstance(getattr(refnet, name), types.FunctionType), name
    assert getattr(refnet, name).__name__ == name
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_importing_a_public_name_loads_what_it_needs_only():
    script = "import sys, refnet; refnet.RefnetError, refnet.Plain; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
