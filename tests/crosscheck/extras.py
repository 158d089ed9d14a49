"""The Python that has the packages which single crosschecks need (timm, opencv-python-headless)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

VARIABLE = "REFNET_TEST_EXTRAS"


def interpreter() -> str:
    """Path of that Python: REFNET_TEST_EXTRAS, or else the one that runs the tests."""
    return os.environ.get(VARIABLE) or sys.executable


def ask(package: str, program: str, *arguments: str) -> Any:
    """Run a program there that prints JSON; the test fails if it cannot, as when the package is missing."""
    command = [interpreter(), "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.fail(f"{interpreter()} needs the package {package} (set {VARIABLE}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)
