"""How `pytest -n` deals the tests out: in stretches, so that what the tests of a file share is made once."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker begins with a part of the list and then takes from the others'; by default pytest-xdist
    deals neighbouring tests to all workers, and each makes their networks and loads their kernels."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)
