"""The pytest plugin: a fixture `golden` that compares a port's arrays with golden values.

    def test_layer(golden):
        golden.check("layer1.0.conv2", my_layer(x))

Entry point `pytest11`, so pytest loads it by itself. It imports nothing but pytest until the fixture is
used, and NumPy's kernels only when a difference is to be shown or a bound computed. docs/golden.md has more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from refnet.verification.golden_check import Checker, GoldenSource, Updates

MARKER = "golden(path): compare with this golden file or folder (relative to the test's file)"
NONE_CHOSEN = (
    "the fixture golden needs a golden file, or a folder of .npy files: choose one with "
    "pytest --golden PATH, golden = PATH in pytest's ini file, or @pytest.mark.golden(PATH)"
)


@dataclass
class State:
    """What this pytest run has opened, and what --golden-update is to write."""

    references: dict[Path, GoldenSource] = field(default_factory=dict)
    updates: Updates | None = None


STATE = pytest.StashKey[State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--golden, --golden-update, --golden-reason, and `golden` in the ini file."""
    group = parser.getgroup("refnet", "golden values (refnet)")
    group.addoption("--golden", metavar="PATH", help="golden file, or folder of .npy files, to compare with")
    group.addoption(
        "--golden-update",
        action="store_true",
        help="show what differs, then write it into the golden file if the run passes",
    )
    group.addoption("--golden-reason", metavar="TEXT", help="why; recorded in the golden file's history")
    parser.addini("golden", "golden file, or folder of .npy files, relative to this file", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker; refuse an update without a reason or in several processes."""
    config.addinivalue_line("markers", MARKER)
    config.stash[STATE] = State()
    update, reason = config.getoption("golden_update"), config.getoption("golden_reason")
    if update and not (reason or "").strip():
        raise pytest.UsageError('--golden-update wants a reason: --golden-reason "TEXT"')
    if reason is not None and not update:
        raise pytest.UsageError("--golden-reason is the reason of a --golden-update: give both or none")
    spread = hasattr(config, "workerinput") or config.getoption("numprocesses", None)
    if update and spread:
        raise pytest.UsageError("--golden-update writes files: run it in one process, without -n")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Checker:
    """check(name, array, within=None | "bound", inputs="golden" | "checked"): a golden_check.Checker."""
    from refnet.core.errors import RefnetError
    from refnet.verification.golden_check import Checker, GoldenSource, Updates

    path, state = _chosen(request), request.config.stash[STATE]
    if request.config.getoption("golden_update") and state.updates is None:
        state.updates = Updates()
    if path not in state.references:
        fault = None
        try:
            state.references[path] = GoldenSource(path)
        except RefnetError as error:
            fault = str(error)
        if fault is not None:  # outside of the except: its own traceback is nobody's business
            pytest.fail(fault, pytrace=False)
    return Checker(state.references[path], state.updates)


def _chosen(request: pytest.FixtureRequest) -> Path:
    """The marker's path, else the command line's, else the ini file's; each relative to where it stands."""
    config = request.config
    marker = request.node.get_closest_marker("golden")
    if marker is not None:
        if len(marker.args) != 1 or marker.kwargs:
            pytest.fail(
                f"@pytest.mark.golden takes one path, got {marker.args} {marker.kwargs}", pytrace=False
            )
        name = marker.args[0]
        if not isinstance(name, str | os.PathLike) or "\0" in str(name):
            pytest.fail(f"@pytest.mark.golden takes a path, got {name!r}", pytrace=False)
        return Path(request.path.parent, name).resolve()
    if given := config.getoption("golden"):
        return Path(config.invocation_params.dir, given).resolve()
    if said := config.getini("golden"):
        return Path(config.inipath.parent if config.inipath else config.rootpath, said).resolve()
    pytest.fail(NONE_CHOSEN, pytrace=False)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
    """Show what --golden-update found different; then write it, if the run passed."""
    updates = session.config.stash[STATE].updates
    if updates is None:
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    say: Callable[[str], object] = reporter.write_line if reporter else _to_stderr
    say("\n\ngolden update:" if updates.pending else "\n\ngolden update: nothing differs")
    for path, pending in updates.pending.items():
        for _, _, text in pending.values():
            _say(say, text)
        if exitstatus:
            _say(say, f"{path}: not written, because the run did not pass")
        elif not _written(say, path, updates, session.config.getoption("golden_reason")):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _written(say: Callable[[str], object], path: Path, updates: Updates, reason: str) -> bool:
    from refnet.core.errors import RefnetError
    from refnet.verification.golden_check import accept

    try:
        written = accept(path, updates.pending[path], reason)
    except RefnetError as error:
        _say(say, f"not written: {error}")
        return False
    _say(say, f"{written}: values written: {len(updates.pending[path])}")
    return True


def _say(say: Callable[[str], object], text: str) -> None:
    from refnet.report.terminal import clean

    for line in text.splitlines():
        say(clean(line))


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the golden values that were kept on disk."""
    state = config.stash.get(STATE, None)
    for reference in state.references.values() if state else ():
        reference.close()
