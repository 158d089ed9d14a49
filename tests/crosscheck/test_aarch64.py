"""Plain and golden values of the digits networks on aarch64, in emulation: the bits of x86-64.

QEMU executes one process of that processor, with the wheels of NumPy and Numba for it. It is slow: to compile
the kernels takes minutes there. Golden and one network's fast kernels therefore run beside each other.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from refnet.arithmetic.plain import Plain
from refnet.formats.golden_file import read
from refnet.models.inputs import prepare
from refnet.models.weights import shipped_folder
from refnet.verification.golden import hashes
from tests.crosscheck.conftest import ROOT, interpreter

pytestmark = pytest.mark.crosscheck

NETWORKS = ("resnest-digits", "octave-se-resnet-digits")
GOLDEN = {name: shipped_folder() / "golden" / f"{name}.json" for name in NETWORKS}

VALUES = """
import json, platform, sys
from refnet.arithmetic.golden import Golden
from refnet.arithmetic.plain import Plain
from refnet.formats.golden_file import read
from refnet.models.inputs import prepare
from refnet.verification.golden import hashes

arithmetic = {
    "reference": lambda: Plain(1, kernels="reference"), "fast": lambda: Plain(1), "golden": lambda: Golden(1)
}
found = {"machine": platform.machine()}
for asked in sys.argv[1:]:
    kind, path = asked.split(":", 1)
    each = hashes(*prepare(read(path).sources), arithmetic[kind]())
    found[asked] = {name: one.sha256 for name, one in each.items()}
print(json.dumps(found))
"""
"""Prints the hashes of every value, for each KIND:GOLDEN_FILE."""

PROCESSES = (
    [f"golden:{GOLDEN['octave-se-resnet-digits']}"],
    [f"reference:{path}" for path in GOLDEN.values()] + [f"fast:{GOLDEN['resnest-digits']}"],
)
"""What each of two processes computes."""


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The hashes on aarch64 by KIND:GOLDEN_FILE. The kernels are compiled there, into a folder of its own."""
    cache = tmp_path_factory.mktemp("kernels", numbered=False)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REFNET_QUIET": "1", "REFNET_CACHE": str(cache)}
    started = [
        subprocess.Popen(
            [str(interpreter("aarch64")), "-c", VALUES, *asked],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )
        for asked in PROCESSES
    ]  # fmt: skip
    try:
        made = [(*process.communicate(timeout=900), process.returncode) for process in started]
    finally:
        for process in started:
            process.kill()
    found: dict[str, dict[str, str]] = {}
    for out, err, code in made:
        assert code == 0, err
        values = json.loads(out)
        assert values.pop("machine") == "aarch64"
        found |= values
    return found


@pytest.mark.parametrize("network", NETWORKS)
def test_plain_values_by_the_reference_loops(emulated, network, report):
    ours = _plain(network)
    assert emulated[f"reference:{GOLDEN[network]}"] == ours
    report.append(f"  {network}: {len(ours)} plain values by the reference loops, the same bits on aarch64")


def test_plain_values_by_the_fast_kernels(emulated, report):
    ours = _plain("resnest-digits")
    assert emulated[f"fast:{GOLDEN['resnest-digits']}"] == ours
    report.append(f"  resnest-digits: {len(ours)} plain values by the fast kernels, the same bits on aarch64")


def test_golden_values(emulated, report):
    path = GOLDEN["octave-se-resnet-digits"]
    committed = {name: one.sha256 for name, one in read(path).values.items()}
    assert emulated[f"golden:{path}"] == committed
    report.append(f"  octave-se-resnet-digits: {len(committed)} golden values, the committed hashes")


def _plain(network: str) -> dict[str, str]:
    """The hashes of every plain value here, by the fast kernels."""
    graph, inputs = prepare(read(GOLDEN[network]).sources)
    found = {name: one.sha256 for name, one in hashes(graph, inputs, Plain(1)).items()}
    assert len(found) == len(graph.nodes)
    return found
