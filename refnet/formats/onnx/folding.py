"""What a reader remembers of the constants that it computes: their values, and how far others' may be off.

Folding.outputs ── fold.fold | computed.computed ── the values
            └───── computed.ranged ──────────────── how far others' may lie from them
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from refnet.core.op import F32
from refnet.formats.onnx.computed import Bound, Golden, computed, ranged
from refnet.formats.onnx.evaluator import Evaluator
from refnet.formats.onnx.file import Model, OnnxNode
from refnet.formats.onnx.fold import ROUNDED, fold, rounds_once

Array = npt.NDArray[Any]
SMALL = 1 << 10
"""Elements of a constant that is compared with another: shapes and the like."""


class Folding:
    """What is computed of constants: a node once, although the graph is built for three batches.

    rounded: constants on which several roundings, or a library of functions, have a say, with how far others'
    may lie from them (None: unknown).
    """

    def __init__(
        self, model: Model, evaluator: Evaluator, golden: Golden | None, bound: Bound | None
    ) -> None:
        self.wanted = frozenset(name for node in model.nodes for name in node.inputs) | {*model.outputs}
        self.model, self.evaluator, self.golden, self.bound = model, evaluator, golden, bound
        self._given: dict[tuple[str, ...], list[Array | None]] = {}
        self._made: dict[tuple[str, ...], list[Array | None]] = {}
        self._fixed, self._maker = {""}, dict[str, tuple[str, ...]]()
        self.rounded: dict[str, F32 | None] = {}

    def outputs(
        self, node: OnnxNode, constants: Mapping[str, Array], inside: bool = False
    ) -> list[Array | None]:
        """The outputs of a node whose inputs are all constant; None for one that nobody wants any more.

        inside: it is one of a definition; who computes the operator at once may round constants otherwise.
        Raises UnsupportedError, FormatError.
        """
        if self.knows(node.outputs):
            return self._made[node.outputs]
        given = [constants[name] if name else None for name in node.inputs]
        before = self._given.get(node.outputs)
        if before is not None and all(_same(a, b) for a, b in zip(given, before, strict=True)):
            return self._made[node.outputs]
        outputs: list[Array | None]
        if rounds_once(node, given):
            outputs = [*fold(node, given, self.model, self.evaluator)]
        else:
            outputs = computed(node, constants, self.golden, self.evaluator, self.wanted)
        free = inside and node.op in ROUNDED and all(x is None or x.dtype == np.float32 for x in given)
        if node.op in ("Shape", "Size"):  # they do not depend on any bits
            pass
        elif free or not rounds_once(node, given) or self.rounded.keys() & {*node.inputs}:
            off = ranged(node, constants, outputs, self.rounded, self.bound)
            self.rounded.update((name, one) for name, one in zip(node.outputs, off, strict=False) if name)
        self._made[node.outputs] = outputs
        self._maker.update(dict.fromkeys(node.outputs, node.outputs))
        if all(name in self._fixed or name in self.model.constants.tensors for name in node.inputs):
            self._fixed.update(node.outputs)
        else:
            self._given[node.outputs] = given
        return outputs

    def knows(self, outputs: tuple[str, ...]) -> bool:
        """Whether a node with these outputs was computed, for any batch."""
        return outputs in self._made and outputs not in self._given

    def forget(self, name: str, constants: dict[str, Array]) -> None:
        """Release a constant that was computed; only nodes that this `knows` may read it."""
        constants.pop(name, None)
        self.rounded.pop(name, None)
        if name in self._maker:
            outputs = self._maker[name]
            self._made[outputs][outputs.index(name)] = None


def _same(a: Array | None, b: Array | None) -> bool:
    """Whether two constants are the same; large ones are only if they are one object."""
    if a is None or b is None or a is b:
        return a is b
    return a.size <= SMALL and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
