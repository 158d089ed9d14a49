"""refnet verify: what can be proved about every value of a capture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import refnet
from refnet.cli.common import (
    json_argument,
    listed,
    names_arguments,
    outputs_argument,
    pipeline_argument,
    print_json,
    progress_bar,
    refuse_given,
    threads_argument,
    usable,
    weights_arguments,
)
from refnet.cli.exit_codes import worst
from refnet.cli.second import second_compiler
from refnet.core.errors import InputError

if TYPE_CHECKING:
    from refnet import Verification

TEXT = "judge every value of a capture: equal, replayed, rounding or defect"

EXAMPLES = """\
examples:
  refnet verify                           the shipped digits networks against their frameworks' values
  refnet verify --full                    also the two 224 x 224 networks
  refnet verify DIR                       with the model, weights and input that it names
  refnet verify DIR octave-se-resnet-50-0.125 --weights seed:0
  refnet verify DIR net-symbol.json --weights net-0000.params --input x.npy        a folder of .npy files
  refnet verify DIR --only layer1.0.conv1 --json
  refnet verify DIR --outputs layer3.5        only what this value is made of
  refnet verify DIR --book torch.book.json    values with the recipes' bits are proved to be rounding only
  refnet verify DIR --html report.html        one self-contained file
  refnet verify caps net.onnx                 your torch module's values against what you exported of it
  refnet verify DIR net.onnx --propose map.json      files under other names: what each may be
  refnet verify DIR net.onnx --names map.json        accepted

Each value is judged on the capture's own inputs to its node:
  equal     the op has only one right result in float32, and these are its bits
  replayed  a known order of operations gives these bits: the book's, or refnet's plain order
  rounding  inside the bound that is proved for every order; the largest share of the bound is printed
  defect    outside the bound, or not the one right result: proved not to be rounding
  unjudged  no bound exists there (overflow, NaN), an input is unknown, only a hash was kept, or the array
            has another shape and not exactly one order of its axes is clean
  missing   not in the capture, or its name holds a later node's value, folded or fused into one; the next
            captured value is judged across the nodes in between
Finally the outputs are compared with refnet's own run from the input.

If DIR is the capture of a torch module and MODEL another .onnx of it, the file's nodes are matched with the
module's: by inputs, bits and names; folded batch norms are judged apart.

Without DIR, refnet judges the captures that ship with it, using their books: every value as MXNet and
PyTorch computed it. Neither needs to be installed. DIR is a capture (`refnet capture`), or a folder of .npy
files named after the values, from hardware or any other source; then MODEL names the network. A model, or
weights, that the capture names are looked for at the path recorded, beside the capture and in the current
folder. Exit code 0: no defect; 1: a defect; 2: no defect, but a captured value matches none of the graph, or
some or all values could not be judged; --allow NAME accepts those. docs/verify.md explains the report.
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
    outputs_argument(parser, "judged", "wanted")
    text = "a book of recipes: values with their bits are `replayed`"
    parser.add_argument("--book", type=Path, metavar="BOOK", help=text)
    text = "without DIR: also judge the two 224 x 224 networks"
    parser.add_argument("--full", action="store_true", help=text)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write an HTML report")
    names_arguments(parser)
    text = "write a map for --names: what captured values that match nothing may be"
    parser.add_argument("--propose", type=Path, metavar="MAP.json", help=text)
    parser.add_argument("--all", action="store_true", help="list every value, not only those that are wrong")
    text = "also print all that is known of who computed the values, such as the build's flags"
    parser.add_argument("--verbose", action="store_true", help=text)
    parser.add_argument(
        "--other-sources",
        action="store_true",
        help="judge even if DIR was made from another graph or other weights",
    )
    threads_argument(parser)
    json_argument(parser)


def input_arguments(parser: argparse.ArgumentParser, when: str = "if DIR has none") -> None:
    """Declare --input and --pipeline. when: in which case the input is needed."""
    text = (
        f"the network's input, {when}: a .npy file, NAME=FILE.npy, a folder of such files, images (a batch), "
        "sample:NAME or seed:N"
    )
    parser.add_argument("--input", action="append", metavar="X", help=text)
    pipeline_argument(parser)


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
            show_shipped(everything, a.full, a.verbose)
        return worst(found.exit_code for found in everything)
    if a.full:
        raise InputError(f"--full is for the captures that ship with refnet: leave {a.capture} out")
    if a.only:
        refuse_given(a, ("propose",), "with --only, values that match nothing are not looked at")
    with second_compiler(a.argv):
        found = _verified(a)
    if a.propose is not None:
        _propose(a, found)
    if a.html is not None:
        from refnet.report.html import write

        write(a.html, found, model=_model(a), capture=str(a.capture), options=_explaining(a))
    if a.json:
        print_json(found.record())
    else:
        show_verification(found, a.all, a.verbose, _explaining(a))
    return found.exit_code


def _model(a: argparse.Namespace) -> str:
    """The MODEL, as `refnet explain` needs it: the one named, else the one that the capture names."""
    from refnet.models.inputs import located_model

    if a.model is not None:
        return str(a.model)
    manifest = refnet.open_capture(a.capture).manifest
    said = None if manifest is None else manifest.sources
    return located_model(said, (Path(), a.capture), None, None, a.network, a.image, "the capture").model


def _explaining(a: argparse.Namespace) -> list[str]:
    """The options with which `refnet explain` reads the capture as this command does."""
    image = None if a.image is None else ",".join(map(str, a.image))
    given = {
        "weights": a.weights,
        "model": a.network,
        "image": image,
        "pipeline": a.pipeline,
        "names": a.names,
    }
    words = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    return words + [word for text in a.input or () for word in ("--input", text)]


def _propose(a: argparse.Namespace, found: Verification) -> None:
    """Write the likely matches as a map of names, those that are accepted already with them."""
    from refnet.verification.names import read_names, write_names

    accepted = {} if a.names is None else read_names(a.names)
    likely = {one.name: one.likely.name for one in found.unmatched if one.likely is not None}
    write_names(a.propose, {**accepted, **likely})


def warm_up(a: argparse.Namespace) -> None:
    """Compile in a second process what `run` will need."""
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

    ignored = ("book", "html", "input", "pipeline", "names", "propose", "all")
    why = "also name the capture's folder, DIR"
    refuse_given(a, ignored, why)
    if a.wanted:
        raise InputError(f"--outputs {a.wanted[0]}: {why}")
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
            outputs=listed(a.wanted),
            threads=a.threads,
            other_sources=a.other_sources,
            names=a.names,
            allow=a.allow,
            progress=progress,
        )
