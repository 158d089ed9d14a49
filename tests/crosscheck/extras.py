"""The Python that has the packages which single crosschecks need (timm, opencv-python-headless)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "REFNET_TEST_EXTRAS"
ROOT = Path(__file__).parents[2]


def interpreter() -> str:
    """Path of that Python: REFNET_TEST_EXTRAS, or else that of .ci/environments.sh."""
    return os.environ.get(VARIABLE) or str(ROOT / ".venv-extras" / "bin" / "python")


def ask(package: str, program: str, *arguments: str) -> Any:
    """Run a program there that prints JSON; the test fails if it cannot, as when the package is missing."""
    if not Path(interpreter()).exists():
        pytest.fail(f"no Python at {interpreter()}: run .ci/environments.sh or set {VARIABLE}")
    command = [interpreter(), "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.fail(f"{interpreter()} needs the package {package} (set {VARIABLE}):\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)
