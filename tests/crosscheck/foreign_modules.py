"""PyTorch modules that no catalog has, of the kinds that people port. Imported by PyTorch's Python."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """Batch norms, in-place relus, a depthwise convolution, a skip, a classifier."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        y = functional.relu(self.norm(self.deep(x)), inplace=True)
        y = self.pool(y + x)
        return self.head(y.mean((2, 3)))


class Attention(nn.Module):
    """Two inputs, layer norm, which refnet does not have, gelu, a softmax over tokens, matrix products."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.act = nn.GELU()
        self.width = width

    def forward(self, tokens: Any, others: Any) -> Any:
        x = self.norm(tokens)
        scores = self.query(x) @ self.key(others).transpose(-2, -1) / self.width**0.5
        return self.act(tokens + torch.softmax(scores, -1) @ self.value(others))


class Branches(Residual):
    """The data decide what is executed: torch.export refuses it."""

    def forward(self, x: Any) -> Any:
        return super().forward(x if x.sum() > 0 else -x)
