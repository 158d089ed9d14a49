"""refnet evaluate: how often a network's first class, and one of its five, is the label."""

from __future__ import annotations

import argparse
from pathlib import Path

import refnet
from refnet.arithmetic.engines import KERNELS
from refnet.cli.common import (
    json_argument,
    one_of,
    pipeline_argument,
    positive,
    print_json,
    progress_bar,
    threads_argument,
    usable,
    weights_arguments,
    worker_arguments,
)

TEXT = "count top-1 and top-5 of a network on labelled images"

EXAMPLES = """\
examples:
  refnet evaluate resnest-digits                        the 360 test digits that ship with refnet
  refnet evaluate resnest-digits --processes 2 --json
  refnet evaluate resnest-50-pytorch --images val -o results
  refnet evaluate resnest-50-pytorch --images flat --labels LOC_val_solution.csv -o results
  refnet evaluate resnest-50-pytorch --images flat --mapping meta.txt \\
      --labels ILSVRC2012_validation_ground_truth.txt
  refnet evaluate resnest-50-pytorch --list val.txt --mapping synset_words.txt
  refnet evaluate net.onnx --list list.txt --pipeline resnest --mapping outputs
  refnet evaluate resnest-digits --arithmetic replay:weights/books/resnest-digits.json
  refnet evaluate resnest-50-pytorch --images val -o results --dask tcp://10.0.0.1:8786

where the labels come from:
  --images DIR            folders called like classes (n01440764, ...)
  --images DIR --labels F  lines NAME LABEL, Kaggle's CSV, or a bare number per line: the N-th belongs to
                          the image whose name ends with N (ILSVRC's ground truth)
  --list FILE             lines PATH LABEL; with --labels only paths

A label is a synset or a number. What numbers mean is asked for, because ILSVRC's own order is not that of
the networks' outputs: --mapping FILE has lines NUMBER SYNSET, or synsets in order, from 0 (Caffe's
synset_words.txt); --mapping outputs takes the network's outputs, from 0. It is stated with the counts.

-o DIR keeps every finished part, so that the same command goes on after a kill, and at the end rows.csv:
id, label, five classes, and the bits of their float32 probabilities. A part of another network, weights,
arithmetic, pipeline or list of images is refused. Workers, threads and kills change no bit of a row.

Exit code 0: counted; 2: some images could not be read. They are named at the end, have a row with the
reason, and are tried again by the next run. docs/evaluate.md has memory, rates and dask.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="name or file")
    parser.add_argument("--images", type=Path, metavar="DIR", help="a folder of images")
    text = "a file of lines PATH LABEL, or with --labels of paths; relative to the file's folder"
    parser.add_argument("--list", type=Path, dest="image_list", metavar="FILE", help=text)
    parser.add_argument("--labels", type=Path, metavar="FILE", help="the labels of the images")
    text = "what numbers mean: lines NUMBER SYNSET, or synsets from 0; or the network's outputs from 0"
    parser.add_argument("--mapping", metavar="FILE|outputs", help=text)
    weights_arguments(parser)
    pipeline_argument(parser)
    parser.add_argument(
        "--arithmetic",
        default="plain",
        metavar="NAME",
        help="plain, golden or replay:BOOK (default: plain), as for `refnet run`",
    )
    parser.add_argument(
        "--kernels",
        type=one_of(*KERNELS),
        choices=KERNELS,
        help="fast, or reference: the slow loops that define each bit (default: fast)",
    )
    text = "images per batch (default: 8, or the book's batch size)"
    parser.add_argument("--batch", type=positive, metavar="N", help=text)
    text = "keep finished parts in this folder, go on with those that are there, and write rows.csv"
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=text)
    worker_arguments(parser)
    threads_argument(parser)
    json_argument(parser)


def run(a: argparse.Namespace) -> int:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.arithmetic.named import arithmetic
    from refnet.evaluation.parts import ROWS
    from refnet.report import evaluation as report

    with progress_bar("images") as progress:
        found = refnet.evaluate(
            usable(a.model, a.network),
            a.images,
            image_list=a.image_list,
            labels=a.labels,
            mapping=a.mapping,
            weights=a.weights,
            network=a.network,
            image=a.image,
            pipeline=a.pipeline,
            arithmetic=arithmetic(a.arithmetic, a.threads, a.kernels),
            batch=a.batch,
            output=a.output,
            processes=a.processes,
            dask=a.dask,
            progress=progress,
        )
    rows = None if a.output is None else str(a.output / ROWS)
    if a.json:
        print_json(report.record(found, rows))
    else:
        report.show_evaluation(found, rows)
    return found.exit_code
