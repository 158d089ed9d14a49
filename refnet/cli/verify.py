"""refnet verify: what can be proved of every value of a capture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import refnet
from refnet.cli.common import json_argument, positive, print_json, progress_bar, usable, weights_arguments
from refnet.cli.second import second_compiler
from refnet.core.errors import InputError

if TYPE_CHECKING:
    from refnet import Verification

TEXT = "judge every value of a capture: equal, replayed, rounding or defect"

EXAMPLES = """\
examples:
  refnet verify                                           the digits networks, beside their frameworks
  refnet verify --full                                    the two 224 x 224 networks, too
  refnet verify DIR                                       with the model, weights and input that it names
  refnet verify DIR octave-se-resnet-50-0.125 --weights seed:0
  refnet verify DIR net-symbol.json --weights net-0000.params --input x.npy        a folder of .npy files
  refnet verify DIR --only layer1.0.conv1 --json
  refnet verify DIR --book torch.book.json                its recipes' bits are proved rounding
  refnet verify DIR --html report.html                    one self-contained file

Each value is judged on the capture's own inputs to its node:
  equal     its op has one right result in float32, and these are its bits
  replayed  a known order of operations gives these bits: the book's, or refnet's plain order
  rounding  inside the bound that is proved for every order; the largest share of it is printed
  defect    outside of it, or not the one right result: proved not to be rounding
  unjudged  nothing is promised there (overflow, NaN), an input is not known, or only a hash was kept
  missing   not in the capture: the next captured value is judged over the nodes between
Then refnet's own run from the input on is compared with the outputs.

Without DIR, the captures that ship with refnet are judged with their books: every value of the networks
as MXNet and PyTorch computed it, without either installed. DIR is a capture (`refnet capture`), or a folder
of .npy files named after the values, from hardware or anything else: for that, MODEL says the network. Exit
code 0: no defect; 1: a defect; 2: no defect, but some value, or all, could not be judged. docs/verify.md
explains the report.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("capture", nargs="?", type=Path, metavar="DIR", help="the folder with the values")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="name or file (default: what DIR names)")
    weights_arguments(parser)
    input_arguments(parser)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NODE", help="judge this node; repeatable"
    )
    parser.add_argument("--book", type=Path, metavar="BOOK", help="recipes: their bits are `replayed`")
    parser.add_argument("--full", action="store_true", help="without DIR: the 224 x 224 networks, too")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report that a browser shows")
    parser.add_argument("--all", action="store_true", help="list every value, not only those that are wrong")
    parser.add_argument(
        "--other-sources",
        action="store_true",
        help="judge although DIR was made of another graph or other weights",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all processors")
    json_argument(parser)


def input_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --input and --pipeline."""
    text = "the network's input, if DIR has none: a .npy file, an image, sample:NAME or seed:N"
    parser.add_argument("--input", metavar="X", help=text)
    parser.add_argument("--pipeline", metavar="NAME", help="how an image becomes a tensor")


def run(a: argparse.Namespace) -> int:
    """Do what the arguments say; the exit code."""
    from refnet.report.verify import show_shipped, show_verification

    if a.capture is None:
        shipped = _shipped(a)
        with second_compiler(a.argv):
            everything = [_verified(one) for one in shipped]
        if a.json:
            print_json([found.record() for found in everything])
        else:
            show_shipped(everything, a.full)
        return max(found.exit_code for found in everything)
    if a.full:
        raise InputError(f"--full is for the captures that ship with refnet; {a.capture} is one by itself")
    with second_compiler(a.argv):
        found = _verified(a)
    if a.html is not None:
        from refnet.report.html import write

        write(a.html, found, model=a.model, capture=str(a.capture))
    if a.json:
        print_json(found.record())
    else:
        show_verification(found, a.all)
    return found.exit_code


def warm_up(a: argparse.Namespace) -> None:
    """What a second process does while `run` compiles kernels."""
    from refnet.verification.sources import network_and_inputs
    from refnet.verification.warm_up import warm_up as warm_graph

    for one in _shipped(a) if a.capture is None else [a]:
        capture = refnet.open_capture(one.capture)
        graph, _ = network_and_inputs(
            capture,
            one.model,
            weights=one.weights,
            network=one.network,
            image=one.image,
            inputs=one.input,
            pipeline=one.pipeline,
        )
        warm_graph(graph, None if one.book is None else refnet.Replay(refnet.read_book(one.book), 1))


def _shipped(a: argparse.Namespace) -> list[argparse.Namespace]:
    """The arguments for each capture that ships with refnet, with its book."""
    from refnet.models.weights import shipped_captures

    for name in ("book", "html", "input"):
        if getattr(a, name) is not None:
            raise InputError(f"--{name} {getattr(a, name)}: name the capture, too")
    return [
        argparse.Namespace(**vars(a) | {"capture": folder, "book": book})
        for folder, book in shipped_captures(a.full)
    ]


def _verified(a: argparse.Namespace) -> Verification:
    if a.model is not None:
        usable(a.model, a.network)
    with progress_bar("nodes", compiling=True) as progress:
        return refnet.verify(
            a.capture,
            a.model,
            weights=a.weights,
            network=a.network,
            image=a.image,
            inputs=a.input,
            pipeline=a.pipeline,
            book=a.book,
            only=a.only,
            threads=a.threads,
            other_sources=a.other_sources,
            progress=progress,
        )
