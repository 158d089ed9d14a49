"""refnet golden: write or check the hashes of every golden value."""

from __future__ import annotations

import argparse
from pathlib import Path

import refnet
from refnet.cli.common import (
    DIFFERENT,
    DONE,
    json_argument,
    outputs_argument,
    pipeline_argument,
    positive,
    print_json,
    progress_bar,
    threads_argument,
    usable,
    weights_arguments,
)
from refnet.core.errors import InputError
from refnet.core.words import counted

TEXT = "write or check the hashes of every golden value"

EXAMPLES = """\
examples:
  refnet golden resnest-50-pytorch --weights seed:0 --input seed:0 -o golden.json
  refnet golden resnest-digits --input sample:1700-label-5.png -o golden.json
  refnet golden octave-se-resnet-50-0.125 --input cat.jpg -o golden.json    with the fetched official weights
  refnet golden caps -o golden.json         of your torch module, on the inputs that it was captured with
  refnet golden --check golden.json                      with the model, weights and input that the file names
  refnet golden --check golden.json net.pth --model resnest-50-pytorch --input x.npy

A golden file holds the sha256 of every node's golden value, and of the graph, the weights and the input.
Neither threads nor batch size change them (a graph that mixes the images of a batch runs on all images at
once). --input takes a .npy file, an image, sample:NAME (a shipped digit) or seed:N (synthetic, the same
bits on every machine). --check computes everything again and names the first node that differs. Exit code
0: equal; 1: different; 2: could not be judged. Files that a golden file names, or the folder of a capture,
are looked for beside it.
docs/golden.md specifies the format.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    text = "name, file, or the folder of a torch module's capture"
    parser.add_argument("model", nargs="?", metavar="MODEL", help=text)
    parser.add_argument("--check", type=Path, metavar="FILE.json", help="compare with this golden file")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="the golden file to write")
    weights_arguments(parser)
    outputs_argument(parser)
    text = "a .npy file, a folder of them (one per input), NAME=FILE.npy, an image, sample:NAME or seed:N"
    parser.add_argument("--input", action="append", metavar="X", help=text)
    pipeline_argument(parser)
    threads_argument(parser)
    parser.add_argument(
        "--batch", type=positive, default=1, metavar="N", help="images at a time (default: 1)"
    )
    json_argument(parser)


def run(a: argparse.Namespace) -> int:
    """Do what the arguments say; the exit code, None for 0."""
    if a.check is not None and a.output is not None:
        raise InputError("--check reads a golden file and -o writes one: give one or the other")
    if a.input is not None and len(a.input) > 1:
        raise InputError(f"--input {a.input[1]}: a golden file is of one input, {a.input[0]}")
    a.input = None if a.input is None else a.input[0]
    if a.check is None:
        return _golden_record(a)
    return _golden_check(a)


def _golden_record(a: argparse.Namespace) -> int:
    from refnet.models.loading import is_capture
    from refnet.models.weights_file import source_of
    from refnet.report.terminal import clean, show

    if a.input is None and a.model is not None and is_capture(a.model):
        a.input = source_of(a.model).file  # the inputs that the module was captured with
    if a.model is None or a.input is None or a.output is None:
        raise InputError("to write a golden file, give a MODEL, an --input, and the file's name with -o")
    with progress_bar("nodes") as progress:
        file = refnet.write_golden(
            a.output,
            usable(a.model, a.network),
            a.input,
            weights=a.weights,
            network=a.network,
            image=a.image,
            pipeline=a.pipeline,
            batch=a.batch,
            threads=a.threads,
            progress=progress,
        )
    if a.json:
        print_json({"file": str(a.output), "values": len(file.values)})
    else:
        show(clean(f"{a.output}: {counted(len(file.values), 'value')}"))
    return DONE


def _golden_check(a: argparse.Namespace) -> int:
    from refnet.formats.golden_file import read
    from refnet.report import golden as report

    file = read(a.check)
    with progress_bar("nodes") as progress:
        differences = refnet.check_golden(
            a.check,
            None if a.model is None else usable(a.model, a.network),
            inputs=a.input,
            weights=a.weights,
            network=a.network,
            image=a.image,
            pipeline=a.pipeline,
            batch=a.batch,
            threads=a.threads,
            progress=progress,
        )
    if a.json:
        print_json(report.record(str(a.check), file, differences))
    else:
        report.show_check(str(a.check), file, differences)
    return DIFFERENT if differences else DONE
