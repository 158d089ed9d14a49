"""Part of PyTorch's worker: a module as torch.export sees it, written to .onnx and run node by node.

    export(module, ...) ── torch.export ── torch.onnx.export ── network.onnx, with the program that it shows
    values(exported, ...) ── each node of that program in torch, under its value's name in the .onnx

Needs torch, onnx and onnxscript only. The module is exported with a batch that may vary, where it can be, in
evaluation mode, as it is: nothing is folded or fused, so each value of the program is one value of the .onnx.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Exported:
    """program: torch's ExportedProgram, with the nodes that the .onnx shows. names: the .onnx's values.

    inputs: of the .onnx, in the order of the module's arguments. outputs: of the .onnx. free: its batch may
    vary.
    """

    program: Any
    names: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free: bool


def export(module: Any, tensors: dict[str, Any], keywords: bool, path: str, free: bool = True) -> Exported:
    """Export the module, called with these tensors, to an .onnx file with its weights.

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
    made.save(path)
    graph = made.model.graph
    names = frozenset(value.name for node in graph for value in node.outputs)
    inputs, outputs = ([str(value.name) for value in values] for values in (graph.inputs, graph.outputs))
    return Exported(made.exported_program, names, tuple(inputs), tuple(outputs), free)


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
    return list(found)
