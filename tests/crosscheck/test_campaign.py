"""A slice of the no-false-alarm campaign: two inputs on each network and framework, every value judged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refnet.ops import BatchNorm
from tests.crosscheck import campaign
from tests.crosscheck.campaign import PAIRS, Plan, run

pytestmark = pytest.mark.crosscheck

SLICE = ("digit 0", "subnormal")
IMAGE = (128, 128)
"""The campaign itself has 224 x 224; test_verify_real.py judges both networks at that size."""


@pytest.mark.parametrize("pair", PAIRS)
def test_no_value_of_a_real_framework_is_a_defect(pair: str, report: list[str]) -> None:
    found = list(run(Plan((pair,), (2,), (1,), SLICE, IMAGE), set()))
    assert [one["setting"]["input"] for one in found] == list(SLICE)
    for one in found:
        assert one["defects"] == []
        assert one["counts"]["unjudged"] == 0, one["unjudged"]
        assert one["counts"]["missing"] == len(PAIRS[pair][2])
        assert one["differ"] > 0  # not refnet with itself
    report.append(campaign.summary(found))


@pytest.mark.parametrize("pair", ["onnx-resnest", "openvino-resnest"])
def test_the_campaign_finds_a_network_that_is_another(pair: str) -> None:
    """The control: the framework is given the right network, refnet one with another epsilon."""
    right = campaign.network("resnest-50-pytorch", (64, 64))
    nodes = tuple(
        replace(n, op=replace(n.op, eps=1e-4)) if isinstance(n.op, BatchNorm) else n for n in right.nodes
    )
    other = replace(right, nodes=nodes)
    setting = Plan((pair,), (1,), (1,), ("normal 1",), (64, 64)).settings[0]
    with campaign.source(setting) as capture:
        assert capture.again is not None
        found = campaign.judged(setting, other, capture.again)
    norms = [node.name for node in other.nodes if isinstance(node.op, BatchNorm)]
    defects = [node.name for node in found.nodes if node.verdict == "defect"]
    assert defects[0] == norms[0]
    assert set(defects) <= set(norms)
    assert len(defects) > len(norms) / 2
