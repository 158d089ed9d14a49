"""Everything once, in a few seconds: both digits networks from Python, one value each, the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from tests.helpers.engines import FAST

SAMPLES = sorted((shipped_folder() / "digits").glob("*.png"))


@pytest.mark.parametrize("name", ["octave-se-resnet-digits", "resnest-digits"])
def test_a_digits_network_knows_the_sample_digits(name):
    graph = refnet.load(name)
    x = np.concatenate([pipeline("digits").apply(path) for path in SAMPLES])
    prob = refnet.run(graph, {"data": x})["prob"]
    assert prob.dtype == np.float32
    assert prob.shape == (len(SAMPLES), 10)
    assert [int(i) for i in prob.argmax(1)] == [int(path.stem[-1]) for path in SAMPLES]
    assert (prob >= 0).all()
    assert (prob <= 1).all()


def test_steps_yields_every_value_and_a_sum_is_what_it_says():
    graph = refnet.load("octave-se-resnet-digits")
    x = pipeline("digits").apply(SAMPLES[0])
    values = {node.name: value for node, value in refnet.steps(graph, {"data": x})}
    assert list(values) == [node.name for node in graph.nodes]
    types = graph.types()
    assert all(value.shape == types[name].shape for name, value in values.items())
    node = next(n for n in graph.nodes if type(n.op).__name__ == "Add" and len(n.data) == 2)
    a, b = (values[name] for name in node.data)
    assert (a + b).view(np.uint32).tolist() == values[node.name].view(np.uint32).tolist()


def test_the_softmax_and_the_bound_agree():
    graph = refnet.load("resnest-digits")
    x = pipeline("digits").apply(SAMPLES[0])
    found = refnet.run(graph, {"data": x}, values=["fc", "prob"])
    bound = graph.by_name["prob"].op.bound(refnet.ops.Interval.exactly(found["fc"]), engine=FAST)
    assert (np.abs(found["prob"] - bound.center) <= bound.radius).all()
    another = np.roll(found["prob"], 1, axis=1)
    assert (np.abs(another - bound.center) > bound.radius).any()


def test_the_command_line_lists_both(capsys):
    assert main(["models", "--json"]) == 0
    names = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert {"octave-se-resnet-digits", "resnest-digits", "octave-se-resnet-50-0.125"} <= names
