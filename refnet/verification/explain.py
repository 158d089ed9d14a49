"""One output element of a node, explained: its terms, its exact sum, the plain chain, the framework's bits.

explain_element ── element (trace.py): the terms, or the named steps, exactly
       ├────────── chain: plain, one addition after another
       └────────── compute.bound: where any float32 evaluation lies

The public function is `refnet.explain` (public.py), which finds graph and inputs by their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refnet.core.element import Index, Terms
from refnet.core.errors import InputError
from refnet.core.graph import Graph, Node
from refnet.core.notebook import shown
from refnet.core.op import F32, Interval
from refnet.verification import compute
from refnet.verification.difference import shares, ulps
from refnet.verification.propagate import AbstractValue, known
from refnet.verification.record import finite, number
from refnet.verification.trace import Element, element


@dataclass(frozen=True)
class Explanation:
    """One element as arithmetic. found: the framework's value; None if only refnet's own are known.

    chain: plain's running result after each term, the bias, the division. bound: (center, radius) of any
    float32 evaluation; a radius of inf says that nothing is promised. hidden: inputs that the capture lacks,
    in whose place refnet's own values stand. note: if the framework's array has other axes or another name.

    >>> import refnet
    >>> one = refnet.explain("resnest-digits", "fc", (0, 5), inputs="seed:0")
    >>> one.node.name, one.ulps(one.plain) < 10, one.share(one.plain) < 1
    ('fc', True, True)
    """

    node: Node
    shape: tuple[int, ...]
    formula: str
    element: Element
    chain: tuple[np.float32, ...]
    plain: np.float32
    found: np.float32 | None
    bound: tuple[float, float]
    hidden: tuple[str, ...] = ()
    note: str | None = None

    _repr_html_ = shown

    @property
    def golden(self) -> np.float32:
        """The correctly rounded value."""
        return self.element.golden

    def ulps(self, value: np.float32) -> int:
        """How many float32 lie between a value and the golden one; -1 if one is NaN."""
        return int(ulps(np.array([value]), np.array([self.golden]))[0])

    def share(self, value: np.float32) -> float:
        """How much of the bound a value uses; NaN where nothing is promised."""
        center, radius = (np.array([one]) for one in self.bound)
        return float(shares(np.array([value]), Interval(center, radius))[0])

    def record(self) -> dict[str, Any]:
        """For JSON: everything, every term of it."""
        return _record(self)


def explain_element(
    node: Node,
    inputs: Sequence[F32 | AbstractValue],
    at: Index,
    found: F32 | None = None,
    threads: int | None = None,
    note: str | None = None,
) -> Explanation:
    """Explain the element `at` of a node's value.

    inputs: what went into the node, data first, then weights. found: the framework's value of the node. note:
    what is said of that. Raises InputError if there is no such element, or found is not of the node's shape.

    >>> from refnet.ops import Dense
    >>> x, w = np.float32([[2.0**24, 1, 1]]), np.float32([[1, 1, 1]])
    >>> one = explain_element(Node("y", Dense(1, bias=False), ("x", "w")), [x, w], (0, 0))
    >>> [float(acc) for acc in one.chain], float(one.golden)
    ([16777216.0, 16777216.0, 16777216.0], 16777218.0)
    """
    operands = [one if isinstance(one, AbstractValue) else known(one) for one in inputs]
    arrays = [one.value for one in operands]
    made = element(node, arrays, at)
    plain = compute.plain(node.op, arrays, threads)
    bound = compute.bound(node.op, [one.bound for one in operands], threads)
    theirs = None
    if found is not None:
        if found.shape != plain.shape or found.dtype != np.float32:
            raise InputError(f"{node.name} is {found.dtype}{list(found.shape)}, not {list(plain.shape)}")
        theirs = found[at]
    hidden = tuple(n for n, one in zip(node.inputs, operands, strict=True) if one.interval is not None)
    return Explanation(
        node,
        plain.shape,
        formula(node),
        made,
        () if made.terms is None else chain(made.terms),
        plain[at],
        theirs,
        (float(bound.center[at]), float(bound.radius[at])),
        hidden,
        note,
    )


def own_inputs(graph: Graph, inputs: dict[str, F32], node: Node, threads: int | None = None) -> list[F32]:
    """What goes into a node in refnet's own plain run, weights last."""
    from refnet.arithmetic.plain import Plain
    from refnet.core.interpreter import run

    made = [name for name in dict.fromkeys(node.data) if name not in graph.inputs]
    values = run(graph, inputs, Plain(threads), made) if made else {}
    if not made:
        graph.check_inputs(inputs)
    table = {**inputs, **values}
    return [*(table[name] for name in node.data), *(graph.weights[name] for name in node.weights)]


def formula(node: Node) -> str:
    """The first paragraph of the op's docstring: what it computes."""
    text = (type(node.op).__doc__ or "").split("\n\n")[0]
    return "\n".join(line.strip() for line in text.splitlines())


def chain(terms: Terms) -> tuple[np.float32, ...]:
    """Plain's running result: after each term, then with the bias, then divided.

    >>> x = np.float32([1, 2.0**-24, 2.0**-24])
    >>> [float(acc) for acc in chain(Terms("add", "data", x, np.zeros((3, 1), np.int64)))]
    [1.0, 1.0, 1.0]
    """
    found: list[np.float32] = []
    acc = np.float32(0)
    with np.errstate(all="ignore"):
        factors = np.ones_like(terms.values) if terms.factors is None else terms.factors
        for value, factor in zip(terms.values, factors, strict=True):
            if terms.how == "fma":
                acc = fma(factor, value, acc)
            elif terms.how == "multiply":
                acc = value * factor
            elif terms.how == "max":
                acc = value if not found or value > acc or np.isnan(value) else acc
            else:
                acc = acc + value if found else value
            found.append(acc)
        if terms.bias is not None:
            found.append(found[-1] + terms.bias if found else terms.bias)
        if terms.divisor != 1 and found:
            found.append(found[-1] / np.float32(terms.divisor))
    return tuple(found)


def fma(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """a * b + c, rounded once: the float64 sum, made odd where it is not exact, then rounded to float32.

    >>> fma(np.float32(1 + 2**-12), np.float32(1 + 2**-12), np.float32(-1 - 2**-11)) == 2.0**-24
    np.True_
    """
    product, c64 = float(a) * float(b), float(c)
    total = product + c64
    if not np.isfinite(total):
        return np.float32(total)
    back = total - product
    error = (product - (total - back)) + (c64 - back)
    if error and not int(np.float64(total).view(np.uint64)) & 1:
        total = float(np.nextafter(total, np.copysign(np.inf, error)))
    return np.float32(total)


def _record(one: Explanation) -> dict[str, Any]:
    made, terms = one.element, one.element.terms
    rows: list[dict[str, Any]] = []
    if terms is not None:
        products = terms.products
        for k in range(terms.values.size):
            row = {"at": list(map(int, terms.places[k])), terms.role: number(terms.values[k])}
            if terms.factors is not None and terms.factor_places is not None:
                row[f"{terms.factor_role} at"] = list(map(int, terms.factor_places[k]))
                row[terms.factor_role] = number(terms.factors[k])
            rows.append({**row, "product": finite(float(products[k])), "plain": number(one.chain[k])})
    values = {"golden": one.golden, "plain": one.plain}
    if one.found is not None:
        values["found"] = one.found
    return {
        "node": one.node.name,
        "op": repr(one.node.op),
        "formula": one.formula,
        "at": list(made.at),
        "shape": list(one.shape),
        "terms": rows,
        "absent": [list(place) for place in terms.absent] if terms else [],
        "bias": number(terms.bias) if terms and terms.bias is not None else None,
        "divisor": terms.divisor if terms else 1,
        "steps": [
            {
                "symbol": step.symbol,
                "formula": step.formula,
                "exact": text(step.exact),
                "plain": None if step.plain is None else number(step.plain),
            }
            for step in made.steps
        ],
        "exact": None if made.exact is None else text(made.exact),
        **{name: {**number(value), "ulps": one.ulps(value)} for name, value in values.items()},
        "share": {name: finite(one.share(value)) for name, value in values.items()},
        "bound": {"center": finite(one.bound[0]), "radius": finite(one.bound[1])},
        "hidden": list(one.hidden),
        "note": one.note,
    }


def text(exact: Any, digits: int = 40) -> str:
    """A rational or decimal number in so many digits.

    >>> from fractions import Fraction
    >>> text(Fraction(1, 3), 5), text(Fraction(5, 4))
    ('0.33333', '1.25')
    """
    from decimal import Decimal, localcontext
    from fractions import Fraction

    with localcontext() as context:
        context.prec = digits
        if isinstance(exact, Fraction):
            exact = Decimal(exact.numerator) / Decimal(exact.denominator)
        return format((+exact).normalize() if exact else Decimal(0), "g")
