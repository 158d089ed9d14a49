"""Networks of foreign_modules.py in PyTorch and ONNX Runtime: no defect as they are, one where a bug is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.crosscheck.foreign_bug_table import BUGS, Bug
from tests.crosscheck.foreign_bugs import run, wrong
from tests.crosscheck.foreign_networks import OWN, Setting, judged
from tests.crosscheck.foreign_networks import wrong as fault

pytestmark = pytest.mark.crosscheck

SIX = ("unet", "unet_bilinear", "espcn", "yolo_like", "style_transfer", "small_transformer")
OPAQUE = {("yolo_like", "torch"): {"SplitToSequence", "SequenceAt"}}
"""What refnet does not have: as which the newer exporter writes `chunk`."""
PLANTED = (
    "leaky relu's slope 0.01",
    "square weight transposed",
    "pixel shuffle DCR for CRD",
    "activations through float16",
)


RUNS = [*((network, route) for network in SIX for route in ("legacy", "torch"))]
RUNS += [("unet", "dynamo"), ("unet", "matched")]


@pytest.mark.parametrize(("network", "route"), RUNS)
def test_a_foreign_network_has_no_defect(network: str, route: str, report: list[str]) -> None:
    assert network in OWN
    line = judged(Setting(network, route, 64))
    assert not line["failed"]
    assert fault(line) is None
    assert line["counts"]["defect"] == 0
    opaque = {why.split(":")[0] for why in line["unjudged"]}
    assert opaque <= OPAQUE.get((network, route), set())
    assert line["counts"]["rounding"] > 0  # not refnet with itself
    report.append(f"{line['nodes']} nodes, {line['counts']}")


def test_planted_bugs_are_found_where_they_are(report: list[str]) -> None:
    bugs = [bug for bug in BUGS if bug.name in PLANTED]
    assert len(bugs) == len(PLANTED)
    found = list(run(bugs, set()))
    assert [wrong(line) for line in found] == [None] * len(found)
    assert sum(not line["bug"] for line in found) == 2  # each network once as it is
    report.extend(f"{line['bug']}: {line['defects']}" for line in found)


def test_a_bug_that_is_not_there_is_not_found() -> None:
    """The control: what is said of a plant that changes nothing, and of a defect at another node."""
    bug = next(one for one in BUGS if one.name == "pixel shuffle DCR for CRD")
    nothing = Bug("nothing", "", "espcn", "OUTPUT", lambda edit: None)
    elsewhere = replace(bug, name="elsewhere", plant=lambda edit: edit.set(mode="DCR"), node="OUTPUT")
    _, first, second = run([nothing, elsewhere], set())
    assert wrong(first) is not None
    assert wrong(second) is None
    assert wrong({**second, "node": "/3/Tanh_output_0"}) is not None
