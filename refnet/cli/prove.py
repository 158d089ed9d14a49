"""refnet prove: golden functions on all float32 inputs, or a framework's against refnet's formulas."""

from __future__ import annotations

import argparse
from pathlib import Path

from refnet.arithmetic.engines import thread_count
from refnet.cli.common import (
    DIFFERENT,
    DONE,
    counting,
    interpreters,
    json_argument,
    one_of,
    positive,
    print_json,
    python_argument,
    refuse_given,
    threads_argument,
    worker_arguments,
)
from refnet.core.words import counted
from refnet.frameworks.capture.names import LIVE

TEXT = "prove a golden function, or a framework's bits, on all float32 inputs"
GOLDEN = (
    *("exp", "sigmoid", "log", "tanh", "erf", "softplus", "mish", "silu"),
    *("gelu", "gelu-tanh", "elu", "selu"),
)
"""prove.py's FUNCTIONS, which would load NumPy here."""

EXAMPLES = """\
examples:
  refnet prove sigmoid                                every one of the 2**32 float32 inputs
  refnet prove gelu --state gelu.state                resumes if it was interrupted
  refnet prove exp --dask local:2                     on dask's workers; also --processes 2
  refnet prove sigmoid --slice 3/64                   the 3rd, 67th, 131st and 195th of 256 chunks
  refnet prove sigmoid --framework torch --slice 1/16
  refnet prove softmax --framework mxnet --environment DNNL_MAX_CPU_ISA=AVX2
  refnet prove sigmoid --framework torch --formula glibc    how many results another formula gets wrong

Golden results are compared with a second, independent evaluation: all must be equal. Each chunk's hash is
compared with the one on record, too. With --framework, the framework's own results are compared with the
formulas that replay evaluates: one must give the same bits everywhere. All inputs take some minutes. Exit
code 0: proved; 1: different. docs/numerics.md explains both and has the results.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    text = f"{', '.join(GOLDEN)}; with --framework also sqrt, softmax, softmax-first, nd-sigmoid (MXNet)"
    names = [*GOLDEN, "sqrt", "softmax", "softmax-first", "nd-sigmoid"]
    parser.add_argument("function", type=one_of(*names), choices=names, metavar="FUNCTION", help=text)
    other = parser.add_argument_group("a framework's function")
    text = f"compare this framework's function, not golden: {', '.join(LIVE)}"
    other.add_argument("--framework", type=one_of(*LIVE), choices=LIVE, metavar="NAME", help=text)
    python_argument(other)
    text = "compare with this formula only (default: all that agree on a sample)"
    other.add_argument("--formula", metavar="NAME", help=text)
    other.add_argument(
        "--environment",
        type=_variable,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable for the framework's process",
    )
    parser.add_argument("--slice", type=_slice, default=(1, 1), metavar="K/N", help="only part K of N")
    text = "save progress to this file, and resume from it"
    parser.add_argument("--state", type=Path, metavar="FILE", help=text)
    worker_arguments(parser)
    threads_argument(parser)
    json_argument(parser)


def run(a: argparse.Namespace) -> int:
    """Do what the arguments say; the exit code, None for 0."""
    from refnet.core.errors import InputError

    if a.framework:
        return _live(a)
    if a.function not in GOLDEN or a.python or a.formula or a.environment:
        raise InputError(f"{a.function}: needs --framework")
    from refnet.prove.prove import CHUNKS, prove, recorded
    from refnet.report.terminal import show

    part, of = a.slice
    chunks = range(part - 1, CHUNKS, of)
    workers = None
    if a.processes or a.dask:
        from refnet.workers.workers import Workers

        refuse_given(a, ("threads",), "each worker of --processes and --dask computes one chunk at a time")
        workers = Workers(a.processes, a.dask)
    with counting(f"{a.function}: chunks of 2**24 inputs", len(chunks)) as advance:
        proof = prove(a.function, chunks, thread_count(a.threads), a.state, advance, workers)
    known = recorded(a.function)
    unlike = proof.unlike(known) if known else []
    if a.json:
        print_json({**proof.record(), "unlike_recorded": unlike})
    else:
        record = proof.record()
        differ = counted(proof.different, "result differs", "results differ")
        show(f"{a.function}: {counted(proof.inputs, 'input')}, {differ}")
        by_golden, by_second = record["open_shipped"], record["open_second"]
        show(f"decided by decimal arithmetic: {by_golden} by golden, {by_second} by the second evaluation")
        if proof.different:
            show(f"first input that differs: 0x{record['first_different']:08x}")
        show(f"sha256 of all results: {proof.sha256 or 'needs all chunks (this run had some of them)'}")
        on = f"the record of {known['date']}" if known else ""
        if not known:
            show(f"no whole run of {a.function} is on record")
        elif unlike:
            others = counted(len(unlike), "chunk has another hash", "chunks have other hashes")
            show(f"{others} than {on}: {unlike}")
        else:
            show(f"every chunk's hash equals {on}")
    return DIFFERENT if proof.different or unlike else DONE


def _live(a: argparse.Namespace) -> int:
    """A framework's function against the formulas."""
    from dataclasses import asdict

    from refnet.core.errors import InputError
    from refnet.frameworks.launch import FRAMEWORKS, python
    from refnet.frameworks.live import CHUNKS, questions, sweep, worker
    from refnet.report.terminal import clean, show

    if a.state:
        raise InputError("--state is for golden proofs; --slice divides this one")
    refuse_given(a, ("processes", "dask"), "is for golden proofs; --slice divides this one")
    place = FRAMEWORKS[a.framework]
    questions(place, a.function)
    part, of = a.slice
    chunks = range(part - 1, CHUNKS, of)
    interpreter = python(a.framework, interpreters(a.python, [a.framework]).get(a.framework))
    with (
        worker(place, interpreter, dict(a.environment)) as running,
        counting(f"{a.framework}'s {a.function}: chunks of 2**24 inputs", len(chunks)) as advance,
    ):
        result = sweep(running, place, a.function, chunks, a.formula, thread_count(a.threads), advance)
    if a.json:
        print_json({**asdict(result), "identical": result.identical})
    else:
        version = result.reference.get("onnxruntime", result.reference["version"])
        show(clean(f"{a.framework} {version}, {a.function}: {counted(result.inputs, 'input')}"))
        for one in result.found:
            where = "" if one.first is None else f", the first at 0x{one.first:08x}"
            show(f"  {one.formula}: {counted(one.different, 'result differs', 'results differ')}{where}")
        show(f"identical: {', '.join(result.identical) or 'none'}")
    return DONE if result.identical else DIFFERENT


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _slice(text: str) -> tuple[int, int]:
    part, slash, of = text.partition("/")
    if not slash or not (1 <= positive(part) <= positive(of) <= 256):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part K/N such as 3/64 with N at most 256")
    return int(part), int(of)
