"""The no-false-alarm campaign without its frameworks: inputs, streams, results that go on."""

from __future__ import annotations

import json

import numpy as np
import pytest

import refnet
from refnet.core.errors import InputError
from refnet.core.orders import Reference
from refnet.frameworks.capture.names import LIVE
from tests.crosscheck import campaign
from tests.crosscheck.campaign import INPUTS, PAIRS, Plan, Setting, Streamed

REFERENCE = Reference("refnet", "0", "", "AVX2", 1, 1, "plain", {})


@pytest.mark.parametrize("size", [224, 64])
def test_twenty_inputs_each_image_of_a_batch_its_own(size):
    made = {name: make((2, 3, size, size)) for name, make in INPUTS.items()}
    assert len(made) == 20
    assert len({x.tobytes() for x in made.values()}) == 20
    for name, x in made.items():
        assert (x.shape, x.dtype) == ((2, 3, size, size), np.float32), name
        assert np.isfinite(x).all()
    assert (made["subnormal"] != 0).any()
    assert (np.abs(made["subnormal"]) < 2.0**-126).all()
    assert not np.array_equal(made["digit 0"][0], made["digit 0"][1])


def test_the_whole_matrix():
    plan = Plan()
    assert len(plan.settings) == len({one.key for one in plan.settings}) == 20 * 6 * 2 * 2
    assert {PAIRS[pair][1] for pair in plan.pairs} == set(LIVE)


def streamed(values):
    return Streamed({"data": np.zeros(1)}, ("a", "b"), iter(values))


def test_a_stream_hands_over_what_comes_early_and_counts_what_nobody_wants():
    one, two = np.ones(1), np.full(1, 2.0)
    capture = streamed([("b", two), ("x", one), ("a", one), ("y", one)])
    assert capture.value("a") is one
    assert capture.value("b") is two
    capture.rest()
    assert capture.surplus == 2
    with pytest.raises(ValueError, match="made no value 'a'"):
        streamed([("b", two)]).value("a")
    left = streamed([("b", two), ("a", one)])
    left.value("a")
    with pytest.raises(ValueError, match="never judged"):
        left.rest()
    unread = streamed([("a", one), ("b", two)])
    unread.value("a")
    with pytest.raises(ValueError, match="never judged"):
        unread.rest()


def own(graph, wrong=None):
    """refnet as the framework, one value of it wrong."""

    def values(inputs):
        for node, value in refnet.steps(graph, inputs):
            yield node.name, value + np.float32(1) if node.name == wrong else value

    return values


def test_a_run_is_judged_and_a_wrong_value_is_a_defect():
    graph = refnet.load("resnest-digits")
    setting = Setting("onnx-resnest", 1, 1, "zeros", (32, 32))
    found = campaign.judged(setting, graph, own(graph))
    assert (found.exit_code, found.judged) == (0, len(graph.nodes))
    wrong = campaign.judged(setting, graph, own(graph, "prob"))
    said = campaign.line(setting, REFERENCE, wrong, 1.0)
    assert said["defects"] == ["prob"]
    assert json.loads(json.dumps(said)) == said


def test_results_go_on_where_they_were_cut_off(tmp_path, monkeypatch, capsys):
    graph = refnet.load("resnest-digits")

    def fake(plan, done):
        for setting in plan.settings:
            if setting.key not in done:
                wrong = "fc" if setting.input == "zeros" else None
                found = campaign.judged(setting, graph, own(graph, wrong))
                yield campaign.line(setting, REFERENCE, found, 0.1)

    monkeypatch.setattr(campaign, "run", fake)
    monkeypatch.setattr(campaign, "INPUTS", {name: INPUTS[name] for name in ("constant", "zeros")})
    path = tmp_path / "results.jsonl"
    arguments = [str(path), "--pairs", "onnx-resnest", "--threads", "1", "--batch", "1", "--image", "32,32"]
    assert campaign.main([*arguments, "--inputs", "1"]) == 0
    whole = path.read_text()
    path.write_text("{\n" + whole)
    with pytest.raises(InputError, match="no JSON"):
        campaign.lines(path)
    path.write_text(whole + whole[: len(whole) // 2])  # stopped in the middle of a line
    assert campaign.main(arguments) == 1
    assert path.read_text().startswith(whole)
    assert len(path.read_text().splitlines()) == 2
    assert "defects in" in capsys.readouterr().out
    assert campaign.main([*arguments, "--summary"]) == 1
    assert "| refnet 0 | resnest-50-pytorch | 32x32 | 1 | 1 | 2 |" in capsys.readouterr().out
