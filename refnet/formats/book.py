"""Books: the recipes of one framework build, as a JSON file.

    bytes ── json ── _Parser ── Book ── dumps ── write

docs/replay.md specifies the format. Nothing in a file is executed, and what it claims is counted before
memory is taken: every order is a permutation of its terms, nothing is deeper or larger than the caps here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refnet.core.errors import FormatError, InputError, UnsupportedError
from refnet.core.orders import (
    AXES,
    DEEPEST,
    FINISHES,
    FOLDS,
    MOST_TERMS,
    PADDINGS,
    Book,
    Box,
    Chain,
    Choice,
    Evidence,
    Expr,
    Joined,
    Leaf,
    Order,
    Part,
    Program,
    Recipe,
    Reference,
    Region,
    Sum,
    Unconfirmed,
    check,
)
from refnet.formats.arguments import check_arguments
from refnet.formats.json_file import Checked, parse, read_bytes
from refnet.formats.write import whole_file

FORMAT, VERSION = "refnet book", 1
LATER = ("libc", "vendor")
"""Fields of a reference that older books lack."""
LARGEST = 8 << 20
"""Bytes of a book; those of the networks here have less than 300,000."""
MOST_LISTED = 1 << 24
"""Terms that the orders of a whole book may list together: those of the networks here list 100,000."""
LEAVES = {leaf.value: leaf for leaf in Leaf}
CHAINS = {"fma": True, "mul": False}
FARTHEST = 1 << 40
"""No index is larger."""


def dumps(book: Book) -> str:
    """The book's text: JSON, each recipe on a line of its own. Equal books give equal text."""
    evidence = {key: [one.captures, one.elements] for key, one in book.evidence.items()}
    unconfirmed = [vars(one) for one in book.unconfirmed]
    parts = [
        f'"format": {_json(FORMAT)}',
        f'"version": {VERSION}',
        f'"written_by": {_json(book.written_by)}',
        f'"reference": {_json(_said(book.reference))}',
        f'"recipes": {_lines({key: recipe_json(recipe) for key, recipe in book.recipes.items()})}',
        f'"evidence": {_lines(evidence)}',
        '"unconfirmed": [' + "".join(f"\n  {_json(one)}," for one in unconfirmed)[:-1] + "\n ]",
        f'"nodes": {_lines(book.nodes)}',
        *([] if book.joined is None else [f'"joined": {_joined(book.joined)}']),
    ]
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def _said(reference: Reference) -> dict[str, Any]:
    """The reference's fields; of those that books had not always, the ones that are known."""
    return {key: value for key, value in vars(reference).items() if value or key not in LATER}


def _lines(found: Mapping[str, Any]) -> str:
    return "{" + ",".join(f"\n  {_json(key)}: {_json(found[key])}" for key in sorted(found)) + "\n }"


def _joined(by: Joined) -> str:
    groups = ",".join(f"\n   {_json(names)}" for names in by.groups)
    return f'{{\n  "fold": {_json(by.fold)},\n  "groups": [{groups}\n  ]\n }}'


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def recipe_json(recipe: Recipe) -> list[dict[str, Any]]:
    """The recipe as JSON has it: a list of parts, what is not said being the usual.

    >>> recipe_json(Recipe((Part(Program(Sum((Chain(Leaf.ZERO, Order.of(range(64))), Leaf.BIAS)))),)))
    [{'sum': ['add', ['fma', 'zero', [[0, 64, 1]]], 'bias']}]
    """
    return [_part_json(part) for part in recipe.parts]


def _part_json(part: Part) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if isinstance(part.do, Choice):
        made["formula"] = part.do.formula
        if part.do.total is not None:
            made["sum"] = _expr_json(part.do.total)
    else:
        made["sum"] = _expr_json(part.do.expr)
        if part.do.padding != "skip":
            made["padding"] = part.do.padding
        if part.do.finish != "none":
            made["finish"] = part.do.finish
    if part.where is not None:
        made["where"] = [{axis: _range(*range_) for axis, range_ in box.ranges} for box in part.where]
    return made


def _range(start: int, stop: int, step: int) -> list[int]:
    return [start, stop] if step == 1 else [start, stop, step]


def _expr_json(expr: Expr) -> Any:
    if isinstance(expr, Leaf):
        return expr.value
    if isinstance(expr, Sum):
        return ["add", *map(_expr_json, expr.parts)]
    return ["fma" if expr.fused else "mul", _expr_json(expr.seed), [list(p) for p in expr.terms.pieces]]


def write(path: str | os.PathLike[str], book: Book) -> None:
    """Write a book, whole or not at all. Raises InputError if that is not possible."""
    with whole_file(path) as stream:
        stream.write(dumps(book).encode())


def read(path: str | os.PathLike[str]) -> Book:
    """Read a book and check all of it.

    Raises InputError if it cannot be read, FormatError (with what is wrong where) if it is no book,
    UnsupportedError for another version of the format.

    >>> import tempfile
    >>> reference = Reference("torch", "2.13.0", "cpu", "avx2", 1, 1, "eager")
    >>> recipe = Recipe((Part(Program(Chain(Leaf.ZERO, Order.of(range(9))), finish="divide")),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(folder + "/book.json", Book(reference, {"AvgPool(kernel=(3, 3))(...)": recipe}))
    ...     read(folder + "/book.json").recipes["AvgPool(kernel=(3, 3))(...)"] == recipe
    True
    """
    check_arguments(locals())
    return loads(read_bytes(path, LARGEST, "a book"), os.fspath(path))


def loads(raw: bytes, path: str) -> Book:
    """The book in these bytes; path is its name for messages. Errors: as `read`."""
    found = parse(raw, path)
    _refuse_depth(found, path)
    return _Parser(path, [0]).book(found)


def _refuse_depth(found: Any, path: str) -> None:
    """FormatError for lists and objects that lie deeper within one another than a book's; no recursion."""
    level = [found]
    for _ in range(2 * DEEPEST):
        inner = [one for one in level if isinstance(one, list | dict)]
        if not inner:
            return
        level = [x for one in inner for x in (one.values() if isinstance(one, dict) else one)]
    most = f"at most {2 * DEEPEST} lists and objects within one another"
    raise FormatError(path, None, "something deeper", most)


def _size(expr: Expr) -> int:
    """How many chains, sums and leaves an expression has."""
    if isinstance(expr, Chain):
        return 1 + _size(expr.seed)
    return 1 + sum(map(_size, expr.parts)) if isinstance(expr, Sum) else 1


MOST_JOINED = 16
"""Nodes of a group: a convolution, its batch norm, an addition and a relu are four."""
MOST_PARTS, MOST_BOXES = 64, 256
"""Parts of a recipe, boxes of a part: what reveal makes is below, and each costs a look at every element."""


@dataclass(frozen=True)
class _Parser(Checked):
    """From parsed JSON to a Book; every message says where in the file. listed: [terms of all so far]."""

    listed: list[int]

    def book(self, found: Any) -> Book:
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise FormatError(self.path, 0, "something else", f'an object with "format": "{FORMAT}"')
        version = found.get("version")
        if type(version) is not int or version != VERSION:
            raise UnsupportedError(f"{self.path}: only version {VERSION} can be read, found {version!r}")
        sections = {"evidence", "unconfirmed", "nodes", "joined"}
        head = {"format", "version", "reference", "recipes"}
        self.keys(found, "the file", head | sections | {"written_by"}, head)
        recipes = {
            key: self.recipe(one, f"recipes.{key}") for key, one in self.pairs(found["recipes"], "recipes")
        }
        evidence = {
            key: self.evidence(one, f"evidence.{key}")
            for key, one in self.pairs(found.get("evidence", {}), "evidence")
        }
        nodes = {
            key: self.words(one, f"nodes.{key}") for key, one in self.pairs(found.get("nodes", {}), "nodes")
        }
        for where, keys in (("evidence", set(evidence)), ("nodes", set(nodes.values()))):
            if unknown := sorted(keys - set(recipes)):
                raise self.wrong(where, unknown[0], "a key of the recipes")
        unconfirmed = tuple(
            self.unconfirmed(one, f"unconfirmed[{i}]")
            for i, one in enumerate(self.row(found.get("unconfirmed", []), "unconfirmed"))
        )
        written_by = self.words(found.get("written_by", ""), "written_by")
        joined = self.joined(found["joined"]) if "joined" in found else None
        who = self.reference(found["reference"])
        return Book(who, recipes, evidence, unconfirmed, nodes, joined, written_by)

    def joined(self, found: Any) -> Joined:
        self.keys(found, "joined", {"fold", "groups"}, {"fold", "groups"})
        groups = []
        for i, names in enumerate(self.row(found["groups"], "joined.groups")):
            where = f"joined.groups[{i}]"
            group = tuple(self.words(name, where) for name in self.row(names, where))
            if not 2 <= len(group) <= MOST_JOINED:
                raise self.wrong(where, f"{len(group)} names", f"2 to {MOST_JOINED}")
            groups.append(group)
        every = [name for group in groups for name in group]
        if len(set(every)) < len(every):
            raise self.wrong("joined.groups", "a name twice", "each name once")
        fold = self.one_of(found["fold"], "joined.fold", ("", *FOLDS))
        return Joined(tuple(groups), fold)

    def reference(self, found: Any) -> Reference:
        texts = ("framework", "version", "build", "isa", "mode")
        needed = {*texts, "threads", "batch", "flags"}
        self.keys(found, "reference", {*needed, *LATER}, needed)
        said = {key: self.words(found.get(key, ""), f"reference.{key}") for key in (*texts, *LATER)}
        flags = {
            key: self.words(one, f"reference.flags.{key}")
            for key, one in self.pairs(found["flags"], "reference.flags")
        }
        threads, batch = (self.number(found[key], f"reference.{key}", 1) for key in ("threads", "batch"))
        return Reference(
            said["framework"],
            said["version"],
            said["build"],
            said["isa"],
            threads,
            batch,
            said["mode"],
            flags,
            said["libc"],
            said["vendor"],
        )

    def recipe(self, found: Any, where: str) -> Recipe:
        parts = self.row(found, where)
        if not 1 <= len(parts) <= MOST_PARTS:
            raise self.wrong(where, f"{len(parts)} parts", f"1 to {MOST_PARTS}")
        made = [self.part(one, f"{where}[{i}]") for i, one in enumerate(parts)]
        for i, part in enumerate(made):
            if (part.where is None) != (i == len(made) - 1):
                raise self.wrong(
                    f"{where}[{i}].where", parts[i].get("where"), "one in all parts but the last"
                )
        return Recipe(tuple(made))

    def part(self, found: Any, where: str) -> Part:
        self.keys(found, where, {"formula", "sum", "padding", "finish", "where"}, set())
        region = self.region(found["where"], f"{where}.where") if "where" in found else None
        total = None
        if "sum" in found:
            total = self.expr(found["sum"], f"{where}.sum", 1)
            try:
                terms = check(total)
                self.listed[0] += terms
                if (size := _size(total)) > 3 * terms + 3:
                    raise InputError(f"{size} chains, sums and leaves for {terms} terms")
            except InputError as error:
                raise self.wrong(f"{where}.sum", str(error), "each term once") from None
        if "formula" in found:
            self.keys(found, where, {"formula", "sum", "where"}, {"formula"})
            return Part(Choice(self.words(found["formula"], f"{where}.formula"), total), region)
        if total is None:
            raise self.wrong(where, "neither", "a sum or a formula")
        padding = self.one_of(found.get("padding", "skip"), f"{where}.padding", PADDINGS)
        finish = self.one_of(found.get("finish", "none"), f"{where}.finish", FINISHES)
        return Part(Program(total, padding, finish), region)

    def region(self, found: Any, where: str) -> Region:
        boxes = []
        if len(self.row(found, where)) > MOST_BOXES:
            raise self.wrong(where, f"{len(found)} boxes", f"at most {MOST_BOXES}")
        for i, box in enumerate(self.row(found, where)):
            ranges = []
            for axis, one in self.pairs(box, f"{where}[{i}]"):
                self.one_of(axis, f"{where}[{i}]", AXES)
                at = f"{where}[{i}].{axis}"
                numbers = [self.number(n, at) for n in self.row(one, at)]
                if len(numbers) not in (2, 3) or 0 in numbers[2:]:
                    raise self.wrong(at, one, "[start, stop] or [start, stop, step]")
                ranges.append((axis, (numbers[0], numbers[1], (*numbers[2:], 1)[0])))
            boxes.append(Box(tuple(ranges)))
        if not boxes or not all(box.ranges for box in boxes):
            raise self.wrong(where, found, "boxes of at least one range")
        return tuple(boxes)

    def expr(self, found: Any, where: str, depth: int) -> Expr:
        if depth > DEEPEST:
            raise self.wrong(
                where, "more within that", f"at most {DEEPEST} chains and sums within one another"
            )
        if isinstance(found, str):
            return LEAVES[self.one_of(found, where, tuple(LEAVES))]
        parts = self.row(found, where)
        kind = parts[0] if parts else None
        if kind == "add" and len(parts) > 2:
            return Sum(
                tuple(self.expr(one, f"{where}[{i}]", depth + 1) for i, one in enumerate(parts[1:], 1))
            )
        if isinstance(kind, str) and kind in CHAINS and len(parts) == 3:
            seed = self.expr(parts[1], f"{where}[1]", depth + 1)
            return Chain(seed, self.order(parts[2], f"{where}[2]"), CHAINS[kind])
        wanted = (
            '"zero", "first", "bias", "addend", ["fma" or "mul", seed, order] or ["add", part, part, ...]'
        )
        raise self.wrong(where, found, wanted)

    def order(self, found: Any, where: str) -> Order:
        pieces = []
        for i, piece in enumerate(self.row(found, where)):
            numbers = self.row(piece, f"{where}[{i}]")
            sound = all(type(n) is int and abs(n) < FARTHEST for n in numbers) and len(numbers) % 2
            if not sound or len(numbers) > 33 or any(n < 1 for n in numbers[1::2]):
                raise self.wrong(f"{where}[{i}]", piece, "[start, count, step, count, step, ...]")
            pieces.append(tuple(numbers))
        order = Order(tuple(pieces))
        if order.size > MOST_TERMS or self.listed[0] + order.size > MOST_LISTED:
            raise self.wrong(where, "too many terms", f"at most {MOST_TERMS}, and {MOST_LISTED} in all")
        return order

    def evidence(self, found: Any, where: str) -> Evidence:
        numbers = [self.number(n, where) for n in self.row(found, where)]
        if len(numbers) != 2:
            raise self.wrong(where, found, "[captures, elements]")
        return Evidence(*numbers)

    def unconfirmed(self, found: Any, where: str) -> Unconfirmed:
        fields = {"signature", "nodes", "reason"}
        self.keys(found, where, fields, fields)
        nodes = (self.words(one, f"{where}.nodes") for one in self.row(found["nodes"], f"{where}.nodes"))
        return Unconfirmed(
            self.words(found["signature"], f"{where}.signature"),
            tuple(nodes),
            self.words(found["reason"], f"{where}.reason"),
        )

    # What a single thing must be.

    def pairs(self, found: Any, where: str) -> list[tuple[str, Any]]:
        if not isinstance(found, dict):
            raise self.wrong(where, found, "an object")
        return [(self.words(key, where), one) for key, one in found.items()]

    def row(self, found: Any, where: str) -> list[Any]:
        if not isinstance(found, list):
            raise self.wrong(where, found, "a list")
        return found

    def words(self, found: Any, where: str) -> str:
        if (
            not isinstance(found, str)
            or len(found) > 10_000
            or re.search("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]", found)
        ):
            raise self.wrong(where, found, "text without control characters")
        return found

    def number(self, found: Any, where: str, least: int = 0) -> int:
        if type(found) is not int or not least <= found < FARTHEST:
            raise self.wrong(where, found, f"a whole number from {least} on")
        return found

    def one_of(self, found: Any, where: str, known: tuple[str, ...]) -> str:
        if not isinstance(found, str) or found not in known:
            raise self.wrong(where, found, f"one of {', '.join(known)}")
        return found
