"""refnet explain: one output element as arithmetic."""

from __future__ import annotations

import argparse
from pathlib import Path

from refnet.cli.common import json_argument, positive, print_json, usable, weights_arguments
from refnet.cli.verify import input_arguments, sources
from refnet.core.errors import InputError

TEXT = "show how one element of a value is computed, term by term"

EXAMPLES = """\
examples:
  refnet explain resnest-digits layer1.0.conv1 --at 0,3,5,5 --input sample:1700-label-5.png
  refnet explain resnest-digits fc --at 0,5 --input seed:0 --all
  refnet explain resnest-50-pytorch layer1.0.conv1 --at 0,3,20,20 --weights seed:0 --capture DIR

Shown are the inputs and weights that the element is made of, their exact products, the exact sum, refnet's
plain sum step by step, the correctly rounded (golden) bits, and how far the others are from it. With
--capture the inputs of the node are the capture's, and its bits are shown too; without, refnet's own run
makes them from --input. A long sum shows its first, last and largest terms: --all shows every one.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="name or file")
    parser.add_argument("node", metavar="NODE", help="the value's name")
    parser.add_argument("--at", type=place, required=True, metavar="N,C,Y,X", help="the element's place")
    parser.add_argument(
        "--capture", type=Path, metavar="DIR", help="take the node's inputs from this capture"
    )
    weights_arguments(parser)
    input_arguments(parser)
    parser.add_argument("--all", action="store_true", help="show all terms")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all processors")
    json_argument(parser)


def place(text: str) -> tuple[int, ...]:
    """An argument such as 0,3,20,20."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and len(part) < 12 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no place such as 0,3,20,20")
    return tuple(map(int, parts))


def run(a: argparse.Namespace) -> None:
    """Do what the arguments say."""
    from refnet.kernels.resources import processors
    from refnet.report.explain import show_explanation
    from refnet.verification.explain import explain, own_inputs
    from refnet.verification.golden import prepare
    from refnet.verification.verifier import gather

    threads = a.threads or processors()
    if a.capture is not None:
        from refnet.verification.capture import open_capture

        capture = open_capture(a.capture)
        graph, inputs = sources(a, capture)
        node = graph.by_name.get(a.node)
        if node is None:
            raise unknown(a.node, graph.name, tuple(graph.by_name))
        operands = gather(graph, capture, node, inputs, threads)
        found = capture.value(a.node) if capture.has(a.node) else None
        one = explain(node, operands, a.at, found, threads)
    else:
        if a.input is None:
            raise InputError("what goes into the network? --input X, or --capture DIR")
        from refnet.formats.golden_file import Sources
        from refnet.models.loading import network_of

        entry = network_of(usable(a.model, a.network), a.network)
        pipeline = a.pipeline or (entry.pipeline if entry else None)
        graph, inputs = prepare(Sources(a.model, a.weights, a.input, pipeline, a.network, a.image))
        node = graph.by_name.get(a.node)
        if node is None:
            raise unknown(a.node, graph.name, tuple(graph.by_name))
        one = explain(node, own_inputs(graph, inputs, node, threads), a.at, None, threads)
    if a.json:
        print_json(one.record())
    else:
        show_explanation(one, a.all)


def unknown(name: str, graph: str, names: tuple[str, ...]) -> InputError:
    """What to say of a value that is not in the graph."""
    from difflib import get_close_matches

    near = get_close_matches(name, names, 3, 0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else f" among its {len(names)}"
    return InputError(f"{graph} has no value {name!r}{hint}")
