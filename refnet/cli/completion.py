"""`refnet --completion SHELL`: a script that completes commands, options, values, networks and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from refnet.cli.common import one_of
from refnet.core.errors import InputError

SHELLS = ("bash", "zsh", "tcsh")

FILES = ("FILE", "BOOK", "PATH", "IMAGE", "X", ".json")
"""What stands in the name of an argument that is a file."""

FUNCTIONS = {
    "bash": """
_refnet_model() {{
  compgen -W "{names}" -- "$1"
  compgen -f -- "$1"
}}
""",
    "zsh": """
_refnet_model() {{
  _alternative 'names:network:({names})' 'files:file:_files'
}}
""",
    "tcsh": "",
}
"""Shell -> the function that completes a MODEL: a network's name or a file."""


def script(parser: argparse.ArgumentParser, commands: Iterable[argparse.ArgumentParser], shell: str) -> str:
    """The script. Raises InputError for another shell, or if shtab, which writes it, is not installed."""
    try:
        one_of(*SHELLS)(shell)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"--completion: {error}") from None
    try:
        import shtab  # only here: nothing else needs it
    except ImportError:
        raise InputError('--completion needs shtab: pip install "refnet[completion]"') from None
    from refnet.models.catalog import entries  # not at the top: help is shown without the catalog

    model = {"bash": "_refnet_model", "zsh": "_refnet_model", "tcsh": "f"}
    for command in commands:
        for action in command._actions:
            what = action.metavar if isinstance(action.metavar, str) else ""
            if what == "MODEL" and command.prog != "refnet fetch":
                action.complete = model  # type: ignore[attr-defined]
            elif what in ("MODEL", "NAME") and action.dest in ("model", "name", "network"):
                action.choices = list(entries())
            elif what == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.choices is None and any(word in what for word in FILES):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    preamble = FUNCTIONS[shell].format(names=" ".join(entries()))
    return str(shtab.complete(parser, shell=shell, preamble=preamble)) + "\n"
