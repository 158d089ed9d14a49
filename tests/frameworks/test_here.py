"""A worker's commands in this process: values one at a time, errors where they happen, a module as it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from refnet.core.errors import FrameworkError, InputError
from refnet.frameworks import torch_worker
from refnet.frameworks.here import Here
from refnet.frameworks.own_module import capture_torch


class Part:
    """What Here uses of a torch.nn.Module."""

    def __init__(self, *parts):
        self.parts, self.training = parts, True

    def modules(self):
        return [self, *(one for part in self.parts for one in part.modules())]

    def eval(self):
        for one in self.modules():
            one.training = False

    def forward(self, x):
        return x

    def state_dict(self):
        return {}


@pytest.fixture
def made(monkeypatch):
    """What the fake torch did, in order."""
    log = []

    def info(request, arrays, emit):
        log.append(("threads", request.get("threads")))
        return {"threads": 3}, {}

    def count(request, arrays, emit):
        for i in range(request["to"]):
            log.append(("made", i))
            emit(f"v{i}", arrays["x"] + i)
        if request.get("fails"):
            raise ValueError("no more")
        return {"sum": request["to"]}, {"last": arrays["x"]}

    monkeypatch.setattr(torch_worker, "COMMANDS", {"info": info, "count": count})
    return log


X = {"x": np.zeros(2, np.float32)}


def test_values_come_one_at_a_time_and_the_answer_at_the_end(made):
    stream = Here(Part()).stream("count", {"to": 3}, X)
    made.clear()
    found = []
    while True:
        try:
            found.append(next(stream))
        except StopIteration as end:
            answer = end.value
            break
        assert made == [("made", i) for i in range(len(found))]  # the next one waits
    assert [(name, array.tolist()) for name, array in found] == [(f"v{i}", [i, i]) for i in range(3)]
    assert answer.field("sum", int) == 3


def test_an_error_is_raised_after_the_values_before_it(made):
    stream = Here(Part()).stream("count", {"to": 1, "fails": True}, X)
    assert next(stream)[0] == "v0"
    with pytest.raises(FrameworkError, match="torch: ValueError: no more"):
        next(stream)


def test_who_leaves_early_leaves_no_thread(made):
    before = threading.active_count()
    stream = Here(Part()).stream("count", {"to": 5}, X)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_the_module_and_the_threads_are_afterwards_as_they_were(made):
    inner = Part()
    module = Part(inner, Part())
    inner.training = False
    with Here(module):
        assert [one.training for one in module.modules()] == [False] * 3
        assert {"module": module} == torch_worker.KEPT
    assert [one.training for one in module.modules()] == [True, False, True]
    assert torch_worker.KEPT == {}
    assert made[-1] == ("threads", 3)


def test_what_is_no_module_or_no_input_is_an_error(made, tmp_path):
    x = np.zeros((2, 3), np.float32)
    for module, inputs, said in (
        (7, x, "module must be a torch.nn.Module, got 7"),
        (Part, x, "module must be a torch.nn.Module, got <class"),
        (Part(), "seed:0", "inputs must be an array or a tensor, or several, got 'seed:0'"),
        (Part(), [], "inputs: none"),
        (Part(), x.astype(np.float64), "inputs: x is float64, expected float32"),
        (Part(), np.float32(1), r"inputs: x is of shape \[\]"),
        (Part(), (x, x[:1]), "one batch size, got {'x': 2, 'input_1': 1}"),
    ):
        with pytest.raises(InputError, match=said):
            capture_torch(module, inputs, tmp_path / "c")
    with pytest.raises(InputError, match="mode must be eager or exported, or None, got 'fast'"):
        capture_torch(Part(), x, tmp_path / "c", mode="fast")
    with pytest.raises(InputError, match="dynamic_batch True: mode eager makes no graph"):
        capture_torch(Part(), x, tmp_path / "c", mode="eager", dynamic_batch=True)
    assert not (tmp_path / "c").exists()
