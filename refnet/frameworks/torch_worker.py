"""PyTorch's worker: runs a module and yields every value it makes, by name; writes state dicts; single ops.

Needs torch and NumPy only (and the package that defines the module). Commands: `COMMANDS` at the end.

How values are found: the module's own forward runs, eagerly and unchanged. Hooks keep track of which
module's forward is being executed, and a TorchFunctionMode sees every function called in it. Each result
is written before the next operation starts, so in-place operations overwrite nothing that is still due.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOVES = frozenset(
    (
        *("view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "expand", "contiguous"),
        *("split", "chunk", "narrow", "select", "unbind", "__getitem__", "__get__"),
        *("detach", "clone", "to", "size", "dim"),
    )
)
"""Functions that only look at or move elements: they make no value of their own (flatten does)."""

IN_PLACE = {"add_": "iadd", "sub_": "isub", "mul_": "imul", "div_": "idiv"}
"""What torch calls `a += b`, and what Python does."""


def info(request: Any, arrays: Any, emit: Any) -> Any:
    """Which torch this is and how it was built."""
    import torch

    _threads(request)
    fields = {
        "framework": "torch",
        "version": str(torch.__version__),
        "build": torch.__config__.show(),
        "threads": torch.get_num_threads(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "mode": "eager",
    }
    return fields, {}


def save(request: Any, arrays: Any, emit: Any) -> Any:
    """Write the arrays as a state dict. request: path, zip (False: the legacy format), counters (names)."""
    from collections import OrderedDict

    import torch

    state = OrderedDict((name, torch.from_numpy(array.copy())) for name, array in arrays.items())
    for name in request.get("counters", []):
        state[name] = torch.tensor(0, dtype=torch.int64)
    torch.save(state, request["path"], _use_new_zipfile_serialization=bool(request.get("zip", True)))
    return {}, {}


def load(request: Any, arrays: Any, emit: Any) -> Any:
    """Read a state dict and return its arrays. request: path."""
    import torch

    state = torch.load(request["path"], map_location="cpu", weights_only=True)
    return {}, {name: tensor.numpy() for name, tensor in state.items()}


def run(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Run a module on the array `data` and emit every value; returns the module's output as `output`.

    request: model ("package.module:callable"), arguments (a list) and options (an object) for the callable,
    weights (path of a state dict; absent: as initialised), paths (folders to import from), threads.
    """
    import torch

    _threads(request)
    module = _build(request)
    module.eval()
    if request.get("weights"):
        state = torch.load(request["weights"], map_location="cpu", weights_only=True)
        module.load_state_dict(state, strict=True)
    data = torch.from_numpy(arrays["data"])
    with torch.inference_mode():
        output = _trace(module, data, emit)
    return {"threads": torch.get_num_threads()}, {"output": output.numpy()}


def timed(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Time a run of a module request["runs"] times; each emits its seconds, and the next waits until it is
    wanted. Before each there are others that do not count, for request["settle"] seconds.

    request: as for run. Emits `pid` when all is loaded, and at the end the last `output`. Nothing is watched:
    plain eager mode.
    """
    import os
    from time import perf_counter

    import numpy as np
    import torch

    _threads(request)
    module = _build(request)
    module.eval()
    module.load_state_dict(torch.load(request["weights"], map_location="cpu", weights_only=True), strict=True)
    data = torch.from_numpy(arrays["data"])
    emit("pid", np.array(os.getpid()))
    with torch.inference_mode():
        for _ in range(request["runs"]):
            settled = perf_counter() + request["settle"]
            while perf_counter() < settled:
                module(data)
            begin = perf_counter()
            output = module(data)
            emit("seconds", np.array(perf_counter() - begin))
    emit("output", output.numpy())
    return {}, {}


def op(request: Any, arrays: Any, emit: Any) -> Any:
    """Call one function. request: function (a name in FUNCTIONS), arguments (keywords), threads."""
    import torch

    _threads(request)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with torch.inference_mode():
        result = FUNCTIONS[request["function"]](torch, tensors, request.get("arguments", {}))
    return {}, {"y": result.numpy()}


FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "conv2d": lambda torch, t, a: torch.nn.functional.conv2d(t["x"], t["weight"], t.get("bias"), **a),
    "linear": lambda torch, t, a: torch.nn.functional.linear(t["x"], t["weight"], t.get("bias"), **a),
    "max_pool2d": lambda torch, t, a: torch.nn.functional.max_pool2d(t["x"], **a),
    "avg_pool2d": lambda torch, t, a: torch.nn.functional.avg_pool2d(t["x"], **a),
    "adaptive_avg_pool2d": lambda torch, t, a: torch.nn.functional.adaptive_avg_pool2d(t["x"], **a),
    "batch_norm": lambda torch, t, a: torch.nn.functional.batch_norm(
        t["x"], t["mean"], t["var"], t["gamma"], t["beta"], training=False, **a
    ),
    "relu": lambda torch, t, a: torch.relu(t["x"]),
    "sigmoid": lambda torch, t, a: torch.sigmoid(t["x"]),
    "softmax": lambda torch, t, a: torch.softmax(t["x"], **a),
    "cat": lambda torch, t, a: torch.cat(list(t.values()), **a),
    "add": lambda torch, t, a: t["x0"] + t["x1"],
    "mul": lambda torch, t, a: t["x0"] * t["x1"],
    "upsample_nearest": lambda torch, t, a: torch.nn.functional.interpolate(t["x"], mode="nearest", **a),
    "flatten": lambda torch, t, a: torch.flatten(t["x"], 1),
}


def _threads(request: Any) -> None:
    import torch

    if request.get("threads"):
        torch.set_num_threads(int(request["threads"]))


def _build(request: Any) -> Any:
    import importlib
    import sys

    for path in request.get("paths", []):
        if path not in sys.path:
            sys.path.insert(0, path)
    package, _, name = request["model"].partition(":")
    found: Any = importlib.import_module(package)
    for part in name.split("."):
        found = getattr(found, part)
    return found(*request.get("arguments", []), **request.get("options", {}))


def _trace(module: Any, data: Any, emit: Callable[[str, Any], None]) -> Any:
    """Run the module once, emitting values under their names.

    A module's output carries the module's path, from its second call on with _1, _2 ...; a function's
    result carries the path of the module whose forward calls it, a dot, the function's name and the same
    counting. Modules of torch.nn are not looked into, unless they are containers. What a module with inner
    values returns is often one of them: it is emitted under both names.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    owners: list[str] = []  # paths of the modules whose forward is running, outermost first
    inside = [0]  # how many of them are leaves
    counts: dict[str, int] = {}

    def emitted(name: str, value: Any) -> None:
        count = counts[name] = counts.get(name, -1) + 1
        emit(f"{name}_{count}" if count else name, value.detach().numpy())

    def enter(path: str, leaf: bool) -> Callable[[Any, Any], None]:
        def hook(_module: Any, _inputs: Any) -> None:
            owners.append(path)
            inside[0] += leaf

        return hook

    def leave(path: str, leaf: bool) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, value: Any) -> None:
            owners.pop()
            inside[0] -= leaf
            if not inside[0] and path and isinstance(value, torch.Tensor):
                emitted(path, value)

        return hook

    class Watch(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            value = func(*args, **(kwargs or {}))
            name = getattr(func, "__name__", "")
            if not inside[0] and owners and name not in MOVES and isinstance(value, torch.Tensor):
                emitted(".".join(filter(None, (owners[-1], IN_PLACE.get(name, name)))), value)
            return value

    for path, child in module.named_modules():
        leaf = _is_leaf(child)
        child.register_forward_pre_hook(enter(path, leaf))
        child.register_forward_hook(leave(path, leaf))
    with Watch():
        return module(data)


def _is_leaf(module: Any) -> bool:
    import torch

    containers = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, containers)


COMMANDS = {"info": info, "save": save, "load": load, "run": run, "op": op, "time": timed}
