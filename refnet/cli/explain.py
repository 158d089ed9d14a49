"""refnet explain: one output element as arithmetic."""

from __future__ import annotations

import argparse
from pathlib import Path

import refnet
from refnet.cli.common import json_argument, print_json, threads_argument, usable, weights_arguments
from refnet.cli.verify import input_arguments

TEXT = "show how one element of a value is computed, term by term"

EXAMPLES = """\
examples:
  refnet explain resnest-digits layer1.0.conv1 --at 0,3,5,5 --input sample:1700-label-5.png
  refnet explain resnest-digits fc --at 0,5 --input seed:0 --all
  refnet explain resnest-50-pytorch layer1.0.conv1 --at 0,3,20,20 --weights seed:0 --capture DIR

Shown are the inputs and weights that the element is made of, their exact products, the exact sum, refnet's
plain sum step by step, the correctly rounded (golden) value, and how far the other values are from it. With
--capture, the node's inputs are taken from the capture, and the captured value is shown too. Without it,
refnet computes them from --input. Of a long sum, the first, last and largest terms are shown; --all shows
every term.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="name or file")
    parser.add_argument("node", metavar="NODE", help="the value's name")
    parser.add_argument("--at", type=place, required=True, metavar="N,C,Y,X", help="the element's index")
    parser.add_argument(
        "--capture", type=Path, metavar="DIR", help="take the node's inputs from this capture"
    )
    weights_arguments(parser)
    input_arguments(parser, "without --capture, or if the capture has none")
    text = "with --capture: a JSON object {captured name: name of a value}"
    parser.add_argument("--names", type=Path, metavar="MAP.json", help=text)
    parser.add_argument("--all", action="store_true", help="show all terms")
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

    one = refnet.explain(
        usable(a.model, a.network),
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
    if a.json:
        print_json(one.record())
    else:
        show_explanation(one, a.all)
