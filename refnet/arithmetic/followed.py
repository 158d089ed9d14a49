"""A graph's nodes as a book computes them: ops that follow their recipes, joined and captured as plain's are.

    node ── recipe ── what `run` does anyway ──── the node as it is
                └──── anything else ───────────── Followed(op, recipe)

So fused.py joins them into passes over memory (a convolution in any order with the batch norm, addition and
relu after it, by the framework's formulas), and captured_run.py records their kernel calls. No bit changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from refnet.arithmetic.fused import fuse
from refnet.arithmetic.recipes import NodeRecipe, follow, missing, node_recipe
from refnet.core.engine import Engine, Epilogue
from refnet.core.errors import InputError
from refnet.core.graph import Node
from refnet.core.interpreter import Plan, evaluated, schedule
from refnet.core.op import F32, Fusable, Op, Reduction, TensorType
from refnet.core.orders import Book, Choice, Program


@dataclass(frozen=True, repr=False)
class Followed(Fusable):
    """y = op, each element as the recipe says"""

    op: Op
    recipe: NodeRecipe

    def __repr__(self) -> str:
        return f"Followed({self.op!r})"

    def weight_roles(self) -> tuple[str, ...]:
        return self.op.weight_roles()

    @property
    def _formula(self) -> str:
        """The formula, if there is one for all elements; otherwise ""."""
        do = self.recipe.everywhere
        return do.formula if isinstance(do, Choice) and not self.recipe.exceptions else ""

    @property
    def _program(self) -> Program | None:
        """The order of all sums, if there is one."""
        do = self.recipe.everywhere
        return do if isinstance(do, Program) and not self.recipe.exceptions else None

    def capturable(self, *inputs: tuple[int, ...]) -> bool:
        return not self.recipe.exceptions and self.op.capturable_by(self.recipe.everywhere, *inputs)

    def capturable_first(self, *inputs: tuple[int, ...]) -> bool:
        return self.capturable(*inputs)

    @property
    def step(self) -> str:
        op, formula = self.op, self._formula
        return op.step if formula and isinstance(op, Fusable) and op.steps_by(formula) else ""

    @property
    def starts(self) -> bool:
        op = self.op
        sums = self._program is not None and isinstance(op, Reduction) and op.fuses_in_order
        return sums or bool(self.step)

    def add_step(self, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        op = self.op
        if not self.step or not isinstance(op, Fusable):
            return before  # a sum, whose bias is in its program
        return op.add_step_by(self._formula, before, *weights, engine=engine)

    def run(self, *inputs: F32, engine: Engine) -> F32:
        return follow(self.recipe, self.op, inputs, engine)

    def run_first(self, steps: Epilogue, *inputs: F32, engine: Engine) -> F32:
        op, program = self.op, self._program
        if program is None or not isinstance(op, Reduction):
            return engine.apply(inputs[0], steps)
        return op.in_order_first(program, steps, *inputs, engine=engine)


def followed(book: Book, node: Node, types: Mapping[str, TensorType]) -> Node:
    """The node as the book computes it. types: of all values and weights.

    Raises InputError if the book has no recipe for it, or one that does not fit.
    """
    given = tuple(types[name] for name in node.inputs)
    recipe = node_recipe(book, node, given)
    if recipe is None:
        if node.op.needs_recipe:
            raise InputError(missing(book, node, given))
        return node
    do, op = recipe.everywhere, node.op
    if not recipe.exceptions:
        if isinstance(do, Choice) and op.runs_formula(do.formula):
            return node
        if isinstance(do, Program) and isinstance(op, Reduction) and op.runs_order(do, *given):
            return node
    return replace(node, op=Followed(op, recipe))


def followed_plan(book: Book, plan: Plan, types: Mapping[str, TensorType]) -> Plan:
    """The plan with its nodes as the book computes them, some of them fused.

    types: of all values and weights; the plan is good for these only.
    """
    nodes = [evaluated(node, followed, book, node, types) for node, *_ in plan.schedule]
    return replace(plan, schedule=schedule(fuse(nodes, plan.wanted)))
