"""refnet reveal: find out in which order a framework adds, and write it to a book."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import refnet
from refnet.cli.common import (
    DIFFERENT,
    DONE,
    callable_arguments,
    interpreters,
    json_argument,
    json_value,
    pairs,
    positive,
    precision_argument,
    print_json,
    process_arguments,
    progress_bar,
    refuse_given,
    subgraph_argument,
    usable,
    weights_arguments,
)
from refnet.core.errors import InputError
from refnet.core.words import counted, did_you_mean
from refnet.frameworks.capture.names import LIVE

if TYPE_CHECKING:
    from refnet import Revealed

TEXT = "find out in which order a framework adds, and write it to a book"

EXAMPLES = """\
examples:
  refnet reveal torch resnest-50-pytorch --weights seed:0 -o torch.book.json
  refnet reveal mxnet octave-se-resnet-50-0.125 --weights seed:0 --threads 2 -o mxnet.book.json
  refnet reveal mxnet octave-se-resnet-50-0.125 --weights seed:0 --subgraph default -o joined.book.json
  refnet reveal onnxruntime resnest-50-pytorch --weights seed:0 --batch 4 -o ort.book.json
  refnet reveal torch resnest-50-pytorch --environment ONEDNN_MAX_CPU_ISA=AVX2 -o avx2.book.json
  refnet reveal torch digits_torch:network --path weights/training --state weights/resnest-digits.pth \\
      --model resnest-digits -o digits.book.json
  refnet reveal --show layer1.0.conv1 resnest-50-pytorch --book torch.book.json -o conv1.svg
  refnet reveal --show Dense --book mxnet.book.json

The framework is a black box: each distinct convolution, dense layer and pool of the network is given sums
of a huge number, its negative and ones; the number of ones that are left tells in which order they were
added. Other numbers show whether products are rounded, where a bias is added and what padding does. For
relu, batch norm, sigmoid and the like, the formula that gives the framework's bits is chosen. Then each
node's recipe must reproduce two runs of the whole network bit by bit, from the framework's own inputs to
the node. Nodes that fail are left out of the book and named. A third run contains infinities and NaN. If
several recipes fit, one that also holds there is chosen; nodes without such a recipe are named.

With --subgraph default MXNet joins nodes: a convolution with the batch norm, the addition or the relu after
it. refnet asks MXNet which nodes it joins and then treats each group as one node; only the value of its last
node is visible.

A book is valid for its reference only: framework, version, build, instruction set, threads, batch and mode.
With it, `refnet run --arithmetic replay:BOOK` gives the framework's bits without the framework.

--show explains how a book computes a node, in words and, with -o, as a picture (SVG): which chains, in which
order, and how they are added. NODE is a node of the MODEL or, without MODEL, a part of a recipe's key.

The book does not depend on the weights that are used. Run again, an interrupted command continues:
BOOK.partial holds the answers so far. Exit code 0: every node is confirmed; 1: some are not. docs/reveal.md
explains how it works.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("framework", nargs="?", metavar="FRAMEWORK", help=", ".join(LIVE))
    text = "name or file; for torch also package.module:callable"
    parser.add_argument("model", nargs="?", metavar="MODEL", help=text)
    text = "the book's file; with --show, the picture's"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=text)
    text = "show a node's recipe instead, in words and as a picture"
    parser.add_argument("--show", metavar="NODE", help=text)
    parser.add_argument("--book", type=Path, metavar="BOOK", help="the book that --show reads")
    weights_arguments(parser)
    text = "torch callable without --model: an input, whose shape alone is used (NAME=FILE.npy for several)"
    parser.add_argument("--input", action="append", metavar="X", help=text)
    text = "number of threads (default: 1)"
    parser.add_argument("--threads", type=positive, metavar="N", help=text)
    parser.add_argument("--batch", type=positive, metavar="N", help="batch size (default: 1)")
    parser.add_argument("--mode", metavar="MODE", help="how the framework executes, see `refnet capture`")
    subgraph_argument(parser)
    precision_argument(parser)
    process_arguments(parser, "answer")
    callable_arguments(parser, "FILE", "torch callable: its state dict")
    json_argument(parser)


def run(a: argparse.Namespace) -> int:
    """Do what the arguments say; the exit code."""
    if a.show is not None:
        return _show_recipes(a)
    if a.book is not None:
        raise InputError(f"--book {a.book} is only for --show; name the file of a new book with -o")
    if a.framework not in LIVE or a.model is None or a.output is None:
        given = " ".join(word for word in (a.framework, a.model) if word)
        hint = did_you_mean(a.framework, LIVE) if a.framework and a.framework not in LIVE else ""
        raise InputError(f"needs FRAMEWORK ({', '.join(LIVE)}), MODEL and -o BOOK, got {given!r}{hint}")
    if a.framework != "torch":
        usable(a.model, a.network)
    try:
        with progress_bar("ops and captures") as progress:
            found = refnet.reveal(
                a.framework,
                a.model,
                a.output,
                inputs=a.input or (),
                weights=a.weights,
                network=a.network,
                image=a.image,
                threads=a.threads or 1,
                batch=a.batch,
                mode=a.mode,
                subgraph=a.subgraph,
                precision=a.precision,
                python=interpreters(a.python, [a.framework]).get(a.framework),
                environment=pairs("--environment", a.environment),
                timeout=a.timeout or 600,
                state=a.state,
                arguments=[json_value("--argument", text) for text in a.argument],
                options=json_value("--option", a.option, dict) if a.option else {},
                paths=a.path,
                progress=progress,
            )
    except KeyboardInterrupt:
        text = f"{a.output}.partial holds the answers so far; the same command continues"
        print(f"refnet: {text}", file=sys.stderr)
        raise
    if a.json:
        print_json(_record(a.output, found))
    else:
        _show(a.output, found)
    return DIFFERENT if found.book.unconfirmed else DONE


def _show_recipes(a: argparse.Namespace) -> int:
    """Do what --show asks for; the one word before it may be a MODEL."""
    from refnet.cli.recipes import show_recipes
    from refnet.models.loading import structure

    if a.book is None or a.model is not None:
        raise InputError("--show NODE needs --book BOOK, and takes one MODEL at most")
    ignored = ("weights", "threads", "batch", "mode", "python", "environment", "timeout", "state", "argument")
    refuse_given(a, (*ignored, "option", "path", "input"), "--show reads a book and asks no framework")
    if a.subgraph != "NONE":
        raise InputError(f"--subgraph {a.subgraph}: --show reads a book and asks no framework")
    name = a.framework or a.network
    graph = None
    if name is not None:
        graph = structure(usable(name, a.network), network=a.network, image=a.image)
    show_recipes(a.book, a.show, a.output, a.json, graph)
    return DONE


def _record(output: Path, found: Revealed) -> dict[str, object]:
    book = found.book
    return {
        "book": str(output),
        "reference": vars(book.reference),
        "recipes": len(book.recipes),
        "nodes": found.nodes,
        "replayed": found.replayed,
        "settled": found.settled,
        "unconfirmed": [vars(one) for one in book.unconfirmed],
        "not_with_infinities_and_nan": list(found.usual),
    }


def _show(output: Path, found: Revealed) -> None:
    from refnet.report.terminal import clean, show

    book, who = found.book, found.book.reference
    threads = f"{who.threads} thread{'s' * (who.threads != 1)}"
    show(
        clean(f"{output}: {who.framework} {who.version}, {who.isa}, {who.mode}, {threads}, batch {who.batch}")
    )
    show(
        f"{counted(found.replayed, 'node')} by {counted(len(book.recipes), 'recipe')}, confirmed to the bit "
        "on two captures; "
        f"{counted(found.settled, 'node has', 'nodes have')} only one right result, and the framework gave it"
    )
    if found.usual:
        some = ", ".join(found.usual[:5]) + (", ..." if len(found.usual) > 5 else "")
        others = counted(len(found.usual), "node has", "nodes have")
        show(clean(f"with infinities and NaN, {others} other bits: {some}"))
    for one in book.unconfirmed:
        more = f" and {len(one.nodes) - 3} more" if len(one.nodes) > 3 else ""
        show(clean(f"not confirmed: {', '.join(one.nodes[:3])}{more}: {one.signature}: {one.reason}"))
