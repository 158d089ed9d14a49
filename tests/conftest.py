"""How `pytest -n` shares work: tests in stretches, so that what the tests of a file share is made once; and
modules compiled once for all processes."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def pytest_configure() -> None:
    """Let the workers and every process that a test starts keep their bytecode, in __pycache__, whatever the
    environment says: without it each of them compiles refnet anew, and each worker rewrites every test."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Each worker first imports test files that are its own, and so finds the others' compiled: two thirds of
    the time of collecting. A file that cannot be imported is reported when it is collected."""
    config = session.config
    worker = getattr(config, "workerinput", None)
    if worker is None or config.args != config.getini("testpaths"):
        return
    at, workers = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in sorted(HERE.rglob("test_*.py"))[at::workers]:
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(path.relative_to(HERE.parent).with_suffix("").parts))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker begins with a part of the list and then takes from the others'; by default pytest-xdist
    deals neighbouring tests to all workers, and each makes their networks and loads their kernels."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)
