"""refnet's own worker: `refnet bench` times refnet as it times the frameworks, in a process of its own.

Commands: `COMMANDS` at the end. Every request names the folder to import refnet from (`paths`), and the
model with the keywords of `refnet.load`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SETTLED = 0.1
"""Seconds of whole runs before the first one of which kernels are timed."""


def timed(request: Any, arrays: Any, emit: Callable[[str, Any], None]) -> Any:
    """Time a run of a model request["runs"] times; each emits its seconds, and the next waits until it is
    wanted. Before each there are others that do not count, for request["settle"] seconds.

    request: model, weights, network, image, threads, arithmetic. Emits `pid` when all is loaded, and at the
    end the last `output`.
    """
    import os
    from time import perf_counter

    graph, arithmetic = _loaded(request)
    import numpy as np

    from refnet.core.interpreter import run
    from refnet.core.limits import limits

    emit("pid", np.array(os.getpid()))
    with limits(operations=float("inf"), memory=float("inf")):  # who times a network knows it
        for _ in range(request["runs"]):
            settled = perf_counter() + request["settle"]
            while perf_counter() < settled:
                run(graph, arrays, arithmetic)
            begin = perf_counter()
            outputs = run(graph, arrays, arithmetic)
            emit("seconds", np.array(perf_counter() - begin))
    emit("output", next(iter(outputs.values())))
    return {}, {}


def profile(request: Any, arrays: Any, emit: Any) -> Any:
    """Time each node, no two of them joined, and the whole run as it is.

    Returns `nodes` (runs, nodes) and `whole` (runs,), in seconds. The first run of each is not counted.
    """
    from time import perf_counter

    graph, arithmetic = _loaded(request)
    import numpy as np

    from refnet.core.interpreter import run, steps
    from refnet.core.limits import limits

    nodes, whole = [], []
    with limits(operations=float("inf"), memory=float("inf")):
        for _ in range(request["runs"] + 1):
            row = []
            begin = perf_counter()
            for _ in steps(graph, arrays, arithmetic):
                row.append(perf_counter() - begin)
                begin = perf_counter()
            nodes.append(row)
            begin = perf_counter()
            run(graph, arrays, arithmetic)
            whole.append(perf_counter() - begin)
    return {}, {"nodes": np.array(nodes[1:]), "whole": np.array(whole[1:])}


def kernels(request: Any, arrays: Any, emit: Any) -> Any:
    """Time each kernel of a captured run in its place, and whole runs in turns with that.

    Returns the `calls`, a mapping each (arithmetic/timed_run.py TimedCall); arrays, in seconds: `calls`
    (runs, calls), `whole` and `timed` (runs,). What runs in the first SETTLED seconds is not counted.
    """
    from dataclasses import asdict
    from time import perf_counter

    graph, arithmetic = _loaded(request)
    import numpy as np

    from refnet.arithmetic.timed_run import TimedRun
    from refnet.core.limits import limits

    whole, timed, calls = [], [], []
    with limits(operations=float("inf"), memory=float("inf")):
        run = TimedRun(graph, arrays, arithmetic)
        run.whole(), run.each()
        settled = perf_counter() + SETTLED
        while perf_counter() < settled:
            run.whole()
        for _ in range(request["runs"]):
            whole.append(run.whole())
            seconds, each = run.each()
            timed.append(seconds)
            calls.append(each)
    found = {"calls": np.array(calls), "whole": np.array(whole), "timed": np.array(timed)}
    return {"calls": [asdict(call) for call in run.calls]}, found


def _loaded(request: Any) -> Any:
    """The graph with its weights, and the arithmetic."""
    import sys

    sys.path[:0] = [path for path in request["paths"] if path not in sys.path]
    from refnet.arithmetic.named import arithmetic
    from refnet.models.loading import load

    image = tuple(request["image"]) if request["image"] else None
    graph = load(request["model"], weights=request["weights"], network=request["network"], image=image)
    return graph, arithmetic(request.get("arithmetic", "plain"), request["threads"])


COMMANDS = {"time": timed, "profile": profile, "kernels": kernels}
