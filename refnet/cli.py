"""The command line: each subcommand is a few lines over one public function.

    main ── parse ── models | run | summary | fetch | export ── report

Nothing but the standard library's parser is imported before a command needs it, so `--help` is quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refnet import __version__
from refnet.errors import InputError, RefnetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from refnet.graph import Graph
    from refnet.zoo.catalog import Entry

EMBEDDED = "octave-se-resnet-digits"
"""The network that `refnet run` takes when none is named: trained, shipped, and it runs in an instant."""

DONE, FAILED, INTERRUPTED, UNREAD = 0, 2, 130, 141

HELP = """\
refnet executes convolutional networks for bit-level verification against framework outputs.
"""

NOTES = """\
start here:
  refnet run                            the embedded digits network on the sample digits
  refnet models                         the networks that refnet knows by name
  refnet run resnest-50-pytorch cat.jpg --weights seed:0
  refnet COMMAND --help                 options and examples of a command

a MODEL is
  a name from `refnet models`           octave-se-resnet-50-0.125, resnest-digits, ...
  an MXNet symbol file                  net-symbol.json, with --weights net-0000.params
  an official MXNet archive             a05_se-resnet-50_alpha-0.125.tar
  a PyTorch state dict                  net.pth or net.safetensors, with --model NAME

exit codes:
  0    done
  2    wrong usage, or an input that cannot be used; the reason is on standard error
       (and with --json on standard output as {"error": {"kind": ..., "message": ...}})
  130  interrupted with Ctrl-C
  141  the reader of standard output went away, as in `refnet models | head -1`
  Any other exception is a bug in refnet and shows its traceback.

environment:
  REFNET_CACHE    folder of the compiled kernels (default ~/.cache/refnet/kernels)
  REFNET_WEIGHTS  folder of the fetched official files (default ~/.cache/refnet/weights)
  REFNET_QUIET    any value: no message when kernels are compiled
  NO_COLOR        any value: no colours
"""

MODELS = """\
examples:
  refnet models                         one row per network; checksums shortened
  refnet models resnest-50-pytorch      all details of one: urls, whole checksums, preprocessing
  refnet models --json                  everything, for programs

GFLOPs, MParams, top-1 and top-5 are those of the published model cards, not refnet's counts
(for these: `refnet summary NAME`).
"""

RUN = """\
examples:
  refnet run                                              the embedded digits network, sample digits
  refnet run resnest-digits weights/digits/*.png --top 1
  refnet run octave-se-resnet-50-0.125 cat.jpg            after `refnet fetch octave-se-resnet-50-0.125`
  refnet run resnest-50-pytorch cat.jpg --weights seed:0  synthetic weights: every machine, the same bits
  refnet run net-symbol.json cat.jpg --weights net-0000.params --model octave-se-resnet-50-0.125
  refnet run net.pth cat.jpg --model resnest-50-pytorch
  refnet run resnest-digits --input x.npy --value layer1.0.relu --output relu.npy

Several images are run in batches; results come in the order of the images. The bits of a result
depend neither on the batch nor on the threads. All images are read before the first batch is run, so
one that cannot be read ends the command before any work is done. A file under --output is written
whole or not at all.
"""

SUMMARY = """\
examples:
  refnet summary octave-se-resnet-50-0.125     every node, then totals beside the card's figures
  refnet summary resnest-50-pytorch --totals
  refnet summary net-symbol.json --image 256,256 --json

No weights are needed. Costs are those of one image (batch 1).
"""

FETCH = """\
examples:
  refnet fetch octave-se-resnet-50-0.125           into the folder of REFNET_WEIGHTS
  refnet fetch resnest-50-pytorch --folder .

An interrupted download goes on where it stopped. The file takes its name only when its checksum is right.
"""

EXPORT = """\
examples:
  refnet export octave-se-resnet-digits --to mxnet -o net         net-symbol.json and net-0000.params
  refnet export octave-se-resnet-50-0.125 --to mxnet -o net --weights seed:0

MXNet loads and runs what is written.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. argv: the arguments (default: those of the process).

    >>> main(["--version"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    SystemExit: 0
    """
    _escape_unencodable()
    arguments = _parse(sys.argv[1:] if argv is None else list(argv))
    try:
        if arguments is not None:
            arguments.command(arguments)
        return DONE
    except RefnetError as error:
        return _report(error, arguments is not None and getattr(arguments, "json", False))
    except KeyboardInterrupt:
        print("refnet: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return UNREAD


def _models(a: argparse.Namespace) -> None:
    from refnet.report import models
    from refnet.report.terminal import show
    from refnet.weights import located
    from refnet.zoo.catalog import entries, entry

    if a.name is None:
        found = entries()
        _print_json([models.record(e) for e in found.values()]) if a.json else show(models.listed(found))
    else:
        one = entry(a.name)
        here = located(one)
        _print_json(models.record(one)) if a.json else show(models.detailed(one, here and str(here)))


def _run(a: argparse.Namespace) -> None:
    from refnet.arithmetic.plain import Plain
    from refnet.load import load
    from refnet.predict import predict, top
    from refnet.readers.npy import writing
    from refnet.report import predictions
    from refnet.report.terminal import clean, show

    name = a.model or EMBEDDED
    entry = _entry(name, a.network)
    graph = load(name, weights=a.weights, network=a.network)
    names, batches, pipeline = _inputs(a, graph, entry)
    types = graph.types()
    output = "prob" if "prob" in graph.outputs else next(iter(graph.outputs))
    ranked = len(types[graph.outputs[output]].shape) == 2
    if not ranked and a.output is None:
        raise InputError(f"{graph.name}: output {output!r} is no row of classes; --output FILE.npy saves it")
    value = a.value or output
    shape = types[graph.outputs.get(value, value)].shape if value in {*types, *graph.outputs} else ()
    saving = writing(a.output, (len(names), *shape[1:])) if a.output and shape else nullcontext()
    rows = []
    with saving as append, _progress(len(names)) as advance:
        for found in predict(graph, batches, Plain(a.threads), [value]):
            rows += list(found[output])
            if append is not None:
                append(found[value])
            advance(len(found[output]))
    labels = _labels(entry)
    results = [top(row, a.top, labels) if ranked else () for row in rows]
    if a.json:
        head = {"model": name, "graph": graph.name, "weights": a.weights, "pipeline": pipeline}
        head |= {"arithmetic": "plain", "output": output}
        shown = [[predictions.record(p) for p in result] for result in results]
        each = [{"input": n, "top": s} for n, s in zip(names, shown, strict=True)]
        return _print_json({**head, "results": each})
    how = "input tensor as it is" if pipeline is None else f"pipeline {pipeline}"
    show(clean(f"{graph.name}: {how}, plain arithmetic" + _embedded(a)))
    for n, result in zip(names, results, strict=True):
        show("", clean(n), *([predictions.shown(result, output)] if ranked else []))
    if a.output:
        show("", clean(f"{value} [{', '.join(map(str, (len(names), *shape[1:])))}] is in {a.output}"))
