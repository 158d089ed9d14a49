"""The command line: each subcommand is a file of its own, a few lines over one public function.

    main ── parse ── COMMANDS: models, run, summary, ... ── report

Nothing but the standard library's parser is imported before a command needs it, so `--help` is quick.
"""

from __future__ import annotations

import argparse
import io
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout

from refnet import __version__
from refnet.cli import (
    bench,
    capture,
    diff,
    explain,
    export,
    fetch,
    golden,
    models,
    prove,
    reveal,
    run,
    summary,
    verify,
)
from refnet.cli.common import DONE, FAILED, INTERRUPTED, UNREAD, fold_weights, print_json, said_once
from refnet.core.errors import RefnetError

COMMANDS = (models, run, summary, fetch, export, capture, verify, explain, diff, golden, prove, reveal, bench)
"""Modules with TEXT, EXAMPLES, arguments(parser) and run(arguments); the command has the module's name."""

HELP = """\
refnet executes convolutional networks for bit-level verification against framework outputs.
"""

NOTES = """\
start here:
  refnet verify                         the shipped networks against MXNet's and PyTorch's bits
  refnet run                            the shipped digits network on the sample digits
  refnet models                         the networks that refnet knows by name
  refnet run resnest-50-pytorch cat.jpg --weights seed:0
  refnet COMMAND --help                 options and examples of a command

a MODEL is
  a name from `refnet models`           octave-se-resnet-50-0.125, resnest-digits, ...
  an MXNet symbol file                  net-symbol.json, with --weights net-0000.params
  an official MXNet archive             a05_se-resnet-50_alpha-0.125.tar
  weights of PyTorch or Gluon           net.pth, net.safetensors or net.params, with --model NAME
  an ONNX file                          net.onnx (needs pip install "refnet[onnx]")

exit codes:
  0    done
  1    `verify`: a defect; `diff`, `golden --check`, `prove`: different;
       `reveal`: some nodes are unconfirmed; `capture --order-free`: some nodes differ
  2    wrong usage, or an input that cannot be used; the reason is on standard error
       (and with --json on standard output as {"error": {"kind": ..., "message": ...}})
  130  interrupted with Ctrl-C
  141  the reader of standard output closed the pipe, as in `refnet models | head -1`
  Any other exception is a bug in refnet: it shows its traceback, and the exit code is 2.

environment:
  REFNET_CACHE    folder of the compiled kernels (default ~/.cache/refnet/kernels)
  REFNET_WEIGHTS  folder of the fetched official files (default ~/.cache/refnet/weights)
  REFNET_QUIET    set to any value: no message while kernels compile
  NO_COLOR        set to any value: no colours
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
        arguments = parse(sys.argv[1:] if argv is None else list(argv))
        if arguments is not None:
            fold_weights(arguments)
            with said_once():
                return arguments.command(arguments) or DONE
        return DONE
    except RefnetError as error:
        return _say(error, arguments is not None and getattr(arguments, "json", False))
    except KeyboardInterrupt:
        print("refnet: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return UNREAD
    except MemoryError as error:
        print(f"refnet: there is not enough memory{f': {error}' if str(error) else ''}", file=sys.stderr)
        return FAILED
    except Exception:  # a bug must not end with Python's 1, which says that something was judged and is wrong
        traceback.print_exc()
        return FAILED


def _say(error: RefnetError, as_json: bool) -> int:
    """Print the error: on standard error, and with --json on standard output, too."""
    lines = str(error).split("\n")
    text = "\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    print(f"refnet: {text}", file=sys.stderr)
    if as_json:
        print_json({"error": {"kind": type(error).__name__, "message": str(error)}})
    return FAILED


def _escape_unencodable() -> None:
    """Show characters that the terminal's encoding lacks escaped, instead of raising an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def parse(argv: Sequence[str]) -> argparse.Namespace | None:
    """The arguments, or None if only help was asked for. Exits with 2 on wrong usage, 0 after --help.

    They include `argv` itself, and `warm_up`: the command's function of that name, or None.

    A command's own parser takes options and file names in any order, which argparse grants only
    outside subparsers. Help is written here, because argparse ignores a full disk.
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
                arguments = commands[argv[0]].parse_intermixed_args(argv[1:])
            else:
                arguments = parser.parse_args(argv)
            arguments.argv = argv
            return arguments
    finally:
        if text.getvalue():
            write(text.getvalue())


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("refnet", description=HELP, epilog=NOTES, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"refnet {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands = {}
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        commands[name] = subparsers.add_parser(
            name,
            help=module.TEXT,
            description=module.TEXT,
            epilog=module.EXAMPLES,
            formatter_class=form,
            allow_abbrev=False,
        )
        commands[name].set_defaults(command=module.run, warm_up=getattr(module, "warm_up", None))
        module.arguments(commands[name])
    return parser, commands
