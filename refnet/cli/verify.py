"""refnet verify: what can be proved of every value of a capture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from refnet.cli.common import counting, json_argument, positive, print_json, usable, weights_arguments
from refnet.cli.second import second_compiler
from refnet.core.errors import InputError

if TYPE_CHECKING:
    from refnet.core.graph import Graph
    from refnet.core.op import F32
    from refnet.verification.capture import Capture
    from refnet.verification.verify import Verification

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
    from refnet.arithmetic.replay import Replay
    from refnet.formats.book import read
    from refnet.verification.capture import open_capture
    from refnet.verification.warm_up import warm_up as warm_graph

    for one in _shipped(a) if a.capture is None else [a]:
        graph, _ = sources(one, open_capture(one.capture))
        warm_graph(graph, None if one.book is None else Replay(read(one.book), 1))


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
    from refnet.verification.capture import open_capture
    from refnet.verification.verify import verify

    capture = open_capture(a.capture)
    book, replay = None, None
    if a.book is not None:
        from refnet.arithmetic.replay import Replay
        from refnet.formats.book import read

        book = read(a.book)
        replay = Replay(book, a.threads)
    graph, inputs = sources(a, capture)
    stated = {} if inputs else stated_inputs(graph, capture)
    with counting("nodes", len(graph.nodes), compiling=True) as advance:
        return verify(
            graph,
            capture,
            inputs=inputs,
            stated=stated,
            replay=replay,
            book=None if book is None else vars(book.reference) | {"recipes": len(book.recipes)},
            only=a.only,
            threads=a.threads,
            other_sources=a.other_sources,
            advance=advance,
        )


def sources(a: argparse.Namespace, capture: Capture) -> tuple[Graph, dict[str, F32]]:
    """The graph with its weights, and inputs that the capture lacks: of the arguments, or of its manifest."""
    from refnet.models.loading import load, network_of
    from refnet.verification.golden import inputs_from, located

    said = None if capture.manifest is None else capture.manifest.sources
    if a.model is None and (said is None or not said.model):
        raise InputError(f"{a.capture} does not say of which network its values are: name the MODEL")
    model = None if a.model is None else usable(a.model, a.network)
    chosen = located(said, a.capture, model, a.weights, "seed:0", None, a.network, a.image)
    graph = load(chosen.model, weights=chosen.weights, network=chosen.network, image=chosen.image)
    source, pipeline = a.input, a.pipeline
    if source is None and capture.manifest is not None and said is not None:
        if all(one.file is not None for one in capture.manifest.inputs.values()):
            return graph, {}
        found = located(said, a.capture, None, None, None, None, None, None)  # the hashes of inputs only
        source, pipeline = found.input, pipeline or found.pipeline
    if source is None:
        return graph, {}
    entry = network_of(chosen.model, chosen.network)
    return graph, inputs_from(graph, source, pipeline or (entry.pipeline if entry else None))


def stated_inputs(graph: Graph, capture: Capture) -> dict[str, F32]:
    """What the source that a manifest names makes: a seed or a sample, or an image beside the capture.

    Nothing where it names none, or a file that is not there: the capture's own array is then all there is.
    """
    from refnet.formats.manifest import file_name
    from refnet.models.synthetic import normal
    from refnet.verification.golden import SAMPLE, SEED, inputs_from

    manifest = capture.manifest
    said = None if manifest is None else manifest.sources
    if manifest is None or said is None or set(manifest.inputs) != set(graph.inputs):
        return {}
    source = said.input
    if source.startswith(SEED):  # of any batch
        made = inputs_from(graph, source, None)
        return {name: normal(int(source[5:]), name, capture.input(name).shape) for name in made}
    if source in {file_name(name) for name in graph.inputs} or not source or said.pipeline is None:
        return {}
    if not source.startswith(SAMPLE):
        path = capture.folder / source
        if Path(source).name != source or not path.is_file():
            return {}
        source = str(path)
    return inputs_from(graph, source, said.pipeline)
