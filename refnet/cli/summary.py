"""refnet summary: print each node's op, shape and cost, and the totals."""

from __future__ import annotations

import argparse

from refnet.cli.common import json_argument, network_arguments, outputs_argument, print_json, usable

TEXT = "print each node's op, shape and cost, and the totals"

EXAMPLES = """\
examples:
  refnet summary octave-se-resnet-50-0.125     every node, then the totals next to the model card's figures
  refnet summary resnest-50-pytorch --totals
  refnet summary net-symbol.json --image 256,256 --json

No weights are needed; an .xml needs its .bin. Costs are those of one image (batch 1).
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="name or file; its weights are not needed")
    network_arguments(parser)
    outputs_argument(parser)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--nodes", action="store_true", help="only the nodes")
    part.add_argument("--totals", action="store_true", help="only the totals")
    json_argument(parser)


def run(a: argparse.Namespace) -> None:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.models.cost import summary
    from refnet.models.loading import network_of, structure
    from refnet.report import summary as report

    cost = summary(structure(usable(a.model, a.network), network=a.network, image=a.image))
    entry = network_of(a.model, a.network)
    if a.json:
        print_json(report.record(cost, entry, nodes=not a.totals, totals=not a.nodes))
    else:
        report.show_all(cost, entry, nodes=not a.totals, totals=not a.nodes)
