"""PyTorch's table: each row is a function of the worker; what PyTorch lacks is refused, not asked wrongly."""

from __future__ import annotations

import contextlib

import pytest

from refnet import ops
from refnet.core.errors import UnsupportedError
from refnet.core.op import Op, TensorType
from refnet.frameworks.torch_ops import torch_function
from refnet.frameworks.torch_worker import FUNCTIONS
from tests.ops.test_ops_rules import EXAMPLES, Example, arguments

IMAGE = TensorType((1, 2, 8, 8))


@pytest.mark.parametrize("example", EXAMPLES, ids=[repr(e.op) for e in EXAMPLES])
def test_a_row_is_a_function_of_the_worker(example: Example) -> None:
    types = [TensorType(array.shape) for array in arguments(example)]
    with contextlib.suppress(UnsupportedError):
        function, _ = torch_function(example.op, *types)
        assert function in FUNCTIONS


@pytest.mark.parametrize(
    "op",
    [
        ops.Conv(3, (2, 2), pad_end=(1, 0)),
        ops.MaxPool((2, 2), pad_end=(1, 0)),
        ops.AvgPool((2, 2), pad=(1, 1), pad_end=(0, 1)),
        ops.AvgPool((2, 2), dilation=(2, 1)),
        ops.Softmax(1, trailing=True),
    ],
    ids=repr,
)
def test_what_pytorch_lacks_is_refused(op: Op) -> None:
    with pytest.raises(UnsupportedError, match="has no counterpart in PyTorch"):
        torch_function(op, IMAGE)


def test_windows() -> None:
    pool = ops.MaxPool((3, 2), (2, 3), (1, 0), "ceil", dilation=(2, 1))
    place = {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True}
    assert torch_function(pool, IMAGE) == ("max_pool2d", {**place, "dilation": (2, 1)})
    same = ops.AvgPool((2, 2), (3, 3), pad_end=(0, 0), count_include_pad=False)
    place = {"kernel_size": (2, 2), "stride": (3, 3), "padding": (0, 0), "ceil_mode": False}
    assert torch_function(same, IMAGE) == ("avg_pool2d", {**place, "count_include_pad": False})
    more = ops.AvgPool((3, 3), (2, 2), convention="full")  # a fourth window, half of it in the image
    assert torch_function(more, IMAGE)[1]["ceil_mode"]
