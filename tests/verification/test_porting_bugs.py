"""Every catalogued bug is found where it was seeded, and nowhere else; what cannot be found is said."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refnet.cli import main
from refnet.core.graph import Graph, TensorType
from refnet.formats.bounded import bfloat16_to_float32
from refnet.formats.golden_file import Sources
from refnet.models import synthetic
from refnet.models.loading import structure
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from refnet.verification.judge import judge, judge_input
from refnet.verification.order_free import LARGEST
from refnet.verification.verify import Values, Verification, verify_values
from tests.helpers.engines import FAST
from tests.helpers.porting_bugs import (
    HARMLESS,
    HIDDEN,
    NETWORKS,
    PROVED,
    Array,
    Bug,
    Seen,
    image,
    network,
    run,
    unchanged,
)
from tests.helpers.porting_catalogue import CATALOGUE, input_table, table
from tests.helpers.porting_inputs import INPUT_BUGS, photograph
from tests.helpers.verifying import save

PAGE = Path(__file__).parents[2] / "docs" / "porting-bugs.md"
F = np.float32
RIGHT = ("equal", "replayed")
SAID = {
    "weights through float16, 2304 terms": "float16 weights\nuse {} % of the bound",
    "TF32, 2304 terms": "TF32 uses {} %.",
    "Winograd F(4, 3), 9 terms": "({} % at 9 terms",
    "Winograd F(4, 3), 108 terms": "at 9 terms, {} % at 108)",
}
"""Hidden bug -> where the page says how much of the bound it uses."""


def of(kind: str) -> list[Bug]:
    return [bug for bug in CATALOGUE if bug.kind == kind]


def every(kind: str):
    return pytest.mark.parametrize("bug", of(kind), ids=lambda bug: bug.name)


def seeded(bug: Bug) -> tuple[Graph, Array, dict[str, Array]]:
    """The network, its input, and every value of a framework with the bug."""
    graph, data = network(bug.network), image(bug.network, bug.batch, bug.scale)
    return graph, data, run(graph, data, bug.changes, without(bug))


def without(bug: Bug) -> Mapping[str, Array]:
    """The values of the same run without the bug."""
    return unchanged(bug.network, bug.batch, bug.scale)


def verified(bug: Bug) -> Verification:
    graph, data, values = seeded(bug)
    return verify_values(graph, Values(values, {"data": data}))


def test_the_catalogue_is_large_and_its_names_are_different():
    assert len(CATALOGUE) >= 80
    assert len({bug.name for bug in CATALOGUE}) == len(CATALOGUE)
    assert Counter(bug.kind for bug in CATALOGUE) == {PROVED: len(CATALOGUE) - 10, HIDDEN: 8, HARMLESS: 2}
    assert all((bug.probe is not None) == (bug.kind == HIDDEN) for bug in CATALOGUE)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_bug_nothing_is_found(name):
    """Every setting of a bug: so what the tests below find is the bug."""
    graph = network(name)
    for batch, scale in {(bug.batch, bug.scale) for bug in CATALOGUE if bug.network == name}:
        data = image(name, batch, scale)
        found = verify_values(graph, Values(unchanged(name, batch, scale), {"data": data}))
        assert found.counts["equal"] + found.counts["replayed"] == len(graph.nodes)


@every(PROVED)
def test_a_defect_at_exactly_the_seeded_nodes(bug):
    found = verified(bug)
    assert [node.name for node in found.nodes if node.verdict == "defect"] == list(bug.nodes)
    assert (found.first_defect, found.first_difference, found.exit_code) == (bug.nodes[0], bug.nodes[0], 1)
    others = Counter(node.verdict for node in found.nodes if node.name not in bug.nodes)
    reshaped = any("shape" in (node.reason or "") for node in found.nodes if node.name in bug.nodes)
    assert reshaped or set(others) <= set(RIGHT)  # of another shape, its readers cannot be judged


@every(HIDDEN)
def test_inside_of_the_bound_and_said_to_be_only_that(bug):
    """No defect, no claim that it is proved rounding, and the order-free run is suggested."""
    found = verified(bug)
    judged = next(node for node in found.nodes if node.name == bug.nodes[0])
    assert (judged.verdict, judged.differ > 0, found.exit_code) == ("rounding", True, 0)
    assert found.first_difference == bug.nodes[0]
    assert 0 < judged.worst.share <= 1
    if said := SAID.get(bug.name):
        assert said.format(round(100 * judged.worst.share)) in PAGE.read_text(encoding="utf-8")
    assert "order-free" in found.suggestion
    assert {node.verdict for node in found.nodes if node.name not in bug.nodes} <= set(RIGHT)


def test_the_page_names_the_share_of_another_order():
    """The convolution of 2304 terms, its input channels from the last one to the first."""
    (bug,) = [bug for bug in CATALOGUE if bug.name == "TF32, 2304 terms"]
    graph, data, _ = seeded(bug)
    node = graph.by_name[bug.nodes[0]]
    x, w = {**without(bug), "data": data}[node.data[0]], graph.weights[node.weights[0]]
    assert w[0].size == 2304
    parts = x.reshape(len(x), node.op.groups, -1, *x.shape[2:])
    turned = np.ascontiguousarray(parts[:, :, ::-1].reshape(x.shape)), np.ascontiguousarray(w[:, ::-1])
    judged = judge(node, node.op.run(*turned, engine=FAST), (x, w))
    said = f"Adding the same products in the reverse order uses {100 * judged.worst.share:.2f} %."
    assert (judged.verdict, said in PAGE.read_text(encoding="utf-8")) == ("rounding", True)


def test_the_page_names_the_bits_of_number_formats():
    page = PAGE.read_text(encoding="utf-8")
    assert f"float16 and TF32 hold {np.finfo(np.float16).nmant + 1} bits, bfloat16 8" in page
    assert f"({LARGEST} at most), pass through all three unchanged" in page
    assert LARGEST < 2**8
    assert int(np.float16(2**11 - 1)) == 2**11 - 1
    assert int(np.float16(2**11 + 1)) != 2**11 + 1
    assert bfloat16_to_float32(np.array([LARGEST]).astype("f4").view("u4") >> 16)[0] == LARGEST


def test_verify_md_counts_the_catalogue():
    said = (PAGE.parent / "verify.md").read_text(encoding="utf-8")
    assert "It lists some ninety bugs" in said
    assert round(len(CATALOGUE) + len(INPUT_BUGS), -1) == 90


@every(HIDDEN)
def test_the_same_bug_is_a_defect_on_inputs_made_for_it(bug):
    graph, data, _ = seeded(bug)
    node = graph.by_name[bug.nodes[0]]
    values = {**without(bug), "data": data}
    own = tuple([values[n] for n in node.data] + [graph.weights[n] for n in node.weights])
    inputs = bug.probe(node.op, own)
    assert judge(node, node.op.run(*inputs, engine=FAST), inputs).verdict == "replayed"
    made = bug.changes[node.name](Seen(node.op, inputs, values, graph.weights))
    assert judge(node, np.ascontiguousarray(made), inputs).verdict == "defect"


@every(HARMLESS)
def test_what_changes_no_bit_is_no_defect(bug):
    graph, data, values = seeded(bug)
    others = run(graph, data, bug.changes)  # with nothing taken over
    for name, value in without(bug).items():
        for found in (values[name], others[name]):
            assert np.array_equal(value.view(np.uint32), found.view(np.uint32))
    assert verified(bug).exit_code == 0


SHIPPED = {"octave digits": "octave-se-resnet-digits", "resnest digits": "resnest-digits"}
SOME = [bug for bug in CATALOGUE if bug.network in SHIPPED and bug.kind != HARMLESS][::6]


@pytest.mark.parametrize("bug", SOME, ids=lambda bug: bug.name)
def test_on_the_command_line(bug, tmp_path, capsys):
    graph, data, values = seeded(bug)
    sources = Sources(SHIPPED[bug.network], None, "")
    folder = save(tmp_path / "capture", values, graph, {"data": data}, sources)
    code = main(["verify", str(folder)])
    printed = capsys.readouterr().out
    if bug.kind == PROVED:
        assert code == 1
        assert f"first {bug.nodes[0]}" in " ".join(printed.split())
    else:
        assert code == 0
        assert "no defect" in printed


# Inputs.


@pytest.fixture(scope="module")
def first_layer() -> Graph:
    """What reads the image in the official ResNeSt-50."""
    graph = structure("resnest-50-pytorch")
    small = replace(graph, nodes=graph.nodes[:1], outputs={"out": graph.nodes[0].name})
    return small.with_weights(synthetic.weights(small, 0))


@pytest.mark.parametrize("bug", INPUT_BUGS, ids=lambda bug: bug.name)
def test_an_input_that_is_not_its_sources_is_the_first_defect(bug, first_layer):
    """And only that: what the network makes of the wrong input is right."""
    right, image_ = pipeline("resnest"), photograph()
    stated, made = {"data": right.apply(image_)}, {"data": bug.make(right, image_)}
    assert made["data"].shape == stated["data"].shape
    values = run(first_layer, made["data"], {})
    found = verify_values(first_layer, Values(values, made), stated=stated)
    assert (found.first_defect, found.exit_code, found.counts["defect"]) == ("data", 1, 1)
    assert found.nodes[0].worst.found == made["data"][found.nodes[0].worst.at]
    assert found.nodes[1].verdict == "replayed"
    same = verify_values(first_layer, Values(run(first_layer, stated["data"], {}), stated), stated=stated)
    assert same.exit_code == 0
    assert "to the last bit" in same.notes[0]


def test_an_input_of_another_shape_or_of_no_numbers(first_layer):
    stated = {"data": image("resnest-50-pytorch", 1, 1.0)}
    small = replace(first_layer, inputs={"data": TensorType(stated["data"].shape)})
    for wrong in (stated["data"][:, :, :32], np.full_like(stated["data"], np.nan)):
        judged = judge_input("data", wrong, stated["data"])
        assert judged.verdict == "defect"
    batch = np.concatenate([stated["data"]] * 2)
    found = verify_values(small, Values(run(small, batch, {}), {"data": batch}), stated=stated)
    assert (found.first_defect, "shape" in found.nodes[0].reason) == ("data", True)


@pytest.mark.parametrize("source", ["sample:1745-label-0.png", "digit.png", "seed:3"])
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
def test_inputs_on_the_command_line(source, wrong, tmp_path, capsys):
    """Of the digits network: a sample, an image beside the capture, a seed; wrong is not scaled."""
    graph, right = network("resnest digits"), pipeline("digits")
    file = shipped_folder() / "digits" / "1745-label-0.png"
    seeded_ = source.startswith("seed:")
    data = synthetic.normal(3, "data", (1, 1, 32, 32)) if seeded_ else right.apply(file)
    data = data * F(60) if wrong else data
    folder = tmp_path / "capture"
    sources = Sources("resnest-digits", None, source, None if seeded_ else "digits")
    save(folder, run(graph, data, {}), graph, {"data": data}, sources)
    if source == "digit.png":
        shutil.copy(file, folder / source)
    code = main(["verify", str(folder)])
    printed = " ".join(capsys.readouterr().out.split())
    assert code == int(wrong)
    assert ("first data" in printed) == wrong
    assert ("what its source makes, to the last bit" in printed) == (not wrong)


def test_a_source_that_is_not_there_is_no_reproach(tmp_path, capsys):
    graph, data = network("resnest digits"), image("resnest digits", 1, 1.0)
    for source in ("gone.png", "../gone.png", "x.npy"):
        folder = tmp_path / source.replace("/", "-")
        sources = Sources("resnest-digits", None, source, "digits")
        assert main(["verify", str(save(folder, run(graph, data, {}), graph, {"data": data}, sources))]) == 0
        assert "its source" not in capsys.readouterr().out


def test_the_page_has_the_table():
    """`python -m tests.helpers.porting_catalogue` prints the table of docs/porting-bugs.md."""
    page = PAGE.read_text(encoding="utf-8")
    assert table() in page
    assert input_table() in page
