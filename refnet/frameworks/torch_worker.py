"""PyTorch's worker: runs a module and yields every value it makes, by name; writes state dicts; single ops.

Needs torch and NumPy only (and the package that defines the module). Commands: `COMMANDS` at the end.

How values are found: the module's own forward runs, eagerly and unchanged. Hooks keep track of which
module's forward is being executed, and a TorchFunctionMode sees every function called in it. Each result
is written before the next operation starts, so in-place operations overwrite nothing that is still due.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MOVES = frozenset(
    (
        *("view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "expand", "contiguous"),
        *("split", "chunk", "narrow", "select", "unbind", "__getitem__", "__get__"),
        *("detach", "clone", "to", "cpu", "numpy", "size", "dim"),
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
        # without the path that the compiler had where the wheel was built: it decides no bit
        "build": re.sub(r" CXX_COMPILER=[^,]*,", "", torch.__config__.show()),
        "threads": torch.get_num_threads(),
        "isa": f"ATen {torch.backends.cpu.get_cpu_capability()}, oneDNN {_onednn_isa(torch)}",
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


def build(request: Any, arrays: Any, emit: Any) -> Any:
    """Make a module, keep it for `run`, and return its parameters and buffers: those that will run.

    request: model, arguments, options, weights and paths as for run; kept (True: the module that is kept
    already). Field `left_out`: what NumPy has no array for.
    """
    import torch

    KEPT["module"] = module = KEPT["module"] if request.get("kept") else _loaded(request)
    left_out: dict[str, str] = {}
    state = {name: one for name, one in module.state_dict().items() if isinstance(one, torch.Tensor)}
    found = {name: _array(tensor, left_out, name) for name, tensor in state.items()}
    return {"left_out": left_out}, {name: array for name, array in found.items() if array is not None}


KEPT: dict[str, Any] = {}
"""The module that `build` made: a callable may make other weights each time it is called."""


def run(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Run a module on the arrays and emit every value; returns the module's output as `output`.

    request: kept (True: the module that `build` made), or model ("package.module:callable"), arguments (a
    list) and options (an object) for the callable, weights (path of a state dict; absent: as initialised) and
    paths (folders to import from); threads, keywords (True: forward gets the arrays by their names, else in
    their order).
    An output that is a tuple, a list or a dict has its parts as `output[0]`, `output[key]`. Field `outputs`:
    output, which of a dict is called as its key, -> the value that it is. Field `left_out`: value -> why it
    cannot be handed over.
    """
    import torch

    _threads(request)
    module = KEPT["module"] if request.get("kept") else _loaded(request)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    left_out: dict[str, str] = {}

    def call() -> Any:
        return module(**tensors) if request.get("keywords") else module(*tensors.values())

    with torch.inference_mode():
        found, names = _trace(module, call, emit, left_out)
    own = {_returned(name.removeprefix("output")): value for name, value in names.items()}
    fields = {"threads": torch.get_num_threads(), "outputs": own, "left_out": left_out}
    return fields, {
        name: array for name, tensor in found.items() if (array := _array(tensor, {})) is not None
    }


def export(request: Any, arrays: Any, emit: Any) -> Any:
    """Export the module that `build` made to an .onnx file, and compare its program with the module itself.

    request: path (of the .onnx), threads, keywords (as for run), free (whether the batch may vary), traced
    (True: what torch.fx records of the module, instead of the module). Fields: refused (why torch cannot
    export it; "" if it can); inputs (names, in the module's order); outputs; values (what `run_exported`
    emits); free (whether the batch does vary); differ (how many elements of the outputs have other bits in
    the program, run node by node, than the module's own forward gives).
    """
    import numpy as np
    import torch

    _threads(request)
    module, keywords = KEPT["module"], bool(request.get("keywords"))
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    part = _part()
    try:
        one = part["traced"](module) if request.get("traced") else module
        found = part["export"](one, tensors, keywords, request["free"])
        program = part["values"](found, list(tensors.values()), None, {})
        with torch.inference_mode():
            own = _tensors(module(**tensors) if keywords else module(*tensors.values()))
        made = [one for one in program if isinstance(one, torch.Tensor)]
        pairs = [(one.numpy(), other.numpy()) for one, other in zip(made, own.values(), strict=True)]
        differ = sum(int((_bits(np, a) != _bits(np, b)).sum()) for a, b in pairs)
        part["save"](found, list(map(_returned, own)), request["path"])
    except Exception as error:  # whatever torch's compiler raises; the caller falls back to hooks
        return {"refused": _said(error)}, {}
    KEPT["exported"] = found
    fields = {"refused": "", "inputs": list(found.inputs), "outputs": list(found.outputs), "differ": differ}
    values = [node.name for node in found.program.graph.nodes if node.name in found.names]
    return {**fields, "values": values, "free": found.free}, {}


def _said(error: BaseException) -> str:
    """The first line of what is at the bottom of an error, without colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}"[:300]


def _bits(np: Any, array: Any) -> Any:
    """What is compared as bits: a float32 as the integer of its bits."""
    return array.view(np.int32) if array.dtype == np.float32 else array


def _returned(part: str) -> str:
    """What an output of a module is called, of its place: of a dict the key, else output[0], output[1] ...

    >>> _returned("[logits]"), _returned("[hidden][0]"), _returned("[1]"), _returned("")
    ('logits', 'hidden[0]', 'output[1]', 'output')
    """
    first, _, rest = part[1:].partition("]")
    return f"output{part}" if not first or first.isdecimal() else first + rest


def run_exported(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Run the program that `export` made, node by node; emits every value that its .onnx has.

    request: threads. Fields: outputs (output -> value), left_out (value -> why it is not emitted).
    """
    import torch

    _threads(request)
    found = KEPT["exported"]
    left_out: dict[str, str] = {}
    tensors = [torch.from_numpy(array) for array in arrays.values()]
    _part()["values"](found, tensors, emit, left_out)
    return {"outputs": {name: name for name in found.outputs}, "left_out": left_out}, {}


def alone(request: Any, arrays: Any, emit: Any) -> Any:
    """Which nodes of the program that `export` made can be run alone, with `probe`.

    request: nodes, value -> [names of its inputs in the .onnx, their shapes]. Field refused: value -> why it
    cannot.
    """
    refused = {}
    for name, (inputs, shapes) in request["nodes"].items():
        try:
            _part()["alone"](KEPT["exported"], name, inputs, shapes)
        except LookupError as error:
            refused[name] = str(error.args[0])
    return {"refused": refused}, {}


def _part() -> dict[str, Any]:
    """The functions of torch_export_worker.py, which lies beside this file; this process has no refnet."""
    import os
    import runpy

    if not PART:
        here = os.path.dirname(os.path.abspath(__file__))
        PART.update(runpy.run_path(os.path.join(here, "torch_export_worker.py")))
    return PART


PART: dict[str, Any] = {}
"""What torch_export_worker.py defines, once it was needed."""


def timed(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Time a run of a module request["runs"] times; each emits its seconds, and the next waits until it is
    wanted. Before each there are others that do not count, for request["settle"] seconds.

    request: as for run. Emits `pid` when all is loaded, and at the end the last run's first `output`. Nothing
    is watched: plain eager mode.
    """
    import os
    from time import perf_counter

    import numpy as np
    import torch

    _threads(request)
    module = _loaded(request)
    data = [torch.from_numpy(array) for array in arrays.values()]
    emit("pid", np.array(os.getpid()))
    with torch.inference_mode():
        for _ in range(request["runs"]):
            settled = perf_counter() + request["settle"]
            while perf_counter() < settled:
                module(*data)
            begin = perf_counter()
            output = module(*data)
            emit("seconds", np.array(perf_counter() - begin))
    emit("output", next(iter(_tensors(output).values())).numpy())
    return {}, {}


def op(request: Any, arrays: Any, emit: Any) -> Any:
    """Call one function. request: function (a name in FUNCTIONS), arguments (keywords), threads."""
    import torch

    _threads(request)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with torch.inference_mode():
        result = FUNCTIONS[request["function"]](torch, tensors, request.get("arguments", {}))
    return {}, {"y": result.numpy()}


def probe(request: Any, arrays: Any, emit: Any) -> Any:
    """Call one function many times; returns the results, stacked, as `y`.

    request: function, arguments and threads as for op, or node: [value, names of its inputs, their shapes], a
    node that `alone` did not refuse; each: names of the arrays whose first axis counts the
    calls (the others are the same in all); take: per axis of the result an index, or null for all of it.
    Arrays are copied to where torch itself would put them: some routines depend on the alignment.
    """
    import numpy as np
    import torch

    _threads(request)
    each = set(request["each"])
    take = tuple(slice(None) if index is None else index for index in request["take"])
    function, arguments = _function(request), request.get("arguments", {})
    fixed = {name: torch.from_numpy(array).clone() for name, array in arrays.items() if name not in each}
    found = []
    with torch.inference_mode():
        for i in range(len(arrays[request["each"][0]])):
            tensors = {
                name: torch.from_numpy(arrays[name][i]).clone() if name in each else fixed[name]
                for name in arrays
            }
            found.append(function(torch, tensors, arguments).numpy()[take].copy())
    return {}, {"y": np.stack(found)}


def _function(request: Any) -> Callable[[Any, Any, Any], Any]:
    """What `probe` calls: a function of its own, or a node of the exported module."""
    if "node" not in request:
        return FUNCTIONS[request["function"]]
    node = _part()["alone"](KEPT["exported"], *request["node"])
    return lambda torch, t, a: node(list(t.values()))


CONVOLUTIONS = ("conv1d", "conv3d", *(f"conv_transpose{rank}d" for rank in (1, 2, 3)))


def _named(name: str) -> Callable[[Any, Any, Any], Any]:
    """A convolution of torch.nn.functional."""
    return lambda torch, t, a: getattr(torch.nn.functional, name)(t["x"], t["weight"], t.get("bias"), **a)


FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "conv2d": lambda torch, t, a: torch.nn.functional.conv2d(t["x"], t["weight"], t.get("bias"), **a),
    "linear": lambda torch, t, a: torch.nn.functional.linear(
        torch.flatten(t["x"], 1), t["weight"], t.get("bias"), **a
    ),
    **{name: _named(name) for name in CONVOLUTIONS},
    "matmul": lambda torch, t, a: torch.matmul(*t.values()),
    "product": lambda torch, t, a: torch.nn.functional.linear(
        t["x"], t["weight"] if a["transposed"] else t["weight"].T.contiguous(), t.get("bias")
    ),
    "layer_norm": lambda torch, t, a: torch.nn.functional.layer_norm(
        t["x"], t["gamma"].shape, t["gamma"], t.get("beta"), **a
    ),
    "rms_norm": lambda torch, t, a: torch.nn.functional.rms_norm(t["x"], t["gamma"].shape, t["gamma"], **a),
    "group_norm": lambda torch, t, a: torch.nn.functional.group_norm(
        t["x"], weight=t["gamma"], bias=t["beta"], **a
    ),
    "instance_norm": lambda torch, t, a: torch.nn.functional.instance_norm(
        t["x"], weight=t["gamma"], bias=t["beta"], **a
    ),
    "log_softmax": lambda torch, t, a: torch.log_softmax(t["x"], **a),
    "logsumexp": lambda torch, t, a: torch.logsumexp(t["x"], **a),
    "vector_norm": lambda torch, t, a: torch.linalg.vector_norm(t["x"], **a),
    "max_pool2d": lambda torch, t, a: torch.nn.functional.max_pool2d(t["x"], **a),
    "avg_pool2d": lambda torch, t, a: torch.nn.functional.avg_pool2d(t["x"], **a),
    "adaptive_avg_pool2d": lambda torch, t, a: torch.nn.functional.adaptive_avg_pool2d(t["x"], **a),
    "batch_norm": lambda torch, t, a: torch.nn.functional.batch_norm(
        t["x"], t["mean"], t["var"], t["gamma"], t["beta"], training=False, **a
    ),
    "relu": lambda torch, t, a: torch.relu(t["x"]),
    "sigmoid": lambda torch, t, a: torch.sigmoid(t["x"]),
    "exp": lambda torch, t, a: torch.exp(t["x"]),
    "softmax": lambda torch, t, a: torch.softmax(t["x"], **a),
    "cat": lambda torch, t, a: torch.cat(list(t.values()), **a),
    "sum": lambda torch, t, a: torch.sum(t["x"], **a),
    "mean": lambda torch, t, a: torch.mean(t["x"], **a),
    "add": lambda torch, t, a: t["x0"] + t["x1"],
    "mul": lambda torch, t, a: t["x0"] * t["x1"],
    "upsample_nearest": lambda torch, t, a: torch.nn.functional.interpolate(t["x"], mode="nearest", **a),
    "flatten": lambda torch, t, a: torch.flatten(t["x"], 1),
    # The split attention of the official ResNeSt, in its own words: Python's sum starts from 0.
    "radix_sum": lambda torch, t, a: sum(torch.split(t["x"], t["x"].shape[1] // a["radix"], dim=1)),
    "weighted_sum": lambda torch, t, a: sum(
        weight * part
        for weight, part in zip(
            torch.split(t["x0"][:, :, None, None], t["x0"].shape[1] // a["radix"], dim=1),
            torch.split(t["x1"], t["x1"].shape[1] // a["radix"], dim=1),
            strict=True,
        )
    ),
    "radix_softmax": lambda torch, t, a: _radix_softmax(torch, t["x"], a["radix"], a["cardinality"]),
}


ELEMENTWISE = (
    *("celu", "elu", "gelu", "hardsigmoid", "hardswish", "mish", "selu", "silu", "softplus", "softsign"),
    *("cos", "erf", "log", "pow", "sin", "sqrt", "tanh"),
)
"""Functions of one value, of torch.nn.functional or of torch itself."""


def _elementwise(name: str) -> Callable[[Any, Any, Any], Any]:
    def function(torch: Any, t: Any, a: Any) -> Any:
        return getattr(torch if hasattr(torch, name) else torch.nn.functional, name)(t["x"], **a)

    return function


FUNCTIONS |= {name: _elementwise(name) for name in ELEMENTWISE}


def _radix_softmax(torch: Any, x: Any, radix: int, cardinality: int) -> Any:
    """(n, K*R*m, 1, 1) -> (n, R*K*m)"""
    if radix == 1:
        return torch.sigmoid(x).reshape(len(x), -1)
    parts = x.view(len(x), cardinality, radix, -1).transpose(1, 2)
    return torch.nn.functional.softmax(parts, dim=1).reshape(len(x), -1)


def _threads(request: Any) -> None:
    import torch

    if request.get("threads"):
        torch.set_num_threads(int(request["threads"]))


def _close(word: str, known: Any) -> str:
    """What refnet.core.words.did_you_mean says; this process has no refnet."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 3, 0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _build(request: Any) -> Any:
    import importlib
    import pkgutil
    import sys

    paths = request.get("paths", [])
    for path in paths:
        if path not in sys.path:
            sys.path.insert(0, path)
    package, _, name = request["model"].partition(":")
    try:
        found: Any = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        beside = [one.name for one in pkgutil.iter_modules(paths)]
        where = _close(package, beside) or "; --path DIR (paths= in Python) names the folder that it lies in"
        raise ModuleNotFoundError(f"{error}{where}", name=package) from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise AttributeError(f"{package} has no {part!r}{_close(part, dir(found))}")
        found = getattr(found, part)
    return found(*request.get("arguments", []), **request.get("options", {}))


def _loaded(request: Any) -> Any:
    """The module, with the state dict that the request names, ready to run."""
    import torch

    module = _build(request)
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"{request['model']} returns {type(module).__name__}, not a torch.nn.Module")
    module.eval()
    if request.get("weights"):
        state = torch.load(request["weights"], map_location="cpu", weights_only=True)
        module.load_state_dict(state, strict=True)
    return module


def _trace(
    module: Any, call: Callable[[], Any], emit: Callable[[str, Any], None], left_out: dict[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Call the module once, emitting values under their names; its outputs, and which values they are.

    A module's output carries the module's path, from its second call on with _1, _2 ...; a function's
    result carries the path of the module whose forward calls it, a dot, the function's name and the same
    counting. Parts of a tuple, a list or a dict have [0], [key] behind. Modules of torch.nn are not looked
    into, unless they are containers. What a module with inner values returns is often one of them: it is
    emitted under both names. An output that no function made (a view, say) is emitted as `output`.
    """
    import weakref

    from torch.overrides import TorchFunctionMode

    owners: list[str] = []  # paths of the modules whose forward is running, outermost first
    inside = [0]  # how many of them are leaves
    counts: dict[str, int] = {}
    made: list[tuple[Any, str]] = []  # (weak reference, name) of every value

    def emitted(path: str, value: Any) -> None:
        tensors = _tensors(value)
        if not tensors:
            return
        inside[0] += 1  # what is called here is no value of the module's
        count = counts[path] = counts.get(path, -1) + 1
        for part, tensor in tensors.items():
            name = (f"{path}_{count}" if count else path) + part
            array = _array(tensor, left_out, name)
            made.append((weakref.ref(tensor), name))
            if array is not None:
                emit(name, array)
        inside[0] -= 1

    def enter(path: str, leaf: bool) -> Callable[[Any, Any], None]:
        def hook(_module: Any, _inputs: Any) -> None:
            owners.append(path)
            inside[0] += leaf

        return hook

    def leave(path: str, leaf: bool) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _inputs: Any, value: Any) -> None:
            owners.pop()
            inside[0] -= leaf
            if not inside[0] and path:
                emitted(path, value)

        return hook

    class Watch(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            value = func(*args, **(kwargs or {}))
            name = getattr(func, "__name__", "")
            if not inside[0] and owners and name not in MOVES:
                emitted(".".join(filter(None, (owners[-1], IN_PLACE.get(name, name)))), value)
            return value

    hooks = []
    for path, child in module.named_modules():
        leaf = _is_leaf(child)
        hooks.append(child.register_forward_pre_hook(enter(path, leaf)))
        hooks.append(child.register_forward_hook(leave(path, leaf)))
    try:
        with Watch():
            output = call()
    finally:
        for hook in hooks:  # the module may run again
            hook.remove()
    found = {f"output{part}": tensor for part, tensor in _tensors(output).items()}
    names = {}
    for name, tensor in found.items():
        known = [value for weak, value in made if weak() is tensor and value not in left_out]
        if known:
            names[name] = known[-1]
        elif (array := _array(tensor, left_out, name)) is not None:
            emit(name, array)
            names[name] = name
    return found, names


def _tensors(value: Any) -> dict[str, Any]:
    """The tensors in what a function returns: {"": a tensor}, or {"[0]": ..., "[key][1]": ...}."""
    import torch

    if isinstance(value, torch.Tensor):
        return {"": value}
    if isinstance(value, dict):
        pairs = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        pairs = list(zip(value._fields, value, strict=True))
    elif isinstance(value, tuple | list):
        pairs = [(str(i), part) for i, part in enumerate(value)]
    else:
        return {}
    return {f"[{key}]{rest}": t for key, part in pairs for rest, t in _tensors(part).items()}


def _array(tensor: Any, left_out: dict[str, str], name: str = "") -> Any:
    """The tensor as NumPy's array; None, and why, if NumPy has no such array (bfloat16, sparse ...)."""
    try:
        return tensor.detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:
        left_out[name] = str(error).split("\n")[0][:200]
        return None


def _onednn_isa(torch: Any) -> str:
    """The instruction set that oneDNN says it uses: it prints so at its first primitive in verbose mode."""
    import os
    import re
    import tempfile

    if not ISA and torch.backends.mkldnn.is_available():
        with tempfile.TemporaryFile() as file:
            real = os.dup(1)
            os.dup2(file.fileno(), 1)
            try:
                with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON), torch.inference_mode():
                    x, w = torch.ones(1, 16, 8, 8), torch.ones(16, 16, 3, 3)
                    torch.mkldnn_convolution(x, w, None, (0, 0), (1, 1), (1, 1), 1)
            finally:
                os.dup2(real, 1)
                os.close(real)
            file.seek(0)
            ISA.extend(re.findall(r"info,cpu,isa:(.*)", file.read().decode(errors="replace")))
    return ISA[0] if ISA else "unknown"


ISA: list[str] = []
"""What oneDNN printed; it does so only once."""


def _is_leaf(module: Any) -> bool:
    import torch

    containers = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, containers)


COMMANDS = {
    "info": info,
    "save": save,
    "load": load,
    "build": build,
    "run": run,
    "export": export,
    "run_exported": run_exported,
    "alone": alone,
    "op": op,
    "probe": probe,
    "time": timed,
}
