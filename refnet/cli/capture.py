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
    json_argument,
    json_value,
    pairs,
    positive,
    print_json,
    progress_bar,
    subgraph_argument,
    usable,
    weights_arguments,
)
from refnet.core.errors import InputError

TEXT = "run a network in a framework and save every value"

EXAMPLES = """\
examples:
  refnet capture torch resnest-50-pytorch --weights seed:0 --input seed:1 -o caps/torch
  refnet capture mxnet octave-se-resnet-50-0.125 --input cat.jpg -o caps/mxnet       with fetched weights
  refnet capture mxnet net-symbol.json --weights net-0000.params --input x.npy --mode internals -o caps/mx
  refnet capture onnxruntime net.onnx --input x.npy --mode all -o caps/ort
  refnet capture refnet resnest-digits --arithmetic golden --input sample:1700-label-5.png -o caps/golden
  refnet capture torch mynets:make --path src --state net.pth --model resnest-50-pytorch -o caps/mine
  refnet capture mxnet octave-se-resnet-50-0.125 --order-free -o caps/exact
  refnet capture folder dumps --model resnest-50-pytorch --weights net.pth --input x.npy -o caps/npu

A capture is a folder with one .npy file per value and manifest.json, which says who computed it (framework,
version, build, instruction set, threads, batch, mode, flags) and has the sha256 of every value, of the
inputs, the graph and the weights. docs/formats.md specifies it, so that anyone can write one.

torch, mxnet and onnxruntime run in their own Python: --python PATH, else .venv-NAME/bin/python
(`bash .ci/environments.sh NAME` creates it). torch takes any nn.Module as package.module:callable: every
module's and every function's output is a value; with --model refnet knows its graph too, and can verify the
capture. A MODEL that is not a file of the framework is exported by refnet first.

Modes: mxnet monitor (the default: the symbol as it is), internals (every value exposed, which changes
bits), outputs; onnxruntime disabled (the default: every node as written), basic, extended, all (how much of
the graph is optimised), outputs (everything optimised; only the outputs
are captured); torch eager.

--order-free does not run the network. It runs each reduction (convolution, dense, average) alone, at its own
size, on integers so small that no sum of them rounds in any order. Every framework must then give the same
bits; exit code 1: some nodes differ. `refnet diff` compares two such captures. With onnxruntime and a .onnx
file, the nodes are the file's own, at its operator versions; with a network that refnet knows, they are the
framework's operators of the same meaning, and no code of yours runs. A package.module:callable is refused;
`refnet export MODEL --to onnx --order-free -o DIR` writes a model with inputs and results, to be run by
anything.

An interrupted capture is never mistaken for a complete one. Run the same command again to complete it:
existing values are compared with what the framework computes now, and the rest is written.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    from refnet.frameworks.capture.names import FRAMEWORKS

    parser.add_argument("framework", metavar="FRAMEWORK", choices=FRAMEWORKS, help=", ".join(FRAMEWORKS))
    parser.add_argument("model", metavar="MODEL", help="name or file; for torch also package.module:callable")
    parser.add_argument(
        "--input",
        action="append",
        metavar="X",
        help="a .npy file, NAME=FILE.npy, images (a batch), sample:NAME or seed:N (default: seed:0)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the capture's folder"
    )
    weights_arguments(parser)
    parser.add_argument(
        "--pipeline",
        metavar="NAME",
        help="the preprocessing pipeline, docs/preprocessing.md (default: the model's)",
    )
    text = "number of threads (default: 1)"
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help=text)
    text = "batch size of a seed:N input (default: 1)"
    parser.add_argument("--batch", type=positive, metavar="N", help=text)
    parser.add_argument("--mode", metavar="MODE", help="how the framework executes the network, see below")
    text = "with FRAMEWORK refnet: the arithmetic (default: plain)"
    parser.add_argument("--arithmetic", choices=["plain", "golden"], help=text)
    subgraph_argument(parser)
    parser.add_argument(
        "--hash-only", action="store_true", help="keep the hashes of the values, not the data"
    )
    parser.add_argument("--python", metavar="PATH", help="the Python that has the framework")
    parser.add_argument(
        "--environment",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable for the framework's process, for example ONEDNN_MAX_CPU_ISA=AVX2",
    )
    text = "seconds to wait for one value (default: 600)"
    parser.add_argument("--timeout", type=positive, default=600, metavar="SECONDS", help=text)
    parser.add_argument("--state", metavar="FILE", help="torch callable: its state dict")
    parser.add_argument(
        "--argument", action="append", default=[], metavar="JSON", help="torch callable: an argument"
    )
    parser.add_argument("--option", metavar="JSON", help='torch callable: its keywords, {"name": value}')
    parser.add_argument(
        "--path", action="append", default=[], metavar="DIR", help="torch callable: a folder to import from"
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="folder: who computed it (framework, version, build, isa, threads, batch, mode, processor)",
    )
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

    if a.arithmetic is not None and a.framework != "refnet":
        raise InputError(f"--arithmetic is for FRAMEWORK refnet; {a.framework} rounds in its own way")
    if a.framework not in ("torch", "folder"):
        usable(a.model, a.network)
    try:
        with progress_bar("values") as progress:
            done = refnet.capture(
                a.framework,
                a.model,
                a.output,
                inputs=a.input or "seed:0",
                weights=a.weights,
                network=a.network,
                image=a.image,
                pipeline=a.pipeline,
                threads=a.threads,
                batch=a.batch,
                mode=a.arithmetic or a.mode,
                subgraph=a.subgraph,
                hash_only=a.hash_only,
                order_free=a.order_free,
                python=a.python,
                environment=pairs("--environment", a.environment),
                timeout=a.timeout,
                state=a.state,
                arguments=[json_value("--argument", text) for text in a.argument],
                options=json_value("--option", a.option, dict) if a.option else {},
                paths=a.path,
                reference=pairs("--reference", a.reference),
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
        show(clean(f"{a.output}: {kept}{count} values of {reference}{went_on}"))
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
