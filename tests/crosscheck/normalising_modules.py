"""PyTorch modules that normalise, attend and reduce. Imported by PyTorch's Python."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


def shaken(module: nn.Module) -> nn.Module:
    """With weights of norms that are not 1 and 0."""
    for weight in module.parameters():
        if weight.dim() == 1:
            nn.init.uniform_(weight, -1.5, 1.5)
    return module


class Transformer(nn.Module):
    """A pre-norm encoder block: layer norm, attention in heads by scaled_dot_product_attention, relu."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.heads = heads
        self.before, self.between, self.last = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        shaken(self)

    def forward(self, tokens: Any) -> Any:
        n, length, width = tokens.shape
        parts = self.qkv(self.before(tokens)).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        attended = functional.scaled_dot_product_attention(q, k, v)
        x = tokens + self.out(attended.transpose(1, 2).reshape(n, length, width))
        x = x + self.down(functional.relu(self.up(self.between(x))))
        return self.last(x)


class Attention(nn.Module):
    """The same attention by its own matrix products and softmax over the last axis."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm = shaken(nn.LayerNorm((7, width)))
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, tokens: Any) -> Any:
        n, length, width = tokens.shape
        x = self.norm(tokens)
        q, k, v = (
            part(x).view(n, length, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        scores = (q @ k.transpose(-2, -1)) * self.scale
        return torch.log_softmax((torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(n, length, width), 1)


class Groups(nn.Module):
    """Group norm, instance norm and local response norm between convolutions; reductions behind them."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.group = shaken(nn.GroupNorm(4, channels))
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.instance = shaken(nn.InstanceNorm2d(channels, affine=True))
        self.whole = shaken(nn.GroupNorm(1, channels, eps=1e-3))

    def forward(self, x: Any) -> Any:
        x = functional.relu(self.group(self.first(x)))
        x = self.whole(x + self.instance(self.second(x)))
        top, low = x.amax((2, 3)), x.amin((2, 3))
        return torch.minimum(torch.maximum(top, low), x.mean((2, 3))), x.logsumexp(1), x.sum((1, 3))


class OtherEps(Transformer):
    """A port with another framework's default: 1e-3 in place of 1e-5."""

    def __init__(self) -> None:
        super().__init__()
        self.between.eps = 1e-3


class Unscaled(Transformer):
    """A port that forgets to divide the scores by the root of a head's width."""

    def forward(self, tokens: Any) -> Any:
        right = functional.scaled_dot_product_attention
        functional.scaled_dot_product_attention = lambda q, k, v: right(q, k, v, scale=1.0)
        try:
            return super().forward(tokens)
        finally:
            functional.scaled_dot_product_attention = right


class OtherAxis(Attention):
    """A softmax over queries in place of keys."""

    def forward(self, tokens: Any) -> Any:
        right = torch.softmax
        torch.softmax = lambda scores, axis: right(scores, axis - 1)
        try:
            return super().forward(tokens)
        finally:
            torch.softmax = right
