"""What several commands share: exit codes, arguments, progress, JSON."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from refnet.core.errors import InputError
from refnet.core.words import did_you_mean
from refnet.frameworks.capture.names import PLACES, PRECISIONS, variable

EMBEDDED = "octave-se-resnet-digits"
"""The network of `refnet run` without a MODEL: trained, shipped, and it runs in an instant."""

DONE, DIFFERENT, FAILED, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141


def usable(model: str, network: str | None) -> str:
    """The MODEL. Raises InputError for an image, and for weights without --model; both say what to type."""
    from refnet.models.weights_file import holds_weights_only  # not at the top: it imports numpy

    kind = Path(model).suffix.lower()
    if kind in (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm"):
        raise InputError(f"{model} is an image, but a MODEL is expected here: refnet run {EMBEDDED} {model}")
    if network is None and holds_weights_only(model):
        raise InputError(f"{model} holds weights only: name their network with --model NAME")
    return model


@contextmanager
def counting(what: str, total: int | None, compiling: bool = False) -> Iterator[Callable[[int], object]]:
    """A progress bar on standard error if it is a terminal and there is more than one to count.

    total: None if unknown. compiling: kernels may be compiled meanwhile. Then the bar shows their number
    and the time elapsed, but no time remaining, because that is unknown.
    """
    if (total is not None and total < 2) or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    counted = (TextColumn("{task.description}"), BarColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        if not compiling:
            yield lambda done: progress.advance(task, done)
            return
        from refnet.loops.jit import watching  # not at the top: the command line is imported without numba

        def compiled(begun: int, done: int) -> None:
            if begun == 1 and done == 0:
                progress.columns = (*counted, MofNCompleteColumn(), TimeElapsedColumn())
            progress.update(task, description=f"{what} (compiling kernels: {done} done)")

        def advance(done: int) -> None:
            progress.update(task, advance=done, description=what)

        with watching(compiled):
            yield advance


@contextmanager
def progress_bar(what: str, compiling: bool = False) -> Iterator[Callable[[int, int | None], object]]:
    """progress(done, total) of the public functions as a bar on standard error, if that is a terminal.

    compiling: as for `counting`.
    """
    with ExitStack() as stack:
        bars: list[Callable[[int], object]] = []
        shown = 0

        def progress(done: int, total: int | None) -> None:
            nonlocal shown
            if not bars:
                bars.append(stack.enter_context(counting(what, total, compiling)))
            bars[0](done - shown)
            shown = done

        yield progress


def print_json(record: object) -> None:
    """Write the record as JSON to standard output; what its encoding lacks is escaped as JSON does."""
    from refnet.report.terminal import write

    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(record, indent=2, allow_nan=False)
    write(text + "\n")


def escaped(text: str) -> str:
    """The text with its unprintable characters escaped: backslash, letter and hexadecimal digits.

    >>> escaped("a" + chr(27) + chr(0xD800)) == "a" + chr(92) + "x1b" + chr(92) + "ud800"
    True
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --limit-operations and --limit-memory, which `main` sets."""
    text = "float operations that one run may take, a multiply-add as two (default: 2e12)"
    parser.add_argument("--limit-operations", type=amount, metavar="N", help=text)
    text = "memory that the values of one run may take at the same time, such as 16G (default: 4G)"
    parser.add_argument("--limit-memory", type=memory, metavar="BYTES", help=text)


def amount(text: str) -> float:
    """An argument that is a positive number, such as 5e12."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number such as 5e12")
    return number


def memory(text: str) -> float:
    """An argument that is a number of bytes, or of K, M, G or T of them.

    >>> memory("16G") == 16 * 2**30, memory("1e9")
    (True, 1000000000.0)
    """
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    unit = units.get(text[-1:].upper())
    return amount(text if unit is None else text[:-1]) * (unit or 1)


def weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --weights, --key, --structure, --model, --image and --shape."""
    text = "a file, or seed:N for synthetic weights "
    text += "(default: the shipped or fetched ones, or those beside the symbol file)"
    parser.add_argument("--weights", metavar="FILE|seed:N", help=text)
    text = "which weights of a checkpoint that has several, such as state_dict_ema"
    parser.add_argument("--key", metavar="KEY", help=text)
    text = "which of the symbol's names the names in a .params file mean (docs/formats.md)"
    parser.add_argument("--structure", metavar="FILE", help=text)
    network_arguments(parser)


def fold_weights(arguments: argparse.Namespace) -> None:
    """Put --key and --structure into the text that names the weights file: `FILE?key=KEY&structure=FILE`.

    That file is the one of --weights, else the MODEL. Raises InputError if neither is a weights file.
    """
    key, structure = getattr(arguments, "key", None), getattr(arguments, "structure", None)
    if key is None and structure is None:
        return
    from refnet.models.weights_file import holds_weights_only, source_of

    option = f"--key {key}" if key is not None else f"--structure {structure}"
    place = "model" if arguments.weights is None else "weights"
    file = getattr(arguments, place, None)
    if not isinstance(file, str) or not (holds_weights_only(file) or file.endswith(".tar")):
        raise InputError(f"{option} is about a weights file: name it with --weights FILE")
    own = source_of(file)
    path = own.structure if structure is None else os.path.abspath(structure)
    setattr(arguments, place, replace(own, key=key or own.key, structure=path).text)


def fold_model(arguments: argparse.Namespace) -> None:
    """Put --shape and --outputs into the text that names the MODEL: `MODEL?shape=NAME:1,3,8,8&output=NAME`.

    Raises InputError without a MODEL, for a shape that is none, and for one of a name that has one.
    """
    shapes, outputs = getattr(arguments, "shape", None) or [], getattr(arguments, "outputs", None) or []
    if not shapes and not outputs:
        return
    from refnet.models.weights_file import dimensions, source_of

    option = f"--shape {shapes[0]}" if shapes else f"--outputs {outputs[0]}"
    model = getattr(arguments, "model", None)
    if isinstance(model, list) and len(model) == 1:
        (model,) = model
    if not isinstance(model, str):
        raise InputError(f"{option} is about one MODEL: name it")
    own = source_of(model)
    found = dict(own.shapes)
    for text in shapes:
        name, equals, numbers = text.rpartition("=")
        sizes = dimensions(numbers if equals and name else "", f"--shape {text!r}")
        if found.setdefault(name, sizes) != sizes:
            raise InputError(f"--shape {text}: {name} is {','.join(map(str, found[name]))} already")
    made = replace(own, shapes=tuple(found.items()), outputs=own.outputs + tuple(listed(outputs))).text
    arguments.model = [made] if isinstance(arguments.model, list) else made


def outputs_argument(parser: argparse.ArgumentParser, done: str = "computed", dest: str = "outputs") -> None:
    """Declare --outputs. done: what is done to the nodes. dest: "outputs" becomes part of the MODEL."""
    text = f"values in the place of the model's outputs: only what they need is {done}; repeatable"
    parser.add_argument("--outputs", dest=dest, action="append", default=[], metavar="NAME,...", help=text)


def listed(texts: Sequence[str]) -> list[str]:
    """The names of a repeatable argument NAME,..., each once. Raises InputError for one without a name."""
    for text in texts:
        if not text.strip(", "):
            raise InputError(f"--outputs {text!r} names no value")
    return list(dict.fromkeys(name for text in texts for name in text.split(",") if name))


@contextmanager
def said_once() -> Iterator[None]:
    """Show what refnet logs (what it took of a file) on standard error, each line once."""
    logger, shown = logging.getLogger("refnet"), set[str]()

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in record.getMessage())
            if text not in shown:
                shown.add(text)
                print(f"refnet: {text}", file=sys.stderr)

    handler, before = Lines(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def network_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --model, --image and --shape."""
    text = "which network of the catalog a file holds; required for a state dict"
    parser.add_argument("--model", dest="network", metavar="NAME", help=text)
    parser.add_argument("--image", type=size, metavar="H,W", help="the input size (default: the model's)")
    text = (
        "all dimensions of an input whose sizes an .onnx file leaves open, such as x=1,3,224,224; repeatable"
    )
    parser.add_argument("--shape", action="append", default=[], metavar="NAME=N,...", help=text)


def names_arguments(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Declare --names and --allow. of: what they are for, in front of the help."""
    text = f"{of}a JSON object {{captured name: name of a value}}"
    parser.add_argument("--names", type=Path, metavar="MAP.json", help=text)
    nothing = "that match nothing" if of else "that match nothing or are unjudged"
    text = f"{of}accept values of this name, or pattern with * and ?, {nothing}; repeatable"
    parser.add_argument("--allow", action="append", default=[], metavar="NAME", help=text)


def refuse_given(a: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Refuse the first of these options that was given: it would decide nothing."""
    for name in names:
        value = getattr(a, name.replace("-", "_"))
        if value not in (None, False, [], ()):
            shown = "" if value is True else f" {value[0] if isinstance(value, list) else value}"
            raise InputError(f"--{name}{shown}: {why}")


def json_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --json."""
    parser.add_argument("--json", action="store_true", help="print JSON, with all digits and checksums")


def threads_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --threads, of refnet's own computing."""
    text = "number of threads (default: all processors)"
    parser.add_argument("--threads", type=positive, metavar="N", help=text)


def worker_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --processes and --dask."""
    text = "worker processes on this machine (default: 1, this one)"
    parser.add_argument("--processes", type=positive, metavar="N", help=text)
    text = "workers of dask: a scheduler's address such as tcp://10.0.0.1:8786, or local:N for N processes "
    text += 'on this machine; needs pip install "refnet[dask]"'
    parser.add_argument("--dask", metavar="ADDRESS|local:N", help=text)


PIPELINES = (
    *("octave-scorer", "octave-accuracy-checker", "octave-conversion"),
    *("octave-gluon-record", "octave-gluon-folder", "resnest", "digits"),
    *("octave-raw-bgr", "octave-raw-rgb", "resnest-raw-bgr", "resnest-raw-rgb"),
)
"""The names in `refnet.models.preprocess`, for help, which imports no NumPy. A test compares the two."""


def pipeline_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --pipeline."""
    text = "how an image becomes a tensor (default: as the scorer of the model's own table does): "
    text += f"{', '.join(PIPELINES)}; docs/preprocessing.md"
    parser.add_argument("--pipeline", metavar="NAME", help=text)


def python_argument(parser: argparse._ActionsContainer) -> None:
    """Declare --python; `interpreters` reads it."""
    text = "the Python that has the framework, or with NAME= that of one framework; repeatable "
    first, *others = (variable(name) for name in PLACES)
    others = [name.removeprefix("REFNET_PYTHON") for name in others]
    text += f"(default: what {first}, {', '.join(others[:-1])} or {others[-1]} names, else the "
    text += "Python that runs refnet, else that of the PATH)"
    parser.add_argument("--python", action="append", default=[], metavar="[NAME=]PATH", help=text)


def interpreters(texts: Sequence[str], frameworks: Collection[str]) -> dict[str, str]:
    """Framework -> interpreter, of --python PATH and --python NAME=PATH.

    Raises InputError for a name that is none of the frameworks that run, and for two of one framework.

    >>> interpreters(["mxnet=/opt/mx/bin/python", "/opt/torch/bin/python"], ["torch", "mxnet"])
    {'mxnet': '/opt/mx/bin/python', 'torch': '/opt/torch/bin/python'}
    >>> interpreters(["onnx=/opt/onnx/bin/python"], ["onnxruntime"])
    Traceback (most recent call last):
    refnet.core.errors.InputError: --python onnx=...: no 'onnx' runs here; did you mean onnxruntime?
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or os.sep in name:  # a path, which may have a = itself
            continue
        if name not in frameworks:
            hint = did_you_mean(name, frameworks, f", but {', '.join(frameworks) or 'no framework'}")
            raise InputError(f"--python {text}: no {name!r} runs here{hint}")
        if name in found or not path:
            raise InputError(f"--python {text}: {'is duplicated' if path else 'names no file'}")
        found[name] = path
    plain = [text for text in texts if "=" not in text or os.sep in text.partition("=")[0]]
    if len(plain) > 1:
        raise InputError(f"--python {plain[1]}: one PATH has no NAME already; write NAME={plain[1]}")
    rest = [name for name in frameworks if name not in found]
    if plain and not rest:
        raise InputError(f"--python {plain[0]}: no framework is left for it to run")
    return found | dict.fromkeys(rest, plain[0]) if plain else found


def process_arguments(parser: argparse.ArgumentParser, answer: str) -> None:
    """Declare --python, --environment, --timeout, of a framework's process. answer: what may take long."""
    python_argument(parser)
    parser.add_argument(
        "--environment",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable for the framework's process, for example ONEDNN_MAX_CPU_ISA=AVX2",
    )
    text = f"seconds to wait for one {answer} (default: 600)"
    parser.add_argument("--timeout", type=positive, metavar="SECONDS", help=text)


def callable_arguments(parser: argparse.ArgumentParser, state: str, text: str) -> None:
    """Declare what belongs to torch's package.module:callable: --state, --argument, --option, --path.

    state, text: what --state takes, and its help.
    """
    parser.add_argument("--state", metavar=state, help=text)
    parser.add_argument(
        "--argument", action="append", default=[], metavar="JSON", help="torch callable: an argument"
    )
    parser.add_argument("--option", metavar="JSON", help='torch callable: its keywords, {"name": value}')
    parser.add_argument(
        "--path", action="append", default=[], metavar="DIR", help="torch callable: a folder to import from"
    )


def subgraph_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --subgraph."""
    parser.add_argument(
        "--subgraph",
        type=one_of("NONE", "default"),
        choices=["NONE", "default"],
        default="NONE",
        help="MXNet's subgraph backend. NONE: no joined nodes; default: MXNet's own setting (default: NONE)",
    )


def precision_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --precision."""
    text = "openvino: what it may round to inside, its INFERENCE_PRECISION_HINT: "
    text += f"{', '.join(PRECISIONS)} (default: {PRECISIONS[0]})"
    known = one_of(*PRECISIONS)
    parser.add_argument("--precision", type=known, choices=PRECISIONS, metavar="NAME", help=text)


def one_of(*known: str) -> Callable[[str], str]:
    """The type of an argument that is one of these words; another is answered with the closest."""

    def word(text: str) -> str:
        if text not in known:
            hint = did_you_mean(text, known)
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(known)}{hint}")
        return text

    return word


def positive(text: str) -> int:
    """An argument that is a positive whole number."""
    number = int(text) if text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number


def numbers(text: str) -> list[int]:
    """A list such as 1,2: positive whole numbers, duplicates dropped."""
    return list(dict.fromkeys(positive(part) for part in text.split(",")))


def size(text: str) -> tuple[int, int]:
    """An argument H,W."""
    height, comma, width = text.partition(",")
    if not comma:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size H,W such as 224,224")
    return positive(height), positive(width)


def pairs(option: str, texts: list[str]) -> dict[str, str]:
    """NAME=VALUE, each name once."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or name in found:
            raise InputError(
                f"{option} {text!r}: {'is duplicated' if name in found else 'is not NAME=VALUE'}"
            )
        found[name] = value
    return found


def json_value(option: str, text: str, kind: type = object) -> Any:
    """The JSON value of an option's text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{option} {text!r} is not JSON: {error}") from None
    if not isinstance(found, kind):
        raise InputError(f"{option} {text!r} must be a JSON object")
    return found
