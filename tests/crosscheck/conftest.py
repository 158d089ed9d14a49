"""The framework processes that the crosschecks talk to, one each for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from refnet.frameworks import live
from refnet.frameworks.capture.names import PLACES, variable
from refnet.frameworks.process import Worker
from tests.crosscheck import browser as chromium

ROOT = Path(__file__).parents[2]
collect_ignore = [
    "foreign_bug_modules.py",
    "foreign_modules.py",
    "modules.py",
    "mxnet_models.py",
    "normalising_modules.py",
    "spatial_modules.py",
    "token_modules.py",
    "zoo_modules.py",
]
"""What PyTorch's own interpreter imports."""
NAMES = {"onnx": "onnxruntime"}
"""The environment that has a framework -> the framework, where they differ."""
for _name, _place in PLACES.items():
    os.environ.setdefault(variable(_name), str(ROOT / f".venv-{_place}/bin/python"))
REPORT = "crosscheck"
"""The property of a test that holds its lines: pytest-xdist brings it from the process that ran the test."""


def interpreter(framework: str) -> Path:
    """The Python that has a framework. A missing one is a failure: nothing is skipped here."""
    named = variable(NAMES.get(framework, framework))
    path = Path(os.environ.get(named) or ROOT / f".venv-{framework}/bin/python")
    if not path.exists():
        pytest.fail(f"no Python with {framework} at {path}: run .ci/environments.sh or set {named}")
    return path


@pytest.fixture(scope="session")
def mxnet() -> Iterator[Worker]:
    """MXNet 1.9.1 on one thread, every node executed as written (no fused subgraphs)."""
    environment = {"MXNET_SUBGRAPH_BACKEND": "NONE"}
    with Worker("mxnet", interpreter("mxnet"), threads=1, environment=environment) as worker:
        assert worker.ask("info").fields["version"] == "1.9.1"
        yield worker


@pytest.fixture(scope="session")
def torch() -> Iterator[Worker]:
    """PyTorch 2.13.0 on one thread."""
    with Worker("torch", interpreter("torch"), threads=1) as worker:
        assert worker.ask("info", {"threads": 1}).fields["version"].split("+")[0] == "2.13.0"
        yield worker


class Frameworks:
    """Workers by framework and environment, started once."""

    def __init__(self) -> None:
        self.started: dict[tuple[str, ...], Worker] = {}

    def __call__(self, framework: str, *environment: str) -> Worker:
        key = (framework, *environment)
        if key not in self.started:
            variables = dict(word.split("=", 1) for word in environment)
            self.started[key] = live.worker(framework, str(interpreter(framework)), variables)
        return self.started[key]

    def compare(
        self,
        framework: str,
        function: str,
        formula: str,
        chunks: Sequence[int],
        environment: Sequence[str],
    ) -> str:
        """`refnet prove FUNCTION --framework FRAMEWORK` on some chunks; the formula must give every bit."""
        found = live.sweep(self(framework, *environment), framework, function, chunks, formula)
        assert found.found == (live.Found(formula, len(chunks) << 24, 0, None),)
        return f"{framework} {function} {' '.join(environment)}: {formula}, {found.inputs} inputs"


@pytest.fixture(scope="module")
def frameworks() -> Iterator[Frameworks]:
    found = Frameworks()
    yield found
    for worker in found.started.values():
        worker.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    driver = chromium.start()
    driver.set_script_timeout(170)
    yield driver
    driver.quit()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines that the end of the test run shows, whether the tests passed or not."""
    lines = [f"{request.node.name}:"]
    request.node.user_properties.append((REPORT, lines))
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the collected lines."""
    ended = [one for some in terminalreporter.stats.values() for one in some]
    properties = [pair for one in ended if getattr(one, "when", "") == "call" for pair in one.user_properties]
    if lines := [line for name, lines in properties if name == REPORT for line in lines]:
        terminalreporter.section("crosscheck")
        for line in lines:
            terminalreporter.write_line(line)
