"""Bugs planted into an .onnx file: a node keeps the name of its value, and computes another one.

edit = Edit(model, "/norm/LayerNormalization_output_0")
edit.set(epsilon=1e-3)                          another attribute
edit.weight(1, lambda gamma: gamma ** 2)        another constant
edit.become("Relu", edit.before("Add", x, y))   another formula
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray[Any, Any]
F, I64 = np.float32, np.int64


class Edit:
    """A model, changed in place at the node whose first output has a name. Raises KeyError if none has."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        self.graph = model.graph
        self.name = name
        self.makers = {one: node for node in model.graph.node for one in node.output}
        self.held = {one.name: one for one in model.graph.initializer}
        self.at = self.makers[name]
        self.made = 0

    @property
    def inputs(self) -> list[str]:
        """The names that the node reads."""
        return list(self.at.input)

    def maker(self, name: str) -> onnx.NodeProto:
        """The node that makes a value."""
        return self.makers[name]

    def attribute(self, name: str) -> Any:
        """What the node says of an attribute."""
        (found,) = (one for one in self.at.attribute if one.name == name)
        return helper.get_attribute_value(found)

    def array(self, name: str) -> Array:
        """The constant behind a name: an initializer, or what Constant or Identity pass on."""
        if name in self.held:
            return numpy_helper.to_array(self.held[name])
        node = self.makers[name]
        if node.op_type == "Identity":
            return self.array(node.input[0])
        if node.op_type != "Constant":
            raise KeyError(f"{name} is not constant: {node.op_type} makes it")
        return numpy_helper.to_array(node.attribute[0].t)

    def constant(self, value: Any, kind: Any = F) -> str:
        """The name of a new constant."""
        name = self.new()
        self.graph.initializer.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def set(self, **attributes: Any) -> None:
        """Other attributes."""
        kept = [one for one in self.at.attribute if one.name not in attributes]
        del self.at.attribute[:]
        self.at.attribute.extend(kept + [helper.make_attribute(k, v) for k, v in attributes.items()])

    def weight(self, index: int, change: Callable[[Array], Array]) -> None:
        """Another constant as the node's input of this index; other readers keep the old one."""
        old = self.array(self.at.input[index])
        new = change(old)
        if np.array_equal(new.astype(old.dtype), old):
            raise ValueError(f"{self.name}: the bug changes no element of {self.at.input[index]}")
        self.at.input[index] = self.constant(new, old.dtype)

    def read(self, index: int, name: str) -> None:
        """The node reads another value as its input of this index."""
        self.at.input[index] = name

    def swap(self, first: int, second: int) -> None:
        """Two of the node's inputs change places."""
        self.at.input[first], self.at.input[second] = self.at.input[second], self.at.input[first]

    def before(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A new node before this one; the name of its value."""
        name = self.new()
        place = list(self.graph.node).index(self.at)
        self.graph.node.insert(place, helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def become(self, op: str, *inputs: str, **attributes: Any) -> None:
        """The node computes something else. Further outputs that it had are gone."""
        kept = self.at.output[0]
        self.at.CopyFrom(helper.make_node(op, list(inputs), [kept], **attributes))

    def new(self) -> str:
        """A name that no value has."""
        self.made += 1
        return f"planted.{self.made}"


def brain(x: Array) -> Array:
    """Through bfloat16, to nearest, ties to even."""
    bits = x.astype(F).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(F)


def eight_bits(x: Array) -> Array:
    """In int8, with one scale for the whole array."""
    scale = F(np.abs(x).max() / 127)
    return np.round(x / scale).astype(F) * scale


def layer_norm(
    e: Edit, *, unbiased: bool = False, outside: bool = False, axes: tuple[int, ...] = (-1,)
) -> None:
    """LayerNormalization as its formula. unbiased: divided by n - 1. outside: the deviation plus epsilon."""
    x, gamma, beta = e.inputs
    count = e.array(gamma).size
    eps = e.constant(e.attribute("epsilon"))
    centered = e.before("Sub", x, e.before("ReduceMean", x, axes=list(axes)))
    variance = e.before("ReduceMean", e.before("Mul", centered, centered), axes=list(axes))
    if unbiased:
        variance = e.before("Mul", variance, e.constant(count / (count - 1)))
    if outside:
        divisor = e.before("Add", e.before("Sqrt", variance), eps)
    else:
        divisor = e.before("Sqrt", e.before("Add", variance, eps))
    e.become("Add", e.before("Mul", e.before("Div", centered, divisor), gamma), beta)


def rms_norm(e: Edit) -> None:
    """No mean is subtracted."""
    x, gamma, beta = e.inputs
    square = e.before("ReduceMean", e.before("Mul", x, x), axes=[-1])
    root = e.before("Sqrt", e.before("Add", square, e.constant(e.attribute("epsilon"))))
    e.become("Add", e.before("Mul", e.before("Div", x, root), gamma), beta)


def gelu_tanh(e: Edit) -> None:
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 where the network has (x (1 + erf(...))) / 2."""
    x = e.maker(e.inputs[0]).input[0]
    cube = e.before("Mul", e.before("Mul", x, x), x)
    inside = e.before("Add", x, e.before("Mul", cube, e.constant(0.044715)))
    bent = e.before("Tanh", e.before("Mul", inside, e.constant((2 / np.pi) ** 0.5)))
    e.become("Mul", e.before("Mul", x, e.constant(0.5)), e.before("Add", bent, e.constant(1)))


def gelu_sigmoid(e: Edit) -> None:
    """x sigmoid(1.702 x), likewise."""
    x = e.maker(e.inputs[0]).input[0]
    e.become("Mul", x, e.before("Sigmoid", e.before("Mul", x, e.constant(1.702))))


def shuffled(e: Edit, groups: int) -> None:
    """A channel shuffle with `groups` parts where the network's Reshape ends one with another number."""
    shape = e.maker(e.maker(e.inputs[0]).input[0]).input[0]  # Reshape of Transpose of Reshape
    n, c, h, w = 1, *e.array(e.inputs[1])[1:]
    parts = e.before("Reshape", shape, e.constant([n, groups, c // groups, h, w], I64))
    turned = e.before("Transpose", parts, perm=[0, 2, 1, 3, 4])
    e.become("Reshape", turned, e.constant([n, c, h, w], I64))


def max_padded_with_zeros(e: Edit) -> None:
    """A max pool that sees zeros around the map."""
    top, left, bottom, right = e.attribute("pads")
    pads = e.constant([0, 0, top, left, 0, 0, bottom, right], I64)
    e.read(0, e.before("Pad", e.inputs[0], pads))
    e.set(pads=[0, 0, 0, 0])


def residual_after_norm(e: Edit) -> None:
    """x + f(norm(x)) as norm(x) + f(norm(x)): the skip begins one node too late."""
    skip = e.inputs[0]
    (norm,) = (n for n in e.graph.node if n.op_type == "LayerNormalization" and n.input[0] == skip)
    e.read(0, norm.output[0])


def two_groups(e: Edit) -> None:
    """A group norm of one group, written as Reshape, InstanceNormalization and this Reshape, with two."""
    norm = e.maker(e.inputs[0])
    split = e.before("Reshape", e.maker(norm.input[0]).input[0], e.constant([0, 2, -1], I64))
    ones, zeros = e.constant(np.ones(2)), e.constant(np.zeros(2))
    e.read(0, e.before("InstanceNormalization", split, ones, zeros, epsilon=1e-5))


def first_row(e: Edit) -> None:
    """The mean of the first row for the mean of the map."""
    row = e.before("Gather", e.inputs[0], e.constant([0], I64), axis=2)
    e.become("ReduceMean", row, axes=[2, 3])


def activations_in_half(e: Edit) -> None:
    """The node's own result, through float16."""
    result = e.before(e.at.op_type, *e.inputs)
    e.become("Cast", e.before("Cast", result, to=onnx.TensorProto.FLOAT16), to=onnx.TensorProto.FLOAT)


def dropped(e: Edit) -> None:
    """A tenth of the node's result is zero, and the rest is scaled."""
    result = e.before(e.at.op_type, *e.inputs)
    e.become("Dropout", result, e.constant(0.1), e.constant(True, np.bool_), seed=1)


def batch_statistics(e: Edit) -> None:
    """A batch norm in training mode, with the running statistics as further results."""
    e.set(training_mode=1)
    e.at.output.extend([e.new(), e.new()])
