"""The public names: all there, documented with an example, and hidden by no module of the same name."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import refnet

PAGE = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
FUNCTIONS = {
    "load",
    "run",
    "steps",
    "capture",
    "capture_torch",
    "open_capture",
    "verify",
    "explain",
    "diff",
    "reveal",
    "read_book",
}
FUNCTIONS |= {"write_golden", "check_golden", "limits", "evaluate"}
CLASSES = {"Graph", "Node", "TensorType", "Plain", "Golden", "Replay", "Book", "Capture", "CaptureResult"}
CLASSES |= {"Verification", "Judgement", "Output", "Explanation", "Diff", "ValueDiff", "Revealed"}
CLASSES |= {"GoldenFile", "GoldenDifference", "Evaluation", "FeatureMaps"}
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
    # they need a framework: tests/crosscheck/test_public_reveal.py and test_torch_module_commands.py run them
    for name in FUNCTIONS - {"reveal", "capture_torch"}:
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


def test_arguments_that_do_not_fit_are_errors_of_refnets_own(tmp_path):
    graph, x = refnet.load("resnest-digits"), {"data": np.zeros((1, 1, 32, 32), np.float32)}
    bare = dataclasses.replace(graph, weights={})
    for threads in (0, -1, "2"):
        with pytest.raises(refnet.InputError, match="threads must be a whole number"):
            refnet.verify({}, graph, inputs=x, threads=threads)
        with pytest.raises(refnet.InputError, match="threads must be a whole number"):
            refnet.explain(graph, "fc", (0, 1), inputs=x, threads=threads)
    for call in (
        lambda: refnet.verify({"fc": np.zeros((1, 10), np.float32)}, bare, inputs=x),
        lambda: refnet.explain(bare, "fc", (0, 1), inputs=x),
    ):
        with pytest.raises(refnet.WeightsError, match="has no weights yet"):
            call()
    for call in (
        lambda: refnet.write_golden(tmp_path / "golden.json", "resnest-digits", "seed:0", batch=0),
        lambda: refnet.check_golden(tmp_path / "golden.json", batch=-2),
        lambda: refnet.capture("refnet", "resnest-digits", tmp_path / "capture", batch=0),
    ):
        with pytest.raises(refnet.InputError, match="batch must be 1 or more"):
            call()
    assert list(tmp_path.iterdir()) == []
    one, wide = {"y": np.float32([1])}, {"y": np.float64([1 + 1e-12])}
    for pair in ((one, wide), (wide, one), (wide, wide)):
        with pytest.raises(refnet.InputError, match="y: must be float32, got float64"):
            refnet.diff(*pair)
    with pytest.raises(refnet.InputError, match="avgpool: must be float32, got float64"):
        refnet.explain(graph, "fc", (0, 1), capture={"avgpool": np.zeros((1, 128))}, inputs=x)
    with pytest.raises(refnet.InputError, match="data: must be an array, got list"):
        refnet.verify({}, graph, inputs={"data": [0.0]})
    (listed,) = refnet.verify({"fc": [0.0]}, graph, inputs=x, only=["fc"]).nodes
    assert (listed.verdict, listed.reason) == ("unjudged", "fc: must be an array, got list")
    node = refnet.Node("y", graph.by_name["relu"].op, ("x",))
    number = refnet.Graph("number", {"x": refnet.TensorType(())}, (node,), {"out": "y"})
    with pytest.raises(refnet.InputError, match=r"input 'x' must be \[batch\], got \[\]"):
        refnet.run(number, {"x": np.float32([1]).reshape(())})


ODD = (5, 1.5, b"x", object(), [5], (0, 1.5), {5: 5}, np.float32(1), np.zeros(2), True, "no such thing", "\0")
"""What no argument, or hardly any, may be."""
NEEDED = {"load": "model", "run": "graph inputs", "steps": "graph inputs", "open_capture": "folder"}
NEEDED |= {"limits": "", "verify": "capture only", "explain": "node at", "diff": "a b", "read_book": "path"}
NEEDED |= {"write_golden": "path model inputs batch", "check_golden": "path batch", "evaluate": "model"}
NEEDED |= {"capture": "framework model folder threads", "reveal": "framework model book threads"}
NEEDED |= {"capture_torch": "module inputs folder"}
"""Function -> the arguments for which None will not do."""


class Module:
    """What refnet asks of a torch.nn.Module before it needs torch."""

    def forward(self, x):
        return x

    def state_dict(self):
        return {}

    def modules(self):
        return [self]

    training = False

    def eval(self):
        pass


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> dict[str, dict[str, object]]:
    """Function -> arguments with which it works, or fails only because a file or a framework is not there."""
    folder = tmp_path_factory.mktemp("calls")
    graph, x = refnet.load("resnest-digits"), {"data": np.zeros((1, 1, 32, 32), np.float32)}
    captured = {"fc": np.zeros((1, 10), np.float32)}
    asked = {"model": "resnest-digits", "weights": "seed:0", "python": str(folder / "python")}
    return {
        "load": {"model": "resnest-digits"},
        "limits": {"operations": 1e12},
        "run": {"graph": graph, "inputs": x},
        "steps": {"graph": graph, "inputs": x},
        "open_capture": {"folder": folder},
        "verify": {"capture": captured, "model": graph, "inputs": x, "only": ["fc"]},
        "explain": {"model": graph, "node": "fc", "at": (0, 1), "inputs": x},
        "diff": {"a": captured, "b": captured},
        "read_book": {"path": folder / "book.json"},
        "write_golden": {"path": folder / "no" / "x.json", "model": "resnest-digits", "inputs": "sample:x"},
        "check_golden": {"path": folder / "golden.json"},
        "evaluate": {"model": "resnest-digits", "images": folder},
        "capture": {"framework": "mxnet", "folder": folder / "capture", **asked},
        "capture_torch": {"module": Module(), "inputs": x["data"], "folder": folder / "capture"},
        "reveal": {"framework": "mxnet", "book": folder / "book.json", **asked},
    }


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_an_odd_argument_is_an_input_error_that_names_it(name, calls):
    """Whatever the argument: an error of refnet's own, or it is a right value; nothing else ends the call."""
    function, usual = getattr(refnet, name), calls[name]
    for argument in inspect.signature(function).parameters:
        odd = (*ODD, None) if argument in NEEDED[name].split() else ODD
        for value in odd:
            try:
                made = function(**{**usual, argument: value})
                if name == "limits":
                    with made:
                        pass
            except refnet.InputError as error:
                told = str(error)
                if value is None or type(value) is object:
                    assert argument in told, (argument, value, told)
            except refnet.RefnetError:
                pass


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda g, x: refnet.run(g, x, arithmetic="golden"),
            "must be an arithmetic such as .*'golden'",
        ),
        (lambda g, x: refnet.run(g, x, refnet.Golden), "arithmetic must be"),
        (lambda g, x: refnet.run("resnest-digits", x), "graph must be a Graph, .* got 'resnest-digits'"),
        (lambda g, x: refnet.run(g, x, values="fc"), "values must be a list of names, got 'fc'"),
        (lambda g, x: refnet.steps(g, x, until=3), "until must be a list of names, got 3"),
        (lambda g, x: refnet.verify(5, g), "capture must be a folder, .* got 5"),
        (lambda g, x: refnet.verify({}, g, only="fc"), "only must be a list of names"),
        (lambda g, x: refnet.verify({}, 5), "model must be a name, a path or a Graph, got 5"),
        (
            lambda g, x: refnet.verify({}, g, inputs=5),
            "inputs must be a path, .*, got 5",
        ),
        (lambda g, x: refnet.verify({}, g, book=5), "book must be a path or a Book, got 5"),
        (lambda g, x: refnet.verify({}, g, image=5), r"image must be a size \(h, w\), got 5"),
        (lambda g, x: refnet.verify({}, g, inputs=x, progress=5), "progress must be a function"),
        (
            lambda g, x: refnet.explain(g, "fc", (0, 1.5), inputs=x),
            r"at must be the .* got \(0, 1.5\)",
        ),
        (lambda g, x: refnet.explain(g, "fc", 3, inputs=x), "at must be the indices of an element, .* got 3"),
        (lambda g, x: refnet.explain(g, ["fc"], (0, 1), inputs=x), "node must be the name of a node"),
        (lambda g, x: refnet.diff(5, {}), "a must be a folder"),
        (lambda g, x: refnet.diff({}, None), "b must be a folder"),
        (lambda g, x: refnet.open_capture(5), "folder must be a path, got 5"),
        (lambda g, x: refnet.read_book(b"x"), "path must be a path, got b'x'"),
        (lambda g, x: refnet.Replay(5), "book must be a Book"),
        (
            lambda g, x: refnet.write_golden("x.json", g, "seed:0"),
            "model must be a name or a path",
        ),
        (lambda g, x: refnet.write_golden("x.json", "resnest-digits", x), "inputs must be a path"),
        (lambda g, x: refnet.check_golden(None), "path must be a path, got None"),
        (lambda g, x: refnet.capture("refnet", g, "c"), "model must be a name or a path"),
        (lambda g, x: refnet.capture("refnet", "resnest-digits", "c", inputs=x), "inputs must be seed:N"),
        (
            lambda g, x: refnet.capture("torch", "a:b", "c", environment={"A": 1}),
            "environment must be",
        ),
        (
            lambda g, x: refnet.capture("torch", "a:b", "c", timeout="x"),
            "timeout must be a number",
        ),
        (lambda g, x: refnet.reveal("torch", "resnest-50-pytorch", None), "book must be a path, got None"),
    ],
)
def test_the_error_names_the_argument_and_its_value(call, said):
    graph, x = refnet.load("resnest-digits"), {"data": np.zeros((1, 1, 32, 32), np.float32)}
    with pytest.raises(refnet.InputError, match=said):
        call(graph, x)
