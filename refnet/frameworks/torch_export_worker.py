"""Part of PyTorch's worker: a module as torch.export sees it, written to .onnx and run node by node.

    traced(module) ── torch.fx's own trace of a module that torch.export refuses, to be exported instead
    export(module, ...) ── torch.export ── torch.onnx.export ── network.onnx, with the program that it shows
    values(exported, ...) ── each node of that program in torch, under its value's name in the .onnx
    alone(exported, name, ...) ── one of these nodes, on any tensors

Needs torch, onnx and onnxscript only. The module is exported with a batch that may vary, where it can be, in
evaluation mode, as it is: nothing is folded or fused, so each value of the program is one value of the .onnx.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Exported:
    """program: torch's ExportedProgram, with the nodes that the .onnx shows. onnx: its ONNXProgram. names:
    the .onnx's values.

    inputs: of the .onnx, in the order of the module's arguments. outputs: of the .onnx. free: its batch may
    vary.
    """

    program: Any
    onnx: Any
    names: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: bool


def traced(module: Any) -> Any:
    """The module as torch.fx records it: its functions, without what Python does around them.

    What no output needs is left out, such as arrays that forward keeps for statistics.
    Raises torch.fx's TraceError where the data decide what is executed.
    """
    import torch

    found = torch.fx.symbolic_trace(module)
    found.graph.eliminate_dead_code()
    found.recompile()
    return found  # whose parts are in the modes that forward puts them into


def export(module: Any, tensors: dict[str, Any], keywords: bool, free: bool = True) -> Exported:
    """Export the module, called with these tensors; `save` writes it.

    keywords: it is called with the tensors by their names, else in their order. The first dimension of every
    input is the batch. free: it may vary, unless it decides something in the module. Raises whatever torch
    raises for a module that it cannot export.
    """
    import warnings

    import torch

    twice = {name: torch.cat([one, one]) if len(one) == 1 else one for name, one in tensors.items()}
    batch = torch.export.Dim("batch", min=1)
    sizes = {name: {0: batch} for name in twice}
    given = ((), twice) if keywords else (tuple(twice.values()), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if free:
            try:
                shapes: Any = sizes if keywords else tuple(sizes.values())
                exported = torch.export.export(module, *given, dynamic_shapes=shapes)
            except Exception:  # the batch decides something in it: as it is
                free = False
        if not free:
            own = ((), tensors) if keywords else (tuple(tensors.values()), None)
            exported = torch.export.export(module, *own)
        made = torch.onnx.export(exported, dynamo=True, optimize=False, verbose=False)
    graph = made.model.graph
    names = frozenset(value.name for node in graph for value in node.outputs)
    inputs, outputs = ([str(value.name) for value in values] for values in (graph.inputs, graph.outputs))
    return Exported(made.exported_program, made, names, tuple(inputs), tuple(outputs), free)


def save(exported: Exported, names: Sequence[str], path: str) -> None:
    """Write the .onnx, with its weights. names: what the module calls its outputs, in its order.

    They stand in the metadata, under a key that refnet's reader of .onnx knows, if there are more than one.
    A value that is returned twice is one output.
    """
    import json

    graph = exported.onnx.model.graph
    for i in reversed(range(len(graph.outputs))):
        if exported.outputs[i] in exported.outputs[:i]:
            del graph.outputs[i]
    if list(names) != ["output"] and len(names) == len(exported.outputs):
        pairs = [list(pair) for pair in zip(names, exported.outputs, strict=True)]
        exported.onnx.model.metadata_props["refnet outputs"] = json.dumps(pairs)
    exported.onnx.save(path)


def values(
    exported: Exported, tensors: list[Any], emit: Callable[[str, Any], None] | None, left_out: dict[str, str]
) -> list[Any]:
    """Run the program node by node and emit every float value that the .onnx has; the outputs.

    tensors: the inputs in order. left_out: takes value -> why it is not emitted.
    """
    import torch

    program = exported.program

    class Watched(torch.fx.Interpreter):  # type: ignore[misc]
        def run_node(self, n: Any) -> Any:
            result = super().run_node(n)
            if n.op != "call_function" or not isinstance(result, torch.Tensor) or emit is None:
                return result
            if n.name in exported.names:
                emit(n.name, result.detach().cpu().numpy())
            else:
                left_out[n.name] = f"the exported .onnx has no value of torch's {n.target}"
            return result

    state = {**program.state_dict, **program.constants}
    signature = program.graph_signature
    bound = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    bound |= dict(signature.inputs_to_lifted_tensor_constants)
    given = iter(tensors)
    holders = [node.name for node in program.graph.nodes if node.op == "placeholder"]
    arguments = [state[bound[name]] if name in bound else next(given) for name in holders]
    with torch.inference_mode():
        found = Watched(program.graph_module).run(*arguments, enable_io_processing=False)
    returned = [spec.kind.name == "USER_OUTPUT" for spec in signature.output_specs]
    return [one for one, own in zip(found, returned, strict=True) if own]  # others: buffers that it changes


def alone(
    exported: Exported, name: str, inputs: Sequence[str], shapes: Sequence[Sequence[int]]
) -> Callable[[Sequence[Any]], Any]:
    """The node that makes this value, as a function of its tensors in the order of the .onnx's inputs.

    inputs: their names in the .onnx; shapes: of what it will be given. All else about the node (stride,
    padding, epsilon) is as the program has it. A bias that the node does not have may be given.
    Raises LookupError, with the reason, where no single node of the program makes this value of these inputs.
    """
    nodes = {node.name: node for node in exported.program.graph.nodes}
    node, parts = nodes.get(name), []
    while node is not None and node.target is operator.getitem:
        parts.append(node.args[1])
        node = node.args[0]
    if node is None or node.op != "call_function":
        raise LookupError("the module's program has no such value")
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        raise LookupError(f"{node.target} is not one of torch's operators")
    given = dict(zip((one.name for one in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
    arguments = {one.name: given.get(one.name, one.default_value) for one in schema.arguments}
    tensors = _nodes_in(list(arguments.values()))
    for one in schema.arguments:  # such as the bias of a convolution without one
        if len(tensors) < len(inputs) and arguments[one.name] is None and str(one.type) == "Optional[Tensor]":
            arguments[one.name] = ABSENT
            tensors = _nodes_in(list(arguments.values()))
    _check_inputs(exported, tensors, inputs, shapes, str(node.target))

    def function(values: Sequence[Any]) -> Any:
        following = iter([_laid_out(value, one) for value, one in zip(values, tensors, strict=True)])
        own = {key: _with_next(value, following) for key, value in arguments.items()}
        order = [own[one.name] for one in schema.arguments if not one.kwarg_only]
        result = node.target(
            *order, **{one.name: own[one.name] for one in schema.arguments if one.kwarg_only}
        )
        for part in reversed(parts):
            result = result[part]
        return result

    return function


ABSENT = object()
"""A tensor that a node could take and does not have."""


def _laid_out(value: Any, node: Any) -> Any:
    """The tensor with its elements in memory as the module's own lie there, such as the channels last."""
    import torch

    own = None if node is ABSENT else node.meta.get("val")
    if own is None or not _fits(list(own.shape), list(value.shape)):
        return value
    strides = own.stride()
    if strides == value.stride() or not all(isinstance(step, int) and step > 0 for step in strides):
        return value
    return torch.empty_strided(value.shape, strides, dtype=value.dtype).copy_(value)


def _fits(sizes: Sequence[Any], shape: Sequence[int]) -> bool:
    """Whether a tensor of the program may have this shape; a size that may vary is no int there."""
    return len(sizes) == len(shape) and all(
        size == want for size, want in zip(sizes, shape, strict=True) if isinstance(size, int)
    )


def _is_open(value: Any) -> bool:
    import torch

    return value is ABSENT or isinstance(value, torch.fx.Node)


def _nodes_in(value: Any) -> list[Any]:
    """The nodes, and ABSENT, in what may be nested lists, in order."""
    if _is_open(value):
        return [value]
    return [one for part in value for one in _nodes_in(part)] if isinstance(value, list | tuple) else []


def _with_next(value: Any, following: Any) -> Any:
    """The value, each of its nodes replaced by what follows."""
    if _is_open(value):
        return next(following)
    return [_with_next(part, following) for part in value] if isinstance(value, list | tuple) else value


def _check_inputs(
    exported: Exported, tensors: list[Any], inputs: Sequence[str], shapes: Sequence[Sequence[int]], what: str
) -> None:
    """Raises LookupError where these are not the node's tensors, one by one."""
    import torch

    if len(tensors) != len(inputs):
        raise LookupError(f"{what} takes {len(tensors)} tensors in the module, not {len(inputs)}")
    signature = exported.program.graph_signature
    own = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for i, (one, name, shape) in enumerate(zip(tensors, inputs, shapes, strict=True)):
        if one is ABSENT:
            continue
        value = one.meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise LookupError(f"{what} takes a number that the module computes, {one.name}")
        named = own.get(one.name, one.name)
        if named != name and named in inputs:
            raise LookupError(f"{what} takes {named} in another place than {i}")
        sizes = list(value.shape)
        if not _fits(sizes, shape):
            raise LookupError(f"{what} takes {named} of {sizes}, not of {list(shape)}")
