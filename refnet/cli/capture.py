"""refnet capture: run a network in a framework, or in refnet, and save every value in a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import refnet
from refnet.cli.common import (
    DIFFERENT,
    DONE,
    callable_arguments,
    interpreters,
    json_argument,
    json_value,
    names_arguments,
    one_of,
    outputs_argument,
    pairs,
    pipeline_argument,
    positive,
    precision_argument,
    print_json,
    process_arguments,
    progress_bar,
    subgraph_argument,
    usable,
    weights_arguments,
)
from refnet.core.errors import InputError
from refnet.core.words import counted

TEXT = "run a network in a framework and save every value"

EXAMPLES = """\
examples:
  refnet capture torch resnest-50-pytorch --weights seed:0 --input seed:1 -o caps/torch
  refnet capture mxnet octave-se-resnet-50-0.125 --input cat.jpg -o caps/mxnet       with fetched weights
  refnet capture mxnet net-symbol.json --weights net-0000.params --input x.npy --mode internals -o caps/mx
  refnet capture onnxruntime net.onnx --input x.npy --mode all -o caps/ort
  refnet capture openvino converted.xml --input cat.jpg -o caps/ov                   every value, in float32
  refnet capture refnet resnest-digits --arithmetic golden --input sample:1700-label-5.png -o caps/golden
  refnet capture torch mynets:make --path src --state net.pth --image 224,224 -o caps/mine
  refnet capture torch mynets:make --path src --state net.pth --model resnest-50-pytorch -o caps/mine
  refnet capture torch mynets:make --path src --model resnest-50-pytorch --weights net.params -o caps/mine
  refnet capture mxnet octave-se-resnet-50-0.125 --order-free -o caps/exact
  refnet capture torch mynets:make --path src --image 224,224 --order-free -o caps/exact
  refnet capture folder dumps --model resnest-50-pytorch --weights net.pth --input x.npy -o caps/npu

A capture is a folder with one .npy file per value and manifest.json, which says who computed it (framework,
version, build, instruction set, threads, batch, mode, flags) and has the sha256 of every value, of the
inputs, the graph and the weights. docs/formats.md specifies it, so that anyone can write one.

torch, mxnet, onnxruntime and openvino run in a Python of their own: --python PATH, else the variable
REFNET_PYTHON_TORCH (_MXNET, _ONNXRUNTIME, _OPENVINO), else the Python that runs refnet, else that of the
PATH. torch takes any nn.Module as package.module:callable. It is exported (torch.export, to network.onnx in
DIR) and run node by node, so `refnet verify DIR` needs nothing else. If torch.export refuses it, what
torch.fx records of it is exported. Where that fails, too, and with
--mode eager, every module's and every function's output is a value, without a graph; with --model the graph
is a network's that refnet knows. --state loads weights into the module. The manifest names --weights, or
--state, only after comparing them with the module's own parameters; if they differ, nothing is captured. A
MODEL that is not a file of the framework is exported by refnet first. For onnxruntime and openvino,
--weights of a .onnx or .xml are compared with those in it.

Of a folder, refnet runs nothing. Its inputs are taken from its files; an --input that is named must have the
same bits. A file that matches no value of the network is an error, with the likely matches, until --names
MAP.json names it or --allow NAME allows it.

Modes: mxnet monitor (the default: the symbol as it is), internals (every value exposed, which changes bits),
outputs; onnxruntime disabled (the default: every node as written), basic, extended, all (how much of the
graph is optimised), outputs (everything optimised; only the outputs are captured); openvino internals (the
default: every value made an output), compiled (the network as it is compiled, with those of its values that
can be seen without a change of its outputs' bits; it is compiled several times to find them), outputs (the
same, only the outputs); torch eager (the default but for a callable), exported (the default of a callable
without --model).

--order-free does not run the network. It runs each reduction (convolution, dense, average) alone, at its own
size, on integers so small that no sum of them rounds in any order. Every framework must then give the same
bits; exit code 1: some nodes differ. `refnet diff` compares two such captures. With onnxruntime and a .onnx
file, the nodes are the file's own, at its operator versions; with a network that refnet knows, they are the
framework's operators of the same meaning, and no code of yours runs. Of a package.module:callable, the
module's own calls run, each alone, as torch.export sees them.
`refnet export MODEL --to onnx --order-free -o DIR` writes a model with inputs and results, to be run by
anything.

An interrupted capture is never mistaken for a complete one. Run the same command again to complete it:
existing values are compared with what the framework computes now, and the rest is written.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from refnet.frameworks.capture.names import FRAMEWORKS

    known, text = one_of(*FRAMEWORKS), ", ".join(FRAMEWORKS)
    parser.add_argument("framework", metavar="FRAMEWORK", type=known, choices=FRAMEWORKS, help=text)
    parser.add_argument("model", metavar="MODEL", help="name or file; for torch also package.module:callable")
    parser.add_argument(
        "--input",
        action="append",
        metavar="X",
        help="a .npy file, NAME=FILE.npy, a folder of such files, images (a batch), sample:NAME or seed:N "
        "(default: seed:0; of FRAMEWORK folder, what its files say)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the capture's folder"
    )
    weights_arguments(parser)
    outputs_argument(parser)
    pipeline_argument(parser)
    text = "number of threads (default: 1)"
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help=text)
    text = "batch size of a seed:N input (default: 1)"
    parser.add_argument("--batch", type=positive, metavar="N", help=text)
    parser.add_argument("--mode", metavar="MODE", help="how the framework executes the network, see below")
    text = "with FRAMEWORK refnet: the arithmetic (default: plain)"
    names = ("plain", "golden")
    parser.add_argument("--arithmetic", type=one_of(*names), choices=names, help=text)
    subgraph_argument(parser)
    precision_argument(parser)
    parser.add_argument(
        "--hash-only", action="store_true", help="keep the hashes of the values, not the data"
    )
    process_arguments(parser, "value")
    text = "torch callable: the state dict that is loaded into it, or seed:N (with --model)"
    callable_arguments(parser, "FILE|seed:N", text)
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="folder: who computed it (framework, version, build, isa, threads, batch, mode, processor)",
    )
    names_arguments(parser, "folder: ")
    text = "run single reductions instead of the network, on inputs whose sums are exact: see below"
    parser.add_argument("--order-free", action="store_true", help=text)
    json_argument(parser)


def _order_free(done: refnet.CaptureResult) -> dict[str, Any]:
    """What --json says of an order-free run."""
    return {
        "different": list(done.different),
        "driven": done.driven,
        "undriven": dict(done.undriven),
    }


def run(a: argparse.Namespace) -> int:
    """Do what the arguments say; the exit code."""
    from refnet.report.terminal import clean, show
    from refnet.verification.names import read_names

    if a.arithmetic is not None and a.framework != "refnet":
        raise InputError(f"--arithmetic is for FRAMEWORK refnet; {a.framework} rounds in its own way")
    if a.arithmetic is not None and a.mode not in (None, a.arithmetic):
        raise InputError(f"--arithmetic {a.arithmetic} and --mode {a.mode}: give one or the other")
    if a.framework not in ("torch", "folder"):
        usable(a.model, a.network)
    runs = [] if a.framework in ("refnet", "folder") else [a.framework]
    try:
        with progress_bar("values") as progress:
            done = refnet.capture(
                a.framework,
                a.model,
                a.output,
                inputs=a.input or (),
                weights=a.weights,
                network=a.network,
                image=a.image,
                pipeline=a.pipeline,
                threads=a.threads,
                batch=a.batch,
                mode=a.arithmetic or a.mode,
                subgraph=a.subgraph,
                precision=a.precision,
                hash_only=a.hash_only,
                order_free=a.order_free,
                python=interpreters(a.python, runs).get(a.framework),
                environment=pairs("--environment", a.environment),
                timeout=a.timeout or 600,
                state=a.state,
                arguments=[json_value("--argument", text) for text in a.argument],
                options=json_value("--option", a.option, dict) if a.option else {},
                paths=a.path,
                reference=pairs("--reference", a.reference),
                names={} if a.names is None else read_names(a.names),
                allow=a.allow,
                progress=progress,
            )
    except KeyboardInterrupt:
        print(f"refnet: {a.output} is unfinished; the same command completes it", file=sys.stderr)
        raise
    for name, reason in done.left_out.items():
        print(clean(f"refnet: {name} is left out: {reason}"), file=sys.stderr)
    count, reference = len(done.manifest.values), done.manifest.reference
    if a.json:
        record = {"folder": str(a.output), "values": count, "found": done.resumed}
        record |= {"left_out": dict(done.left_out), "reference": vars(reference)}
        print_json(record | (_order_free(done) if a.order_free else {}))
    else:
        went_on = f", {done.resumed} of them from before an interruption" if done.resumed else ""
        kept = "hashes of " if a.hash_only else ""
        show(clean(f"{a.output}: {kept}{counted(count, 'value')} of {reference}{went_on}"))
        for name in done.different:
            why = "not the exact result, though no sum in it can round: the node computes something else"
            show(clean(f"{name}: {why}"))
        if a.order_free:
            show(clean(f"what was run: {count} {done.driven}"))
            if not done.different:
                show("each of these has the exact result's bits")
            if done.undriven:
                listed = ", ".join(f"{kind} ({many})" for kind, many in done.undriven.items())
                show(f"not run, as no inputs make it order-free: {listed}")
    return DIFFERENT if done.different else DONE
