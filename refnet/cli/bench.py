"""refnet bench: time refnet against the frameworks, in alternating runs."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from refnet.arithmetic.named import holds_books
from refnet.cli.common import (
    counting,
    interpreters,
    json_argument,
    json_value,
    numbers,
    positive,
    print_json,
    python_argument,
    refuse_given,
    usable,
    weights_arguments,
)
from refnet.core.errors import InputError
from refnet.frameworks.capture.names import PLACES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from refnet.bench.machine import Machine
    from refnet.frameworks.launch import Prepared

TEXT = "time refnet against the frameworks, in alternating runs"

EXAMPLES = """\
examples:
  refnet bench                              the two networks with a model card, each against its framework
  refnet bench resnest-50-pytorch --against torch,onnxruntime --threads 1,2 --batch 1,8
  refnet bench octave-se-resnet-50-0.125 --against mxnet --python mxnet=/opt/mx/bin/python
  refnet bench resnest-50-pytorch --against none --profile
  refnet bench resnest-50-pytorch --against torch --arithmetic golden
  refnet bench resnest-50-pytorch --against torch --arithmetic replay:torch.book.json --threads 1
  refnet bench --table resnet-50 --against mxnet --arithmetic replay:books --threads 1
  refnet bench net.onnx --against torch,onnxruntime --module mynets:make --path src
  refnet bench octave-resnet-50-0.125,resnest-50-pytorch --against none --threads 1 --kernels --runs 40
  refnet bench --startup
  refnet bench --scaling --threads 1
  refnet bench --table octave --against mxnet,onnxruntime --state table.json --csv table.csv --svg table.svg
  refnet bench --table --baseline table.json
  refnet bench --table resnest,resnet-50-baseline --arithmetic golden --against onnx-reference

--table runs every network of ImageNet that `refnet models` lists, or those with TEXT in their name,
framework or file. Several texts are separated by commas; the whole name of a network means that one only.
It prints geometric means of the column `paired` and the speeds of the roofline: FMA in registers, and
reading memory. A row that fails is named and the others go on; then the exit code is 2. After Ctrl-C the
finished rows are printed and written. With --state FILE each finished row is kept, and the same command
goes on where it was stopped. A file of another machine, other versions or settings is refused. Against
onnx-reference, which takes seconds for a run, a row has two pairs at most. With --baseline
FILE, which is such a file of an earlier run on the same machine, a row is slower if each ratio of its
pairs is above every ratio of the earlier pairs. With n and m pairs, chance alone does that once in
C(n + m, n) rows (7 and 7: 3432). If a row is slower, the exit code is 1.

--kernels times every kernel of a run in its place, with the data and the caches of the run. --profile
executes each node alone. The floor is what the roofline allows.

replay:FOLDER takes the book FOLDER/NETWORK.json of each network, as `refnet reveal` writes it.

refnet and the framework run in turns, each in its own process. Weights are seed:0 unless given.
docs/performance.md has results and explains how to read them.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    text = "name or file (default: the two networks with a model card); --kernels takes several: A,B"
    parser.add_argument("model", nargs="?", metavar="MODEL", help=text)
    parser.add_argument(
        "--against",
        type=_frameworks,
        metavar="LIST",
        help=f"comma-separated, or none: {', '.join(PLACES)} (default: the network's own framework)",
    )
    parser.add_argument(
        "--arithmetic", metavar="NAME", help="plain (default), golden, replay:BOOK or replay:FOLDER"
    )
    text = "numbers of threads (default: 1,2)"
    parser.add_argument("--threads", type=numbers, metavar="LIST", help=text)
    parser.add_argument("--batch", type=numbers, metavar="LIST", help="batch sizes (default: 1)")
    parser.add_argument("--runs", type=positive, default=15, metavar="N", help="timed runs (default: 15)")
    python_argument(parser)
    text = "PyTorch runs this; MODEL is the .onnx export of it"
    parser.add_argument("--module", metavar="PKG:CALLABLE", help=text)
    text = "a folder to import the module from; may be repeated"
    parser.add_argument("--path", action="append", metavar="DIR", help=text)
    text = "an argument of the callable, as JSON; may be repeated"
    parser.add_argument("--argument", action="append", metavar="JSON", help=text)
    parser.add_argument("--profile", action="store_true", help="also print refnet's time per kind of node")
    text = "time each kernel of refnet's run in its place instead"
    parser.add_argument("--kernels", action="store_true", help=text)
    other = parser.add_mutually_exclusive_group()
    text = "time import, help, compiling and loading instead"
    other.add_argument("--startup", action="store_true", help=text)
    text = "time per multiply-add by size instead"
    other.add_argument("--scaling", action="store_true", help=text)
    text = "every network of the model table instead, or those with one of these comma-separated texts"
    other.add_argument("--table", nargs="?", const="", metavar="TEXT", help=text)
    text = "--table: keep finished rows here, and go on from them"
    parser.add_argument("--state", type=Path, metavar="FILE", help=text)
    text = "--table: compare with the --state of an earlier run; exit code 1 if a row is slower"
    parser.add_argument("--baseline", type=Path, metavar="FILE", help=text)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="--table, --kernels: write the rows as CSV")
    text = "--table: draw the ratios and the roofline"
    parser.add_argument("--svg", type=Path, metavar="FILE", help=text)
    weights_arguments(parser)
    json_argument(parser)


def run(a: argparse.Namespace) -> int | None:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.bench.machine import machine, with_speeds
    from refnet.report import bench as report

    _nothing_is_ignored(a)
    a.threads, a.batch = a.threads or [1, 2], a.batch or [1]
    a.arithmetic = a.arithmetic or "plain"
    if a.kernels:
        from refnet.cli.bench_kernels import bench_kernels

        bench_kernels(a)
        return None
    if a.table is not None:
        from refnet.cli.bench_table import bench_table

        return bench_table(a)
    here = machine()  # with the load before anything of this command runs
    with ExitStack() as stack:
        # What cannot be raced is an error before the peak is measured, which takes seconds.
        ready = [] if a.scaling else _prepared(a, stack)
        here = with_speeds(here, a.threads)
        if not a.json:
            report.show_machine(here)
        if a.scaling:
            _bench_scaling(a, here)
        elif a.startup:
            _bench_startup(a, here, ready[0])
        else:
            _bench_races(a, here, ready)
    return None


def _nothing_is_ignored(a: argparse.Namespace) -> None:
    """Raises InputError for what was given and would decide nothing."""
    if a.kernels:
        from refnet.cli.bench_kernels import check_kernels

        check_kernels(a)
        return
    if a.table is None:
        refuse_given(a, ("state", "baseline", "csv", "svg"), "it belongs to --table")
    else:
        _nothing_of_one_network(a)
    if a.module is None:
        refuse_given(a, ("path", "argument"), "they say how --module is made, which is not given")
    if not a.scaling and not a.startup:
        _one_module(a)
        if a.table is None and a.against == [] and not a.profile:
            raise InputError("--against none: nothing is raced; --profile times refnet alone")
        return
    which = "--scaling" if a.scaling else "--startup"
    ignored = ("against", "batch", "arithmetic", "python", "profile", "module")
    refuse_given(a, ignored, f"{which} times refnet alone, one image at a time")
    if a.threads is not None and len(a.threads) > 1:
        raise InputError(f"--threads {','.join(map(str, a.threads))}: {which} takes one number of threads")
    if a.scaling:
        why = "--scaling has its own networks, image sizes and weights"
        for given in (a.model, a.network and f"--model {a.network}"):
            if given:
                raise InputError(f"{given}: {why}")
        refuse_given(a, ("image", "weights"), why)


def _nothing_of_one_network(a: argparse.Namespace) -> None:
    """Raises InputError for what --table cannot take."""
    why = "--table has its own networks, with seed:0 weights"
    refuse_given(a, ("weights", "key", "structure", "profile", "module"), why)
    for what in (a.model, a.network):
        if what is not None:
            raise InputError(f"{what}: {why}; --table {what} chooses rows")
    if (a.arithmetic or "").startswith("replay") and not holds_books(a.arithmetic):
        raise InputError(
            f"--arithmetic {a.arithmetic}: a book is of one network, --table has many: name a folder of books"
        )
    if a.against == []:
        raise InputError("--against none: --table races refnet against frameworks")
    named: dict[Path, str] = {}
    for name in ("state", "baseline", "csv", "svg"):
        path = getattr(a, name)
        if path is not None and (first := named.setdefault(path.resolve(), name)) != name:
            raise InputError(f"--{name} {path}: it is the --{first} of this run, too")
        if name == "baseline":
            continue  # it is read only
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"--{name} {path}: there is no such folder")
        if path is not None and path.exists() and not path.is_file():
            raise InputError(f"--{name} {path}: it is there already, and not a file")


def _one_module(a: argparse.Namespace) -> None:
    """Raises InputError for a --module that PyTorch would not run, or that the MODEL cannot be."""
    if a.module is None:
        return
    if "torch" not in (a.against or ()):
        raise InputError(f"--module {a.module}: only PyTorch runs it, so --against must name torch")
    if not (a.model or "").endswith(".onnx"):
        raise InputError(f"--module {a.module}: MODEL must be its export, an .onnx file, got {a.model}")
    refuse_given(a, ("weights",), f"--module {a.module} has the weights that it is made with")


def _prepared(a: argparse.Namespace, stack: ExitStack) -> list[Prepared]:
    """Each network with its weights in files, in folders that live as long as the stack."""
    import tempfile

    from refnet.frameworks.launch import MODELS, Module, default_against, prepare

    module = None
    if a.module is not None:
        given = [json_value("--argument", text) for text in a.argument or ()]
        module = Module(a.module, given, a.path or ())
    models = [usable(a.model, a.network)] if a.model else MODELS[:1] if a.startup else MODELS
    rivals: dict[str, tuple[str, ...]] = dict.fromkeys(models, ())
    if not a.startup:
        rivals = {
            model: default_against(model, a.network) if a.against is None else tuple(a.against)
            for model in models
        }
    pythons = interpreters(a.python, [*dict.fromkeys(name for each in rivals.values() for name in each)])
    ready = []
    for model, against in rivals.items():
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="refnet-bench-"))
        ready.append(
            prepare(
                model,
                Path(folder),
                against=against,
                weights=a.weights,
                network=a.network,
                image=a.image,
                pythons=pythons,
                arithmetic=a.arithmetic,
                module=module,
            )
        )
    return ready


def _bench_races(a: argparse.Namespace, here: Machine, every: Sequence[Prepared]) -> None:
    from refnet.bench.profile import profile
    from refnet.bench.race import compare, count_runs
    from refnet.report import bench as report

    pairs, profiles = [], []
    for ready in every:
        total = count_runs(ready, a.threads, a.batch, a.runs)
        with counting(f"{ready.graph.name}: pairs of runs", total) as advance:
            pairs += compare(ready, a.threads, a.batch, a.runs, advance)
        if a.profile:
            profiles += [profile(ready, t, b, a.runs) for t in a.threads for b in a.batch]
    if a.json:
        print_json(report.record(here, pairs, profiles))
        return
    if pairs:
        report.show_pairs(pairs, here)
    for one in profiles:
        report.show_profile(one, here)


def _bench_scaling(a: argparse.Namespace, here: Machine) -> None:
    from refnet.bench.scaling import LAYERS, SCALED, SIZES, scaling
    from refnet.report import bench as report

    threads = a.threads[0]
    with counting("sizes", len(SCALED) * len(SIZES) + 2 * len(LAYERS)) as advance:
        scales = scaling(threads, a.runs, advance=advance)
    print_json(report.record(here, scales=scales)) if a.json else report.show_scaling(scales, threads)


def _bench_startup(a: argparse.Namespace, here: Machine, ready: Prepared) -> None:
    from refnet.bench.startup import startup
    from refnet.report import bench as report

    with counting("processes", 4 * a.runs + 1) as advance:
        start = startup(ready, a.threads[0], a.runs, advance)
    print_json(report.record(here, start=start)) if a.json else report.show_startup(start)


def _frameworks(text: str) -> list[str]:
    return [] if text == "none" else list(dict.fromkeys(text.split(",")))
