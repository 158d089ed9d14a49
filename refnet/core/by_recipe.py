"""What an op says of its recipes, so that their nodes are joined and recorded as plain's are.

It decides how fast a value is there, not what it is: arithmetic/followed.py asks, and without an answer an op
is evaluated alone by `replay` or `in_order`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refnet.core.engine import Engine, Epilogue
    from refnet.core.op import F32, TensorType
    from refnet.core.orders import Choice, Program

RELU_KEEPS, RELU_DROPS, CLIP_KEEPS, CLIP_DROPS = "relu_keeps", "relu_drops", "clip_keeps", "clip_drops"
"""Steps of an Epilogue: RELU and CLIP by frameworks' rules. KEEPS: a -0 at the lower limit stays. DROPS: a
NaN becomes the lower limit. That limit is 0 for both."""


class ByRecipe:
    """Base of Op: what is true of the value by a recipe. Nothing is, unless an op says so."""

    def capturable_by(self, do: Program | Choice, *inputs: tuple[int, ...]) -> bool:
        """As `capturable`, of `replay` with that formula, or of `in_order` with that program: what starts a
        pass is, unless the op says otherwise.
        """
        return self.fuses_in_order

    def runs_formula(self, formula: str) -> bool:
        """Whether `run` gives the bits of that one of `formulas`."""
        return False

    def steps_by(self, formula: str) -> bool:
        """Whether an op that is a step is one by that formula, too: `add_step_by`."""
        return False

    def add_step_by(self, formula: str, before: Epilogue, *weights: F32, engine: Engine) -> Epilogue:
        """As add_step, by one of `formulas` that `steps_by` is true of."""
        raise NotImplementedError

    def runs_order(self, program: Program, *inputs: TensorType) -> bool:
        """Whether `run` gives the bits of `in_order` with this program."""
        return False

    @property
    def fuses_in_order(self) -> bool:
        """Whether a pass can start with the op by a program: `in_order_first`."""
        return False

    def in_order_first(self, program: Program, steps: Epilogue, *inputs: F32, engine: Engine) -> F32:
        """in_order, and then these steps."""
        raise NotImplementedError
