"""The command line: each subcommand is a few lines over one public function.

    main ── parse ── models | run | summary | fetch | export ── report

Nothing but the standard library's parser is imported before a command needs it, so `--help` is quick.
"""

from __future__ import annotations

import argparse
import io
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
    from refnet.ops.base import F32
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
    from refnet.weights import located
    from refnet.zoo.catalog import entries, entry

    if a.name is None:
        found = entries()
        _print_json([models.record(e) for e in found.values()]) if a.json else models.show_all(found)
    else:
        one = entry(a.name)
        here = located(one)
        _print_json(models.record(one)) if a.json else models.show_one(one, str(here) if here else None)


def _run(a: argparse.Namespace) -> None:
    from refnet.arithmetic.plain import Plain
    from refnet.labels import labels
    from refnet.loading import load
    from refnet.predict import predict, top
    from refnet.readers.npy import writing
    from refnet.report import predictions

    if a.value is not None and a.output is None:
        raise InputError(f"--value {a.value} is what --output FILE.npy saves: name the file")
    name = _usable(a.model or EMBEDDED, a.network)
    entry = _entry(name, a.network)
    graph = load(name, weights=a.weights, network=a.network, image=a.image)
    types = graph.types()
    output = "prob" if "prob" in graph.outputs else next(iter(graph.outputs))
    if len(types[graph.outputs[output]].shape) != 2:
        raise InputError(f"{graph.name}: output {output!r} is {types[graph.outputs[output]]!r}, not classes")
    names, batches, pipeline = _inputs(a, graph, entry)
    value = a.value or output
    kind = types.get(graph.outputs.get(value, value))
    saving = writing(a.output, (len(names), *kind.shape[1:])) if a.output and kind else nullcontext()
    rows = []
    with saving as append, _counting("images", len(names)) as advance:
        for found in predict(graph, batches, Plain(a.threads), [value]):
            rows += list(found[output])
            if append is not None:
                append(found[value])
            advance(len(found[output]))
    known = labels(entry.dataset) if entry else ()
    results = [(n, top(row, a.top, known)) for n, row in zip(names, rows, strict=True)]
    head = {"model": name, "weights": a.weights, "pipeline": pipeline, "arithmetic": "plain"}
    if a.json:
        _print_json(predictions.record(head, output, results))
    else:
        note = (
            "" if a.model else "no model named: this small network is embedded in refnet, trained on digits"
        )
        predictions.show_all(head, output, results, note, f"{value} is in {a.output}" if a.output else "")


def _summary(a: argparse.Namespace) -> None:
    from refnet.cost import summary
    from refnet.loading import structure
    from refnet.report import summary as report

    cost = summary(structure(_usable(a.model, a.network), network=a.network, image=a.image))
    entry = _entry(a.model, a.network)
    if a.json:
        _print_json(report.record(cost, entry, nodes=not a.totals, totals=not a.nodes))
    else:
        report.show_all(cost, entry, nodes=not a.totals, totals=not a.nodes)


def _fetch(a: argparse.Namespace) -> None:
    from refnet.report.terminal import clean, show
    from refnet.weights import fetch, unpack
    from refnet.zoo.catalog import entry

    one = entry(a.model)
    with _downloading() as progress:
        path = fetch(one, a.folder, progress)
    show(clean(path))
    if a.unpack:
        for member in unpack(path, path.with_suffix("")):
            show(clean(member))


def _export(a: argparse.Namespace) -> None:
    from refnet.export import export
    from refnet.loading import load
    from refnet.report.terminal import clean, show

    graph = load(_usable(a.model, a.network), weights=a.weights, network=a.network, image=a.image)
    for path in export(graph, a.prefix, a.to):
        show(clean(path))


def _usable(model: str, network: str | None) -> str:
    """The MODEL, unless it is an image, or weights without --model: said in the command line's words."""
    kind = Path(model).suffix.lower()
    if kind in (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm"):
        raise InputError(f"{model} is an image where a MODEL must stand: refnet run {EMBEDDED} {model}")
    if kind in (".pth", ".pt", ".safetensors", ".params") and network is None:
        raise InputError(f"{model} holds weights only: say of which network, with --model NAME")
    return model


def _entry(model: str, network: str | None) -> Entry | None:
    """The catalog's entry: by --model, by name, or because a file is named like it or its official file."""
    from refnet.zoo.catalog import entries, entry

    known = entries()
    if network is not None or model in known:
        return entry(network or model)
    name = Path(model).name
    files = {file.name: one for one in known.values() for file in one.files}
    return files.get(name) or known.get(name.removesuffix(".json").removesuffix("-symbol"))


def _inputs(
    a: argparse.Namespace, graph: Graph, entry: Entry | None
) -> tuple[list[str], Iterator[F32], str | None]:
    """Names and batches of what is to be run, and the pipeline that it goes through (None: a tensor)."""
    from refnet.predict import image_batches, input_tensor, tensor_batches
    from refnet.preprocess import pipeline
    from refnet.weights import shipped_folder

    if a.input is not None:
        if a.images:
            raise InputError(f"--input {a.input} and {len(a.images)} images: give the one or the others")
        tensor = input_tensor(a.input, next(iter(graph.inputs.values())))
        return [f"{a.input}[{i}]" for i in range(tensor.shape[0])], tensor_batches(tensor, a.batch), None
    images = a.images
    if not images and entry is not None and entry.dataset == "digits":
        images = sorted((shipped_folder() / "digits").glob("*.png"), key=lambda p: int(p.name.split("-")[0]))
    if not images:
        raise InputError("no image: name image files, or a tensor with --input FILE.npy")
    chosen = a.pipeline or (entry.pipeline if entry else None)
    if chosen is None:
        raise InputError(f"{a.model}: say how images become tensors, with --pipeline NAME or --model NAME")
    return [str(p) for p in images], image_batches(images, pipeline(chosen), a.batch), chosen


@contextmanager
def _counting(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar on standard error if it is a terminal and there is more than one to count."""
    if total < 2 or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def _downloading() -> Iterator[Callable[[str, int, int | None], object] | None]:
    """A progress bar of bytes per file on standard error if it is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def update(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield update


def _print_json(record: object) -> None:
    from refnet.report.terminal import write

    write(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _report(error: RefnetError, as_json: bool) -> int:
    """Say what is wrong: on standard error, and with --json on standard output too."""
    lines = str(error).split("\n")
    text = "\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    print(f"refnet: {text}", file=sys.stderr)
    if as_json:
        _print_json({"error": {"kind": type(error).__name__, "message": str(error)}})
    return FAILED


def _escape_unencodable() -> None:
    """Names and labels that the terminal's encoding lacks are shown escaped, not as an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _parse(argv: Sequence[str]) -> argparse.Namespace | None:
    """The arguments, or None if only the help was wanted. Exits with 2 on wrong usage, 0 after --help.

    A command's own parser takes options and file names in any order, which argparse grants only
    outside of subparsers.
    """
    parser, commands = _parsers()
    if not argv:
        parser.print_help()
        return None
    if argv[0] in commands:
        return commands[argv[0]].parse_intermixed_args(argv[1:])
    return parser.parse_args(argv)


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("refnet", description=HELP, epilog=NOTES, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"refnet {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands = {}

    def command(
        name: str, run: Callable[[argparse.Namespace], None], text: str, examples: str
    ) -> argparse.ArgumentParser:
        one = subparsers.add_parser(
            name, help=text, description=text, epilog=examples, formatter_class=form, allow_abbrev=False
        )
        one.set_defaults(command=run)
        commands[name] = one
        return one

    models = command("models", _models, "list the networks that refnet knows by name", MODELS)
    models.add_argument("name", nargs="?", metavar="NAME", help="show all details of this network")
    _json(models)

    run = command("run", _run, "run a network on images and print the most probable classes", RUN)
    run.add_argument("model", nargs="?", metavar="MODEL", help=f"name or file (default: {EMBEDDED})")
    run.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="image files")
    _weights(run)
    run.add_argument("--input", type=Path, metavar="FILE.npy", help="float32 (n, c, h, w) or (c, h, w)")
    run.add_argument("--output", type=Path, metavar="FILE.npy", help="save the output, all images in order")
    run.add_argument("--value", metavar="NAME", help="what --output saves: an output or any node's value")
    run.add_argument(
        "--pipeline", metavar="NAME", help="how an image becomes a tensor (default: the model's)"
    )
    run.add_argument("--threads", type=_positive, metavar="N", help="default: all processors")
    run.add_argument("--batch", type=_positive, default=8, metavar="N", help="images at a time (default: 8)")
    run.add_argument("--top", type=_positive, default=5, metavar="K", help="classes shown (default: 5)")
    _json(run)

    summary = command("summary", _summary, "what each node is and costs, and the totals", SUMMARY)
    summary.add_argument("model", metavar="MODEL", help="name or file; its weights are not needed")
    _network(summary)
    part = summary.add_mutually_exclusive_group()
    part.add_argument("--nodes", action="store_true", help="only the nodes")
    part.add_argument("--totals", action="store_true", help="only the totals")
    _json(summary)

    fetch = command("fetch", _fetch, "download a network's official file and check it", FETCH)
    fetch.add_argument("model", metavar="MODEL", help="name, see `refnet models`")
    fetch.add_argument("--folder", type=Path, metavar="DIR", help="where to (default: REFNET_WEIGHTS)")
    fetch.add_argument("--unpack", action="store_true", help="unpack an archive beside it")

    export = command("export", _export, "write a network as another framework's files", EXPORT)
    export.add_argument("model", metavar="MODEL", help="name or file")
    export.add_argument("--to", required=True, choices=["mxnet"], help="the framework")
    export.add_argument(
        "-o", "--prefix", required=True, type=Path, help="PREFIX-symbol.json, PREFIX-0000.params"
    )
    _weights(export)
    return parser, commands


def _weights(parser: argparse.ArgumentParser) -> None:
    text = "weights: a file, or seed:N for synthetic ones (default: shipped, fetched, or beside the symbol)"
    parser.add_argument("--weights", metavar="FILE|seed:N", help=text)
    _network(parser)


def _network(parser: argparse.ArgumentParser) -> None:
    text = "the network that a file holds: a name of the catalog; a state dict needs it"
    parser.add_argument("--model", dest="network", metavar="NAME", help=text)
    parser.add_argument(
        "--image", type=_size, metavar="H,W", help="another input size (default: the model's)"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, with every digit and checksum")


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return number


def _size(text: str) -> tuple[int, int]:
    height, comma, width = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r} is no size H,W such as 224,224")
    return _positive(height), _positive(width)
