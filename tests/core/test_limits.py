"""What a run may cost, and how a long one is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

import refnet
from refnet.core.interrupt import LONG, Stopped, current, interruptible
from refnet.core.limits import MEMORY, OPERATIONS, limits, long_ones, run_cost
from refnet.kernels.chunks import chunk, next_chunk
from refnet.kernels.thread_pool import parallel_for
from refnet.models.catalog import build, entries
from refnet.models.cost import summary
from refnet.ops import Add, Conv, Relu


def graph(*nodes: refnet.Node, shape=(1, 1, 4, 4)) -> refnet.Graph:
    return refnet.Graph("g", {"x": refnet.TensorType(shape)}, nodes, {"out": nodes[-1].name})


def chain(count: int) -> refnet.Graph:
    names = ["x", *(f"r{i}" for i in range(count))]
    return graph(*(refnet.Node(b, Relu(), (a,)) for a, b in pairwise(names)))


X = {"x": np.zeros((1, 1, 4, 4), np.float32)}


@pytest.mark.parametrize("go", [refnet.run, lambda *a: list(refnet.steps(*a))])
@pytest.mark.parametrize("arithmetic", [refnet.Plain, refnet.Golden])
def test_a_run_beyond_the_limits_says_its_cost(go, arithmetic):
    """Each relu has 16 elements and 16 operations; values are freed after their last use."""
    net = chain(5)
    go(net, X, arithmetic())
    with limits(operations=5 * 32, memory=2 * 64):
        go(net, X, arithmetic())
        fresh = chain(5)  # nothing known of it
        go(fresh, X, arithmetic())
    with limits(operations=5 * 32 - 1), pytest.raises(refnet.InputError, match="takes 160 operations"):
        go(chain(5), X, arithmetic())
    with limits(memory=2 * 64 - 1), pytest.raises(refnet.InputError, match=r"GiB for the values at 'r0'"):
        go(chain(5), X, arithmetic())


@pytest.mark.parametrize("arithmetic", [refnet.Plain, refnet.Golden])
@pytest.mark.parametrize("runs", [1, 2, 3])
def test_a_run_that_is_known_has_the_limits_too(arithmetic, runs):
    """Its plan is kept, from the second run of Plain on its kernel calls."""
    net, own = chain(5).with_weights({}), arithmetic()
    for _ in range(runs):
        refnet.run(net, X, own)
    with limits(operations=5 * 32 - 1), pytest.raises(refnet.InputError, match="takes 160 operations"):
        refnet.run(net, X, own)
    with limits(memory=2 * 64 - 1), pytest.raises(refnet.InputError, match=r"GiB for the values at 'r0'"):
        refnet.run(net, X, own)
    assert refnet.run(net, X, own)["out"].shape == (1, 1, 4, 4)


def test_the_message_names_the_node_and_the_option():
    net = graph(
        refnet.Node("conv", Conv(3, (3, 3), (1, 1), (1, 1), (1, 1), 1, False), ("x", "w")),
        refnet.Node("r" * 300, Relu(), ("conv",)),
    ).with_weights({"w": np.zeros((3, 1, 3, 3), np.float32)})
    with limits(operations=1), pytest.raises(refnet.InputError) as error:
        refnet.run(net, X)
    assert "912 of them for 'conv'" in str(error.value)
    assert "--limit-operations" in str(error.value)
    with limits(memory=1), pytest.raises(refnet.InputError) as error:
        refnet.run(net, X)
    assert "--limit-memory" in str(error.value)
    assert len(str(error.value)) < 500


def test_values_that_live_long_count_together():
    nodes = [refnet.Node(f"r{i}", Relu(), ("x",)) for i in range(6)]
    net = graph(*nodes, refnet.Node("sum", Add(6), tuple(node.name for node in nodes)))
    types = net.types()
    frees = [()] * 6 + [tuple(types)]
    with limits(memory=8 * 64):
        run_cost("g", net.nodes, types, frees).check()
    with limits(memory=8 * 64 - 1), pytest.raises(refnet.InputError, match="at 'sum'"):
        run_cost("g", net.nodes, types, frees).check()


def test_verification_and_golden_files_have_the_limits(tmp_path):
    from refnet.models.weights import shipped_captures

    with limits(operations=10):
        with pytest.raises(refnet.InputError, match="this run takes"):
            refnet.verify(shipped_captures()[-1][0])
        with pytest.raises(refnet.InputError, match="this run takes"):
            refnet.write_golden(tmp_path / "g.json", "resnest-digits", "seed:0")
        with pytest.raises(refnet.InputError, match="this run takes"):
            refnet.capture("refnet", "resnest-digits", tmp_path / "c")
    assert not (tmp_path / "g.json").exists()


def test_the_limits_are_as_stated():
    """The default is forty times what an image costs in the largest network that refnet can build."""
    most = max(summary(build(entry)).flops for entry in entries().values())
    assert 40 * most < OPERATIONS
    assert MEMORY == 4 * 2**30
    with limits(operations=1) as outer:
        with limits(memory=2) as inner:
            assert (inner.operations, inner.memory) == (1, 2)
        assert (outer.operations, outer.memory) == (1, MEMORY)


def test_a_fused_node_is_as_long_as_its_nodes():
    costs = {"conv": LONG // 2, "bn": LONG // 2, "relu": 1, "fc": 1}
    assert long_ones(costs, ["relu", "fc"]) == {"relu"}
    assert long_ones(costs, ["conv", "bn", "relu", "fc"]) == frozenset()


def interrupt_after(seconds: float) -> None:
    threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGINT]).start()


def test_a_long_computation_is_left_at_once():
    begin = time.monotonic()
    interrupt_after(0.1)
    with pytest.raises(KeyboardInterrupt):
        interruptible(time.sleep, 5)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("threads", [1, 2])
def test_no_share_begins_after_an_interrupt(threads):
    """The kernel here takes 5 ms an item: with 2000 items it would take 10 s."""
    seen, begun, ended = np.zeros(2000, np.int64), threading.Event(), threading.Event()

    def kernel(work):
        begin, end = chunk(work)
        while begin < end:
            if not begun.is_set():
                begun.set()
                interrupt_after(0.1)
            for item in range(begin, end):
                time.sleep(0.005)
                seen[item] += 1
            begin, end = next_chunk(work)

    def compute():
        try:
            parallel_for(kernel, seen.size, threads)
        except Stopped:
            ended.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        interruptible(compute)
    assert ended.wait(5), "the thread goes on"
    done = seen.sum()
    assert 0 < done < 1500
    time.sleep(0.5)  # a worker's own chunk
    done = seen.sum()
    time.sleep(0.05)
    assert seen.sum() == done
    seen[:] = 0
    parallel_for(kernel, 20, threads)  # the pool lives on
    assert (seen[:20] == 1).all()


def test_results_and_errors_come_back():
    assert interruptible(lambda a, b: (a, b, current() is None), 1, 2) == (1, 2, False)
    assert current() is None
    with pytest.raises(ZeroDivisionError):
        interruptible(divmod, 1, 0)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        interruptible(lambda: np.float32(3e38) * np.float32(3e38))


BIG = """
import numpy as np
import refnet
from refnet.ops import MaxPool

def pool(size, kernel):
    node = refnet.Node("p", MaxPool((kernel, kernel), (1, 1), (kernel // 2, kernel // 2)), ("x",))
    shape = (1, 1, size, size)
    net = refnet.Graph("g", {"x": refnet.TensorType(shape)}, (node,), {"out": "p"})
    return refnet.run(net, {"x": np.zeros(shape, np.float32)})

pool(8, 4)
print("begun", flush=True)
with refnet.limits(operations=1e14):
    pool(2048, 1024)
"""


def test_control_c_ends_a_process_in_the_middle_of_one_kernel():
    """4e12 operations that one thread does as one item, in a window of which no share can be cut off."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", BIG], **pipes) as process:
        assert process.stdout.readline() == b"begun\n"
        time.sleep(0.7)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert time.monotonic() - begin < 3  # a second, on a machine that does nothing else
    assert process.returncode in (-signal.SIGINT, 130)
    assert said.rstrip().endswith(b"KeyboardInterrupt")
