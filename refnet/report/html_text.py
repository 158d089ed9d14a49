"""The words of the HTML report: text made harmless, numbers made readable, what each verdict means."""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape

from refnet.report.terminal import clean
from refnet.verification.difference import apart


def sha256_source(content: str) -> str:
    """A style or script as a content policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


class Meaning(NamedTuple):
    """A verdict's sign, so that colour is never alone, and what the verdict says."""

    sign: str
    meaning: str


VERDICTS = {
    "equal": Meaning("=", "the only right result, bit for bit"),
    "replayed": Meaning("R", "a stated order gives exactly these bits"),
    "rounding": Meaning("~", "inside the proven bound"),
    "defect": Meaning("!", "proved not to be rounding"),
    "unjudged": Meaning("?", "nothing could be proved either way"),
    "missing": Meaning("-", "not in the capture"),
}

LONGEST, COMMAND = 1000, 100_000
"""Most characters shown of a text, and of a command's word; the networks' own names have up to 60."""


def harmless(value: object, longest: int = LONGEST) -> str:
    """What a template prints, before HTML escaping: names come from files that others wrote.

    Unprintable characters (controls, marks that change the writing direction) become Python's escapes. Texts
    longer than any honest name are cut, and say so. Markup stays as it is: only templates and drawings make
    it.

    >>> harmless("a\\u202eb"), harmless("name", 2)
    ('a\\\\u202eb', 'na... (4 characters)')
    """
    if isinstance(value, Markup):
        return value
    said = str(value)
    if len(said) > longest:
        said = f"{said[:longest]}... ({len(said)} characters)"
    return clean(said)


def thousands(value: int) -> str:
    """A whole number with commas between thousands.

    >>> thousands(802816)
    '802,816'
    """
    return f"{int(value):,}"


def number_of(value: int, one: str, more: str) -> str:
    """A whole number with its noun.

    >>> number_of(1, "value", "values"), number_of(2000, "value", "values")
    ('1 value', '2,000 values')
    """
    return f"{thousands(value)} {one if value == 1 else more}"


def figure(value: object, digits: int = 3) -> str:
    """A measured number, to some digits. A word such as "nan" or "inf" stays as it is; None gives a dash.

    >>> figure(0.123456), figure(float("inf")), figure(None)
    ('0.123', 'inf', '-')
    """
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, int | float) else str(value)


def float32(value: object) -> str:
    """A float32 as the shortest decimal that reads back as the same bits.

    >>> float32(0.10000000149011612)
    '0.1'
    """
    return str(np.float32(value)) if isinstance(value, int | float) else str(value)


def hexadecimal(bits: object) -> str:
    """A float32's bits, with 0x in front whether the record has it or not.

    >>> hexadecimal("7fc00000")
    '0x7fc00000'
    """
    return f"0x{str(bits).removeprefix('0x')}"


def real(value: object) -> float:
    """The number that a JSON value holds, which may be the word "inf" or "nan"; NaN for anything else.

    >>> real("inf"), real(2), real(None)
    (inf, 2.0, nan)
    """
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def largest(share: Mapping[str, Any] | None) -> float:
    """The largest share of a node: infinite where the record says null, NaN where there is no share.

    A share is infinite where a value is NaN or infinite, or lies outside a bound of radius 0.
    """
    if not share:
        return math.nan
    return math.inf if share["max"] is None else real(share["max"])


def distance(ulps: int | None) -> str:
    """A distance in ulps, in words.

    >>> distance(37), distance(1), distance(-1), distance(-2)
    ('37 ulps', '1 ulp', 'one is NaN', 'opposite signs')
    """
    if ulps is None:
        return "-"
    return apart(ulps) if ulps < 0 else number_of(ulps, "ulp", "ulps")


def place(worst: Mapping[str, Any]) -> str:
    """The worst element in words: its distance, its share of the bound, the bound itself.

    >>> place({"ulps": 2, "share": 0.25, "bound": {"center": 1.0, "radius": 1e-6}})
    '2 ulps apart; 0.25 of the bound; bound 1 ± 1e-06'
    """
    said = []
    ulps, share, bound = worst.get("ulps"), worst.get("share"), worst.get("bound")
    if ulps is not None:
        said.append(distance(ulps) if ulps < 0 else f"{distance(ulps)} apart")
    if share is not None:
        said.append(f"{figure(share)} of the bound")
    if bound:
        said.append(f"bound {figure(bound['center'], 9)} ± {figure(bound['radius'])}")
    return "; ".join(said)


def shell_word(word: str) -> Markup:
    """A word of a command line, quoted for the shell and escaped for the page. It is never cut.

    >>> shell_word("a <b>")
    Markup('&#39;a &lt;b&gt;&#39;')
    """
    return escape(harmless(shlex.quote(word), COMMAND))


def explain(model: str, node: Mapping[str, Any], capture: str, options: Sequence[str] = ()) -> list[str]:
    """The words of the command that shows the worst element's arithmetic term by term.

    options: its last words.

    >>> explain("resnest-digits", {"name": "fc", "worst": {"at": [0, 3]}}, "captured")
    ['refnet', 'explain', 'resnest-digits', 'fc', '--at', '0,3', '--capture', 'captured']
    """
    at = ",".join(str(int(i)) for i in node["worst"]["at"])
    return ["refnet", "explain", model, str(node["name"]), "--at", at, "--capture", capture, *options]
