"""Whole networks give the same bits for any number of threads, any batch and any place in it."""

from __future__ import annotations

import numpy as np
import pytest

import refnet
from refnet.arithmetic.plain import Plain
from tests.helpers.bits import floats, same_bits


@pytest.mark.parametrize("name", ["octave-se-resnet-digits", "resnest-digits"])
def test_every_value_of_the_digits_networks(name):
    graph = refnet.load(name)
    x = floats((4, 1, 32, 32), name)
    batch = {n.name: v.copy() for n, v in refnet.steps(graph, {"data": x}, Plain(1))}
    assert len(batch) == len(graph.nodes)
    for node, value in refnet.steps(graph, {"data": x}, Plain(2)):
        assert same_bits(value, batch[node.name]), node.name
    for i in range(4):
        for threads in (1, 2):
            for node, value in refnet.steps(graph, {"data": x[i : i + 1]}, Plain(threads)):
                assert same_bits(value, batch[node.name][i : i + 1]), node.name


@pytest.mark.parametrize("name", ["octave-se-resnet-50-0.125", "resnest-50-pytorch"])
def test_the_outputs_of_the_full_networks(name):
    graph = refnet.load(name, weights="seed:0")
    x = floats((2, 3, 224, 224), name)
    batch = refnet.run(graph, {"data": x}, Plain(1))
    again = refnet.run(graph, {"data": x}, Plain(2))
    for output, values in batch.items():
        assert np.isfinite(values).all()
        assert same_bits(values, again[output])
        for i in range(2):
            alone = refnet.run(graph, {"data": x[i : i + 1]}, Plain(2 - i))[output]
            assert same_bits(alone, values[i : i + 1])
