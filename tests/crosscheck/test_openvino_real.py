"""OpenVINO: captured, judged, revealed, and replayed to the last bit; what it cannot be asked is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.arithmetic.replay import Replay
from refnet.cli import main
from refnet.core.bits import equal_bits
from refnet.core.graph import Graph
from refnet.formats.book import read
from refnet.frameworks.capture.request import Request
from refnet.frameworks.capture.sources import planned
from refnet.models.export import export
from refnet.models.loading import load
from tests.crosscheck.converted import converted

pytestmark = pytest.mark.crosscheck

RESNEST, OCTAVE = "resnest-digits", "octave-se-resnet-digits"


def command(name: str, model: str | Path, target: Path, *more: object) -> int:
    """The exit code of `refnet capture openvino` or `refnet reveal openvino`."""
    return main([name, "openvino", str(model), "-o", str(target), *map(str, more)])


def differing(graph: Graph, book: Path, model: str, seed: str, **known: object) -> dict[str, int]:
    """The values whose bits are not OpenVINO's in a replay from the input on; every node is compared."""
    with planned(Request("openvino", model, (seed,), **known)) as plan:
        theirs = {name: np.asarray(value) for name, value in plan.values()}
        inputs = dict(plan.inputs)
    assert set(graph.by_name) <= set(theirs)
    found = {}
    for node, value in refnet.steps(graph, inputs, Replay(read(book))):
        if count := int((~equal_bits(value, theirs[node.name].reshape(value.shape))).sum()):
            found[node.name] = count
    return found


@pytest.mark.parametrize(("model", "threads", "batch"), [(RESNEST, 2, 2), (OCTAVE, 1, 1)])
def test_a_network_is_revealed_and_replayed_to_the_last_bit(
    model: str, threads: int, batch: int, tmp_path: Path, report: list[str]
) -> None:
    book, graph = tmp_path / "book.json", load(model)
    known = {"threads": threads, "batch": batch}
    assert command("reveal", model, book, "--threads", threads, "--batch", batch) == 0
    assert not read(book).unconfirmed
    assert read(book).reference.flags["INFERENCE_PRECISION_HINT"] == "f32"
    assert differing(graph, book, model, "seed:77", **known) == {}
    report.append(f"{model}: {len(graph.nodes)} values are OpenVINO's, {threads} threads, batch {batch}")

    # judged by that book, each value is proved; and the control: by refnet's own order, some are not
    assert command("capture", model, tmp_path / "c", "--threads", threads, "--batch", batch) == 0
    by_book = refnet.verify(tmp_path / "c", book=book).counts
    assert by_book["equal"] + by_book["replayed"] == len(graph.nodes)
    assert refnet.verify(tmp_path / "c").counts["rounding"] > 0


def test_a_converted_network_is_replayed_to_the_last_bit(tmp_path: Path) -> None:
    """An IR with weights in float16, each convolution with its batch norm folded into it by the converter."""
    path = converted(RESNEST, tmp_path, weights=None, half=True)
    book, graph = tmp_path / "book.json", load(path)
    assert command("reveal", path, book) == 0
    assert not read(book).unconfirmed
    assert differing(graph, book, str(path), "seed:77") == {}
    assert command("capture", path, tmp_path / "c") == 0
    found = refnet.verify(tmp_path / "c")
    assert found.exit_code == 0
    assert found.counts["missing"] == found.counts["unjudged"] == len(found.beyond) == 0


def test_the_compiled_model_is_judged_by_its_outputs(tmp_path: Path) -> None:
    """What lies between is hidden: no defect, and nothing is said of what cannot be."""
    for model in (RESNEST, OCTAVE):
        folder = tmp_path / model
        assert command("capture", model, folder, "--mode", "outputs") == 0
        capture = refnet.open_capture(folder)
        assert capture.manifest is not None
        assert capture.manifest.reference.mode == "as compiled"
        graph = load(model)
        assert set(capture.names) == set(graph.outputs.values())
        found = refnet.verify(folder)
        assert found.counts["defect"] == 0
        assert found.counts["missing"] == len(graph.nodes) - len(graph.outputs)


@pytest.mark.parametrize("model", [RESNEST, OCTAVE])
def test_the_compiled_model_is_seen_without_a_change(model: str, tmp_path: Path, report: list[str]) -> None:
    """What it has as outputs: its own outputs keep their bits, and every value that is shown is judged."""
    for mode in ("compiled", "outputs"):
        assert command("capture", model, tmp_path / mode, "--mode", mode) == 0
    seen, alone = refnet.open_capture(tmp_path / "compiled"), refnet.open_capture(tmp_path / "outputs")
    for name in alone.names:
        assert seen.value(name).tobytes() == alone.value(name).tobytes()
    found, graph = refnet.verify(tmp_path / "compiled"), load(model)
    report.append(f"{model}: {len(seen.names)} of {len(graph.nodes)} values; {found.counts}")
    assert len(alone.names) + 20 < len(seen.names) < len(graph.nodes)
    assert found.counts["defect"] == 0
    # the control: with every value as an output other bits come
    assert command("capture", model, tmp_path / "every", "--mode", "internals") == 0
    every = refnet.open_capture(tmp_path / "every")
    assert any(every.value(name).tobytes() != seen.value(name).tobytes() for name in alone.names)
    assert command("reveal", model, tmp_path / "book.json", "--mode", "compiled") == 2


def test_a_file_of_the_users_is_run_as_it_is(tmp_path: Path) -> None:
    (path,) = export(load(OCTAVE), tmp_path / "net", "onnx")
    assert command("capture", OCTAVE, tmp_path / "a", "--hash-only") == 0
    assert command("capture", path, tmp_path / "b", "--hash-only") == 0
    hashes = [
        {name: one.digest.sha256 for name, one in refnet.open_capture(tmp_path / x).manifest.values.items()}
        for x in "ab"
    ]
    assert hashes[0] == hashes[1]


def test_single_operators_are_exact_where_no_sum_rounds(tmp_path: Path) -> None:
    (path,) = export(load(OCTAVE), tmp_path / "net", "onnx")
    assert command("capture", OCTAVE, tmp_path / "a", "--order-free") == 0
    assert command("capture", path, tmp_path / "b", "--order-free", "--hash-only") == 0


def test_bfloat16_is_stated_and_outside_of_the_bounds(tmp_path: Path) -> None:
    assert command("capture", RESNEST, tmp_path / "c", "--precision", "bf16") == 0
    capture = refnet.open_capture(tmp_path / "c")
    assert capture.manifest is not None
    assert capture.manifest.reference.flags["INFERENCE_PRECISION_HINT"] == "bf16"
    found = refnet.verify(tmp_path / "c")
    assert found.counts["defect"] > 0
    assert any("INFERENCE_PRECISION_HINT=bf16" in note for note in found.notes)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--precision", "f16"], "INFERENCE_PRECISION_HINT=f16: on this processor OpenVINO takes bf16"),
        (["--threads", "999"], "threads, not 999"),
        (["--python", "/bin/true"], "openvino"),
        (["--python", "/no/such"], "--python openvino=/no/such: no such file"),
        (["--mode", "eager"], "mode must be internals or compiled or outputs, got 'eager'"),
    ],
)
def test_what_it_cannot_do_is_said(
    more: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("capture", RESNEST, tmp_path / "c", *more) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_the_instruction_set_is_the_one_that_it_is_told(tmp_path: Path) -> None:
    assert command("capture", RESNEST, tmp_path / "c", "--environment", "ONEDNN_MAX_CPU_ISA=AVX2") == 0
    capture = refnet.open_capture(tmp_path / "c")
    assert capture.manifest is not None
    assert capture.manifest.reference.isa == "oneDNN Intel AVX2"
    assert refnet.verify(tmp_path / "c").exit_code == 0


def test_bench_races_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", RESNEST, "--against", "openvino", "--threads", "1", "--runs", "2", "--json"]
    assert main(words) == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    assert pair["theirs"]["name"] == "openvino"
    assert pair["agree"]
