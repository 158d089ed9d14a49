"""Computes refnet/learn/exercises.json: chapter 6's captures with planted bugs, and what verify says.

python -m tests.learn.exercises writes the file. tests/learn/test_learn.py computes it again and compares.
The captures add in the framework's order, by the shipped books, so they have a framework's rounding besides.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import refnet
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Interval
from refnet.formats import book as book_file
from refnet.learn.networks import SHIPPED
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from refnet.verification.judge import judge
from refnet.verification.judgement import Judgement
from refnet.verification.verify import Values, verify_values
from tests.helpers.engines import FAST
from tests.helpers.porting_bugs import HIDDEN, PROVED, Bug
from tests.helpers.porting_catalogue import CATALOGUE
from tests.helpers.porting_changes import Seen
from tests.learn.facts import float_fact

FILE = Path(__file__).parents[2] / "refnet" / "learn" / "exercises.json"
OCTAVE, RESNEST = (one.name for one in SHIPPED)
NETWORKS = {"octave digits": OCTAVE, "resnest digits": RESNEST}
STEPS = 8
"""Of a picture's colour, each way."""


class Exercise(NamedTuple):
    """One capture. bug: its name in the catalogue, None for a clean one. digit: the image that goes in.

    before, after: how many nodes around the planted one are shown; of a clean one, around the node `centre`.
    """

    bug: str | None
    digit: int
    before: int
    after: int
    network: str = ""
    centre: str = ""


EXERCISES = (
    Exercise("relu missing", 3, 1, 4),
    Exercise("bias dropped", 5, 5, 1),
    Exercise(None, 8, 4, 3, RESNEST, "layer2.0.bn3"),
    Exercise("padding not counted", 7, 2, 4),
    Exercise("a mantissa's lowest bit flipped, of a maximum", 4, 4, 3),
    Exercise("eps 1e-5 for 1e-4, usual variance", 6, 5, 2),
    Exercise("attention of the other part", 2, 3, 4),
    Exercise("upsampling bilinear", 0, 4, 3),
    Exercise(None, 9, 3, 4, OCTAVE, "L3_B01_conv4_bn-h"),
    Exercise("weights through float16, 108 terms", 1, 3, 4),
    Exercise("residual before its activation", 3, 5, 2),
    Exercise("a weight's lowest bit flipped", 5, 2, 5),
)
"""From plain to subtle; templates/bugs.html tells each one's story, in this order."""


def found_in(exercise: Exercise) -> Bug | None:
    """The catalogue's bug; None if the capture is clean."""
    if exercise.bug is None:
        return None
    (bug,) = (one for one in CATALOGUE if one.name == exercise.bug)
    assert bug.kind in (PROVED, HIDDEN)
    assert len(bug.changes) == 1
    return bug


@cache
def replay_of(network: str) -> refnet.Replay:
    return refnet.Replay(book_file.read(shipped_folder() / "books" / f"{network}.json"))


def captured(graph: Graph, x: F32, bug: Bug | None) -> dict[str, F32]:
    """Every value as the framework of the book computes it, one node by the bug."""
    replay = replay_of(graph.name)
    table = {"data": x}
    changes = bug.changes if bug else {}
    for node in graph.nodes:
        inputs = inputs_of(graph, node, table)
        if node.name in changes:
            made = changes[node.name](Seen(node.op, inputs, table, graph.weights))
        else:
            made = replay.evaluate(node, *inputs)
        table[node.name] = np.ascontiguousarray(made)
    return table


def inputs_of(graph: Graph, node: Node, table: dict[str, F32]) -> tuple[F32, ...]:
    return tuple([table[one] for one in node.data] + [graph.weights[one] for one in node.weights])


def exercises() -> list[dict[str, Any]]:
    """All of them."""
    graphs = {one.name: refnet.load(one.name) for one in SHIPPED}
    return [exercise_fact(one, graphs) for one in EXERCISES]


def exercise_fact(one: Exercise, graphs: dict[str, Graph]) -> dict[str, Any]:
    """What the page shows of one exercise, the answer included."""
    bug = found_in(one)
    graph = graphs[NETWORKS[bug.network] if bug else one.network]
    (file,) = (shipped_folder() / "digits").glob(f"*-label-{one.digit}.png")
    values = captured(graph, pipeline("digits").apply(file), bug)
    framework = {name: value for name, value in values.items() if name != "data"}
    verified = verify_values(graph, Values(framework, {"data": values["data"]}))
    wanted = bug.nodes[0] if bug else one.centre
    at = [node.name for node in verified.nodes].index(wanted)
    (output,) = (found for found in verified.outputs if found.value == graph.outputs["prob"])
    right = refnet.run(graph, {"data": values["data"]})["prob"]
    return {
        "bug": one.bug,
        "practice": bug.practice if bug else None,
        "network": graph.name,
        "framework": next(shipped.framework for shipped in SHIPPED if shipped.name == graph.name),
        "digit": one.digit,
        "answers": [int(values[graph.outputs["prob"]].argmax()), int(right.argmax())],
        "wanted": wanted if bug and bug.kind == PROVED else None,
        "told": wanted,
        "rows": [
            row(judged, graph) for judged in verified.nodes[max(at - one.before, 0) : at + one.after + 1]
        ],
        "counts": {verdict: n for verdict, n in verified.counts.items() if n},
        "output": [output.differ, output.ulps, output.largest],
        "proof": proof(graph, graph.by_name[wanted], values),
        "probe": probed(graph, bug, values) if bug and bug.probe else None,
    }


def row(judged: Judgement, graph: Graph) -> dict[str, Any]:
    """verify's figures of a node; the page keeps the verdict back until the reader has answered."""
    worst = judged.worst
    bound = None if worst is None else worst.bound
    return {
        "name": judged.name,
        "op": judged.kind,
        "reads": list(graph.by_name[judged.name].data),
        "elements": judged.elements,
        "differ": judged.differ,
        "ulps": judged.ulps,
        "share": None if judged.share is None else judged.share.largest,
        "distance": None if worst is None or bound is None else abs(float(worst.found) - bound[0]),
        "radius": None if bound is None else bound[1],
        "inherited": judged.inherited.differ if judged.inherited else 0,
        "verdict": judged.verdict,
    }


def proof(graph: Graph, node: Node, values: dict[str, F32]) -> dict[str, Any]:
    """The worst element: what was found, what is right, the bound; its map, and the right one."""
    inputs = inputs_of(graph, node, values)
    value, right = values[node.name], node.op.run(*inputs, engine=FAST)
    judged = judge(node, value, inputs)
    assert judged.worst is not None
    at = judged.worst.at
    exact = node.op.golden(*inputs, exact=refnet.Golden().exact)
    interval = node.op.bound(*(Interval.exactly(one) for one in inputs), engine=FAST)
    ulp = float(np.spacing(np.abs(exact[at])))
    centre, radius = float(interval.center[at]), float(interval.radius[at])
    return {
        "at": list(at),
        "found": float_fact(value[at]),
        "exact": float_fact(exact[at]),
        "one_result": judged.worst.bound is None,
        "terms": int(np.prod(inputs[1].shape[1:])) if type(node.op).__name__ == "Conv" else None,
        "centre": centre,
        "radius": radius,
        "radius_ulps": radius / ulp,
        "distance": abs(float(value[at]) - centre),
        "offset": (float(value[at]) - centre) / ulp,
        "share": judged.worst.share,
        "ulps": judged.worst.ulps,
        "differ": judged.differ,
        "outside": judged.outside,
        "elements": judged.elements,
        "pictures": pictures(value, right, at),
    }


def pictures(value: F32, right: F32, at: tuple[int, ...]) -> dict[str, Any] | None:
    """The worst element's map as captured and as it should be, in steps of one scale; None for no map."""
    if value.ndim < 4 or value.shape[2] < 2:
        return None
    maps = [one[at[:2]].astype(np.float64) for one in (value, right)]
    largest = max(float(np.abs(one).max()) for one in maps) or 1.0
    captured_map, right_map = (np.rint(one / largest * STEPS).astype(int).tolist() for one in maps)
    return {"captured": captured_map, "right": right_map}


def probed(graph: Graph, bug: Bug, values: dict[str, F32]) -> dict[str, Any]:
    """The same bug on inputs made for it: what the judge says there."""
    assert bug.probe is not None
    (name,) = bug.changes
    node = graph.by_name[name]
    inputs = bug.probe(node.op, inputs_of(graph, node, values))
    made = np.ascontiguousarray(bug.changes[name](Seen(node.op, inputs, values, graph.weights)))
    judged = judge(node, made, inputs)
    return {"verdict": judged.verdict, "differ": judged.differ, "elements": judged.elements}


def text() -> str:
    """The file's content: one exercise a line."""
    lines = [json.dumps(one, separators=(",", ":")) for one in exercises()]
    return "[\n" + ",\n".join(lines) + "\n]\n"


if __name__ == "__main__":
    FILE.write_text(text())
