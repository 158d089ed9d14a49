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

    options = ort.SessionOptions()
    options.intra_op_num_threads = int(request["threads"])
    options.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    optimise = request.get("optimise", True)
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(request["path"], options, providers=["CPUExecutionProvider"])
    return [output.name for output in session.get_outputs()], lambda: session.run(None, arrays)


COMMANDS = {"info": info, "check": check, "run": run, "time": timed}
