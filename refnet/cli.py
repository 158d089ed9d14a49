"""The command line: each subcommand is a few lines over one public function.

    main ── parse ── models | run | summary | fetch | export | golden | prove | bench ── report

Nothing but the standard library's parser is imported before a command needs it, so `--help` is quick.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refnet import __version__
from refnet.errors import InputError, RefnetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from refnet.bench.machine import Machine
    from refnet.graph import Graph
    from refnet.interpreter import Arithmetic
    from refnet.ops.base import F32
    from refnet.ops.exactly import Tally
    from refnet.readers.golden_file import Sources
    from refnet.zoo.catalog import Entry

EMBEDDED = "octave-se-resnet-digits"
"""The network that `refnet run` takes when none is named: trained, shipped, and it runs in an instant."""

DONE, DIFFERENT, FAILED, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141

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
  1    `golden --check`, `prove`: different
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
Where the source publishes only the first 8 digits of the sha256, these are what is checked; fetch says so.
"""

EXPORT = """\
examples:
  refnet export octave-se-resnet-digits --to mxnet -o net         net-symbol.json and net-0000.params
  refnet export octave-se-resnet-50-0.125 --to mxnet -o net --weights seed:0
  refnet export resnest-50-pytorch --to onnx -o net --weights seed:0          net.onnx, opset 17

MXNet, or ONNX Runtime, loads and runs what is written. --to onnx needs `pip install "refnet[onnx]"`.
"""

GOLDEN = """\
examples:
  refnet golden resnest-50-pytorch --weights seed:0 --input seed:0 -o golden.json
  refnet golden resnest-digits --input sample:1700-label-5.png -o golden.json
  refnet golden octave-se-resnet-50-0.125 --input cat.jpg -o golden.json       its weights, once fetched
  refnet golden --check golden.json                                            with what the file names
  refnet golden --check golden.json net.pth --model resnest-50-pytorch --input x.npy

A golden file has the sha256 of every node's golden value, and of the graph, the weights and the input.
Threads and batch change none of them. --input takes a .npy file, an image, sample:NAME (a shipped digit)
or seed:N (synthetic, the same bits on every machine). --check computes everything again and names the
first node that differs: exit code 0 equal, 1 different, 2 if it could not judge. Files that a golden
file names are looked for beside it. docs/golden.md specifies the format.
"""

PROVE = """\
examples:
  refnet prove sigmoid                                every one of the 2**32 float32 inputs
  refnet prove exp --state exp.state                  goes on there if it was interrupted
  refnet prove sigmoid --slice 3/64                   the 3rd, 67th, 131st and 195th of 256 chunks

Golden results are compared with a second, independent evaluation: all must be equal. Each chunk's hash is
compared with the one on record, too. Exit code 0 proved, 1 different. docs/numerics.md explains it.
"""

BENCH = """\
examples:
  refnet bench                                        the two networks with a card, each against its framework
  refnet bench resnest-50-pytorch --against torch,onnxruntime --threads 1,2 --batch 1,8
  refnet bench octave-se-resnet-50-0.125 --against mxnet --python mxnet=/opt/mx/bin/python
  refnet bench resnest-50-pytorch --against none --profile
  refnet bench resnest-50-pytorch --against torch --arithmetic golden
  refnet bench --startup
  refnet bench --scaling --threads 1

Runs go in turns, refnet and the framework, each in a process of its own; weights are seed:0 unless they
are given. The frameworks' environments are .venv-torch, .venv-mxnet and .venv-onnx here or in refnet's
repository, where `bash .ci/environments.sh` makes them; --python names others. docs/performance.md has
results and says how they are to be read.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code. argv: the arguments (default: those of the process).

    >>> main(["--version"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    SystemExit: 0
    """
    if sys.stdout is None:
        print("refnet: standard output is closed", file=sys.stderr)
        return FAILED
    _escape_unencodable()
    arguments = None
    try:
        arguments = _parse(sys.argv[1:] if argv is None else list(argv))
        if arguments is not None:
            return arguments.command(arguments) or DONE
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
    from refnet.labels import labels
    from refnet.loading import load, network_of
    from refnet.predict import predict, top
    from refnet.readers.npy import writing
    from refnet.report import predictions
    from refnet.report.golden import refined, show_refined

    if a.value is not None and a.output is None:
        raise InputError(f"--value {a.value} is what --output FILE.npy saves: name the file")
    arithmetic, tally = _arithmetic(a)
    name = _usable(EMBEDDED if a.model is None else a.model, a.network)
    entry = network_of(name, a.network)
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
        for found in predict(graph, batches, arithmetic, [value]):
            rows += list(found[output])
            if append is not None:
                append(found[value])
            advance(len(found[output]))
    known = labels(entry.dataset) if entry else ()
    results = [(n, top(row, a.top, known)) for n, row in zip(names, rows, strict=True)]
    head = {"model": name, "weights": a.weights, "pipeline": pipeline, "arithmetic": arithmetic.name}
    counted = {"refined": refined(tally)} if tally else {}
    if a.json:
        _print_json(predictions.record(head, output, results) | counted)
    else:
        note = (
            "" if a.model else "no model named: this small network is embedded in refnet, trained on digits"
        )
        predictions.show_all(head, output, results, note, f"{value} is in {a.output}" if a.output else "")
        if tally:
            show_refined(refined(tally))


def _arithmetic(a: argparse.Namespace) -> tuple[Arithmetic, Tally | None]:
    """The arithmetic that --arithmetic names, and with --profile what it counts into."""
    from refnet.arithmetic.golden import Golden
    from refnet.arithmetic.plain import Plain
    from refnet.ops.exactly import Tally

    if a.arithmetic == "golden":
        tally = Tally() if a.profile else None
        return Golden(a.threads, tally), tally
    if a.profile:
        raise InputError("--profile counts exact refinements: it needs --arithmetic golden")
    return Plain(a.threads), None


def _summary(a: argparse.Namespace) -> None:
    from refnet.cost import summary
    from refnet.loading import network_of, structure
    from refnet.report import summary as report

    cost = summary(structure(_usable(a.model, a.network), network=a.network, image=a.image))
    entry = network_of(a.model, a.network)
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
    for file in one.files:
        if note := file.partly_checked:
            print(f"refnet: {file.name}: {note}", file=sys.stderr)
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


def _golden(a: argparse.Namespace) -> int:
    if a.check is not None and a.output is not None:
        raise InputError("--check reads a golden file and -o writes one: give the one or the other")
    if a.check is None:
        return _golden_record(a)
    try:
        return _golden_check(a)
    except (RefnetError, BrokenPipeError):
        raise
    except Exception:  # a bug must not end with 1, which says that the values differ
        import traceback

        traceback.print_exc()
        return FAILED


def _golden_record(a: argparse.Namespace) -> int:
    from refnet.arithmetic.golden import Golden
    from refnet.golden import count, prepare, record
    from refnet.readers.golden_file import Sources, write
    from refnet.report.terminal import clean, show

    if a.model is None or a.input is None or a.output is None:
        raise InputError("a golden file is made of a MODEL and an --input, and -o names it")
    sources = _with_pipeline(
        Sources(_usable(a.model, a.network), a.weights, a.input, a.pipeline, a.network, a.image)
    )
    graph, inputs = prepare(sources)
    with _counting("nodes", count(graph, inputs, a.batch)) as advance:
        file = record(graph, inputs, sources, Golden(a.threads), a.batch, advance)
    write(a.output, file)
    if a.json:
        _print_json({"file": str(a.output), "values": len(file.values)})
    else:
        show(clean(f"{a.output}: {len(file.values)} values"))
    return DONE


def _golden_check(a: argparse.Namespace) -> int:
    from refnet.arithmetic.golden import Golden
    from refnet.golden import compare, count, hashes, located, prepare
    from refnet.readers.golden_file import read
    from refnet.report import golden as report

    file = read(a.check)
    model = None if a.model is None else _usable(a.model, a.network)
    sources = located(file.sources, a.check.parent, model, a.weights, a.input, a.pipeline, a.network, a.image)
    graph, inputs = prepare(_with_pipeline(sources))
    with _counting("nodes", count(graph, inputs, a.batch)) as advance:
        values = hashes(graph, inputs, Golden(a.threads), a.batch, advance)
    differences = compare(file, graph, inputs, values)
    if a.json:
        _print_json(report.record(str(a.check), file, differences))
    else:
        report.show_check(str(a.check), file, differences)
    return DIFFERENT if differences else DONE


def _prove(a: argparse.Namespace) -> int:
    from refnet.kernels.jit import processors
    from refnet.prove import CHUNKS, prove, recorded
    from refnet.report.terminal import show

    part, of = a.slice
    chunks = range(part - 1, CHUNKS, of)
    with _counting(f"{a.function}: chunks of 2**24 inputs", len(chunks)) as advance:
        proof = prove(a.function, chunks, a.threads or processors(), a.state, advance)
    known = recorded(a.function)
    unlike = proof.unlike(known)
    if a.json:
        _print_json({**proof.record(), "unlike_recorded": unlike})
    else:
        record = proof.record()
        show(f"{a.function}: {proof.inputs} inputs, {proof.different} results differ")
        show(
            f"settled by decimals: {record['open_shipped']} of golden, {record['open_second']} of the second"
        )
        if proof.different:
            show(f"first input that differs: 0x{record['first_different']:08x}")
        show(f"sha256 of all: {proof.sha256 or 'not all chunks are here'}")
        on = f"the record of {known['date']}"
        show(f"{len(unlike)} chunks are not as in {on}: {unlike}" if unlike else f"every hash is as in {on}")
    return DIFFERENT if proof.different or unlike else DONE


def _with_pipeline(sources: Sources) -> Sources:
    """The sources with the pipeline of the network, if the input is an image and no other is named."""
    from dataclasses import replace

    from refnet.loading import network_of

    if sources.input.startswith("seed:") or sources.input.endswith(".npy"):
        return replace(sources, pipeline=None)
    entry = network_of(sources.model, sources.network)
    return replace(sources, pipeline=sources.pipeline or (entry.pipeline if entry else None))


def _bench(a: argparse.Namespace) -> None:
    from refnet.bench.machine import machine
    from refnet.report import bench as report

    here = machine(a.threads)
    if not a.json:
        report.show_machine(here)
    if a.scaling:
        _bench_scaling(a, here)
    elif a.startup:
        _bench_startup(a, here)
    else:
        _bench_races(a, here)


def _bench_races(a: argparse.Namespace, here: Machine) -> None:
    import tempfile

    from refnet.bench.prepare import MODELS, default_against, prepare
    from refnet.bench.profile import profile
    from refnet.bench.race import compare, count_runs
    from refnet.report import bench as report

    pairs, profiles = [], []
    for model in [_usable(a.model, a.network)] if a.model else MODELS:
        against = default_against(model, a.network) if a.against is None else a.against
        with tempfile.TemporaryDirectory(prefix="refnet-bench-") as folder:
            ready = prepare(
                model,
                Path(folder),
                against=against,
                weights=a.weights,
                network=a.network,
                image=a.image,
                pythons=dict(a.python),
                arithmetic=a.arithmetic,
            )
            total = count_runs(ready, a.threads, a.batch, a.runs)
            with _counting(f"{ready.graph.name}: pairs of runs", total) as advance:
                pairs += compare(ready, a.threads, a.batch, a.runs, advance)
            if a.profile:
                each = [(t, b) for t in a.threads for b in a.batch]
                profiles += [profile(ready, t, b, a.runs) for t, b in each]
    if a.json:
        _print_json(report.record(here, pairs, profiles))
        return
    if pairs:
        report.show_pairs(pairs, here)
    for one in profiles:
        report.show_profile(one, here)


def _bench_scaling(a: argparse.Namespace, here: Machine) -> None:
    from refnet.bench.scaling import LAYERS, SCALED, SIZES, scaling
    from refnet.report import bench as report

    if a.model or a.image or a.weights:
        raise InputError("--scaling has its own networks, image sizes and weights")
    threads = a.threads[0]
    with _counting("sizes", len(SCALED) * len(SIZES) + 2 * len(LAYERS)) as advance:
        scales = scaling(threads, a.runs, advance=advance)
    _print_json(report.record(here, scales=scales)) if a.json else report.show_scaling(scales, threads)


def _bench_startup(a: argparse.Namespace, here: Machine) -> None:
    import tempfile

    from refnet.bench.prepare import MODELS, prepare
    from refnet.bench.startup import startup
    from refnet.report import bench as report

    model, threads = a.model or MODELS[0], a.threads[0]
    with tempfile.TemporaryDirectory(prefix="refnet-bench-") as folder:
        ready = prepare(model, Path(folder), weights=a.weights, network=a.network, image=a.image)
        with _counting("processes", 3 * a.runs + 2) as advance:
            start = startup(ready, threads, a.runs, advance)
    _print_json(report.record(here, start=start)) if a.json else report.show_startup(start)


def _usable(model: str, network: str | None) -> str:
    """The MODEL, unless it is an image, or weights without --model: said in the command line's words."""
    kind = Path(model).suffix.lower()
    if kind in (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm"):
        raise InputError(f"{model} is an image where a MODEL must stand: refnet run {EMBEDDED} {model}")
    if kind in (".pth", ".pt", ".safetensors", ".params") and network is None:
        raise InputError(f"{model} holds weights only: say of which network, with --model NAME")
    return model


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
    outside of subparsers. Help is written here: argparse passes over a full disk.
    """
    from refnet.report.terminal import write

    parser, commands = _parsers()
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            if not argv:
                parser.print_help()
                return None
            if argv[0] in commands:
                return commands[argv[0]].parse_intermixed_args(argv[1:])
            return parser.parse_args(argv)
    finally:
        if text.getvalue():
            write(text.getvalue())


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("refnet", description=HELP, epilog=NOTES, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"refnet {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands = {}

    def command(
        name: str, run: Callable[[argparse.Namespace], int | None], text: str, examples: str
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
    run.add_argument(
        "--arithmetic",
        choices=["plain", "golden"],
        default="plain",
        help="float32 in one stated order, or every value correctly rounded (default: plain)",
    )
    run.add_argument("--profile", action="store_true", help="golden: the share of elements refined exactly")
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
    export.add_argument("--to", required=True, choices=["mxnet", "onnx"], help="the framework")
    export.add_argument(
        "-o",
        "--prefix",
        required=True,
        help="PREFIX-symbol.json and PREFIX-0000.params, or PREFIX.onnx",
    )
    _weights(export)

    golden = command("golden", _golden, "write or check the hashes of every golden value", GOLDEN)
    golden.add_argument("model", nargs="?", metavar="MODEL", help="name or file")
    golden.add_argument("--check", type=Path, metavar="FILE.json", help="compare with this golden file")
    golden.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="the golden file to write")
    _weights(golden)
    golden.add_argument("--input", metavar="X", help="a .npy file, an image, sample:NAME or seed:N")
    golden.add_argument(
        "--pipeline", metavar="NAME", help="how an image becomes a tensor (default: the model's)"
    )
    golden.add_argument("--threads", type=_positive, metavar="N", help="default: all processors")
    golden.add_argument(
        "--batch", type=_positive, default=1, metavar="N", help="images at a time (default: 1)"
    )
    _json(golden)

    prove = command("prove", _prove, "prove golden exp or sigmoid on all float32 inputs", PROVE)
    prove.add_argument("function", choices=["exp", "sigmoid"], metavar="FUNCTION", help="exp or sigmoid")
    prove.add_argument("--slice", type=_slice, default=(1, 1), metavar="K/N", help="only part K of N")
    prove.add_argument("--state", type=Path, metavar="FILE", help="keeps what is done, and goes on there")
    prove.add_argument("--threads", type=_positive, metavar="N", help="default: all processors")
    _json(prove)

    bench = command("bench", _bench, "time refnet against the frameworks, in turns", BENCH)
    bench.add_argument("model", nargs="?", metavar="MODEL", help="name or file (default: both with a card)")
    bench.add_argument(
        "--against",
        type=_frameworks,
        metavar="LIST",
        help="of torch, mxnet, onnxruntime, onnx-reference; or none (default: where the network comes from)",
    )
    bench.add_argument(
        "--arithmetic", choices=["plain", "golden"], default="plain", help="refnet's (default: plain)"
    )
    bench.add_argument("--threads", type=_numbers, default=[1, 2], metavar="LIST", help="default: 1,2")
    bench.add_argument("--batch", type=_numbers, default=[1], metavar="LIST", help="default: 1")
    bench.add_argument("--runs", type=_positive, default=15, metavar="N", help="that count (default: 15)")
    bench.add_argument(
        "--python",
        type=_python,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the interpreter that has torch, mxnet or onnx",
    )
    bench.add_argument("--profile", action="store_true", help="refnet's time per kind of node, too")
    other = bench.add_mutually_exclusive_group()
    other.add_argument("--startup", action="store_true", help="instead: import, help, compiling, loading")
    other.add_argument("--scaling", action="store_true", help="instead: time per multiply-add by size")
    _weights(bench)
    _json(bench)
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


def _numbers(text: str) -> list[int]:
    """1,2 and the like, each once."""
    return list(dict.fromkeys(_positive(part) for part in text.split(",")))


def _frameworks(text: str) -> list[str]:
    return [] if text == "none" else list(dict.fromkeys(text.split(",")))


def _python(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or name not in ("torch", "mxnet", "onnx"):
        raise argparse.ArgumentTypeError(f"{text!r} is not torch=PATH, mxnet=PATH or onnx=PATH")
    return name, path


def _slice(text: str) -> tuple[int, int]:
    part, slash, of = text.partition("/")
    if not slash or not (1 <= _positive(part) <= _positive(of) <= 256):
        raise argparse.ArgumentTypeError(f"{text!r} is no part K/N such as 3/64, N at most 256")
    return int(part), int(of)


def _size(text: str) -> tuple[int, int]:
    height, comma, width = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r} is no size H,W such as 224,224")
    return _positive(height), _positive(width)
