"""Networks of zoo_modules.py with one bug each, as PyTorch executes them. Imported by PyTorch's Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.crosscheck import zoo_modules


def network(source: str, name: str, size: int, bug: str = "") -> nn.Module:
    """A network of `zoo_modules.network` with weights that hide nothing, and with a bug of BUGS ("": none).

    Scales and shifts that begin as ones and zeros are drawn: without them "no affine part" is no bug.
    """
    model = zoo_modules.network(source, name, size)
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.ndim == 1 and (weight == weight[0]).all():
            base = float(weight[0].item())
            nn.init.uniform_(weight, base - 0.4, base + 0.4)
    model.eval()
    if bug:
        BUGS[bug](model)
    return model


def the(model: Any, path: str, **attributes: Any) -> None:
    """Set attributes of the module at a path."""
    part = model.get_submodule(path)
    for name, value in attributes.items():
        if not hasattr(part, name):
            raise AttributeError(f"{path} has no {name!r}")
        setattr(part, name, value)


def halved(model: Any, path: str) -> None:
    """The weights of a module through float16."""
    model.get_submodule(path).half().float()


def unbiased(model: Any, path: str, count: int) -> None:
    """Bessel's correction on a variance that has it."""
    model.get_submodule(path).running_var.mul_(count / (count - 1))


def tanh_form(model: Any, path: str) -> None:
    """gelu's approximation for gelu."""
    the(model, path, activation=lambda x: functional.gelu(x, approximate="tanh"))


def transposed(model: Any, path: str) -> None:
    """A square layer's weight as (in, out)."""
    layer = model.get_submodule(path)
    layer.weight = nn.Parameter(layer.weight.detach().T.contiguous())


BUGS: dict[str, Callable[[Any], None]] = {
    "gelu tanh": lambda m: tanh_form(m, "layers.1"),
    "norm eps": lambda m: the(m, "layers.1.norm2", eps=1e-3),
    "batch norm eps": lambda m: the(m, "deep.1", eps=1e-3),
    "unbiased": lambda m: unbiased(m, "second.1", 1024),
    "half weights": lambda m: halved(m, "joins.1.0"),
    "corners": lambda m: the(m, "ups.1.0", align_corners=False),
    "groups": lambda m: the(m, "stages.1.blocks.0.norm1", num_groups=4),
    "padding counted": lambda m: the(m, "mean", count_include_pad=True),
    "divisor": lambda m: the(m, "ragged", divisor_override=9),
    "leaky slope": lambda m: the(m, "leak", negative_slope=0.01),
    "one slope": lambda m: m.slopes.weight.data.fill_(float(m.slopes.weight[0])),
    "square": lambda m: transposed(m, "square"),
    "alpha": lambda m: the(m, "norm", alpha=5 * m.norm.alpha),
    "dilation": lambda m: the(m, "spread", dilation=(1, 1), padding=(1, 1)),
}
"""Name of a bug of foreign_bugs.py -> what plants it."""
