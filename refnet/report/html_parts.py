"""The words of the HTML report: text made safe, numbers made readable, one mark and colour per verdict."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from refnet.report.terminal import clean

VERDICTS = {
    "equal": ("=", "the only right result, bit for bit"),
    "replayed": ("R", "a stated order gives exactly these bits"),
    "rounding": ("~", "inside of the proven bound of rounding"),
    "defect": ("!", "proved not to be rounding"),
    "unjudged": ("?", "nothing could be proved either way"),
    "missing": ("-", "not in the capture"),
}
"""Per verdict its mark, so that colour is never alone, and what it says."""

LONGEST, COMMAND = 1000, 100_000
"""Characters of a text, and of a command, that are shown; networks' own names have up to 60."""


def text(value: object, longest: int = LONGEST) -> str:
    """Any text for HTML, inside of elements and of quoted attributes: names come from files of others.

    Unprintable characters (controls, marks that turn the direction of writing) are escaped as Python
    escapes them; what is longer than any honest name is cut, and says so.

    >>> text("<b>\\u202e\\"'")
    '&lt;b&gt;\\\\u202e&quot;&#x27;'
    >>> text("name", 2)
    'na... (4 characters)'
    """
    said = str(value)
    if len(said) > longest:
        said = f"{said[:longest]}... ({len(said)} characters)"
    return escape(clean(said))


def count(value: int) -> str:
    """A whole number with its thousands apart.

    >>> count(802816)
    '802,816'
    """
    return f"{int(value):,}"


def figure(value: object, digits: int = 3) -> str:
    """A measured number, to some digits; a word such as "nan" or "inf" stays one, None is a dash.

    >>> figure(0.123456), figure(float("inf")), figure(None)
    ('0.123', 'inf', '-')
    """
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, int | float) else text(value)


def float32(value: object) -> str:
    """A float32 as the shortest decimal that reads back as the same bits.

    >>> float32(0.10000000149011612)
    '0.1'
    """
    return str(np.float32(value)) if isinstance(value, int | float) else text(value)


def real(value: object) -> float:
    """The number that JSON holds: as a number, or as the word "inf" or "nan"; NaN for anything else.

    >>> real("inf"), real(2), real(None)
    (inf, 2.0, nan)
    """
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def largest(share: Mapping[str, Any] | None) -> float:
    """The largest share of a node; infinite where the record says null, NaN where there is no share at all.

    A share is infinite where a value is no number, or lies outside of a bound of radius 0.
    """
    if not share:
        return math.nan
    return math.inf if share["max"] is None else real(share["max"])


def distance(ulps: int | None) -> str:
    """How many float32 lie between, in words.

    >>> distance(37), distance(1), distance(-1)
    ('37 ulps', '1 ulp', 'one is no number')
    """
    if ulps is None:
        return "-"
    return "one is no number" if ulps < 0 else f"{count(ulps)} ulp{'s' * (ulps != 1)}"


def shape(sizes: Sequence[int] | None) -> str:
    """A shape, as HTML; empty for a value that is not there.

    >>> shape([1, 64])
    '1&times;64'
    """
    return "&times;".join(str(int(n)) for n in sizes or ())


def mark(verdict: str) -> str:
    """The verdict's sign in its colour; readers of the screen hear the word instead."""
    sign, _ = VERDICTS[verdict]
    return f'<span class="mark {verdict}" aria-hidden="true">{sign}</span>'


def command(words: Sequence[str]) -> str:
    """A command line as HTML, broken between its words rather than inside of one.

    >>> command(["ls", "a b"])
    '<pre class="command"><code><span>ls</span> <span>&#x27;a b&#x27;</span></code></pre>'
    """
    said = " ".join(f"<span>{text(shlex.quote(word), COMMAND)}</span>" for word in words)
    return f'<pre class="command"><code>{said}</code></pre>'


def explain(model: str, node: Mapping[str, Any], capture: str) -> list[str]:
    """The words of the command that shows the worst element's arithmetic term by term.

    >>> explain("resnest-digits", {"name": "fc", "worst": {"at": [0, 3]}}, "captured")
    ['refnet', 'explain', 'resnest-digits', 'fc', '--at', '0,3', '--capture', 'captured']
    """
    at = ",".join(str(int(i)) for i in node["worst"]["at"])
    return ["refnet", "explain", model, str(node["name"]), "--at", at, "--capture", capture]


def rows(pairs: Sequence[tuple[str, str]], kind: str = "facts") -> str:
    """A list of terms and what is said of each. The terms are any text, the rest is HTML already."""
    inside = "".join(f"<div><dt>{text(term)}</dt><dd>{said}</dd></div>" for term, said in pairs)
    return f'<dl class="{kind}">{inside}</dl>'
