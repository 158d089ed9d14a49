"""MXNet's worker: runs a symbol and yields every internal value by name; writes .params; single ops.

Needs mxnet and NumPy only. Commands: `COMMANDS` at the end. The environment decides how the executor
rewrites a graph; start the worker with MXNET_SUBGRAPH_BACKEND=NONE to have every node executed as written.

Two ways to see inside (request field `mode`), which need not give the same bits:

- "monitor": the symbol is bound as it is, with its memory plan and its in-place operations, and a callback
  reads every output before the next operation starts. One value in memory at a time.
- "internals": every internal value is made an output of the executor and lives until the end of the run.
  Exposing a value makes some operations hand it on in another memory layout, and a batch norm's formula
  depends on that layout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _mxnet() -> Any:
    """Import mxnet; its aliases of removed NumPy names are put back if this NumPy lacks them."""
    import warnings

    import numpy as np

    for name, kind in (("bool", bool), ("int", int), ("float", float), ("object", object)):
        if name not in vars(np):
            setattr(np, name, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mxnet
    return mxnet


def info(request: Any, arrays: Any, emit: Any) -> Any:
    """Which MXNet this is and how it runs."""
    import os

    mx = _mxnet()
    features = mx.runtime.Features()
    fields = {
        "framework": "mxnet",
        "version": mx.__version__,
        "build": " ".join(sorted(name for name in features if features.is_enabled(name))),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        "isa": _isa(),
        "mode": "subgraph backend " + os.environ.get("MXNET_SUBGRAPH_BACKEND", "default"),
    }
    return fields, {}


def save(request: Any, arrays: Any, emit: Any) -> Any:
    """Write the arrays, under their names, with mx.nd.save. request: path, numpy_shape (True writes V3)."""
    mx = _mxnet()
    with mx.util.np_shape(bool(request.get("numpy_shape"))):
        mx.nd.save(request["path"], {n: mx.nd.array(a, dtype=a.dtype) for n, a in arrays.items()})
    return {}, {}


def load(request: Any, arrays: Any, emit: Any) -> Any:
    """Read a .params file with mx.nd.load and return its arrays. request: path."""
    mx = _mxnet()
    return {}, {name: array.asnumpy() for name, array in mx.nd.load(request["path"]).items()}


def run(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Run a symbol on the arrays (its inputs), emit the values; returns its outputs as output0, output1 ...

    request: symbol and params (paths), mode ("monitor", "internals" or "outputs": the outputs only).
    Field `outputs`: name of an output -> the value that it is.
    Inputs that are neither arrays nor parameters (a label) are zeros.
    """
    mx = _mxnet()
    symbol = mx.sym.load(request["symbol"])
    mode = request["mode"]
    if mode not in ("monitor", "internals", "outputs"):
        raise ValueError(f"mode must be monitor, internals or outputs, got {mode!r}")
    if mode == "internals":
        inner = symbol.get_internals()
        known = {*symbol.list_arguments(), *symbol.list_auxiliary_states()}
        names = inner.list_outputs()
        undefined = _undefined(symbol)
        kept = [i for i, name in enumerate(names) if name not in known and name not in undefined]
        executor = _bind(mx, mx.sym.Group([inner[i] for i in kept]), request["params"], arrays)
        outputs = executor.forward(is_train=False)
        for i, output in zip(kept, outputs, strict=True):
            emit(_value(names[i]), output.asnumpy())
        heads = [names.index(name) for name in symbol.list_outputs()]
        results = [outputs[kept.index(i)] for i in heads]
    else:
        executor = _bind(mx, symbol, request["params"], arrays)
        if mode == "monitor":
            faults = _monitor(executor, emit, _visible(symbol, executor))
        results = executor.forward(is_train=False)
        mx.nd.waitall()
        if mode == "monitor" and faults:
            raise faults[0]
        if mode == "outputs":
            for name, output in zip(symbol.list_outputs(), results, strict=True):
                emit(_value(name), output.asnumpy())
    fields = {"outputs": {_value(name): _value(name) for name in symbol.list_outputs()}}
    return fields, {f"output{i}": output.asnumpy() for i, output in enumerate(results)}


def joined(request: Any, arrays: Any, emit: Any) -> Any:
    """Which nodes the executor computes as one, by the graph that it made when it was bound.

    request: symbol and params, arrays as for `run`. Returns groups: the names of each, in order.
    """
    mx = _mxnet()
    executor = _bind(mx, mx.sym.load(request["symbol"]), request["params"], arrays)
    return {"groups": [names for names in _groups(executor).values() if len(names) > 1]}, {}


def _groups(executor: Any) -> dict[str, list[str]]:
    """Per node of the executor's own that stands for others: their names, in order."""
    import json

    found = {}
    for node in json.loads(executor.get_optimized_symbol().tojson())["nodes"]:
        inner = [graph["nodes"] for graph in node.get("subgraphs", [])]
        names = [one["name"] for nodes in inner for one in nodes if one["op"] != "null"]
        if names:
            found[node["name"]] = names
    return found


def timed(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Time a run of a symbol request["runs"] times; each emits its seconds, and the next waits until it is
    wanted. Before each there are others that do not count, for request["settle"] seconds.

    request: symbol and params. Emits `pid` when all is loaded, and at the end the last `output`. The
    executor is bound once, the inputs are in place, and MXNet fuses what it fuses by default.
    """
    import os
    from time import perf_counter

    import numpy as np

    mx = _mxnet()
    executor = _bind(mx, mx.sym.load(request["symbol"]), request["params"], arrays)
    emit("pid", np.array(os.getpid()))
    for _ in range(request["runs"]):
        settled = perf_counter() + request["settle"]
        while perf_counter() < settled:
            executor.forward(is_train=False)
            mx.nd.waitall()
        begin = perf_counter()
        outputs = executor.forward(is_train=False)
        mx.nd.waitall()
        emit("seconds", np.array(perf_counter() - begin))
    emit("output", outputs[0].asnumpy())
    return {}, {}


def op(request: Any, arrays: Any, emit: Any) -> Any:
    """Call one operator of mx.nd on the arrays, in their order. request: function, arguments (keywords)."""
    mx = _mxnet()
    if request["function"] not in FUNCTIONS:
        raise ValueError(f"unknown function {request['function']!r}")
    inputs = [mx.nd.array(array, dtype=array.dtype) for array in arrays.values()]
    # JSON has lists; MXNet's attributes are tuples.
    attributes = request.get("arguments", {}).items()
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in attributes}
    place, name = mx.nd, request["function"]
    if name.startswith("_contrib_"):
        place, name = mx.nd.contrib, name[len("_contrib_") :]
    elif name.startswith("_"):
        place = mx.nd._internal
    result = getattr(place, name)(*inputs, **arguments)
    return {}, {"y": result.asnumpy()}


def probe(request: Any, arrays: Any, emit: Any) -> Any:
    """Run a small symbol many times; returns its last output, stacked, as `y`.

    request: symbol (its JSON text); each: names of the arrays whose first axis counts the calls (the others
    are the same in all); take: per axis of the result an index, or null for all of it.
    """
    import numpy as np

    mx = _mxnet()
    symbol = mx.sym.load_json(request["symbol"])
    each = set(request["each"])
    take = tuple(slice(None) if index is None else index for index in request["take"])
    parameters, statistics = symbol.list_arguments(), symbol.list_auxiliary_states()
    found = []
    for i in range(len(arrays[request["each"][0]])):
        # Bound anew each time: a run leaves the weights in the layout that the routine likes.
        now = {name: mx.nd.array(a[i] if name in each else a) for name, a in arrays.items()}
        states = {name: now[name] for name in statistics}
        executor = symbol.bind(
            mx.cpu(), {name: now[name] for name in parameters}, grad_req="null", aux_states=states
        )
        found.append(executor.forward(is_train=False)[-1].asnumpy()[take].copy())
    return {}, {"y": np.stack(found)}


FUNCTIONS = frozenset(
    (
        *("Convolution", "FullyConnected", "BatchNorm", "Pooling", "_contrib_AdaptiveAvgPooling2D"),
        *("Activation", "relu", "sigmoid", "exp", "softmax", "SoftmaxOutput", "Dropout", "identity"),
        *("add_n", "elemwise_add", "elemwise_mul", "broadcast_mul"),
        *("LeakyReLU", "abs", "erf", "hard_sigmoid", "log", "negative", "reciprocal", "rsqrt", "sqrt"),
        *("cos", "sin", "square", "tanh", "_power_scalar"),
        *("Concat", "Flatten", "UpSampling", "expand_dims", "slice_axis"),
    )
)


def _bind(mx: Any, symbol: Any, path: str, arrays: Any) -> Any:
    params = {name.split(":", 1)[-1]: array for name, array in mx.nd.load(path).items()}
    shapes, _, aux_shapes = symbol.infer_shape(**{name: array.shape for name, array in arrays.items()})

    def table(names: Any, shapes: Any) -> Any:
        found = {}
        for name, shape in zip(names, shapes, strict=True):
            if name in arrays:
                found[name] = mx.nd.array(arrays[name], dtype=arrays[name].dtype)
            elif name in params:
                found[name] = params[name]
            elif name.endswith("label"):
                found[name] = mx.nd.zeros(shape)
            else:
                raise ValueError(f"the params have no {name!r}")
            if found[name].shape != shape:
                raise ValueError(f"{name} is {found[name].shape}, the symbol needs {shape}")
        return found

    arguments = table(symbol.list_arguments(), shapes)
    statistics = table(symbol.list_auxiliary_states(), aux_shapes)
    return symbol.bind(mx.cpu(), arguments, grad_req="null", aux_states=statistics)


def _visible(symbol: Any, executor: Any) -> dict[str, str]:
    """What the executor calls an output -> the value that it is; of joined nodes the last one's.

    A batch norm also reports its hidden outputs _mean and _var, which inference leaves undefined: they are
    not among these, nor is what `_undefined` names.
    """
    undefined = _undefined(symbol)
    names = symbol.get_internals().list_outputs()
    found = {name: _value(name) for name in names if name not in undefined}
    return {**found, **{f"{name}_output": names[-1] for name, names in _groups(executor).items()}}


def _undefined(symbol: Any) -> set[str]:
    """Outputs that inference leaves undefined: the mask of a LeakyReLU with act_type rrelu."""
    import json

    nodes = json.loads(symbol.tojson())["nodes"]
    return {f"{node['name']}_mask" for node in nodes if node["op"] == "LeakyReLU"}


def _monitor(executor: Any, emit: Callable[[str, Any], None], visible: dict[str, str]) -> list[BaseException]:
    """Emit every visible output as it is made; exceptions, which cannot pass MXNet's C code, are kept."""
    import ctypes

    mx = _mxnet()
    faults: list[BaseException] = []

    def callback(name: Any, handle: Any) -> None:
        try:
            array = mx.nd.NDArray(ctypes.cast(handle, mx.base.NDArrayHandle), writable=False)
            text = name if isinstance(name, str) else name.decode()
            if text in visible and not faults:
                emit(visible[text], array.asnumpy())
        except BaseException as error:
            faults.append(error)

    executor.set_monitor_callback(callback, monitor_all=False)
    return faults


def _value(name: str) -> str:
    """The name of a value: that of its node (`conv1_output` is conv1's)."""
    return name[: -len("_output")] if name.endswith("_output") else name


def _isa() -> str:
    """The instruction set that oneDNN says it uses: a process of its own asks it, as it prints so only at its
    first primitive, if the environment says so.
    """
    import os
    import re
    import subprocess
    import sys

    code = (
        "import numpy as np\n"
        "np.bool, np.int, np.float, np.object = bool, int, float, object\n"
        "import mxnet as mx\n"
        "x, w = mx.nd.ones((1, 16, 8, 8)), mx.nd.ones((16, 16, 3, 3))\n"
        "mx.nd.Convolution(x, w, kernel=(3, 3), num_filter=16, no_bias=True).wait_to_read()\n"
    )
    environment = {**os.environ, "DNNL_VERBOSE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    nowhere = os.path.abspath(os.sep)  # what lies in the user's folder is not imported
    done = subprocess.run(command, env=environment, cwd=nowhere, capture_output=True, check=False)
    found = re.search(rb"info,cpu,isa:(.*)", done.stdout)
    return "oneDNN " + found[1].decode(errors="replace") if found else "unknown"


COMMANDS = {
    "info": info,
    "save": save,
    "load": load,
    "run": run,
    "joined": joined,
    "op": op,
    "probe": probe,
    "time": timed,
}
