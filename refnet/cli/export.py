"""refnet export: write a network as another framework's files."""

from __future__ import annotations

import argparse

from refnet.cli.common import one_of, usable, weights_arguments

TEXT = "write a network as another framework's files"

EXAMPLES = """\
examples:
  refnet export octave-se-resnet-digits --to mxnet -o net         net-symbol.json and net-0000.params
  refnet export octave-se-resnet-50-0.125 --to mxnet -o net --weights seed:0
  refnet export resnest-50-pytorch --to onnx -o net --weights seed:0          net.onnx, opset 17

MXNet or ONNX Runtime can load and run the result. --to onnx needs `pip install "refnet[onnx]"`.
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
        help="PREFIX-symbol.json and PREFIX-0000.params, or PREFIX.onnx",
    )
    weights_arguments(parser)


def run(a: argparse.Namespace) -> None:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.models.export import export
    from refnet.models.loading import load
    from refnet.report.terminal import clean, show

    graph = load(usable(a.model, a.network), weights=a.weights, network=a.network, image=a.image)
    for path in export(graph, a.prefix, a.to):
        show(clean(path))
