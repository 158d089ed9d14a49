"""refnet export: write a network as another framework's files."""

from __future__ import annotations

import argparse
import sys

from refnet.cli.common import one_of, outputs_argument, usable, weights_arguments
from refnet.core.errors import InputError
from refnet.core.words import counted

TEXT = "write a network as another framework's files"

EXAMPLES = """\
examples:
  refnet export octave-se-resnet-digits --to mxnet -o net         net-symbol.json and net-0000.params
  refnet export octave-se-resnet-50-0.125 --to mxnet -o net --weights seed:0
  refnet export resnest-50-pytorch --to onnx -o net --weights seed:0          net.onnx, opset 17
  refnet export resnest-50-pytorch --to onnx --order-free -o DIR              DIR/model.onnx, inputs, expected

MXNet or ONNX Runtime can load and run the result. --to onnx needs `pip install "refnet[onnx]"`.

--order-free writes another model: every convolution, dense layer and average of MODEL, at its own size, each
with an input of its own and with weights of its own, on which no sum rounds in any order. DIR/inputs has
the inputs, DIR/expected the exact results. Run the model with anything (a compiler, a chip), save each output
as OUT/NAME.npy, and judge that: `refnet verify OUT DIR/model.onnx --input DIR/inputs`. docs/cli.md has more.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="name or file")
    known = ("mxnet", "onnx")
    parser.add_argument("--to", required=True, type=one_of(*known), choices=known, help="the framework")
    parser.add_argument(
        "-o",
        "--prefix",
        required=True,
        help="PREFIX-symbol.json and PREFIX-0000.params, or PREFIX.onnx; with --order-free a folder",
    )
    text = "write each reduction alone, with inputs on which no sum rounds, and the exact results: see below"
    parser.add_argument("--order-free", action="store_true", help=text)
    weights_arguments(parser)
    outputs_argument(parser)


def run(a: argparse.Namespace) -> None:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.models.export import export
    from refnet.models.loading import load
    from refnet.report.terminal import clean, show

    if a.order_free:
        _write_order_free(a)
        return
    graph = load(usable(a.model, a.network), weights=a.weights, network=a.network, image=a.image)
    for path in export(graph, a.prefix, a.to):
        show(clean(path))


def _write_order_free(a: argparse.Namespace) -> None:
    from refnet.frameworks.capture.orderfree_model import write_model
    from refnet.models.loading import structure
    from refnet.report.terminal import clean, show

    if a.to != "onnx":
        raise InputError(f"--to {a.to}: an order-free model is written as .onnx: it has an input per node")
    if a.weights is not None:
        raise InputError(f"--weights {a.weights}: an order-free model has weights of its own")
    graph = structure(usable(a.model, a.network), network=a.network, image=a.image)
    made = write_model(graph, a.prefix)
    for name, reason in made.left_out.items():
        print(clean(f"refnet: {name} is left out: {reason}"), file=sys.stderr)
    own = f"each with an input of its own in {a.prefix}/inputs"
    show(clean(f"{made.file}: {counted(len(made.values), 'node')} of {graph.name}, {own}"))
    if made.undriven:
        listed = ", ".join(f"{kind} ({many})" for kind, many in made.undriven.items())
        show(f"not in it, as no inputs make it order-free: {listed}")
    show(clean(f"refnet verify OUT {made.file} --input {a.prefix}/inputs judges its outputs OUT/NAME.npy"))
    show(clean(f"refnet diff OUT {a.prefix}/expected compares them with the exact results"))
