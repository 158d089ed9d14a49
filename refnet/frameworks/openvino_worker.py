"""OpenVINO's worker: runs a model (.onnx or .xml) on the processor; every value by name; single ops.

Needs openvino and NumPy only. Commands: `COMMANDS` at the end. The plugin fuses what it may, and a value
that is an output is not fused away: so what is an output decides bits. INFERENCE_PRECISION_HINT is always
said, as OpenVINO's default is bfloat16 on a processor that has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def info(request: Any, arrays: Any, emit: Any) -> Any:
    """Which OpenVINO this is and how it runs. request: threads (optional): how many it is told to take."""
    import openvino as ov
    from openvino import opset13

    version, _, build = ov.get_version().partition("-")
    x = opset13.parameter([1], ov.Type.f32)
    model = ov.Model([opset13.relu(x)], [x], "relu")
    compiled = _compiled(ov.Core(), model, {"threads": request.get("threads", 1)})
    threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
    fields = {"framework": "openvino", "version": version, "build": build, "threads": threads, "isa": _isa()}
    return fields, {}


def signature(request: Any, arrays: Any, emit: Any) -> Any:
    """What a model takes and how much it makes. request: path.

    Fields: inputs (name -> shape, null for a size that is free), values (how many).
    """
    import openvino as ov

    model = ov.Core().read_model(request["path"])
    inputs = {}
    for one in model.inputs:
        name, shape = _name(one), one.get_partial_shape()
        if one.get_element_type() != ov.Type.f32 or shape.rank.is_dynamic:
            raise ValueError(f"input {name!r} is no float32 tensor of a stated rank")
        inputs[name] = [None if size.is_dynamic else size.get_length() for size in shape]
    return {"inputs": inputs, "values": sum(1 for _ in _values(model, request["path"]))}, {}


def capture(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Run a model once on the arrays and emit its values, in the order of its operations.

    request: path, threads, precision, known (names of values in the order of a graph; may be empty), mode
    ("internals": all; "compiled": those that the compiled model has; "outputs": the model's own outputs). A
    port may have several names: its value is emitted under each that is known, or else under the first of
    them. Field `outputs`: output -> value.
    """
    import openvino as ov

    core = ov.Core()
    model = core.read_model(request["path"])
    _reshape(model, {name: list(array.shape) for name, array in arrays.items()})
    known = {name: i for i, name in enumerate(request["known"])}
    own = [result.input_value(0) for result in model.get_results()]
    wanted = own if request["mode"] == "outputs" else list(_values(model, request["path"]))
    if request["mode"] == "compiled":
        kept = _kept(core, model, request, arrays, [_port(output) for output in wanted])
        wanted = [output for output in wanted if _port(output) in kept]
    named = [_known(output, known) for output in wanted]
    outputs = {_name(output): _known(output, known)[0] for output in own}
    _expose(model, wanted, own)  # which gives a port without a name one
    run = _compiled(core, model, request).create_infer_request()
    run.infer(_inputs(model, arrays), share_outputs=True)
    place = {_port(result.input_value(0)): i for i, result in enumerate(model.get_results())}
    emitted = set()
    for output, names in zip(wanted, named, strict=True):
        for name in names:
            if name not in emitted:
                emit(name, run.get_output_tensor(place[_port(output)]).data)
                emitted.add(name)
    return {"outputs": outputs}, {}


def _kept(core: Any, model: Any, request: Any, arrays: Any, values: list[Any]) -> set[Any]:
    """Of these values (ports), those that can be seen without a change to what is compiled.

    The compiled model says which operations each of its nodes computes. Only the last of them leaves a value,
    and not if a later node writes over it, as a convolution does that adds to it: made an output, it would
    have to stay. So values are left out until the nodes are those of the model with no more outputs than its
    own, and the outputs' bits are its bits.
    """
    place = {_port(output): i for i, output in enumerate(_values(model, request["path"]))}
    own = {_port(result.input_value(0)) for result in model.get_results()}
    nodes, bits = _executed(core, model, request, arrays, own, [])

    def changed(shown: list[Any]) -> tuple[list[Any], bool]:
        now, results = _executed(core, model, request, arrays, own, shown)
        return [names for names in nodes if names not in now], results != bits

    by_name: dict[str, list[Any]] = {}
    for port in values:
        by_name.setdefault(port[0], []).append(port)
    ends: set[Any] = set()
    for names in nodes:
        inside = [port for name in names for port in by_name.get(name, ())]
        last = max(inside, key=lambda port: place[port])[0] if inside else ""
        ends.update(port for port in inside if port[0] == last)
    left = sorted(ends, key=lambda port: place[port])
    read = {node.get_friendly_name(): [_port(one) for one in node.input_values()] for node in model.get_ops()}
    while gone := changed(left)[0]:
        over = {port for names in gone for name in names for port in read[name] if port[0] not in names}
        fewer = [port for port in left if port not in over]
        if len(fewer) == len(left):
            break
        left = fewer
    return {*_most(left, lambda shown: changed(shown) == ([], False)), *own}


def _most(left: list[Any], fits: Callable[[list[Any]], bool]) -> list[Any]:
    """As many of these as fit together, found by halves."""
    found: list[Any] = []
    parts = [left]
    while parts:
        part = parts.pop()
        if not part or fits([*found, *part]):
            found += part
        elif len(part) > 1:
            parts += [part[len(part) // 2 :], part[: len(part) // 2]]
    return found


def _executed(
    core: Any, model: Any, request: Any, arrays: Any, own: Any, shown: list[Any]
) -> tuple[set[frozenset[str]], list[bytes]]:
    """What each node of the compiled model computes, by the names of the model's operations; and the own
    outputs' bytes. shown: ports that are outputs, too.
    """
    copy = model.clone()
    known = {node.get_friendly_name() for node in copy.get_ops()}
    constants = {node.get_friendly_name() for node in copy.get_ops() if node.get_type_name() == "Constant"}
    ports = {_port(output): output for node in copy.get_ops() for output in node.outputs()}
    if more := [ports[port] for port in shown if port not in own]:
        copy.add_outputs(more)
    compiled = _compiled(core, copy, request)
    found = set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        said, key = node.get_rt_info(), "originalLayersNames"
        names = str(said[key].astype(str)).split(",") if key in said else []
        found.add(frozenset(name for name in names if name in known - constants))
    run = compiled.create_infer_request()
    run.infer(_inputs(copy, arrays), share_outputs=True)
    ends = [_port(result.input_value(0)) for result in copy.get_results()]
    return found, [run.get_output_tensor(i).data.tobytes() for i, port in enumerate(ends) if port in own]


def probe(request: Any, arrays: Any, emit: Any) -> Any:
    """Run a small model many times; returns its last output, stacked, as `y`.

    arrays: `model` holds the bytes of the .onnx; the others are its inputs, and weights that replace its
    constants. request: each: names of the arrays whose first axis counts the calls (the others are the same
    in all); take: per axis of the result an index, or null for all of it; threads, precision; behind: whether
    the input comes from a convolution, in the memory layout in which convolutions leave their results.
    Weights stay constants, which the plugin packs. Compiling takes longer than running, so calls are compiled
    together: copies of the model side by side, which share nothing.
    """
    import numpy as np
    import openvino as ov

    core, text = ov.Core(), arrays.pop("model").tobytes()
    take = tuple(slice(None) if index is None else index for index in request["take"])
    calls = [
        {name: array[i] if name in request["each"] else array for name, array in arrays.items()}
        for i in range(len(arrays[request["each"][0]]))
    ]
    together = max(1, min(COPIES, BYTES // sum(array.nbytes for array in calls[0].values())))
    found = []
    for at in range(0, len(calls), together):
        results: list[Any] = []
        parameters, given, places = [], [], []
        for now in calls[at : at + together]:
            model, place = _single(core, text, now, bool(request.get("behind")))
            places.append(len(results) + place)
            results += model.get_results()
            parameters += model.get_parameters()
            given += _inputs(model, now)
        run = _compiled(core, ov.Model(results, parameters, "copies"), request).create_infer_request()
        run.infer(given, share_outputs=True)
        found += [run.get_output_tensor(place).data[take].copy() for place in places]
    return {}, {"y": np.stack(found)}


COPIES, BYTES = 32, 1 << 25
"""How many calls are compiled together at most, and how large their arrays are."""


def _single(core: Any, text: bytes, arrays: Any, behind: bool) -> tuple[Any, int]:
    """A small model with these weights for these inputs, and which of its results is its own last one."""
    model = core.read_model(text)
    own = model.get_results()[-1].input_value(0)
    data = {name for one in model.inputs for name in one.get_names()}
    _reshape(model, {name: list(array.shape) for name, array in arrays.items() if name in data})
    _hold(model, {name: array for name, array in arrays.items() if name not in data})
    _expose(model, _values(model, ".onnx"), [own])
    if behind:
        _behind(model)
    return model, [_port(result.input_value(0)) for result in model.get_results()].index(_port(own))


def op(request: Any, arrays: Any, emit: Any) -> Any:
    """Call one operator on one array. request: function (of opset13), arguments (keywords), threads."""
    import openvino as ov
    from openvino import opset13

    if request["function"] not in FUNCTIONS:
        raise ValueError(f"unknown function {request['function']!r}")
    (array,) = arrays.values()
    x = opset13.parameter(list(array.shape), ov.Type.f32)
    y = getattr(opset13, request["function"])(x, **request.get("arguments", {}))
    run = _compiled(ov.Core(), ov.Model([y], [x], "op"), request).create_infer_request()
    run.infer([array], share_outputs=True)
    return {}, {"y": run.get_output_tensor(0).data.copy()}


FUNCTIONS = frozenset({"sigmoid", "exp", "softmax"})


def timed(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Time a run of a model request["runs"] times; each emits its seconds, and the next waits until it is
    wanted. Before each there are others that do not count, for request["settle"] seconds.

    request: path, threads, precision. Emits `pid` when all is loaded, and at the end the last run's first
    `output`.
    """
    import os
    from time import perf_counter

    import numpy as np
    import openvino as ov

    core = ov.Core()
    model = core.read_model(request["path"])
    _reshape(model, {name: list(array.shape) for name, array in arrays.items()})
    run, inputs = _compiled(core, model, request).create_infer_request(), _inputs(model, arrays)
    run.infer(inputs, share_inputs=True, share_outputs=True)
    emit("pid", np.array(os.getpid()))
    for _ in range(request["runs"]):
        settled = perf_counter() + request["settle"]
        while perf_counter() < settled:
            run.infer(inputs, share_inputs=True, share_outputs=True)
        begin = perf_counter()
        run.infer(inputs, share_inputs=True, share_outputs=True)
        emit("seconds", np.array(perf_counter() - begin))
    emit("output", run.get_output_tensor(0).data)
    return {}, {}


def _compiled(core: Any, model: Any, request: Any) -> Any:
    """The model, compiled for these threads and this precision. Fails if OpenVINO takes another precision."""
    precision = request.get("precision", "f32")
    told = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": int(request.get("threads", 1)),
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(model, "CPU", told)
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if taken != precision:
        raise ValueError(f"INFERENCE_PRECISION_HINT={precision}: on this processor OpenVINO takes {taken}")
    return compiled


def _values(model: Any, path: str) -> Iterator[Any]:
    """The float32 outputs of operations that are values of the model, in order of execution.

    Of an .onnx these are the outputs that have a name: OpenVINO's reader makes further ones of an operator
    that it has not. What depends on no input, or on its shape only, is a constant.
    """
    import openvino as ov

    depend = {one.get_node().get_friendly_name() for one in model.inputs}
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in ("Constant", "Parameter", "Result", "ShapeOf"):
            continue
        if not any(one.get_node().get_friendly_name() in depend for one in node.input_values()):
            continue
        depend.add(node.get_friendly_name())
        for output in node.outputs():
            named = output.get_names() or path.endswith(".xml")
            if named and output.get_element_type() == ov.Type.f32:
                yield output


def _expose(model: Any, wanted: Any, own: Any) -> None:
    """Make these values outputs of the model, behind its own."""
    there = {_port(output) for output in own}
    if more := [output for output in wanted if _port(output) not in there]:
        model.add_outputs(more)


def _port(output: Any) -> tuple[str, int]:
    """What tells the output of an operation from all others: friendly names are unique."""
    return output.get_node().get_friendly_name(), output.get_index()


def _names(output: Any) -> set[str]:
    """The names of a value: those of its port; of one without any its operation's, and behind a colon the
    port's number where there are several.
    """
    name, index = _port(output)
    several = output.get_node().get_output_size() > 1
    return output.get_names() or {f"{name}:{index}" if several else name}


def _name(output: Any) -> str:
    """The first of its names."""
    return min(_names(output))


def _known(output: Any, known: Any) -> list[str]:
    """Its names that are known, in their order, or else its first."""
    return sorted(_names(output) & known.keys(), key=known.get) or [_name(output)]


def _reshape(model: Any, shapes: Any) -> None:
    """Fix the shapes of the inputs. shapes: name -> sizes."""
    fixed = {}
    for one in model.inputs:
        names = [name for name in _names(one) if name in shapes]
        if not names:
            raise ValueError(f"the model's input {_name(one)!r} is given no array")
        fixed[one] = shapes[names[0]]
    model.reshape(fixed)


def _inputs(model: Any, arrays: Any) -> list[Any]:
    """The arrays in the order of the model's inputs."""
    return [next(arrays[name] for name in _names(one) if name in arrays) for one in model.inputs]


def _hold(model: Any, weights: Any) -> None:
    """Replace the model's constants that have these names."""
    from openvino import opset13

    held = {node.get_friendly_name(): node for node in model.get_ops() if node.get_type_name() == "Constant"}
    for name, array in weights.items():
        if name not in held:
            raise ValueError(f"the model has no constant {name!r}")
        new = opset13.constant(array)
        for target in held[name].output(0).get_target_inputs():
            target.replace_source_output(new.output(0))


def _behind(model: Any) -> None:
    """Put a convolution with a kernel of a single 1 per channel behind the model's only input (n, c, h, w).

    It keeps every number but -0, which becomes +0: one product with 1, added to 0.
    """
    import numpy as np
    from openvino import opset13

    (one,) = model.inputs
    targets = one.get_target_inputs()
    kernel = opset13.constant(np.ones((one.get_shape()[1], 1, 1, 1, 1), np.float32))
    made = opset13.group_convolution(one.get_node(), kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    for target in targets:
        target.replace_source_output(made.output(0))


def _isa() -> str:
    """The instruction set that oneDNN says it uses: a process of its own asks it, as it says so only at its
    first primitive, if the environment tells it to.
    """
    import os
    import re
    import subprocess
    import sys

    code = (
        "import numpy as np, openvino as ov\n"
        "from openvino import opset13 as o\n"
        "x = o.parameter([1, 16, 8, 8], ov.Type.f32)\n"
        "w = o.constant(np.ones((16, 16, 3, 3), np.float32))\n"
        "y = o.convolution(x, w, [1, 1], [0, 0], [0, 0], [1, 1])\n"
        "run = ov.compile_model(ov.Model([y], [x], 'isa'), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
        "run([np.ones((1, 16, 8, 8), np.float32)])\n"
    )
    environment = {**os.environ, "ONEDNN_VERBOSE": "1"}
    command = [sys.executable, "-c", code]
    nowhere = os.path.abspath(os.sep)  # what lies in the user's folder is not imported
    done = subprocess.run(command, env=environment, cwd=nowhere, capture_output=True, check=False)
    found = re.search(rb"info,cpu,isa:(.*)", done.stdout)
    return "oneDNN " + found[1].decode(errors="replace") if found else "unknown"


COMMANDS = {
    "info": info,
    "signature": signature,
    "capture": capture,
    "op": op,
    "probe": probe,
    "time": timed,
}
