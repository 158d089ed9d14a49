"""refnet models: list the networks that refnet knows by name."""

from __future__ import annotations

import argparse

from refnet.cli.common import json_argument, print_json

TEXT = "list the networks that refnet knows by name"

EXAMPLES = """\
examples:
  refnet models                         one row per network; checksums shortened
  refnet models resnest-50-pytorch      all details of one: urls, whole checksums, preprocessing
  refnet models --json                  everything, for programs

GFLOPs, MParams, top-1 and top-5 are those of the published model cards, not refnet's counts
(for these: `refnet summary NAME`).
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show all details of this network")
    json_argument(parser)


def run(a: argparse.Namespace) -> None:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.models.catalog import entries, entry
    from refnet.models.weights import located
    from refnet.report import models

    if a.name is None:
        found = entries()
        print_json([models.record(e) for e in found.values()]) if a.json else models.show_all(found)
    else:
        one = entry(a.name)
        here = located(one)
        print_json(models.record(one)) if a.json else models.show_one(one, str(here) if here else None)
