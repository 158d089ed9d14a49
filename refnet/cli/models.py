"""refnet models: list the networks that refnet knows by name."""

from __future__ import annotations

import argparse

from refnet.cli.common import json_argument, print_json

TEXT = "list the networks that refnet knows by name"

EXAMPLES = """\
examples:
  refnet models                         one row per network; checksums shortened
  refnet models octave                  only those with this text in name, framework or file
  refnet models resnest-50-pytorch      all details of one: urls, whole checksums, preprocessing
  refnet models --json                  everything, for programs

GFLOPs, MParams, top-1 and top-5 are published figures: the model card's, else for the top-1 and top-5 those
of the authors' table. refnet's own counts, next to them: `refnet summary NAME`.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="show all details of this network, or list those that match"
    )
    json_argument(parser)


def run(a: argparse.Namespace) -> None:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.models.catalog import entries, entry, filtered
    from refnet.models.weights import located
    from refnet.report import models

    found = entries()
    if a.name is not None and a.name not in found:
        found = filtered(a.name)
        if not a.name or not found:
            entry(a.name)  # which says what there is
    if a.name is None or a.name not in found:
        print_json([models.record(e) for e in found.values()]) if a.json else models.show_all(found)
    else:
        one = entry(a.name)
        here = located(one)
        print_json(models.record(one)) if a.json else models.show_one(one, str(here) if here else None)
