"""refnet explain: one output element as arithmetic."""

from __future__ import annotations

import argparse
import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import refnet
from refnet.cli.common import (
    json_argument,
    print_json,
    refuse_given,
    threads_argument,
    usable,
    weights_arguments,
)
from refnet.cli.verify import input_arguments
from refnet.core.errors import InputError

if TYPE_CHECKING:
    from refnet import Graph

TEXT = "show how one element of a value is computed, term by term"
PAGE = "refnet-explain.html"

EXAMPLES = """\
examples:
  refnet explain resnest-digits layer1.0.conv1 --at 0,3,5,5 --input sample:1700-label-5.png
  refnet explain resnest-digits fc --at 0,5 --input seed:0 --all
  refnet explain resnest-50-pytorch layer1.0.conv1 --at 0,3,20,20 --weights seed:0 --capture DIR
  refnet explain caps linear --at 0,3                  of your torch module, with the captured value
  refnet explain resnest-digits layer1.0                                  which values has this module?
  refnet explain resnest-digits fc --at 0,5 --input seed:0 --html         the same in the browser

Shown are the inputs and weights that the element is made of, their exact products, the exact sum, refnet's
plain sum step by step, the correctly rounded (golden) value, and how far the other values are from it. With
--capture, the node's inputs are taken from the capture, and the captured value is shown too. Without it,
refnet computes them from --input. Of a long sum, the first, last and largest terms are shown; --all shows
every term. --html shows the same as a page: one file that loads nothing and runs no script.

Without --at, NODE may be a module, such as layer1.0 or L2_B01: its values are listed, with op and shape.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    text = "name, file, or the folder of a torch module's capture"
    parser.add_argument("model", metavar="MODEL", help=text)
    parser.add_argument("node", metavar="NODE", help="the value's name; without --at, a module's, too")
    text = "the element's index; without it, the values of the module NODE are listed"
    parser.add_argument("--at", type=place, metavar="N,C,Y,X", help=text)
    parser.add_argument(
        "--capture", type=Path, metavar="DIR", help="take the node's inputs from this capture"
    )
    weights_arguments(parser)
    input_arguments(parser, "without --capture, or if the capture has none")
    text = "with --capture: a JSON object {captured name: name of a value}"
    parser.add_argument("--names", type=Path, metavar="MAP.json", help=text)
    parser.add_argument("--all", action="store_true", help="show all terms")
    text = f"write it as a page; without FILE, write {PAGE} and open it"
    parser.add_argument("--html", nargs="?", const="", metavar="FILE", help=text)
    threads_argument(parser)
    json_argument(parser)


def place(text: str) -> tuple[int, ...]:
    """An argument such as 0,3,20,20."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and len(part) < 12 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not an index such as 0,3,20,20")
    return tuple(map(int, parts))


def run(a: argparse.Namespace) -> None:
    """Do what the arguments say."""
    from refnet.report.explain import show_explanation

    usable(a.model, a.network)
    if a.at is None:
        return _list(a)
    one = refnet.explain(
        a.model,
        a.node,
        a.at,
        capture=a.capture,
        weights=a.weights,
        network=a.network,
        image=a.image,
        inputs=a.input,
        pipeline=a.pipeline,
        names=a.names,
        threads=a.threads,
    )
    if a.html is not None:
        from refnet.report.views import write_page

        write_page(a.html or PAGE, one, a.all)
    if a.json:
        print_json(one.record())
    elif a.html is None:
        show_explanation(one, a.all)
    else:
        _say_written(a.html)
    return None


def _say_written(file: str) -> None:
    """Open the page if no file was named, and say where it is."""
    from refnet.report.terminal import clean, show

    opened = not file and webbrowser.open(Path(os.path.abspath(PAGE)).as_uri())
    show(clean(f"wrote {file or PAGE}" + ("" if file or opened else "; no browser could be opened")))


def _list(a: argparse.Namespace) -> None:
    """Print the values of the module NODE."""
    from refnet.report.explain import show_module
    from refnet.verification.modules import members, unknown

    refuse_given(a, ("capture", "input", "pipeline", "names", "all", "threads"), "also name an element, --at")
    if a.html is not None:
        raise InputError("--html: also name an element, --at")
    graph = _graph(a)
    found, types = members(graph, a.node), graph.types()
    if not found:
        raise unknown(graph, a.node)
    if len(found) == 1 and found[0].name == a.node:
        shape = list(types[a.node].shape)
        middle = ",".join(str(size // 2) for size in shape)
        raise InputError(f"which element of {a.node}, {shape}? such as --at {middle}")
    if a.json:
        rows = [
            {"name": node.name, "op": repr(node.op), "inputs": list(node.inputs),
             "shape": list(types[node.name].shape)}
            for node in found
        ]  # fmt: skip
        print_json({"network": graph.name, "module": a.node, "values": rows})
    else:
        show_module(graph, a.node, found)


def _graph(a: argparse.Namespace) -> Graph:
    """The network: its structure, or with weights where they are named."""
    if a.weights is not None:
        return refnet.load(a.model, weights=a.weights, network=a.network, image=a.image)
    from refnet.models.loading import structure

    return structure(a.model, network=a.network, image=a.image)
