"""What `refnet explain` prints: one element as arithmetic, for somebody who wants to follow it by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refnet.core.element import Step, Terms
from refnet.core.graph import Graph, Node
from refnet.core.words import counted
from refnet.report.terminal import clean, show, table
from refnet.verification.difference import apart
from refnet.verification.explain import Explanation, text
from refnet.verification.record import number

EDGE = 6
"""Terms shown at each end of a long sum."""
LARGE = 4
"""Further terms shown because they are the largest."""
DIGITS = 20


def show_explanation(one: Explanation, everything: bool = False) -> None:
    """Print it. everything: all terms, however many."""
    show(clean(f"element {list(one.element.at)} of {one.node}"), "")
    show(*(clean(line) for line in one.formula.splitlines()), "")
    if one.hidden:
        show(clean(f"not in the capture, replaced by refnet's own values: {', '.join(one.hidden)}"), "")
    if one.note is not None:
        show(clean(f"the capture: {one.note}"), "")
    terms = one.element.terms
    if terms is not None:
        _show_terms(one, terms, everything)
    if one.element.steps:
        _show_steps(one.element.steps, everything)
    elif terms is None:
        show("no terms are listed: an input is NaN, infinite or huge, or the op has no list of terms", "")
    _show_results(one)


def show_module(graph: Graph, module: str, nodes: Sequence[Node]) -> None:
    """Print the values of a module: op, what each reads, shape."""
    types = graph.types()
    rows = [(node.name, repr(node.op), ", ".join(node.data), list(types[node.name].shape)) for node in nodes]
    show(clean(f"{module} of {graph.name}: {counted(len(rows), 'value')}"), "")
    columns = ("value", "op", "reads", "shape")
    show(table(columns, rows, drop=("reads", "op"), fold=("op", "reads")), "")
    show(clean(f"one element of one of them: refnet explain ... {nodes[0].name} --at N,C,Y,X"))


def shown_terms(terms: Terms, everything: bool) -> list[int]:
    """The terms to list: all of them, or the first, the last and the largest."""
    count = terms.values.size
    if everything or count <= 2 * EDGE + LARGE:
        return list(range(count))
    with np.errstate(all="ignore"):
        largest = np.argsort(-np.abs(np.nan_to_num(terms.products)), kind="stable")[:LARGE]
    return sorted({*range(EDGE), *range(count - EDGE, count), *map(int, largest)})


def _show_terms(one: Explanation, terms: Terms, everything: bool) -> None:
    listed = shown_terms(terms, everything)
    product = terms.factors is not None
    head = [">term", terms.role, ">value"]
    head += [terms.factor_role, ">value", ">exact product"] if product else []
    head += [">plain so far"]
    rows: list[Sequence[object]] = []
    before = -1
    products = terms.products
    for k in listed:
        if k > before + 1:
            rows.append(("...", f"{k - before - 1} more", *[""] * (len(head) - 2)))
        row: list[object] = [k, list(map(int, terms.places[k])), terms.values[k]]
        if terms.factors is not None and terms.factor_places is not None:
            row += [list(map(int, terms.factor_places[k])), terms.factors[k], repr(float(products[k]))]
        rows.append((*row, one.chain[k]))
        before = k
    blank = [""] * (len(head) - 4)
    done = terms.values.size
    if terms.bias is not None:
        rows.append(("+", f"bias [{terms.bias_place}]", terms.bias, *blank, one.chain[done]))
        done += 1
    if terms.divisor != 1 and done < len(one.chain):
        rows.append(("/", "divided by", terms.divisor, *blank, one.chain[done]))
    drop = (terms.factor_role, "exact product", terms.role) if product else (terms.role,)
    show(table(head, rows, drop=drop), "")
    if terms.absent:
        places = ", ".join(str(list(place)) for place in terms.absent[:8])
        more = ", ..." if len(terms.absent) > 8 else ""
        show(f"in the padding, so no terms (row, column): {places}{more}", "")


def _show_steps(steps: Sequence[Step], everything: bool) -> None:
    listed = list(steps)
    if not everything and len(listed) > 3 * EDGE:
        listed = [
            *steps[: 2 * EDGE],
            Step("...", f"{len(steps) - 3 * EDGE} lines", steps[0].exact),
            *steps[-EDGE:],
        ]
    rows = []
    for step in listed:
        if step.symbol == "...":
            rows.append((step.symbol, step.formula, "", ""))
        else:
            plain = "" if step.plain is None else str(step.plain)
            rows.append((step.symbol, step.formula, text(step.exact, DIGITS), plain))
    show(table(("step", "what", ">exact", ">plain"), rows, drop=("plain",), fold=("what",)), "")


def _show_results(one: Explanation) -> None:
    if one.element.exact is not None:
        show(f"exact, to 40 digits: {text(one.element.exact)}", "")
    center, radius = one.bound
    rows = []
    said = [
        ("golden", "the exact value, rounded once", one.golden),
        ("plain", "refnet's own order", one.plain),
    ]
    if one.found is not None:
        said.append(("captured", "in the capture", one.found))
    for name, what, value in said:
        bits = number(value)
        ulps, share = apart(one.ulps(value)), one.share(value)
        used = "" if one.node.op.exactly_specified and not one.hidden else f"{share:.3g}"
        rows.append((name, bits["hex"], bits["value"], ulps, used, what))
    columns = ("", "<bits", ">value", ">from golden", ">share of the bound", "what it is")
    show(table(columns, rows, drop=("what it is", "share of the bound"), fold=("what it is",)), "")
    if one.node.op.exactly_specified and not one.hidden:
        show(f"{type(one.node.op).__name__} has only one right result: the bits must be golden's")
    elif np.isfinite(radius):
        show(f"the result of any float32 order lies in {center!r} +- {radius:.3g}")
    else:
        show("no finite bound exists here: some order overflows, or an input is NaN or infinite")
