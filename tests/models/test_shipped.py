"""What ships for `refnet verify`: every value of the digits networks has MXNet's and PyTorch's bits."""

from __future__ import annotations

import json

import numpy as np
import pytest

import refnet
from refnet.arithmetic.replay import Replay
from refnet.cli import main
from refnet.formats.book import read
from refnet.models.weights import SMALL, shipped_captures
from refnet.verification.capture import open_capture
from refnet.verification.verify import verify_values

FULL = ("octave-se-resnet-50-0.125", "resnest-50-pytorch")


def test_refnet_verify_shows_that_every_value_has_the_frameworks_bits(capsys):
    assert main(["verify", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [one["graph"]["name"] for one in records] == sorted(SMALL)
    for one in records:
        assert one["summary"]["equal"] + one["summary"]["replayed"] >= 96
        for verdict in ("rounding", "defect", "unjudged"):
            assert one["summary"][verdict] == 0, one["graph"]["name"]


def test_it_says_so(capsys):
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    assert "all 326 captured values are equal or replayed: refnet computes the frameworks' exact bits" in out
    assert "--full" in out
    who = "resnest-digits by torch 2.13.0+cpu, ATen AVX2, oneDNN Intel AVX2, 1 thread, batch 1, eager"
    assert who in out.splitlines()  # one line, without PyTorch's build text


@pytest.mark.parametrize("name", SMALL)
def test_without_the_book_they_differ(name):
    """The control: plain's order is another one."""
    (folder,) = [capture for capture, _ in shipped_captures() if capture.name == name]
    found = verify_values(refnet.load(name), open_capture(folder))
    assert found.counts["rounding"] > 20
    assert found.counts["defect"] == 0


@pytest.mark.parametrize("name", SMALL)
def test_a_flipped_bit_is_seen(name):
    ((folder, book),) = [pair for pair in shipped_captures() if pair[0].name == name]
    capture = open_capture(folder)
    graph = refnet.load(name)
    node = graph.nodes[0].name
    value = capture.value(node).copy()
    value.reshape(-1).view(np.uint32)[5] ^= 1
    from refnet.verification.verify import Values

    values = {n: value if n == node else capture.value(n) for n in capture.names if n in graph.by_name}
    changed = Values(values, {n: capture.input(n) for n in graph.inputs})
    found = verify_values(graph, changed, replay=Replay(read(book)), only=[node])
    assert found.nodes[0].verdict in ("rounding", "defect")


def test_books_and_hashes_of_the_large_networks_are_there():
    for folder, book in shipped_captures(full=True):
        assert read(book).unconfirmed == ()
        assert book.stat().st_size < 300_000
        assert open_capture(folder).hash_only == (folder.name in FULL)


def test_files_beside_no_capture_are_refused(capsys):
    assert main(["verify", "--book", "x.json"]) == 2
    assert "also name the capture's folder" in capsys.readouterr().err
    assert main(["verify", "somewhere", "--full"]) == 2
