"""refnet run: run a network on images and print the most probable classes."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from refnet.arithmetic.engines import KERNELS
from refnet.cli.common import (
    EMBEDDED,
    counting,
    json_argument,
    one_of,
    outputs_argument,
    pipeline_argument,
    positive,
    print_json,
    threads_argument,
    usable,
    weights_arguments,
)
from refnet.core.errors import InputError
from refnet.core.words import counted

if TYPE_CHECKING:
    from refnet.core.graph import Graph
    from refnet.core.interpreter import Arithmetic
    from refnet.core.op import F32
    from refnet.exact.correct_rounding import RefineCount
    from refnet.models.catalog import Entry

TEXT = "run a network on images and print the most probable classes"

EXAMPLES = """\
examples:
  refnet run                                              the shipped digits network, sample digits
  refnet run resnest-digits weights/digits/*.png --top 1
  refnet run octave-se-resnet-50-0.125 cat.jpg            after `refnet fetch octave-se-resnet-50-0.125`
  refnet run resnest-50-pytorch cat.jpg --weights seed:0  synthetic weights: the same bits on every machine
  refnet run net-symbol.json cat.jpg --weights net-0000.params --model octave-se-resnet-50-0.125
  refnet run net.pth cat.jpg --model resnest-50-pytorch
  refnet run resnest-50-pytorch cat.jpg --weights seed:0 --arithmetic replay:torch.book.json
  refnet run resnest-digits --input x.npy --value layer1.0.relu --output relu.npy

Several images are run in batches; results come in the order of the images. A result's bits depend
neither on the batch size nor on the threads. A book is valid for the batch size it was made with; the
number of images must be a multiple of it. All images are read first: if one cannot be read, nothing is
run. The --output file is written whole or not at all.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help=f"name or file (default: {EMBEDDED})")
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files")
    weights_arguments(parser)
    outputs_argument(parser)
    text = (
        "the input instead of IMAGE: a .npy file (n, c, h, w) or (c, h, w), NAME=FILE.npy, a folder of such "
        "files, images (a batch), sample:NAME or seed:N"
    )
    parser.add_argument("--input", action="append", metavar="X", help=text)
    parser.add_argument(
        "--output", type=Path, metavar="FILE.npy", help="save the output, all images in order"
    )
    parser.add_argument("--value", metavar="NAME", help="what --output saves: an output or any node's value")
    pipeline_argument(parser)
    parser.add_argument(
        "--arithmetic",
        default="plain",
        metavar="NAME",
        help="plain: float32 in one stated order (default); golden: every value correctly rounded; "
        "replay:BOOK: the bits of the framework build that the book was made from",
    )
    parser.add_argument(
        "--kernels",
        type=one_of(*KERNELS),
        choices=KERNELS,
        help="fast, or reference: the slow loops that define each bit; both give the same bits "
        "(default: fast; with NUMBA_DISABLE_JIT=1 reference)",
    )
    text = "with golden: the share of elements that needed exact arithmetic"
    parser.add_argument("--profile", action="store_true", help=text)
    threads_argument(parser)
    text = "images per batch (default: 8, or the book's batch size)"
    parser.add_argument("--batch", type=positive, metavar="N", help=text)
    parser.add_argument("--top", type=positive, default=5, metavar="K", help="classes shown (default: 5)")
    json_argument(parser)


def run(a: argparse.Namespace) -> None:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.arithmetic.replay import Replay
    from refnet.formats.npy import writing
    from refnet.models.labels import labels
    from refnet.models.loading import load, network_of
    from refnet.models.predict import predict, top
    from refnet.report import predictions
    from refnet.report.golden import refined, show_refined

    if a.value is not None and a.output is None:
        raise InputError(f"--value {a.value} says what to save: name the file with --output FILE.npy")
    arithmetic, refine_count = _arithmetic(a)
    reference = arithmetic.book.reference if isinstance(arithmetic, Replay) else None
    a.batch = a.batch or (reference.batch if reference else 8)
    name = usable(EMBEDDED if a.model is None else a.model, a.network)
    entry = network_of(name, a.network)
    graph = load(name, weights=a.weights, network=a.network, image=a.image)
    types = graph.types()
    kinds = {name: types[value] for name, value in graph.outputs.items()}
    classes = [name for name, one in kinds.items() if len(one.shape) == 2 and one.dtype == "float32"]
    output = next(iter(["prob"] * ("prob" in graph.outputs) + classes + [*graph.outputs]))
    if output not in classes and a.output is None:
        how = f"--value {shlex.quote(output)} --output FILE.npy saves it"
        shown = types[graph.outputs[output]]
        raise InputError(f"{graph.name}: output {output!r} is {shown!r}, not classes: {how}")
    names, batches, pipeline = _inputs(a, graph, entry)
    value = a.value or output
    kind = types.get(graph.outputs.get(value, value))
    saving = (
        writing(a.output, (len(names), *kind.shape[1:]), kind.dtype) if a.output and kind else nullcontext()
    )
    rows = []
    with saving as append, counting("images", len(names)) as advance:
        for found in predict(graph, batches, arithmetic, [value]):
            rows += list(found[output])
            if append is not None:
                append(found[value])
            advance(len(found[output]))
    if output not in classes:
        rows, names = [], []
    known = labels(entry.dataset) if entry else ()
    results = [(n, top(row, a.top, known)) for n, row in zip(names, rows, strict=True)]
    head = {"model": name, "weights": a.weights, "pipeline": pipeline, "arithmetic": arithmetic.name}
    counted = {"refined": refined(refine_count)} if refine_count else {}
    if reference:
        head["arithmetic"] = f"{arithmetic.name} of {reference.framework} {reference.version}"
        counted = {"reference": vars(reference)}
    if a.json:
        print_json(predictions.record(head, output, results) | counted)
    else:
        note = "" if a.model else "no model named: this small network ships with refnet, trained on digits"
        predictions.show_all(head, output, results, note, f"{value} is in {a.output}" if a.output else "")
        if refine_count:
            show_refined(refined(refine_count))


def _arithmetic(a: argparse.Namespace) -> tuple[Arithmetic, RefineCount | None]:
    """The arithmetic that --arithmetic names, and with --profile the count that it fills."""
    from refnet.arithmetic.golden import Golden
    from refnet.arithmetic.named import arithmetic
    from refnet.exact.correct_rounding import RefineCount

    if a.arithmetic == "golden" and a.profile and a.kernels != "reference":
        refine_count = RefineCount()
        return Golden(a.threads, refine_count), refine_count
    if a.profile and a.arithmetic != "golden":
        raise InputError("--profile counts exact refinements: it needs --arithmetic golden")
    if a.profile:
        raise InputError(
            "--profile counts the refinements of the fast kernels: leave --kernels reference out"
        )
    return arithmetic(a.arithmetic, a.threads, a.kernels), None


def _inputs(
    a: argparse.Namespace, graph: Graph, entry: Entry | None
) -> tuple[list[str], Iterator[F32 | Mapping[str, F32]], str | None]:
    """Names and batches of the inputs, and their preprocessing pipeline (None: the input is a tensor)."""
    from refnet.models.converted import usual_pipeline
    from refnet.models.input_kinds import kinds_of
    from refnet.models.inputs import is_tensor, read_inputs, sample_or_path
    from refnet.models.predict import image_batches, input_tensor, tensor_batches
    from refnet.models.preprocess import pipeline
    from refnet.models.weights import shipped_folder

    given = a.input or []
    if given and a.images:
        raise InputError(f"--input {given[0]} and {counted(len(a.images), 'image')}: give one or the other")
    if any(is_tensor(text) for text in given):
        (name,) = graph.inputs if len(graph.inputs) == 1 else (None,)
        file = given[0].removeprefix(f"{name}=")
        if len(given) == 1 and name is not None and file.endswith(".npy") and a.pipeline is None:
            tensor = input_tensor(Path(file), graph.inputs[name])  # read batch by batch
            return [f"{file}[{i}]" for i in range(tensor.shape[0])], tensor_batches(tensor, a.batch), None
        inputs = read_inputs(given, kinds_of(graph), pipeline=a.pipeline)
        starts = range(0, inputs.batch, a.batch)
        names = [f"{given[0]}[{i}]" for i in range(inputs.batch)]
        parts = ({key: one[i : i + a.batch] for key, one in inputs.arrays.items()} for i in starts)
        return names, parts, None
    images = [sample_or_path(text) for text in given] or a.images
    if not images and entry is not None and entry.dataset == "digits":
        images = sorted((shipped_folder() / "digits").glob("*.png"), key=lambda p: int(p.name.split("-")[0]))
    if not images:
        name = "NAME=" * (len(graph.inputs) > 1)
        raise InputError(f"no image: name image files, or a tensor with --input {name}FILE.npy")
    chosen = a.pipeline or usual_pipeline(a.model or EMBEDDED, entry)
    if chosen is None:
        raise InputError(f"{a.model}: choose the preprocessing, with --pipeline NAME or --model NAME")
    return [str(p) for p in images], image_batches(images, pipeline(chosen), a.batch), chosen
