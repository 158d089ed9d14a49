"""ONNX's worker: runs a model in ONNX Runtime or in onnx's own reference evaluator; every value by name.

Needs onnx, onnxruntime and NumPy only. Commands: `COMMANDS` at the end. Request field `engine`:
"onnxruntime", or "reference" (onnx.reference.ReferenceEvaluator: NumPy, no threads of its own).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def info(request: Any, arrays: Any, emit: Any) -> Any:
    """Which onnx and which ONNX Runtime these are."""
    import onnx
    import onnxruntime

    fields = {
        "framework": "onnx",
        "version": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "build": onnxruntime.get_build_info(),
        "isa": _isa(),
    }
    return fields, {}


def check(request: Any, arrays: Any, emit: Any) -> Any:
    """Have onnx.checker judge a model, shapes inferred. request: path. Fails with the checker's words."""
    import onnx

    onnx.checker.check_model(request["path"], full_check=True)
    return {}, {}


def run(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Run a model once on the arrays (its inputs), emit its outputs in their order.

    request: path, engine, threads, optimise (False: every node is executed as written).
    """
    names, call = _session(request, arrays)
    for name, value in zip(names, call(), strict=True):
        emit(name, value)
    return {}, {}


KINDS = ("float32", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
"""The dtypes of inputs that refnet has."""


def signature(request: Any, arrays: Any, emit: Any) -> Any:
    """What a model takes and how much it makes. request: path.

    Fields: inputs (name -> shape, null for a size that is free), dtypes (of the inputs), outputs (names),
    values (how many), opset.
    """
    import onnx

    model = onnx.load(request["path"], load_external_data=False)
    graph, opset = model.graph, _opset(model)
    held = {one.name for one in graph.initializer}
    inputs, dtypes = {}, {}
    for one in graph.input:
        if one.name not in held:
            kind = one.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else None
            if (
                dtype is None
                or not (dtype.kind in "iub" or dtype.name == "float32")
                or not kind.HasField("shape")
            ):
                raise ValueError(
                    f"input {one.name!r} is no float32, integer or boolean tensor of a stated rank"
                )
            dtypes[one.name] = dtype.name
            inputs[one.name] = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    values = sum(bool(name) for node in graph.node for name in node.output)
    outputs = [one.name for one in graph.output]
    fields = {"inputs": inputs, "dtypes": dtypes, "outputs": outputs, "values": values, "opset": opset}
    return fields, {}


def capture(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Run a model once in ONNX Runtime on the arrays and emit every value, in the order of the nodes.

    request: path, threads, level ("disabled", "basic", "extended", "all": which optimisations of the graph),
    exposed (False: the model's own outputs only); only: names, in the place of all values. All names of
    values are made outputs, in a copy of the model; the runtime hands them over together, at the end.
    Optimisations keep what is an output, so exposing
    values can prevent them. Field `outputs`: output -> value. Field `left_out`: what the runtime's model
    does not have as a tensor.
    """
    import onnx
    import onnxruntime as ort

    model = onnx.load(request["path"])
    held = {one.name for one in model.graph.initializer} | {one.name for one in model.graph.input}
    own = [one.name for one in model.graph.output]
    order = list(dict.fromkeys(name for node in model.graph.node for name in node.output if name))
    wanted = order if request["exposed"] else [name for name in order if name in own]
    if "only" in request:  # outputs that nobody wants go, so that the runtime need not compute them
        wanted = [name for name in order if name in request["only"]]
        kept = [one for one in model.graph.output if one.name in wanted]
        own = [one.name for one in kept]
        del model.graph.output[:]
        model.graph.output.extend(kept)
    for name in wanted:
        if name not in own and name not in held:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = _options(ort, int(request["threads"]), request["level"])
    onnx.save(model, "exposed.onnx", save_as_external_data=_is_large(model), location="exposed.data")
    session = ort.InferenceSession("exposed.onnx", options, providers=["CPUExecutionProvider"])
    left_out = {}
    found = session.run(wanted, arrays)
    for i, name in enumerate(wanted):
        value, found[i] = found[i], None
        if hasattr(value, "dtype"):
            emit(name, value)
        else:
            left_out[name] = f"it is a {type(value).__name__}, no tensor"
    return {"outputs": {name: name for name in own if name in wanted}, "left_out": left_out}, {}


def _opset(model: Any) -> int:
    """The version of ONNX's own operators that a model has."""
    return int(next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")))


def _converted(model: Any, opset: int | None) -> Any:
    """The model at this opset; as it is where onnx cannot convert it, or an operator has another form there.

    onnx has adapters to newer opsets. To an older one only the number changes, and onnx's checker decides.
    """
    import onnx
    import onnx.version_converter

    if opset is None or opset == _opset(model):
        return model
    try:
        if opset > _opset(model):
            return onnx.version_converter.convert_version(model, opset)
        older = onnx.ModelProto()
        older.CopyFrom(model)
        older.opset_import[0].version = opset
        onnx.checker.check_model(older, full_check=True)
    except Exception:  # of C++: without a class of its own, or the checker's
        return model
    return older


LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


def _is_large(model: Any) -> bool:
    """Whether the model is more than one file of Protocol Buffers can have (2 GiB)."""
    return bool(model.ByteSize() >= 1 << 31)


def probe(request: Any, arrays: Any, emit: Any) -> Any:
    """Run a small model in ONNX Runtime many times; returns its last output, stacked, as `y`.

    arrays: `model` holds the bytes of the model; the others are its inputs, and weights that replace its
    initializers. request: each: names of the arrays whose first axis counts the calls (the others are the
    same in all); take: per axis of the result an index, or null for all of it; threads, level; opset: the
    model is converted to it first, because a version of an operator may be computed in another way.
    Weights stay initializers, which ONNX Runtime packs: so each new weight takes a session of its own. Arrays
    lie where the runtime would put its own: sums by Eigen depend on the alignment.
    """
    import numpy as np
    import onnx
    import onnxruntime as ort

    model = _converted(onnx.load_from_string(arrays.pop("model").tobytes()), request.get("opset"))
    take = tuple(slice(None) if index is None else index for index in request["take"])
    each = set(request["each"])
    inputs = [value.name for value in model.graph.input]
    session, found = None, []
    for i in range(len(arrays[request["each"][0]])):
        now = {name: _aligned(array[i] if name in each else array) for name, array in arrays.items()}
        if session is None or each - set(inputs):
            for held in model.graph.initializer:
                if held.name in now:
                    held.CopyFrom(onnx.numpy_helper.from_array(now[held.name], held.name))
            options = _options(ort, int(request["threads"]), request.get("level", "disabled"))
            text = model.SerializeToString()
            session = ort.InferenceSession(text, options, providers=["CPUExecutionProvider"])
        found.append(session.run(None, {name: now[name] for name in inputs})[-1][take])
    return {}, {"y": np.stack(found)}


ALIGNMENT = 64
"""Bytes; of ONNX Runtime's own arrays."""


def _aligned(array: Any) -> Any:
    """A copy of the array that begins at a multiple of ALIGNMENT."""
    import numpy as np

    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT
    found = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def op(request: Any, arrays: Any, emit: Any) -> Any:
    """Run one operator in ONNX Runtime on the arrays, in their order; returns its first output as `y`.

    request: function (an operator), arguments (its attributes), weights (names of arrays that the model holds
    as initializers; the others are its inputs), threads, opset (17 where it is not given).
    """
    import onnx
    import onnxruntime as ort

    held = set(request.get("weights", []))
    made = onnx.helper.make_node(request["function"], list(arrays), ["y"], **request.get("arguments", {}))
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in arrays.items()
        if name not in held
    ]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    weights = [onnx.numpy_helper.from_array(arrays[name], name) for name in held]
    graph = onnx.helper.make_graph([made], "op", inputs, [output], weights)
    opset = onnx.helper.make_opsetid("", int(request.get("opset", 17)))
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    options = _options(ort, int(request["threads"]), "disabled")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {name: a for name, a in arrays.items() if name not in held})
    return {}, {"y": y}


def timed(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Time a run of a model request["runs"] times; each emits its seconds, and the next waits until it is
    wanted. Before each there are others that do not count, for request["settle"] seconds.

    request: as for run. Emits `pid` when all is loaded, and at the end the last run's first `output`.
    """
    import os
    from time import perf_counter

    import numpy as np

    _, call = _session(request, arrays)
    emit("pid", np.array(os.getpid()))
    for _ in range(request["runs"]):
        settled = perf_counter() + request["settle"]
        while perf_counter() < settled:
            call()
        begin = perf_counter()
        outputs = call()
        emit("seconds", np.array(perf_counter() - begin))
    emit("output", outputs[0])
    return {}, {}


def _session(request: Any, arrays: Any) -> tuple[list[str], Callable[[], Any]]:
    """The names of the outputs, and what runs the model."""
    if request["engine"] == "reference":
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(request["path"])
        return list(reference.output_names), lambda: reference.run(None, arrays)
    if request["engine"] != "onnxruntime":
        raise ValueError("engine must be onnxruntime or reference, got " + repr(request["engine"]))
    import onnxruntime as ort

    level = "all" if request.get("optimise", True) else "disabled"
    options = _options(ort, int(request["threads"]), level)
    session = ort.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    return [output.name for output in session.get_outputs()], lambda: session.run(None, arrays)


def _options(ort: Any, threads: int, level: str) -> Any:
    """The options of a session: so many threads, and these optimisations of the graph."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    return options


def _isa() -> str:
    """The widest of the processor's vector extensions: MLAS chooses by these, and tells nobody."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next(line for line in file if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return "unknown"
    return "MLAS " + next((isa for isa in ("avx512f", "avx2", "avx", "sse4_1") if isa in flags), "unknown")


COMMANDS = {
    "info": info,
    "check": check,
    "signature": signature,
    "capture": capture,
    "run": run,
    "op": op,
    "probe": probe,
    "time": timed,
}
