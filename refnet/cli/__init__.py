"""The command line: each subcommand is a file of its own, a few lines over one public function.

    main ── parse ── COMMANDS: models, run, summary, ... ── report

Nothing but the standard library's parser is imported before a command needs it, so `--help` is quick.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress

from refnet import __version__
from refnet.cli import (
    bench,
    capture,
    completion,
    diff,
    evaluate,
    explain,
    export,
    fetch,
    golden,
    learn,
    models,
    prove,
    reveal,
    run,
    summary,
    verify,
)
from refnet.cli.common import (
    DONE,
    FAILED,
    INTERRUPTED,
    UNREAD,
    escaped,
    fold_model,
    fold_weights,
    limit_arguments,
    print_json,
    said_once,
)
from refnet.cli.layout import WholeWords, laid_out, width
from refnet.core.errors import RefnetError
from refnet.core.words import did_you_mean

COMMANDS = (
    *(models, run, evaluate, summary, fetch, export, capture, verify, explain),
    *(diff, golden, prove, reveal, bench, learn),
)
"""Modules with TEXT, EXAMPLES, arguments(parser) and run(arguments); the command has the module's name."""

LIMITED = {"run", "evaluate", "capture", "verify", "explain", "golden", "reveal"}
"""Commands that run networks in this process."""

HELP = """\
refnet executes convolutional networks for bit-level verification against framework outputs.
"""

NOTES = """\
start here:
  refnet verify           the shipped networks against their frameworks' bits
  refnet run              the shipped digits network on the sample digits
  refnet models           the networks that refnet knows by name
  refnet learn            a page that takes both digits networks apart, bit by bit
  refnet run resnest-50-pytorch cat.jpg --weights seed:0
  refnet COMMAND --help   options and examples of a command

a MODEL is
  name in refnet models   octave-se-resnet-50-0.125, resnest-digits, ...
  MXNet symbol file       net-symbol.json, with --weights net-0000.params
  official MXNet archive  a05_se-resnet-50_alpha-0.125.tar
  PyTorch, Gluon weights  net.pth, net.safetensors or net.params, with --model NAME
  ONNX file               net.onnx (needs pip install "refnet[onnx]")

exit codes:
  0    done
  1    `verify`: a defect; `diff`, `golden --check`, `prove`: different;
       `reveal`: some nodes are unconfirmed; `capture --order-free`: some nodes differ;
       `bench --baseline`: a row is slower
  2    wrong usage, an input that cannot be used, or output that cannot be written; the reason is on
       standard error (and with --json on standard output as {"error": {"kind": ..., "message": ...}});
       `verify`: no defect, but something could not be judged; `evaluate`: an image could not be read;
       `bench --table`: a row could not be raced
  130  interrupted with Ctrl-C
  141  the reader of standard output closed the pipe, as in `refnet models | head -1`
  Any other exception is a bug in refnet: it shows its traceback, and the exit code is 2.

environment:
  REFNET_CACHE    folder of the compiled kernels (default ~/.cache/refnet/kernels)
  REFNET_WEIGHTS  folder of the fetched official files (default ~/.cache/refnet/weights)
  REFNET_PYTHON_TORCH, _MXNET, _ONNXRUNTIME, _ONNX_REFERENCE, _OPENVINO
                  the Python that has the framework
  REFNET_FOLD_BYTES, REFNET_FOLD_SECONDS
                  limits of what is computed of an .onnx file's constants (default 1 GiB, 60 s)
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
        _complain("refnet: standard output is closed")
        return FAILED
    _escape_unencodable()
    arguments = None
    try:
        arguments = parse(sys.argv[1:] if argv is None else list(argv))
        if arguments is not None:
            fold_weights(arguments)
            fold_model(arguments)
            with said_once():
                return _run(arguments) or DONE
        return DONE
    except RefnetError as error:
        return _say(error, arguments is not None and getattr(arguments, "json", False))
    except KeyboardInterrupt:
        _complain("refnet: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return UNREAD
    except MemoryError as error:
        _complain(f"refnet: there is not enough memory{f': {error}' if str(error) else ''}")
        return FAILED
    except Exception:  # a bug must not end with Python's 1, which says that something was judged and is wrong
        _complain(traceback.format_exc().rstrip())
        return FAILED


def _run(arguments: argparse.Namespace) -> int | None:
    """Execute the command, within the limits that it was given."""
    most = [getattr(arguments, name, None) for name in ("limit_operations", "limit_memory")]
    if most == [None, None]:
        code: int | None = arguments.command(arguments)
        return code
    from refnet.core.limits import limits  # not at the top: it needs NumPy

    with limits(*most):
        code = arguments.command(arguments)
        return code


def _say(error: RefnetError, as_json: bool) -> int:
    """Print the error, with the node at which it happened: on standard error, and with --json on standard
    output, too."""
    text = ", ".join([str(error), *getattr(error, "__notes__", ())])
    lines = text.split("\n")
    _complain("refnet: " + "\n".join(escaped(line) for line in lines))
    if as_json:
        try:
            print_json({"error": {"kind": type(error).__name__, "message": text}})
        except BrokenPipeError:
            return UNREAD
        except RefnetError as another:  # a full disk
            _complain(f"refnet: {another}")
    return FAILED


def _complain(text: str) -> None:
    """Say it on standard error, if anything can be said there: the exit code must not depend on that."""
    if sys.stderr is None:  # print would take standard output
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # full, or closed; Python would try again when it ends
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)


def _escape_unencodable() -> None:
    """Show characters that the terminal's encoding lacks escaped, instead of raising an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
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
            option, _, shell = argv[0].partition("=")
            if option == "--completion":
                shell = shell or " ".join(argv[1:])
                print(completion.script(parser, commands.values(), shell), end="")
                return None
            if argv[0] in commands:
                arguments = _parsed(commands[argv[0]], argv[1:])
            elif not argv[0].startswith("-"):
                parser.error(f"there is no command {argv[0]!r}{did_you_mean(argv[0], commands)}")
            else:
                known = [text for action in parser._actions for text in action.option_strings]
                if not any(text.startswith(option) for text in known):
                    hint = did_you_mean(option, known)
                    parser.error(f"there is no option {option!r} without a command{hint}")
                arguments = parser.parse_args(argv)
            arguments.argv = argv
            return arguments
    finally:
        if text.getvalue():
            write(text.getvalue())


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command; an unknown option is answered with those that it may have meant."""
    arguments, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        known = [text for action in parser._actions for text in action.option_strings]
        option = unknown[0].partition("=")[0]
        hint = did_you_mean(option, known) if option.startswith("-") else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return arguments


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    wide = width()

    def form(prog: str) -> argparse.HelpFormatter:
        return WholeWords(prog, width=wide)

    head, notes = laid_out(HELP, wide), laid_out(NOTES, wide)
    parser = argparse.ArgumentParser("refnet", description=head, epilog=notes, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"refnet {__version__}")
    text = "print a script that completes words in bash, zsh or tcsh"
    parser.add_argument("--completion", metavar="SHELL", help=text)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands = {}
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        commands[name] = subparsers.add_parser(
            name,
            help=module.TEXT,
            description=laid_out(module.TEXT, wide),
            epilog=laid_out(module.EXAMPLES, wide),
            formatter_class=form,
            allow_abbrev=False,
        )
        commands[name].set_defaults(command=module.run, warm_up=getattr(module, "warm_up", None))
        module.arguments(commands[name])
        if name in LIMITED:
            limit_arguments(commands[name])
    return parser, commands
