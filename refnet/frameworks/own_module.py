"""The public function for a torch module that exists in the caller's own process: refnet.capture_torch.

refnet.capture_torch ── Here (here.py) ── module_plan (capture/torch_module.py) ── write (capture/writer.py)
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refnet.core.errors import InputError
from refnet.core.op import F32
from refnet.formats.arguments import Requirement, check_arguments
from refnet.formats.manifest import file_name
from refnet.formats.npy import CODES
from refnet.frameworks.capture.names import MODES
from refnet.frameworks.capture.parameters import parameters_hash
from refnet.frameworks.capture.sources import reference
from refnet.frameworks.capture.torch_module import Asked, ExportedModule, module_plan
from refnet.frameworks.capture.writer import write
from refnet.frameworks.here import Here
from refnet.frameworks.public import CaptureResult
from refnet.models.inputs import Inputs
from refnet.verification.progress import Progress, advancing

TENSORS = Requirement("an array or a tensor, or several", lambda v: not isinstance(v, str), needed=True)
CHOICE = Requirement("True, False or None", lambda v: isinstance(v, bool))
PARTS = ("forward", "eval", "modules", "state_dict")
"""What of a torch.nn.Module is used here; refnet does not import the class."""


def capture_torch(
    module: Any,
    inputs: Any,
    folder: str | os.PathLike[str],
    *,
    dynamic_batch: bool | None = None,
    mode: str | None = None,
    threads: int | None = None,
    hash_only: bool = False,
    progress: Progress | None = None,
) -> CaptureResult:
    """Run a torch module of this process, and write every value and the module's graph into a folder.

    module: a torch.nn.Module on the CPU; it runs in evaluation mode and is afterwards as it was. inputs: what
    its forward takes: an array or tensor (n, ...), several of them in a tuple or list in the order of its
    arguments, or a mapping by their names: float32, integers or booleans. Their first
    dimension is the batch n. dynamic_batch: True: the graph must be for any batch, False: it is for this one;
    None: for any batch where that can be.
    mode: "exported": the module must be exported; "eager": by hooks on its modules, without a graph; None:
    exported by torch.export, else by torch.fx, else eager; the manifest's flags say which, and what refused.
    threads: torch's, None for as many as it has now. hash_only: keep the sha256 of each value only.
    progress: called after each value with (done, of how many).

    `refnet capture torch package.module:callable` does the same in a process of its own, where no setting of
    yours (flushing subnormals, deterministic algorithms, other precisions) changes a bit.

    Raises InputError for what is no such module or input, a folder that holds something else, and a module
    that cannot be exported as it must; FrameworkError if the module fails.

    >>> import refnet
    >>> refnet.capture_torch(network, torch.rand(1, 3, 32, 32), "caps")  # doctest: +SKIP
    >>> refnet.verify("caps").exit_code  # doctest: +SKIP
    0
    """
    check_arguments(locals(), {"inputs": TENSORS, "dynamic_batch": CHOICE})
    if mode not in (None, *MODES["torch"]):
        raise InputError(f"mode must be {' or '.join(MODES['torch'])}, or None, got {mode!r}")
    if dynamic_batch is not None and mode == "eager":
        raise InputError(f"dynamic_batch {dynamic_batch}: mode eager makes no graph")
    _check_module(module)
    arrays, keywords = _arrays(module, inputs)
    given = Inputs(arrays, file_name(next(iter(arrays))), False, None)
    name = f"{type(module).__module__}.{type(module).__qualname__}"

    def own(exported: ExportedModule) -> Inputs:
        """The same arrays, by the exported module's own names."""
        values = [arrays[name] for name in exported.order] if keywords else arrays.values()
        named = dict(zip(exported.order, values, strict=True))
        return replace(given, arrays=named, source=file_name(exported.order[0]))

    with ExitStack() as stack:
        worker = stack.enter_context(Here(module))
        flags = {"module": name, "process": "the module's own"}
        count = threads or worker.threads
        who = reference("torch", worker, threads=count, batch=given.batch, mode="eager", flags=flags)
        ran = worker.ask("build", {"kept": True}).arrays
        who = replace(who, flags={**flags, "parameters": f"sha256 {parameters_hash(ran)}"})
        asked = Asked(worker, given, keywords, who, name, mode, dynamic_batch)
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="refnet-capture-"))
        plan = module_plan(asked, Path(place), own)
        done = write(folder, plan, hash_only=hash_only, advance=advancing(progress, plan.total))
    return CaptureResult(Path(folder), done.manifest, done.found, done.left_out)


def _check_module(module: Any) -> None:
    """Raises InputError for what is no module, or has a parameter that is not on the CPU or not float32."""
    if isinstance(module, type) or not all(callable(getattr(module, name, None)) for name in PARTS):
        raise InputError(f"module must be a torch.nn.Module, got {module!r:.100}")
    for name, tensor in module.state_dict().items():
        device, kind = str(getattr(tensor, "device", "cpu")), str(getattr(tensor, "dtype", ""))
        if device != "cpu":
            raise InputError(
                f"module: {name} is on {device}; only modules on the CPU can be captured: .cpu()"
            )
        if kind in ("torch.float16", "torch.bfloat16", "torch.float64"):
            raise InputError(f"module: {name} is {kind}; refnet judges float32: .float()")


def _arrays(module: Any, inputs: Any) -> tuple[dict[str, F32], bool]:
    """The inputs by the names of forward's arguments, and whether they are given by name."""
    parameters = inspect.signature(module.forward).parameters.values()
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [one.name for one in parameters if one.kind in places]
    if isinstance(inputs, Mapping):
        given = {str(name): _array(str(name), value) for name, value in inputs.items()}
    else:
        listed = list(inputs) if isinstance(inputs, tuple | list) else [inputs]
        names += [f"input_{i}" for i in range(len(names), len(listed))]
        given = {name: _array(name, value) for name, value in zip(names, listed, strict=False)}
    if not given:
        raise InputError("inputs: none; a module is captured by running it on something")
    counts = {name: array.shape[0] for name, array in given.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"inputs: their first dimensions must be one batch size, got {counts}")
    return given, isinstance(inputs, Mapping)


def _array(name: str, value: Any) -> F32:
    """An array of an array or a tensor."""
    found = np.array(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    if found.dtype.name not in CODES:
        hint = ": .float()" if found.dtype.kind == "f" else ""
        raise InputError(f"inputs: {name} is {found.dtype}, expected float32, integers or booleans{hint}")
    if found.ndim < 1 or found.size == 0:
        raise InputError(f"inputs: {name} is of shape {list(found.shape)}, expected (n, ...) with an element")
    return found
