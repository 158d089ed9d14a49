"""What a notebook shows of a graph, a verification, an explanation or feature maps; and one as a page.

    view(value) ── templates/view_*.html ── a piece of HTML of bounded length, with its own style
    write_page(path, explanation) ───────── the same piece as a file of its own (`refnet explain --html`)

Names come from files that others wrote: each is made harmless, cut and escaped. There is no script in it. The
piece takes the notebook's own colours, light or dark; the page takes the reader's.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, singledispatch
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from refnet.core.element import Step
from refnet.core.errors import GraphError
from refnet.core.graph import Graph
from refnet.formats.write import whole_file
from refnet.report import html_charts, html_text
from refnet.report.explain import DIGITS, EDGE, shown_terms
from refnet.report.feature_maps import FeatureMaps
from refnet.report.html import findings, result, stages
from refnet.report.html_text import VERDICTS, figure, harmless, largest, sha256_source
from refnet.report.terminal import clean
from refnet.report.words import one_line
from refnet.verification.difference import apart
from refnet.verification.explain import Explanation, text
from refnet.verification.record import number
from refnet.verification.verify import Verification

MOST = 250_000
"""Characters of a view, at most, whatever names say; an honest one has a tenth of that (tests/report)."""

FIRST, LAST = 40, 10
"""Nodes listed of a long graph. Judgements: the FIRST gravest. Stages, inputs and notes: FIRST of each."""

NAME, TEXT = 80, 160
"""Characters of a name, and of any other text that came from a file."""


def view(value: object) -> str:
    """The value as HTML for a notebook: at most MOST characters, without a script.

    Raises TypeError for anything but a Graph, a Verification, an Explanation or FeatureMaps.

    >>> import refnet
    >>> "97 nodes" in view(refnet.load("resnest-digits"))
    True
    """
    template, facts = _facts(value)
    return _templates().get_template("view.html").render(part=template, style=_style(), **facts)


def write_page(path: str | os.PathLike[str], explanation: Explanation, everything: bool = False) -> None:
    """Write one element's explanation as a self-contained page, whole or not at all.

    everything: all terms and steps, however many. Raises InputError if the file cannot be written.
    """
    document = page(explanation, everything).encode("utf-8", "backslashreplace")
    with whole_file(path) as stream:
        stream.write(document)


def page(explanation: Explanation, everything: bool = False) -> str:
    """The page as HTML text."""
    template, facts = "view_explanation.html", explained(explanation, everything)
    made = _templates().get_template("view_page.html")
    return made.render(part=template, style=_style(), **facts)


@cache
def _templates() -> Environment:
    """Every value is cut, made harmless (`finalize`) and escaped."""
    environment = Environment(
        loader=PackageLoader("refnet.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=cut,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sha256": sha256_source, "name": _name, "cut": _shortened, "lines": _lines}
    for one in (html_text.thousands, html_text.number_of, html_text.figure, html_text.float32):
        environment.filters[one.__name__] = one
    environment.filters["hexadecimal"] = html_text.hexadecimal
    environment.globals |= {"VERDICTS": VERDICTS, "proportions": html_charts.proportions}
    environment.globals |= {"number_line": html_charts.number_line, "bars": html_charts.signed_bars}
    return environment


def _style() -> Markup:
    return Markup(files("refnet.report").joinpath("view.css").read_text(encoding="utf-8"))


def cut(value: object, longest: int = TEXT) -> str:
    """A text, harmless and no longer than so many characters, however many its escapes take. Markup stays.

    >>> cut("layer1.0.conv1"), len(cut("\\u202e" * 1000, 80))
    ('layer1.0.conv1', 80)
    """
    if isinstance(value, Markup):
        return value
    said = clean(harmless(value, longest))
    return said if len(said) <= longest else said[: longest - 3] + "..."


def _shortened(value: object, longest: int) -> Markup:
    """A text that may be longer than others, escaped, so that nobody cuts it again."""
    return escape(cut(value, longest))


def _name(value: object) -> Markup:
    return _shortened(value, NAME)


def _lines(formula: str) -> str:
    """An op's own formula, which is no file's text, line by line."""
    return Markup("\n").join(cut(line) for line in formula.splitlines())


@singledispatch
def _facts(value: object) -> tuple[str, dict[str, Any]]:
    """The template of a value, and what it prints."""
    raise TypeError(f"no view of {type(value).__name__}")


@_facts.register
def _(graph: Graph) -> tuple[str, dict[str, Any]]:
    try:
        shapes = {name: str(list(kind.shape)) for name, kind in graph.types().items()}
    except GraphError:
        shapes = {}
    names, statistics = [node.name for node in graph.nodes], graph.statistics()
    rows = [
        (node.name, repr(node.op), _some(node.data, 4), shapes.get(node.name, "")) for node in graph.nodes
    ]
    few = len(rows) <= FIRST + LAST
    kinds = Counter(type(node.op).__name__ for node in graph.nodes)
    parts = [(title, len(members), shapes.get(names[members[-1]], "")) for title, members in stages(names)]
    return "view_graph.html", {
        "name": graph.name,
        "nodes": len(rows),
        "parameters": sum(graph.weights[name].size for name in graph.weights if name not in statistics),
        "loaded": bool(graph.weights) or not any(node.weights for node in graph.nodes),
        "inputs": _some([f"{cut(name, NAME)}: {kind!r}" for name, kind in graph.inputs.items()], 4),
        "outputs": _some([f"{cut(out, NAME)} = {cut(name, NAME)}" for out, name in graph.outputs.items()], 4),
        "kinds": _some([f"{count} {kind}" for kind, count in kinds.most_common()], 12),
        "parts": parts[:FIRST] if len(parts) > 1 else [],
        "more_parts": max(len(parts) - FIRST, 0),
        "first": rows if few else rows[:FIRST],
        "last": [] if few else rows[-LAST:],
    }


@_facts.register
def _(found: Verification) -> tuple[str, dict[str, Any]]:
    record = found.record()
    order = {"defect": 0, "unjudged": 1, "rounding": 2, "replayed": 3, "equal": 4}
    rows = sorted(
        record["nodes"],
        key=lambda node: (order.get(node["verdict"], 5), -_grave(node)),
    )
    return "view_verification.html", {
        "name": found.graph,
        "reference": one_line(found.reference or {}),
        "result": result(record["summary"]),
        "counts": dict(found.counts),
        "line": found.line,
        "findings": findings(record),
        "suggestion": found.suggestion,
        "notes": list(found.notes)[:FIRST],
        "more_notes": max(len(found.notes) - FIRST, 0),
        "outputs": record["outputs"][:FIRST],
        "rows": [(node, _share(node)) for node in rows[:FIRST]],
        "more": max(len(rows) - FIRST, 0),
    }


def _grave(node: Mapping[str, Any]) -> float:
    share = node.get("share")
    return largest(share) if share and node.get("differ") else 0.0


def _share(node: Mapping[str, Any]) -> str:
    return figure(largest(node["share"])) if node.get("share") and node.get("differ") else ""


@_facts.register
def _(one: Explanation) -> tuple[str, dict[str, Any]]:
    return "view_explanation.html", explained(one)


@_facts.register
def _(maps: FeatureMaps) -> tuple[str, dict[str, Any]]:
    drawn = maps.maps()
    return "view_maps.html", {
        "name": maps.name,
        "shape": list(maps.value.shape),
        "colours": maps.colours,
        "maps": drawn,
        "scale": max(1, 96 // max(drawn[0].width, drawn[0].height)),
        "more": maps.channels - len(drawn),
        "channels": maps.channels,
    }


def explained(one: Explanation, everything: bool = False) -> dict[str, Any]:
    """What the view of one element prints. everything: all terms and steps; otherwise at most 16 of each."""
    terms, steps = one.element.terms, list(one.element.steps)
    gap = 0
    if not everything and len(steps) > 3 * EDGE:
        gap = len(steps) - 3 * EDGE
        steps = [*steps[: 2 * EDGE], *steps[-EDGE:]]
    specified = one.node.op.exactly_specified and not one.hidden
    said = [("golden", "the exact value, rounded once", one.golden)]
    said += [("plain", "refnet's own order", one.plain)]
    if one.found is not None:
        said.append(("captured", "in the capture", one.found))
    results = [
        (name, what, number(value), apart(one.ulps(value)), "" if specified else figure(one.share(value)))
        for name, what, value in said
    ]
    return {
        "name": one.node.name,
        "node": str(one.node),
        "at": list(one.element.at),
        "formula": one.formula,
        "hidden": _some(one.hidden, 8),
        "note": one.note,
        "head": [] if terms is None else [terms.role, terms.factor_role if terms.factors is not None else ""],
        "count": 0 if terms is None else terms.values.size,
        "rows": [] if terms is None else _rows(one, everything),
        "after": [] if terms is None else _after(one),
        "absent": 0 if terms is None else len(terms.absent),
        "products": [] if terms is None else [float(product) for product in terms.products],
        "sums": [float(value) for value in one.chain],
        "steps": [_step(step) for step in steps],
        "gap": (gap, 2 * EDGE),
        "exact": None if one.element.exact is None else text(one.element.exact),
        "results": results,
        "bound": one.bound if np.isfinite(one.bound[1]) else None,
        "specified": specified,
        "worst": _worst(one, specified),
        "worst_outside": one.found is not None and not one.share(one.found) <= 1,
        "kind": type(one.node.op).__name__,
    }


def _rows(one: Explanation, everything: bool) -> list[tuple[int, list[str]]]:
    """(how many terms are left out before it, cells) of each term that is listed."""
    terms = one.element.terms
    assert terms is not None
    rows: list[tuple[int, list[str]]] = []
    before, products = -1, terms.products
    for k in shown_terms(terms, everything):
        cells = [str(k), str(list(map(int, terms.places[k]))), str(terms.values[k])]
        if terms.factors is not None and terms.factor_places is not None:
            cells += [str(list(map(int, terms.factor_places[k]))), str(terms.factors[k])]
            cells.append(repr(float(products[k])))
        rows.append((k - before - 1, [*cells, str(one.chain[k])]))
        before = k
    return rows


def _after(one: Explanation) -> list[tuple[str, str, str]]:
    """What follows the terms: (sign and what, value, plain's result)."""
    terms = one.element.terms
    assert terms is not None
    done, rows = terms.values.size, []
    if terms.bias is not None and done < len(one.chain):
        rows.append((f"+ bias [{terms.bias_place}]", str(terms.bias), str(one.chain[done])))
        done += 1
    if terms.divisor != 1 and done < len(one.chain):
        rows.append(("divided by", str(terms.divisor), str(one.chain[done])))
    return rows


def _step(step: Step) -> tuple[str, str, str, str]:
    plain = "" if step.plain is None else str(step.plain)
    return step.symbol, step.formula, text(step.exact, DIGITS), plain


def _worst(one: Explanation, specified: bool) -> dict[str, Any] | None:
    """What `number_line` draws; None without a captured value or a bound."""
    if one.found is None or specified or not np.isfinite(one.bound[1]):
        return None
    values = {"found": one.found, "plain": one.plain, "golden": one.golden}
    center, radius = one.bound
    return {key: number(value) for key, value in values.items()} | {
        "bound": {"center": center, "radius": radius}
    }


def _some(items: Sequence[str], most: int) -> str:
    """The first ones, each cut, and how many there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(cut(item, NAME) for item in items[:most]) + more
