"""A whole network in a framework -> a book: every op asked, every recipe confirmed on two captures.

    reveal ── ask_all     each distinct op, by sums.py and formulas.py            signature -> recipes
      ├────── confirm     values straight from the framework, one at a time       which recipes gave each node
      └────── bind        the recipe that serves most nodes of a signature, exceptions by node -> Book

A recipe is kept for a node only if it gave the framework's bits for all elements of both captures, computed
from the framework's own inputs to that node; of several, one that does so with infinities and NaN too. Where
an op asked alone is not executed as it is in the network (MXNet hands memory layouts on), the capture decides
among the formulas of the op's menu.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from refnet.arithmetic.engines import thread_count
from refnet.arithmetic.fusion_groups import biased_sums, foldable, fused_graph, hidden
from refnet.arithmetic.replay import Replay
from refnet.core.bits import equal_bits
from refnet.core.errors import InputError, UnsupportedError
from refnet.core.graph import Graph, Node
from refnet.core.op import F32, Op, Reduction, TensorType
from refnet.core.orders import (
    FINISHES,
    FOLDS,
    Book,
    Choice,
    Evidence,
    Joined,
    Part,
    Program,
    Recipe,
    Reference,
    Unconfirmed,
    signature,
)
from refnet.formats import book as book_file
from refnet.formats.onnx.export import OPSET
from refnet.frameworks.caller import Caller, caller, layouts
from refnet.frameworks.capture.request import Request, network
from refnet.frameworks.capture.sources import exported_module, inputs_of_module, planned, worker_of
from refnet.frameworks.capture.torch_module import ExportedModule
from refnet.frameworks.capture.writer import CapturePlan
from refnet.frameworks.process import Serves
from refnet.frameworks.reveal.formulas import candidates, reveal_formula
from refnet.frameworks.reveal.products import asked_sum, other_forms
from refnet.frameworks.reveal.sums import reveal_sum
from refnet.frameworks.reveal.tree import Unexplained
from refnet.frameworks.reveal.values import framework_values
from refnet.kernels.engine import Fast
from refnet.models.synthetic import normal
from refnet.verification.progress import Advance

SEEDS = ("seed:1", "seed:2")
"""The inputs of the two captures."""
BEHIND = "behind"
"""What marks the recipe of an op that was asked behind a convolution, in a partial book."""


@dataclass
class Asked:
    """One signature: its op, the nodes that have it, what was found when it was asked alone.

    layouts: the ways in which it is asked, see caller.py. forms: other ops that are asked in its place, see
    products.py. recipes: of each way that can be explained, one.
    """

    op: Op
    types: tuple[TensorType, ...]
    nodes: list[str] = field(default_factory=list)
    layouts: tuple[bool, ...] = (False,)
    forms: tuple[Reduction, ...] = ()
    recipes: list[Recipe] = field(default_factory=list)
    reason: str = ""

    @property
    def open(self) -> bool:
        """Whether a recipe is needed."""
        return self.op.needs_recipe


@dataclass
class NodeState:
    """A node during confirmation: the recipes that gave its bits so far (indices), in how many captures.

    A node with one right result has [0] while it has it. special: whether they give its bits with infinities
    and NaN among its inputs too; None if that was not tried. reason: why none is left, if it is not its own.
    """

    alive: list[int]
    captures: int = 0
    elements: int = 0
    special: bool | None = None
    reason: str = ""


@dataclass(frozen=True)
class Revealed:
    """The book, and how many nodes it replays. settled: nodes with one right result, which had it.

    usual: nodes whose bits were the framework's in both captures, but not with infinities and NaN.

    >>> Revealed(Book(Reference("torch", "2.13.0", "", "AVX2", 1, 1, "eager"), {}), 0, 0, 0).usual
    ()
    """

    book: Book
    nodes: int
    replayed: int
    settled: int
    usual: tuple[str, ...] = ()


def signatures(graph: Graph, batch: int) -> dict[str, Asked]:
    """The distinct ops of the graph, in order of execution."""
    types = graph.types({k: replace(v, shape=(batch, *v.shape[1:])) for k, v in graph.inputs.items()})
    found: dict[str, Asked] = {}
    for node in graph.nodes:
        kinds = tuple(types[name] for name in node.inputs)
        found.setdefault(signature(node.op, kinds), Asked(node.op, kinds)).nodes.append(node.name)
    return found


def steps_of(request: Request) -> int:
    """How often `reveal` will call `advance`. Raises as `refnet.load`."""
    from refnet.models.loading import structure

    model = request.network if request.is_callable else request.model
    if model is None:
        return 0
    graph = structure(model, network=request.network, image=request.image)
    return len(signatures(graph, request.batch or 1)) + len(SEEDS) + 1


def reveal(
    request: Request, output: Path, advance: Advance | None = None, threads: int | None = None
) -> Revealed:
    """Ask a framework for the recipes of a network and write the book.

    request: as for a capture: who, which network, threads, batch, mode; its input is not used.
    output: the book's file. Beside it OUTPUT.partial holds what was asked so far: the same command goes on
    there after an interruption. advance: called after each op asked and each capture.
    threads: how many refnet itself takes (default: all processors); changes no bit.

    Raises InputError for what cannot be asked, FrameworkError if the framework fails, and as `refnet.load`.
    """
    own = thread_count(threads)
    with ExitStack() as stack:
        module = _module(request, stack)
        graph = network(request)[0] if module is None else module.graph
        if graph is None or request.executed in ("outputs", "compiled"):
            raise InputError("reveal needs a network that refnet knows, and a mode that shows every value")
        if module is None and request.input:
            raise InputError(f"--input {request.input[0]}: reveal makes its own inputs")
        batch = request.batch or 1 if module is None else module.who.batch
        request = replace(request, batch=batch)
        worker = stack.enter_context(worker_of(request)) if module is None else module.worker
        plans = _plans(request, module)
        unshown = frozenset() if module is None else module.unshown
        opset = _opset(request, worker)
        callers: dict[tuple[str, bool, Op | None], Caller] = {}

        def call(key: str, behind: bool = False, form: Op | None = None) -> Caller:
            way = key, behind, form
            if way not in callers:
                op, types, threads = form or asked[key].op, asked[key].types, request.threads
                callers[way] = (
                    caller(request.framework, worker, op, types, threads, opset, request.precision, behind)
                    if module is None
                    else module.caller(op, types, asked[key].nodes)
                )
            return callers[way]

        with plans(SEEDS[0]) as plan:
            reference = _reference(plan, opset)
            groups: Sequence[tuple[str, ...]] = () if plan.joined is None else plan.joined()
            groups = (*groups, *biased_sums(graph, unshown))
        forms = [Joined(groups, fold) for fold in _folds(graph, groups)] if groups else [None]
        asked = signatures(_fused(graph, forms[0]), batch)
        for one in asked.values():
            one.layouts = layouts(request.framework, one.op, one.types)
            one.forms = () if module is not None else other_forms(request.framework, one.op)
        if advance is not None and groups:  # fewer nodes, mostly fewer signatures
            advance(max(0, len(signatures(graph, batch)) - len(asked)))
        partial = output.with_name(output.name + ".partial")
        ask_all(asked, call, reference, partial, own, advance)
        tried: list[tuple[dict[str, NodeState], Joined | None]] = []
        for by in forms:
            again = None if tried else advance
            tried.append((confirm(_fused(graph, by), asked, plans, call, own, again, by, unshown), by))
            if all(state.alive for state in tried[-1][0].values()):
                break
        nodes, by = max(tried, key=lambda one: sum(bool(state.alive) for state in one[0].values()))
    book, replayed, settled = bind(asked, nodes, reference, by)
    book_file.write(output, book)
    partial.unlink(missing_ok=True)
    usual = tuple(name for name, state in nodes.items() if state.alive and state.special is False)
    return Revealed(book, len(nodes), replayed, settled, usual)


Plans = Callable[[str], AbstractContextManager[CapturePlan]]


def _module(request: Request, stack: ExitStack) -> ExportedModule | None:
    """A torch callable whose graph is its own: exported, in a process that answers for it."""
    own = request.is_callable and request.network is None
    return stack.enter_context(exported_module(request)) if own else None


def _plans(request: Request, module: ExportedModule | None) -> Plans:
    """What a capture of each input is; of a module all are runs in one process."""
    if module is None:
        return lambda source: planned(replace(request, input=(source,)))

    def of_module(source: str) -> AbstractContextManager[CapturePlan]:
        return nullcontext(module.read_back(module.plan(inputs_of_module(request, module, source))))

    return of_module


def _fused(graph: Graph, by: Joined | None) -> Graph:
    return graph if by is None else fused_graph(graph, by, Fast())


def _folds(graph: Graph, groups: Sequence[Sequence[str]]) -> list[str]:
    """How batch norms may have been folded; nothing to ask where none was."""
    return list(FOLDS) if foldable(graph, groups) else [""]


def _opset(request: Request, worker: Serves) -> int | None:
    """The opset at which ONNX Runtime is asked: the .onnx file's own, else that of refnet's exporter."""
    if request.framework != "onnxruntime":
        return None
    if not request.file.endswith(".onnx"):
        return OPSET
    return int(worker.ask("signature", {"path": str(Path(request.file).resolve())}).fields["opset"])


def _reference(plan: CapturePlan, opset: int | None) -> Reference:
    """Who is asked, as a book says it: one line each."""
    who = plan.reference

    def line(text: str) -> str:
        return " ".join(text.split())[:2000]

    flags = {name: line(value) for name, value in who.flags.items()}
    if opset is not None:
        flags["opset"] = str(opset)
    return Reference(
        who.framework,
        line(who.version),
        line(who.build),
        line(who.isa),
        who.threads,
        who.batch,
        line(who.mode),
        flags,
        line(who.libc),
        line(who.vendor),
    )


# Asking.


def ask_all(
    asked: Mapping[str, Asked],
    call: Callable[[str, bool, Op | None], Caller],
    reference: Reference,
    partial: Path,
    threads: int,
    advance: Advance | None = None,
) -> None:
    """Fill in `recipes` or `reason` of each signature that needs it; go on where `partial` ends."""
    before = _partial(partial, reference)
    known = {} if before is None else dict(before.recipes)
    failed = {} if before is None else {one.signature: one.reason for one in before.unconfirmed}
    for key, one in asked.items():
        ways: dict[str, tuple[bool, Reduction | None]] = {
            f"{key} #{BEHIND}" if behind else key: (behind, None) for behind in one.layouts
        }
        ways |= {f"{key} #{type(form).__name__}": (False, form) for form in one.forms}
        for way, (behind, form) in ways.items() if one.open else ():
            if way in known or way in failed:
                continue
            try:
                known[way] = _ask(form or one.op, one.types, call(key, behind, form), threads)
            except (Unexplained, UnsupportedError) as error:
                failed[way] = str(error)
            unknown = tuple(Unconfirmed(k, (), reason) for k, reason in failed.items())
            book_file.write(partial, Book(reference, known, {}, unknown))
        one.recipes = list(dict.fromkeys(known[way] for way in ways if way in known))
        one.reason = "; ".join(dict.fromkeys(failed[way] for way in ways if way in failed))
        if advance is not None:
            advance(1)


def _partial(path: Path, reference: Reference) -> Book | None:
    """What an interrupted run left. Raises InputError if it is of another reference."""
    if not path.exists():
        return None
    found = book_file.read(path)
    if found.reference != reference:
        raise InputError(
            f"{path} is what is left of revealing something else; remove it, or name another book"
        )
    return found


def _ask(op: Op, types: Sequence[TensorType], call: Caller, threads: int) -> Recipe:
    if isinstance(op, Reduction):
        return reveal_sum(asked_sum(op, types, call), threads)
    return reveal_formula(op, types, call, threads)


# Confirming.


def confirm(
    graph: Graph,
    asked: Mapping[str, Asked],
    plans: Plans,
    call: Callable[[str], Caller],
    threads: int,
    advance: Advance | None = None,
    by: Joined | None = None,
    unshown: Collection[str] = (),
) -> dict[str, NodeState]:
    """Which of the recipes of its signature gave each node's bits in all captures.

    graph: as it is executed. plans: an input -> the framework's run of it. by: what the executor joined.
    unshown: nodes that are parts of one node of the framework's.
    """
    for one in asked.values():
        _widen(one)
    keys = {name: key for key, one in asked.items() for name in one.nodes}
    nodes = {
        name: NodeState(list(range(len(asked[key].recipes))) if asked[key].open else [0])
        for name, key in keys.items()
    }
    replays: dict[tuple[str, int], Replay] = {}
    inner = frozenset(unshown) | (frozenset() if by is None else hidden(by))

    def walk(
        inputs: Mapping[str, F32], values: Iterator[tuple[str, F32]], plan: CapturePlan
    ) -> Iterator[tuple[NodeState, list[int]]]:
        for node, arguments, value in framework_values(
            graph, inputs, values, keys, call, inner, lambda: _absent(graph, plan)
        ):
            one, state = asked[keys[node.name]], nodes[node.name]
            if one.open:
                yield state, _alive(state, node, keys[node.name], one, arguments, value, replays, threads)
            else:
                same = equal_bits(node.op.run(*arguments, engine=Fast(threads)), value).all()
                yield state, state.alive if same else []
            state.elements += value.size

    for source in SEEDS:
        with plans(source) as plan:
            for state, alive in walk(plan.inputs, plan.values(), plan):
                state.captures += 1
                state.alive = alive
            if advance is not None:
                advance(1)
            if source == SEEDS[-1] and plan.again is not None:
                odd = {name: special(name, array.shape) for name, array in plan.inputs.items()}
                for state, alive in walk(odd, plan.again(odd), plan):
                    state.special = bool(alive)
                    state.alive = alive or state.alive
                if advance is not None:
                    advance(1)
    for node in reversed(graph.nodes) if unshown else ():
        if node.name in unshown:
            _doubt_unshown(nodes, node, graph)
    for names in () if by is None else by.groups:
        last = nodes[names[-1]]
        if not last.alive or last.captures < len(SEEDS):
            _doubt(nodes, names)
    return nodes


def _doubt(nodes: Mapping[str, NodeState], names: Sequence[str]) -> None:
    """The last of joined nodes has not these bits: nothing speaks for what was found for the others alone."""
    for name in names[:-1]:
        if name in nodes:
            nodes[name].alive = []
            nodes[name].reason = f"it is joined with {names[-1]}, which is not confirmed"


def _doubt_unshown(nodes: Mapping[str, NodeState], node: Node, graph: Graph) -> None:
    """What reads a part of a node of the framework's has not these bits: so nothing speaks for the part."""
    readers = {one.name: nodes[one.name] for one in graph.nodes if node.name in one.data}
    wrong = [name for name, one in readers.items() if not one.alive or one.captures < len(SEEDS)]
    if wrong:
        nodes[node.name].alive = []
        nodes[node.name].reason = f"it is a part of what makes {wrong[0]}, which is not confirmed"


def _absent(graph: Graph, plan: CapturePlan) -> set[str]:
    """The graph's outputs that the framework's network does not return; known once it has run."""
    return set(graph.outputs.values()) - set(plan.returned().values())


def special(name: str, shape: tuple[int, ...]) -> F32:
    """Numbers with some infinities, NaN, zeros, subnormal and huge ones among them.

    >>> int(np.isnan(special("data", (1, 3, 64, 64))).sum())
    3
    """
    x = normal(3, name, shape)
    values = (np.inf, -0.0, np.nan, -np.inf, 0.0, 1e-40, 3e38, -1e-40)
    flat = x.reshape(-1)[::499]
    flat[:] = np.resize(np.array(values, np.float32), flat.size)
    return x


def _widen(one: Asked) -> None:
    """After what was found for the op alone come the other formulas of its menu: the network may differ.

    So may the division of a pool's sum: a framework can have several ops that are one of refnet's. And one
    part of a sum's recipe may hold everywhere: in another memory layout borders may be no special case.
    """
    first = one.recipes[0].parts[-1].do if one.recipes else None
    total = first.total if isinstance(first, Choice) else None
    more = [Recipe((Part(choice),)) for choice in candidates(one.op, total)]
    for parts in [recipe.parts for recipe in one.recipes if isinstance(recipe.parts[-1].do, Program)]:
        if isinstance(one.op, Reduction) and one.op.averages:
            more += [Recipe(tuple(_finishing(part, finish) for part in parts)) for finish in FINISHES[1:]]
        more += [Recipe((Part(part.do),)) for part in reversed(parts)]
    one.recipes += [recipe for recipe in more if recipe not in one.recipes]


def _finishing(part: Part, finish: str) -> Part:
    return replace(part, do=replace(part.do, finish=finish)) if isinstance(part.do, Program) else part


def _alive(
    state: NodeState,
    node: Node,
    key: str,
    one: Asked,
    arguments: Sequence[F32],
    value: F32,
    replays: dict[tuple[str, int], Replay],
    threads: int,
) -> list[int]:
    """The recipes that are alive and give this value too."""
    alive = []
    for k in state.alive:
        if (key, k) not in replays:
            empty = Reference("", "", "", "", 1, 1, "")
            replays[key, k] = Replay(Book(empty, {key: one.recipes[k]}), threads)
        found = replays[key, k].evaluate(Node(key, node.op, ()), *arguments)
        if equal_bits(found, value).all():
            alive.append(k)
    return alive


# The book.


def bind(
    asked: Mapping[str, Asked], nodes: Mapping[str, NodeState], reference: Reference, by: Joined | None = None
) -> tuple[Book, int, int]:
    """The book; how many nodes have a recipe, and how many need none and are right."""
    recipes: dict[str, Recipe] = {}
    evidence: dict[str, Evidence] = {}
    special: dict[str, str] = {}
    unknown: list[Unconfirmed] = []
    replayed = settled = 0
    for key, one in asked.items():
        seen = {name: nodes[name] for name in one.nodes if nodes[name].captures == len(SEEDS)}
        if missing := tuple(name for name in one.nodes if name not in seen):
            unknown.append(Unconfirmed(key, missing, "the framework did not show the value or its inputs"))
        if not one.open:
            wrong = tuple(name for name, state in seen.items() if not state.alive)
            if wrong:
                reason = seen[wrong[0]].reason or "not the one right result"
                unknown.append(Unconfirmed(key, wrong, reason))
            settled += len(seen) - len(wrong)
            continue
        left = {name: state for name, state in seen.items() if state.alive}
        lost = tuple(name for name in seen if name not in left)
        if lost:
            by_reason: dict[str, list[str]] = {}
            for name in lost:
                by_reason.setdefault(seen[name].reason or one.reason or _tried(one), []).append(name)
            unknown += [Unconfirmed(key, tuple(names), reason) for reason, names in by_reason.items()]
        shared = not lost and not missing
        while left:
            votes = Counter(k for state in left.values() for k in state.alive)
            best = min(votes, key=lambda k: (-votes[k], k))
            held = [name for name, state in left.items() if best in state.alive]
            name = key if shared else f"{key} #{_word(one.recipes[best], best)}"
            recipes[name] = one.recipes[best]
            evidence[name] = Evidence(len(SEEDS), sum(left[n].elements for n in held))
            if not shared:
                special |= dict.fromkeys(held, name)
            replayed += len(held)
            left = {n: state for n, state in left.items() if n not in held}
            shared = False
    return Book(reference, recipes, evidence, tuple(unknown), special, by), replayed, settled


def _word(recipe: Recipe, index: int) -> str:
    do = recipe.parts[-1].do
    if isinstance(do, Choice):
        return do.formula
    return str(index) if do.finish == "none" else do.finish


def _tried(one: Asked) -> str:
    words = [_word(recipe, k) for k, recipe in enumerate(one.recipes)]
    return f"not these bits in the network: {', '.join(words)}" if words else "nothing to try"
