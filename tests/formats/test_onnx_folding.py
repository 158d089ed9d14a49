"""Values that are computed of constants alone: where, by whom, within which limits."""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import refnet
from refnet import ops
from refnet.arithmetic.golden import Golden
from refnet.core.errors import FormatError, InputError, UnsupportedError
from refnet.formats.onnx import evaluator, fold_worker
from refnet.formats.onnx.evaluator import BYTES, SECONDS, Evaluator, limits
from tests.helpers.bits import floats, same_bits
from tests.helpers.engines import FAST
from tests.helpers.onnx_build import model, node, read, tensor
from tests.helpers.onnx_models import whole

W = floats((3, 2, 1, 1), "w")
F = np.float32


def load(nodes: list[object], constants: dict[str, object], folder: Path, **more: object) -> refnet.Graph:
    proto = model(nodes, [tensor(n, a) for n, a in constants.items()], **more)
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    return refnet.load(folder / "net.onnx")


def test_weights_of_one_number_need_no_process_and_no_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "_started", None)  # to be called is an error
    half = tensor("", np.float32([0.5]))
    nodes = [node("ConstantOfShape", "s", "w", value=half), node("Conv", "x w")]
    graph = load(nodes, {"s": np.array([4096, 2, 16, 16])}, tmp_path, shape=["n", 2, 16, 16])
    assert graph.weights["w"].size == 1 << 21
    assert (graph.weights["w"] == 0.5).all()


def test_quantized_weights_are_one_product_each(tmp_path):
    q, scale, zero = np.arange(-3, 3, dtype=np.int8).reshape(3, 2, 1, 1), np.float32(0.1), np.int8(-7)
    nodes = [node("DequantizeLinear", "q s z", "w"), node("Conv", "x w")]
    for opset in (13, 19, 21):
        graph = load(nodes, {"q": q, "s": scale, "z": zero}, tmp_path, opset=opset)
        assert same_bits(graph.weights["w"], (q.astype(np.float32) + 7) * scale)
    large = np.array([1 << 30, 3], np.int32)
    nodes = [node("DequantizeLinear", "q s", "b"), node("Add", "x b")]
    graph = load(nodes, {"q": large, "s": scale}, tmp_path, shape=[1, 2])
    said = "DequantizeLinear: of constants up to 1073741824, whose product is rounded twice"
    assert graph.by_name["b"].op.opaque == said


def test_float_arithmetic_of_constants_is_refnets_own_golden(tmp_path):
    """A batch norm of weights (weight standardisation), and a sum of three."""
    scale, zero, mean, var = (floats((2,), key) for key in ("s", "z", "m", "v"))
    constants = {"w": W, "s": scale, "z": zero, "m": mean, "v": np.abs(var) + np.float32(0.5)}
    nodes = [node("BatchNormalization", "w s z m v", "n"), node("Sum", "n n n", "t"), node("Conv", "x t")]
    graph = load(nodes, constants, tmp_path)
    exact = Golden(1).exact
    normal = ops.BatchNorm(1e-5).golden(W, scale, zero, mean, constants["v"], exact=exact)
    assert same_bits(graph.weights["t"], ops.Add(3).golden(normal, normal, normal, exact=exact))
    assert [one.name for one in graph.nodes] == ["y"]


def test_what_nobody_rounds_once_is_opaque_and_ends_nothing_else(tmp_path):
    """An operator without a rule, float64 arithmetic, and a reader without golden."""
    nodes = [
        node("Bernoulli", "w", "e"),
        node("Conv", "x e", "c"),
        node("Conv", "x w", "d"),
        node("Relu", "d"),
    ]
    graph = load(nodes, {"w": W}, tmp_path, outputs=["c", "y"])
    assert graph.by_name["e"].op == ops.Opaque(
        "Bernoulli", "of constants only, which refnet does not compute", (3, 2, 1, 1)
    )
    assert graph.by_name["c"].op.opaque.startswith("Conv: its weight 'e' is computed")
    x = floats((1, 2, 4, 4), "x")
    assert refnet.run(graph, {"x": x}, values=["y"])["y"].shape == (1, 3, 4, 4)
    with pytest.raises(UnsupportedError, match=r"(?s)Bernoulli: of constants only.*: e\b"):
        refnet.run(graph, {"x": x}, values=["c"])
    nodes = [node("ReduceSum", "d", "r", keepdims=1), node("Cast", "r", "f", to=1), node("Add", "x f")]
    graph = load(nodes, {"d": np.ones((1, 1, 1, 3))}, tmp_path)
    assert "it reads 'r', which is left out" in graph.by_name["f"].op.opaque
    nodes = [node("Sum", "w w w", "t"), node("Conv", "x t")]
    graph = read(model(nodes, [tensor("w", W)]), tmp_path)
    assert graph.by_name["t"].op.opaque.endswith("the reader was not given what rounds it")


def test_one_rounding_is_left_to_onnx(tmp_path):
    """Products, quotients and roots have one result; bfloat16 and float16 are widened."""
    nodes = [
        node("Sqrt", "a", "r"),
        node("Div", "w r", "q"),
        node("Cast", "h", "f", to=TensorProto.FLOAT),
        node("Mul", "q f", "t"),
        node("Conv", "x t"),
    ]
    a, h = np.abs(floats((3, 1, 1, 1), "a")), floats((3, 2, 1, 1), "h").astype(np.float16)
    graph = load(nodes, {"w": W, "a": a, "h": h}, tmp_path)
    assert same_bits(graph.weights["t"], (W / np.sqrt(a)) * h.astype(np.float32))


def test_a_node_is_computed_once_for_all_batches(tmp_path, monkeypatch):
    asked = []
    own = Evaluator.run
    monkeypatch.setattr(Evaluator, "run", lambda self, n, *more: asked.append(n.op) or own(self, n, *more))
    nodes = [node("Transpose", "w", "t", perm=[1, 0, 2, 3]), node("Conv", "x t")]
    load(nodes, {"w": whole((2, 3, 1, 1), "w")}, tmp_path)
    assert asked == ["Transpose"]


@pytest.mark.parametrize(
    ("variable", "amount", "nodes", "error", "said"),
    [
        (
            "REFNET_FOLD_BYTES",
            "100",
            [node("ConstantOfShape", "s", "c"), node("Add", "x c")],
            FormatError,
            "a constant of 32 elements, 128 bytes .*at most 100 bytes more of 100",
        ),
        (
            "REFNET_FOLD_BYTES",
            "1000",
            [node("Tile", "w s", "c"), node("Add", "x c")],
            FormatError,
            "a constant of",
        ),
    ],
)
def test_limits(variable, amount, nodes, error, said, tmp_path, monkeypatch):
    constants = {"s": np.array([1, 2, 4, 4]), "w": np.ones((1, 1, 9, 9), np.float32)}
    monkeypatch.setenv(variable, amount)
    with pytest.raises(error, match=said):
        load(nodes, constants, tmp_path)


def test_the_limits_are_read_and_checked(monkeypatch):
    assert limits() == (BYTES, SECONDS)
    monkeypatch.setenv("REFNET_FOLD_BYTES", "5000000000")
    monkeypatch.setenv("REFNET_FOLD_SECONDS", "7")
    assert limits() == (5_000_000_000, 7)
    for wrong in ("0", "-1", "1e9", "", "9" * 20):
        monkeypatch.setenv("REFNET_FOLD_SECONDS", wrong)
        with pytest.raises(InputError, match="REFNET_FOLD_SECONDS must be a whole number"):
            limits()


def test_gather_nd_counts_what_it_makes(tmp_path):
    """Not all data times all indices: these are 8 GiB."""
    w, rows = floats((1 << 15,), "w"), np.arange(1 << 15)[::-1, None].astype(np.int64)
    nodes = [node("GatherND", "w rows", "g"), node("Add", "x g")]
    graph = load(nodes, {"w": w, "rows": rows}, tmp_path, shape=[1, 1 << 15])
    (weight,) = graph.weights.values()
    assert same_bits(weight, w[::-1])


SLOW = "import sys, time\nsys.stdin.buffer.read(4)\ntime.sleep(60)\n"
ENDS = "import sys\nsys.stdin.buffer.read(4)\nsys.exit(3)\n"
LOUD = "import sys\nsys.stdin.buffer.read(4)\nsys.stdout.buffer.write(b'nonsense' * 99)\nsys.stdout.flush()\n"
HUGE = (
    "import json, sys\nsys.stdin.buffer.read(4)\nhead = json.dumps({'lengths': [1 << 40], 'names': ['f']})"
    ".encode()\nsys.stdout.buffer.write(len(head).to_bytes(4, 'little') + head)\nsys.stdout.flush()\n"
)


def inferred_here(_, node, kinds, shown):
    """`Evaluator.inferred` without its process."""
    given = {name: kind.hex() for name, kind in kinds.items()}
    found = fold_worker.inferred(node.proto.SerializeToString().hex(), node.opset, given, shown)
    return {name: bytes.fromhex(kind) for name, kind in found.items()}


@pytest.mark.parametrize("script", [SLOW, ENDS, LOUD, HUGE], ids=["hangs", "ends", "nonsense", "too much"])
def test_a_process_that_fails_costs_the_node_and_no_more(script, tmp_path, monkeypatch):
    """The reading goes on; nothing hangs, and no answer is believed. (What such a process does to the shape
    inference: tests/formats/test_onnx_inference.py.)"""
    monkeypatch.setattr(Evaluator, "inferred", inferred_here)
    (tmp_path / "fold_worker.py").write_text(script)
    own, run = evaluator.__file__, evaluator.Evaluator.run

    def once(*arguments):
        """The constants are asked of this process, the shape of the node of refnet's own."""
        arguments[0]._end()
        monkeypatch.setattr(evaluator, "__file__", str(tmp_path / "evaluator.py"))
        try:
            return run(*arguments)
        finally:
            monkeypatch.setattr(evaluator, "__file__", own)

    monkeypatch.setattr(evaluator.Evaluator, "run", once)
    monkeypatch.setenv("REFNET_FOLD_SECONDS", "4")
    nodes = [node("Transpose", "w", "t", perm=[1, 0, 2, 3]), node("Conv", "x t")]
    graph = load(nodes, {"w": whole((2, 3, 1, 1), "w")}, tmp_path)
    assert "its constants need more than" in graph.by_name["t"].op.opaque


def test_the_process_is_limited(tmp_path):
    """In the process itself: its memory ends before the machine's does."""
    code = "import fold_worker, numpy; fold_worker.limit(1 << 28, 60); numpy.zeros(1 << 30, numpy.uint8)"
    command, folder = [sys.executable, "-c", code], tmp_path / "alone"
    folder.mkdir()
    shutil.copy(fold_worker.__file__, folder)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert "MemoryError" in done.stderr


def standardised(tmp_path):
    """A convolution whose weight is a batch norm of constants in training mode, which names all outputs."""
    w, scale, shift = floats((3, 2, 3, 3), "w"), floats((3,), "s"), floats((3,), "b")
    zero, one = np.zeros(3, F), np.ones(3, F)
    constants = {"w": w, "rows": np.array([1, 3, -1]), "back": np.array([3, 2, 3, 3])}
    constants |= {"s": scale, "b": shift, "zero": zero, "one": one}
    nodes = [
        node("Reshape", "w rows", "r"),
        node("BatchNormalization", "r s b zero one", "n mean var", training_mode=1, epsilon=1e-3),
        node("Reshape", "n back", "k"),
        node("Conv", "x k", pads=[1, 1, 1, 1]),
    ]
    return load(nodes, constants, tmp_path), w, scale, shift


def test_standardised_weights_have_the_statistics_of_their_channels(tmp_path):
    graph, w, scale, shift = standardised(tmp_path)
    exact = [[float(v) for v in row.astype(np.float64).reshape(-1)] for row in w]
    for channel, row in enumerate(exact):
        mean = sum(row) / 18
        root = (sum((v - mean) ** 2 for v in row) / 18 + 1e-3) ** 0.5
        expected = [(v - mean) / root * float(scale[channel]) + float(shift[channel]) for v in row]
        assert same_bits(graph.weights["k"][channel].reshape(-1), np.float32(expected))
    two = load(
        [node("BatchNormalization", "w s b s s", "n", training_mode=1), node("Conv", "x n")],
        {"w": floats((3, 2, 1, 1), "v"), "s": np.ones(2, F), "b": np.zeros(2, F)},
        tmp_path,
    )
    made = two.weights["n"].astype(np.float64)  # each rounded once, and their exact mean is 0 by channel
    assert (np.abs(made.mean((0, 2, 3))) <= np.abs(made).max((0, 2, 3)) * 2.0**-24 * (1 + 2.0**-20)).all()
    assert [one.name for one in two.nodes] == ["y"]


def test_what_others_round_otherwise_is_judged_by_a_bound(tmp_path):
    """Their standardised weight: each float32 operation in NumPy's order. A wrong one is a defect still."""
    graph, w, scale, shift = standardised(tmp_path)
    rows = w.reshape(3, -1)
    apart = rows - rows.mean(1, keepdims=True)
    inverse = F(1) / np.sqrt((apart * apart).mean(1, keepdims=True) + F(1e-3))
    theirs = rows * (inverse * scale[:, None]) + (shift - rows.mean(1) * (inverse[:, 0] * scale))[:, None]
    off = np.abs(theirs.reshape(w.shape) - graph.weights["k"])
    assert theirs.dtype == F
    assert (off <= graph.rounded["k"]).all()
    assert off.max() > 0
    x = floats((1, 2, 4, 4), "x")

    def verdict(weight: np.ndarray) -> str:
        y = graph.nodes[0].op.run(x, weight.reshape(w.shape), engine=FAST)
        (one,) = refnet.verify({"y": y}, graph, inputs={"x": x}).nodes
        return one.verdict, (one.reason or "").split(",")[0]

    assert verdict(graph.weights["k"])[0] == "replayed"
    # off by so much that the bound of the convolution alone does not hold it
    moved = graph.weights["k"] + graph.rounded["k"] * F(0.99)
    assert verdict(moved) == ("rounding", "its weight 'k' was computed of constants")
    assert verdict(theirs)[0] == "rounding"
    unbiased = apart / np.sqrt((apart * apart).sum(1, keepdims=True) / F(17) + F(1e-3))
    assert verdict(unbiased * scale[:, None] + shift[:, None])[0] == "defect"


def test_a_weight_that_may_be_anything_proves_nothing(tmp_path):
    """A difference of two exps that is smaller than their errors: any number of its size lies inside."""
    nodes = [node("Exp", "a", "p"), node("Exp", "b", "q"), node("Sub", "p q", "w"), node("Mul", "x w")]
    nodes.append(node("Concat", "y y", "z", axis=1))
    a = F([[1.5]])
    graph = load(nodes, {"a": a, "b": np.nextafter(a, F(0))}, tmp_path, shape=[1, 1], outputs=["z"])
    assert (graph.rounded["w"] > np.abs(graph.weights["w"])).all()
    x, wrong = F([[3]]), -graph.weights["w"] / 2
    one = refnet.verify({"y": x * wrong}, graph, inputs={"x": x}).nodes[0]
    assert one.verdict == "unjudged"
    assert one.reason is not None
    assert one.reason.endswith("the bound is wider than the value: zeros would lie in it too")


@pytest.mark.parametrize(("op", "said"), [("Sigmoid", "rounding"), ("Neg", "defect")])
def test_no_defect_where_others_round_a_constant_otherwise(op, said, tmp_path):
    """A sigmoid of constants may be off by an ulp; the sign of a constant may not."""
    nodes = [
        node(op, "w", "s"),
        node("Transpose", "s", "t"),
        node("Add", "x t", "a"),
        node("Mul", "a w", "y"),
    ]
    nodes.append(node("Concat", "x t", "c", axis=1))
    w, x = floats((2, 1), "w"), floats((1, 2), "x")
    graph = load(nodes, {"w": w}, tmp_path, shape=[1, 2], outputs=["y", "c"])
    assert set(graph.rounded) == ({"t/value"} if op == "Sigmoid" else set())
    t = np.nextafter(graph.weights["t/value"], F(9))
    values = {"a": x + t, "y": (x + t) * w, "c": np.concatenate([x, t], 1)}

    def verdicts(values: dict[str, np.ndarray]) -> dict[str, str]:
        return {one.name: one.verdict for one in refnet.verify(values, graph, inputs={"x": x}).nodes}

    assert verdicts(values) == {"t": "missing", "a": said, "y": "equal", "c": said}
    assert verdicts({**values, "t": t}) == {"t": said, "a": said, "y": "equal", "c": "equal"}
    assert verdicts({**values, "y": 2 * (x + t) * w})["y"] == "defect"


def test_a_rounded_constant_is_no_attribute(tmp_path):
    """An op's bound covers its weights, but takes its limits, sizes and exponent for exact."""
    e, c = node("Exp", "c", "e"), np.float32(0.3)
    graph = load([e, node("Pow", "x e")], {"c": c}, tmp_path, shape=[1, 4])
    assert graph.by_name["y"].op == ops.Pow(((1,),))
    assert list(graph.rounded) == ["e"]
    said = "its 'e' was computed of constants, with roundings; the framework's may differ"
    clip = [e, helper.make_node("Clip", ["x", "", "e"], ["y"]), node("Relu", "y", "z")]
    graph = load(clip, {"c": c}, tmp_path, shape=[1, 4], outputs=["z"])
    assert graph.by_name["y"].op == ops.Opaque("Clip", said, (1, 4))


def test_what_rounded_constants_decide_has_no_bound(tmp_path):
    """A limit, and the index of the largest of two that may change places."""
    w = np.float32([1, 1.3, 1.4, 2])
    nodes = [node("Exp", "c", "e"), helper.make_node("Clip", ["w", "", "e"], ["v"]), node("Mul", "x v")]
    graph = load(nodes, {"c": np.float32(0.3), "w": w}, tmp_path, shape=[1, 4])
    assert graph.rounded == {"v": None}
    nodes = [
        node("Exp", "c", "e"),
        node("ArgMax", "e", "i", axis=0, keepdims=0),
        node("Gather", "w i", "v"),
        node("Mul", "x v"),
    ]
    graph = load(nodes, {"c": np.float32([0.3, 0.3]), "w": w}, tmp_path, shape=[1, 4])
    assert graph.rounded == {"v": None}


def encoding(tmp_path):
    """A position encoding as PyTorch's exporter writes it: sines, laid out by their own shape."""
    steps, rates = F([1, 2, 3, 4]).reshape(4, 1), F([1, 5, 10]).reshape(1, 3)
    constants = {"steps": steps, "rates": rates, "eps": F(1e-6), "turn": F(2 * np.pi), "zero": np.array([0])}
    constants |= {"one": np.array([1]), "last": np.array([3]), "end": np.array([4]), "flat": np.array([-1])}
    nodes = [
        node("Slice", "steps last end zero", "largest"),
        node("Add", "largest eps", "divisor"),
        node("Div", "steps divisor", "part"),
        node("Mul", "part turn", "angle"),
        node("Exp", "rates", "growth"),
        node("Div", "angle growth", "scaled"),
        node("Sin", "scaled", "sine"),
        node("Shape", "sine", "sizes"),
        node("Slice", "sizes zero one", "first"),
        node("Concat", "first flat", "target", axis=0),
        node("Reshape", "sine target", "encoded"),
        node("Unsqueeze", "encoded zero", "w"),
        node("Add", "x w"),
    ]
    return load(nodes, constants, tmp_path, shape=[1, 4, 3]), steps, rates


def test_the_shape_of_a_rounded_constant_is_exact(tmp_path):
    """So what is laid out by it has a bound: that of the sines. Others' float32 steps lie inside."""
    graph, steps, rates = encoding(tmp_path)
    off = graph.rounded["w"]
    assert off is not None
    assert off.shape == (1, 4, 3)
    angle = steps / (steps[-1:] + F(1e-6)) * F(2 * np.pi)
    scaled = angle.astype(np.float64) / np.exp(rates.astype(np.float64))
    # exp is off by 4 U + 1.125 U (|rate| + 1) of itself, its rounding here included; then a quotient; then a
    # library's sine (see trigonometry.py) and this one's rounding. A half more covers what all of it bounds
    exp = (4 + 1.125 * (rates.astype(np.float64) + 1)) * 2.0**-24
    by_hand = np.abs(np.cos(scaled)) * scaled * (exp + 3 * 2.0**-24) + np.abs(np.sin(scaled)) * 5 * 2.0**-24
    assert (off[0] <= 1.5 * by_hand + scaled**2 * 2.0**-40 + 2.0**-120).all()
    theirs = np.sin(angle / np.exp(rates))[None]
    assert theirs.dtype == F
    assert (np.abs(theirs - graph.weights["w"]) <= off).all()
    x = np.zeros((1, 4, 3), F)

    def verdict(weight: np.ndarray) -> str:
        (one,) = refnet.verify({"y": x + weight}, graph, inputs={"x": x}).nodes
        return one.verdict

    w = graph.weights["w"]
    assert verdict(w) == "equal"
    for sign in (F(-1), F(1)):
        assert verdict(w + sign * off * F(0.9)) == "rounding"
    for place in np.ndindex(w.shape):
        moved = w.copy()
        moved[place] += 2 * off[place] + np.spacing(np.abs(w[place]))
        assert verdict(moved) == "defect"
    assert verdict(np.cos(angle / np.exp(rates))[None]) == "defect"


def chain(count: int, first: str = "w") -> list[object]:
    """So many moves of one constant, then an Add of the last."""
    names = [first, *(f"t{k}" for k in range(count))]
    moves = [node("Transpose", a, b) for a, b in pairwise(names)]
    return [*moves, node("Add", f"x {names[-1]}")]


def test_what_nobody_needs_any_more_does_not_count(tmp_path, monkeypatch):
    """Three constants of 4,000 bytes, 8,000 before their type is known, within 13,000 bytes."""
    monkeypatch.setenv("REFNET_FOLD_BYTES", "13000")
    w = whole((10, 100), "w")
    for batch in (
        1,
        "n",
    ):  # with an open batch the graph is built three times, the constants are computed once
        graph = load(chain(3), {"w": w}, tmp_path, shape=[batch, 100, 10])
        assert same_bits(next(iter(graph.weights.values())), w.T)
    nodes = [*chain(3)[:-1], node("Sum", "x t0 t2"), node("Add", "x t1", "z")]
    with pytest.raises(FormatError, match=r" 8000 bytes in .*'n_t2' .*at most 5000 bytes more of 13000"):
        load(nodes, {"w": whole((10, 10, 10), "w")}, tmp_path, shape=[1, 10, 10], outputs=["y", "z"])


def test_what_each_batch_computes_anew_is_not_forgotten(tmp_path):
    w, nodes = whole((3, 2), "w"), [node("Transpose", "w", "t"), node("Shape", "x", "s")]
    nodes += [node("Expand", "t s", "e"), node("Slice", "e zero one zero", "first"), node("Add", "x first")]
    constants = {"w": w, "zero": np.array([0]), "one": np.array([1])}
    graph = load(nodes, constants, tmp_path, shape=["n", 2, 3])
    assert same_bits(graph.weights["first"], w.T[None])


def test_a_chain_that_does_not_end_does(tmp_path, monkeypatch):
    """All that is computed counts against a limit of its own, four times the first."""
    monkeypatch.setenv("REFNET_FOLD_BYTES", "13000")
    with pytest.raises(FormatError, match=r" 8000 bytes in .*'n_t12' .*at most 4000 bytes more of 52000"):
        load(chain(40), {"w": whole((10, 100), "w")}, tmp_path, shape=[1, 10, 100])
